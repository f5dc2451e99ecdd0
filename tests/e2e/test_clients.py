"""Clients that we did not write: python-consul, the npm package consul, curl, Prometheus."""
import base64
import functools
import json
import os
import random
import shutil
import subprocess
import threading
import time

import consul
import pytest

from cluster import HTTP_PORT, Cluster, wait_for

CLIENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "clients")
HOLD_SECONDS = 0.1


def connect(server):
    client = consul.Consul(host=server.address, port=HTTP_PORT)
    client.http.session.request = functools.partial(client.http.session.request, timeout=60)
    return client


@pytest.fixture(scope="module", name="one")
def fixture_one():
    """One server for the tests that disturb nobody."""
    telemetry = {"telemetry": {"prometheus_retention_time": "60s"}}
    with Cluster(size=1, extra=telemetry) as cluster:
        cluster.wait_members()
        yield cluster.servers[0]


@pytest.fixture(scope="module", name="node")
def fixture_node(tmp_path_factory):
    """A folder with our scripts beside the npm package that they use."""
    folder = str(tmp_path_factory.mktemp("node"))
    for name in os.listdir(CLIENTS):
        shutil.copy(os.path.join(CLIENTS, name), folder)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock",
                    "--loglevel=error"], cwd=folder, check=True, timeout=300)
    return folder


# --- python-consul ---

def test_python_consul_reads_writes_and_waits(one):
    client = connect(one)
    assert client.kv.put("py/key", "value", flags=42) is True
    index, entry = client.kv.get("py/key")
    assert (entry["Value"], entry["Flags"], entry["LockIndex"]) == (b"value", 42, 0)
    assert client.kv.get("py/none")[1] is None
    assert client.kv.put("py/key", "2", cas=entry["ModifyIndex"]) is True
    assert client.kv.put("py/key", "3", cas=entry["ModifyIndex"]) is False

    index = client.kv.get("py/key")[0]
    threading.Timer(0.3, lambda: connect(one).kv.put("py/key", "woken")).start()
    newer, entry = client.kv.get("py/key", index=index, wait="20s")
    assert int(newer) > int(index)
    assert entry["Value"] == b"woken"
    began = time.monotonic()
    assert client.kv.get("py/key", index=newer, wait="300ms")[0] == newer
    assert time.monotonic() - began >= 0.3

    client.kv.put("py/a/b", "")
    assert client.kv.get("py/", keys=True, separator="/")[1] == ["py/a/", "py/key"]
    assert {item["Key"] for item in client.kv.get("py/", recurse=True)[1]} == {"py/a/b", "py/key"}
    assert client.kv.delete("py/", recurse=True) is True
    assert client.kv.get("py/", recurse=True)[1] is None


def test_python_consul_locks_with_sessions(one):
    client = connect(one)
    first = client.session.create("first", behavior="delete", ttl=600, lock_delay=0)
    second = client.session.create("second", ttl=600, lock_delay=0)
    assert client.kv.put("pylock", "1", acquire=first) is True
    assert client.kv.put("pylock", "2", acquire=second) is False
    assert client.kv.get("pylock")[1]["Session"] == first
    assert client.session.renew(first)["Name"] == "first"
    assert {item["Name"] for item in client.session.list()[1]} >= {"first", "second"}
    assert client.session.info(first)[1]["Behavior"] == "delete"
    assert client.session.destroy(first) is True
    assert client.kv.get("pylock")[1] is None  # Deleted with its session.
    assert client.kv.put("pylock", "2", acquire=second) is True
    assert client.kv.put("pylock", "2", release=second) is True
    client.session.destroy(second)
    with pytest.raises(consul.NotFound):
        client.session.renew(second)


