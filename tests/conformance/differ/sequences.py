"""Random requests, valid and invalid, over the whole API. A step is a dict: method, path, params (pairs
of name and value, None: no "="), json or body, and `capture`: names for parts of the answer that later
steps refer to as {name}. `${p}` is the run's own prefix."""
import json

KEYS = ["a", "b", "a/b", "a/b/c", "a/", "x y", "%C3%BC", "a%2Fb", "a.b", "dir/..", "A", "", "a+b"]
VALUES = ["", "1", "hello", "{\"x\": 1}", "\u00fc", "0" * 700, "a\nb"]
NODES = ["${p}n1", "${p}n2", "${p}n3"]
NODES_READ = NODES + ["${p}N1"]  # written in one case: which spelling a record keeps differs
SERVICES = ["${p}web", "${p}db", "${p}Web", "${p}w.x"]
CHECKS = ["${p}c1", "${p}c2"]
STATUSES = ["passing", "warning", "critical", "", "odd"]
TAGS = ["a", "b", "A", "v1"]

NODE_FILTERS = ["Node == \"${p}n1\"", "Meta.env == prod", "Meta is empty", "Address != \"\"",
                "\"env\" in Meta", "Node matches \"n[12]\"", "Datacenter == dc1",
                "not (Node == x)", "TaggedAddresses.lan == \"\"", "ID is empty", "Node contains n"]
SERVICE_FILTERS = ["ServiceName == \"${p}web\"", "\"a\" in ServiceTags", "ServicePort == 80",
                   "ServiceMeta.v == 1", "ServiceTags is empty", "ServicePort != 80",
                   "ServiceWeights.Passing == 1", "ServiceEnableTagOverride == false",
                   "ServicePort in ServiceTags", "NodeMeta.env == prod"]
HEALTH_FILTERS = ["Service.Service == \"${p}web\"", "Checks.Status == passing", "Node.Meta is empty",
                  "\"a\" in Service.Tags", "Checks is not empty", "Service.Port == 80",
                  "Service.Weights.Warning == 1", "Checks.CheckID matches \"c\""]
CHECK_FILTERS = ["Status == passing", "CheckID == \"${p}c1\"", "ServiceTags is empty",
                 "Output contains x", "ServiceName != \"\"", "Type is empty"]
BAD_FILTERS = ["", "Foo == 1", "Node ==", "(Node == x", "Node = x", "Node in", "\"", "Node == x and",
               "ServicePort == abc", "Node matches \"(\"", "Meta == x", "not", "== 1", "Node is full",
               "Node == `x`", "Checks == 1"]


