#!/usr/bin/env python3
"""The tables in docs/ say what the code says.

docs/configuration.md: every key of server/config_keys.c, in its order, with what becomes of it.
docs/metrics.md: every metric of server/metrics.c and server/server_dns.c.
docs/limits.md: every constant whose name says _MAX (or _LIMIT), with its value and file.

    check_docs.py           compares; the last line is "N passed, M failed" (tables)
    check_docs.py --write   brings the tables up to date; texts in the last column are kept
"""
import ast
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USES = {"HONOURED": "honoured", "IGNORED": "no effect", "ALWAYS": "always", "REFUSED": "refused"}
TABLES = (("config_keys", ""), ("config_service_keys", "service."), ("config_check_keys", "check."))
BEGIN, END = "<!-- table: %s -->", "<!-- end of table -->"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


# --- configuration keys ---

def config_rows():
    text = read("server/config_keys.c")
    rows = []
    for table, prefix in TABLES:
        body = re.search(r"%s\[\] = \{(.*?)\n\};" % table, text, re.S).group(1)
        for path, kind, use, note in re.findall(
                r'\{\s*"([^"]+)",\s*CONFIG_(\w+),\s*CONFIG_(\w+),\s*(NULL|(?:"[^"]*"\s*)+)\}', body):
            note = "" if note == "NULL" else "".join(re.findall(r'"([^"]*)"', note))
            rows.append(("`%s%s`" % (prefix, path), kind.lower(), USES[use], note))
    return rows


# --- metrics ---

def metric_rows():
    rows = []
    for kind, name, text in re.findall(
            r'\{METRIC_(\w+),\s*"([^"]+)",\s*((?:"[^"]*"\s*)+)\}', read("server/metrics.c")):
        rows.append(("`%s`" % name, kind.lower(), "".join(re.findall(r'"([^"]*)"', text))))
    for name, text in re.findall(
            r'\{"(dns\.[^"]+)",\s*((?:"[^"]*"\s*)+),\s*offsetof', read("server/server_dns.c")):
        rows.append(("`%s`" % name, "counter", "".join(re.findall(r'"([^"]*)"', text))))
    return sorted(rows)


# --- limits ---

def strip_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def constants_of(path):
    """name -> (expression, comment) of the file's enum constants and object-like macros."""
    text = read(path)
    found = {}
    bare = strip_comments(text)
    for body in re.findall(r"\benum\b[^;{(]*\{(.*?)\}", bare, re.S):
        for name, expression in re.findall(r"\b([A-Z][A-Z0-9_]*)\s*=\s*([^,}]+)", body):
            found[name] = " ".join(expression.split())
    for name, expression in re.findall(r"^#define[ \t]+([A-Z][A-Z0-9_]*)[ \t]+(.+)$", bare, re.M):
        found[name] = " ".join(expression.split())
    comments = {}
    for name in found:
        match = re.search(r"\b%s\b\s*=?[^\n;]*?/\*(.*?)\*/" % name, text, re.S)
        line = re.search(r"^[^\n]*\b%s\b\s*(=|\()?[^\n]*" % name, text, re.M)
        if match and line and "\n" not in text[match.start():match.start() + text[match.start():].index("/*")]:
            comments[name] = " ".join(match.group(1).replace("*", " ").split())
    return found, comments


