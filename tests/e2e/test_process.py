"""The process and what started it: streams that were closed, signals that were ignored or blocked, and
a second server by mistake."""
import json
import os
import signal
import subprocess
import sys

from cluster import BINARY, PATIENT, Cluster, Server, wait_for

DEAF = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
os.execvp(sys.argv[1], sys.argv[1:])
"""


INTERFACES = """
set -e
ip link set lo up
for number in 0 1 2; do
    ip link add bridge$number type bridge
    ip link set bridge$number up
done
ip addr add 172.17.0.1/16 dev bridge0
ip addr add 10.0.0.5/24 dev bridge1
ip addr add 169.254.3.3/16 dev bridge2
ip addr add 198.18.0.5/24 dev bridge2
ip route add default via 10.0.0.1 dev bridge1
for name in Private Public; do
    "$0" agent -dev -client "{{ Get${name}IP }}x" || true # no address: it says which it was given
done
"""


class Streamless(Server):
    """Its parent closed the three standard streams."""

    def command(self, path):
        return ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"] + super().command(path)


class Deaf(Server):
    """Its parent ignored the end of children and blocked the signals that it is stopped with."""

    def command(self, path):
        return [sys.executable, "-c", DEAF] + super().command(path)


def test_an_address_by_template_is_of_the_default_route_and_no_link_s_own():
    """Symptom: {{ GetPrivateIP }} was that of the interface that had come first, a bridge of containers, and
    {{ GetPublicIP }} one of a link (169.254.0.0/16). Consul 1.8.7 takes 10.0.0.5, and none."""
    done = subprocess.run(["unshare", "-n", "sh", "-c", INTERFACES, BINARY], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    assert "invalid ip address: 10.0.0.5x" in done.stderr, done.stderr
    assert "{{ GetPublicIP }} finds no IPv4 address" in done.stderr, done.stderr


def test_closed_streams_are_not_taken_for_files():
    """Symptom: standard error closed, the log's lines went into data_dir/.lock, which was opened under
    its number."""
    with Cluster(size=1, server_class=Streamless) as cluster:
        server = cluster.servers[0]
        assert server.put("key", "value")
        streams = [os.readlink("/proc/%d/fd/%d" % (server.process.pid, fd)) for fd in range(3)]
        assert streams == ["/dev/null"] * 3
        assert server.stop() == 1
        assert os.path.getsize(os.path.join(server.data_dir, ".lock")) == 0


def test_signals_that_the_parent_ignored_or_blocked_work():
    """Symptom: with SIGCHLD ignored each script check was critical, however it ended."""
    with Cluster(size=1, extra={"enable_script_checks": True}, server_class=Deaf) as cluster:
        server = cluster.servers[0]
        check = {"Name": "script", "Args": ["true"], "Interval": "1s", "Status": "warning"}
        status, _, body = server.request("PUT", "/v1/agent/check/register", json.dumps(check))
        assert status == 200, body
        wait_for("a result", lambda: server.get_json("/v1/agent/checks")["script"]["Status"] !=
                 "warning", 60)
        assert server.get_json("/v1/agent/checks")["script"]["Status"] == "passing"
        assert server.stop() == 1


def test_a_second_server_leaves_the_first_ones_files_alone():
    """Symptom: one that was refused because data_dir is in use removed the pid file of the one that
    uses it."""
    with Cluster(size=1) as cluster:
        server = cluster.servers[0]
        pid_file = os.path.join(cluster.dir, "pid")
        server.stop()
        cluster.extra["pid_file"] = pid_file
        server.start()
        cluster.wait_leader()
        config = os.path.join(cluster.dir, server.name + ".json")
        second = subprocess.run(server.command(config), stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 1
        assert "in use by another process" in second.stderr
        with open(pid_file, encoding="utf-8") as file:
            assert int(file.read()) == server.process.pid
        assert server.stop() == 1
        assert not os.path.exists(pid_file)


def test_a_signal_right_behind_a_request_to_leave_does_not_cut_it_short():
    """As service managers do it: ExecStop= asks the server to leave, and as soon as that has its answer
    SIGTERM follows. Symptom: it was taken for the second signal, at which the process ends at once:
    the others went on counting with this server."""
    with Cluster(size=3, extra=PATIENT) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        server = next(server for server in cluster.servers if server is not leader)
        assert server.request("PUT", "/v1/agent/leave")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        servers = leader.get_json("/v1/operator/raft/configuration")["Servers"]
        assert server.name not in {peer["Node"] for peer in servers}
        members = leader.get_json("/v1/agent/members")
        assert {member["Name"]: member["Status"] for member in members}[server.name] == 3  # Left.


def test_a_disk_that_does_not_answer_does_not_keep_the_process():
    """A worker that hangs, here in opening a file whose name a pipe without a reader has. Symptom: at
    the end of an orderly stop the process waited for it for ever."""
    with Cluster(size=1) as cluster:
        server = cluster.servers[0]
        service = json.dumps({"Name": "service"})
        assert server.request("PUT", "/v1/agent/service/register", service)[0] == 200
        folder = os.path.join(server.data_dir, "services")
        name = wait_for("the file of the service", lambda: [
            name for name in os.listdir(folder) if "." not in name], 60)[0]
        os.mkfifo(os.path.join(folder, name + ".tmp"))
        assert server.request("PUT", "/v1/agent/service/register", service)[0] == 200
        assert server.stop(60) == 1
        assert "did not close" in server.log()
