"""Servers that are stopped (SIGSTOP) for a while: no stale answer, no session ended for it."""
import base64
import json
import signal
import socket
import time

from cluster import HTTP_PORT, Cluster, wait_for


def ask_while_stopped(server, request):
    """Sends a request that waits in the stopped server's socket; returns the connection."""
    connection = socket.create_connection((server.address, HTTP_PORT), timeout=60)
    connection.sendall(("%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                        % request).encode())
    return connection


def answer_of(connection):
    data = b""
    with connection:
        while True:
            part = connection.recv(65536)
            if not part:
                break
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def value_of(body):
    return base64.b64decode(json.loads(body)[0]["Value"]).decode()


def create_session(server, ttl):
    status, _, body = server.request("PUT", "/v1/session/create",
                                     json.dumps({"TTL": ttl, "Checks": []}))
    assert status == 200, body
    return json.loads(body)["ID"]


def test_a_leader_that_was_stopped_never_answers_with_an_old_value():
    with Cluster(size=3) as cluster:
        for turn in range(3):
            leader = cluster.wait_leader()
            leader.store("k", "old-%d" % turn)
            leader.process.send_signal(signal.SIGSTOP)
            others = [server for server in cluster.servers if server is not leader]
            wait_for("a write through the others",
                     lambda: others[0].put("k", "new-%d" % turn), 60)
            time.sleep(3)
            waiting = [ask_while_stopped(leader, "GET /v1/kv/k" + query)
                       for query in ["", "?consistent"] * 10]
            leader.process.send_signal(signal.SIGCONT)
            for connection in waiting:
                status, body = answer_of(connection)
                assert status in (200, 500), body
                assert status == 500 or value_of(body) == "new-%d" % turn


def test_a_renewal_that_waits_in_a_stopped_server_saves_its_session():
    with Cluster(size=1) as cluster:
        server = cluster.servers[0]
        cluster.wait_members()
        session = create_session(server, "10s")
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(22)  # More than twice the TTL.
        waiting = ask_while_stopped(server, "PUT /v1/session/renew/" + session)
        server.process.send_signal(signal.SIGCONT)
        status, body = answer_of(waiting)
        assert status == 200, body
        assert server.get_json("/v1/session/info/" + session)


def test_sessions_that_are_renewed_elsewhere_outlive_a_stopped_leader():
    # A renewal waits until there is another leader.
    with Cluster(size=3, extra={"performance": {"raft_multiplier": 1,
                                                "rpc_hold_timeout": "25s"}}) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        session = create_session(leader, "10s")
        other = [server for server in cluster.servers if server is not leader][0]
        leader.process.send_signal(signal.SIGSTOP)
        end = time.monotonic() + 25  # More than twice the TTL.
        while time.monotonic() < end:
            status, _, body = other.request("PUT", "/v1/session/renew/" + session)
            assert status == 200, body
            time.sleep(5)
        leader.process.send_signal(signal.SIGCONT)
        for _ in range(5):
            assert other.get_json("/v1/session/info/" + session)
            time.sleep(1)
