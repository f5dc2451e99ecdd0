"""Starts, kills and asks a cluster of servers, on loopback addresses of its own.

The program under test is PROCONSUL_BINARY, by default build/release/proconsul (what it stands in for
can be named there too, to compare). All waits are bounded.
"""
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("PROCONSUL_BINARY", os.path.join(ROOT, "build", "release", "proconsul"))

HTTP_PORT, DNS_PORT, SERVER_PORT, SERF_PORT = 8500, 8600, 8300, 8301

# For `extra`, where no request may fail: no leader is given up because the machine is busy, and what waits for one
# waits longer than an election takes.
PATIENT = {"performance": {"raft_multiplier": 5, "rpc_hold_timeout": "25s"}}


def wait_for(what, condition, seconds):
    """Polls until the condition gives something true, and returns that; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            value = condition()
            if value:
                return value
        except (OSError, http.client.HTTPException, ValueError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError("not within %s s: %s (last error: %r)" % (seconds, what, last))


def free_network():
    """A 127.x.y. prefix on which nothing listens at our ports, and a socket that keeps others from taking it, also while
    none of our servers run."""
    for _ in range(100):
        prefix = "127.%d.%d." % (random.randint(1, 250), random.randint(1, 250))
        claim = socket.socket()
        try:
            claim.bind((prefix + "255", HTTP_PORT))
            for port in (HTTP_PORT, SERVER_PORT):
                with socket.socket() as probe:
                    probe.bind((prefix + "1", port))
            return prefix, claim
        except OSError:
            claim.close()
    raise AssertionError("no free loopback network found")


class Server:
    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        self.name = "server-%d" % number
        self.address = "%s%d" % (cluster.network, number)
        self.data_dir = os.path.join(cluster.dir, self.name)
        self.log_path = os.path.join(cluster.dir, self.name + ".log")
        self.process = None
        self.stopped = False

    def config(self):
        config = {
            "server": True,
            "datacenter": "dc1",
            "node_name": self.name,
            "data_dir": self.data_dir,
            "bind_addr": self.address,
            "client_addr": self.address,
            "bootstrap_expect": self.cluster.size,
            "retry_join": [server.address for server in self.cluster.servers],
            "retry_interval": "1s",
            "performance": {"raft_multiplier": 1},
            # On a busy machine a test may take so long that a server which it killed would be taken out of the quorum.
            "autopilot": {"cleanup_dead_servers": False},
            "ports": {"http": HTTP_PORT, "dns": DNS_PORT, "server": SERVER_PORT,
                      "serf_lan": SERF_PORT, "serf_wan": -1},
            "disable_update_check": True,
        }
        config.update(self.cluster.extra)
        return config

    def command(self, path):
        return [self.cluster.binary, "agent", "-config-file", path]

    def start(self):
        assert self.process is None, self.name + " runs already"
        os.makedirs(self.data_dir, exist_ok=True)
        path = os.path.join(self.cluster.dir, self.name + ".json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config(), file)
        with open(self.log_path, "a", encoding="utf-8") as log:
            log.write("---- started\n")
            log.flush()
            self.process = subprocess.Popen(self.command(path), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)

    def alive(self):
        process = self.process  # Threads ask, too, while it is killed.
        return process is not None and process.poll() is None

    def kill(self):
        """kill -9"""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(60)
            self.process = None

    def stop(self, seconds=60):
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        status = self.process.wait(seconds)
        self.process = None
        return status

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def memory_mib(self):
        """Resident, not backed by files."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) / 1024
        raise AssertionError("no RssAnon")

    # --- HTTP ---

    def request(self, method, path, body=None, timeout=30):
        connection = http.client.HTTPConnection(self.address, HTTP_PORT, timeout=timeout)
        try:
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get_json(self, path, timeout=30):
        status, _, body = self.request("GET", path, timeout=timeout)
        if status == 404:
            return None
        if status != 200:
            raise ValueError("GET %s: %d %r" % (path, status, body[:200]))
        return json.loads(body)

    def put(self, key, value, query="", timeout=30):
        """True or false as answered; raises on anything else."""
        status, _, body = self.request("PUT", "/v1/kv/" + key + query, value, timeout)
        if status != 200:
            raise ValueError("PUT %s: %d %r" % (key, status, body[:200]))
        return json.loads(body)

    def store(self, key, value, seconds=60):
        """Puts until that is acknowledged: where an election on a busy machine is no failure."""
        wait_for("a write of " + key, lambda: self.put(key, value), seconds)

    def leader(self):
        return self.get_json("/v1/status/leader", timeout=10)


class Cluster:
    def __init__(self, size=5, extra=None, binary=BINARY, parent_dir=None, server_class=Server):
        """`extra` goes over the servers' configuration; their files go into `parent_dir`."""
        self.size = size
        self.extra = extra or {}
        self.binary = binary
        self.network, self.claim = free_network()
        self.dir = tempfile.mkdtemp(prefix="proconsul-e2e-", dir=parent_dir)
        os.chmod(self.dir, 0o755)
        self.servers = []
        for number in range(1, size + 1):
            self.servers.append(server_class(self, number))

    def __enter__(self):
        try:
            self.start()
        except BaseException:  # An interrupt, too: nobody else would stop what runs by then.
            self.close(True)
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.close(kind is not None)

    def start(self):
        for server in self.servers:
            server.start()
        self.wait_leader()

    def close(self, failed=False):
        """Prints the ends of the logs if it `failed`."""
        for server in self.servers:
            server.kill()
        self.claim.close()
        if failed:
            for server in self.servers:
                if os.path.exists(server.log_path):
                    print("==== %s\n%s" % (server.name, "\n".join(server.log().splitlines()[-40:])))
        shutil.rmtree(self.dir, ignore_errors=True)

    def live(self):
        return [server for server in self.servers if server.alive()]

    def wait_leader(self, seconds=60):
        """Until all live servers name the same live leader; returns it."""
        def agreed():
            said = {server.leader() for server in self.live()}
            if len(said) != 1:
                return None
            address = said.pop().rpartition(":")[0]
            for server in self.live():
                if server.address == address:
                    return server
            return None
        return wait_for("a leader that all know", agreed, seconds)

    def wait_members(self, seconds=60):
        """Until the catalog has all servers with a passing serfHealth."""
        def all_passing():
            checks = self.live()[0].get_json("/v1/health/state/passing?stale") or []
            nodes = {check["Node"] for check in checks if check["CheckID"] == "serfHealth"}
            return {server.name for server in self.servers} <= nodes
        return wait_for("all servers in the catalog", all_passing, seconds)

    def wait_equal(self, seconds=60):
        """Until the live servers' own stores show the same entries, sessions and catalog."""
        paths = ("/v1/kv/?recurse&stale", "/v1/session/list?stale", "/v1/catalog/nodes?stale",
                 "/v1/health/state/any?stale")
        state = {}

        def equal():
            for path in paths:
                seen = [server.get_json(path) for server in self.live()]
                if any(one != seen[0] for one in seen[1:]):
                    return False
                state[path] = seen[0]
            return True
        wait_for("equal stores", equal, seconds)
        return state
