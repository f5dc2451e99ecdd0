"""What the agent does beside the catalog: events on all servers, its log and its figures over HTTP, checks that run programs."""
import json
import os
import re
import signal
import socket

import pytest

from cluster import HTTP_PORT, Cluster, wait_for

NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{quantile="0\.\d+"\})? (NaN|[-+0-9.e]+)$')


@pytest.fixture(scope="module")
def cluster():
    extra = {"enable_script_checks": True, "check_update_interval": "0s",
             "telemetry": {"prometheus_retention_time": "1m", "disable_hostname": True,
                           "prefix_filter": ["-consul.dns", "+consul.dns.staleness"]}}
    with Cluster(size=3, extra=extra) as started:
        started.wait_members()
        yield started


def put(server, path, body=None):
    status, _, answer = server.request("PUT", path, None if body is None else json.dumps(body))
    assert status == 200, (path, status, answer)
    return answer


def check(server, check_id):
    return server.get_json("/v1/agent/checks").get(check_id)


def names(server, query=""):
    return [event["Name"] for event in server.get_json("/v1/event/list" + query)]


def test_an_event_reaches_every_server_that_its_filters_name(cluster):
    first, second, third = cluster.servers
    put(second, "/v1/agent/service/register", {"Name": "pooler", "Tags": ["blue"]})
    fired = json.loads(put(first, "/v1/event/fire/deploy"))
    assert fired["LTime"] == 0 and fired["Payload"] is None
    for server in cluster.servers:
        wait_for("the event at " + server.name, lambda: "deploy" in names(server), 60)
        event = server.get_json("/v1/event/list?name=deploy")[0]
        assert event["ID"] == fired["ID"] and event["LTime"] > 0
    put(third, "/v1/event/fire/blue?service=pooler&tag=blue")
    put(third, "/v1/event/fire/node?node=server-1")
    put(third, "/v1/event/fire/last")
    for server in cluster.servers:
        wait_for("the last event at " + server.name, lambda: "last" in names(server), 60)
    # One link carries them in order: what has not come by now was not meant.
    assert names(first) == ["deploy", "node", "last"]
    assert names(second) == ["deploy", "blue", "last"]
    assert names(third) == ["deploy", "last"]


def test_a_server_that_was_away_hears_of_recent_events(cluster):
    first, _, third = cluster.servers
    third.kill()
    put(first, "/v1/event/fire/while-away")
    third.start()
    wait_for("the event", lambda: "while-away" in names(third), 60)
    assert names(third).count("while-away") == 1
    cluster.wait_leader(60)