def evaluate(expression, constants, depth=0):
    """The value of a C constant expression of integers, or None."""
    expression = re.sub(r"\((?:size_t|int|unsigned|u?int\d+_t)\)", "", expression)
    text = re.sub(r"\b(?:U?INT(?:8|16|32|64)_C)\(([^)]*)\)", r"(\1)", expression)
    text = re.sub(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b", r"\1", text).replace("/", "//")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            value = evaluate(constants[node.id], constants, depth + 1) \
                if node.id in constants and depth < 8 else None
            if value is None:
                return None
            text = re.sub(r"\b%s\b" % node.id, "(%d)" % value, text)
        elif isinstance(node, (ast.Call, ast.Attribute)):
            return None
    try:
        return eval(text, {"__builtins__": {}})  # nothing but numbers and operators is left
    except (ArithmeticError, SyntaxError, TypeError, NameError):
        return None


def limit_rows():
    files = sorted(path for top in ("raft", "kv", "session", "dns", "server")
                   for pattern in ("*.h", "*.c", "*/*.h", "*/*.c")
                   for path in glob.glob(os.path.join(ROOT, top, pattern)))
    everything, where, notes = {}, [], {}
    for path in files:
        relative = os.path.relpath(path, ROOT)
        found, comments = constants_of(relative)
        for name, expression in found.items():
            everything.setdefault(name, expression)
            if re.search(r"_(MAX|LIMIT)(_|$)", name):
                where.append((name, relative, expression))
                notes[(name, relative)] = comments.get(name, "")
    rows = []
    for name, relative, expression in sorted(where, key=lambda row: (row[1], row[0])):
        value = evaluate(expression, everything)
        rows.append(("`%s`" % name, "%d" % value if value is not None else expression, relative,
                     notes[(name, relative)]))
    return rows


# --- comparing ---

def table_of(path, name):
    text = read(path)
    start, end = text.index(BEGIN % name), None
    end = text.index(END, start)
    rows = []
    for line in text[start:end].splitlines():
        if line.startswith("| `"):
            rows.append(tuple(cell.strip() for cell in line.strip().strip("|").split(" | ")))
    return text, start, end, rows


def compare(path, name, expected, fixed):
    """`fixed` columns must be equal; the last one is free text that must be there."""
    rows = table_of(path, name)[3]
    failed = 0
    documented = {(row[0], row[2] if name == "limits" else ""): row for row in rows}
    for row in expected:
        shown = documented.pop((row[0], row[2] if name == "limits" else ""), None)
        if shown is None:
            print("FAIL %s: %s is missing" % (path, row[0]))
        elif shown[:fixed] != row[:fixed]:
            print("FAIL %s: %s is shown as %s, the code says %s"
                  % (path, row[0], shown[1:fixed], row[1:fixed]))
        else:
            continue
        failed += 1
    for gone in documented:
        print("FAIL %s: %s is not in the code" % (path, gone[0]))
        failed += 1
    if not failed and [row[0] for row in rows] != [row[0] for row in expected]:
        print("FAIL %s: rows are not in the code's order" % path)
        failed += 1
    return failed


def write(path, name, head, expected, fixed):
    text, start, end, rows = table_of(path, name)
    kept = {(row[0], row[2] if name == "limits" else ""): row for row in rows}
    lines = [BEGIN % name, "| %s |" % " | ".join(head), "|%s" % ("---|" * len(head))]
    for row in expected:
        old = kept.get((row[0], row[2] if name == "limits" else ""))
        note = row[fixed] if len(row) > fixed else ""
        if name == "limits" and old is not None and len(old) > fixed and old[fixed]:
            note = old[fixed]
        lines.append("| %s |" % " | ".join(row[:fixed] + (note,)))
    with open(os.path.join(ROOT, path), "w", encoding="utf-8") as file:
        file.write(text[:start] + "\n".join(lines) + "\n" + text[end:])


def main():
    documents = (
        ("docs/configuration.md", "keys", ("key", "type", "what becomes of it", "why"),
         config_rows(), 4),
        ("docs/limits.md", "limits", ("constant", "value", "where", "of what"), limit_rows(), 3),
    )
    documents += (("docs/metrics.md", "metrics", ("metric", "kind", "what"), metric_rows(), 3),)
    passed = failed = 0
    for path, name, head, rows, fixed in documents:
        if "--write" in sys.argv[1:]:
            # The notes of keys are the code's; those of limits may be better in the document.
            write(path, name, head, rows, min(3, len(head) - 1))
        if compare(path, name, [row[:fixed] for row in rows], fixed) == 0:
            print("%s: %d rows agree with the code" % (path, len(rows)))
            passed += 1
        else:
            failed += 1
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
