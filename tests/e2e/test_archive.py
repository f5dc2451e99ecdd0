"""The whole state saved as an archive and restored on all servers, also while servers die."""
import base64
import gzip
import hashlib
import io
import json
import os
import tarfile
import threading

from cluster import Cluster, wait_for

KEYS = 300


def keys_of(server):
    entries = server.get_json("/v1/kv/k/?recurse", timeout=30) or []
    return {entry["Key"]: base64.b64decode(entry["Value"] or b"") for entry in entries}


def fill(server):
    for number in range(KEYS):
        value = base64.b64encode(os.urandom(9000))  # several pieces of the log
        server.store("k/%03d" % number, value)
    # It depends neither on a server that is killed nor on how long all this takes.
    session = json.loads(server.request("PUT", "/v1/session/create", '{"TTL": "600s", "Checks": []}')[2])["ID"]
    assert server.put("k/lock", b"held", "?acquire=" + session) is True
    status, _, _ = server.request(
        "PUT", "/v1/catalog/register",
        '{"Node": "ext", "Address": "10.1.1.1", "Service": {"Service": "db", "Port": 1}}')
    assert status == 200
    return session


def change(server):
    server.request("DELETE", "/v1/kv/k/1?recurse")
    for number in range(200, 240):
        server.store("k/%03d" % number, b"changed")
    server.store("k/new", b"new")
    server.request("PUT", "/v1/catalog/deregister", '{"Node": "ext"}')
    server.request("PUT", "/v1/catalog/register", '{"Node": "other", "Address": "10.1.1.2"}')


def check_archive(data):
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert list(files) == ["meta.json", "state.bin", "SHA256SUMS"]
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(files[name]).hexdigest() == digest
    meta = json.loads(files["meta.json"])
    assert meta["Size"] == len(files["state.bin"])
    assert len(meta["Configuration"]["Servers"]) == 5
    return meta


def background(function):
    """Runs it in a thread; the list gets what it returns."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    return thread, result


def test_restore_gives_back_the_saved_state_on_all_servers_though_the_leader_dies_meanwhile():
    # The restore waits for the next leader, longer than its election takes on a busy machine.
    with Cluster(size=5, extra={"performance": {"raft_multiplier": 1, "rpc_hold_timeout": "60s"}}) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        session = fill(leader)
        saved = keys_of(leader)
        follower = next(one for one in cluster.servers if one is not leader)
        status, headers, data = follower.request("GET", "/v1/snapshot", timeout=30)
        assert status == 200 and headers["Content-Type"] == "application/x-gzip"
        assert check_archive(data)["Index"] == int(headers["X-Consul-Index"])
        assert leader.request("GET", "/v1/snapshot?stale", timeout=30)[0] == 200

        change(leader)
        cluster.wait_equal()
        index = int(follower.request("GET", "/v1/kv/k/?recurse")[1]["X-Consul-Index"])
        thread, woken = background(lambda: follower.request(
            "GET", "/v1/kv/k/205?index=%d&wait=60s" % index, timeout=70))
        restoring, restored = background(
            lambda: follower.request("PUT", "/v1/snapshot", data, timeout=90))
        wait_for("the restore's begin", lambda: "restoring a snapshot" in follower.log(), 60)
        leader.kill()
        restoring.join(100)
        assert restored and restored[0][0] == 200, restored
        thread.join(70)
        assert woken and woken[0][0] == 200 and int(woken[0][1]["X-Consul-Index"]) > index

        cluster.wait_leader()
        leader.start()
        cluster.wait_leader()
        cluster.wait_equal()
        for server in cluster.servers:
            assert keys_of(server) == saved
            assert server.get_json("/v1/catalog/service/db")[0]["Node"] == "ext"
            nodes = [node["Node"] for node in server.get_json("/v1/catalog/nodes")]
            assert "other" not in nodes
        assert int(follower.request("GET", "/v1/kv/k/?recurse")[1]["X-Consul-Index"]) > index
        # The session lives, and still holds its key.
        assert follower.request("PUT", "/v1/session/renew/" + session)[0] == 200
        assert follower.get_json("/v1/kv/k/lock")[0]["Session"] == session
        assert follower.put("k/lock", b"", "?release=" + session) is True


def test_what_is_no_whole_archive_changes_nothing():
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        assert server.put("k/a", b"1") is True
        data = server.request("GET", "/v1/snapshot")[2]
        assert server.put("k/a", b"2") is True
        flipped = bytearray(gzip.decompress(data))
        flipped[3 * 512 + 100] ^= 1  # of state.bin: behind two headers and meta.json
        for body in (b"", b"garbage", data[:-200], gzip.compress(bytes(flipped))):
            status, _, text = server.request("PUT", "/v1/snapshot", body)
            assert status == 500 and text.startswith(b"failed to "), text
        assert keys_of(server) == {"k/a": b"2"}
        # Restores end with what was saved, and the server goes on from there, restarts included.
        assert server.request("PUT", "/v1/snapshot", data)[0] == 200
        server.kill()
        server.start()
        cluster.wait_leader()
        assert keys_of(server) == {"k/a": b"1"}
