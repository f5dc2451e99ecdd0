"""Random filter expressions over all selectors that Consul's documentation lists, by what is filtered.
Made from the documentation, not from our sources: a selector that we forgot is asked for."""

ADDRESS = {"Address": "string", "Port": "int"}
GATEWAY = {"Mode": "string"}
PROXY = {
    "DestinationServiceID": "string", "DestinationServiceName": "string",
    "LocalServiceAddress": "string", "LocalServicePort": "int", "MeshGateway": GATEWAY,
    "Expose": {"Checks": "bool", "Paths": [{"ListenerPort": "int", "LocalPathPort": "int",
                                            "Path": "string", "Protocol": "string"}]},
    "Upstreams": [{"Datacenter": "string", "DestinationName": "string", "LocalBindPort": "int",
                   "DestinationNamespace": "string", "DestinationType": "string",
                   "LocalBindAddress": "string", "MeshGateway": GATEWAY}]}
WEIGHTS = {"Passing": "int", "Warning": "int"}
NODE = {"Address": "string", "Datacenter": "string", "ID": "string", "Meta": ("map", "string"),
        "Node": "string", "TaggedAddresses": ("map", "string")}
SERVICE = {"Address": "string", "Connect": {"Native": "bool"}, "EnableTagOverride": "bool",
           "ID": "string", "Kind": "string", "Meta": ("map", "string"), "Port": "int", "Proxy": PROXY,
           "Service": "string", "TaggedAddresses": ("map", ADDRESS), "Tags": ["string"],
           "Weights": WEIGHTS}
INSTANCE = {"Address": "string", "Datacenter": "string", "ID": "string", "Node": "string",
            "NodeMeta": ("map", "string"), "ServiceAddress": "string",
            "ServiceConnect": {"Native": "bool"}, "ServiceEnableTagOverride": "bool",
            "ServiceID": "string", "ServiceKind": "string", "ServiceMeta": ("map", "string"),
            "ServiceName": "string", "ServicePort": "int", "ServiceProxy": PROXY,
            "ServiceTaggedAddresses": ("map", ADDRESS), "ServiceTags": ["string"],
            "ServiceWeights": WEIGHTS, "TaggedAddresses": ("map", "string")}
CHECK = {"CheckID": "string", "Name": "string", "Node": "string", "Notes": "string",
         "Output": "string", "ServiceID": "string", "ServiceName": "string",
         "ServiceTags": ["string"], "Status": "string", "Type": "string",
         "CreateIndex": None, "Definition": None}  # None: no selector
HEALTH = {"Node": NODE, "Service": SERVICE, "Checks": [CHECK]}

WORDS = ["${p}n1", "${p}n2", "${p}web", "${p}c1", "n1", "10.0.0.1", "10.0.0.9", "1.2.3.4", "prod", "a",
         "b", "A", "v1", "passing", "critical", "dc1", "x", "", "80", "1", "true", "web", "lan", "y z",
         "serfHealth", "ttl"]
NUMBERS = ["0", "1", "80", "8080", "-1", "10", "080", "0x50", "9223372036854775807",
           "9223372036854775808", "1.5", "x", "+1", "1e1"]
FLAGS = ["true", "false", "TRUE", "t", "0", "1", "True", "f", "yes", ""]
MAP_KEYS = ["env", "v", "lan", "wan", "${p}k", "nosuch", "a b", "x-y"]
PATTERNS = ["n[12]", "^.*$", "", "web|db", "a+", "[^a]", "(", "x{2,3}", "\\\\d+", "^$", ".", "[a", "a{100}",
            "^pass", "(pass|crit).*", "10[.]0", "*", "(?i)N1|PASS", "(?i:P)ass", "(?m)^web$", "(?s).+", "(?z)",
            "(?P<x>n)[12]", "\\\\bn1\\\\b", "\\\\An", "n\\\\z", "\\\\Q10.0\\\\E", "\\\\x6e1", "\\\\1561",
            "[[:alpha:]]+", "[[:^digit:]]", "[^\\\\w]", "[a-\\\\d]", "\u00e9", "^.$", "a{01}", "x{2}{3}",
            "((a+)+)+", "{2}", "a|*", "()", "(|n)+1", "\\\\8", "\\\\b"]


