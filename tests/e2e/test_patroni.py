"""The main job: Patroni on five servers, a failover that works, and outages that are none."""
import logging
import time

import pytest
from patroni.dcs.consul import Consul, ConsulError

from cluster import HTTP_PORT, Cluster, wait_for
from patroni_nodes import SCOPE, Group, Inserter


def test_patroni_fails_over_and_survives_the_loss_of_servers():
    with Cluster() as cluster:
        raft_leader = cluster.wait_leader()
        cluster.wait_members()
        # Patroni's nodes stand on three servers; the Raft leader is another one.
        hosts = [server for server in cluster.servers if server is not raft_leader][:3]
        group = Group(cluster, hosts)
        failed = True
        try:
            group.start()
            drill(cluster, group, hosts)
            failed = False
        finally:
            group.close(failed)


def test_patroni_takes_the_shortest_ttl_when_its_own_is_refused(caplog):
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        cluster.wait_members()
        # Half of a ttl of 15 s is asked for, less than the 10 s of session_ttl_min.
        dcs = Consul({"host": "%s:%d" % (server.address, HTTP_PORT), "scope": SCOPE, "namespace": "/service/",
                      "name": "pg1", "ttl": 15, "loop_wait": 5, "retry_timeout": 10, "patronictl": True})
        with caplog.at_level(logging.WARNING):
            with pytest.raises(ConsulError):
                dcs.refresh_session()
            assert "Changing Session TTL from 7.5 to 10.0" in caplog.text
            dcs.refresh_session()
        assert [session["TTL"] for session in server.get_json("/v1/session/list")] == ["10.0s"]
        # Whoever asks elsewhere sees what Consul shows.
        assert "SessionTTLMin" not in server.get_json("/v1/agent/self")["Config"]


def drill(cluster, group, hosts):
    primary = group.wait_primary(180)
    group.wait_dns(primary, 120)
    group.wait_replicas(2, 180)
    with primary.connect(30) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE acknowledged (number int PRIMARY KEY)")
    inserter = Inserter(group)
    inserter.start()
    inserter.wait_progress(120)
    report = {}

    # 1. The primary's host dies: a replica is promoted, DNS follows, inserts go on.
    start = time.monotonic()
    old = primary
    old.kill()
    primary = group.wait_primary(120, other_than=old)
    report["promoted after"] = time.monotonic() - start
    group.wait_dns(primary, 120)
    report["DNS names it after"] = time.monotonic() - start
    inserter.wait_progress(120)
    report["inserts acknowledged after"] = time.monotonic() - start
    inserter.check(primary)
    old.start()
    group.wait_replicas(2, 180)

    # 2. The Raft leader dies: nothing of this is Patroni's business.
    timeline = primary.timeline()
    victim = move_leader_away(cluster, hosts)
    start = time.monotonic()
    victim.kill()
    cluster.wait_leader()
    report["new Raft leader known after"] = time.monotonic() - start
    watch_steady(group, inserter, primary, timeline, 15)

    # 3. Two of five are down: everything works.
    second = next(server for server in cluster.live() if server not in hosts)
    second.kill()
    cluster.wait_leader()
    hosts[0].store("still", "works")
    watch_steady(group, inserter, primary, timeline, 10)

    # 4. Three are down: no quorum, the primary demotes itself.
    replica_host = next(node.server for node in group.nodes if node is not primary)
    before = primary.server.get_json("/v1/kv/service/%s/?recurse&stale" % SCOPE)
    replica_host.kill()
    start = time.monotonic()
    wait_for("the primary's demotion", lambda: not group.primaries(), 120)
    report["demoted without quorum after"] = time.monotonic() - start

    # 5. They return: it recovers, nothing is lost.
    start = time.monotonic()
    for server in (victim, second, replica_host):
        server.start()
    cluster.wait_leader()
    primary = group.wait_primary(180)
    report["primary again after"] = time.monotonic() - start
    group.wait_dns(primary, 120)
    inserter.wait_progress(120)
    after = {entry["Key"]: entry for entry in wait_for("what it keeps there", lambda: primary.server.get_json(
        "/v1/kv/service/%s/?recurse" % SCOPE), 60)}
    for entry in before:
        name = entry["Key"].rpartition("/")[2]
        if name in ("initialize", "config"):
            assert after[entry["Key"]]["Value"] == entry["Value"]
    inserter.stop()
    group.wait_replicas(2, 180)
    inserter.check(primary)
    cluster.wait_equal()
    print("acknowledged inserts: %d, refused: %d" % (len(inserter.acknowledged), inserter.errors))
    for what, seconds in report.items():
        print("%s: %.2f s" % (what, seconds))


def move_leader_away(cluster, hosts):
    """Should leadership have moved to a server of Patroni's nodes: hands it to another one. Returns who leads."""
    other = next(server for server in cluster.servers if server not in hosts)
    path = "/v1/operator/raft/transfer-leader?id=" + other.get_json("/v1/agent/self")["Config"]["NodeID"]

    def away():
        leader = cluster.wait_leader()
        if leader in hosts:
            leader.request("PUT", path)
            return None
        return leader
    return wait_for("a leader away from Patroni's nodes", away, 60)


def watch_steady(group, inserter, primary, timeline, seconds):
    """For so long nothing happens: one primary, the same timeline, inserts acknowledged all the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # Patience with a busy machine is none with a primary that is no more: another timeline would tell.
        assert group.primaries(30) == [primary]
        inserter.wait_progress(60)
        time.sleep(0.5)
    assert primary.timeline() == timeline
    for server in group.cluster.live():
        wait_for("DNS of " + server.name, lambda one=server: group.resolve(server=one) == [primary.address], 60)
    group.wait_dns(primary, 120)
