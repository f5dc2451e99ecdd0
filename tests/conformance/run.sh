#!/bin/sh
# Replays what was recorded from Consul 1.8.7 against our server:
#   sh tests/conformance/run.sh [-v] [--quick] build/release/proconsul
# Starts servers of its own on free ports of the loopback and stops them. The last line is
# "N passed, M failed" over everything.
set -u

here=$(cd "$(dirname "$0")" && pwd)
quick=no
verbose=
while [ $# -gt 1 ]; do
    case $1 in
    -v) verbose=-v ;;
    --quick) quick=yes ;;
    *) echo "usage: run.sh [-v] [--quick] BINARY" >&2; exit 2 ;;
    esac
    shift
done
binary=${1:?usage: run.sh [-v] [--quick] BINARY}

work=$(mktemp -d "${TMPDIR:-/tmp}/conformance.XXXXXX")
server_pid=
stop_server() {
    if [ -n "$server_pid" ]; then
        kill "$server_pid" 2>/dev/null
        wait "$server_pid" 2>/dev/null
        server_pid=
    fi
}
clean_up() {
    stop_server
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# start_server NAME JSON: the configuration's members beyond ports and folder; sets $addr.
start_server() {
    addr=$(python3 - "$work" "$1" "$2" <<'PY'
import json, random, socket, sys
work, name, extra = sys.argv[1:]

def free_port():
    """None that the kernel gives to clients: one of those could have it by the time that the server starts."""
    while True:
        port = random.randint(20000, 28000)
        tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            continue
        sockets.append((tcp, udp))
        return port

sockets = []
http, dns, server, serf = (free_port() for _ in range(4))
config = {"server": True, "bootstrap": True, "bind_addr": "127.0.0.1", "log_level": "debug",
          "data_dir": "%s/%s" % (work, name),
          "ports": {"http": http, "dns": dns, "server": server, "serf_lan": serf}}
config.update(json.loads(extra))
with open("%s/%s.json" % (work, name), "w") as f:
    json.dump(config, f)
print("127.0.0.1:%d" % http)
PY
    )
    "$binary" agent -config-file "$work/$1.json" >"$work/$1.log" 2>&1 &
    server_pid=$!
}

passed=0
failed=0
# tally LOG: adds the runner's last line; a runner that did not finish counts as one failure.
tally() {
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1)
    if [ -z "$line" ]; then
        echo "FAIL the runner did not finish: $(tail -n 3 "$1")"
        failed=$((failed + 1))
        return
    fi
    set -- $line
    passed=$((passed + $1))
    failed=$((failed + $3))
}
# A server that died is worth a look at its last words.
check_server() {
    if ! kill -0 "$server_pid" 2>/dev/null; then
        echo "FAIL the server ended by itself:"
        tail -n 20 "$work/$1.log"
        failed=$((failed + 1))
    fi
}

# --- HTTP ---
start_server main '{"session_ttl_min": "5s"}'
"$here/run-http" --addr "$addr" --wait 60 -j 8 $verbose "$here/http" >"$work/http.out" 2>&1
cat "$work/http.out"
tally "$work/http.out"
check_server main
stop_server

if [ $quick = no ]; then
    # The cases that need other settings share one server.
    profile=$(python3 -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))["config"]))' \
        "$here/http/kv/config-kv-limit.json")
    start_server profile "$profile"
    "$here/run-http" --config-cases --addr "$addr" --wait 60 $verbose "$here/http" >"$work/profile.out" 2>&1
    cat "$work/profile.out"
    tally "$work/profile.out"
    check_server profile
    stop_server

    # --- DNS: the runner starts its servers itself ---
    "$here/run-dns" --binary "$binary" $verbose >"$work/dns.out" 2>&1
    cat "$work/dns.out"
    tally "$work/dns.out"

    # --- command line: the agent's own behaviour ---
    for only in agent-errors agent-signal version autopilot raft-list-peers raft-remove-peer \
        snapshot-errors; do
        "$here/run-cli" --binary "$binary" --only "$only" $verbose \
            >"$work/cli.out" 2>&1
        cat "$work/cli.out"
        tally "$work/cli.out"
    done
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
