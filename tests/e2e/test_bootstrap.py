"""How a cluster begins: servers that start late, again, or do not belong to it."""
import time

from cluster import Cluster, wait_for


def test_servers_that_start_late_and_again_form_one_cluster():
    cluster = Cluster(size=3)
    try:
        first, second, third = cluster.servers
        first.start()
        time.sleep(2)
        second.start()
        time.sleep(1)
        first.kill()  # Amid bootstrapping: it knows one other server by now.
        first.start()
        time.sleep(3)
        wait_for("an answer", lambda: first.leader() is not None, 60)
        assert first.leader() == ""
        third.start()
        cluster.wait_leader()
        first.store("k", "v")

        def peers_known():
            peers = {tuple(sorted(server.get_json("/v1/status/peers"))) for server in cluster.servers}
            return len(peers) == 1 and len(peers.pop()) == 3
        wait_for("one configuration with all", peers_known, 60)
    finally:
        cluster.close()


def test_a_server_of_another_datacenter_is_named_once():
    with Cluster(size=3) as cluster:
        stranger = cluster.servers[2]
        stranger.kill()
        cluster.extra = {"datacenter": "dc2"}
        stranger.start()

        def lines():
            return [line for line in stranger.log().split("---- started")[-1].splitlines()
                    if "is of datacenter 'dc2'" in line]
        wait_for("the complaint", lines, 60)
        time.sleep(6)
        assert len(lines()) <= 3  # One for each address that it joins, and one for the port of the servers.
        cluster.servers[0].store("k", "v")


def test_servers_that_expect_different_numbers_form_no_cluster():
    cluster = Cluster(size=3)
    try:
        for number, server in enumerate(cluster.servers):
            cluster.extra = {"bootstrap_expect": 2 if number == 0 else 3}
            server.start()
        wait_for("the complaint", lambda: all("expects another number" in server.log()
                                              for server in cluster.servers), 60)
        time.sleep(3)
        for server in cluster.servers:
            assert server.leader() == ""
            assert server.log().count("expects another number") == 1
    finally:
        cluster.close()
