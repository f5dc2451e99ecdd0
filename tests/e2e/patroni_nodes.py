"""Real Patroni, PostgreSQL, dnsmasq and PgBouncer around a cluster of servers."""
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import time

import psycopg2

from cluster import DNS_PORT, HTTP_PORT, wait_for

SCOPE = "patroni"
USER, PASSWORD = "postgres", "secret"
REST_PORT = 8008


def pg_bin():
    base = "/usr/lib/postgresql"
    return os.path.join(base, sorted(os.listdir(base), key=float)[-1], "bin")


def free_port(addresses):
    """A port that is free on all of the addresses."""
    for port in range(15432, 16432):
        sockets = []
        try:
            for address in addresses:
                probe = socket.socket()
                sockets.append(probe)
                probe.bind((address, port))
            return port
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
    raise AssertionError("no free port")


class Node:
    """One Patroni with its PostgreSQL, talking to one server."""

    def __init__(self, group, number, server):
        self.group = group
        self.name = "pg%d" % number
        self.address = "%s%d" % (group.network, 100 + number)
        self.server = server
        self.dir = os.path.join(group.dir, self.name)
        self.log_path = os.path.join(group.dir, self.name + ".log")
        self.process = None

    def config(self):
        group = self.group
        return {
            "scope": SCOPE, "name": self.name, "namespace": "/service/",
            "restapi": {"listen": "%s:%d" % (self.address, REST_PORT),
                        "connect_address": "%s:%d" % (self.address, REST_PORT)},
            "consul": {"host": "%s:%d" % (self.server.address, HTTP_PORT),
                       "register_service": True, "service_check_interval": "2s"},
            "bootstrap": {
                "dcs": {"ttl": 20, "loop_wait": 2, "retry_timeout": 9,
                        "maximum_lag_on_failover": 1048576,
                        "synchronous_mode": True,
                        "postgresql": {"use_pg_rewind": True, "use_slots": True,
                                       "parameters": {"max_connections": 50,
                                                      "shared_buffers": "16MB",
                                                      "wal_keep_size": "128MB"}}},
                "initdb": [{"encoding": "UTF8"}, "data-checksums"],
                "pg_hba": ["host all all 127.0.0.0/8 md5",
                           "host replication all 127.0.0.0/8 md5"]},
            "postgresql": {
                "listen": "%s:%d" % (self.address, group.port),
                "connect_address": "%s:%d" % (self.address, group.port),
                "data_dir": os.path.join(self.dir, "data"), "bin_dir": pg_bin(),
                "pgpass": os.path.join(self.dir, "pgpass"),
                "authentication": {
                    "superuser": {"username": USER, "password": PASSWORD},
                    "replication": {"username": "replicator", "password": PASSWORD},
                    "rewind": {"username": "rewinder", "password": PASSWORD}},
                "parameters": {"unix_socket_directories": self.dir}},
            "tags": {}}

    def start(self):
        os.makedirs(self.dir, exist_ok=True)
        os.chmod(self.dir, 0o700)
        path = os.path.join(self.group.dir, self.name + ".yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.config(), file)  # JSON is YAML
        user = pwd.getpwnam("postgres")
        os.chown(self.dir, user.pw_uid, user.pw_gid)
        with open(self.log_path, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/patroni", path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.dir, user="postgres", group="postgres", extra_groups=[],
                env={"PATH": "/usr/bin:/bin", "HOME": self.dir, "LC_ALL": "C.UTF-8"},
                start_new_session=True)

    def postmaster(self):
        """None when there is none: the file may tell of one that is dead, and whose number another process has."""
        data = os.path.realpath(os.path.join(self.dir, "data"))
        try:
            with open(os.path.join(data, "postmaster.pid"), encoding="utf-8") as file:
                pid = int(file.readline())
            return pid if os.readlink("/proc/%d/cwd" % pid) == data else None
        except (OSError, ValueError):
            return None

    def kill(self):
        """kill -9 of Patroni and of every process of its PostgreSQL: the host is gone."""
        postmaster = self.postmaster()
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None
        if postmaster is not None:
            children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(postmaster)],
                                      capture_output=True, text=True, check=False).stdout.split()
            for pid in [postmaster] + [int(child) for child in children]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def connect(self, seconds=3):
        connection = psycopg2.connect(host=self.address, port=self.group.port, user=USER,
                                      password=PASSWORD, dbname="postgres",
                                      connect_timeout=seconds)
        connection.autocommit = True
        return connection

    def is_primary(self, seconds=3):
        try:
            connection = self.connect(seconds)
        except psycopg2.Error:
            return False
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT NOT pg_is_in_recovery()")
                return cursor.fetchone()[0]
        except psycopg2.Error:
            return False
        finally:
            connection.close()

    def timeline(self):
        with self.connect(30) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT timeline_id FROM pg_control_checkpoint()")
            return cursor.fetchone()[0]

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()


