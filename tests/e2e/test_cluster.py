"""Five servers, a load, and kill -9: nothing acknowledged is lost, no lock has two holders."""
import base64
import concurrent.futures
import json
import os
import random
import shutil
import threading
import time

import pytest

from cluster import PATIENT, Cluster, wait_for

KILLS = 10


class Writer(threading.Thread):
    """Writes rising numbers to keys of its own through changing servers, and remembers what was acknowledged."""

    def __init__(self, cluster, name):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.prefix = "load/%s/" % name
        self.acknowledged = {}
        self.failures = 0
        self.ending = threading.Event()

    def run(self):
        number = 0
        while not self.ending.is_set():
            number += 1
            key = self.prefix + "%02d" % (number % 50)
            server = random.choice(self.cluster.servers)
            try:
                if server.put(key, str(number), timeout=10) is True:
                    self.acknowledged[key] = number
            except (OSError, ValueError, Exception) as error:  # noqa: B014 - any failure is no acknowledgement
                del error
                self.failures += 1
                # Unknown outcome: the key may hold this number; a later acknowledged one overrides it.
                self.acknowledged.pop(key, None)
                time.sleep(0.05)


def check_acknowledged(server, writers):
    listing = wait_for("a consistent answer", lambda: [server.get_json("/v1/kv/load/?recurse&consistent")], 60)[0]
    entries = {entry["Key"]: base64.b64decode(entry["Value"]) for entry in listing}
    for writer in writers:
        for key, number in writer.acknowledged.items():
            assert entries.get(key) == str(number).encode(), \
                "%s: acknowledged %d, found %r" % (key, number, entries.get(key))


def acknowledged(writers):
    return sum(len(writer.acknowledged) for writer in writers)