def test_python_consul_registers_and_finds_services(one):
    client = connect(one)
    assert client.agent.service.register("py-db", service_id="py-db-1", port=5432,
                                         tags=["master"], check=consul.Check.ttl("1h"))
    # Its own ttl_pass and deregister send GET, which Consul has refused since 1.0.
    assert one.request("PUT", "/v1/agent/check/pass/service:py-db-1")[0] == 200
    found = wait_for("the service in the catalog", lambda: client.health.service(
        "py-db", passing=True, tag="master")[1], 60)
    assert found[0]["Service"]["Port"] == 5432
    assert "py-db" in client.catalog.services()[1]
    assert one.request("PUT", "/v1/agent/service/deregister/py-db-1")[0] == 200
    assert client.status.leader().startswith(one.address)
    assert client.agent.self()["Config"]["NodeName"] == one.name


# --- npm's consul ---

def test_npm_consul_calls(one, node):
    answer = subprocess.run(["node", "calls.js", one.address, str(HTTP_PORT)], cwd=node,
                            capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)
    assert seen["leader"].startswith(one.address)
    del seen["leader"]
    assert seen == {
        "set": True, "get": ["node/key", "value"], "cas": [True, False], "acquire": True,
        "refused": False, "holder": True, "renew": "600s", "release": True,
        "sessions": ["js", "other"], "destroyed": True, "keys": ["node/key", "node/lock"],
        "txn": "t", "services": ["js-service"], "peers": 1, "members": 1, "datacenters": ["dc1"],
        "health": 1, "nodes": 1}


def test_npm_consul_watch_sees_changes_across_a_restart(node):
    with Cluster(size=1) as cluster:
        server = cluster.servers[0]
        watch = subprocess.Popen(["node", "watch.js", server.address, str(HTTP_PORT), "w"],
                                 cwd=node, stdout=subprocess.PIPE, text=True)
        late = threading.Timer(180, watch.kill)  # Its output then ends.
        late.start()
        try:
            assert watch.stdout.readline() == "none\n"
            server.put("w", "1")
            assert watch.stdout.readline() == "1\n"
            server.put("elsewhere", "1")
            server.put("w", "2")
            assert watch.stdout.readline() == "2\n"
            server.kill()
            server.start()
            cluster.wait_leader(60)
            wait_for("a write", lambda: server.put("w", "end"), 60)
            assert watch.stdout.readline() == "end\n"
            assert watch.wait(60) == 0
        finally:
            late.cancel()
            watch.kill()
            watch.wait(60)


# --- curl, as operators and Patroni's log show the calls ---

def curl(server, *arguments):
    target = arguments[-1].replace("LOCAL", "http://%s:%d" % (server.address, HTTP_PORT))
    answer = subprocess.run(["curl", "-s", "--max-time", "60"] + list(arguments[:-1]) + [target],
                            capture_output=True, text=True, timeout=90, check=False)
    assert answer.returncode == 0, (arguments, answer)
    return answer.stdout


