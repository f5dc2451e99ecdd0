"""Links cut, one-way and partly, lossy and slow, kills and pauses, under a load of registers and a lock: answers stay linearizable, the lock has
one holder, and after healing the cluster goes on with equal stores.

NETWORK_SECONDS (default 60) is how long the faults last.
"""
import base64
import json
import os
import random
import signal
import threading
import time

from cluster import wait_for
from linearizable import Operation, check
from network import NetworkCluster
from test_cluster import Locker, assert_never_held_twice

SECONDS = int(os.environ.get("NETWORK_SECONDS", "60"))
EPOCH_SECONDS = 4  # then fresh keys: short histories are checked fast
CLIENTS = 5
KEYS = 3
TIMEOUT = 4


class Client(threading.Thread):
    """Reads, writes and compares-and-sets registers through changing servers, and writes down what it was told."""

    def __init__(self, cluster, number, ending):
        super().__init__(daemon=True)
        self.cluster, self.number, self.ending = cluster, number, ending
        self.history = {}  # key -> operations
        self.last = 0
        self.started = time.monotonic()
        self.answered = 0

    def run(self):
        self.cluster.enter()
        while not self.ending.is_set():
            epoch = int((time.monotonic() - self.started) / EPOCH_SECONDS)
            key = "register/%d/%d" % (epoch, random.randrange(KEYS))
            random.choice((self.read, self.read, self.write, self.cas))(key)
            time.sleep(random.uniform(0, 0.05))

    def value(self):
        self.last += 1
        return "%d-%d" % (self.number, self.last)

    def note(self, key, start, kind, outcome, **fields):
        """`outcome` is None when there was no answer."""
        end = time.monotonic() if outcome is not None else None
        self.answered += outcome is not None
        self.history.setdefault(key, []).append(
            Operation(start, end, kind, done=bool(outcome), **fields))

    def server(self):
        return random.choice(self.cluster.servers)

    def fetch(self, key):
        mode = random.choice(("", "?consistent"))
        try:
            status, _, body = self.server().request("GET", "/v1/kv/" + key + mode, timeout=TIMEOUT)
        except Exception:  # noqa: BLE001 - refused, reset, timed out: no answer
            return None
        if status == 404:
            return (None, 0)
        if status != 200:
            return None
        entry = json.loads(body)[0]
        return (base64.b64decode(entry["Value"]).decode(), entry["ModifyIndex"])

    def read(self, key):
        start = time.monotonic()
        found = self.fetch(key)
        if found is not None:
            self.note(key, start, "read", True, value=found[0])
        return found

    def put(self, key, value, query=""):
        try:
            return self.server().put(key, value, query, timeout=TIMEOUT)
        except Exception:  # noqa: BLE001 - unknown outcome
            return None

    def write(self, key):
        value, start = self.value(), time.monotonic()
        self.note(key, start, "write", self.put(key, value), value=value)

    def cas(self, key):
        found = self.read(key)
        if found is not None:
            value, start = self.value(), time.monotonic()
            self.note(key, start, "cas", self.put(key, value, "?cas=%d" % found[1]), value=value,
                      expected=found[0])


def inject(cluster, counts):
    """One fault, drawn at random, for a while; then everything is healed."""
    servers = random.sample(cluster.servers, 3)
    kind = random.choice(("cut", "cut leader", "one way", "partly", "kill", "pause", "pause leader",
                          "lossy", "lossy leader", "slow", "slow leader"))
    if kind.split()[0] in ("lossy", "slow") and kind.split()[0] not in cluster.faults:
        return
    counts[kind] = counts.get(kind, 0) + 1
    victim = servers[0]
    if kind.endswith("leader"):
        try:
            victim = cluster.wait_leader(5)
        except AssertionError:
            pass
    if kind.startswith("cut"):
        cluster.cut(victim)
    elif kind == "one way":
        for other in servers[1:]:
            cluster.block(victim, other)
    elif kind == "partly":
        cluster.block(servers[1], servers[2])
        cluster.block(servers[2], servers[1])
    elif kind == "kill":
        victim.kill()
    elif kind.startswith(("lossy", "slow")):
        if not cluster.worsen(kind.split()[0], victim):
            counts[kind] -= 1
    else:
        victim.process.send_signal(signal.SIGSTOP)
    time.sleep(random.uniform(0.5, 4))
    if kind == "kill":
        victim.start()
    elif kind.startswith("pause"):
        victim.process.send_signal(signal.SIGCONT)
    elif kind.startswith(("lossy", "slow")):
        cluster.mend(victim)
    cluster.heal()
    time.sleep(random.uniform(0.2, 2))


class NetworkLocker(Locker):
    def run(self):
        self.cluster.enter()
        super().run()


def progress(cluster):
    """Seconds until a write succeeds through every server."""
    start = time.monotonic()
    for server in cluster.servers:
        wait_for("a write through " + server.name, lambda one=server: attempt(one), 60)
    return time.monotonic() - start


def attempt(server):
    try:
        return server.put("healed", "yes", timeout=3)
    except Exception:  # noqa: BLE001
        return False


def test_faulty_links_kills_and_pauses_keep_answers_linearizable():
    with NetworkCluster() as cluster:
        ending, counts = threading.Event(), {}
        clients = [Client(cluster, number, ending) for number in range(CLIENTS)]
        lockers = [NetworkLocker(cluster, "locker-%d" % number, ending) for number in range(2)]
        for thread in clients + lockers:
            thread.start()
        deadline = time.monotonic() + SECONDS
        # A busy machine needs longer for as many answers.
        while time.monotonic() < deadline or (time.monotonic() < deadline + 2 * SECONDS and
                                              sum(client.answered for client in clients) <= 10 * SECONDS):
            inject(cluster, counts)
        healed = progress(cluster)
        ending.set()
        for thread in clients + lockers:
            thread.join(60)
            assert not thread.is_alive()
        cluster.wait_equal()
        histories = {}
        for client in clients:
            for key, operations in client.history.items():
                histories.setdefault(key, []).extend(operations)
        undecided = 0
        for key, operations in sorted(histories.items()):
            verdict = check(operations)
            undecided += verdict is None
            assert verdict is not False, "not linearizable: %s\n%s" % (
                key, "\n".join(map(repr, sorted(operations, key=lambda one: one.start))))
        answered = sum(client.answered for client in clients)
        assert answered > 10 * SECONDS
        assert undecided <= len(histories) // 10
        assert_never_held_twice(lockers)
        print("faults: %s; answered: %d; registers: %d, undecided: %d; progress after healing: %.2f s" % (
            counts, answered, len(histories), undecided, healed))
