"""Descriptors: the server takes as many as the system grants, and when they run out it refuses new
connections, goes on with the others, and takes new ones again when there are some."""
import http.client
import json
import os
import select
import socket

from cluster import HTTP_PORT, Cluster, Server, wait_for

SOFT, HARD = 64, 120


class Limited(Server):
    """Started with a low soft and a low hard limit."""

    def command(self, path):
        return ["prlimit", "--nofile=%d:%d" % (SOFT, HARD)] + super().command(path)


def asks(connection):
    connection.request("GET", "/v1/status/leader")
    answer = connection.getresponse()
    return answer.status == 200 and answer.read()


def test_running_out_of_descriptors_refuses_the_new_and_recovers():
    with Cluster(size=1, server_class=Limited) as cluster:
        server = cluster.servers[0]
        assert "raised the limit of open files from %d to %d" % (SOFT, HARD) in server.log()
        early = http.client.HTTPConnection(server.address, HTTP_PORT, timeout=60)
        assert asks(early)
        crowd = []
        for _ in range(2 * HARD):
            crowd.append(socket.create_connection((server.address, HTTP_PORT), 60))

        def shed():
            """Some of the crowd were closed for lack of descriptors: nothing else is sent to them."""
            return select.select(crowd, [], [], 1)[0]
        wait_for("connections that are shed", shed, 60)
        # A quarter is kept for the log's next segment, the other servers and DNS: they, and one that is accepted and
        # closed at once, may have some of it for a moment.
        wait_for("a quarter to be free", lambda: len(
            os.listdir("/proc/%d/fd" % server.process.pid)) <= HARD - HARD // 4, 60)
        assert asks(early)
        early.request("PUT", "/v1/kv/key", "value")  # The log, too, goes on.
        assert early.getresponse().read() == b"true"
        for client in crowd:
            client.close()
        wait_for("a new connection", lambda: server.put("key", "2"), 60)
        assert server.alive()


def test_script_checks_have_the_limit_that_the_server_found():
    """Some systems grant a billion, and there are programs that close all that they may have."""
    with Cluster(size=1, server_class=Limited, extra={"enable_script_checks": True}) as cluster:
        server = cluster.servers[0]
        script = "until [ $(ulimit -n) = %d ]; do sleep 0.1; done" % SOFT
        check = {"Name": "limit", "Args": ["sh", "-c", script], "Interval": "1s"}
        status, _, body = server.request("PUT", "/v1/agent/check/register", json.dumps(check))
        assert status == 200, body
        wait_for("a script with the limit", lambda: server.get_json("/v1/agent/checks")["limit"]
                 ["Status"] == "passing", 60)