def test_curl_with_the_operators_calls(one):
    scope = "LOCAL/v1/kv/service/pg-ha-cluster/"
    session = json.loads(curl(one, "-X", "PUT", "-d", json.dumps(
        {"Name": "pg-ha-cluster-patroni-03", "TTL": "15s", "LockDelay": "1s",
         "Behavior": "delete", "Checks": ["serfHealth"]}), "LOCAL/v1/session/create"))["ID"]
    assert json.loads(curl(one, "-X", "PUT", "LOCAL/v1/session/renew/" + session))[0]["TTL"] == "15s"
    member = '{"conn_url":"postgres://10.0.0.1:5432/postgres","state":"running"}'
    assert curl(one, "-X", "PUT", "-d", member,
                scope + "members/patroni-03?acquire=" + session) == "true"
    assert curl(one, "-X", "PUT", "-d", "patroni-03", scope + "leader?acquire=" + session) == "true"
    assert curl(one, "-X", "PUT", "-d", "50331648", scope + "optime/leader") == "true"

    leader = json.loads(curl(one, scope + "leader"))[0]
    assert base64.b64decode(leader["Value"]) == b"patroni-03"
    assert leader["Session"] == session
    assert [entry["Key"].rpartition("pg-ha-cluster/")[2] for entry in
            json.loads(curl(one, scope + "?recurse=1"))] == [
                "leader", "members/patroni-03", "optime/leader"]
    assert curl(one, scope + "optime/leader?raw") == "50331648"
    waited = json.loads(curl(one, scope + "leader?wait=0.350981s&index=%d" % leader["ModifyIndex"]))
    assert waited[0]["ModifyIndex"] == leader["ModifyIndex"]
    listed = json.loads(curl(one, "LOCAL/v1/session/list"))
    assert [(entry["Name"], entry["TTL"], entry["NodeChecks"]) for entry in listed
            if entry["ID"] == session] == [("pg-ha-cluster-patroni-03", "15s", ["serfHealth"])]
    assert session in {entry["ID"] for entry in
                       json.loads(curl(one, "LOCAL/v1/session/node/" + one.name))}
    assert curl(one, "-X", "DELETE", scope + "leader?cas=%d" % leader["ModifyIndex"]) == "true"
    assert curl(one, "-X", "PUT", "LOCAL/v1/session/destroy/" + session) == "true"
    assert [entry["Key"] for entry in json.loads(curl(one, scope + "?recurse=1"))] == [
        "service/pg-ha-cluster/optime/leader"]
    assert curl(one, "-X", "DELETE", scope + "?recurse=1") == "true"
    assert curl(one, "--http1.0", scope + "leader") == ""
    assert curl(one, "-d", "x" * 100, "-X", "PUT", "-H", "Transfer-Encoding: chunked",
                "LOCAL/v1/kv/chunked") == "true"
    assert curl(one, "-d", "x" * 2000, "-X", "PUT", "-H", "Expect: 100-continue",
                "LOCAL/v1/kv/expect") == "true"
    assert curl(one, "LOCAL/v1/kv/expect?raw") == "x" * 2000


# --- Prometheus ---

def test_promtool_accepts_the_metrics_page(one):
    one.put("metrics", "1")
    status, headers, page = one.request("GET", "/v1/agent/metrics?format=prometheus")
    assert status == 200, page
    assert headers["Content-Type"].startswith("text/plain")
    check = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True,
                           timeout=60, check=False)
    # 3: it parses, with advice on names, which are Consul's.
    assert check.returncode in (0, 3), check.stderr
    assert b"error while linting" not in check.stderr, check.stderr


# --- recipes while servers die ---

class Candidate(threading.Thread):
    """Runs `recipe(client, session)` with python-consul, server after server, until told to stop.
    The recipe gives the time that it held what it wanted, or None. A session whose state is unknown
    after an error is ended before another is made. It depends on its TTL alone: a holder that the machine stops for a
    moment is not to lose its lock because a server has died."""

    def __init__(self, cluster, recipe):
        super().__init__(daemon=True)
        self.cluster, self.recipe = cluster, recipe
        self.held, self.over = [], threading.Event()

    def client(self):
        return connect(random.choice(self.cluster.servers))

    def forget(self, session):
        deadline = time.monotonic() + 30
        while session and time.monotonic() < deadline:
            try:
                self.client().session.destroy(session)
                return
            except Exception:  # pylint: disable=broad-except
                time.sleep(0.1)

    def run(self):
        client, session = self.client(), None
        while not self.over.is_set():
            try:
                if session is None:
                    session = client.session.create("candidate", checks=[], ttl=30, lock_delay=0)
                client.session.renew(session)
                held = self.recipe(client, session)
                if held:
                    self.held.append(held)
                else:
                    time.sleep(0.02)
            except Exception:  # pylint: disable=broad-except
                self.forget(session)
                client, session = self.client(), None
                time.sleep(0.05)
        self.forget(session)


