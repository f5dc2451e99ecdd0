"""Mixed load for long, with clients that misbehave at random and servers that are killed and come
back: memory and descriptors stay flat, and nothing that was acknowledged is lost.

SOAK_SECONDS (default 60) is how long it lasts. The figures are printed (pytest -s), and written to
SOAK_REPORT as JSON if that is set.
"""
import base64
import http.client
import json
import os
import random
import socket
import statistics
import struct
import threading
import time

from cluster import HTTP_PORT, Cluster, wait_for

SECONDS = int(os.environ.get("SOAK_SECONDS", "60"))
REPORT = os.environ.get("SOAK_REPORT")
WRITERS, SLOTS = 4, 100
MEMORY_GROWTH_MAX = 0.25
MEMORY_SLACK_KIB = 8 * 1024
DESCRIPTORS_SLACK = 20
LONG_KEYS, LONG_VALUE_BYTES = 2000, 2000  # a listing that is sent in pieces


class Worker(threading.Thread):
    """Does one kind of thing again and again until the end; what servers that die make of it is
    no failure."""

    def __init__(self, cluster, ending):
        super().__init__(daemon=True)
        self.cluster, self.ending, self.done, self.failed = cluster, ending, 0, 0

    def run(self):
        while not self.ending.is_set():
            try:
                self.once()
                self.done += 1
            except (OSError, http.client.HTTPException, ValueError):
                self.failed += 1
                time.sleep(0.05)

    def server(self):
        return random.choice(self.cluster.servers)

    def once(self):
        raise NotImplementedError


class Writer(Worker):
    """The only one that writes to its slots, numbers ascending; knows what was acknowledged."""

    def __init__(self, cluster, ending, number):
        super().__init__(cluster, ending)
        self.number, self.last, self.acknowledged = number, 0, {}

    def key(self, slot):
        return "soak/%d/%d" % (self.number, slot)

    def once(self):
        slot = random.randrange(SLOTS)
        self.last += 1
        if self.server().put(self.key(slot), "%d %s" % (self.last, "x" * random.randrange(300))):
            self.acknowledged[slot] = self.last

    def lost(self, server):
        """Slots that do not show what was acknowledged, or something newer."""
        lost = []
        for slot, number in self.acknowledged.items():
            entries = wait_for("an answer", lambda path="/v1/kv/%s?consistent" % self.key(slot): [
                server.get_json(path)], 60)[0]
            value = base64.b64decode(entries[0]["Value"]).decode() if entries else "0"
            if int(value.split(" ")[0]) < number:
                lost.append((self.key(slot), number, value[:20]))
        return lost


class Reader(Worker):
    """Reads of all kinds, sessions, locks, services, waits."""

    def once(self):
        server = self.server()
        key = "soak/%d/%d" % (random.randrange(WRITERS), random.randrange(SLOTS))
        random.choice((self.read, self.read, self.wait, self.listing, self.lock, self.service,
                       self.transaction))(server, key)

    def read(self, server, key):
        server.request("GET", "/v1/kv/%s%s" % (key, random.choice(("", "?stale", "?consistent",
                                                                   "?raw"))))

    def wait(self, server, key):
        index = server.request("GET", "/v1/kv/" + key)[1]["X-Consul-Index"]
        server.request("GET", "/v1/kv/%s?index=%s&wait=%dms" % (
            random.choice((key, "soak/?recurse")), index, random.randrange(1, 500)))

    def listing(self, server, key):
        server.request("GET", random.choice((
            "/v1/kv/soak/?recurse", "/v1/kv/?keys&separator=/", "/v1/kv/long/?recurse",
            "/v1/catalog/services", "/v1/health/state/any", "/v1/session/list",
            "/v1/agent/self", "/v1/agent/members", "/v1/agent/metrics")))

    def lock(self, server, key):
        _, _, body = server.request("PUT", "/v1/session/create",
                                    '{"TTL":"10s","LockDelay":"0s","Behavior":"delete"}')
        session = json.loads(body)["ID"]
        server.put("lock/%d" % random.randrange(5), "x", "?acquire=" + session)
        if random.random() < 0.9:  # The others run out.
            server.request("PUT", "/v1/session/destroy/" + session)

    def service(self, server, key):
        name = "soak-%d" % random.randrange(10)
        server.request("PUT", "/v1/agent/service/register",
                       json.dumps({"Name": name, "Port": 1, "Check": {"TTL": "30s"}}))
        server.request("PUT", "/v1/agent/check/pass/service:" + name)
        server.request("PUT", "/v1/agent/service/deregister/" + name)

    def transaction(self, server, key):
        value = base64.b64encode(os.urandom(100)).decode()
        server.request("PUT", "/v1/txn", json.dumps(
            [{"KV": {"Verb": "set", "Key": "txn/%d" % random.randrange(50), "Value": value}},
             {"KV": {"Verb": "get", "Key": "txn/%d" % random.randrange(50)}}]))


