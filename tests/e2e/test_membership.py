"""Servers join, leave, die for good and are replaced under a load of registers; leadership is handed over; and two of five servers
go on by peers.json when three are lost: nothing acknowledged is lost, answers stay linearizable."""
import json
import os
import shutil
import threading

from cluster import PATIENT, SERVER_PORT, Cluster, Server, wait_for
from linearizable import check
from test_cluster import Writer, acknowledged, check_acknowledged
from test_network import Client

# Votes after a second of health, not ten.
EXTRA = {"autopilot": {"server_stabilization_time": "1s"}}


class GrowingCluster(Cluster):
    def __init__(self, extra=None, **options):
        super().__init__(extra={**EXTRA, **(extra or {})}, **options)

    def enter(self):
        """The load's threads run where the test does."""

    def add(self):
        server = Server(self, len(self.servers) + 1)
        self.servers.append(server)
        server.start()
        return server

    def configuration(self):
        """What the leader's configuration says: address -> server."""
        server = self.live()[0]
        return {one["Address"]: one
                for one in server.get_json("/v1/operator/raft/configuration")["Servers"]}

    def voters(self):
        return {address for address, one in self.configuration().items() if one["Voter"]}

    def wait_voters(self, servers, seconds=120):
        wanted = {"%s:%d" % (server.address, SERVER_PORT) for server in servers}
        wait_for("%d voters" % len(wanted),
                 lambda: self.voters() == wanted and set(self.configuration()) == wanted, seconds)


def node_id(server):
    with open(os.path.join(server.data_dir, "node-id"), encoding="utf-8") as file:
        return file.read().strip()


def leave(server):
    status, _, _ = server.request("PUT", "/v1/agent/leave")
    assert status == 200
    assert server.process.wait(60) == 0
    server.process = None


def replace(server):
    """The machine is lost; another one takes its address."""
    server.kill()
    shutil.rmtree(server.data_dir)
    server.start()


def assert_linearizable(clients):
    histories = {}
    for client in clients:
        for key, operations in client.history.items():
            histories.setdefault(key, []).extend(operations)
    assert sum(len(operations) for operations in histories.values()) > 100
    for key, operations in histories.items():
        assert check(operations) is not False, "%s: %r" % (key, operations)


def test_servers_come_and_go_under_load():
    with GrowingCluster(size=3) as cluster:
        ending = threading.Event()
        clients = [Client(cluster, number, ending) for number in range(3)]
        writers = [Writer(cluster, "w%d" % number) for number in range(2)]
        for thread in clients + writers:
            thread.start()
        one, two, three = cluster.servers
        four, five = cluster.add(), cluster.add()
        cluster.wait_voters([one, two, three, four, five])

        leader = cluster.wait_leader()
        left = next(server for server in cluster.servers if server is not leader)
        leave(left)
        staying = [server for server in cluster.servers if server is not left]
        cluster.wait_voters(staying)

        lost = next(server for server in staying if server is not leader)
        old_id = node_id(lost)
        replace(lost)
        wait_for("the new one's id", lambda: node_id(lost) not in ("", old_id), 60)
        new_id = node_id(lost)
        cluster.wait_voters(staying)
        wait_for("only the new id", lambda: {one["ID"] for one in cluster.configuration().values()} ==
                 {node_id(server) for server in staying}, 60)
        assert new_id in {one["ID"] for one in cluster.configuration().values()}

        leader = cluster.wait_leader()
        leave(leader)
        staying.remove(leader)
        cluster.wait_leader()
        cluster.wait_voters(staying)

        left.start()  # It comes back with what it had.
        cluster.wait_voters(staying + [left])
        ending.set()
        for writer in writers:
            writer.ending.set()
        for thread in clients + writers:
            thread.join(60)
            assert not thread.is_alive()
        cluster.wait_leader()
        assert_linearizable(clients)
        for server in cluster.live():
            check_acknowledged(server, writers)
        cluster.wait_equal()