class Expressions:
    """Draws from `random`, which the caller owns."""

    def __init__(self, random):
        self.random = random

    def pick(self, values):
        return self.random.choice(values)

    def chance(self, probability):
        return self.random.random() < probability

    def selector(self, fields):
        """A path and the type that it ends at, from the root."""
        path, kind = [], fields
        while True:
            if isinstance(kind, dict):
                name = self.pick(sorted(kind))
                path.append(name if self.chance(0.97) else self.pick([name.lower(), name + "x", "1"]))
                kind = kind[name]
            elif isinstance(kind, tuple):
                if self.chance(0.2):
                    return path, "map"
                path.append(self.pick(MAP_KEYS))
                kind = kind[1]
            elif isinstance(kind, list):
                if not isinstance(kind[0], dict) or self.chance(0.2):
                    return path, "list"
                kind = kind[0]
            else:
                return path, kind or "string"
            if path and self.chance(0.03):
                return path, "cut short"

    def written(self, path):
        if self.chance(0.08):
            return "\"/%s\"" % "/".join(path)
        text = path[0]
        for piece in path[1:]:
            dotted = piece.replace("_", "").isalnum() and self.chance(0.85)
            text += "." + piece if dotted else "[\"%s\"]" % piece
        return text

    def value(self, kind):
        words = {"int": NUMBERS, "bool": FLAGS}.get(kind, WORDS) if self.chance(0.93) else \
            WORDS + NUMBERS + FLAGS
        word = self.pick(words)
        plain = word.isalnum() and not word[0].isdigit() or word.isdigit()
        if plain and self.chance(0.5):
            return word
        if word and self.chance(0.1):
            return "\"%s\"" % (self.pick(["\\%03o", "\\x%02x", "\\u%04x", "\\U%08x"]) % ord(word[0]) + word[1:])
        if self.chance(0.03):
            return self.pick(["db.example.com", "a.b.c.d.e.f.g.h.i.j", "a[\"b c\"].d", "\"\\ud800\"", "\"\\400\"",
                              "`a\rb`", "\"\\'\"", "not", "in", "-0", "\"\u00e9\""])
        return self.pick(["\"%s\"", "\"%s\"", "`%s`"]) % word

    def comparison(self, fields):
        path, kind = self.selector(fields)
        name = self.written(path)
        usual = {"string": ["==", "!=", "matches", "in", "empty"], "int": ["==", "!="],
                 "bool": ["==", "!="], "list": ["in", "empty", "contains"],
                 "map": ["in", "empty", "contains"]}.get(kind, ["=="])
        operator = self.pick(usual if self.chance(0.93) else ["==", "matches", "in", "empty", "contains"])
        negated = self.chance(0.3)
        if operator == "empty":
            return "%s is %sempty" % (name, "not " if negated else "")
        if operator == "in":
            return "%s %sin %s" % (self.value(kind), "not " if negated else "", name)
        if operator == "contains":
            return "%s %scontains %s" % (name, "not " if negated else "", self.value(kind))
        if operator == "matches":
            pattern = self.pick(["\"%s\"", "`%s`"]) % self.pick(PATTERNS)
            return "%s %smatches %s" % (name, "not " if negated else "", pattern)
        blank = self.pick([" ", " ", "", "  ", "\t"])
        return "%s%s%s%s%s" % (name, blank, operator, blank, self.value(kind))

    def expression(self, fields, depth=3):
        kind = self.random.random()
        if depth == 0 or kind < 0.5:
            return self.comparison(fields)
        if kind < 0.6:
            return "not %s" % self.expression(fields, depth - 1)
        if kind < 0.75:
            return "%s%s%s" % (self.pick(["(", "( "]), self.expression(fields, depth - 1),
                               self.pick([")", " )"]))
        return "%s %s %s" % (self.expression(fields, depth - 1), self.pick(["and", "or"]),
                             self.expression(fields, depth - 1))

    def filter(self, fields):
        text = self.expression(fields)
        if self.chance(0.06):  # broken somewhere
            at = self.random.randrange(len(text))
            text = text[:at] + self.pick(["", "(", ")", "\"", " ", "=", "!", ".", "[", "not ", "`"]) + \
                text[at + self.pick([0, 1, 2]):]
        return text
