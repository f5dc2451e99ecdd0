"""The DNS clients and caches that people put before us: each finds what is registered, follows a
failover, and gets large answers whole."""
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest

from cluster import DNS_PORT, HTTP_PORT, ROOT, SERF_PORT, SERVER_PORT, Cluster, wait_for

WIDE = 100
# What waits for a leader gives up soon.
QUICK = {"performance": {"raft_multiplier": 5, "rpc_hold_timeout": "4s"}}
MASTER = "master.pg.service.consul"
CARES_PROGRAM = r"""
#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/select.h>
static void done(void *arg, int status, int timeouts, unsigned char *answer, int size)
{
    struct ares_srv_reply *list, *one;
    (void)arg; (void)timeouts;
    if (status != ARES_SUCCESS || ares_parse_srv_reply(answer, size, &list) != ARES_SUCCESS) {
        printf("failed %s\n", ares_strerror(status));
        return;
    }
    for (one = list; one != NULL; one = one->next) printf("%s %u\n", one->host, one->port);
    ares_free_data(list);
}
int main(int argc, char **argv)
{
    ares_channel channel;
    if (argc != 3 || ares_library_init(ARES_LIB_INIT_ALL) != 0 || ares_init(&channel) != 0 ||
        ares_set_servers_ports_csv(channel, argv[1]) != 0) return 2;
    ares_query(channel, argv[2], 1, 33, done, NULL);
    for (;;) {
        fd_set in, out;
        struct timeval most = {10, 0}, wait, *w;
        FD_ZERO(&in); FD_ZERO(&out);
        int count = ares_fds(channel, &in, &out);
        if (count == 0) break;
        w = ares_timeout(channel, &most, &wait);
        select(count, &in, &out, NULL, w);
        ares_process(channel, &in, &out);
    }
    ares_destroy(channel);
    return 0;
}
"""

# What PostgreSQL's and other programs do on Alpine: prints each address once.
ADDRESSES_PROGRAM = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list, *one;
    int rc = argc == 2 ? getaddrinfo(argv[1], "5432", &hints, &list) : EAI_FAIL;
    if (rc != 0) {
        printf("%s\n", gai_strerror(rc));
        return 1;
    }
    for (one = list; one != NULL; one = one->ai_next) {
        char text[64];
        getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
        puts(text);
    }
    freeaddrinfo(list);
    return 0;
}
"""
# Its package would take /etc/resolv.conf over, so tests/run.sh only unpacks it.
UNPACKED = os.path.join(ROOT, "build", "unpacked")
# systemd-resolved with a user, a configuration and a /run of its own; there is no bus to wait for.
RESOLVED_SCRIPT = r"""
cd "$1" && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/resolve /etc/systemd &&
chown 996:996 /run/systemd/resolve && mount --bind passwd /etc/passwd &&
mount --bind group /etc/group && mount -t tmpfs tmpfs /etc/systemd &&
cp resolved.conf /etc/systemd/ && chmod 644 /etc/systemd/resolved.conf &&
LD_LIBRARY_PATH=$3 exec "$2"
"""


def register(server, node, address, service, tags=(), port=5432, **more):
    body = {"Node": node, "Address": address,
            "Service": {"Service": service, "Tags": list(tags), "Port": port, **more}}
    status, _, text = server.request("PUT", "/v1/catalog/register", json.dumps(body))
    assert status == 200, text


def set_master(server, address):
    register(server, "pg", address, "pg", ["master"])


@pytest.fixture(scope="module")
def server():
    with Cluster(size=1, extra={"dns_config": {"service_ttl": {"kept": "30s"}}}) as cluster:
        one = cluster.servers[0]
        for i in range(1, WIDE + 1):
            register(one, "n%d" % i, "10.7.0.%d" % i, "wide", port=6000 + i)
        register(one, "n1", "10.7.0.1", "kept")
        yield one


def run(*command, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def free_port(address="127.0.0.1"):
    """None that the kernel gives to clients: one of those could have it by the time that it is used."""
    for _ in range(100):
        port = random.randint(20000, 28000)
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((address, port))
                udp.bind((address, port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


@contextlib.contextmanager
def daemon(command, address, port, path):
    """Runs until it answers DNS at all; its output goes to `path`."""
    with open(path, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        def answers():
            assert process.poll() is None, open(path, encoding="utf-8").read()
            try:
                return dns.query.udp(dns.message.make_query("n1.node.consul", "A"), address,
                                     timeout=1, port=port)
            except dns.exception.Timeout:
                return None
        wait_for(command[0] + " answers", answers, 60)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def dnsmasq(server, address="127.0.0.1", port=None):
    port = port or free_port(address)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "log")
        command = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                   "--user=root", "--bind-interfaces", "--listen-address=" + address,
                   "--port=%d" % port, "--server=/consul/%s#%d" % (server.address, DNS_PORT),
                   "--log-queries", "--log-facility=-", "--pid-file="]
        with daemon(command, address, port, path):
            yield port, lambda: open(path, encoding="utf-8").read()


@contextlib.contextmanager
def unbound(server):
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "unbound.conf")
        with open(path, "w", encoding="ascii") as file:
            file.write("""server:
  interface: 127.0.0.1
  port: %d
  username: ""
  chroot: ""
  directory: "%s"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  do-not-query-localhost: no
  module-config: "iterator"
  domain-insecure: "consul"
  local-zone: "consul." nodefault
