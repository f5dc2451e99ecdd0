"""Random requests, valid and invalid, over the whole API. A step is a dict: method, path, params (pairs
of name and value, None: no "="), json or body, `headers` (pairs), and `capture`: names for parts of the
answer that later steps refer to as {name}. `${p}` is the run's own prefix; `{"sleep": seconds}` waits."""
import copy
import json

import expressions
import forms

KEYS = ["a", "b", "a/b", "a/b/c", "a/", "x y", "%C3%BC", "a%2Fb", "a.b", "dir/..", "A", "", "a+b"]
VALUES = ["", "1", "hello", "{\"x\": 1}", "\u00fc", "0" * 700, "a\nb"]
NODES = ["${p}n1", "${p}n2", "${p}n3"]
NODES_READ = NODES + ["${p}N1"]  # written in one case: which spelling a record keeps differs
SERVICES = ["${p}web", "${p}db", "${p}Web", "${p}w.x"]
CHECKS = ["${p}c1", "${p}c2"]
NODE_IDS = ["5ca1ab1e-0000-4000-8000-00000000abc1", "5CA1AB1E-0000-4000-8000-00000000ABC1",
            "5ca1ab1e-0000-4000-8000-00000000abc2", "b0a7f00d-0000-4000-8000-00000000abc3"]
NODE_ID_STARTS = ["5ca1ab1e", "B0A7F00", "b0a7f00d-", "b0a7f00d-0", "5ca1ab1e-0000-40",
                  "5ca1ab1e00004000800000000000abc1"]