class Group:
    """Three Patroni nodes, each on another server, with dnsmasq and PgBouncer in front."""

    def __init__(self, cluster, servers):
        self.cluster = cluster
        self.network = cluster.network
        self.dir = cluster.dir
        self.nodes = [Node(self, number + 1, server) for number, server in enumerate(servers)]
        self.port = free_port([node.address for node in self.nodes])
        self.dns_address = cluster.network + "53"
        self.bouncer_address = cluster.network + "64"
        self.helpers = []

    def start(self):
        for node in self.nodes:
            node.start()
        self.start_dnsmasq()
        self.start_pgbouncer()

    def close(self, failed=False):
        for node in self.nodes:
            node.kill()
        for process in self.helpers:
            process.kill()
            process.wait(60)
        if failed:
            for node in self.nodes:
                if os.path.exists(node.log_path):
                    print("==== %s\n%s" % (node.name, "\n".join(node.log().splitlines()[-40:])))

    def start_dnsmasq(self):
        arguments = ["/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv",
                     "--no-hosts", "--all-servers", "--port=53", "--listen-address=" + self.dns_address,
                     "--bind-interfaces", "--user=root", "--pid-file=", "--log-facility=" + os.path.join(self.dir, "dnsmasq.log")]
        for server in self.cluster.servers:
            arguments.append("--server=/consul/%s#%d" % (server.address, DNS_PORT))
        self.helpers.append(subprocess.Popen(arguments))

    def start_pgbouncer(self):
        base = os.path.join(self.dir, "pgbouncer")
        os.makedirs(base, exist_ok=True)
        with open(os.path.join(base, "resolv.conf"), "w", encoding="utf-8") as file:
            file.write("nameserver %s\noptions timeout:1 attempts:2\n" % self.dns_address)
        with open(os.path.join(base, "users.txt"), "w", encoding="utf-8") as file:
            file.write('"%s" "%s"\n' % (USER, PASSWORD))
        with open(os.path.join(base, "pgbouncer.ini"), "w", encoding="utf-8") as file:
            file.write("""[databases]
postgres = host=master.patroni.service.consul port=%d dbname=postgres
[pgbouncer]
listen_addr = %s
listen_port = 6432
unix_socket_dir =
auth_type = md5
auth_file = %s/users.txt
resolv_conf = %s/resolv.conf
dns_max_ttl = 2
dns_nxdomain_ttl = 1
server_login_retry = 1
server_connect_timeout = 3
query_timeout = 10
query_wait_timeout = 10
pool_mode = transaction
logfile = %s/pgbouncer.log
""" % (self.port, self.bouncer_address, base, base, base))
        user = pwd.getpwnam("postgres")
        for name in [base] + [os.path.join(base, name) for name in os.listdir(base)]:
            os.chown(name, user.pw_uid, user.pw_gid)
        self.helpers.append(subprocess.Popen(
            ["/usr/sbin/pgbouncer", "-q", os.path.join(base, "pgbouncer.ini")], user="postgres",
            group="postgres", extra_groups=[], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL))

    # --- looking ---

    def live(self):
        return [node for node in self.nodes if node.process is not None]

    def primaries(self, seconds=3):
        """Those that say so within so many seconds."""
        return [node for node in self.live() if node.is_primary(seconds)]

    def wait_primary(self, seconds, other_than=None):
        def one():
            found = self.primaries()
            return found[0] if len(found) == 1 and found[0] is not other_than else None
        return wait_for("one primary", one, seconds)

    def wait_replicas(self, count, seconds):
        """Until `count` members stream, one of them synchronously."""
        def streaming():
            primary = self.primaries()[0]
            with primary.connect() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'")
                states = [row[0] for row in cursor.fetchall()]
                return len(states) >= count and "sync" in states
        return wait_for("%d replicas" % count, streaming_or_false(streaming), seconds)

    def resolve(self, name="master.patroni.service.consul", server=None):
        """Addresses that dnsmasq gives, or a server. The former asks all servers at once: else it stays with one that
        has died while dig asks again, each time from another port."""
        at = ["@" + self.dns_address] if server is None else ["@" + server.address, "-p", str(DNS_PORT)]
        answer = subprocess.run(["dig", "+short", "+time=1", "+tries=3", *at, name],
                                capture_output=True, text=True, check=False).stdout
        return [line for line in answer.split() if re.fullmatch(r"[0-9.]+", line)]

    def wait_dns(self, node, seconds):
        wait_for("DNS to name %s" % node.address, lambda: self.resolve() == [node.address], seconds)

    def bouncer(self):
        connection = psycopg2.connect(host=self.bouncer_address, port=6432, user=USER,
                                      password=PASSWORD, dbname="postgres", connect_timeout=5)
        connection.autocommit = True
        return connection


def streaming_or_false(check):
    def guarded():
        try:
            return check()
        except (psycopg2.Error, IndexError):
            return False
    return guarded


class Inserter:
    """Inserts rising numbers through PgBouncer, and remembers what was acknowledged and when."""

    def __init__(self, group):
        import threading
        self.group = group
        self.acknowledged = []  # (number, time)
        self.errors = 0
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self):
        self.thread.start()

    def stop(self):
        self.ending.set()
        self.thread.join(30)

    def run(self):
        number, connection = 0, None
        while not self.ending.is_set():
            number += 1
            try:
                if connection is None:
                    connection = self.group.bouncer()
                with connection.cursor() as cursor:
                    cursor.execute("INSERT INTO acknowledged VALUES (%s)", (number,))
                self.acknowledged.append((number, time.monotonic()))
                time.sleep(0.02)
            except psycopg2.Error:
                self.errors += 1
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.1)

    def wait_progress(self, seconds):
        """Until an insert that begins now was acknowledged; returns how long it took."""
        before, start = len(self.acknowledged), time.monotonic()
        wait_for("an acknowledged insert", lambda: len(self.acknowledged) > before + 1, seconds)
        return time.monotonic() - start

    def check(self, node):
        acknowledged = [number for number, _ in self.acknowledged]  # Before the table is read: inserts go on.
        with node.connect(30) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT number FROM acknowledged")
            present = {row[0] for row in cursor.fetchall()}
        lost = [number for number in acknowledged if number not in present]
        assert not lost, "acknowledged inserts are lost: %r" % lost[:10]
