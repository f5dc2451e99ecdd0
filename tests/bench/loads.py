"""What is measured on a running cluster: loads by wrk and dnsperf, CPU time, memory, failover.

Every function returns a dictionary of figures; the names end in their unit. All waits are bounded.
"""
import http.client
import json
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
from cluster import DNS_PORT, HTTP_PORT, wait_for  # noqa: E402

WARM_UP_S = 1
TOOL_GRACE_S = 30  # what wrk and dnsperf may take beyond the time they were told
VALUE_BYTES = 128
DNS_SOCKETS = 8
DNS_OUTSTANDING = 64
DNS_QUERY_ID = 4711
FAILOVER_S_MAX = 60
TYPE_A, TYPE_SRV = 1, 33
DNS_NAMES = {TYPE_A: "master.patroni.service.consul", TYPE_SRV: "db-replica.service.consul"}
TYPE_TEXT = {TYPE_A: "A", TYPE_SRV: "SRV"}


class LoadError(Exception):
    """A load did not do what it should; the figures would mean nothing."""


# --- CPU time and memory ---

def cpu_seconds(cluster):
    """User and system time of all servers since they started."""
    ticks = 0
    for server in cluster.live():
        with open("/proc/%d/stat" % server.process.pid, encoding="ascii", errors="replace") as file:
            # The name in parentheses may hold anything; what follows it is fields 3 and up.
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class CpuClock:
    """CPU time from its making to read(): of the servers, and of everyone else but our tools."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.start = self.now()

    def now(self):
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system = [int(field) for field in file.readline().split()[1:4]]
        tools = resource.getrusage(resource.RUSAGE_CHILDREN)  # those that have ended
        return (cpu_seconds(self.cluster), (user + nice + system) / os.sysconf("SC_CLK_TCK"),
                tools.ru_utime + tools.ru_stime, time.monotonic())

    def read(self):
        """The servers' seconds, and the share of the machine that strangers took, in percent."""
        servers, machine, tools, elapsed = [after - before
                                            for after, before in zip(self.now(), self.start)]
        strangers = max(machine - servers - tools, 0)
        return servers, 100 * strangers / elapsed / os.cpu_count()


def memory(cluster):
    """Resident memory of all servers together, and the part of it that no file backs."""
    sums = {"VmRSS": 0, "RssAnon": 0}
    for server in cluster.live():
        with open("/proc/%d/status" % server.process.pid, encoding="utf-8") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in sums:
                    sums[name] += int(value.split()[0])
    return {"resident_mib": sums["VmRSS"] / 1024, "anonymous_mib": sums["RssAnon"] / 1024}


# --- HTTP ---

