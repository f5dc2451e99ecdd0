"""A failing sequence made as short as it can be: first fewer steps, then simpler ones."""
import copy


def fewer(steps, fails):
    """Zeller's ddmin. `fails` tells whether a sequence still shows the difference."""
    chunks = 2
    while len(steps) > 1:
        size = max(1, len(steps) // chunks)
        for first in range(0, len(steps), size):
            rest = steps[:first] + steps[first + size:]
            if rest and fails(rest):
                steps, chunks = rest, max(chunks - 1, 2)
                break
        else:
            if size == 1:
                return steps
            chunks = min(len(steps), chunks * 2)
    return steps


def without(value):
    """The value with one thing less, in all ways."""
    if isinstance(value, dict):
        for key in value:
            yield {name: one for name, one in value.items() if name != key}
            for smaller in without(value[key]):
                yield dict(value, **{key: smaller})
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield value[:number] + value[number + 1:]
            for smaller in without(one):
                yield value[:number] + [smaller] + value[number + 1:]


def simpler(step):
    """One step with a parameter, or a part of its document, less."""
    for number in range(len(step.get("params", []))):
        smaller = copy.deepcopy(step)
        del smaller["params"][number]
        yield smaller
    for number in range(len(step.get("headers", []))):
        smaller = copy.deepcopy(step)
        del smaller["headers"][number]
        yield smaller
    for document in without(step.get("json")):
        yield dict(step, json=document)


def shrink(steps, fails, tries=150):
    """The shortest that was found within so many tries."""
    left = [tries]

    def bounded(candidate):
        left[0] -= 1
        return left[0] > 0 and fails(candidate)

    steps = fewer(steps, bounded)
    again = True
    while again and left[0] > 0:
        again = False
        for number, step in enumerate(steps):
            for candidate in simpler(step):
                if bounded(steps[:number] + [candidate] + steps[number + 1:]):
                    steps = steps[:number] + [candidate] + steps[number + 1:]
                    again = True
                    break
            if again:
                break
    return steps
