#!/bin/sh
# Builds a kind of the program with its tests into build/KIND:
#   sh tests/build.sh release|debug|asan|tsan|coverage|fuzz [TARGET...]
# asan has UBSan with it; coverage counts lines (tests/coverage tells them); fuzz needs clang.
set -eu

usage() {
    echo "usage: build.sh release|debug|asan|tsan|coverage|fuzz [TARGET...]" >&2
    exit 2
}

[ $# -gt 0 ] || usage
kind=$1
shift
cd "$(dirname "$0")/.."

case $kind in
release) set -- "$@" -- -DCMAKE_BUILD_TYPE=Release ;;
debug) set -- "$@" -- ;;
asan) set -- "$@" -- -DPROCONSUL_SANITIZE=address,undefined ;;
tsan) set -- "$@" -- -DPROCONSUL_SANITIZE=thread ;;
coverage) set -- "$@" -- -DPROCONSUL_COVERAGE=ON ;;
fuzz)
    set -- "$@" -- -DCMAKE_C_COMPILER=clang -DPROCONSUL_SANITIZE=address,undefined \
        -DPROCONSUL_FUZZ=ON
    ;;
*) usage ;;
esac
targets=
while [ "$1" != -- ]; do
    targets="$targets $1"
    shift
done
shift

cmake -S . -B "build/$kind" -G Ninja -DPROCONSUL_TESTS=ON -DCMAKE_BUILD_TYPE=Debug "$@"
cmake --build "build/$kind" ${targets:+--target $targets}
