"""Clients that ask for gzip: they get what the others get, and cost no more for being slow or gone."""
import base64
import concurrent.futures
import json
import os
import socket
import subprocess
import tarfile
import threading
import urllib.error
import urllib.request
import zlib

import pytest
import requests

from cluster import HTTP_PORT, Cluster, wait_for

NODES = 2000
VALUES = 24
READERS = 8  # what all of them asked for is less than HTTP_STREAM_COPIES_BYTES_MAX
MEMORY_MIB_MAX = 48  # that may stay of what the answers took: an allocator's, not theirs


@pytest.fixture(scope="module", name="one")
def fixture_one():
    with Cluster(size=1) as cluster:
        cluster.wait_members(60)
        server = cluster.servers[0]
        fill(server)
        yield server


def fill(server):
    for number in range(VALUES):
        assert server.put("large/%d" % number, os.urandom(500 * 1024)) is True
    server.put("text", b"a value, a value, a value")
    server.put("bytes", bytes(range(256)))
    for first in range(0, NODES, 20):
        operations = []
        for number in range(first, first + 20):
            node = "n%04d" % number
            operations += [
                {"Node": {"Verb": "set", "Node": {"Node": node, "Address": "10.0.0.1"}}},
                {"Service": {"Verb": "set", "Node": node, "Service": {
                    "ID": "db", "Service": "db", "Tags": ["replica"], "Port": 5432}}},
                {"Check": {"Verb": "set", "Check": {
                    "Node": node, "CheckID": "c", "Name": "c", "Status": "passing",
                    "Output": "o" * 400}}}]
        status, _, text = server.request("PUT", "/v1/txn", json.dumps(operations))
        assert status == 200, text


def url(server, path):
    return "http://%s:%d%s" % (server.address, HTTP_PORT, path)


