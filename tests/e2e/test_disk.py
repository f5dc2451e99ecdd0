"""Servers whose disk fails, stalls or is full; followers that hang; machines that were asleep.

A sync that fails or hangs, and a clock that was asleep, come from disk_shim.c, which is preloaded; a full disk is a small tmpfs that
the test mounts and unmounts.
"""
import json
import os
import re
import signal
import subprocess
import threading
import time

import dns.message
import dns.query
import dns.rcode
import pytest

from cluster import DNS_PORT, PATIENT, Cluster, Server, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
# Where it is the disk that moves leadership, not a busy machine; what waits for a leader, or for space, gives up as soon as ever.
STEADY = {"performance": {"raft_multiplier": 5}}


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
        leader.store("before", "1")
        leader.disk("fail")
        others = others_of(cluster, leader)
        wait_for("the server's end", lambda: leader.process.poll() is not None or
                 others[0].put("touch", "it", timeout=9) is None, 60)
        assert leader.process.wait(60) != 0
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
    # It is the disk that moves leadership, not a busy machine.
    with shimmed(shim, 3, performance={**PATIENT["performance"], "disk_stall_timeout": "1s"}) as cluster:
        leader = cluster.wait_leader()
        assert leader.put("k", "1")
        leader.disk("stall")
        others = others_of(cluster, leader)
        wait_for("a write through another server", lambda: others[0].put("k", "2"), 60)

        def another_is_named():
            others[0].put("k", "3")
            said = others[0].leader()
            return said and leader.address not in said
        wait_for("another leader", another_is_named, 60)
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
    with shimmed(shim, 3, performance={**PATIENT["performance"], "disk_stall_timeout": "0s"}) as cluster:
        leader = cluster.wait_leader()
        leader.disk("stall")
        others = others_of(cluster, leader)
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            others[0].put("k", "v")  # Committed by the logs of the others.
            time.sleep(0.1)
        assert leader.address in others[0].leader()
        leader.disk(None)
        cluster.wait_equal(60)


def test_writes_are_refused_when_the_disk_hangs_and_nobody_can_take_over(shim):
    with shimmed(shim, 1) as cluster:
        server = cluster.servers[0]
        wait_for("a leader", lambda: server.put("k", "1"), 60)
        server.disk("stall")
        stuck = threading.Thread(target=lambda: server.request("PUT", "/v1/kv/k", "2", timeout=120), daemon=True)
        stuck.start()

        def refused():
            status, _, body = server.request("PUT", "/v1/kv/k", "3", timeout=5)
            return status == 500 and b"check the disk of data_dir" in body
        wait_for("a refusal that says why", refused, 60)
        assert server.get_json("/v1/kv/k?stale") is not None
        server.disk(None)
        stuck.join(60)
        wait_for("writes again", lambda: server.put("k", "4"), 60)


def stop_with_a_hung_disk(server):
    """Up to where the parts are stopped, the log among them, which waits for its disk."""
    wait_for("a leader", lambda: server.put("k", "1"), 60)
    server.disk("stall")

    def stuck():
        try:
            server.put("k", "2", timeout=1)
        except (OSError, ValueError):
            pass  # Nobody waits for it; the disk has it to write.
        return "has not answered for" in server.log()
    wait_for("a write that the disk does not take", stuck, 60)
    server.process.terminate()
    wait_for("the stop", lambda: "Requesting shutdown" in server.log(), 60)


def test_a_disk_that_hangs_at_a_stop_does_not_keep_the_process(shim):
    """Symptom: the log's thread was waited for, and nothing but SIGKILL ended the process."""
    with shimmed(shim, 1) as cluster:
        server = cluster.servers[0]
        stop_with_a_hung_disk(server)
        assert server.process.wait(60) == 1
        server.process = None
        assert "the server did not stop in" in server.log()
        server.disk(None)
        server.start()
        wait_for("what was acknowledged", lambda: server.get_json("/v1/kv/k") is not None, 60)


def test_a_second_signal_ends_a_stop_that_hangs(shim):
    with shimmed(shim, 1) as cluster:
        server = cluster.servers[0]
        stop_with_a_hung_disk(server)

        def ended():
            if server.process.poll() is None:
                server.process.terminate()  # Again: the first one may be one too early for the guard.
            return server.process.poll() is not None
        wait_for("the end", ended, 60)
        assert server.process.wait() == 1
        server.process = None
        assert "second signal, exiting at once" in server.log()