def test_kill_random_servers_under_load_loses_nothing():
    with Cluster() as cluster:
        writers = [Writer(cluster, "w%d" % i) for i in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            time.sleep(random.uniform(0.3, 1.0))
            victim = random.choice(cluster.live())
            victim.kill()
            time.sleep(random.uniform(0.2, 1.5))
            victim.start()
        cluster.wait_leader()
        wait_for("writes enough", lambda: acknowledged(writers) > 50, 60)
        for writer in writers:
            writer.ending.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
        cluster.wait_leader()
        for server in cluster.servers:
            check_acknowledged(server, writers)
        cluster.wait_equal()


def test_a_killed_cluster_comes_back_with_all_it_acknowledged():
    with Cluster(size=3) as cluster:
        writers = [Writer(cluster, "w%d" % i) for i in range(2)]
        for writer in writers:
            writer.start()
        wait_for("writes", lambda: acknowledged(writers) > 50, 60)
        for server in cluster.servers:
            server.process.kill()
        for writer in writers:
            writer.ending.set()
        for server in cluster.servers:
            server.kill()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
        assert acknowledged(writers) > 0
        for server in cluster.servers:
            server.start()
        cluster.wait_leader()
        for server in cluster.servers:
            check_acknowledged(server, writers)
        cluster.wait_equal()


def test_a_lost_state_is_rebuilt_from_the_log():
    with Cluster(size=3) as cluster:
        for number in range(200):
            cluster.servers[0].store("k/%03d" % number, str(number))
        victim = cluster.servers[1]
        victim.kill()
        shutil.rmtree(os.path.join(victim.data_dir, "state"))
        victim.start()
        cluster.wait_leader()
        cluster.wait_equal()
        assert len(victim.get_json("/v1/kv/k/?recurse&stale")) == 200


def test_a_lost_log_is_told_and_not_papered_over():
    with Cluster(size=3) as cluster:
        cluster.servers[0].store("k", "v")
        cluster.wait_equal()
        victim = cluster.servers[1]
        victim.kill()
        shutil.rmtree(os.path.join(victim.data_dir, "raft"))
        victim.start()
        assert victim.process.wait(60) == 1
        assert "part of the log" in victim.log()
        victim.process = None


class Locker(threading.Thread):
    """Takes a lock with a session of its own, holds it a little, gives it back; notes when it surely held it: from after the
    grant until before the release, and never beyond what its session's TTL guarantees."""

    def __init__(self, cluster, name, ending):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.name_text = name
        self.ending = ending
        self.session = None
        self.held = []  # (from, to)
        self.ttl = 10.0

    def ask(self, method, path, body=None):
        server = random.choice(self.cluster.live() or self.cluster.servers)
        status, _, answer = server.request(method, path, body, timeout=8)
        if status != 200:
            raise ValueError("%s %s: %d %r" % (method, path, status, answer[:100]))
        return json.loads(answer)

    def new_session(self):
        self.session = self.ask("PUT", "/v1/session/create", json.dumps(
            {"Name": self.name_text, "Checks": [], "TTL": "10s", "LockDelay": "0.001s",
             "Behavior": "release"}))["ID"]

    def run(self):
        while not self.ending.is_set():
            try:
                if self.session is None:
                    self.new_session()
                renewed = time.monotonic()
                self.ask("PUT", "/v1/session/renew/" + self.session)
                if self.ask("PUT", "/v1/kv/lock?acquire=" + self.session,
                            self.name_text) is not True:
                    time.sleep(random.uniform(0.01, 0.05))
                    continue
                start = time.monotonic()
                time.sleep(random.uniform(0.01, 0.1))
                # What a careful client does: it counts on the lock only within the TTL.
                self.held.append((start, min(time.monotonic(), renewed + self.ttl)))
                self.ask("PUT", "/v1/kv/lock?release=" + self.session, self.name_text)
            except Exception:  # noqa: BLE001 - the server died or has no leader: end the session, make another
                self.end_session()
                time.sleep(0.1)

    def end_session(self):
        try:
            if self.session is not None:
                self.ask("PUT", "/v1/session/destroy/" + self.session)
        except Exception:  # noqa: BLE001 - then its TTL ends it
            pass
        self.session = None


def assert_never_held_twice(lockers):
    """All spans in which the lock was held, in order."""
    spans = sorted((span + (locker.name_text,)) for locker in lockers for span in locker.held)
    assert len({name for _, _, name in spans}) == 2, "both must have had the lock"
    for before, after in zip(spans, spans[1:]):
        assert before[2] == after[2] or before[1] <= after[0], \
            "held twice: %r and %r" % (before, after)
    return spans


def test_two_clients_fight_for_a_lock_and_never_hold_it_both():
    with Cluster() as cluster:
        ending = threading.Event()
        lockers = [Locker(cluster, "client-%d" % i, ending) for i in range(2)]
        for locker in lockers:
            locker.start()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(random.uniform(3, 6))
            victim = random.choice(cluster.live())
            victim.kill()
            time.sleep(random.uniform(0.5, 2))
            victim.start()
        wait_for("grants enough", lambda: sum(len(locker.held) for locker in lockers) > 40 and
                 all(locker.held for locker in lockers), 60)
        ending.set()
        for locker in lockers:
            locker.join(60)
            assert not locker.is_alive()
        assert len(assert_never_held_twice(lockers)) > 20


def test_an_orderly_stop_of_the_leader_fails_no_request_of_others():
    with Cluster(extra=PATIENT) as cluster:
        for _ in range(3):
            leader = cluster.wait_leader()
            others = [server for server in cluster.servers if server is not leader]
            ending, failures, done = threading.Event(), [], []

            def write(server):
                while not ending.is_set():
                    try:
                        assert server.put("k/" + server.name, str(len(done))) is True
                        done.append(server)
                    except Exception as error:  # noqa: BLE001
                        failures.append(error)

            threads = [threading.Thread(target=write, args=(server,), daemon=True) for server in others]
            for thread in threads:
                thread.start()
            try:
                wait_for("writes", lambda: len(done) > 20 or failures, 60)
                leader.stop()
                before = len(done)
                wait_for("more writes", lambda: len(done) > before + 3 or failures, 60)
            finally:
                ending.set()
            for thread in threads:
                thread.join(60)
                assert not thread.is_alive()
            assert not failures
            leader.start()
            cluster.wait_leader()


def test_an_orderly_stop_and_start_keeps_everything():
    with Cluster(size=1) as cluster:
        server = cluster.servers[0]
        assert server.put("k", "v") is True
        server.stop()
        server.start()
        cluster.wait_leader()
        assert server.get_json("/v1/kv/k")[0]["Value"] == base64.b64encode(b"v").decode()


def test_without_a_leader_requests_wait_before_they_fail():
    with Cluster(size=3) as cluster:
        cluster.servers[0].store("k", "v")
        cluster.wait_equal()
        cluster.servers[1].kill()
        cluster.servers[2].kill()
        wait_for("its noticing that it has no quorum", lambda: cluster.servers[0].leader() == "", 60)

        def ask(request):
            method, path = request
            start = time.monotonic()
            status, _, body = cluster.servers[0].request(method, path, "x" if method == "PUT" else None)
            return path, status, body, time.monotonic() - start

        requests = (("GET", "/v1/kv/k"), ("PUT", "/v1/kv/k"), ("GET", "/v1/kv/k?consistent"),
                    ("GET", "/v1/kv/k?index=1&wait=1s"))
        with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
            for path, status, body, seconds in pool.map(ask, requests):
                assert (status, body) == (500, b"No cluster leader"), path
                assert seconds > 5, path
        status, headers, _ = cluster.servers[0].request("GET", "/v1/kv/k?stale")
        assert status == 200
        assert headers["X-Consul-Knownleader"] == "false"


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__, "-v"]))
