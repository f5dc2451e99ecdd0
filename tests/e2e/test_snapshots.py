"""The log stays short, and who has fallen behind it, or lost its state, comes back by a snapshot."""
import os
import shutil
import time

from cluster import Cluster, wait_for

# Snapshots every few hundred entries, so that a test sees many.
EXTRA = {"raft_snapshot_threshold": 300, "raft_snapshot_interval": "200ms",
         "raft_trailing_logs": 100}


def write(server, first, count):
    for number in range(first, first + count):
        server.store("k/%04d" % (number % 500), "%d" % number)


def snapshots(server):
    folder = os.path.join(server.data_dir, "snapshots")
    return [name for name in os.listdir(folder) if name.endswith(".snapshot")]


def test_a_server_that_fell_behind_the_log_gets_a_snapshot():
    with Cluster(size=3, extra=EXTRA) as cluster:
        leader = cluster.wait_leader()
        victim = next(server for server in cluster.servers if server is not leader)
        write(leader, 0, 100)
        victim.kill()
        write(leader, 100, 2000)
        wait_for("the leader's snapshots", lambda: len(snapshots(leader)) == 2, 60)
        victim.start()
        cluster.wait_leader()
        cluster.wait_equal()
        assert "snapshot installed" in victim.log()
        # It goes on as any other: takes part in a quorum, survives restarts with what it has.
        other = next(server for server in cluster.servers if server not in (leader, victim))
        other.kill()
        write(cluster.wait_leader(), 2100, 50)
        victim.kill()
        victim.start()
        cluster.wait_leader()
        write(victim, 2150, 50)
        other.start()
        cluster.wait_leader()
        cluster.wait_equal()


def test_a_lost_state_is_loaded_from_a_snapshot_and_the_log():
    with Cluster(size=3, extra=EXTRA) as cluster:
        write(cluster.wait_leader(), 0, 1500)
        cluster.wait_equal()
        for victim in cluster.servers:
            wait_for("a snapshot", lambda one=victim: snapshots(one), 60)
            victim.kill()
            shutil.rmtree(os.path.join(victim.data_dir, "state"))
            victim.start()
            cluster.wait_leader()
            cluster.wait_equal()
            assert "loaded from a snapshot" in victim.log()


def test_kills_while_snapshots_are_taken_and_installed_lose_nothing():
    with Cluster(size=3, extra=EXTRA) as cluster:
        number = 0
        for _ in range(8):
            victim = cluster.servers[number // 400 % 3]
            victim.kill()
            write(cluster.wait_leader(), number, 400)
            number += 400
            victim.start()
            time.sleep(0.15)  # amid fetching or installing
            victim.kill()
            victim.start()
            cluster.wait_leader()
        cluster.wait_equal()
        entries = cluster.servers[0].get_json("/v1/kv/k/?recurse")
        assert len(entries) == 500
