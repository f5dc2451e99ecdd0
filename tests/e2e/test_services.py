"""Services as the deployment defines them: several poolers of one replica, judged by one HTTP check each, found by SRV."""
import http.server
import json
import os
import signal
import subprocess
import threading

from cluster import DNS_PORT, Cluster, wait_for

PORTS = (6432, 6433, 6434)


class Role(http.server.BaseHTTPRequestHandler):
    """Patroni's REST API as far as a health check sees it: 200 in the role, 503 out of it."""
    status = 200

    def do_GET(self):
        self.send_response(Role.status if self.path == "/replica" else 404)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def definitions(address, port):
    return {"services": [
        {"name": "db-replica", "id": "db-replica-%d" % number, "port": pooler,
         "checks": [{"name": "replica", "http": "http://%s:%d/replica" % (address, port),
                     "interval": "1s", "timeout": "30s"}]}
        for number, pooler in enumerate(PORTS)]}


def dig(server, *arguments):
    answer = subprocess.run(["dig", "+short", "+time=5", "+tries=3", "@" + server.address,
                             "-p", str(DNS_PORT)] + list(arguments),
                            capture_output=True, text=True, check=False)
    if answer.returncode != 0:  # No answer is not an empty one.
        raise OSError("dig: %s" % answer.stdout)
    return sorted(answer.stdout.split("\n")[:-1])


def srv(server, transport="+tcp"):
    return dig(server, transport, "SRV", "db-replica.service.consul")


def expected(server, ports=PORTS):
    return ["1 1 %d %s.node.dc1.consul." % (port, server.name) for port in ports]


def test_poolers_of_a_replica_are_found_by_srv_while_their_check_passes():
    cluster = Cluster(size=1)
    server = cluster.servers[0]
    role = http.server.ThreadingHTTPServer((server.address, 0), Role)
    threading.Thread(target=role.serve_forever, daemon=True).start()
    Role.status = 200
    cluster.extra.update(definitions(server.address, role.server_port))
    try:
        cluster.start()
        wait_for("all poolers by TCP", lambda: srv(server) == expected(server), 60)
        wait_for("all poolers by UDP", lambda: srv(server, "+notcp") == expected(server), 60)
        Role.status = 503
        wait_for("none while the role is lost", lambda: srv(server) == [], 60)
        Role.status = 200
        wait_for("all poolers again", lambda: srv(server) == expected(server), 60)

        # A service of a client survives a restart; one that left the configuration goes on reload.
        assert server.request("PUT", "/v1/agent/service/register", json.dumps(
            {"name": "kept", "port": 1234}))[0] == 200
        wait_for("the registered service", lambda: dig(server, "SRV", "kept.service.consul"), 60)
        server.stop()
        server.start()
        cluster.wait_leader()
        wait_for("the service after a restart",
                 lambda: dig(server, "SRV", "kept.service.consul") ==
                 ["1 1 1234 %s.node.dc1.consul." % server.name], 60)
        cluster.extra["services"] = cluster.extra["services"][:1]
        with open(os.path.join(cluster.dir, server.name + ".json"), "w", encoding="utf-8") as file:
            json.dump(server.config(), file)
        server.process.send_signal(signal.SIGHUP)
        wait_for("the reloaded definitions", lambda: srv(server) == expected(server, PORTS[:1]), 60)
    finally:
        role.shutdown()
        cluster.close()
