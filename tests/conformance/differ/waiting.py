"""Sequences about indexes: what X-Consul-Index says after writes, deletions and refusals, and which
blocking queries a write wakes. All indexes are compared, by rank, not only those of keys. A step with
`start` asks in the background, one with `join` tells what came of it within a moment. And sequences in
which time passes: TTL checks that expire, sessions that depend on them, lock-delays."""
import sequences

NODES = ["${p}n1", "${p}n2"]
SERVICES = ["${p}web", "${p}db"]
STATUSES = ["passing", "warning", "critical"]
MOMENT_SECONDS = 0.1  # until a query waits
WAIT = "3s"  # longer than any join


class Maker(sequences.Maker):
    def read(self):
        service, node = self.pick(SERVICES + ["${p}gone"]), self.pick(NODES + ["${p}gone"])
        kv = ["/v1/kv/${p}a", "/v1/kv/${p}b", "/v1/kv/${p}a/b", "/v1/kv/${p}?recurse", "/v1/kv/${p}a/?recurse",
              "/v1/kv/${p}?keys", "/v1/kv/${p}?keys&separator=/", "/v1/kv/${p}gone/?keys", "/v1/kv/${p}a?raw"]
        catalog = ["/v1/catalog/service/" + service, "/v1/catalog/node/" + node,
                   "/v1/catalog/node-services/" + node, "/v1/catalog/connect/" + service,
                   "/v1/catalog/service/" + service + "?tag=a", "/v1/catalog/nodes?node-meta=p:${p}"]
        health = ["/v1/health/service/" + service, "/v1/health/service/" + service + "?passing",
                  "/v1/health/service/" + service + "?tag=a", "/v1/health/node/" + node,
                  "/v1/health/checks/" + service, "/v1/health/connect/" + service, "/v1/health/ingress/" + service,
                  "/v1/health/state/" + self.pick(STATUSES + ["any"]) + "?node-meta=p:${p}"]
        session = ["/v1/session/list", "/v1/session/node/" + node, "/v1/session/info/" + self.session()]
        path = self.pick(self.pick([kv, catalog, catalog, health, health, session]))
        if path == "/v1/session/info/":
            path += "x"
        return {"method": "GET", "path": path, "params": [], "indexes": True}

    def key(self):
        return "/v1/kv/${p}" + self.pick(["a", "b", "a/b", "a/c/d"])

    def instance(self):
        """An id stands for one name: see docs/compatibility.md for what a renamed one does."""
        service = self.pick(SERVICES)
        return {"ID": service + self.pick(["", "-2"]), "Service": service,
                "Port": self.pick([80, 81]), "Tags": self.pick([["a"], [], ["b", "a"]])}

    def check(self):
        """Never the same twice, and never another's: see docs/compatibility.md."""
        return {"CheckID": self.pick(["${p}c", "${p}d"]), "Name": "c", "Status": self.pick(STATUSES),
                "Output": self.name("o")}

    def write(self):
        kind = self.random.randrange(13)
        node = self.pick(NODES)
        if kind <= 1:
            params = self.pick([[], [], [("acquire", self.session())], [("release", self.session())],
                                [("cas", "0")], [("flags", "1")]])
            return {"method": "PUT", "path": self.key(), "params": params, "body": self.pick(["1", "2"])}
        if kind == 2:
            params = self.pick([[], [], [("recurse", None)], [("cas", "1")]])
            return {"method": "DELETE", "path": self.key(), "params": params}
        if kind == 3:
            name = self.name("s")
            self.sessions.append(name)
            return {"method": "PUT", "path": "/v1/session/create", "capture": {name: "json:ID"}, "json": {
                "Node": node, "NodeChecks": self.pick([[], [], ["${p}c"]]), "LockDelay": "1ms",
                "Behavior": self.pick(["release", "delete"])}}
        if kind == 4:
            return {"method": "PUT", "path": "/v1/session/%s/%s" % (
                self.pick(["destroy", "destroy", "renew"]), self.session() or "x")}
        if kind == 5:
            return {"method": "PUT", "path": "/v1/catalog/deregister", "json": self.pick([
                {"Node": node}, {"Node": node, "ServiceID": self.pick(SERVICES) + self.pick(["", "-2"])},
                {"Node": node, "CheckID": self.pick(["${p}c", "${p}c${p}web"])}])}
        if kind == 6:
            return {"method": "PUT", "path": "/v1/txn", "json": [self.operation(node) for _ in range(
                self.pick([1, 1, 2, 3]))]}
        document = {"Node": node, "Address": self.pick(["10.0.0.1", "10.0.0.1", "10.0.0.2"]),
                    "NodeMeta": {"p": "${p}"}}
        if self.chance(0.7):
            document["Service"] = self.instance()
        if self.chance(0.6):
            document["Check"] = self.check()
            if "Service" in document and self.chance(0.6):
                document["Check"]["ServiceID"] = document["Service"]["ID"]
                document["Check"]["CheckID"] += document["Service"]["ID"]
        if self.chance(0.15):
            document["SkipNodeUpdate"] = True
        return {"method": "PUT", "path": "/v1/catalog/register", "json": document}

    def operation(self, node):
        key = self.key()[len("/v1/kv/"):]
        return self.pick([
            {"KV": {"Verb": "set", "Key": key, "Value": self.pick(["MQ==", "Mg=="])}},
            {"KV": {"Verb": "delete", "Key": key}}, {"KV": {"Verb": "delete-tree", "Key": key}},
            {"KV": {"Verb": "lock", "Key": key, "Value": "MQ==", "Session": self.session()}},
            {"KV": {"Verb": "unlock", "Key": key, "Value": "MQ==", "Session": self.session()}},
            {"KV": {"Verb": "get", "Key": key}}, {"KV": {"Verb": "check-not-exists", "Key": key}},
            {"Node": {"Verb": "set", "Node": {"Node": node, "Address": "10.0.0.3", "Meta": {"p": "${p}"}}}},
            {"Node": {"Verb": "delete", "Node": {"Node": node}}},
            {"Service": {"Verb": "set", "Node": node, "Service": self.instance()}},
            {"Service": {"Verb": "delete", "Node": node, "Service": {"ID": self.pick(SERVICES)}}},
            {"Check": {"Verb": "set", "Check": dict(self.check(), Node=node)}},
            {"Check": {"Verb": "delete", "Check": {"Node": node, "CheckID": "${p}c"}}}])


