#!/bin/sh
# Installs what the tests need (Debian 12), builds and runs them all:
#   sh tests/run.sh           everything: below 25 minutes on two cores
#   sh tests/run.sh --quick   checks of form, unit tests, simulator: below two minutes
# Each step prints its name, time and result; logs are in build/test-logs. The last line is
# "N passed, M failed" over all steps; the exit status says the same.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
logs=$root/build/test-logs
quick=no
[ "${1:-}" = --quick ] && quick=yes
jobs=$(nproc)
packages="build-essential gcc cmake ninja-build pkg-config libuv1-dev liblmdb-dev libjansson-dev zlib1g-dev
libc-ares-dev libssl-dev node-llhttp libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev python3
curl dnsutils procps iproute2"
packages_full="patroni postgresql pgbouncer dnsmasq-base ldnsutils unbound python3-dnspython
python3-pytest python3-pytest-xdist nftables python3-psycopg2 python3-consul prometheus musl-tools"
# Unpacked into build/unpacked: once installed, this would take /etc/resolv.conf over.
packages_unpacked="systemd-resolved libsystemd-shared"
fuzz_seconds=10
sim_seeds_asan=100

passed=0
failed=0

install_packages() {
    [ $quick = yes ] || packages="$packages $packages_full"
    # Its own package, or a newer nodejs that brings its own npm.
    [ $quick = yes ] || command -v npm >/dev/null || packages="$packages nodejs npm"
    missing=
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null |
            grep -q '^install ok installed$' || missing="$missing $package"
    done
    [ -z "$missing" ] && return
    if [ "$(id -u)" -ne 0 ]; then
        echo "run.sh: missing packages; run as root: apt-get install$missing" >&2
        exit 1
    fi
    echo "=== installing:$missing"
    # The tests start their own; the packages' services would only take the ports.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } \
        >"$logs/install.log" 2>&1 || {
        tail -n 20 "$logs/install.log" >&2
        echo "run.sh: apt-get could not install:$missing" >&2
        exit 1
    }
    rm -f /usr/sbin/policy-rc.d
    trap - EXIT
}

unpack_packages() {
    unpacked=$root/build/unpacked
    [ $quick = yes ] && return
    [ -x "$unpacked/lib/systemd/systemd-resolved" ] && return
    mkdir -p "$unpacked"
    echo "=== unpacking: $packages_unpacked"
    (
        cd "$unpacked" || exit 1
        apt-get download -q $packages_unpacked ||
            { apt-get update -q && apt-get download -q $packages_unpacked; } || exit 1
        for file in *.deb; do
            dpkg-deb -x "$file" . || exit 1
        done
        rm -f -- *.deb
    ) >"$logs/unpack.log" 2>&1 || {
        tail -n 20 "$logs/unpack.log" >&2
        echo "run.sh: could not get and unpack: $packages_unpacked" >&2
        exit 1
    }
}

# step NAME KIND COMMAND...: runs it into its log and counts its result. Kinds: "status" (the exit
# status is one test), "runner", "ctest", "pytest" (see tests/tally.py).
step() {
    name=$1 kind=$2
    shift 2
    log=$logs/$name.log
    xml=$logs/$name.xml
    rm -f "$xml"
    started=$(date +%s)
    printf '=== %-24s ' "$name"
    "$@" >"$log" 2>&1
    status=$?
    case $kind in
    status)
        result="1 passed, 0 failed"
        [ $status -eq 0 ] || result="0 passed, 1 failed"
        ;;
    runner) result=$(python3 tests/tally.py runner "$log" | tail -n 1) ;;
    *) result=$(python3 tests/tally.py "$kind" "$xml" | tail -n 1) ;;
    esac
    set -- $result
    # A command that fails although it counts no failure has failed.
    if [ $status -ne 0 ] && [ "$3" -eq 0 ]; then
        set -- "$1" passed, 1 failed
    fi
    passed=$((passed + $1))
    failed=$((failed + $3))
    printf '%4ds  %s\n' $(($(date +%s) - started)) "$1 passed, $3 failed"
    if [ "$3" -ne 0 ]; then
        case $kind in
        ctest | pytest) python3 tests/tally.py "$kind" "$xml" | grep '^FAIL' | head -n 40 ;;
        runner) grep '^FAIL' "$log" | cut -c1-400 | head -n 60 ;;
        esac
        [ "$kind" = runner ] || tail -n 15 "$log" | cut -c1-400 | sed 's/^/    | /'
    fi
}

