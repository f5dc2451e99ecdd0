#!/usr/bin/env python3
"""Every test that docs/testing.md names for a known kind of bug exists.

After `<!-- regressions -->`, the last column of each row names files and tests in them (`test_x.c` `a_test`, `another`; ...) and
deliberate defects (mutant `a_defect`). A test in C must be in its program's list, one in Python a function, a defect in the table.
Prints one line per fault; the last line is "N passed, M failed" (names)."""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "sim", "mutants"))
import table  # noqa: E402  (its place is told above)

TESTS = os.path.dirname(os.path.abspath(__file__))
FOLDERS = {".c": "unit", ".py": "e2e"}


def names_of_file(name):
    """The tests in a file; None: there is no such file."""
    path = os.path.join(TESTS, FOLDERS[os.path.splitext(name)[1]], name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if name.endswith(".py"):
        return set(re.findall(r"^def (test_\w+)", text, re.M))
    # A function that no list names is not run.
    defined = set(re.findall(r"^static void (\w+)\(void \*\*", text, re.M))
    return {test for test in defined if len(re.findall(r"\b%s\b" % test, text)) > 1}


def rows():
    """(bug, tests) of each row."""
    with open(os.path.join(os.path.dirname(TESTS), "docs", "testing.md"), encoding="utf-8") as file:
        text = file.read().split("<!-- regressions -->")[1]
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and not set(cells[0]) <= set("-") and "`" in cells[2]:
            yield cells[0], cells[2]


def faults_of(bug, tests, mutants):
    passed, faults = 0, []
    for part in tests.split(";"):
        names = re.findall(r"`([^`]+)`", part)
        if part.strip().startswith("mutant"):
            known, where = mutants, "the table of defects"
        else:
            where, names = names[0], names[1:]
            known = names_of_file(where)
            if known is None:
                faults.append("%s: there is no file %s" % (bug, where))
                continue
        for name in names:
            if name in known:
                passed += 1
            else:
                faults.append("%s: %s has no %s" % (bug, where, name))
    return passed, faults


def main():
    mutants = {mutant["name"] for mutant in table.read()[1]}
    passed, faults, count = 0, [], 0
    for bug, tests in rows():
        count += 1
        good, bad = faults_of(bug, tests, mutants)
        passed += good
        faults += bad
    if count < 30:
        faults.append("docs/testing.md: only %d rows were found" % count)
    for fault in faults:
        print("FAIL %s" % fault)
    print("%d passed, %d failed" % (passed, len(faults)))
    return 0 if not faults else 1


if __name__ == "__main__":
    sys.exit(main())