def elect(client, session):
    if not client.kv.put("recipe/leader", session, acquire=session):
        return None
    began = time.monotonic_ns()
    time.sleep(HOLD_SECONDS)
    ended = time.monotonic_ns()  # Before the release is asked for.
    client.kv.put("recipe/leader", "", release=session)
    return began, ended


def semaphore(client, session, limit=2):
    """Consul's guide: a key of one's own held by the session, and a list of holders changed by
    check-and-set, in which those whose key is gone do not count."""
    mine = "recipe/semaphore/" + session
    if not client.kv.put(mine, "", acquire=session):
        return None
    while True:
        _, entries = client.kv.get("recipe/semaphore/", recurse=True, consistency="consistent")
        alive = {entry["Key"].rpartition("/")[2] for entry in entries if entry.get("Session")}
        lock = next((entry for entry in entries if entry["Key"].endswith("/.lock")), None)
        holders = set(json.loads(lock["Value"])) & alive if lock else set()
        if len(holders) >= limit:
            return None
        if client.kv.put("recipe/semaphore/.lock", json.dumps(sorted(holders | {session})),
                         cas=lock["ModifyIndex"] if lock else 0):
            break
    began = time.monotonic_ns()
    time.sleep(HOLD_SECONDS)
    ended = time.monotonic_ns()
    while True:
        _, lock = client.kv.get("recipe/semaphore/.lock", consistency="consistent")
        holders = set(json.loads(lock["Value"])) - {session}
        if client.kv.put("recipe/semaphore/.lock", json.dumps(sorted(holders)),
                         cas=lock["ModifyIndex"]):
            break
    client.kv.delete(mine)
    return began, ended


def most_at_once(intervals):
    """The highest number of holders at any moment."""
    steps = sorted([(began, 1) for began, _ in intervals] + [(ended, -1) for _, ended in intervals])
    highest = now = 0
    for _, step in steps:
        now += step
        highest = max(highest, now)
    return highest


def kill_in_turn(cluster, rounds, pause):
    """The leader each second time, else anyone; it comes back before the next one goes."""
    for number in range(rounds):
        time.sleep(pause)
        leader = cluster.wait_leader(60)
        victim = leader if number % 2 == 0 else random.choice(
            [server for server in cluster.live() if server is not leader])
        victim.kill()
        time.sleep(pause)
        victim.start()
    cluster.wait_leader(60)


def test_recipes_never_have_a_holder_too_many_while_servers_die(node):
    with Cluster(size=5) as cluster:
        addresses = [server.address for server in cluster.servers]
        scripts = [subprocess.Popen(["node", "elect.js", "recipe/leader", str(HTTP_PORT)] +
                                    addresses[number:] + addresses[:number], cwd=node,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                   for number in range(2)]
        printed = [[] for _ in scripts]
        readers = [threading.Thread(target=lines.extend, args=(script.stdout,), daemon=True)
                   for lines, script in zip(printed, scripts)]
        electors = [Candidate(cluster, elect) for _ in range(3)]
        permits = [Candidate(cluster, semaphore) for _ in range(4)]
        try:
            for thread in readers + electors + permits:
                thread.start()
            kill_in_turn(cluster, 4, 1.5)
            after = time.monotonic_ns()

            def again():
                return any(printed) and all(any(began > after for one in kind for began, _ in one.held)
                                            for kind in (electors, permits))
            wait_for("holders after the last one died", again, 120)
            for candidate in electors + permits:
                candidate.over.set()
            for candidate in electors + permits:
                candidate.join(120)
            for script in scripts:
                script.stdin.close()
                script.wait(60)
            for reader in readers:
                reader.join(60)
        finally:
            for candidate in electors + permits:
                candidate.over.set()
            for script in scripts:
                script.kill()
                script.wait(60)
        ours = [interval for one in electors for interval in one.held]
        theirs = [tuple(map(int, line.split())) for lines in printed for line in lines]
        assert ours
        assert theirs
        assert most_at_once(ours + theirs) == 1
        assert most_at_once([interval for one in permits for interval in one.held]) in (1, 2)