stub-zone:
  name: "consul"
  stub-addr: %s@%d
""" % (port, folder, server.address, DNS_PORT))
        with daemon(["unbound", "-d", "-c", path], "127.0.0.1", port, os.path.join(folder, "log")):
            yield port


def ask(address, port, name, kind, tcp=False):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [address], port, 30
    resolver.cache = None
    return resolver.resolve(name, kind, tcp=tcp)


def addresses(address, port, name=MASTER):
    return sorted(record.address for record in ask(address, port, name, "A"))


def test_dig_and_drill_find_the_master_and_follow_it(server):
    for address in ("10.8.0.1", "10.8.0.2"):
        set_master(server, address)
        at = "@" + server.address
        for more in (["+notcp"], ["+tcp"], ["+noedns"], ["+bufsize=512"], ["+subnet=192.0.2.0/24"],
                     ["+norecurse"], ["+cookie"], ["+dnssec"]):
            assert run("dig", at, "-p", str(DNS_PORT), "+short", MASTER, *more).split() == [address]
        text = run("drill", "-p", str(DNS_PORT), MASTER, at)
        assert "rcode: NOERROR" in text and address in text


def test_dig_has_nothing_to_complain_about(server):
    set_master(server, "10.8.0.3")
    for name, kind in ((MASTER, "A"), ("pg.service.consul", "SRV"), ("consul", "SOA"),
                       ("none.service.consul", "A"), ("n1.node.consul", "ANY")):
        text = run("dig", "@" + server.address, "-p", str(DNS_PORT), name, kind, "+norecurse")
        assert "WARNING" not in text and "malformed" not in text and "Got bad" not in text, text


def test_srv_over_tcp_has_all_instances(server):
    found = {(record.port, str(record.target))
             for record in ask(server.address, DNS_PORT, "wide.service.consul", "SRV", tcp=True)}
    assert found == {(6000 + i, "n%d.node.dc1.consul." % i) for i in range(1, WIDE + 1)}
    lines = run("dig", "@" + server.address, "-p", str(DNS_PORT), "+tcp", "+short",
                "wide.service.consul", "SRV").split("\n")
    assert len([line for line in lines if line]) == WIDE
    text = run("drill", "-t", "-p", str(DNS_PORT), "wide.service.consul", "@" + server.address,
               "SRV")
    assert len(re.findall(r"^wide\.service\.consul\.\s+0\s+IN\s+SRV", text, re.M)) == WIDE


def srv_by_c_ares(server):
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "a.c"), os.path.join(folder, "a")
        with open(source, "w", encoding="ascii") as file:
            file.write(CARES_PROGRAM)
        run("cc", "-w", "-o", program, source, "-lcares")
        text = run(program, "%s:%d" % (server.address, DNS_PORT), "wide.service.consul")
    return [line for line in text.split("\n") if line]


def test_c_ares_as_a_stub_reads_srv(server):
    hosts = srv_by_c_ares(server)
    assert len(hosts) == 3  # the limit for UDP without EDNS
    assert all(re.fullmatch(r"n\d+\.node\.dc1\.consul \d+", line) for line in hosts), hosts


def test_dnsmasq_in_front_follows_the_master(server):
    with dnsmasq(server) as (port, _):
        for address in ("10.8.1.1", "10.8.1.2", "10.8.1.3"):
            set_master(server, address)
            assert addresses("127.0.0.1", port) == [address]
        answer = ask("127.0.0.1", port, "wide.service.consul", "SRV", tcp=True)
        assert len(list(answer)) == WIDE


def test_dnsmasq_caches_what_may_be_kept_and_nothing_else():
    """Some releases of dnsmasq keep only answers that have RA set; with advertise_ra all keep."""
    config = {"dns_config": {"service_ttl": {"kept": "30s"}, "advertise_ra": True}}
    with Cluster(size=1, extra=config) as cluster:
        one = cluster.servers[0]
        register(one, "n1", "10.7.0.1", "kept")
        answer = dns.query.udp(dns.message.make_query("kept.service.consul", "A"), one.address,
                               timeout=30, port=DNS_PORT)
        assert answer.flags & dns.flags.RA
        with dnsmasq(one) as (port, log):
            for _ in range(3):
                assert addresses("127.0.0.1", port, "kept.service.consul") == ["10.7.0.1"]
            wait_for("its saying so", lambda: "cached kept.service.consul is 10.7.0.1" in log(), 60)
            # What has no time to live is never kept, so that a failover is seen at once.
            for address in ("10.8.1.1", "10.8.1.2"):
                set_master(one, address)
                assert addresses("127.0.0.1", port) == [address]


def test_unbound_in_front_follows_the_master(server):
    with unbound(server) as port:
        for address in ("10.8.2.1", "10.8.2.2"):
            set_master(server, address)
            assert addresses("127.0.0.1", port) == [address]
        with pytest.raises(dns.resolver.NXDOMAIN):
            ask("127.0.0.1", port, "none.service.consul", "A")


def test_caches_get_all_instances_when_answers_tell_that_they_are_cut():
    """A resolver asks over UDP first, whatever it was asked over: only with TC it asks again."""
    with Cluster(size=1, extra={"dns_config": {"enable_truncate": True}}) as cluster:
        one = cluster.servers[0]
        for i in range(1, WIDE + 1):
            register(one, "n%d" % i, "10.7.0.%d" % i, "wide", port=6000 + i)
        with unbound(one) as port:
            answer = ask("127.0.0.1", port, "wide.service.consul", "SRV", tcp=True)
            assert len(list(answer)) == WIDE
        assert len(srv_by_c_ares(one)) == WIDE


def need_mounts():
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False,
                                           stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("needs to be root, for port 53 and files of its own below /etc")


@contextlib.contextmanager
def resolv_conf(address):
    """Yields a function that runs a command with `address` as its only name server."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        os.chmod(conf.name, 0o644)
        conf.write("nameserver %s\n" % address)
        conf.flush()
        yield lambda *command: run("unshare", "-m", "sh", "-c",
                                   'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"',
                                   "sh", conf.name, *command)