def test_a_slow_disk_is_warned_of_and_measured(shim):
    with shimmed(shim, 1) as cluster:
        server = cluster.servers[0]
        wait_for("a leader", lambda: server.put("k", "1"), 60)
        server.disk("slow")

        def told(text):
            for _ in range(16):
                server.put("k", "2")
            return text in server.log()
        wait_for("a warning", lambda: told("the disk of the Raft log is slow"), 60)
        wait_for("its metric", lambda: server.put("k", "2") and (gauge_of(server, "wal.fsync_max") or 0) >= 60, 60)
        server.disk(None)
        wait_for("the end of it", lambda: told("is fast enough again"), 60)


def test_a_leader_whose_machine_slept_does_not_trust_its_lease(shim):
    """CLOCK_MONOTONIC stands still meanwhile. Nobody has answered since, as far as it knows: so it
    asks before it answers, ends no session, and goes on leading or lets another one lead."""
    with shimmed(shim, 3, **PATIENT) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        status, _, body = leader.request("PUT", "/v1/session/create",
                                         '{"TTL": "15s", "Checks": []}')
        assert status == 200, body
        session = json.loads(body)["ID"]
        leader.disk("suspend")
        # A busy machine makes pauses of its own.
        wait_for("its noticing", lambda: any(int(pause) >= 39000 for pause in re.findall(
            r"this server was paused, extending sessions.*pause=(\d+)ms", leader.log())), 60)
        wait_for("a write", lambda: others_of(cluster, leader)[0].put("k", "v"), 60)
        assert leader.request("PUT", "/v1/session/renew/" + session)[0] == 200
        cluster.wait_equal(60)


# --- flow control ---

def test_writes_beyond_the_queue_get_503_at_once():
    """Without a leader 64 MiB may wait; what comes on top is refused, and told to try again."""
    with Cluster(size=3, extra={"performance": {"rpc_hold_timeout": "30s"}}) as cluster:
        server = cluster.wait_leader()
        for other in others_of(cluster, server):
            other.kill()
        wait_for("the end of its leadership", lambda: server.leader() == "", 60)
        value = os.urandom(500 * 1024)
        answers = []

        def write(number):
            status, headers, body = server.request("PUT", "/v1/kv/k%d" % number, value, timeout=120)
            answers.append((status, headers.get("Retry-After"), body))
        threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(160)]
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
    with Cluster(size=3, extra=PATIENT) as cluster:
        leader = cluster.wait_leader()
        stuck = others_of(cluster, leader)[0]
        value = os.urandom(256 * 1024)
        for number in range(8):
            assert leader.put("warm%d" % number, value)
        before = leader.memory_mib()
        stuck.process.send_signal(signal.SIGSTOP)
        try:
            for number in range(400):  # 100 MiB
                assert leader.put("k%d" % (number % 20), value)
            grown = leader.memory_mib() - before
        finally:
            stuck.process.send_signal(signal.SIGCONT)
        assert grown < 48, "the leader grew by %d MiB" % grown
        cluster.wait_equal(120)


# --- full disks ---