def run_tool(command, seconds, environment=None):
    """The standard output of a tool that ends by itself after about so many seconds."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
                              timeout=seconds + TOOL_GRACE_S, check=False,
                              env={**os.environ, **(environment or {})})
    except subprocess.TimeoutExpired as error:
        raise LoadError("%s did not end in time" % command[0]) from error
    if done.returncode != 0:
        raise LoadError("%s: status %d: %s" % (command[0], done.returncode, done.stdout[-400:]))
    return done.stdout


def wrk_once(server, operation, connections, threads, seconds):
    path = "/v1/kv/bench/put/" if operation == "put" else "/v1/kv/bench/get"
    command = ["wrk", "-t", str(min(threads, connections)), "-c", str(connections),
               "-d", "%ds" % seconds, "--timeout", "10s", "-s", os.path.join(HERE, "load.lua"),
               "http://%s:%d%s" % (server.address, HTTP_PORT, path)]
    output = run_tool(command, seconds, {"BENCH_OPERATION": operation,
                                         "BENCH_STAMP": str(time.time_ns())})
    return parse_wrk(output)


def parse_wrk(output):
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[len("RESULT "):])
    raise LoadError("wrk gave no result: " + output[-400:])


def http_load(cluster, server, operation, connections, options):
    """Acknowledged operations a second, their CPU time over all servers, their latency."""
    if operation == "get":
        cluster.servers[0].put("bench/get", "x" * VALUE_BYTES)
        wait_for("the value to read",
                 lambda: server.request("GET", "/v1/kv/bench/get")[0] == 200, 10)
    wrk_once(server, operation, connections, options.threads, WARM_UP_S)
    clock = CpuClock(cluster)
    result = wrk_once(server, operation, connections, options.threads, options.seconds)
    return rates(result["operations"], result["errors"], result["duration_us"] / 1e6, clock,
                 {"p50_ms": result["latency_us_p50"] / 1000,
                  "p99_ms": result["latency_us_p99"] / 1000})


def rates(operations, errors, seconds, clock, more):
    cpu, strangers = clock.read()
    if operations == 0:
        raise LoadError("no operation was acknowledged, %d failed" % errors)
    # A few failures do no harm; many mean that something else was measured.
    if errors * 100 > operations:
        raise LoadError("%d of %d operations failed" % (errors, operations + errors))
    return {"per_s": operations / seconds, "cpu_us": cpu * 1e6 / operations, "errors": errors,
            "strangers_pct": strangers, **more}


# --- DNS ---

def dns_answers(server, name, query_type):
    """The number of answers that the server gives over UDP; None if it is not NOERROR."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = (struct.pack("!6H", DNS_QUERY_ID, 0x0100, 1, 0, 0, 0) + question +
             struct.pack("!2H", query_type, 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(query, (server.address, DNS_PORT))
        answer = sock.recv(4096)
    number, flags, _, count = struct.unpack("!4H", answer[:8])
    return count if number == DNS_QUERY_ID and flags & 0xf == 0 else None


def dnsperf_once(server, query_type, seconds):
    path = os.path.join(server.cluster.dir, "queries")
    with open(path, "w", encoding="ascii") as queries:
        queries.write("%s %s\n" % (DNS_NAMES[query_type], TYPE_TEXT[query_type]))
    output = run_tool(["dnsperf", "-f", "inet", "-m", "udp", "-s", server.address,
                       "-p", str(DNS_PORT), "-d", path, "-c", str(DNS_SOCKETS),
                       "-T", "1", "-q", str(DNS_OUTSTANDING), "-l", str(seconds)], seconds)
    return parse_dnsperf(output)


def parse_dnsperf(output):
    def number(pattern, default=None):
        match = re.search(pattern, output)
        if match is None and default is None:
            raise LoadError("dnsperf gave no result: " + output[-400:])
        return float(match.group(1)) if match else default

    good = int(number(r"NOERROR (\d+)", 0))
    return {"operations": good,
            "errors": int(number(r"Queries sent:\s+(\d+)")) - good,
            "duration_s": number(r"Run time \(s\):\s+([\d.]+)"),
            "latency_ms": number(r"Average Latency \(s\):\s+([\d.]+)") * 1000}


def dns_load(cluster, server, query_type, options):
    wait_for("an answer for " + DNS_NAMES[query_type],
             lambda: dns_answers(server, DNS_NAMES[query_type], query_type), 20)
    dnsperf_once(server, query_type, WARM_UP_S)
    clock = CpuClock(cluster)
    result = dnsperf_once(server, query_type, options.seconds)
    return rates(result["operations"], result["errors"], result["duration_s"], clock,
                 {"mean_ms": result["latency_ms"]})


def register_services(cluster):
    """Three nodes, each with the services patroni (one a master) and db-replica, all passing."""
    for number in range(1, 4):
        node = "pg%d" % number
        role = "master" if number == 1 else "replica"
        for name, tags, port in (("patroni", [role], 5432), ("db-replica", [], 6432)):
            body = {"Node": node, "Address": "10.0.0.%d" % number,
                    "Service": {"ID": "%s-%s" % (name, node), "Service": name, "Tags": tags,
                                "Port": port},
                    "Check": {"Node": node, "CheckID": "%s-%s" % (name, node), "Name": name,
                              "Status": "passing", "ServiceID": "%s-%s" % (name, node)}}
            status, _, text = cluster.servers[0].request("PUT", "/v1/catalog/register",
                                                         json.dumps(body))
            if status != 200:
                raise LoadError("registering %s: %d %r" % (name, status, text[:200]))


# --- failover ---

def write_until_acknowledged(server, key, deadline, finished):
    """Tries again soon after a refusal. Appends the acknowledgement's time to `finished`."""
    while time.monotonic() < deadline and not finished:
        try:
            if server.put(key, "after", timeout=10):
                finished.append(time.monotonic())
                return
        except (OSError, http.client.HTTPException, ValueError):
            pass
        time.sleep(0.01)


def failover(cluster):
    """Seconds from kill -9 of the leader to the first write that another server acknowledges."""
    leader = cluster.wait_leader(60)
    others = [server for server in cluster.servers if server is not leader]
    finished = []
    start = time.monotonic()
    leader.kill()
    writers = [threading.Thread(target=write_until_acknowledged, daemon=True,
                                args=(server, "bench/failover/%d" % server.number,
                                      start + FAILOVER_S_MAX, finished)) for server in others]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(FAILOVER_S_MAX + 15)
    if not finished:
        raise LoadError("no write was acknowledged %d s after the leader's end" % FAILOVER_S_MAX)
    leader.start()
    cluster.wait_leader(60)
    cluster.wait_members(60)
    return {"failover_s": min(finished) - start}


def disk_sync_us(folder, count=50):
    """Median time of appending 128 bytes and syncing them, in microseconds."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(count):
            start = time.perf_counter()
            os.write(file.fileno(), b"x" * VALUE_BYTES)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return sorted(times)[count // 2] * 1e6


def missing_tools(tools):
    return [tool for tool in tools if shutil.which(tool) is None]
