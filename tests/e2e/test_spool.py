"""Snapshots on their way to and from clients lie in files without names: they cost no memory, and nothing is left of
them, whatever clients, disk and server do."""
import base64
import http.client
import os
import select
import socket
import threading

import pytest

from cluster import HTTP_PORT, Cluster, wait_for
from test_disk import SmallDisk

VALUE_BYTES = 500 * 1024
READER_BYTES = 64 * 1024  # of the kernel's, for each reader
GROWTH_MIB_MAX = 8  # an allocator's; each archive here is eight times as large, and there are up to four
PIECE_BYTES = 1 << 20


def fill(server, mib, first=0):
    """State that does not compress."""
    for number in range(first, first + mib * 2):
        assert server.put("k/%d" % number, os.urandom(VALUE_BYTES), timeout=60) is True


def state_of(server):
    entries = server.get_json("/v1/kv/k/?recurse", timeout=60)
    return {entry["Key"]: base64.b64decode(entry["Value"]) for entry in entries}


def spooled(server):
    """Descriptors of files without a name in data_dir, and what is there of names."""
    found = [name for name in os.listdir(server.data_dir) if name.startswith("archive-")]
    folder = "/proc/%d/fd" % server.process.pid
    for name in os.listdir(folder):
        try:
            target = os.readlink(os.path.join(folder, name))
        except OSError:  # Closed meanwhile.
            continue
        if target.startswith(server.data_dir) and target.endswith(" (deleted)"):
            found.append(target)
    return found


class Connection:
    def __init__(self, server):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READER_BYTES)
        self.socket.settimeout(60)
        self.socket.connect((server.address, HTTP_PORT))

    def close(self):
        self.socket.close()


class Reader(Connection):
    """Asks for a snapshot, and takes the beginning."""

    def __init__(self, server):
        super().__init__(server)
        self.socket.sendall(b"GET /v1/snapshot HTTP/1.1\r\nHost: x\r\n\r\n")

    def begun(self):
        return self.socket.recv(1, socket.MSG_PEEK) == b"H"

    def begun_by_now(self):
        return bool(select.select([self.socket], [], [], 0)[0]) and self.begun()


class Sender(Connection):
    """Says how long its snapshot is, and sends what it is told to."""

    def __init__(self, server, size):
        super().__init__(server)
        self.socket.sendall(b"PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)

    def send(self, data):
        self.socket.sendall(data)

    def answer(self):
        response = http.client.HTTPResponse(self.socket)
        response.begin()
        return response.status, response.read()


class Peak:
    """The most memory that the server had meanwhile, of what is its own, beyond what it had before."""

    def __init__(self, server):
        self.server = server
        self.before = self.most = server.memory_mib()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def look(self):
        self.most = max(self.most, self.server.memory_mib())

    def watch(self):
        while not self.ended.wait(0.02):
            self.look()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, value, trace):
        self.ended.set()
        self.thread.join()
        self.look()

    def growth_mib(self):
        return self.most - self.before


def test_snapshots_on_their_way_cost_no_memory():
    """Four readers that stop, a whole save, two senders that stop, a whole snapshot that is found to be bad at its
    end: of 60 MiB each. A restore's own memory is that of the log, and of one large transaction: it is not looked at."""
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        fill(server, 60)
        saved = state_of(server)
        with Peak(server) as peak:
            readers = [Reader(server) for _ in range(4)]
            for reader in readers:
                wait_for("its beginning", reader.begun, 60)
            for reader in readers:
                reader.close()
            wait_for("their end", lambda: not spooled(server), 60)
            status, headers, data = server.request("GET", "/v1/snapshot", timeout=60)
        assert status == 200 and len(data) > 50 << 20 and int(headers["Content-Length"]) == len(data)
        assert peak.growth_mib() < GROWTH_MIB_MAX

        with Peak(server) as peak:
            senders = [Sender(server, len(data)) for _ in range(2)]
            for at in range(0, len(data) - PIECE_BYTES, PIECE_BYTES):
                for sender in senders:
                    sender.send(data[at:at + PIECE_BYTES])
            peak.look()
            wait_for("both files", lambda: len(spooled(server)) == 2, 60)
            for sender in senders:
                sender.close()
            wait_for("their end", lambda: not spooled(server), 60)
            status, _, text = server.request("PUT", "/v1/snapshot", data[:-8], timeout=60)
        assert status == 500 and b"unexpected EOF" in text, text
        assert peak.growth_mib() < GROWTH_MIB_MAX

        assert server.request("DELETE", "/v1/kv/k/?recurse")[0] == 200
        assert server.request("PUT", "/v1/snapshot", data, timeout=120)[0] == 200
        assert state_of(server) == saved
        wait_for("its end", lambda: not spooled(server), 60)


