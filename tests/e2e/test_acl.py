"""With ACLs denying by default: one token may do all, nobody else anything."""
import http.client
import json

import dns.message
import dns.query
import dns.rcode
import pytest

from cluster import DNS_PORT, HTTP_PORT, Cluster, wait_for

TOKEN = "5f1d3c7e-0000-4000-8000-00000000000f"
REQUESTS = [("GET", "/v1/kv/a", None), ("PUT", "/v1/kv/a", "x"), ("DELETE", "/v1/kv/a", None),
            ("PUT", "/v1/session/create", "{}"), ("GET", "/v1/session/list", None),
            ("PUT", "/v1/txn", '[{"KV": {"Verb": "set", "Key": "a", "Value": "eA=="}}]'),
            ("GET", "/v1/catalog/nodes", None), ("GET", "/v1/health/state/any", None),
            ("PUT", "/v1/agent/service/register", '{"Name": "a"}'), ("GET", "/v1/agent/self", None),
            ("PUT", "/v1/event/fire/a", None)]


def config(**tokens):
    return {"acl": {"enabled": True, "default_policy": "deny",
                    "tokens": {"initial_management": TOKEN, **tokens}}}


def request(server, method, path, body=None, headers=None):
    """As the bearer of the token, unless `headers` are given."""
    connection = http.client.HTTPConnection(server.address, HTTP_PORT, timeout=30)
    try:
        connection.request(method, path, body=body,
                           headers={"X-Consul-Token": TOKEN} if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def lookup(server, name):
    answer = dns.query.udp(dns.message.make_query(name, "A"), server.address, timeout=30,
                           port=DNS_PORT)
    return dns.rcode.to_text(answer.rcode()), [str(one) for one in answer.answer]


@pytest.fixture(scope="module")
def server():
    with Cluster(size=1, extra=config()) as cluster:
        one = cluster.servers[0]
        # Sessions depend on it.
        wait_for("its node in the catalog", lambda: b"serfHealth" in request(
            one, "GET", "/v1/health/node/" + one.name)[1], 60)
        yield one


@pytest.mark.parametrize("method,path,body", REQUESTS, ids=[path for _, path, _ in REQUESTS])
def test_only_the_token_opens(server, method, path, body):
    assert request(server, method, path, body, {}) == (403, b"Permission denied")
    wrong = {"X-Consul-Token": TOKEN[:-1]}
    assert request(server, method, path, body, wrong) == (403, b"ACL not found")
    for headers, query in (({"X-Consul-Token": TOKEN}, ""), ({}, "?token=" + TOKEN),
                           ({"Authorization": "Bearer " + TOKEN}, "")):
        status = request(server, method, path + query, body, headers)[0]
        assert status in (200, 404), (headers, query)


def test_who_leads_is_no_secret(server):
    assert request(server, "GET", "/v1/status/leader", headers={})[0] == 200


def test_dns_shows_nothing_but_addresses(server):
    body = json.dumps({"Node": "n", "Address": "10.9.0.1", "Service": {"Service": "s"}})
    assert request(server, "PUT", "/v1/catalog/register", body)[0] == 200
    assert lookup(server, "n.node.consul") == ("NXDOMAIN", [])
    assert lookup(server, "s.service.consul") == ("NXDOMAIN", [])
    assert lookup(server, "0a090001.addr.consul")[0] == "NOERROR"


def test_a_default_token_opens_what_has_none():
    with Cluster(size=1, extra=config(default=TOKEN)) as cluster:
        one = cluster.servers[0]
        assert request(one, "PUT", "/v1/kv/a", "x", {})[0] == 200
        body = json.dumps({"Node": "n", "Address": "10.9.0.1"})
        assert request(one, "PUT", "/v1/catalog/register", body, {})[0] == 200
        assert lookup(one, "n.node.consul")[0] == "NOERROR"
        assert request(one, "GET", "/v1/kv/a", None, {"X-Consul-Token": "x"})[0] == 403
