"""Checks histories of one register for linearizability (Wing and Gong's search, with Lowe's memory of visited states).

An operation is (start, end, kind, arguments): "write" value, "read" value, "cas" (index or 0, value, done). Values are
hashable. `end` is None for an operation whose outcome is unknown: it may take effect at any later moment, or never.
The register's state is (value, version); every successful write makes a new version. What a cas compares is the version, which a
client knows as an opaque token: here, the value that it read, since each write has a value of its own.
"""


class Operation:
    __slots__ = ("start", "end", "kind", "value", "expected", "done")

    def __init__(self, start, end, kind, value=None, expected=None, done=True):
        self.start, self.end = start, end
        self.kind, self.value = kind, value
        self.expected = expected  # cas: the value that must be there
        self.done = done          # cas: whether it was

    def __repr__(self):
        return "%s(%r%s) %s [%.4f, %s]" % (
            self.kind, self.value, ", if %r" % (self.expected,) if self.kind == "cas" else "",
            "" if self.done else "refused", self.start,
            "%.4f" % self.end if self.end is not None else "unknown")


def apply(operation, state):
    """The state after the operation in `state`, or None if it cannot have happened there."""
    if operation.kind == "write":
        return (operation.value,)
    if operation.kind == "read":
        return state if state[0] == operation.value else None
    if operation.end is None:  # a cas of unknown outcome
        return (operation.value,) if state[0] == operation.expected else state
    if operation.done:
        return (operation.value,) if state[0] == operation.expected else None
    return state if state[0] != operation.expected else None


def relevant(operations):
    """Without what cannot matter: reads that were not answered, and writes of unknown outcome whose value nobody has seen. Such a
    write may as well never happen, unless a cas was refused: it may be what stood in its way."""
    seen = {one.value for one in operations if one.kind == "read"}
    seen |= {one.expected for one in operations if one.kind == "cas"}
    refused = any(one.kind == "cas" and one.end is not None and not one.done for one in operations)
    return [one for one in operations
            if one.end is not None or (one.kind != "read" and (refused or one.value in seen))]


def check(operations, initial=None, states_max=200000):
    """True if some order of the operations, each between its start and its end, explains all answers; None if that was not decided
    within so many states: the search takes exponential time when many outcomes are unknown."""
    infinity = float("inf")
    operations = sorted(relevant(operations), key=lambda one: one.start)
    ends = [infinity if one.end is None else one.end for one in operations]
    count = len(operations)
    must = sum(1 << position for position in range(count) if operations[position].end is not None)
    seen = set()
    stack = [(0, (initial,))]
    while stack:
        taken, state = stack.pop()
        if taken & must == must:
            return True
        if (taken, state) in seen:
            continue
        if len(seen) == states_max:
            return None
        seen.add((taken, state))
        # Whatever began after the first end among the untaken cannot come next.
        candidates, first_end = [], infinity
        for position in range(count):
            if not taken >> position & 1:
                if operations[position].start > first_end:
                    break
                first_end = min(first_end, ends[position])
                candidates.append(position)
        following = [(position, apply(operations[position], state)) for position in candidates
                     if operations[position].start <= first_end]
        following = [(position, after) for position, after in following if after is not None]
        # What happens without changing anything may as well happen now: no other order gains by delaying it.
        idle = [position for position, after in following
                if after == state and operations[position].end is not None]
        if idle:
            stack.append((taken | sum(1 << position for position in idle), state))
            continue
        stack.extend((taken | 1 << position, after) for position, after in following)
    return False
