#!/bin/sh
# Installs what is missing (Debian 12), builds a release and runs five servers on
# 127.0.0.1 .. 127.0.0.5 with Consul's default ports until Ctrl-C:
#   sh server/run.sh
# The servers' state and logs are kept in build/run and removed at the next start.
set -u

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
servers="1 2 3 4 5"
ports="8300 8301 8500 8600"
run=$root/build/run
binary=$root/build/release/proconsul
packages="build-essential gcc cmake ninja-build pkg-config libuv1-dev liblmdb-dev libjansson-dev zlib1g-dev
libc-ares-dev libssl-dev node-llhttp curl dnsutils iproute2"
stays_s=10 # a server that ends sooner by itself has something to tell
killed=137 # the status of what `kill -9` ended

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 1
}

# is_installed PACKAGE
is_installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed$'
}

install_packages() {
    command -v dpkg-query >/dev/null 2>&1 ||
        fail "this is not Debian; install by hand: $(echo $packages)"
    missing=
    for package in $packages; do
        is_installed "$package" || missing="$missing $package"
    done
    [ -z "$missing" ] && return
    [ "$(id -u)" -eq 0 ] || fail "missing packages; run as root: apt-get install$missing"
    say "Installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } \
        >"$run.install.log" 2>&1 || {
        tail -n 20 "$run.install.log" >&2
        fail "apt-get could not install:$missing (see $run.install.log)"
    }
}

build() {
    say "Building (build/release) ..."
    { cmake -S . -B build/release -G Ninja -DCMAKE_BUILD_TYPE=Release -DPROCONSUL_TESTS=OFF &&
        cmake --build build/release; } \
        >"$run.build.log" 2>&1 || {
        tail -n 40 "$run.build.log" >&2
        fail "the build failed (see $run.build.log)"
    }
}

# Names what listens already on a port that a server needs.
check_ports() {
    for server in $servers; do
        for port in $ports; do
            taken=$(ss -Hlntu "src 127.0.0.$server or src 0.0.0.0 or src [::]" 2>/dev/null |
                awk -v port=":$port" '{ at = $5; if (substr(at, length(at) - 4) == port) print at }' |
                head -n 1)
            [ -z "$taken" ] ||
                fail "port $port of 127.0.0.$server is taken ($taken); stop what listens there" \
                    "(ss -lntup 'sport = :$port' names it)"
        done
    done
}

# Stops the servers by their process ids, waits for them, and says so once.
stop_servers() {
    trap '' INT TERM
    pids=
    for server in $servers; do
        eval "pid=\${pid_$server:-}"
        pids="$pids${pid:+ $pid}"
    done
    [ -n "$pids" ] || return
    say ""
    say "Stopping ..."
    kill $pids 2>/dev/null
    wait $pids 2>/dev/null
    say "All servers are stopped. Their logs are in build/run."
}

# start_server NUMBER: keeps its process id in pid_NUMBER, when in started_NUMBER.
start_server() {
    join=
    for other in $servers; do
        join="$join -retry-join 127.0.0.$other"
    done
    # A session of its own, so that Ctrl-C reaches this script alone, which stops them in order.
    setsid "$binary" agent -server -bootstrap-expect 5 -node "server-$1" -bind "127.0.0.$1" \
        -client "127.0.0.$1" -data-dir "$run/server-$1" $join >>"$run/server-$1.log" 2>&1 &
    eval "pid_$1=$! started_$1=$(date +%s)"
}

start_servers() {
    for server in $servers; do
        start_server "$server"
    done
    say "Started five servers on 127.0.0.1 .. 127.0.0.5, waiting for a leader ..."
}

# Starts servers that are gone again, as a service manager would: kill one and see. Fails, with its
# last words, when one does not stay.
check_servers() {
    for server in $servers; do
        eval "pid=\$pid_$server started=\$started_$server"
        kill -0 "$pid" 2>/dev/null && continue
        wait "$pid"
        if [ $? -ne $killed ] && [ $(($(date +%s) - started)) -lt $stays_s ]; then
            tail -n 20 "$run/server-$server.log" >&2
            fail "server $server ended (see $run/server-$server.log)"
        fi
        say "Server $server ended and is started again."
        start_server "$server"
    done
}

wait_for_leader() {
    for _ in $(seq 120); do
        check_servers
        leader=$(curl -s -m 2 http://127.0.0.1:8500/v1/status/leader | tr -d '"')
        [ -n "$leader" ] && case $leader in [0-9]*) return ;; esac
        sleep 0.5
    done
    fail "no leader after a minute; see the logs in $run"
}

mkdir -p "$root/build" || exit 1
rm -rf "$run"
mkdir -p "$run" || exit 1
install_packages
build
check_ports
trap stop_servers EXIT
trap 'exit 130' INT TERM HUP
start_servers
wait_for_leader

cat <<TEXT

${leader%:*} leads. Try, in another terminal:

  curl http://127.0.0.1:8500/v1/status/peers
  curl -X PUT -d 'hello' http://127.0.0.2:8500/v1/kv/greeting
  curl http://127.0.0.3:8500/v1/kv/greeting?raw
  curl http://127.0.0.4:8500/v1/health/service/consul?pretty
  dig @127.0.0.5 -p 8600 consul.service.consul SRV

Ctrl-C stops everything.
TEXT

# Until Ctrl-C, or until a server does not stay.
while :; do
    sleep 1 &
    wait $!
    check_servers
done