# Before any service has ever gone, names that are not there have another index.
GONE = [{"method": "PUT", "path": "/v1/catalog/register", "json": {
    "Node": "${p}n0", "Address": "10.0.0.1", "Service": {"Service": "${p}gone"}}},
        {"method": "PUT", "path": "/v1/catalog/deregister", "json": {"Node": "${p}n0"}}]


def indexes(random, length):
    """Writes, and readings of what they may have moved."""
    maker = Maker(random)
    return GONE + [maker.write() if maker.chance(0.5) else maker.read() for _ in range(length)]


def blocking(random, length):
    """Some data, then again and again: a few queries that wait, one write, and who woke."""
    maker = Maker(random)
    steps = GONE + [maker.write() for _ in range(length // 3)]
    for _ in range(length // 6):
        joins = []
        for _ in range(maker.pick([2, 3, 5])):
            name, index = maker.name("q"), maker.name("i")
            read = maker.read()
            steps.append(dict(read, capture={index: "header:X-Consul-Index"}))
            steps.append(dict(read, start=name, params=[("index", "{%s}" % index), ("wait", WAIT)]))
            joins.append(dict(read, join=name))
        steps.append({"sleep": MOMENT_SECONDS})
        steps.append(maker.write())
        steps += joins
    return steps


SYNCED_SECONDS = 0.5  # until the catalog has what the agent was told
EXPIRED_SECONDS = 1.7  # until a TTL of 1 s is over, and the catalog has that


class Expiry(Maker):
    CHECKS = ["${p}c1", "${p}c2"]

    def told(self):
        """Something that the agent is told."""
        check = self.pick(self.CHECKS)
        register = {"ID": check, "Name": "c", "TTL": self.pick(["1s", "1s", "1h"])}
        if self.chance(0.4):
            register["Status"] = self.pick(STATUSES)
        if self.chance(0.3):
            register["ServiceID"] = "${p}web"
        note = self.pick([[], [("note", "n")], [("note", "")]])
        return self.pick([
            {"method": "PUT", "path": "/v1/agent/check/register", "json": register},
            {"method": "PUT", "path": "/v1/agent/check/register", "json": register},
            {"method": "PUT", "path": "/v1/agent/service/register", "json": {
                "Name": "${p}web", "Tags": self.pick([["a"], []]),
                "Check": {"CheckID": check, "TTL": self.pick(["1s", "1h"])}}},
            {"method": "PUT", "path": "/v1/agent/check/%s/%s" % (self.pick(["pass", "warn", "fail"]), check),
             "params": note},
            {"method": "PUT", "path": "/v1/agent/check/pass/" + check, "params": note},
            {"method": "PUT", "path": "/v1/agent/check/deregister/" + check},
            {"method": "PUT", "path": "/v1/agent/service/deregister/${p}web"},
            {"method": "PUT", "path": "/v1/agent/service/maintenance/${p}web",
             "params": [("enable", self.pick(["true", "false"])), ("reason", "r")]}])

    def locked(self):
        if self.chance(0.4):
            name = self.name("s")
            self.sessions.append(name)
            return {"method": "PUT", "path": "/v1/session/create", "capture": {name: "json:ID"}, "json": {
                "NodeChecks": [self.pick(self.CHECKS + ["serfHealth"])], "LockDelay": self.pick(["1ms", "1h"]),
                "Behavior": self.pick(["release", "delete"])}}
        return {"method": "PUT", "path": self.key(), "body": "1",
                "params": [(self.pick(["acquire", "acquire", "release"]), self.session())]}

    def look(self):
        return {"method": "GET", "params": [], "path": self.pick([
            "/v1/agent/checks", "/v1/agent/services", "/v1/health/node/node1", "/v1/health/service/${p}web",
            "/v1/session/list", "/v1/kv/${p}?recurse", "/v1/agent/health/service/name/${p}web",
            "/v1/catalog/service/${p}web"])}


def expiry(random, length):
    """The agent is told something, locks are taken, a second passes, and all is looked at."""
    maker = Expiry(random)
    steps = []
    for _ in range(length // 8):
        steps += [maker.told() for _ in range(maker.pick([1, 2, 3]))] + [{"sleep": SYNCED_SECONDS}]
        steps += [maker.locked() for _ in range(maker.pick([0, 2, 4]))]
        if maker.chance(0.6):
            steps.append({"sleep": EXPIRED_SECONDS})
        steps += [maker.look() for _ in range(4)]
    return steps
