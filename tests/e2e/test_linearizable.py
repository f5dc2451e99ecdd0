"""The checker itself: what it must accept, and what it must not."""
import itertools
import random

import pytest

from linearizable import Operation, apply, check


def write(start, end, value):
    return Operation(start, end, "write", value)


def read(start, end, value):
    return Operation(start, end, "read", value)


def cas(start, end, expected, value, done):
    return Operation(start, end, "cas", value, expected, done)


@pytest.mark.parametrize("name, history, expected", [
    ("nothing", [], True),
    ("a read of the beginning", [read(0, 1, None)], True),
    ("a read of what was written", [write(0, 1, 1), read(2, 3, 1)], True),
    ("a stale read", [write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)], False),
    ("a read of what nobody wrote", [write(0, 1, 1), read(2, 3, 9)], False),
    ("a read amid a write sees either", [write(0, 1, 1), write(2, 5, 2), read(3, 4, 1)], True),
    ("a read amid a write sees the new one", [write(0, 1, 1), write(2, 5, 2), read(3, 4, 2)], True),
    ("reads amid a write go back",
     [write(0, 1, 1), write(2, 9, 2), read(3, 4, 2), read(5, 6, 1)], False),
    ("an unknown write that happened", [write(0, None, 1), read(5, 6, 1)], True),
    ("an unknown write that did not", [write(0, None, 1), read(5, 6, None)], True),
    ("an unknown write that happens late",
     [write(0, None, 1), read(1, 2, None), read(3, 4, 1)], True),
    ("an unknown write that is undone",
     [write(0, None, 1), read(1, 2, 1), read(3, 4, None)], False),
    ("a cas in order", [write(0, 1, 1), cas(2, 3, 1, 2, True), read(4, 5, 2)], True),
    ("two cas from one value", [write(0, 1, 1), cas(2, 5, 1, 2, True), cas(2, 5, 1, 3, True)], False),
    ("a cas refused for no reason", [write(0, 1, 1), cas(2, 3, 1, 2, False)], False),
    ("a cas refused rightly", [write(0, 1, 1), write(2, 3, 2), cas(4, 5, 1, 3, False)], True),
    ("an unknown cas that happened",
     [write(0, 1, 1), cas(2, None, 1, 2, True), read(3, 4, 2)], True),
    ("a read that was not answered", [write(0, 1, 1), read(2, None, 7)], True),
])
def test_histories(name, history, expected):
    assert check(history) is expected, name


def explained(operations):
    """The same question, answered by trying everything."""
    open_ones = [one for one in operations if one.end is None]
    for mask in range(1 << len(open_ones)):
        chosen = [one for one in operations if one.end is not None]
        chosen += [one for position, one in enumerate(open_ones) if mask >> position & 1]
        for order in itertools.permutations(chosen):
            if any(later.end is not None and later.end < earlier.start
                   for position, earlier in enumerate(order) for later in order[position + 1:]):
                continue
            state = (None,)
            for one in order:
                state = apply(one, state)
                if state is None:
                    break
            else:
                return True
    return False


def test_random_histories_are_judged_as_by_trying_everything():
    random.seed(1)
    verdicts = []
    for _ in range(1500):
        operations, values = [], [None]
        for number in range(random.randint(1, 5)):
            start = random.uniform(0, 10)
            end = start + random.uniform(0.1, 6) if random.random() < 0.7 else None
            kind = random.choice(("read", "write", "cas"))
            if kind == "read":
                operations.append(read(start, end, random.choice(values)))
            elif kind == "write":
                operations.append(write(start, end, number))
                values.append(number)
            else:
                operations.append(cas(start, end, random.choice(values), number,
                                      random.random() < 0.6))
                values.append(number)
        judged = [one for one in operations if one.end is not None or one.kind != "read"]
        verdicts.append(check(operations))
        assert verdicts[-1] is explained(judged), operations
    assert 300 < sum(verdicts) < 1200
