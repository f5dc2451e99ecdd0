"""What today's clients send and look for although Consul 1.8 did not have it, and what they are told where
there is nothing (docs/compatibility.md)."""
import http.client
import json
import socket
import subprocess
import threading

import pytest

from cluster import DNS_PORT, HTTP_PORT, Cluster, wait_for


@pytest.fixture(scope="module", name="server")
def one_server():
    with Cluster(size=1) as cluster:
        cluster.wait_members()
        yield cluster.wait_leader()


def register(server, **document):
    return server.request("PUT", "/v1/catalog/register", json.dumps(document))


def test_the_long_name_of_the_datacenter_parameter_counts(server):
    assert server.request("GET", "/v1/catalog/nodes?datacenter=dc1")[0] == 200
    for path in ("/v1/catalog/nodes", "/v1/kv/a", "/v1/health/service/x"):
        status, _, body = server.request("GET", path + "?datacenter=nosuch")
        assert (status, body) == (500, b"No path to datacenter")


def test_the_default_namespace_and_partition_may_be_named_and_no_others(server):
    for name in ("ns", "namespace", "partition", "ap"):
        assert server.request("GET", "/v1/session/list?%s=default" % name)[0] == 200
        status, _, body = server.request("GET", "/v1/session/list?%s=x" % name)
        assert status == 400 and b"Enterprise feature" in body
    assert register(server, Node="ns", Address="10.0.0.1", Partition="default")[0] == 200
    for record in ({"Partition": "x"}, {"Service": {"Service": "s", "Namespace": "x"}},
                   {"Check": {"Name": "c", "PeerName": "x"}}):
        assert register(server, Node="ns", Address="10.0.0.1", **record)[0] == 400


def test_reads_tell_their_backend_and_that_there_are_no_acls(server):
    for path in ("/v1/health/service/consul", "/v1/catalog/nodes", "/v1/kv/nosuch"):
        headers = server.request("GET", path)[1]
        assert headers["X-Consul-Query-Backend"] == "blocking-query"
        assert headers["X-Consul-Default-Acl-Policy"] == "allow"
        assert "X-Consul-Results-Filtered-By-Acls" not in headers


