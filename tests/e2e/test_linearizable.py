"""The checker itself: what it must accept, and what it must not."""
import pytest

from linearizable import Operation, check


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
