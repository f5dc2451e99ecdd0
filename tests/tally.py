#!/usr/bin/env python3
"""Counts what a test program says: prints "N passed, M failed".

    tally.py ctest FILE    ctest's JUnit file; a cmocka program counts its tests, others one each
    tally.py pytest FILE   pytest's JUnit file; a skipped test is told, and counts as failed
    tally.py runner FILE   a log whose last "N passed, M failed" line counts
"""
import re
import sys
import xml.etree.ElementTree


def cases(path):
    return xml.etree.ElementTree.parse(path).getroot().iter("testcase")


def of_ctest(path):
    passed = failed = 0
    for case in cases(path):
        output = case.findtext("system-out") or ""
        good = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", output))
        bad = sum(int(n) for n in re.findall(r"\[  FAILED  \] (\d+) test", output))
        ran_well = case.get("status") == "run" and case.find("failure") is None
        if not ran_well:
            print("FAIL %s: %s" % (case.get("name"), " | ".join(
                line for line in output.splitlines()
                if re.search(r"FAILED|ERROR|error|assert|fail", line))[:600]))
            bad = max(bad, 1)
        elif good == 0:
            good = 1
        passed, failed = passed + good, failed + bad
    return passed, failed


def of_pytest(path):
    passed = failed = 0
    for case in cases(path):
        name = "%s.%s" % (case.get("classname"), case.get("name"))
        faults = [fault for kind in ("failure", "error", "skipped") for fault in case.findall(kind)]
        if faults:
            print("FAIL %s: %s" % (name, (faults[0].get("message") or faults[0].tag)[:300]))
            failed += 1
        else:
            passed += 1
    return passed, failed


def of_runner(path):
    with open(path, encoding="utf-8", errors="replace") as log:
        counts = re.findall(r"^(\d+) passed, (\d+) failed$", log.read(), re.M)
    return (int(counts[-1][0]), int(counts[-1][1])) if counts else (0, 1)


def main():
    kinds = {"ctest": of_ctest, "pytest": of_pytest, "runner": of_runner}
    try:
        passed, failed = kinds[sys.argv[1]](sys.argv[2])
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        print("FAIL no result: %s" % error)
        passed, failed = 0, 1
    if passed + failed == 0:
        print("FAIL nothing ran")
        failed = 1
    print("%d passed, %d failed" % (passed, failed))


if __name__ == "__main__":
    main()