def curl(server, path, *options):
    """Heads as text, and the decoded body."""
    done = subprocess.run(["curl", "-sS", "-i", *options, url(server, path)],
                          stdout=subprocess.PIPE, timeout=60, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    return head.decode().lower(), body


class Reader:
    """Asks as Go's client does, and reads when it is told to."""

    def __init__(self, server, path):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self.socket.connect((server.address, HTTP_PORT))
        self.socket.settimeout(60)
        self.socket.sendall(("GET %s HTTP/1.1\r\nHost: %s:%d\r\nUser-Agent: Go-http-client/1.1\r\n"
                             "Accept-Encoding: gzip\r\n\r\n"
                             % (path, server.address, HTTP_PORT)).encode())

    def read_all(self):
        """The decoded body of an answer in chunks, and its head."""
        file = self.socket.makefile("rb")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += file.readline()
        unpack = zlib.decompressobj(31)
        body = b""
        while True:
            size = int(file.readline(), 16)
            body += unpack.decompress(file.read(size))
            assert file.readline() == b"\r\n"
            if size == 0:
                break
        assert unpack.eof and not unpack.unused_data
        return head.decode().lower(), body

    def close(self):
        self.socket.close()


PATHS = ["/v1/kv/text", "/v1/kv/text?raw", "/v1/kv/bytes?raw", "/v1/kv/large/0", "/v1/kv/large/?recurse",
         "/v1/kv/?keys", "/v1/catalog/nodes?pretty", "/v1/catalog/service/db", "/v1/health/service/db",
         "/v1/health/state/any", "/v1/status/leader", "/v1/catalog/services"]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_sent_with_gzip_is_what_is_sent_without(one, path):
    plain_head, plain = curl(one, path)
    head, body = curl(one, path, "--compressed")
    assert "content-encoding: gzip" in head and "content-encoding" not in plain_head
    assert "vary: accept-encoding" in head and "vary: accept-encoding" in plain_head
    assert body == plain
    answer = requests.get(url(one, path), timeout=60)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.content == plain


def test_errors_are_told_with_gzip_too(one):
    answer = requests.get(url(one, "/v1/kv/text?index=x"), timeout=60)
    assert (answer.status_code, answer.text) == (400, "Invalid index")
    assert answer.headers["Content-Encoding"] == "gzip"
    answer = requests.head(url(one, "/v1/kv/text"), timeout=60)
    assert (answer.status_code, answer.content) == (405, b"")
    answer = requests.get(url(one, "/v1/kv/none"), timeout=60)
    assert (answer.status_code, answer.content) == (404, b"")
    request = urllib.request.Request(url(one, "/v1/agent/service/none"), headers={"Accept-Encoding": "gzip"})
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    with raised.value as error:
        assert zlib.decompress(error.read(), 31) == b"unknown service ID: none"


def test_who_does_not_ask_gets_none(one):
    for header in ("identity", "gzip;q=0", "deflate, br", "*"):
        answer = requests.get(url(one, "/v1/kv/text"), headers={"Accept-Encoding": header}, timeout=60)
        assert "Content-Encoding" not in answer.headers
        assert answer.json()[0]["Key"] == "text"
    with urllib.request.urlopen(url(one, "/v1/kv/text"), timeout=60) as answer:  # As urllib asks.
        assert answer.headers["Content-Encoding"] is None


def test_one_session_of_many_requests(one):
    with requests.Session() as session:
        for number in range(300):
            assert session.put(url(one, "/v1/kv/s"), data=b"%d" % number, timeout=60).json() is True
            entry = session.get(url(one, "/v1/kv/s"), timeout=60).json()[0]
            assert base64.b64decode(entry["Value"]) == b"%d" % number


def test_waiters_with_gzip_and_without_get_the_same(one):
    index = requests.get(url(one, "/v1/health/service/db"), timeout=60).headers["X-Consul-Index"]
    path = "/v1/health/service/db?wait=60s&index=" + index
    answers = []

    def wait(encoding):
        answer = requests.get(url(one, path), headers={"Accept-Encoding": encoding}, timeout=90)
        answers.append((encoding, answer.headers.get("Content-Encoding"), answer.content))

    threads = [threading.Thread(target=wait, args=(("gzip", "identity")[number % 2],))
               for number in range(20)]
    for thread in threads:
        thread.start()
    status, _, text = one.request("PUT", "/v1/catalog/register", json.dumps(
        {"Node": "n0000", "Address": "10.0.0.1", "Service": {"ID": "db", "Service": "db", "Port": 1}}))
    assert status == 200, text
    for thread in threads:
        thread.join(90)
    assert len(answers) == 20
    assert len({content for _, _, content in answers}) == 1
    assert all(encoding == "identity" for encoding, found, _ in answers if found is None)
    assert all(encoding == "gzip" for encoding, found, _ in answers if found == "gzip")


def test_an_archive_is_not_compressed_twice(one, tmp_path):
    path = str(tmp_path / "archive")
    head, body = curl(one, "/v1/snapshot", "--compressed")
    assert "content-encoding" not in head
    with open(path, "wb") as file:
        file.write(body)
    with tarfile.open(path, "r:gz") as archive:
        assert "state.bin" in archive.getnames()


def test_who_leaves_amid_its_answer_costs_nothing(one):
    before = one.memory_mib()
    for number in range(200):
        reader = Reader(one, "/v1/kv/large/?recurse" if number % 2 else "/v1/health/state/any")
        if number % 4 > 1:
            reader.socket.recv(5000)
        reader.close()
    head, body = Reader(one, "/v1/kv/large/?recurse").read_all()
    assert "content-encoding: gzip" in head
    assert len(json.loads(body)) == VALUES
    wait_for("their memory", lambda: one.memory_mib() <= before + MEMORY_MIB_MAX, 60)


def test_slow_readers_leave_others_their_answers_and_get_their_own(one):
    _, plain = curl(one, "/v1/kv/large/?recurse")
    readers = [Reader(one, "/v1/kv/large/?recurse") for _ in range(READERS)]
    for reader in readers:
        assert reader.socket.recv(1, socket.MSG_PEEK)
    for path in ("/v1/kv/text", "/v1/health/service/db"):
        assert requests.get(url(one, path), timeout=60).status_code == 200
    # At once: on a busy machine the last ones would be closed for not reading while the first ones do.
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        for head, body in pool.map(Reader.read_all, readers):
            assert "content-encoding: gzip" in head
            assert body == plain
    for reader in readers:
        reader.close()
