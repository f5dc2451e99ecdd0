#!/usr/bin/env python3
"""Makes copies of the sources in which every deliberate defect of mutants.toml sleeps until it is called by name.

    weave.py --files           the sources that have defects, one a line
    weave.py ROOT OUT FILE...  writes a woven copy of each ROOT/FILE to OUT/FILE

An expression `old` becomes `(MUTANT(name) ? (new) : (old))`, a statement `if (MUTANT(name)) { new } else { old }`. The text must
stand exactly once in the source: a source that has changed says so here, and not by a defect that is tried no more.
"""
import os
import sys

import table


def replacement(name, change, old):
    if change.get("before"):
        return "if (MUTANT(%s)) {\n%s\n}\n%s" % (name, change["new"], old)
    if change.get("statement"):
        return "if (MUTANT(%s)) {\n%s\n} else {\n%s\n}" % (name, change["new"], old)
    return "(MUTANT(%s) ? (%s) : (%s))" % (name, change["new"], old)


def place_of(name, path, text, change):
    """Where the text to be changed begins. It, or what it is looked for in, must be there once."""
    within = change.get("within", change["old"])
    for part, whole in ((within, text), (change["old"], within)):
        if whole.count(part) != 1:
            raise table.Fault("mutant %s: %s has %d times: %s" % (name, path, whole.count(part), part.strip()))
    return text.index(within) + within.index(change["old"])


def woven(path, text, changes):
    """`text` with the changes [(mutant's name, change)]; those of the same place one within the other."""
    places = {}
    for name, change in changes:
        place = place_of(name, path, text, change), change["old"]
        places[place] = replacement(name, change, places.get(place, change["old"]))
    # From the end, so that the places before stay where they are.
    end = len(text)
    for start, old in sorted(places, reverse=True):
        if start + len(old) > end:
            raise table.Fault("%s: two mutants change overlapping text: %s" % (path, old))
        text = text[:start] + places[start, old] + text[start + len(old):]
        end = start
    return '#include "tests/sim/mutants/mutant.h"\n#line 1 "%s"\n%s' % (path, text)


def main():
    _, mutants = table.read()
    by_file = table.changes(mutants)
    if sys.argv[1:] == ["--files"]:
        print("\n".join(sorted(by_file)))
        return
    root, out, *paths = sys.argv[1:]
    for path in paths:
        with open(os.path.join(root, path), encoding="utf-8") as source:
            text = woven(path, source.read(), by_file[path])
        target = os.path.join(out, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as copy:
            copy.write(text)


if __name__ == "__main__":
    try:
        main()
    except table.Fault as fault:
        sys.exit("weave.py: %s" % fault)
