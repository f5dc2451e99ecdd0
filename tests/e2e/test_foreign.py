"""A server with the data of another cluster is not taken in, and is once its data_dir is empty."""
import os
import shutil

from cluster import Cluster, Server, wait_for
from test_membership import GrowingCluster


class Stray(Server):
    """A server that is started again to join another cluster than its own."""

    def __init__(self, cluster, number):
        super().__init__(cluster, number)
        self.name = "stray-%d" % number
        self.joins = None

    def config(self):
        config = super().config()
        if self.joins is not None:
            config["retry_join"] = self.joins
        return config


def cluster_id(server):
    """What the server keeps of it; None: nothing yet."""
    path = os.path.join(server.data_dir, "raft", "cluster-id")
    if not os.path.exists(path):
        return None
    with open(path, encoding="ascii") as file:
        return file.read().strip() or None


def wait_id(cluster):
    """Until all servers keep the same id; returns it."""
    def common():
        ids = {cluster_id(server) for server in cluster.servers}
        return ids.pop() if len(ids) == 1 else None
    return wait_for("one cluster id", common, 60)


def test_a_server_of_a_dead_cluster_joins_another_one_only_with_an_empty_data_dir():
    with GrowingCluster(size=3) as ours, Cluster(size=3, server_class=Stray) as theirs:
        for number in range(5):
            assert ours.servers[0].put("k/ours/%d" % number, "1")
            assert theirs.servers[0].put("k/theirs/%d" % number, "1")
        own, other = wait_id(ours), wait_id(theirs)
        assert own != other
        for server in theirs.servers:
            server.kill()
        stray = theirs.servers[0]
        stray.joins = [server.address for server in ours.servers]
        stray.start()
        wait_for("a refusal in the server's log",
                 lambda: "is of cluster " + own in stray.log() and "data_dir" in stray.log(), 60)
        for server in ours.servers:
            wait_for("a refusal in the log of " + server.name,
                     lambda log=server.log: "is of cluster " + other in log() and "data_dir" in log(), 60)
        assert len(ours.configuration()) == 3
        assert stray.name not in {one["Name"] for one in ours.servers[0].get_json("/v1/agent/members")}
        assert stray.get_json("/v1/kv/k/ours/?keys&stale") is None

        for server in ours.servers:  # What they know does not end with their processes.
            server.kill()
        for server in ours.servers:
            server.start()
        ours.wait_leader()
        assert wait_id(ours) == own

        stray.kill()
        shutil.rmtree(stray.data_dir)
        stray.start()
        ours.wait_voters(ours.servers + [stray])
        wait_for("its cluster id", lambda: cluster_id(stray) == own, 60)
        wait_for("their keys", lambda: stray.get_json("/v1/kv/k/?keys&stale") ==
                 ["k/ours/%d" % number for number in range(5)], 60)