def test_glibc_through_dnsmasq_follows_the_master(server):
    need_mounts()
    address = server.address.rpartition(".")[0] + ".53"
    with dnsmasq(server, address, 53), resolv_conf(address) as run_here:
        for master in ("10.8.3.1", "10.8.3.2"):
            set_master(server, master)
            text = run_here("getent", "ahostsv4", MASTER)
            assert {line.split()[0] for line in text.splitlines()} == {master}
        # Without EDNS three addresses of a hundred; glibc sorts them and takes them all.
        text = run_here("getent", "ahostsv4", "wide.service.consul")
        assert len({line.split()[0] for line in text.splitlines()}) == 3


@pytest.fixture(name="musl", scope="module")
def musl_program():
    with tempfile.TemporaryDirectory() as folder:
        source, program = os.path.join(folder, "a.c"), os.path.join(folder, "a")
        with open(source, "w", encoding="ascii") as file:
            file.write(ADDRESSES_PROGRAM)
        run("musl-gcc", "-static", "-o", program, source)
        yield program


def test_musl_through_dnsmasq_follows_the_master(server, musl):
    need_mounts()
    address = server.address.rpartition(".")[0] + ".54"
    with dnsmasq(server, address, 53), resolv_conf(address) as run_here:
        for master in ("10.8.3.3", "10.8.3.4"):
            set_master(server, master)
            assert run_here(musl, MASTER).split() == [master]
        assert len(set(run_here(musl, "wide.service.consul").split())) == 3