class Maker:
    def __init__(self, random):
        self.random = random
        self.names = 0
        self.sessions = []
        self.indexes = []

    def pick(self, values):
        return self.random.choice(values)

    def chance(self, probability):
        return self.random.random() < probability

    def name(self, kind):
        self.names += 1
        return "%s%d" % (kind, self.names)

    # --- parameters ---

    def common(self):
        values = [("stale", None), ("consistent", None), ("pretty", None), ("dc", "dc1"),
                  ("dc", "nosuch"), ("token", "x"), ("max_stale", "1s"), ("max_stale", "x"),
                  ("index", "0"), ("index", "x"), ("wait", "x"), ("wait", "10ms"), ("cached", None),
                  ("stale", ""), ("index", "-1"), ("index", "1"), ("max_stale", "0"), ("ns", "default"),
                  ("leader", None)]
        params = [self.pick(values) for _ in range(self.pick([0, 0, 0, 0, 1, 1, 2]))]
        if any(name == "index" for name, _ in params):
            params.insert(0, ("wait", "20ms"))  # of several the first counts
        return params

    def filter(self, filters):
        """An expression of one to three comparisons, joined and negated at random."""
        text = self.pick(filters)
        for _ in range(self.pick([0, 0, 0, 1, 1, 2])):
            other = self.pick(filters)
            text = self.pick(["%s and %s", "%s or %s", "(%s) and not (%s)", "not %s or %s",
                              "%s  AND %s", "(%s or %s)"]) % (text, other)
        return text

    def session(self):
        choices = ["{%s}" % name for name in self.sessions] * 3 + ["", "x", "0" * 8,
                   "11111111-2222-3333-4444-555555555555"]
        return self.pick(choices)

    def index(self):
        return self.pick(["{%s}" % name for name in self.indexes] * 3 +
                         ["0", "1", "x", "-1", "", "18446744073709551615", "18446744073709551616"])

    # --- key-value and sessions ---

    def kv_key(self):
        return "/v1/kv/${p}" + self.pick(["", "/"]) + self.pick(KEYS)

    def kv_get(self):
        values = [("raw", None), ("recurse", None), ("keys", None), ("separator", "/"),
                  ("separator", ""), ("keys", ""), ("separator", "a")]
        params = [self.pick(values) for _ in range(self.pick([0, 0, 1, 1, 2]))] + self.common()
        step = {"method": "GET", "path": self.kv_key(), "params": params, "capture": {}}
        if not params:
            name = self.name("i")
            step["capture"] = {name: "json:0.ModifyIndex"}
            self.indexes.append(name)
        return step

    def kv_put(self):
        params = []
        for name, make in (("flags", lambda: self.pick(["0", "42", "x", "-1", "", "1e3"])),
                           ("cas", self.index), ("acquire", self.session),
                           ("release", self.session)):
            if self.chance(0.25):
                params.append((name, make()))
        return {"method": "PUT", "path": self.kv_key(), "params": params + self.dc(),
                "body": self.pick(VALUES)}

    def dc(self):
        return [] if self.chance(0.9) else [self.pick([("dc", "dc1"), ("dc", "nosuch")])]

    def kv_delete(self):
        values = [[], [], [("recurse", None)], [("cas", self.index())], [("cas", None)],
                  [("recurse", None), ("cas", "0")]]
        return {"method": "DELETE", "path": self.kv_key(), "params": self.pick(values) + self.dc()}

    def session_create(self):
        document = {}
        for field, values in (
                ("Name", ["${p}s", "", 1]), ("TTL", ["10s", "15.0s", "1h", "", "1s", "x", 15, "90000s"]),
                ("LockDelay", ["0s", "15s", "1ms", 0, 15, "x", "-5s", "2m"]),
                ("Behavior", ["release", "delete", "", "Release", "x"]),
                ("Checks", [[], None, ["nosuch"], "x"]), ("NodeChecks", [[], ["serfHealth"], ["nosuch"]]),
                ("ServiceChecks", [[], None, [{"ID": "nosuch"}]]),
                ("Node", ["nosuch", "", "node1"]), ("Unknown", [1])):
            if self.chance(0.25):
                document[field] = self.pick(values)
        name = self.name("s")
        self.sessions.append(name)
        return {"method": "PUT", "path": "/v1/session/create", "json": document,
                "params": self.dc(), "capture": {name: "json:ID"}}

    def session_other(self):
        what = self.pick(["destroy", "renew", "info", "info", "node", "list"])
        method = "PUT" if what in ("destroy", "renew") else "GET"
        path = "/v1/session/" + what
        if what == "node":
            path += "/" + self.pick(["node1", "nosuch", "", "NODE1"])
        elif what != "list":
            path += "/" + self.session()
        return {"method": method, "path": path,
                "params": self.common() if method == "GET" else self.dc()}

    # --- transactions ---

    def txn_kv(self):
        verb = self.pick(["set", "cas", "lock", "unlock", "get", "get-tree", "check-index",
                          "check-session", "check-not-exists", "delete", "delete-tree",
                          "delete-cas", "nosuch", ""])
        op = {"Verb": verb, "Key": "${p}/" + self.pick(["a", "b", "a/b", "", "c"])}
        for field, values in (("Value", ["MQ==", "", "!!", None, "aGVsbG8="]), ("Flags", [0, 7, "x", -1]),
                              ("Index", [0, 1, "x"]), ("Session", [self.session()])):
            if self.chance(0.4):
                op[field] = self.pick(values)
        return {"KV": op}

    def txn_catalog(self):
        kind = self.pick(["Node", "Service", "Check"])
        verb = self.pick(["set", "cas", "get", "delete", "delete-cas", "nosuch"])
        node = self.pick(NODES)
        if kind == "Node":
            record = {"Node": node, "Address": self.pick(["10.0.0.1", "10.0.0.2", ""])}
        elif kind == "Service":
            record = {"ID": self.pick(SERVICES), "Service": self.pick(SERVICES),
                      "Port": self.pick([80, 0]), "Tags": self.pick([[], ["a"], None])}
            return {kind: {"Verb": verb, "Node": node, "Service": record}}
        else:
            record = {"Node": node, "CheckID": self.pick(CHECKS), "Name": "n",
                      "Status": self.pick(STATUSES)}
        if self.chance(0.3):
            record["ModifyIndex"] = self.pick([0, 1, 99999])
        return {kind: {"Verb": verb, kind: record}}

    def txn(self):
        count = self.pick([0, 1, 1, 2, 3, 5, 64, 65] if self.chance(0.1) else [1, 1, 2, 3])
        ops = [self.txn_catalog() if self.chance(0.3) else self.txn_kv() for _ in range(count)]
        document = ops if self.chance(0.97) else self.pick([{}, None, [{}], [1], "x", [[]]])
        return {"method": "PUT", "path": "/v1/txn", "json": document, "params": self.dc()}

    # --- catalog and health ---

    def service(self):
        record = {"Service": self.pick(SERVICES)}
        for field, values in (
                ("ID", ["${p}web-1", "${p}web-2", ""]), ("Port", [80, 0, 8080]),
                ("Tags", [["a"], ["a", "b"], [], None, ["A"]]), ("Address", ["10.0.0.9", ""]),
                ("Meta", [{"v": "1"}, {}, None]), ("Weights", [{"Passing": 1, "Warning": 1},
                                                                {"Passing": 10, "Warning": 0}, None]),
                ("EnableTagOverride", [True, False]), ("Unknown", [1]), ("Kind", ["", "odd"]),
                ("TaggedAddresses", [{"lan": {"Address": "1.2.3.4", "Port": 1}}])):
            if self.chance(0.3 if field != "Unknown" else 0.03):
                record[field] = self.pick(values)
        return record

    def check(self, node):
        record = {"Name": "n"}
        for field, values in (("CheckID", CHECKS), ("Status", STATUSES), ("Notes", ["x"]),
                              ("Output", ["x", "y"]), ("ServiceID", ["${p}web", "nosuch", "${p}db"]),
                              ("Node", [node, "other"]), ("Definition", [{}, {"HTTP": "http://x"}])):
            if self.chance(0.4 if field not in ("Node", "ServiceID") else 0.15):
                record[field] = self.pick(values)
        return record

    def register(self):
        node = self.pick(NODES)
        document = {"Node": node, "Address": self.pick(["10.0.0.1", "10.0.0.2", "10.0.0.1", ""])}
        if self.chance(0.6):
            document["Service"] = self.service()
        if self.chance(0.3):
            document["Check"] = self.check(node)
        if self.chance(0.15):
            document["Checks"] = [self.check(node) for _ in range(self.pick([0, 1, 2]))]
        for field, values in (("NodeMeta", [{"env": "prod"}, {"env": "dev"}, {}, None]),
                              ("Datacenter", ["dc1", "nosuch"]), ("SkipNodeUpdate", [True, False]),
                              ("TaggedAddresses", [{"lan": "10.0.0.1"}, None]), ("Unknown", [1]),
                              ("ID", ["", "x"])):
            if self.chance(0.2 if field not in ("Unknown", "ID", "Datacenter") else 0.04):
                document[field] = self.pick(values)
        return {"method": "PUT", "path": "/v1/catalog/register", "json": document}

    def deregister(self):
        document = {"Node": self.pick(NODES + ["nosuch", ""])}
        for field, values in (("ServiceID", ["${p}web", "${p}web-1", "nosuch"]),
                              ("CheckID", CHECKS), ("Datacenter", ["dc1"]), ("Unknown", [1])):
            if self.chance(0.3 if field != "Unknown" else 0.04):
                document[field] = self.pick(values)
        return {"method": "PUT", "path": "/v1/catalog/deregister", "json": document}

    def catalog_read(self):
        path, filters = self.pick([
            ("/v1/catalog/nodes", NODE_FILTERS), ("/v1/catalog/services", NODE_FILTERS),
            ("/v1/catalog/service/" + self.pick(SERVICES + [""]), SERVICE_FILTERS),
            ("/v1/catalog/service/" + self.pick(SERVICES), SERVICE_FILTERS),
            ("/v1/catalog/node/" + self.pick(NODES_READ + ["nosuch", ""]),
             ["Service == \"${p}web\"", "\"a\" in Tags", "Port == 80", "Meta.v == 1"]),
            ("/v1/catalog/node-services/" + self.pick(NODES_READ), ["Service == \"${p}web\"", "ID is empty"]),
            ("/v1/catalog/connect/" + self.pick(SERVICES), SERVICE_FILTERS),
            ("/v1/catalog/datacenters", NODE_FILTERS),
            ("/v1/health/node/" + self.pick(NODES_READ + [""]), CHECK_FILTERS),
            ("/v1/health/checks/" + self.pick(SERVICES + [""]), CHECK_FILTERS),
            ("/v1/health/state/" + self.pick(STATUSES + ["any"]), CHECK_FILTERS),
            ("/v1/health/service/" + self.pick(SERVICES + [""]), HEALTH_FILTERS),
            ("/v1/health/service/" + self.pick(SERVICES), HEALTH_FILTERS),
            ("/v1/health/connect/" + self.pick(SERVICES), HEALTH_FILTERS)])
        params = self.common()
        for name, values in (("passing", [None, "", "1", "true", "false", "x"]), ("tag", TAGS),
                             ("tag", TAGS), ("near", ["_agent", "${p}n1", "nosuch", ""]),
                             ("node-meta", ["env:prod", "env:dev", "env", ":", "x:y"]),
                             ("filter", BAD_FILTERS)):
            if self.chance(0.12):
                params.append((name, self.pick(values)))
        if self.chance(0.3):
            params.append(("filter", self.filter(filters)))
        return {"method": "GET", "path": path, "params": params}

    # --- the agent: its own lists, not what it tells the catalog later ---

    def agent_check(self):
        record = {"Name": "${p}chk"}
        for field, values in (("ID", CHECKS), ("TTL", ["60s", "1h", "x", ""]), ("Notes", ["x"]),
                              ("Status", ["passing", "critical", "odd"]), ("HTTP", ["http://127.0.0.1:1"]),
                              ("Interval", ["600s", "x"]), ("TCP", ["127.0.0.1:1"]), ("Unknown", [1]),
                              ("ServiceID", ["${p}web", "nosuch"]), ("Name", [""]),
                              ("Args", [["true"]]), ("DeregisterCriticalServiceAfter", ["1h"])):
            if self.chance(0.5 if field == "TTL" else 0.12):
                record[field] = self.pick(values)
        return record

    def agent(self):
        ids = ["${p}web", "${p}db", "nosuch", "${p}w%2Fx", ""]
        kind = self.random.randrange(13)
        if kind <= 2:
            record = {"Name": self.pick(["${p}web", "${p}db", ""])}
            for field, values in (("ID", ["${p}web", "${p}w/x"]), ("Port", [80, "80"]),
                                  ("Tags", [["a"], []]), ("Meta", [{"a": "b"}, {"a b": "c"}]),
                                  ("Weights", [{"Passing": 1, "Warning": 0}]),
                                  ("Check", [{"TTL": "60s"}, {}, {"TTL": "x"}]),
                                  ("Checks", [[{"TTL": "60s"}, {"TTL": "30s"}]]),
                                  ("EnableTagOverride", [True]), ("Unknown", [1]), ("Kind", ["odd"]),
                                  ("Address", ["10.0.0.1", ""])):
                if self.chance(0.2):
                    record[field] = self.pick(values)
            return {"method": "PUT", "path": "/v1/agent/service/register", "json": record,
                    "params": [] if self.chance(0.9) else [("replace-existing-checks", "true")]}
        if kind == 3:
            return {"method": "PUT", "path": "/v1/agent/check/register", "json": self.agent_check()}
        if kind == 4:
            return {"method": "PUT", "path": "/v1/agent/%s/deregister/%s" % (
                self.pick(["service", "check"]), self.pick(ids + CHECKS))}
        if kind == 5:
            what = self.pick(["pass", "warn", "fail"])
            return {"method": "PUT", "path": "/v1/agent/check/%s/%s" % (
                what, self.pick(["service:${p}web", "nosuch", "${p}c1", "${p}chk"])),
                    "params": self.pick([[], [("note", "hi")], [("note", "")]])}
        if kind == 6:
            return {"method": "PUT", "path": "/v1/agent/check/update/" + self.pick(
                ["service:${p}web", "nosuch", "${p}chk"]),
                    "json": self.pick([{"Status": "passing", "Output": "o"}, {"Status": "odd"}, {},
                                       {"Status": "critical"}])}
        if kind == 7:
            return {"method": "PUT", "path": "/v1/agent/service/maintenance/" + self.pick(ids),
                    "params": self.pick([[("enable", "true")], [("enable", "false")], [],
                                         [("enable", "x")], [("enable", "true"), ("reason", "r")]])}
        if kind == 8:
            return {"method": "GET", "path": "/v1/agent/service/" + self.pick(ids),
                    "params": self.pick([[], [("hash", "x"), ("wait", "10ms")], [("wait", "x")]])}
        if kind == 9:
            return {"method": "GET", "path": "/v1/agent/health/service/%s/%s" % (
                self.pick(["id", "name"]), self.pick(ids)),
                    "params": self.pick([[], [("format", "text")], [("format", "x")]])}
        path, filters = self.pick([
            ("/v1/agent/services", ["Service == \"${p}web\"", "\"a\" in Tags", "Port == 80"]),
            ("/v1/agent/checks", CHECK_FILTERS)])
        return {"method": "GET", "path": path, "params":
                [] if self.chance(0.7) else [("filter", self.pick(filters + BAD_FILTERS))]}

    # --- everything else ---

    def other(self):
        paths = ["/v1/status/leader", "/v1/status/peers", "/v1/coordinate/nodes",
                 "/v1/coordinate/datacenters", "/v1/coordinate/node/" + self.pick(NODES),
                 "/v1/coordinate/update", "/v1/event/list", "/v1/event/fire/${p}e", "/v1/event/fire/",
                 "/v1/snapshot", "/v1/agent/members", "/v1/agent/join/", "/v1/catalog/register",
                 "/v1/catalog/nodes", "/v1/health/service/x", "/v1/kv/${p}a", "/v1/txn",
                 "/v1/session/create", "/v1/session/list", "/v1/agent/services",
                 "/v1/agent/maintenance", "/v1/acl/list", "/v1/nosuch", "/v1", "/", "/v1/kv",
                 "/v1/query", "/v1/query/${p}q", "/v1/operator/raft/configuration",
                 "/v1/session/info", "/v1/catalog//nodes", "/v1/catalog/../status/leader",
                 "/v1/health/state", "/v1/agent/check/pass", "/ui", "/v1/acl/token/self",
                 "/v1/operator/raft/peer", "/v1/operator/raft/peer?id=x", "/v1/agent/token/x",
                 "/v1/operator/raft/peer?id=x&address=y", "/v1/operator/autopilot/configuration",
                 "/v1/agent/force-leave/", "/v1/agent/force-leave/nosuch", "/v1/agent/monitor?loglevel=x",
                 "/v1/operator/keyring", "/v1/agent/service/maintenance/x", "/v1/acl/bootstrap",
                 "/v1/agent/check/update/x", "/v1/session/renew/x", "/v1/session/destroy/"]
        method = self.pick(["GET", "GET", "GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"])
        path = self.pick(paths)
        if path.startswith("/v1/agent/monitor") and method == "GET":
            path = "/v1/agent/monitor?loglevel=x"
        if path == "/v1/snapshot" and method == "PUT":
            method = "GET"  # garbage is refused in other words; see test_archive.py
        if path.startswith("/v1/agent/maintenance") and method == "PUT":
            method = "GET"
        step = {"method": method, "path": path, "params": self.common()}
        if method in ("PUT", "POST") and self.chance(0.5):
            step["json"] = self.pick([{}, [], None, {"Node": "${p}n1"}, {"Name": 1}, "x"])
        return step

    def coordinate(self):
        coord = {"Vec": self.pick([[0] * 8, [0.1] + [0] * 7, [0], [1e-9, 1e22, 5, 0, 0, 0, 0, 0], "x"]),
                 "Error": self.pick([1.5, 0, "x"]), "Adjustment": self.pick([0, -0.001]),
                 "Height": self.pick([1e-05, 0.5])}
        return {"method": "PUT", "path": "/v1/coordinate/update", "params": self.dc(),
                "json": {"Node": self.pick(NODES), "Coord": coord}}


FAMILIES = {
    "kv": [("kv_put", 5), ("kv_get", 5), ("kv_delete", 2), ("session_create", 2),
           ("session_other", 2)],
    "session": [("session_create", 4), ("session_other", 6), ("kv_put", 2), ("kv_get", 1)],
    "txn": [("txn", 6), ("session_create", 1), ("kv_get", 2), ("catalog_read", 1)],
    "catalog": [("register", 5), ("deregister", 1), ("catalog_read", 8)],
    "agent": [("agent", 1)],
    "other": [("other", 8), ("coordinate", 1), ("register", 1)],
}


def sequence(random, family, length):
    maker = Maker(random)
    names, weights = zip(*FAMILIES[family])
    return [getattr(maker, random.choices(names, weights)[0])() for _ in range(length)]


def dumps(step):
    """The body's bytes; None: no body."""
    if "json" in step:
        return json.dumps(step["json"])
    return step.get("body")
