#!/usr/bin/env python3
"""Dependencies point one way: who may include whom.

    raft -> nothing of ours       kv -> kv            session -> session, kv
    state (server/catalog, server/command) -> state, session, kv
    dns -> dns, state, session, kv                    server -> everything

Libraries have their places, too: LMDB is kv's alone, libuv and llhttp are the server's. And at the
top of the tree stand the modules, the build and the README, nothing else.
Prints one line per fault; the last line is "N passed, M failed" (modules, and the top).
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALLOWED = {
    "raft": {"raft"},
    "kv": {"kv"},
    "session": {"session", "kv"},
    "state": {"state", "session", "kv"},
    "dns": {"dns", "state", "session", "kv"},
    "server": {"server", "dns", "state", "session", "kv", "raft"},
}
# header -> the modules that may know of it
LIBRARIES = {
    "lmdb.h": {"kv"},
    "uv.h": {"server"},
    "llhttp.h": {"server"},
    "jansson.h": {"server"},
    "ares.h": {"dns", "server"},
}
TOP = {"server", "raft", "kv", "session", "dns", "tests", "docs", "CMakeLists.txt", "README.md"}
# Headers that would make a pure module impure.
IMPURE = {
    "raft/raft": {"time.h", "sys/socket.h", "sys/time.h", "unistd.h", "pthread.h", "stdio.h"},
    "session/": {"sys/socket.h", "sys/time.h", "pthread.h"},
}


def module_of(path):
    """The module that a path from the root belongs to; None for what is outside all."""
    if re.match(r"server/(catalog/|command\.)", path):
        return "state"
    top = path.split("/", 1)[0]
    return top if top in ALLOWED else None


def faults_of(path):
    module = module_of(path)
    faults = []
    with open(os.path.join(ROOT, path), encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quote, header = match.groups()
            if quote == '"':
                target = module_of(header)
                if target is None:
                    faults.append((number, "include paths start at the root: %s" % header))
                elif target not in ALLOWED[module]:
                    faults.append((number, "%s must not include %s" % (module, header)))
            elif header in LIBRARIES and module not in LIBRARIES[header]:
                faults.append((number, "%s must not use <%s>" % (module, header)))
            else:
                for prefix, headers in IMPURE.items():
                    if path.startswith(prefix) and header in headers:
                        faults.append((number, "%s is pure, no <%s>" % (prefix, header)))
    return faults


def strangers_at_top():
    """What git keeps at the top, dotfiles aside, that has no place there."""
    paths = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.splitlines()
    tops = {path.split("/", 1)[0] for path in paths if os.path.lexists(os.path.join(ROOT, path))}
    return sorted(top for top in tops - TOP if not top.startswith("."))


def main():
    passed = failed = 0
    strangers = strangers_at_top()
    for name in strangers:
        print("FAIL %s: the top of the tree is for %s" % (name, ", ".join(sorted(TOP))))
    if strangers:
        failed += 1
    else:
        passed += 1
    for top in ("raft", "kv", "session", "dns", "server"):
        good = bad = 0
        for folder, _, files in sorted(os.walk(os.path.join(ROOT, top))):
            for name in sorted(files):
                if not name.endswith((".c", ".h")):
                    continue
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                faults = faults_of(path)
                for number, text in faults:
                    print("FAIL %s:%d: %s" % (path, number, text))
                if faults:
                    bad += 1
                else:
                    good += 1
        print("%s: %d files" % (top, good + bad))
        if bad or not good:
            failed += 1
        else:
            passed += 1
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