STATUSES = ["passing", "warning", "critical", "", "odd"]
TAGS = ["a", "b", "A", "v1"]
DEFINITIONS = [{}, {"HTTP": "http://x"}, {"HTTP": "x", "Interval": "10s", "Odd": 1}, {"TCP": "x", "Interval": 5},
               {"ScriptArgs": ["a"], "DockerContainerID": "d", "Shell": "s", "Interval": "1s"}, {"TTL": "5s"},
               {"GRPC": "g", "GRPCUseTLS": True, "Interval": "1s", "OutputMaxSize": 7}, {"AliasNode": "n"},
               {"AliasService": "s", "TTL": 1, "IntervalDuration": "1s"}, {"Timeout": "x"}, {"OutputMaxSize": -1}]

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
        self.expressions = expressions.Expressions(random)

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
                record["Definition"] = self.pick(DEFINITIONS)
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
        for field, values in (("CheckID", CHECKS + ["serfHealth"]), ("Status", STATUSES), ("Notes", ["x"]),
                              ("ServiceName", SERVICES), ("ServiceTags", [["x"], [], None]),
                              ("Output", ["x", "y"]), ("ServiceID", ["${p}web", "nosuch", "${p}db"]),
                              ("Node", [node, "other"]), ("Definition", DEFINITIONS)):
            if self.chance(0.4 if field not in ("Node", "ServiceID", "ServiceName", "ServiceTags") else 0.15):
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
        if self.chance(0.25):
            document["ID"] = self.pick(NODE_IDS)
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
            ("/v1/catalog/node/" + self.pick(NODES_READ + ["nosuch", ""] + NODE_IDS + NODE_ID_STARTS),
             ["Service == \"${p}web\"", "\"a\" in Tags", "Port == 80", "Meta.v == 1"]),
            ("/v1/catalog/node-services/" + self.pick(NODES_READ + NODE_ID_STARTS),
             ["Service == \"${p}web\"", "ID is empty"]),
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

    def agent_check_kinds(self):
        """A check of any type, or of several at once, with whatever goes with one of them."""
        record = {"Name": "${p}chk", "ID": self.pick(CHECKS)}
        kinds = {"TTL": ["60s", "1ms", "0s", "-1s", "1"], "HTTP": ["http://127.0.0.1:1/x", "127.0.0.1", "x://y"],
                 "TCP": ["127.0.0.1:1", "127.0.0.1", "x:y:z"], "Args": [["true"], [], [""]],
                 "ScriptArgs": [["true"]], "Script": ["true"], "GRPC": ["127.0.0.1:1/x"],
                 "AliasService": ["${p}web", "nosuch"], "DockerContainerID": ["x"], "Shell": ["/bin/sh"]}
        for kind in self.random.sample(sorted(kinds), self.pick([0, 1, 1, 1, 1, 2])):
            record[kind] = self.pick(kinds[kind])
        if "Args" in record or "ScriptArgs" in record:
            record["ID"] = "${p}script"  # Consul's refusal takes away what was there by that id.
        for field, values in (("Interval", ["600s", "600s", "600s", "1ms", "0s", "-1s", "x"]),):
            if self.chance(0.7):
                record[field] = self.pick(values)
        for field, values in (
                ("Timeout", ["1s", "0s", "-1s", "x", 5]), ("Method", ["GET", "PUT", "", "x y"]), ("Body", ["b"]),
                ("Header", [{"a": ["b"]}, {}, {"a": "b"}, {"a": []}]), ("TLSSkipVerify", [True, "x"]),
                ("OutputMaxSize", [0, -1, 10, "x"]), ("SuccessBeforePassing", [0, 3, -1]),
                ("FailuresBeforeCritical", [0, 3, "x"]), ("GRPCUseTLS", [True]), ("Notes", ["x"]),
                ("ServiceID", ["${p}web", "nosuch"]), ("Status", STATUSES), ("Type", ["x"]),
                ("DeregisterCriticalServiceAfter", ["1h", "1ms", "x", "-1h"]), ("CheckID", ["${p}c2"]),
                ("ProxyHTTP", ["x"]), ("ProxyGRPC", ["x"]), ("Node", ["x"]), ("DockerContainerId", ["y"])):
            if self.chance(0.1):
                record[field] = self.pick(values)
        if self.chance(0.7):
            return {"method": "PUT", "path": "/v1/agent/check/register", "json": record}
        record.pop("ServiceID", None)
        key, checks = self.pick([("Check", record), ("Checks", [record]), ("Checks", [record, {"TTL": "60s"}])])
        return {"method": "PUT", "path": "/v1/agent/service/register", "json": {"Name": "${p}web", key: checks}}

    def node_maintenance(self):
        return {"method": "PUT", "path": "/v1/agent/maintenance",
                "params": self.pick([[("enable", "true")], [("enable", "true"), ("reason", "r")], [],
                                     [("enable", "false")], [("enable", "x")], [("enable", "")]])}

    # --- filters over all selectors ---

    def rich_register(self):
        """An instance with something behind most selectors."""
        node = self.pick(NODES)
        service = {"Service": self.pick(SERVICES[:2]), "Port": self.pick([80, 8080, 0]),
                   "Tags": self.pick([["a", "b"], [], None, ["A", "", "a"]]), "Address": self.pick(["10.0.0.9", ""]),
                   "Meta": self.pick([{"v": "1", "env": ""}, {"${p}k": "x"}, {}, None]),
                   "Weights": self.pick([{"Passing": 10, "Warning": 1}, None]),
                   "TaggedAddresses": self.pick([{"lan": {"Address": "1.2.3.4", "Port": 80}}, None]),
                   "EnableTagOverride": self.pick([True, False])}
        service["ID"] = service["Service"] + self.pick(["", "-2"])
        check = {"CheckID": self.pick(CHECKS), "Name": self.pick(["n", "web"]), "Status": self.pick(STATUSES[:3]),
                 "Notes": self.pick(["x", ""]), "Output": self.pick(["x", "aaab"]), "Type": self.pick(["ttl", ""])}
        if self.chance(0.6):
            check["ServiceID"] = service["ID"]
        return {"method": "PUT", "path": "/v1/catalog/register", "json": {
            "Node": node, "Address": self.pick(["10.0.0.1", "10.0.0.2"]), "Service": service, "Check": check,
            "ID": "11111111-2222-3333-4444-5555555555" + {"1": "51", "2": "52", "3": "53"}[node[-1]],
            "NodeMeta": self.pick([{"env": "prod"}, {"v": "1", "a b": "x"}, None]),
            "TaggedAddresses": self.pick([{"lan": "10.0.0.1", "wan": "1.2.3.4"}, None])}}

    def filtered(self):
        path, fields = self.pick([
            ("/v1/catalog/nodes", expressions.NODE), ("/v1/catalog/service/${p}web", expressions.INSTANCE),
            ("/v1/catalog/service/${p}db", expressions.INSTANCE),
            ("/v1/catalog/node/" + self.pick(NODES), expressions.SERVICE),
            ("/v1/catalog/node-services/" + self.pick(NODES), expressions.SERVICE),
            ("/v1/health/node/" + self.pick(NODES), expressions.CHECK),
            ("/v1/health/checks/${p}web", expressions.CHECK), ("/v1/health/state/any", expressions.CHECK),
            ("/v1/health/service/${p}web", expressions.HEALTH), ("/v1/health/service/${p}db", expressions.HEALTH),
            ("/v1/agent/services", expressions.SERVICE), ("/v1/agent/checks", expressions.CHECK)])
        text = self.expressions.filter(fields)
        if "Node" in fields and fields is not expressions.HEALTH:
            text = "(%s) and Node != node1" % text  # The servers' own addresses are not the same.
        return {"method": "GET", "path": path, "params": [("filter", text)]}

    # --- odd forms of everything ---

    def form(self):
        method, path = self.pick(forms.ENDPOINTS)
        step = {"method": method if self.chance(0.6) else self.pick(forms.METHODS), "path": path,
                "params": [], "headers": []}
        if self.chance(0.5):
            step["path"] = forms.odd_path(self.random, path)
        if self.chance(0.5):
            step["headers"] = [self.pick(forms.HEADS) for _ in range(self.pick([1, 1, 2]))]
        if self.chance(0.5) and "#" not in step["path"]:
            step["params"] = [self.pick(forms.PARAMS) for _ in range(self.pick([1, 1, 2, 3]))]
            if any(name == "index" for name, _ in step["params"]):
                step["params"].insert(0, ("wait", "20ms"))
        if step["method"] in ("PUT", "POST", "PATCH") or self.chance(0.05):
            step["body"] = self.pick(["", "x", "{}", "null", "[]", "{\"Name\": \"${p}web\"}"])
        return step

    def document(self):
        """A path that takes one, and one that is right or nearly so."""
        path = self.pick(["/v1/session/create", "/v1/txn", "/v1/catalog/register", "/v1/catalog/deregister",
                          "/v1/agent/service/register", "/v1/agent/check/register",
                          "/v1/agent/check/update/${p}c1", "/v1/coordinate/update",
                          "/v1/operator/autopilot/configuration"])
        if path == "/v1/session/create":
            return path, {"Name": "${p}s", "TTL": "10s", "LockDelay": "1s", "Behavior": "delete", "Node": "node1",
                          "Checks": ["serfHealth"], "NodeChecks": ["serfHealth"],
                          "ServiceChecks": [{"ID": "nosuch", "Namespace": ""}]}
        if path == "/v1/txn":
            return path, [self.txn_catalog() if self.chance(0.5) else
                          {"KV": {"Verb": "set", "Key": "${p}/a", "Value": "MQ==", "Flags": 1, "Index": 1,
                                  "Session": "x"}}]
        if path == "/v1/catalog/register":
            document = self.rich_register()["json"]
            document["Checks"] = [document.pop("Check")]
            return path, document
        if path == "/v1/catalog/deregister":
            return path, {"Datacenter": "dc1", "Node": "${p}n1", "ServiceID": "${p}web", "CheckID": "${p}c1"}
        if path == "/v1/agent/service/register":
            return path, {"Name": "${p}web", "ID": "${p}web", "Port": 80, "Tags": ["a"], "Meta": {"a": "b"},
                          "Weights": {"Passing": 1, "Warning": 1}, "Address": "10.0.0.1",
                          "TaggedAddresses": {"lan": {"Address": "1.2.3.4", "Port": 1}},
                          "EnableTagOverride": True, "Checks": [{"TTL": "60s", "Name": "c", "Notes": "x"}]}
        if path == "/v1/agent/check/register":
            return path, {"Name": "${p}chk", "ID": "${p}c1", "TTL": "60s", "Notes": "x", "Status": "passing"}
        if path == "/v1/coordinate/update":
            return path, self.coordinate()["json"]
        if path == "/v1/operator/autopilot/configuration":
            return path, {"CleanupDeadServers": True, "LastContactThreshold": "200ms", "MaxTrailingLogs": 250,
                          "ServerStabilizationTime": "10s", "RedundancyZoneTag": "", "MinQuorum": 0,
                          "DisableUpgradeMigration": False, "UpgradeVersionTag": ""}
        return path, {"Status": "passing", "Output": "o"}

    def odd_body(self):
        path, document = self.document()
        step = {"method": "PUT", "path": path, "params": []}
        if self.chance(0.65):
            step["json"] = forms.odd_document(self.random, copy.deepcopy(document))
        else:
            step["body"] = forms.odd_text(self.random, forms.text_of(document))
        return step

    def what_came_of_it(self):
        return {"method": "GET", "path": self.pick([
            "/v1/session/list", "/v1/kv/${p}/a", "/v1/agent/services", "/v1/agent/checks",
            "/v1/operator/autopilot/configuration"] + ["/v1/catalog/node/" + node for node in NODES] +
            ["/v1/health/node/" + node for node in NODES])}

    # --- everything else ---

    def event(self):
        if self.chance(0.5):
            return {"method": "PUT", "path": "/v1/event/fire/" + self.pick(["${p}e", "${p}f", ""]),
                    "params": self.pick([[], [("node", "n")], [("service", "web"), ("tag", "a")], [("tag", "a")],
                                         [("node", "(")], [("service", "[")], [("service", "x"), ("tag", "*")]]),
                    "body": self.pick(["", "x", "\u00fc", "0" * 480, "0" * 600, "null"])}
        return {"method": "GET", "path": "/v1/event/list", "params":
                [("name", self.pick(["${p}e", "${p}f", "${p}nosuch"]))] +
                self.pick([[], [("node", "x")], [("service", "x")], [("tag", "x")]])}

    def autopilot(self):
        path = "/v1/operator/autopilot/configuration"
        if self.chance(0.4):
            return {"method": "GET", "path": path, "params": self.common()}
        document = {}
        for field, values in (
                ("CleanupDeadServers", [True, False]), ("LastContactThreshold", ["100ms", 1000, "", "x"]),
                ("MaxTrailingLogs", [100, 0, -1, 1.5]), ("MinQuorum", [0, 3, -1]), ("Odd", [1]),
                ("ServerStabilizationTime", ["1s", "-1s"]), ("RedundancyZoneTag", ["z", ""]),
                ("DisableUpgradeMigration", [True, None]), ("UpgradeVersionTag", ["t"])):
            if self.chance(0.3 if field != "Odd" else 0.05):
                document[field] = self.pick(values)
        return {"method": "PUT", "path": path, "json": document,
                "params": self.pick([[], [], [("cas", "0")], [("cas", "1")], [("cas", "x")], [("cas", "")],
                                     [("dc", "nosuch")]])}

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