def test_metrics_are_consuls_json_and_prometheus_text(cluster):
    server = cluster.servers[0]

    def interval():
        """One with the request's time, in which all servers were there: one may have been away just now."""
        server.put("some/key", b"value")
        shown = server.get_json("/v1/agent/metrics")
        gauges = {gauge["Name"]: gauge["Value"] for gauge in shown["Gauges"]}
        samples = {sample["Name"]: sample for sample in shown["Samples"]}
        return "consul.kvs.apply" in samples and gauges.get("consul.members.alive") == 3 and (shown, gauges, samples)

    shown, gauges, samples = wait_for("an interval with the request's time", interval, 60)
    assert set(shown) == {"Timestamp", "Gauges", "Points", "Counters", "Samples"}
    sample = samples["consul.kvs.apply"]
    assert set(sample) == {"Name", "Count", "Rate", "Sum", "Min", "Max", "Mean", "Stddev",
                           "Labels"}
    assert sample["Count"] >= 1 and 0 < sample["Min"] <= sample["Mean"] <= sample["Max"]
    assert gauges["consul.raft.peers"] == 3
    assert server.get_json("/v1/agent/self")["Stats"]["raft"]["num_peers"] == "2"

    def page():
        """One with the figures of DNS, which are told now and then only, beside those of a request and a write: what
        has not happened for a minute is not told any more."""
        server.put("some/key", b"value")
        server.get_json("/v1/kv/some/key")
        found = server.request("GET", "/v1/agent/metrics?format=prometheus")
        return all(name in found[2] for name in (
            b"\nconsul_dns_staleness ", b"\nconsul_kvs_apply_count ", b"\nconsul_http_GET_v1_kv")) and found

    status, headers, body = wait_for("the age of DNS answers", page, 60)
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    values, types = {}, {}
    for line in body.decode().splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert NAME.match(name) and name not in types and kind in ("counter", "gauge", "summary")
            types[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            values[match.group(1) + (match.group(2) or "")] = float(match.group(3))
    assert values["consul_kvs_apply_count"] >= 1
    assert values["consul_raft_peers"] == 3
    assert any(name.startswith("consul_http_GET_v1_kv") for name in types)
    assert "consul_dns_staleness" in types and "consul_dns_queries" not in types  # prefix_filter


def read_until(client, text, wanted):
    """`text` and what comes after it, until it has `wanted`."""
    while wanted not in text:
        more = client.recv(4096)
        assert more, "the stream ended: %r" % text
        text += more
    return text


def follow(server, query):
    """A connection on which /v1/agent/monitor answers, and what it has said."""
    client = socket.create_connection((server.address, HTTP_PORT), timeout=60)
    client.sendall(b"GET /v1/agent/monitor%s HTTP/1.1\r\nHost: x\r\n\r\n" % query)
    text = read_until(client, b"", b"\r\n\r\n")
    assert b"200 OK" in text and b"Transfer-Encoding: chunked" in text
    return client, text


def test_the_log_is_streamed_as_lines_and_as_json(cluster):
    server = cluster.servers[1]
    (lines, text), (objects, other) = follow(server, b"?loglevel=debug"), follow(server, b"?loglevel=debug&logjson")
    with lines, objects:
        put(server, "/v1/agent/check/register", {"Name": "logged", "TTL": "1h"})
        text = read_until(lines, text, b"check=logged")
        assert re.search(rb"\d{4}-\d\d-\d\dT\S+ \[(INFO|DEBUG)\] +agent: ", text)
        before, word, behind = read_until(objects, other, b'"logged"').partition(b'"logged"')
        told = json.loads(before.rpartition(b"\n")[2] + word + read_until(objects, behind, b"\n").partition(b"\n")[0])
        assert told["check"] == "logged"
        assert {"@level", "@message", "@module", "@timestamp"} <= set(told)
    put(server, "/v1/agent/check/deregister/logged")
    assert server.request("GET", "/v1/agent/monitor?loglevel=loud")[0] == 400


def test_a_script_check_reports_its_exit_status_and_ends_with_its_time(cluster):
    server = cluster.servers[0]
    marker = os.path.join(cluster.dir, "child")
    scripts = {
        "good": ["sh", "-c", "echo fine; echo too >&2"],
        "warn": ["sh", "-c", "exit 1"],
        "bad": ["sh", "-c", "exit 2"],
        "gone": ["/nonexistent/program"],
        # Its child belongs to the group that is killed.
        "slow": ["sh", "-c", "sleep 600 & echo $! > %s; wait" % marker],
    }
    for name, args in scripts.items():
        put(server, "/v1/agent/check/register", {
            "ID": name, "Name": name, "Args": args, "Interval": "1s",
            "Timeout": "500ms" if name == "slow" else "30s", "Status": "passing"})

    def expect(name, status, output):
        found = wait_for("%s to be %s" % (name, status), lambda: [
            one for one in [check(server, name)]
            if one["Status"] == status and output in one["Output"]], 60)[0]
        assert found["Type"] == "script"

    expect("good", "passing", "fine\ntoo\n")
    expect("warn", "warning", "")
    expect("bad", "critical", "")
    expect("gone", "critical", "fork/exec /nonexistent/program: no such file or directory")
    expect("slow", "critical", "Timed out (500ms) running check")

    def child():
        """The last one's number, as soon as a script came that far in its time."""
        with open(marker, encoding="utf-8") as file:
            return int(file.read())
    wait_for("the script's child", child, 60)
    put(server, "/v1/agent/check/deregister/slow")

    def child_is_dead():
        state = "/proc/%d/stat" % child()
        try:
            with open(state, encoding="utf-8") as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True
    wait_for("the script's child to be killed", child_is_dead, 60)
    for name in scripts:
        put(server, "/v1/agent/check/deregister/" + name)


def test_an_empty_list_of_words_does_not_hide_the_other_one(cluster):
    """Symptom: which of Args and ScriptArgs counted went by their order, and an empty one was run: "out of memory"."""
    server = cluster.servers[0]
    for name, words in (("both", {"Args": ["echo", "args"], "ScriptArgs": ["echo", "script"]}),
                        ("turned", {"ScriptArgs": ["echo", "script"], "Args": ["echo", "args"]}),
                        ("first", {"ScriptArgs": ["echo", "script"], "Args": []}),
                        ("second", {"ScriptArgs": [], "Args": ["echo", "script"]})):
        put(server, "/v1/agent/check/register", dict(words, ID=name, Name=name, Interval="1s"))
        wait_for(name, lambda: check(server, name)["Output"] == "script\n", 60)
        put(server, "/v1/agent/check/deregister/" + name)


def test_failures_warn_before_they_are_critical(cluster):
    server = cluster.servers[0]
    # Nothing listens there.
    definition = {"ID": "flaky", "Name": "flaky", "TCP": "%s250:9" % cluster.network,
                  "Interval": "1s", "Status": "passing", "FailuresBeforeWarning": 1,
                  "FailuresBeforeCritical": 1000000}
    put(server, "/v1/agent/check/register", definition)
    wait_for("the warning", lambda: check(server, "flaky")["Status"] == "warning", 60)
    definition.update({"FailuresBeforeCritical": 2})
    put(server, "/v1/agent/check/register", definition)
    wait_for("it to be critical", lambda: check(server, "flaky")["Status"] == "critical", 60)
    put(server, "/v1/agent/check/deregister/flaky")


def test_what_has_no_mesh_to_work_in_is_refused_and_later_releases_members_are_kept(cluster):
    server = cluster.servers[0]
    for body in ({"Name": "p", "Kind": "connect-proxy", "Port": 1},
                 {"Name": "p", "Connect": {"SidecarService": {}}}):
        status, _, text = server.request("PUT", "/v1/agent/service/register", json.dumps(body))
        assert status == 400 and b"not part of Proconsul" in text
    put(server, "/v1/agent/service/register", {
        "Name": "many", "Ports": [{"Name": "a", "Port": 1}, {"Name": "b", "Port": 2, "Default": True}]})
    found = server.get_json("/v1/agent/service/many")
    assert found["Port"] == 2 and len(found["Ports"]) == 2


def test_an_alias_follows_a_service_here_and_on_another_node(cluster):
    here, there = cluster.servers[0], cluster.servers[1]
    for server in (here, there):
        put(server, "/v1/agent/service/register",
            {"Name": "db", "Check": {"TTL": "1h", "Status": "passing", "CheckID": "db-ttl"}})
    put(here, "/v1/agent/service/register",
        {"Name": "side", "Check": {"AliasService": "db", "CheckID": "near"}})
    put(here, "/v1/agent/check/register",
        {"ID": "far", "Name": "far", "AliasNode": there.name, "AliasService": "db"})
    for server, alias in ((here, "near"), (there, "far")):
        wait_for(alias + " to pass", lambda: check(here, alias)["Status"] == "passing", 60)
        put(server, "/v1/agent/check/fail/db-ttl")
        wait_for(alias + " to fail", lambda: check(here, alias)["Status"] == "critical", 60)
        put(server, "/v1/agent/check/pass/db-ttl")
        wait_for(alias + " to pass", lambda: check(here, alias)["Status"] == "passing", 60)
    put(there, "/v1/agent/service/deregister/db")
    put(here, "/v1/agent/service/deregister/db")
    for alias in ("near", "far"):
        wait_for("the alias of nothing",
                 lambda alias=alias: "could not be found" in check(here, alias)["Output"], 60)
    put(here, "/v1/agent/service/register", {"Name": "db"})
    wait_for("the service to be there again", lambda: check(here, "near")["Status"] == "passing", 60)


def test_a_reload_by_signal_takes_checks_and_limits_of_the_new_configuration(cluster):
    server = cluster.servers[2]
    path = os.path.join(cluster.dir, server.name + ".json")
    config = server.config()
    config["service"] = {"name": "reloaded", "check": {"args": ["true"], "interval": "1s"}}
    config["limits"] = {"kv_max_value_size": 100}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    server.process.send_signal(signal.SIGHUP)
    wait_for("the script of the new configuration", lambda: (
        check(server, "service:reloaded") or {}).get("Status") == "passing", 60)
    assert server.request("PUT", "/v1/kv/large", b"x" * 101)[0] == 413
    config["enable_script_checks"] = False
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    status, _, text = server.request("PUT", "/v1/agent/reload")
    assert status == 500 and b"Scripts are disabled on this agent" in text
    assert check(server, "service:reloaded")["Status"] == "passing"  # all stays as it was


def test_an_orderly_stop_ends_the_streams_of_the_log(cluster):
    server = cluster.servers[2]
    client, text = follow(server, b"")
    with client:
        server.stop(60)
        while True:
            more = client.recv(4096)
            if not more:
                break
            text += more
        assert text.endswith(b"0\r\n\r\n")
    server.start()
    cluster.wait_leader(60)


def test_what_a_client_said_of_a_ttl_check_outlives_a_restart_while_its_time_lasts():
    """Symptom: after a restart services with TTL checks were critical until their clients came again, though the
    time that these had promised was not over. With discard_check_output their outputs were kept all the same."""
    with Cluster(size=1, extra={"discard_check_output": True}) as single:
        server = single.servers[0]
        single.wait_leader(60)
        for name, ttl in (("long", "1h"), ("short", "1s"), ("silent", "1h")):
            put(server, "/v1/agent/check/register", {"ID": name, "Name": name, "TTL": ttl, "Status": "warning"})
        put(server, "/v1/agent/check/pass/long?note=fine")
        put(server, "/v1/agent/check/pass/short?note=fine")
        assert (check(server, "long")["Status"], check(server, "long")["Output"]) == ("passing", "")
        wait_for("the end of the short one", lambda: check(server, "short")["Status"] == "critical", 60)
        assert check(server, "short")["Output"] == ""

        single.extra = {}
        server.stop()
        server.start()
        single.wait_leader(60)
        assert (check(server, "long")["Status"], check(server, "long")["Output"]) == ("passing", "fine")
        assert (check(server, "short")["Status"], check(server, "silent")["Status"]) == ("critical", "critical")
        wait_for("the catalog", lambda: any(
            one["CheckID"] == "long" and one["Status"] == "passing"
            for one in server.get_json("/v1/health/node/" + server.name)), 60)

        # What is registered anew is told of anew.
        put(server, "/v1/agent/check/deregister/long")
        put(server, "/v1/agent/check/register", {"ID": "long", "Name": "long", "TTL": "1h"})
        server.stop()
        server.start()
        single.wait_leader(60)
        assert check(server, "long")["Status"] == "critical"