def test_a_dead_server_is_given_up_and_disturbs_nobody_when_it_returns():
    with GrowingCluster(size=5, extra=PATIENT) as cluster:
        cluster.wait_members()
        leader = cluster.wait_leader()
        dead = next(server for server in cluster.servers if server is not leader)
        others = [server for server in cluster.servers if server is not dead]
        dead.kill()
        cluster.wait_voters(others)
        wait_for("its node out of the catalog",
                 lambda: leader.get_json("/v1/catalog/node/" + dead.name) is None, 60)
        term = leader.get_json("/v1/agent/self")["Stats"]["raft"]["term"]
        dead.start()
        cluster.wait_voters(cluster.servers)
        cluster.wait_members()
        assert cluster.wait_leader() is leader
        assert leader.get_json("/v1/agent/self")["Stats"]["raft"]["term"] == term
        assert leader.get_json("/v1/operator/autopilot/state")["Healthy"] in (True, False)
        wait_for("health", lambda: leader.get_json("/v1/operator/autopilot/health")["Healthy"], 60)


def test_leadership_is_handed_over_under_load():
    with GrowingCluster(size=3, extra=PATIENT) as cluster:
        ending, failures, done = threading.Event(), [], []

        def write(server):
            while not ending.is_set():
                try:
                    assert server.put("k/" + server.name, str(len(done))) is True
                    done.append(server)
                except Exception as error:  # noqa: BLE001
                    failures.append(error)

        threads = [threading.Thread(target=write, args=(server,), daemon=True) for server in cluster.servers]
        for thread in threads:
            thread.start()
        try:
            for turn in range(6):
                leader = cluster.wait_leader()
                others = [server for server in cluster.servers if server is not leader]
                target = others[turn % 2]
                asked = cluster.servers[turn % 3]
                status, _, body = asked.request(
                    "POST", "/v1/operator/raft/transfer-leader?id=" + node_id(target))
                assert (status, body.strip()) == (200, b'{"Success":true}')
                assert cluster.wait_leader() is target
                before = len(done)
                wait_for("writes by the new leader", lambda: len(done) > before + 10 or failures, 60)
        finally:
            ending.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not failures
        status, _, body = cluster.servers[0].request(
            "PUT", "/v1/operator/raft/transfer-leader?id=nobody")
        assert (status, body) == (500, b'id "nobody" was not found in the Raft configuration')


def test_two_of_five_servers_go_on_by_peers_json():
    with GrowingCluster(size=5) as cluster:
        writers = [Writer(cluster, "w%d" % number) for number in range(2)]
        for writer in writers:
            writer.start()
        wait_for("writes", lambda: acknowledged(writers) > 50, 60)
        lost, left = cluster.servers[:3], cluster.servers[3:]
        for writer in writers:
            writer.ending.set()
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
        cluster.wait_equal()  # What only the lost ones had would be lost with them.
        for server in lost:
            server.kill()
            shutil.rmtree(server.data_dir)
        for server in left:
            server.kill()
        peers = [{"id": node_id(server), "address": "%s:%d" % (server.address, SERVER_PORT),
                  "non_voter": False} for server in left]
        for server in left:
            with open(os.path.join(server.data_dir, "raft", "peers.json"), "w",
                      encoding="utf-8") as file:
                json.dump(peers, file)
            server.start()
        cluster.wait_leader()
        cluster.wait_voters(left)
        for server in left:
            assert not os.path.exists(os.path.join(server.data_dir, "raft", "peers.json"))
            check_acknowledged(server, writers)
        left[0].store("after", "1")
        # The configuration is part of the log now, and others can join again.
        for server in left:
            server.kill()
            server.start()
        cluster.wait_leader()
        lost[0].start()
        cluster.wait_voters(left + [lost[0]])
        cluster.wait_equal()


def test_a_peers_json_that_cannot_be_right_is_refused():
    with GrowingCluster(size=1) as cluster:
        server = cluster.servers[0]
        assert server.put("k", "v") is True
        path = os.path.join(server.data_dir, "raft", "peers.json")
        address = "%s:%d" % (server.address, SERVER_PORT)
        for peers, text in (("[]", "list of 1 to"), ("{", "peers.json"),
                            ('["%s"]' % address, '"id" of a server'),
                            ('[{"id": "x", "address": "%s"}]' % address, '"id" of a server'),
                            ('[{"id": "11111111-1111-1111-1111-111111111111", "address": "%s"}]' %
                             address, "own id is not in it")):
            server.kill()
            with open(path, "w", encoding="utf-8") as file:
                file.write(peers)
            server.start()
            assert server.process.wait(60) == 1
            server.process = None
            assert text in server.log().rpartition("---- started")[2]
            assert os.path.exists(path)
        os.remove(path)
        server.start()
        cluster.wait_leader()
        assert server.get_json("/v1/kv/k")[0]["Value"] == "dg=="
