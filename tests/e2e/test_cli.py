"""What the command line has beyond Consul 1.8's: the names of snapshots, what is in them, versions as JSON
(docs/compatibility.md)."""
import json
import os
import re
import subprocess

import pytest

from cluster import BINARY, HTTP_PORT, Cluster

KEYS = {
    "service/pg/leader": 100, "service/pg/members/a": 4000, "service/pg/members/b": 4000,
    "service/pg-x": 1, "service/other/leader": 1, "vault/core": 1, "top": 1, "": 0, "ä/b/": 5}


@pytest.fixture(scope="module", name="server")
def one_server():
    with Cluster(size=1) as cluster:
        server = cluster.wait_leader()
        cluster.wait_members()  # What it registers of itself is counted.
        for key, size in KEYS.items():
            if key:
                assert server.put(key.replace("ä", "%C3%A4"), b"x" * size)
        yield server


def run(server, folder, *arguments):
    environment = dict(os.environ, CONSUL_HTTP_ADDR="%s:%d" % (server.address, HTTP_PORT))
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, cwd=folder,
                          env=environment, timeout=60, check=False)


@pytest.fixture(scope="module", name="folder")
def saved(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("snapshots")
    done = run(server, folder, "snapshot", "save", "s.snap")
    assert done.returncode == 0, done.stderr
    return folder


def inspect(server, folder, *flags):
    done = run(server, folder, "snapshot", "inspect", *flags, "s.snap")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("listed, name", [
    ("version,dc,node,status", "b-1.8.7-dc1-server-1-leader.tgz"),
    ("status,node", "b-server-1-leader.tgz"),  # Always in the same order.
    ("dc,nosuch", "b-dc1.tgz"),
    ("", "b.tgz"),
])
def test_a_snapshot_s_name_tells_whose_it_is(server, tmp_path, listed, name):
    done = run(server, tmp_path, "snapshot", "save", "-append-filename", listed, "b.tgz")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == [name]


def test_only_the_file_s_own_name_has_an_extension(server, tmp_path):
    os.mkdir(tmp_path / "a.b")
    assert run(server, tmp_path, "snapshot", "save", "-append-filename=dc", "a.b/c").returncode == 0
    assert os.listdir(tmp_path / "a.b") == ["c-dc1"]


def test_nothing_is_saved_under_a_name_that_is_not_known(server, tmp_path):
    done = run(server, tmp_path, "snapshot", "save", "-append-filename=dc",
               "-http-addr=127.0.0.1:1", "b.tgz")
    assert done.returncode == 1 and done.stderr.startswith(
        "Error connecting to Consul agent and fetching datacenter/version: Get ")
    assert os.listdir(tmp_path) == []


def test_without_flags_a_snapshot_is_shown_as_1_8_does(server, folder):
    assert re.fullmatch(r"ID {11}\d+-\d+-\d+\nSize {9}\d+\nIndex {8}\d+\nTerm {9}\d+\n"
                        r"Version {6}1\n\n", inspect(server, folder))


def test_json_tells_the_types_and_their_sums(server, folder):
    shown = json.loads(inspect(server, folder, "-format=json"))
    assert list(shown) == ["Meta", "Stats", "StatsKV", "TotalSize", "TotalSizeKV"]
    assert list(shown["Meta"]) == ["ID", "Size", "Index", "Term", "Version"]
    sums = [one["Sum"] for one in shown["Stats"]]
    assert sums == sorted(sums, reverse=True)
    assert sum(sums) == shown["TotalSize"] < shown["Meta"]["Size"]
    counts = {one["Name"]: one["Count"] for one in shown["Stats"]}
    assert counts["KVS"] == len(KEYS) - 1
    assert counts["Register"] == 3  # the server: a node, a service, a check
    assert shown["StatsKV"] is None and shown["TotalSizeKV"] == 0


@pytest.mark.parametrize("flags, expected", [
    ([], {"service/pg": 3, "service/pg-x": 1, "service/other": 1, "vault/core": 1, "top": 1,
          "ä/b": 1}),
    (["-kvdepth", "1"], {"service": 5, "vault": 1, "top": 1, "ä": 1}),
    (["-kvdepth=3"], {"service/pg/members": 2, "service/pg/leader": 1, "service/pg-x": 1,
                      "service/other/leader": 1, "vault/core": 1, "top": 1, "ä/b/": 1}),
    (["-kvdepth=0"], {"": 8}),
    (["-kvfilter", "service/pg"], {"service/pg": 3, "service/pg-x": 1}),
    (["-kvfilter=nosuch"], None),
])
def test_keys_are_grouped_by_how_they_begin(server, folder, flags, expected):
    shown = json.loads(inspect(server, folder, "-kvdetails", "-format=json", *flags))
    groups = shown["StatsKV"]
    if expected is None:
        assert groups is None
        return
    assert {one["Name"]: one["Count"] for one in groups} == expected
    order = [(-one["Sum"], one["Name"].encode()) for one in groups]
    assert order == sorted(order)
    assert sum(one["Sum"] for one in groups) == shown["TotalSizeKV"]


def test_tables_are_laid_out_as_consul_s(server, folder):
    text = inspect(server, folder, "-kvdetails", "-kvfilter=service/pg", "-kvdepth=3")
    shown = json.loads(inspect(server, folder, "-kvdetails", "-kvfilter=service/pg", "-kvdepth=3",
                               "-format=json"))
    head, types, keys = text.split("\n\n")
    assert head.split("\n")[1] == " Size         %d" % shown["Meta"]["Size"]
    assert types.split("\n")[0].split() == ["Type", "Count", "Size"]
    lines = keys.split("\n")
    rows = [re.fullmatch(r" (.{24})(.{11})(.{%d})" % (len(line) - 36), line).groups()
            for line in lines[:-1]]
    assert [row[0].strip() for row in rows] == [
        "Key Name", "----", "service/pg/members", "service/pg/leader", "service/pg-x", "----",
        "Total"]
    assert [row[1].strip() for row in rows] == ["Count", "----", "2", "1", "1", "----", ""]
    sizes = [row[2] for row in rows]
    assert len({len(size) for size in sizes}) == 1 and sizes[0].rstrip() == "Size"
    assert re.fullmatch(r"8(\.\d)?KB", sizes[2].rstrip())
    assert sizes[4].rstrip() == "%dB" % shown["StatsKV"][2]["Sum"]


@pytest.mark.parametrize("flags, text", [
    (["-format=xml"], "Error outputting enhanced snapshot data: Unknown format: xml\n"),
    (["-kvdetails", "-kvdepth=-1"], 'invalid value "-1" for flag -kvdepth: parse error\n'),
    (["-kvdetails", "-kvdepth=2x"], 'invalid value "2x" for flag -kvdepth: parse error\n'),
])
def test_wrong_flags_are_named(server, folder, flags, text):
    done = run(server, folder, "snapshot", "inspect", *flags, "s.snap")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", text)


def test_the_version_as_json(server, folder):
    shown = json.loads(run(server, folder, "version", "-format=json").stdout)
    assert shown["Version"] == server.get_json("/v1/agent/self")["Config"]["Version"]
    assert shown["RPC"] == {"Default": 2, "Min": 2, "Max": 3}
    assert {"Revision", "Prerelease", "BuildDate"} < set(shown)
    done = run(server, folder, "version", "-format=xml")
    assert (done.returncode, done.stderr) == (1, "Unknown format: xml\n")
    assert run(server, folder, "version", "-nosuch").returncode == 1


@pytest.mark.parametrize("command, listed", [
    ("snapshot", "-append-filename"), ("snapshot", "-kvdepth"), ("snapshot", "-http-addr"),
    ("operator", "-http-addr"), ("version", "-format")])
def test_help_lists_the_flags(server, folder, command, listed):
    done = run(server, folder, command, "-h")
    assert done.returncode == 0 and listed in done.stdout and done.stderr == ""