class SmallDisk:
    """A tmpfs on a folder of a server, from before its start to the end of the `with`."""

    def __init__(self, server, folder, mib):
        self.path = os.path.join(server.data_dir, folder)
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm,mode=0700" % mib, "none",
                        self.path], check=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def resize(self, mib):
        subprocess.run(["mount", "-o", "remount,size=%dm" % mib, self.path], check=True)

    def filler(self):
        return os.path.join(self.path, "filler")

    def fill(self, left_kib=0):
        """Takes all space but so much."""
        free = os.statvfs(self.path)
        size = free.f_bavail * free.f_frsize - left_kib * 1024
        with open(self.filler(), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

    def clear(self):
        os.unlink(self.filler())


def write_until_refused(server, text, value, writes):
    """Puts until it is answered 500 with `text`; returns how many were taken."""
    for number in range(writes):
        status, _, body = server.request("PUT", "/v1/kv/fill/%d" % number, value, timeout=60)
        if status != 200:
            assert status == 500, body
            assert text in body, body
            return number
    raise AssertionError("%d writes were taken" % writes)


@pytest.fixture(name="three")
def three_stopped():
    """Three servers that the test starts, on disks that it makes. It is these that move leadership, not a busy machine."""
    cluster = Cluster(size=3, extra=STEADY)
    try:
        yield cluster
    finally:
        cluster.close(True)  # Whether the test failed is not known here; pytest shows it only then.


def write_until_handed_over(leader, value, writes):
    """Until it says so; returns how many writes were taken. In between it may refuse some."""
    taken = 0
    for number in range(writes):
        taken += leader.request("PUT", "/v1/kv/fill/%d" % number, value, timeout=60)[0] == 200
        if "handing leadership over to a server that has space" in leader.log():
            return taken
    wait_for("its handing over", lambda: "handing leadership over to" in leader.log(), 60)
    return taken


def another_leads(cluster, server):
    """Waits until another server leads, by its own word; returns it."""
    found = []

    def leads():
        for other in others_of(cluster, server):
            state = other.get_json("/v1/agent/self?stale")
            if state and state["Stats"]["raft"]["state"] == "Leader":
                found.append(other)
        return found
    wait_for("another leader", leads, 60)
    return found[0]


def test_a_leader_whose_disk_of_the_log_is_full_hands_over(three):
    """The spare segment cannot be made: on the leader alone, where all others have space, then on all
    that are left: they refuse writes until one has space."""
    value = os.urandom(500 * 1024)
    with SmallDisk(three.servers[0], "raft", 140) as one, \
            SmallDisk(three.servers[1], "raft", 140) as two, \
            SmallDisk(three.servers[2], "raft", 140) as three_disk:
        three.start()
        leader = three.wait_leader()
        disks = dict(zip(three.servers, (one, two, three_disk)))
        for server in others_of(three, leader):
            disks[server].resize(500)
        assert write_until_handed_over(leader, value, 150) > 50  # 75 MiB, more than a segment
        assert "disk of the Raft log is full" in leader.log()
        follower = leader
        leader = another_leads(three, follower)
        assert leader.put("more", "1", timeout=60)
        # Who is full takes no writes of its own clients, and shows what it has.
        status, _, body = follower.request("PUT", "/v1/kv/more", "2", timeout=60)
        assert status == 500 and b"no space left on the Raft log's disk" in body, body
        assert follower.get_json("/v1/kv/fill/0?consistent") is not None
        disks[follower].resize(500)
        wait_for("its writes", lambda: follower.put("more", "3"), 60)
        three.wait_equal(60)


def test_where_every_disk_of_the_log_is_full_the_leader_stays(three):
    value = os.urandom(500 * 1024)
    with SmallDisk(three.servers[0], "raft", 140), SmallDisk(three.servers[1], "raft", 140), \
            SmallDisk(three.servers[2], "raft", 140):
        three.start()
        leader = three.wait_leader()
        assert write_until_refused(leader, b"no space left on the Raft log's disk", value, 200) > 50
        for server in three.servers:
            wait_for("its word", lambda: "disk of the Raft log is full" in server.log(), 60)
        wait_for("the leader's word", lambda: "no other server has space" in leader.log(), 60)
        assert "handing leadership over" not in leader.log()
        assert leader.get_json("/v1/kv/fill/0") is not None


def test_a_full_disk_of_the_state_moves_leadership_and_refuses_what_grows(three):
    """On the leader before it happens, by a reserve: it hands over to one that has space, and refuses
    where none has. On a follower when it does: that stops to apply, and goes on when there is
    space."""
    value = os.urandom(500 * 1024)
    with SmallDisk(three.servers[0], "state", 400) as one, \
            SmallDisk(three.servers[1], "state", 400) as two, \
            SmallDisk(three.servers[2], "state", 400) as three_disk:
        three.start()
        first = three.wait_leader()
        disks = dict(zip(three.servers, (one, two, three_disk)))
        disks[first].resize(70)
        assert write_until_handed_over(first, value, 40) > 5
        leader = another_leads(three, first)
        assert leader.put("more", "1", timeout=60)
        disks[first].resize(400)
        for server in three.servers:
            disks[server].resize(100)
        leader = three.wait_leader()
        assert write_until_refused(leader, b"no space left for the state", value, 100) > 1
        assert "free disk space or raise limits.state_max_size" in \
            leader.request("PUT", "/v1/kv/x", value)[2].decode()
        assert leader.get_json("/v1/kv/more") is not None
        assert leader.request("DELETE", "/v1/kv/fill/?recurse")[0] == 200  # Frees space.
        for server in three.servers:
            disks[server].resize(400)
        wait_for("writes again", lambda: leader.put("more", "1"), 60)

        leader = three.wait_leader()
        follower = others_of(three, leader)[0]
        disks[follower].fill()
        for number in range(100):
            assert leader.put("again/%d" % number, value)
        wait_for("the follower's word",
                 lambda: "cannot be written until there is space" in follower.log(), 60)
        assert follower.alive()
        assert follower.get_json("/v1/kv/more?stale") is not None
        disks[follower].clear()
        wait_for("what it missed",
                 lambda: follower.get_json("/v1/kv/again/99?keys&stale") is not None, 60)


def test_a_follower_without_space_for_a_restored_state_follows_when_there_is(three):
    """What came is put aside in space that was freed; putting it in place needs as much again."""
    value = os.urandom(500 * 1024)
    with SmallDisk(three.servers[0], "state", 400) as disk:
        three.start()
        leader = three.wait_leader()
        follower = three.servers[0]
        if leader is follower:
            # The next one may not have been elected in time on a busy machine.
            wait_for("a hand-over", lambda: follower.request(
                "PUT", "/v1/operator/raft/transfer-leader")[0] == 200, 60)
            leader = another_leads(three, follower)
        for number in range(60):
            assert leader.put("restored/%d" % number, value)
        archive = leader.request("GET", "/v1/snapshot", timeout=60)[2]
        assert leader.request("DELETE", "/v1/kv/?recurse")[0] == 200
        assert leader.put("old", "1")
        three.wait_equal(60)
        disk.fill(left_kib=4096)
        status, _, text = leader.request("PUT", "/v1/snapshot", archive, timeout=120)
        assert status == 200, text
        assert leader.get_json("/v1/kv/restored/?keys") is not None
        assert leader.put("new", "1")  # The others go on.
        wait_for("the follower's word", lambda: "has no room beside the present one"
                 in follower.log() or "cannot be written until there is space" in follower.log(), 60)
        assert follower.alive()
        assert follower.get_json("/v1/kv/old?stale") is not None  # All of the old state,
        assert follower.request("GET", "/v1/kv/restored/?keys&stale")[0] == 404  # none of the new.
        wait_for("its metric", lambda: any(
            gauge["Name"].endswith("state.full") and gauge["Value"] == 1
            for gauge in follower.get_json("/v1/agent/metrics")["Gauges"]), 60)
        disk.clear()
        wait_for("the restored state",
                 lambda: follower.request("GET", "/v1/kv/new?stale")[0] == 200, 60)
        three.wait_equal(60)
        wait_for("its telling so", lambda: "there is space again" in follower.log(), 60)


NO_ROOM = "has no room beside the present"


def gauge_of(server, name):
    """Of a gauge of the server; None: it is not told yet."""
    for gauge in server.get_json("/v1/agent/metrics")["Gauges"]:
        if gauge["Name"].endswith("." + name):
            return gauge["Value"]
    return None


def cluster_with_few_logs():
    """Whose servers soon need a snapshot."""
    return Cluster(size=3, extra={**STEADY, "raft_snapshot_threshold": 20, "raft_snapshot_interval": "100ms",
                                  "raft_trailing_logs": 5})


def fetch_without_room(cluster, follower, disk):
    """Starts all; the follower then has an old state, and a snapshot of a new one without room for
    it on `disk`."""
    value = os.urandom(500 * 1024)
    cluster.start()
    leader = cluster.wait_leader()
    assert leader.put("old", "1")
    for number in range(30):
        assert leader.put("k/%d" % number, value)
    cluster.wait_members()
    cluster.wait_equal(60)
    follower.stop()
    leader = cluster.wait_leader()
    for number in range(60):
        assert leader.put("k/%d" % number, value)
    assert leader.request("DELETE", "/v1/kv/old")[0] == 200
    disk.fill(left_kib=4096)
    follower.start()
    wait_for("its word", lambda: NO_ROOM in follower.log(), 60)


def test_a_follower_without_space_for_a_snapshot_follows_when_there_is():
    """It shows the old state meanwhile, says that it is full, and does not fill its log with that."""
    cluster = cluster_with_few_logs()
    follower = cluster.servers[0]
    failed = True
    try:
        with SmallDisk(follower, "state", 400) as disk:
            fetch_without_room(cluster, follower, disk)
            wait_for("its metric", lambda: gauge_of(follower, "state.full") == 1, 60)
            assert follower.get_json("/v1/kv/old?stale") is not None
            assert follower.get_json("/v1/kv/k/59?keys&stale") is None
            # The tries do not use up what others may need.
            assert os.statvfs(disk.path).f_bavail * os.statvfs(disk.path).f_frsize > 3 << 20
            disk.clear()
            wait_for("the leader's state",
                     lambda: follower.request("GET", "/v1/kv/old?stale")[0] == 404, 60)
            cluster.wait_equal(60)
            wait_for("its telling so", lambda: "there is space again" in follower.log(), 60)
            assert follower.log().count(NO_ROOM) == 1
        failed = False
    finally:
        cluster.close(failed)


def rcode_of(server, name):
    query = dns.message.make_query(name, "A")
    return dns.query.udp(query, server.address, timeout=30, port=DNS_PORT).rcode()


@pytest.mark.parametrize("state", ["old", "lost"])
def test_a_server_that_is_restarted_without_room_for_its_snapshot_starts(state):
    """It follows, tells what is missing, shows the old state if it has one, and nothing if that was
    lost with the machine; and it goes on when there is space."""
    cluster = cluster_with_few_logs()
    follower = cluster.servers[0]
    failed = True
    try:
        with SmallDisk(follower, "state", 400) as disk:
            fetch_without_room(cluster, follower, disk)
            follower.kill()
            if state == "lost":
                disk.clear()
                os.unlink(os.path.join(disk.path, "mark"))
                os.unlink(os.path.join(disk.path, "data.mdb"))
                disk.fill(left_kib=4096)
            told = follower.log().count(NO_ROOM)
            follower.start()
            wait_for("its word", lambda: follower.log().count(NO_ROOM) > told, 60)
            cluster.wait_leader(60)
            assert "bytes, and there is room for" in follower.log()
            assert follower.get_json("/v1/agent/self?stale")["Stats"]["raft"]["state"] == "Follower"
            wait_for("its metric", lambda: gauge_of(follower, "state.full") == 1, 60)
            assert gauge_of(follower, "state.snapshot_waiting") > 30 * 500 * 1024
            status, _, body = follower.request("GET", "/v1/kv/k/1", timeout=30)
            assert status == 500 and b"no space left for the state of this server" in body, body
            status, headers, body = follower.request("GET", "/v1/kv/old?stale")
            if state == "old":
                assert status == 200
                assert int(headers["X-Consul-LastContact"]) > 1000  # It is that old.
                assert rcode_of(follower, "server-2.node.consul") == dns.rcode.NOERROR
            else:
                assert status == 500 and b"no space left for the state of this server" in body, body
                assert rcode_of(follower, "server-2.node.consul") == dns.rcode.SERVFAIL
            leader = cluster.wait_leader()
            assert leader.put("new", "1")  # The others go on.
            disk.clear()
            wait_for("the leader's state", lambda: follower.get_json("/v1/kv/new?stale"), 60)
            cluster.wait_equal(60)
            wait_for("its metric", lambda: gauge_of(follower, "state.snapshot_waiting") == 0, 60)
            wait_for("its DNS", lambda: rcode_of(follower, "server-2.node.consul") ==
                     dns.rcode.NOERROR, 60)
            assert follower.get_json("/v1/kv/old") is None
        failed = False
    finally:
        cluster.close(failed)


class LimitedServer(Server):
    state_max_mib = 1024

    def config(self):
        config = super().config()
        config["limits"] = {"state_max_size": self.state_max_mib * 1024 * 1024}
        return config


def test_a_state_at_its_limit_refuses_what_grows():
    """As on a full disk; a follower with a lower limit stops to apply and needs a higher one."""
    value = os.urandom(500 * 1024)
    with Cluster(size=3, server_class=LimitedServer, extra=PATIENT) as cluster:
        leader = cluster.wait_leader()
        follower = others_of(cluster, leader)[0]
        follower.stop()
        follower.state_max_mib = 48
        follower.start()
        cluster.wait_leader()
        for number in range(120):
            assert leader.put("k/%d" % number, value)
        wait_for("the follower's word",
                 lambda: "raise limits.state_max_size" in follower.log(), 60)
        assert follower.get_json("/v1/kv/k/0?keys&stale") is not None
        follower.stop()
        follower.state_max_mib = 1024
        follower.start()
        wait_for("what it missed",
                 lambda: follower.get_json("/v1/kv/k/119?keys&stale") is not None, 60)
        # The same limit for a leader.
        leader.stop()
        leader.state_max_mib = 120
        leader.start()
        cluster.wait_leader()
        path = "/v1/operator/raft/transfer-leader?id=" + leader.get_json("/v1/agent/self")["Config"]["NodeID"]
        # It may not have all that it needs in time on a busy machine.
        wait_for("a hand-over", lambda: cluster.wait_leader() is leader or
                 follower.request("PUT", path)[0] == 200, 60)
        wait_for("its leadership", lambda: cluster.wait_leader() is leader, 60)
        write_until_refused(follower, b"raise limits.state_max_size", value, 120)
        assert follower.request("DELETE", "/v1/kv/k/?recurse")[0] == 200
        wait_for("writes again", lambda: follower.put("k/0", value), 60)


def test_a_full_disk_of_snapshots_stops_no_writes():
    """They are tried again; the log keeps what they would have replaced."""
    with_snapshots = {"raft_snapshot_threshold": 20, "raft_snapshot_interval": "100ms",
                      "raft_trailing_logs": 5}
    cluster = Cluster(size=1, extra=with_snapshots)
    server = cluster.servers[0]
    failed = True
    try:
        with SmallDisk(server, "snapshots", 1) as disk:
            disk.fill()
            cluster.start()
            value = os.urandom(100 * 1024)
            for number in range(60):
                assert server.put("k%d" % number, value)
            wait_for("its word", lambda: "no space" in server.log().lower(), 60)
            assert server.put("k", "v")
            disk.clear()
            disk.resize(100)
            wait_for("a snapshot", lambda: [name for name in os.listdir(disk.path)
                                            if not name.startswith(".")], 60)
            assert server.put("k", "w")
        failed = False
    finally:
        cluster.close(failed)


def test_a_follower_without_space_for_a_snapshot_gets_it_later():
    with_snapshots = {"raft_snapshot_threshold": 20, "raft_snapshot_interval": "100ms",
                      "raft_trailing_logs": 5}
    cluster = Cluster(size=3, extra={**PATIENT, **with_snapshots})
    failed = True
    try:
        cluster.start()
        leader = cluster.wait_leader()
        follower = others_of(cluster, leader)[0]
        follower.stop()
        with SmallDisk(follower, "snapshots", 1) as disk:
            disk.fill()
            value = os.urandom(100 * 1024)
            for number in range(60):
                assert leader.put("k%d" % (number % 20), value)
            wait_for("the leader's snapshot", lambda: [
                name for name in os.listdir(os.path.join(leader.data_dir, "snapshots"))
                if not name.startswith(".")], 60)
            follower.start()
            wait_for("its word", lambda: "no space" in follower.log().lower(), 60)
            assert leader.put("k", "v")
            assert follower.alive()
            disk.clear()
            disk.resize(100)
            cluster.wait_equal(60)
            follower.kill()
        failed = False
    finally:
        cluster.close(failed)


@pytest.mark.parametrize("left_kib", [0, 8, 64, 1024])
def test_a_server_that_finds_no_space_at_its_start_says_so(left_kib):
    """Whatever it is that does not fit: the node id, the mark of the store, a segment."""
    cluster = Cluster(size=1)
    server = cluster.servers[0]
    failed = True
    try:
        with SmallDisk(server, ".", 200) as disk:
            disk.fill(left_kib)
            server.start()
            assert server.process.wait(60) != 0
            server.process = None
            assert "No space left on device" in server.log(), server.log()
            assert server.data_dir in server.log()
            disk.clear()
            server.start()
            cluster.wait_leader(60)
            assert server.put("k", "v")
            server.kill()
        failed = False
    finally:
        cluster.close(failed)