def test_who_vanishes_amid_a_snapshot_leaves_nothing():
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        fill(server, 8)
        data = server.request("GET", "/v1/snapshot", timeout=60)[2]
        for _ in range(8):  # More than there are places.
            reader = Reader(server)
            wait_for("its beginning", reader.begun, 60)
            wait_for("its file", lambda: spooled(server), 60)
            sender = Sender(server, len(data))
            sender.send(data[:4 << 20])
            wait_for("its file", lambda: len(spooled(server)) == 2, 60)
            reader.close()
            sender.close()
            wait_for("their end", lambda: not spooled(server), 60)
        # Who goes while its snapshot is made, too.
        for _ in range(8):
            reader = Reader(server)
            wait_for("its making", lambda: spooled(server), 60)
            reader.close()
            wait_for("its end", lambda: not spooled(server), 60)
        assert server.request("PUT", "/v1/snapshot", data, timeout=60)[0] == 200


def being_made(server):
    """A reader whose snapshot has a name yet. That is soon over: a busy machine may let us look too late."""
    for _ in range(100):
        reader = Reader(server)
        while not reader.begun_by_now():
            if any(name.startswith("archive-") for name in os.listdir(server.data_dir)):
                return reader
        reader.close()
    raise AssertionError("no snapshot is ever seen to be made")


def test_a_server_that_is_killed_amid_snapshots_keeps_nothing_of_them():
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        fill(server, 8)
        before = sorted(os.listdir(server.data_dir))
        data = server.request("GET", "/v1/snapshot", timeout=60)[2]
        for amid_making in (True, False):
            sender = Sender(server, len(data))
            sender.send(data[:4 << 20])
            wait_for("its file", lambda: spooled(server), 60)
            reader = being_made(server) if amid_making else Reader(server)
            if not amid_making:
                wait_for("its beginning", reader.begun, 60)
                wait_for("both files", lambda: len(spooled(server)) == 2, 60)
            server.kill()
            reader.close()
            sender.close()
            server.start()
            cluster.wait_leader()
            wait_for("what was there before", lambda: sorted(os.listdir(server.data_dir)) == before, 60)
            assert not spooled(server)


@pytest.fixture(name="one")
def one_stopped():
    """A server that the test starts, on a disk that it makes."""
    cluster = Cluster(size=1)
    try:
        yield cluster
    finally:
        cluster.close(True)  # Whether the test failed is not known here; pytest shows it only then.


def chunked(server, data):
    """A body of unknown length; the answer may come, and the connection end, before all of it is sent."""
    sender = Connection(server)
    sender.socket.sendall(b"PUT /v1/snapshot HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        for at in range(0, len(data), PIECE_BYTES):
            piece = data[at:at + PIECE_BYTES]
            sender.socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        sender.socket.sendall(b"0\r\n\r\n")
    except (BrokenPipeError, ConnectionResetError):
        pass
    response = http.client.HTTPResponse(sender.socket)
    response.begin()
    text = response.read()
    sender.close()
    return response.status, text


def test_a_full_disk_refuses_snapshots_says_why_and_is_as_it_was(one):
    server = one.servers[0]
    with SmallDisk(server, "", 600) as disk:
        one.start()
        fill(server, 20)
        saved = state_of(server)
        idle = os.statvfs(server.data_dir).f_bavail
        status, _, data = server.request("GET", "/v1/snapshot", timeout=60)
        assert status == 200
        wait_for("its end", lambda: not spooled(server), 60)
        # Less a few blocks of the log's and the server's own. The kernel frees a file's after its descriptor is gone.
        wait_for("its space to be free", lambda: os.statvfs(server.data_dir).f_bavail >= idle - 64, 60)
        hint = ("no space left for the snapshot: free disk space in %s (" % server.data_dir).encode()
        for left_mib in (12, 30):  # For a part of the state, and for the state but not all of its archive.
            disk.fill(left_mib << 10)
            free = os.statvfs(server.data_dir).f_bavail
            status, _, text = server.request("GET", "/v1/snapshot", timeout=60)
            assert status == 500 and text.startswith(hint), text
            wait_for("its end", lambda: not spooled(server), 60)
            # Of what is free a snapshot that comes in takes a quarter: the log, too, needs some.
            sender = Sender(server, len(data))
            sender.send(data[:PIECE_BYTES])
            status, text = sender.answer()
            assert status == 500 and text.startswith(hint), text
            sender.close()
            status, text = chunked(server, data)
            assert status == 500 and text.startswith(hint), text
            wait_for("its end", lambda: not spooled(server), 60)
            wait_for("its space to be free", lambda: os.statvfs(server.data_dir).f_bavail >= free - 64, 60)
            assert state_of(server) == saved
            disk.clear()
        assert server.request("PUT", "/v1/snapshot", data, timeout=60)[0] == 200
        assert state_of(server) == saved
