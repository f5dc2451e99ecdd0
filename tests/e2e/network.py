"""Five servers in five network namespaces around a bridge in a sixth, which the clients live in. Links are cut with `ip link`,
single directions with blackhole routes: what every kernel has. Where it has them, nftables drops packets at random, and a
token bucket makes links slow."""
import ctypes
import random
import subprocess

import cluster

CLONE_NEWNET = 0x40000000
SUBNET = "10.213.77."  # inside of our own namespaces only


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError("%s: %s" % (" ".join(arguments), done.stderr.strip()))


def enter(namespace):
    """Moves the calling thread into a network namespace (an open file): the sockets that it makes from now on are there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class NetworkServer(cluster.Server):
    def __init__(self, owner, number):
        super().__init__(owner, number)
        self.address = SUBNET + str(number)
        self.namespace = "%s-%d" % (owner.prefix, number)

    def command(self, path):
        return ["ip", "netns", "exec", self.namespace] + super().command(path)


class NetworkCluster(cluster.Cluster):
    def __init__(self, size=5):
        self.prefix = "pc%d" % random.randint(10000, 99999)
        self.hub = self.prefix + "-hub"
        super().__init__(size, server_class=NetworkServer)
        self.blocked = set()
        self.faults = {"lossy", "slow"}  # that this kernel can do
        self.home = open("/proc/thread-self/ns/net", "rb")
        self.inside = None

    def enter(self):
        """Moves the calling thread to where the clients live."""
        enter(self.inside)

    def link(self, server):
        return "v" + server.namespace[2:]

    def build(self):
        run("ip", "netns", "add", self.hub)
        run("ip", "-n", self.hub, "link", "set", "lo", "up")
        run("ip", "-n", self.hub, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.hub, "addr", "add", SUBNET + "254/24", "dev", "br0")
        run("ip", "-n", self.hub, "link", "set", "br0", "up")
        for server in self.servers:
            link = self.link(server)
            run("ip", "netns", "add", server.namespace)
            run("ip", "-n", server.namespace, "link", "set", "lo", "up")
            run("ip", "-n", self.hub, "link", "add", link, "type", "veth", "peer", "name", "eth0",
                "netns", server.namespace)
            run("ip", "-n", self.hub, "link", "set", link, "master", "br0", "up")
            run("ip", "-n", server.namespace, "addr", "add", server.address + "/24", "dev", "eth0")
            run("ip", "-n", server.namespace, "link", "set", "eth0", "up")

    def start(self):
        self.build()
        self.inside = open("/run/netns/" + self.hub, "rb")
        self.enter()
        super().start()

    def close(self, failed=False):
        try:
            super().close(failed)
        finally:
            enter(self.home)
            for name in [server.namespace for server in self.servers] + [self.hub]:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    # --- faults ---

    def cut(self, server):
        run("ip", "-n", self.hub, "link", "set", self.link(server), "down")

    def block(self, source, target):
        """Nothing of `source` reaches `target` any more; the other direction stays open."""
        if (source, target) not in self.blocked:
            run("ip", "-n", source.namespace, "route", "add", "blackhole", target.address + "/32")
            self.blocked.add((source, target))

    def worsen(self, kind, server):
        """Makes the server's link "lossy" (a packet in five is lost, either way) or "slow" (256 kbit/s out, a queue of a second).
        False: this kernel cannot."""
        loss = "table inet loss { chain %s { type filter hook %s priority 0; numgen random mod 5 == 0 drop; }; }"
        commands = {
            "lossy": [["nft", loss % (hook, hook)] for hook in ("input", "output")],
            "slow": [["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", "256kbit", "burst", "16kb", "latency", "1s"]],
        }[kind]
        try:
            for command in commands:
                run("ip", "netns", "exec", server.namespace, *command)
        except OSError:
            self.faults.discard(kind)
            return False
        return True

    def mend(self, server):
        for command in (["nft", "delete", "table", "inet", "loss"], ["tc", "qdisc", "del", "dev", "eth0", "root"]):
            subprocess.run(["ip", "netns", "exec", server.namespace] + command, capture_output=True, check=False)

    def heal(self):
        for server in self.servers:
            run("ip", "-n", self.hub, "link", "set", self.link(server), "up")
        for source, target in self.blocked:
            run("ip", "-n", source.namespace, "route", "del", "blackhole", target.address + "/32")
        self.blocked.clear()