class Stranger(Worker):
    """A client that does what clients should not."""

    def open(self):
        client = socket.create_connection((self.server().address, HTTP_PORT), 5)
        client.settimeout(5)
        return client

    def once(self):
        client = self.open()
        try:
            random.choice((self.garbage, self.half_head, self.half_body, self.deaf, self.pipeline,
                           self.reset, self.huge_head, self.abandoned_wait, self.trickle,
                           self.broken_chunks, self.bad_json))(client)
        finally:
            client.close()

    def garbage(self, client):
        client.sendall(os.urandom(random.randrange(1, 5000)))
        client.recv(1000)

    def half_head(self, client):
        client.sendall(b"GET /v1/kv/soak HTTP/1.1\r\nHost: x\r\nX-Half"[:random.randrange(1, 40)])
        time.sleep(random.uniform(0, 0.5))

    def half_body(self, client):
        client.sendall(b"PUT /v1/kv/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"
                       + b"b" * random.randrange(100000))
        time.sleep(random.uniform(0, 0.5))

    def deaf(self, client):
        """Asks for a long listing and does not read it."""
        client.sendall(b"GET /v1/kv/long/?recurse HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        time.sleep(random.uniform(0, 8))

    def pipeline(self, client):
        client.sendall(b"GET /v1/kv/soak/0/0?index=1 HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        client.recv(random.randrange(1, 100000))

    def reset(self, client):
        client.sendall(b"GET /v1/kv/soak/?recurse HTTP/1.1\r\nHost: x\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def huge_head(self, client):
        client.sendall(b"GET /v1/kv/" + b"k" * random.randrange(200000) + b" HTTP/1.1\r\n"
                       + b"X: y\r\n" * random.randrange(400) + b"\r\n")
        client.recv(1000)

    def abandoned_wait(self, client):
        client.sendall(b"GET /v1/kv/none?index=99999999&wait=9m HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(random.uniform(0, 2))

    def trickle(self, client):
        for byte in b"PUT /v1/kv/trickle HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nvalue":
            client.sendall(bytes([byte]))
            time.sleep(0.005)
        client.recv(1000)

    def broken_chunks(self, client):
        client.sendall(b"PUT /v1/kv/chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                       + random.choice((b"5\r\nab", b"zz\r\n", b"ffffffffffffffff\r\n", b"-1\r\n")))
        client.recv(1000)

    def bad_json(self, client):
        body = random.choice((b"{", b"[" * 5000, b'{"Name":"\xff"}', b"\x00", b"[{}]"))
        client.sendall(b"PUT /v1/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (
            random.choice((b"txn", b"session/create", b"catalog/register",
                           b"agent/service/register")), len(body), body))
        client.recv(1000)


def memory_kib(server):
    """What the process itself holds; pages of the store's file come and go."""
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def descriptors(server):
    return len(os.listdir("/proc/%d/fd" % server.process.pid))


def fill_long(server):
    for number in range(LONG_KEYS):
        server.put("long/%05d" % number, "v" * LONG_VALUE_BYTES)


def wear_down(cluster, watched, seconds):
    """Kills and restarts the others in turn; gives the watched one's memory, a sample a second."""
    samples, kills = [], 0
    others = [server for server in cluster.servers if server is not watched]
    ending = time.monotonic() + seconds
    while time.monotonic() < ending:
        victim = others[kills % len(others)]
        for _ in range(6):
            samples.append(memory_kib(watched))
            time.sleep(1)
        victim.kill()
        kills += 1
        for _ in range(2):
            samples.append(memory_kib(watched))
            time.sleep(1)
        victim.start()
        wait_for("the one that was restarted", victim.leader, 60)
    return samples, kills


def test_load_strangers_and_deaths_for_long():
    ending = threading.Event()
    extra = {"limits": {"http_max_conns_per_client": 2000}}
    with Cluster(size=3, extra=extra) as cluster:
        watched = cluster.servers[0]
        pid = watched.process.pid
        fill_long(cluster.wait_leader())
        before = descriptors(watched)
        writers = [Writer(cluster, ending, number) for number in range(WRITERS)]
        readers = [Reader(cluster, ending) for _ in range(4)]
        strangers = [Stranger(cluster, ending) for _ in range(8)]
        workers = writers + readers + strangers
        for worker in workers:
            worker.start()
        try:
            samples, kills = wear_down(cluster, watched, SECONDS)
        finally:
            ending.set()
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive()

        assert all(server.alive() for server in cluster.servers)
        assert watched.process.pid == pid
        wait_for("descriptors given back",
                 lambda: descriptors(watched) <= before + DESCRIPTORS_SLACK, 60)
        leader = cluster.wait_leader(60)
        assert [lost for writer in writers for lost in writer.lost(leader)] == []
        cluster.wait_equal(60)

        quarter = len(samples) // 4
        early = statistics.median(samples[quarter:2 * quarter])
        late = statistics.median(samples[-quarter:])
        sixtieth = max(1, len(samples) // 60)
        figures = {"seconds": SECONDS, "kills": kills,
                   "writes": sum(writer.done for writer in writers),
                   "reads": sum(reader.done for reader in readers),
                   "strangers": sum(one.done + one.failed for one in strangers),
                   "memory_kib": {"second quarter": early, "last quarter": late,
                                  "highest": max(samples),
                                  "by sixtieths": [statistics.median(samples[i:i + sixtieth])
                                                   for i in range(0, len(samples), sixtieth)]},
                   "descriptors": {"before": before, "after": descriptors(watched)}}
        print(json.dumps(figures))
        if REPORT:
            with open(REPORT, "w", encoding="utf-8") as file:
                json.dump(figures, file, indent=2)
        assert all(writer.done > 0 for writer in writers)
        assert all(reader.done > 0 for reader in readers)
        assert late <= early * (1 + MEMORY_GROWTH_MAX) + MEMORY_SLACK_KIB, samples