sources() {
    git ls-files -co --exclude-standard -- "$@"
}

check_format() {
    sources '*.c' '*.h' | xargs clang-format --dry-run -Werror
}

check_tidy() {
    sources '*.c' | grep -E '^(raft|kv|session|dns|server)/' |
        xargs -P "$jobs" -n 4 clang-tidy --quiet -p build/release >"$logs/tidy-all.log" 2>&1
    status=$?
    grep ' error: ' "$logs/tidy-all.log" | sed "s|^$root/|FAIL |" | sort -u
    if [ $status -eq 0 ]; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi
    return $status
}

# run_ctest KIND NAME ARGUMENTS...
run_ctest() {
    build_kind=$1 name=$2
    shift 2
    # Half of the tests' time is waiting.
    ctest --test-dir "build/$build_kind" -j "$((2 * jobs))" --output-junit "$logs/$name.xml" --output-on-failure \
        --timeout 900 --test-output-size-passed 1000000 --test-output-size-failed 1000000 "$@"
}

# fuzz_one TARGET: a parser over its corpus and some seconds beyond.
fuzz_one() {
    name=$(basename "$1")
    scratch=$(mktemp -d)
    corpus=tests/fuzz/corpus/${name#fuzz_}
    [ -d "$corpus" ] || corpus=
    if "$1" -max_total_time=$fuzz_seconds -timeout=60 -rss_limit_mb=2048 \
        -artifact_prefix="$logs/$name-" "$scratch" $corpus >"$logs/$name.log" 2>&1; then
        echo "ok $name"
    else
        echo "FAIL $name: see $logs/$name.log and $logs/$name-*"
    fi
    rm -rf "$scratch"
}

# One for each core at a time.
run_fuzz() {
    for target in build/fuzz/tests/fuzz_*; do
        [ -x "$target" ] || continue
        fuzz_one "$target" &
        running=$((${running:-0} + 1))
        [ $((running % jobs)) -ne 0 ] || wait
    done >"$logs/fuzz-results.log"
    wait
    cat "$logs/fuzz-results.log"
    good=$(grep -c '^ok ' "$logs/fuzz-results.log")
    bad=$(grep -c '^FAIL ' "$logs/fuzz-results.log")
    echo "$good passed, $bad failed"
    [ "$bad" -eq 0 ] && [ "$good" -gt 0 ]
}

mkdir -p "$logs"
began=$(date +%s)
install_packages
unpack_packages

step format status check_format
step includes runner python3 tests/check_includes.py
step docs runner python3 tests/check_docs.py
step regressions runner python3 tests/check_regressions.py
step build-release status sh tests/build.sh release
step unit-release ctest run_ctest release unit-release
if [ $quick = no ]; then
    step tidy runner check_tidy
    step build-asan status sh tests/build.sh asan
    step unit-asan ctest run_ctest asan unit-asan -E '^sim_'
    [ -x build/asan/tests/sim ] &&
        step sim-asan status build/asan/tests/sim --seeds $sim_seeds_asan --jobs $jobs
    [ -x build/asan/tests/sim ] &&
        step sim-core-asan status build/asan/tests/sim --core --seeds $sim_seeds_asan --jobs $jobs
    step build-mutants status sh tests/build.sh release sim_mutants
    step mutants runner python3 tests/sim/mutants/run build/release/tests/sim_mutants
    step build-tsan status sh tests/build.sh tsan
    # Those with threads: the log writer, the store's readers, DNS.
    step unit-tsan ctest run_ctest tsan unit-tsan -R '^test_(wal|kv_store|dns|server)'
    step conformance runner sh tests/conformance/run.sh build/release/proconsul
    step differ pytest /usr/bin/python3 -m pytest -q --junitxml "$logs/differ.xml" \
        -p no:cacheprovider tests/conformance/differ tests/conformance/differ_dns
    step build-fuzz status sh tests/build.sh fuzz
    step fuzz runner run_fuzz
    step bench pytest /usr/bin/python3 -m pytest -q --junitxml "$logs/bench.xml" tests/bench
    [ -n "$(ls tests/e2e/test_*.py 2>/dev/null)" ] &&
        step e2e pytest /usr/bin/python3 -m pytest -q -n $((jobs + 1)) --dist loadfile \
            --junitxml "$logs/e2e.xml" tests/e2e
fi

echo "=== all steps took $(($(date +%s) - began)) s"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
