"""Clients that ask for a lot and read a few bytes a second: closed, and what they cost is given back."""
import base64
import json
import os
import socket

from cluster import HTTP_PORT, Cluster, wait_for

READER_BYTES = 64 * 1024  # of the kernel's, for each reader
SAVES_MAX = 4  # HTTP_SAVES_MAX
MEMORY_MIB_MAX = 48  # that may stay of what the answers took: an allocator's, not theirs


def sockets(server):
    folder = "/proc/%d/fd" % server.process.pid
    count = 0
    for name in os.listdir(folder):
        try:
            count += os.readlink(os.path.join(folder, name)).startswith("socket:")
        except OSError:  # Closed meanwhile.
            pass
    return count


def fill(server):
    """Each listing and the archive are far more than the kernel takes for a client."""
    for number in range(40):
        assert server.put("large/%d" % number, os.urandom(500 * 1024)) is True
    output = "o" * 4000
    for number in range(0, 4096, 31):
        operations = []
        for node in range(number, number + 31):
            operations.append({"Node": {"Verb": "set", "Node": {
                "Node": "n%d" % node, "Address": "10.0.0.1"}}})
            operations.append({"Check": {"Verb": "set", "Check": {
                "Node": "n%d" % node, "CheckID": "c", "Name": "c", "Status": "passing",
                "Output": output}}})
        status, _, text = server.request("PUT", "/v1/txn", json.dumps(operations))
        assert status == 200, text


class Trickler:
    def __init__(self, server, target):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READER_BYTES)
        self.socket.connect((server.address, HTTP_PORT))
        self.socket.sendall(("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % target).encode())

    def read(self):
        """What the server sent before it closed may be there for long."""
        try:
            self.socket.settimeout(0.01)
            self.socket.recv(1)
        except (socket.timeout, OSError):
            pass


def test_who_reads_a_few_bytes_a_second_is_closed_and_its_memory_given_back():
    with Cluster(size=1) as cluster:
        cluster.wait_members(60)
        server = cluster.servers[0]
        fill(server)
        before = server.memory_mib()
        idle = sockets(server)
        clients = [Trickler(server, "/v1/snapshot") for _ in range(SAVES_MAX)]
        # All are made, and hold their places: one more is told to come again.
        wait_for("the archives", lambda: all(
            client.socket.recv(1, socket.MSG_PEEK) for client in clients), 60)
        clients.append(Trickler(server, "/v1/kv/large/?recurse"))
        clients.append(Trickler(server, "/v1/health/state/any"))
        status, headers, text = server.request("GET", "/v1/snapshot")
        assert status == 503 and int(headers["Retry-After"]) > 0, text
        assert text == b"4 snapshots are being saved, try again later"
        assert sockets(server) >= idle + len(clients)
        assert server.put("small", b"1") is True  # Others are served.

        def closed():
            for client in clients:
                client.read()
            return sockets(server) <= idle

        wait_for("their end", closed, 150)
        wait_for("their memory", lambda: server.memory_mib() <= before + MEMORY_MIB_MAX, 60)
        assert server.request("GET", "/v1/snapshot", timeout=60)[0] == 200
        assert base64.b64decode(server.get_json("/v1/kv/small")[0]["Value"]) == b"1"
        for client in clients:
            client.socket.close()
