"""Servers whose disk fails, stalls or is full; and followers that hang.

A sync that fails or hangs comes from disk_shim.c, which is preloaded; a full disk is a small tmpfs that
the test mounts and unmounts.
"""
import os
import signal
import subprocess
import threading
import time

import pytest

from cluster import Cluster, Server, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(name="shim", scope="module")
def build_shim(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("shim") / "disk_shim.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path,
                    os.path.join(HERE, "disk_shim.c"), "-ldl"], check=True)
    return path


class ShimmedServer(Server):
    """A server whose disk does what `disk` says; `shim` is set by the test."""
    shim = None

    def mode_path(self):
        return os.path.join(self.cluster.dir, self.name + ".disk")

    def disk(self, mode):
        if mode is None:
            os.unlink(self.mode_path())
            return
        with open(self.mode_path() + ".new", "w", encoding="utf-8") as file:
            file.write(mode)
        os.rename(self.mode_path() + ".new", self.mode_path())

    def command(self, path):
        # A program built with a sanitizer wants its own library to be the first one.
        return ["env", "LD_PRELOAD=" + self.shim, "DISK_SHIM_FILE=" + self.mode_path(),
                "ASAN_OPTIONS=verify_asan_link_order=0"] + super().command(path)


def shimmed(shim, size, **extra):
    kind = type("Shimmed", (ShimmedServer,), {"shim": shim})
    return Cluster(size=size, server_class=kind, extra=extra)


def others_of(cluster, server):
    return [other for other in cluster.servers if other is not server]


def test_a_server_whose_sync_fails_stops_and_recovers(shim):
    with shimmed(shim, 3) as cluster:
        leader = cluster.wait_leader()
        assert leader.put("before", "1")
        leader.disk("fail")
        others = others_of(cluster, leader)
        wait_for("the server's end", lambda: leader.process.poll() is not None or
                 others[0].put("touch", "it", timeout=9) is None, 60)
        assert leader.process.wait(10) != 0
        leader.process = None
        text = leader.log()
        assert "sync failed at offset" in text
        assert "the process must stop" in text
        wait_for("a write through the others", lambda: others[0].put("after", "2", timeout=9), 60)
        leader.disk(None)
        leader.start()
        wait_for("what the others have",
                 lambda: leader.get_json("/v1/kv/after?stale") is not None, 60)
        assert leader.get_json("/v1/kv/before?stale") is not None
        cluster.wait_equal(60)


def test_a_leader_whose_disk_hangs_hands_over(shim):
    with shimmed(shim, 3) as cluster:
        leader = cluster.wait_leader()
        assert leader.put("k", "1")
        leader.disk("stall")
        others = others_of(cluster, leader)
        wait_for("a write through another server", lambda: others[0].put("k", "2", timeout=9), 60)

        def another_leads():
            others[0].put("k", "3", timeout=9)
            return leader.address not in others[0].leader()
        wait_for("another leader", another_leads, 60)
        assert "has not answered for" in leader.log()
        assert "handing leadership over, because of the disk" in leader.log()
        assert leader.alive()
        # What it cannot store it does not apply, either; what it has it shows.
        assert leader.get_json("/v1/kv/k?stale") is not None
        leader.disk(None)
        cluster.wait_leader(60)
        cluster.wait_equal(60)
        wait_for("its telling so", lambda: "disk of the Raft log answers again" in leader.log(), 60)


def test_a_leader_whose_disk_hangs_keeps_its_place_when_told_to(shim):
    with shimmed(shim, 3, performance={"disk_stall_timeout": "0s"}) as cluster:
        leader = cluster.wait_leader()
        leader.disk("stall")
        others = others_of(cluster, leader)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            others[0].put("k", "v", timeout=9)  # Committed by the logs of the others.
            time.sleep(0.1)
        assert leader.address in others[0].leader()
        leader.disk(None)
        cluster.wait_equal(60)


def test_writes_are_refused_when_the_disk_hangs_and_nobody_can_take_over(shim):
    with shimmed(shim, 1) as cluster:
        server = cluster.servers[0]
        wait_for("a leader", lambda: server.put("k", "1"), 60)
        server.disk("stall")
        stuck = threading.Thread(target=lambda: server.request("PUT", "/v1/kv/k", "2", timeout=60))
        stuck.start()

        def refused():
            status, _, body = server.request("PUT", "/v1/kv/k", "3", timeout=2)
            return status == 500 and b"check the disk of data_dir" in body
        wait_for("a refusal that says why", refused, 60)
        assert server.get_json("/v1/kv/k?stale") is not None
        server.disk(None)
        stuck.join(60)
        wait_for("writes again", lambda: server.put("k", "4"), 60)


# --- flow control ---

def resident_mib(server):
    with open("/proc/%d/status" % server.process.pid, encoding="ascii") as file:
        for line in file:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    raise AssertionError("no RssAnon")


def test_writes_beyond_the_queue_get_503_at_once():
    """Without a leader 64 MiB may wait; what comes on top is refused, and told to try again."""
    with Cluster(size=3) as cluster:
        server = cluster.wait_leader()
        for other in others_of(cluster, server):
            other.kill()
        wait_for("the end of its leadership", lambda: server.leader() == "", 60)
        value = os.urandom(500 * 1024)
        answers = []

        def write(number):
            status, headers, body = server.request("PUT", "/v1/kv/k%d" % number, value, timeout=60)
            answers.append((status, headers.get("Retry-After"), body))
        threads = [threading.Thread(target=write, args=(number,)) for number in range(160)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert len(answers) == 160
        busy = [answer for answer in answers if answer[0] == 503]
        held = [answer for answer in answers if answer[0] == 500]
        assert len(busy) + len(held) == 160
        assert 160 - 134 <= len(busy) <= 160 - 120, len(busy)  # 64 MiB are 131 of them.
        for _, retry_after, body in busy:
            assert retry_after == "1"
            assert body == b"too many writes are waiting, try again"
        assert all(body == b"No cluster leader" for _, _, body in held)
        assert answers[0][0] == 503  # At once: while the others were held.


def test_a_stuck_follower_costs_little_memory_and_no_time():
    """Its link is full at some point; the quorum goes on without it, and it catches up."""
    with Cluster(size=3) as cluster:
        leader = cluster.wait_leader()
        stuck = others_of(cluster, leader)[0]
        value = os.urandom(256 * 1024)
        for number in range(8):
            assert leader.put("warm%d" % number, value)
        before = resident_mib(leader)
        stuck.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(400):  # 100 MiB
                assert leader.put("k%d" % (number % 20), value)
            grown = resident_mib(leader) - before
        finally:
            stuck.process.send_signal(signal.SIGCONT)
        assert grown < 48, "the leader grew by %d MiB" % grown
        cluster.wait_equal(60)