def test_resolvers_of_the_c_libraries_ask_us_directly(musl):
    """musl and glibc ask for A and AAAA at once; where one has no records, the other counts."""
    need_mounts()
    ports = {"http": HTTP_PORT, "dns": 53, "server": SERVER_PORT, "serf_lan": SERF_PORT,
             "serf_wan": -1}
    recursor = free_port()
    extra = {"ports": ports, "recursors": ["127.0.0.1:%d" % recursor]}
    with Cluster(size=1, extra=extra) as cluster:
        one = cluster.servers[0]
        register(one, "n6", "fd00::6", "six")
        register(one, "out", "db.example.org", "out")
        with resolv_conf(one.address) as run_here, \
                recursor_with(recursor, "--host-record=db.example.org,192.0.2.7"):
            for master in ("10.8.3.5", "10.8.3.6"):
                set_master(one, master)
                assert run_here(musl, MASTER).split() == [master]
                assert run_here("getent", "ahosts", MASTER).split()[0] == master
            assert run_here(musl, "six.service.consul").split() == ["fd00::6"]
            assert run_here("getent", "ahostsv6", "six.service.consul").split()[0] == "fd00::6"
            # Outside the domain, and a name in it that leads out, to A also for AAAA: musl has it
            # twice then.
            for name in ("db.example.org", "out.service.consul"):
                assert set(run_here(musl, name).split()) == {"192.0.2.7"}
                assert run_here("getent", "ahostsv4", name).split()[0] == "192.0.2.7"
            for command in ((musl,), ("getent", "ahosts")):
                with pytest.raises(AssertionError):
                    run_here(*command, "none.service.consul")


@contextlib.contextmanager
def recursor_with(port, *records):
    """dnsmasq as one that knows `records` of example.org alone."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                   "--user=root", "--bind-interfaces", "--listen-address=127.0.0.1",
                   "--port=%d" % port, "--log-facility=-", "--pid-file=", "--local=/example.org/",
                   *records]
        with daemon(command, "127.0.0.1", port, os.path.join(folder, "log")):
            yield


def test_names_outside_the_domain_come_from_a_recursor_as_they_are():
    """The first recursor is not there. What does not fit says so, and is whole over TCP."""
    ports = [free_port(), free_port()]
    records = ["--host-record=www.example.org,192.0.2.10,2001:db8::10",
               "--srv-host=_db._tcp.example.org,www.example.org,5432,1,2",
               "--dns-rr=odd.example.org,65280,00ff41c00c",
               *("--txt-record=wide.example.org,%03d%s" % (i, "x" * 200) for i in range(30))]
    extra = {"recursors": ["127.0.0.1:%d" % port for port in ports]}
    with Cluster(size=1, extra=extra) as cluster, recursor_with(ports[1], *records):
        address = cluster.servers[0].address
        for name, kind in (("www", "A"), ("wWw", "AAAA"), ("_db._tcp", "SRV"), ("odd", "TYPE65280"),
                           ("wide", "TXT"), ("www", "MX"), ("none", "A")):
            for options in ({}, {"use_edns": 0, "payload": 1232}, {"use_edns": 0, "payload": 4096}):
                question = dns.message.make_query(name + ".example.org", kind, **options)
                for ask_it in (dns.query.udp, dns.query.tcp):
                    ours = ask_it(question, address, timeout=30, port=DNS_PORT)
                    theirs = ask_it(question, "127.0.0.1", timeout=30, port=ports[1])
                    assert ours == theirs and ours.flags == theirs.flags, (ours, theirs)
                    if name == "wide":
                        cut = ask_it is dns.query.udp
                        assert bool(ours.flags & dns.flags.TC) is cut
                        assert cut or len(ours.answer[0]) == 30
        text = run("dig", "@" + address, "-p", str(DNS_PORT), "+short", "wide.example.org", "TXT")
        assert len(text.splitlines()) == 30  # dig asks again by itself


def test_a_recursor_may_be_a_host_name():
    """It is looked up while the server runs; until then, and only then, it is as if not there."""
    port = free_port()
    extra = {"recursors": ["localhost:%d" % port]}
    with Cluster(size=1, extra=extra) as cluster, \
            recursor_with(port, "--host-record=www.example.org,192.0.2.10"):
        server = cluster.servers[0]
        question = dns.message.make_query("www.example.org", "A")

        def answer():
            return dns.query.udp(question, server.address, timeout=30, port=DNS_PORT)
        wait_for("the recursor's address", lambda: answer().rcode() != dns.rcode.REFUSED, 60)
        for _ in range(3):
            assert [str(item) for item in answer().answer[0]] == ["192.0.2.10"]
            assert server.request("PUT", "/v1/agent/reload")[0] == 200


@contextlib.contextmanager
def resolved(server):
    program = os.path.join(UNPACKED, "lib/systemd/systemd-resolved")
    assert os.path.exists(program), "tests/run.sh unpacks what this test needs"
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for file, line in (("passwd", "systemd-resolve:x:996:996::/:/usr/sbin/nologin\n"),
                           ("group", "systemd-resolve:x:996:\n")):
            with open("/etc/" + file, encoding="utf-8") as old, \
                    open(os.path.join(folder, file), "w", encoding="utf-8") as new:
                new.write(line + "".join(one for one in old if ":996:" not in one
                                         and not one.startswith("systemd-resolve:")))
            os.chmod(os.path.join(folder, file), 0o644)
        with open(os.path.join(folder, "resolved.conf"), "w", encoding="ascii") as file:
            file.write("""[Resolve]