def test_raw_values_are_no_page_for_a_browser(server):
    server.put("raw", b"<script>")
    headers = server.request("GET", "/v1/kv/raw?raw")[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox"


def test_a_service_s_socket_ports_and_locality_are_kept_and_its_default_port_counts(server):
    ports = [{"Name": "a", "Port": 1}, {"Name": "b", "Port": 8080, "Default": True}]
    assert register(server, Node="multi", Address="10.0.0.1", Locality={"Region": "r"},
                    Service={"Service": "multi", "SocketPath": "/run/x", "Ports": ports,
                             "Locality": {"Region": "r", "Zone": "z"}})[0] == 200
    service = server.get_json("/v1/health/service/multi")[0]["Service"]
    assert service["Port"] == 8080 and service["Ports"] == ports
    assert service["SocketPath"] == "/run/x" and service["Locality"]["Zone"] == "z"
    assert server.get_json("/v1/catalog/service/multi")[0]["ServicePort"] == 8080


def agent_register(server, **body):
    return server.request("PUT", "/v1/agent/service/register", json.dumps(body).encode())


def test_an_agent_s_service_shows_them_in_every_answer_and_in_dns(server):
    ports = [{"Name": "a", "Port": 1}, {"Name": "b", "Port": 8080, "Default": True}]
    newer = {"SocketPath": "/run/x", "Ports": ports, "Locality": {"Region": "r", "Zone": "z"}}
    # Member names count without case, and are shown in Consul's spelling.
    assert agent_register(server, Name="local", ID="local1", Address="10.0.0.7",
                          socketpath="/run/x", locality={"region": "r", "zone": "z"},
                          ports=[{"name": "a", "port": 1},
                                 {"name": "b", "port": 8080, "default": True}])[0] == 200
    wait_for("the catalog has it", lambda: server.get_json("/v1/catalog/service/local"), 60)
    answers = [
        server.get_json("/v1/agent/services")["local1"],
        server.get_json("/v1/agent/service/local1"),
        server.get_json("/v1/agent/health/service/id/local1")["Service"],
        server.get_json("/v1/health/service/local")[0]["Service"],
    ]
    for service in answers:
        assert service["Port"] == 8080
        assert {name: service[name] for name in newer} == newer
    entry = server.get_json("/v1/catalog/service/local")[0]
    assert entry["ServicePort"] == 8080
    assert {name: entry["Service" + name] for name in newer} == newer
    assert entry["ServiceTaggedAddresses"]["lan_ipv4"] == {"Address": "10.0.0.7", "Port": 8080}
    answer = subprocess.run(["dig", "+short", "+tcp", "@" + server.address, "-p", str(DNS_PORT), "SRV",
                             "local.service.consul"], capture_output=True, text=True, check=True)
    assert answer.stdout.split()[2:] == ["8080", "0a000007.addr.dc1.consul."]


@pytest.mark.parametrize("newer", [
    {"Ports": [1]}, {"Ports": [{"Port": "x"}]}, {"Ports": [{"Prt": 1}]}, {"Ports": {"http": 1}},
    {"Ports": [{"Port": 70000}]}, {"Ports": [{"Port": -1, "Default": True}]},
    {"Locality": "r"}, {"Locality": {"Region": 1}}, {"SocketPath": 1},
])
def test_ports_and_localities_of_another_form_are_refused(server, newer):
    assert agent_register(server, Name="wrong", **newer)[0] == 400
    assert "wrong" not in server.get_json("/v1/agent/services")


@pytest.mark.parametrize("service", [
    {"Port": 65536}, {"Port": -1}, {"Ports": [{"Name": "a", "Port": 70000}]},
])
def test_the_catalog_refuses_ports_that_no_client_can_use(server, service):
    status, _, body = register(server, Node="n", Address="10.0.0.1",
                               Service=dict(service, Service="wrong"))
    assert status == 400 and b"between 0 and 65535" in body
    assert server.get_json("/v1/catalog/service/wrong") == []


def test_names_of_services_can_be_filtered(server):
    assert register(server, Node="filtered", Address="10.0.0.1",
                    Service={"Service": "yes", "Tags": ["t"], "Port": 80})[0] == 200
    assert register(server, Node="filtered", Address="10.0.0.1",
                    Service={"Service": "no", "Port": 81})[0] == 200
    path = "/v1/catalog/services?filter="
    assert server.get_json(path + "ServicePort==80") == {"yes": ["t"]}
    assert server.get_json(path + "%22t%22+in+ServiceTags") == {"yes": ["t"]}
    assert server.get_json(path + "Node==nosuch") == {}
    assert server.request("GET", path + "Foo==1")[0] == 500


def test_parameters_of_later_releases_are_no_error(server):
    for query in ("merge-central-config", "peer=", "leader", "cached&max-age=1s"):
        assert server.request("GET", "/v1/health/service/consul?" + query)[0] == 200


def test_get_or_empty_answers_for_missing_keys(server):
    status, _, body = server.request("PUT", "/v1/txn", json.dumps(
        [{"KV": {"Verb": "get-or-empty", "Key": "nosuch"}}]))
    assert status == 200 and json.loads(body)["Results"][0]["KV"]["Value"] is None


def usage(server, query=""):
    status, headers, body = server.request("GET", "/v1/operator/usage" + query, timeout=60)
    assert status == 200
    answer = json.loads(body)
    assert answer["Index"] == int(headers["X-Consul-Index"])
    return answer


def test_usage_counts_services_instances_and_nodes_and_can_be_waited_for(server):
    before = usage(server)
    assert set(before) == {"Usage", "Index", "LastContact", "KnownLeader", "ConsistencyLevel",
                           "NotModified", "Backend", "ResultsFilteredByACLs"}
    assert before["ConsistencyLevel"] == "leader" and before["KnownLeader"] is True
    assert usage(server, "?stale")["ConsistencyLevel"] == "stale"
    waited = []
    waiter = threading.Thread(target=lambda: waited.append(
        usage(server, "?index=%d&wait=50s" % before["Index"])))
    waiter.start()
    for node in ("usage-1", "usage-2"):
        assert register(server, Node=node, Address="10.0.0.1", Service={"Service": "used"})[0] == 200
    waiter.join(90)
    assert waited[0]["Index"] > before["Index"]
    assert waited[0]["Usage"]["dc1"]["Nodes"] > before["Usage"]["dc1"]["Nodes"]
    was, now = before["Usage"]["dc1"], usage(server, "?global")["Usage"]["dc1"]
    grown = {name: now[name] - was[name] for name in was if isinstance(was[name], int)}
    assert grown == {"Nodes": 2, "Services": 1, "ServiceInstances": 2, "BillableServiceInstances": 2}
    assert now["ServiceInstances"] == now["BillableServiceInstances"] + 1  # The server itself.
    assert set(now["ConnectServiceInstances"].values()) == {0}
    for node in ("usage-1", "usage-2"):
        assert server.request("PUT", "/v1/catalog/deregister", json.dumps({"Node": node}))[0] == 200
    assert usage(server)["Usage"] == before["Usage"]


def test_metrics_are_streamed_interval_by_interval(server):
    connection = http.client.HTTPConnection(server.address, HTTP_PORT, timeout=60)
    try:
        connection.request("GET", "/v1/agent/metrics/stream")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.headers["Content-Type"] == "application/json"
        first, second = (json.loads(answer.readline()) for _ in range(2))
    finally:
        connection.close()
    assert set(first) == set(second) == {"Timestamp", "Gauges", "Points", "Counters", "Samples"}
    assert first["Timestamp"] < second["Timestamp"]
    assert "consul.raft.peers" in {gauge["Name"].replace("." + socket.gethostname(), "")
                                   for gauge in first["Gauges"]}


@pytest.mark.parametrize("path", [
    "/v1/connect/ca/roots", "/v1/connect/intentions", "/v1/connect/intentions/match", "/v1/config",
    "/v1/config/service-defaults/x", "/v1/discovery-chain/x", "/v1/catalog/gateway-services/x",
    "/v1/peerings", "/v1/peering/token", "/v1/exported-services", "/v1/internal/ui/services",
    "/v1/operator/area", "/v1/namespaces", "/v1/partitions"])
def test_what_is_left_out_says_so(server, path):
    for method in ("GET", "PUT", "DELETE"):
        status, headers, body = server.request(method, path)
        assert status == 501 and b"not supported by Proconsul" in body
        assert headers["Content-Type"] == "text/plain; charset=utf-8"


def test_prepared_queries_say_that_they_cannot_be_made(server):
    status, _, body = server.request("POST", "/v1/query", "{}")
    assert status == 500 and b"not supported" in body


def test_near_lists_the_nearest_nodes_first_and_those_without_coordinates_last(server):
    def told(node, distance):
        register(server, Node=node, Address="10.0.0.1", Service={"Service": "near"})
        document = {"Node": node, "Coord": {"Vec": [distance] + [0] * 7, "Height": 0.0001}}
        assert server.request("PUT", "/v1/coordinate/update", json.dumps(document))[0] == 200

    for node, distance in (("far", 0.9), ("here", 0.0), ("close", 0.1)):
        told(node, distance)
    register(server, Node="unknown", Address="10.0.0.1", Service={"Service": "near"})
    wait_for("the coordinates", lambda: {"far", "here", "close"} <= {
        one["Node"] for one in server.get_json("/v1/coordinate/nodes")}, 60)
    wanted = ["here", "close", "far", "unknown"]
    for path in ("/v1/catalog/service/near?near=here", "/v1/catalog/nodes?near=here"):
        names = [one["Node"] for one in server.get_json(path)]
        assert [name for name in names if name in wanted] == wanted
    names = [one["Node"]["Node"] for one in server.get_json("/v1/health/service/near?near=here")]
    assert names == wanted
    names = [one["Node"]["Node"] for one in server.get_json("/v1/health/service/near?near=far")]
    assert names == ["far", "close", "here", "unknown"]
    # A node without a coordinate has no distance to anything: the usual order.
    names = [one["Node"]["Node"] for one in server.get_json("/v1/health/service/near?near=unknown")]
    assert names == sorted(names)
    server.request("PUT", "/v1/catalog/deregister", json.dumps({"Node": "far"}))
    assert server.get_json("/v1/coordinate/node/far") is None


def test_an_agent_s_ids_are_taken_whole_or_not_at_all(server):
    for path, body in (("service", {"Name": "a\0b"}), ("service", {"Name": "a", "ID": "a\0b"}),
                       ("check", {"Name": "a\0b", "TTL": "1h"}), ("check", {"Name": "a", "ID": "\0", "TTL": "1h"})):
        status, _, text = server.request("PUT", "/v1/agent/%s/register" % path, json.dumps(body).encode())
        assert status in (400, 500) and b"with a NUL in it" in text
    assert not [name for name in server.get_json("/v1/agent/checks") if name.startswith("a")]