def near(random, length):
    """Instances with coordinates, then readings in their order. Coordinates are stored with the next
    batch, so this waits for one."""
    maker = Maker(random)
    steps = []
    for number, node in enumerate(NODES + ["${p}n4"]):
        steps.append({"method": "PUT", "path": "/v1/catalog/register", "json": {
            "Node": node, "Address": "10.0.0.%d" % number, "NodeMeta": {"p": "${p}"},
            "Service": {"Service": "${p}web"}, "Check": {"CheckID": "c", "Name": "c", "Status": "warning"}}})
        if maker.chance(0.8):
            vector = [round(random.uniform(-1, 1), 3) for _ in range(8)]
            steps.append({"method": "PUT", "path": "/v1/coordinate/update", "json": {"Node": node, "Coord": {
                "Vec": vector, "Error": 1.5, "Adjustment": maker.pick([0, 0.01, -3]),
                "Height": maker.pick([1e-05, 0.5])}}})
    random.shuffle(steps)
    steps.append({"sleep": COORDINATE_SECONDS})
    for _ in range(length):
        path, params = maker.pick([
            ("/v1/catalog/nodes", [("node-meta", "p:${p}")]), ("/v1/catalog/service/${p}web", []),
            ("/v1/health/service/${p}web", []), ("/v1/health/checks/${p}web", []),
            ("/v1/health/state/warning", [("node-meta", "p:${p}")]),
            ("/v1/coordinate/node/" + maker.pick(NODES), [])])
        steps.append({"method": "GET", "path": path,
                      "params": params + [("near", maker.pick(NODES + ["${p}n4", "nosuch"]))]})
    return steps


