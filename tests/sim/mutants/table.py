"""Reads mutants.toml, the table of deliberate defects, and holds it to its form."""
import os
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
FIELDS = {"name", "breaks", "mode", "seeds", "caught_by", "change"}


class Fault(Exception):
    """The table, or a source that it speaks of, is not as it must be."""


def read(path=os.path.join(HERE, "mutants.toml")):
    """The mode's arguments by its name, and the mutants in the table's order."""
    with open(path, "rb") as file:
        table = tomllib.load(file)
    mutants = table["mutant"]
    names = [mutant["name"] for mutant in mutants]
    for mutant in mutants:
        missing = FIELDS - {"caught_by"} - mutant.keys()
        if missing or mutant.keys() - FIELDS:
            raise Fault("%s: fields missing or unknown: %s" % (
                mutant["name"], ", ".join(sorted(missing | (mutant.keys() - FIELDS)))))
        if names.count(mutant["name"]) > 1:
            raise Fault("%s: twice in the table" % mutant["name"])
        if mutant["mode"] not in table["mode"]:
            raise Fault("%s: no mode %s" % (mutant["name"], mutant["mode"]))
    return table["mode"], mutants


def changes(mutants):
    """The changes by file: file -> [(mutant's name, change)]."""
    by_file = {}
    for mutant in mutants:
        for change in mutant["change"]:
            by_file.setdefault(change["file"], []).append((mutant["name"], change))
    return by_file