DNS=%s:%d
FallbackDNS=
Domains=~consul
DNSSEC=no
LLMNR=no
MulticastDNS=no
ReadEtcHosts=no
DNSStubListener=no
DNSStubListenerExtra=127.0.0.1:%d
""" % (server.address, DNS_PORT, port))
        command = ["unshare", "-m", "sh", "-c", RESOLVED_SCRIPT, "sh", folder, program,
                   os.path.join(UNPACKED, "usr/lib/x86_64-linux-gnu/systemd")]
        with daemon(command, "127.0.0.1", port, os.path.join(folder, "log")):
            yield port


def test_systemd_resolved_in_front_follows_the_master(server):
    need_mounts()
    with resolved(server) as port:
        for address in ("10.8.8.1", "10.8.8.2", "10.8.8.3"):
            set_master(server, address)
            assert addresses("127.0.0.1", port) == [address]
        for tcp in (False, True):
            answer = ask("127.0.0.1", port, "kept.service.consul", "SRV", tcp=tcp)
            assert [str(one.target) for one in answer] == ["n1.node.dc1.consul."]
        with pytest.raises(dns.resolver.NXDOMAIN):
            ask("127.0.0.1", port, "none.service.consul", "A")
        # A name that was not there is there as soon as it is registered.
        register(server, "late", "10.8.8.9", "late%d" % port)
        assert addresses("127.0.0.1", port, "late%d.service.consul" % port) == ["10.8.8.9"]


def test_a_reload_changes_settings_but_no_names():
    """Domains and datacenter are what the server began with until it starts anew, as with Consul."""
    with Cluster(size=1, extra={"domain": "one.example"}) as cluster:
        one = cluster.servers[0]
        node = one.name + ".node."
        path = os.path.join(cluster.dir, one.name + ".json")

        def answer(name):
            return dns.query.udp(dns.message.make_query(name, "A"), one.address, 30, DNS_PORT)

        wait_for("the server's own name", lambda: answer(node + "dc1.one.example").answer, 60)
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        config.update(domain="two.example", alt_domain="three.example", datacenter="dc2",
                      dns_config={"node_ttl": "77s"})
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        assert one.request("PUT", "/v1/agent/reload")[0] == 200
        assert answer(node + "dc1.one.example").answer[0].ttl == 77
        assert answer(node + "dc2.one.example").rcode() == dns.rcode.NXDOMAIN
        for domain in ("two.example", "three.example"):
            assert answer(node + domain).rcode() == dns.rcode.REFUSED


def test_dns_goes_on_without_a_leader():
    with Cluster(size=3) as cluster:
        one = cluster.wait_leader()
        register(one, "pg", "10.8.4.1", "pg", ["master"])
        cluster.wait_equal()
        last = cluster.servers[0]
        for other in cluster.servers[1:]:
            other.kill()
        wait_for("no leader", lambda: last.request("GET", "/v1/kv/x", timeout=15)[0] == 500, 60)
        for _ in range(20):
            assert addresses(last.address, DNS_PORT) == ["10.8.4.1"]


def test_without_allow_stale_every_server_answers_as_the_leader():
    """What a write has told is seen by the next question to any server; without a leader nobody
    answers, and says so in time."""
    with Cluster(size=3, extra={**QUICK, "dns_config": {"allow_stale": False}}) as cluster:
        leader = cluster.wait_leader()
        cluster.wait_members()
        others = [one for one in cluster.servers if one is not leader]
        for i in range(100):
            set_master(leader, "10.8.6.%d" % i)
            for one in others:
                assert addresses(one.address, DNS_PORT) == ["10.8.6.%d" % i]
        for other in cluster.servers[1:]:
            other.kill()
        query = dns.message.make_query(MASTER, "A")

        def fails():
            answer = dns.query.udp(query, cluster.servers[0].address, timeout=30, port=DNS_PORT)
            return answer.rcode() == dns.rcode.SERVFAIL
        wait_for("no answer without a leader", fails, 60)


def test_only_answers_that_are_too_old_are_kept_back():
    with Cluster(size=3, extra={**QUICK, "dns_config": {"max_stale": "2s"}}) as cluster:
        set_master(cluster.wait_leader(), "10.8.7.1")
        cluster.wait_equal()
        last = cluster.servers[0]
        assert addresses(last.address, DNS_PORT) == ["10.8.7.1"]
        for other in cluster.servers[1:]:
            other.kill()
        query = dns.message.make_query(MASTER, "A")
        seen = []

        def fails():
            answer = dns.query.udp(query, last.address, timeout=30, port=DNS_PORT)
            seen.append(answer.rcode())
            return answer.rcode() == dns.rcode.SERVFAIL
        wait_for("an end of stale answers", fails, 60)
        assert set(seen[:-1]) <= {dns.rcode.NOERROR}
        # With a quorum again it is as young as can be.
        cluster.servers[1].start()
        wait_for("answers again", lambda: not fails(), 60)


def test_answers_read_the_same_by_an_independent_decoder(server):
    """Questions of many shapes: each answer can be read, and says again what was read."""
    set_master(server, "10.8.5.1")
    names = [MASTER, "wide.service.consul", "n1.node.consul", "consul", "x.consul", "none.consul",
             "0a070001.addr.consul", "1.0.7.10.in-addr.arpa", "_wide._tcp.service.consul",
             "MaStEr.pG.SeRvIcE.cOnSuL", "server-1.node.dc1.consul", "www.example.org", ".",
             "a" * 63 + ".service.consul", "\\000\\255.node.consul"]
    for name in names:
        for kind in ("A", "AAAA", "SRV", "TXT", "ANY", "SOA", "NS", "PTR", "MX", "TYPE65280",
                     "HTTPS"):
            for options in ({}, {"use_edns": 0, "payload": 512}, {"use_edns": 0, "payload": 1232},
                            {"use_edns": 0, "payload": 4096, "options": [
                                dns.edns.ECSOption("192.0.2.77", 20)]}):
                question = dns.message.make_query(name, kind, **options)
                answer = dns.query.udp(question, server.address, timeout=30, port=DNS_PORT,
                                       raise_on_truncation=False)
                assert dns.message.from_wire(answer.to_wire(max_size=65535)) == answer
                size = len(question.to_wire())
                limit = max(512, options.get("payload", 0))
                assert len(answer.to_wire(max_size=65535)) <= max(limit, size)
                whole = dns.query.tcp(question, server.address, timeout=30, port=DNS_PORT)
                assert whole.rcode() == answer.rcode()
                assert whole.flags & ~dns.flags.TC == answer.flags & ~dns.flags.TC


assert shutil.which("dig"), "tests/run.sh installs what these tests need"