COORDINATE_SECONDS = 6

FAMILIES = {
    "kv": [("kv_put", 5), ("kv_get", 5), ("kv_delete", 2), ("session_create", 2),
           ("session_other", 2)],
    "session": [("session_create", 4), ("session_other", 6), ("kv_put", 2), ("kv_get", 1)],
    "txn": [("txn", 6), ("session_create", 1), ("kv_get", 2), ("catalog_read", 1)],
    "catalog": [("register", 5), ("deregister", 1), ("catalog_read", 8)],
    "agent": [("agent", 12), ("node_maintenance", 1)],
    "checks": [("agent_check_kinds", 6), ("agent", 6)],
    "filters": [("rich_register", 2), ("filtered", 8)],
    "forms": [("form", 20), ("kv_put", 1), ("rich_register", 1)],
    "bodies": [("odd_body", 6), ("what_came_of_it", 2)],
    "other": [("other", 8), ("coordinate", 1), ("register", 1), ("event", 2), ("autopilot", 2)],
    "near": None,  # these have an order of their own
    "indexes": None,
    "blocking": None,
    "expiry": None,
}


def sequence(random, family, length):
    if family == "near":
        return near(random, length)
    if family in ("indexes", "blocking", "expiry"):
        import waiting
        return getattr(waiting, family)(random, length)
    maker = Maker(random)
    names, weights = zip(*FAMILIES[family])
    return [getattr(maker, random.choices(names, weights)[0])() for _ in range(length)]


def dumps(step):
    """The body's bytes; None: no body."""
    if "json" in step:
        return json.dumps(step["json"])
    return step.get("body")
