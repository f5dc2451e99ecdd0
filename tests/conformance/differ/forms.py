"""The same requests in odd forms: methods, paths, heads and bodies as clients, proxies and strangers
write them. Methods and targets are in test_differ.py's bounds: printable ASCII."""
import copy
import json

# Every endpoint that both have: its own method, and its path. What changes the server as a whole is
# not asked by its method: leave, reload, join, restore.
ENDPOINTS = [
    ("GET", "/v1/kv/${p}a"), ("PUT", "/v1/kv/${p}a"), ("DELETE", "/v1/kv/${p}a"), ("PUT", "/v1/txn"),
    ("PUT", "/v1/session/create"), ("PUT", "/v1/session/destroy/x"), ("PUT", "/v1/session/renew/x"),
    ("GET", "/v1/session/info/x"), ("GET", "/v1/session/node/node1"), ("GET", "/v1/session/list"),
    ("PUT", "/v1/catalog/register"), ("PUT", "/v1/catalog/deregister"),
    ("GET", "/v1/catalog/datacenters"), ("GET", "/v1/catalog/nodes"), ("GET", "/v1/catalog/services"),
    ("GET", "/v1/catalog/service/${p}web"), ("GET", "/v1/catalog/connect/${p}web"),
    ("GET", "/v1/catalog/node/${p}n1"), ("GET", "/v1/catalog/node-services/${p}n1"),
    ("GET", "/v1/health/node/${p}n1"), ("GET", "/v1/health/checks/${p}web"),
    ("GET", "/v1/health/service/${p}web"), ("GET", "/v1/health/state/critical"),
    ("GET", "/v1/health/connect/${p}web"), ("GET", "/v1/health/ingress/${p}web"),
    ("GET", "/v1/agent/services"), ("GET", "/v1/agent/service/${p}web"), ("GET", "/v1/agent/checks"),
    ("PUT", "/v1/agent/service/register"), ("PUT", "/v1/agent/service/deregister/x"),
    ("PUT", "/v1/agent/service/maintenance/x"), ("PUT", "/v1/agent/check/register"),
    ("PUT", "/v1/agent/check/deregister/x"), ("PUT", "/v1/agent/check/pass/x"),
    ("PUT", "/v1/agent/check/warn/x"), ("PUT", "/v1/agent/check/fail/x"),
    ("PUT", "/v1/agent/check/update/x"), ("GET", "/v1/agent/health/service/id/x"),
    ("GET", "/v1/agent/health/service/name/x"), ("PUT", "/v1/event/fire/${p}e"),
    ("GET", "/v1/event/list"), ("PUT", "/v1/coordinate/update"), ("GET", "/v1/coordinate/node/${p}n1"),
    ("GET", "/v1/status/leader"), ("GET", "/v1/status/peers"),
    ("GET", "/v1/operator/autopilot/configuration"), ("PUT", "/v1/operator/autopilot/configuration"),
]
BODY_PATHS = [path for method, path in ENDPOINTS if method == "PUT" and path.split("/")[-1] in
              ("txn", "create", "register", "deregister", "update", "configuration") or
              path.endswith("check/update/x")]

METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"]
HEADS = [("Content-Type", "application/x-www-form-urlencoded"), ("Content-Type", "text/plain"),
         ("Content-Type", "nonsense"), ("Content-Type", ""), ("Accept", "text/html"), ("Accept", "*/*"),
         ("X-Consul-Token", "x"), ("x-consul-token", ""), ("Authorization", "Bearer x"),
         ("Authorization", "Basic eDp5"), ("Authorization", "x"), ("Cache-Control", "max-age=5"),
         ("Cache-Control", "must-revalidate"), ("Cache-Control", "no-cache"),
         ("Cache-Control", "max-age=x"), ("Cache-Control", "stale-if-error=5"),
         ("Cache-Control", "max-age=1, stale-if-error=x"), ("Cache-Control", " max-age=0 ,  must-revalidate"),
         ("Host", "example.com"), ("Host", "a:99999"), ("Range", "bytes=0-1"), ("If-None-Match", "*"),
         ("If-Modified-Since", "Thu, 01 Jan 2026 00:00:00 GMT"), ("Origin", "http://x"),
         ("Expect", "100-continue"), ("Connection", "close"), ("Connection", "keep-alive, x"),
         ("X-HTTP-Method-Override", "DELETE"), ("Cookie", "a=b"), ("X-Forwarded-For", "1.2.3.4"),
         ("Referer", "x"), ("TE", "trailers"), ("Pragma", "no-cache"), ("X-A", "\u00fc"), ("X-B", "a\tb"),
         ("Accept-Encoding", "gzip"), ("Accept-Encoding", "gzip, deflate, br"), ("accept-encoding", "GZip ; q=0.5"),
         ("Accept-Encoding", "gzip;q=0"), ("Accept-Encoding", "identity;q=0, *"), ("Accept-Encoding", "gzip;q=x"),
         ("Accept-Encoding", "gzip,gzip;q=0"), ("Accept-Encoding", "br, x-gzip"), ("Accept-Encoding", "")]
PARAMS = [("pretty", None), ("pretty", "false"), ("stale", None), ("consistent", None), ("stale", "x"),
          ("cached", None), ("cached", ""), ("dc", ""), ("dc", "dc1"), ("dc", "DC1"), ("dc", "nosuch"),
          ("token", ""), ("token", "a b"), ("index", "+1"), ("index", " 1"), ("index", "0x1"),
          ("index", "18446744073709551616"), ("wait", "5"), ("wait", "-1s"), ("wait", "1e3ms"),
          ("wait", "1.5ms"), ("wait", ".5ms"), ("wait", "1h1"), ("wait", "\u00b5s"), ("wait", "10\u00b5s"),
          ("wait", "9999999999h"), ("max_stale", "-1s"), ("max_stale", "10"), ("max_stale", ""),
          ("near", "_agent"), ("node-meta", "a:b:c"), ("node-meta", ""), ("hash", "x"), ("%", None),
          ("a%", "b"), ("filter", ""), ("passing", "maybe"), ("tag", ""), ("enable", "1"), ("enable", "T"),
          ("reason", "\u00fc"), ("note", "\u00fc"), ("keys", "x"), ("raw", "false"), ("recurse", "0"),
          ("separator", "%"), ("cas", "+1"), ("cas", " 0"), ("flags", "0x10"), ("acquire", ""),
          ("release", ""), ("format", "text"), ("format", "TEXT"), ("replace-existing-checks", "x"),
          ("name", "${p}e"), ("node", "n.*"), ("service", "("), ("PRETTY", None), ("Index", "x")]


def odd_path(random, path):
    """The path, written in another way."""
    cut = random.randrange(1, len(path) + 1)
    slash = random.choice([at for at, char in enumerate(path) if char == "/"])
    # Not inside of the prefix's place holder.
    inside = "${p}" in path and path.index("${p}") < cut < path.index("${p}") + 4
    cut = len(path) if inside else cut
    letter = next((at for at in range(cut, len(path)) if path[at].isalpha() and
                   path[at - 1:at + 2] != "{p}"), None)
    ways = [path + "/", path + "//", path[:slash] + "/" + path[slash:], path[:slash] + "/." + path[slash:],
            path[:slash] + "/x/.." + path[slash:], path + "/..", path + "/.", "/." + path, "//" + path,
            path + "%00", path + "%2F", path + "%20", path + "+", path + ";a=b", path + "%", path + "%zz",
            path + "?", path + "??", path + "?a?b", path + "?&&", path + "?=", path + "?a=%zz", path + "?a=b;c=d",
            path + "#x", path + "/extra", path + "/%2e%2e/x", path[:cut] + "%2F" + path[cut:], path.upper()
            if "${p}" not in path else path, path[:cut] + "\\" + path[cut:], path + "%C3%BC", path + "%FF",
            path + "%7f", path + "%0a", path + "'\"<>", path + "/%2e", path + "~!$&*(),:@", path[:-1],
            path[1:] and path.replace("/v1/", "/v1//", 1), path.replace("/v1/", "/V1/", 1),
            path.replace("/v1/", "/v2/", 1), path.rpartition("/")[0], path.rpartition("/")[0] + "/"]
    if letter is not None:
        ways += [path[:letter] + "%%%02x" % ord(path[letter]) + path[letter + 1:],
                 path[:letter] + "%%%02X" % ord(path[letter]) + path[letter + 1:]] * 2
    return random.choice(ways)


# --- bodies ---

ODD_VALUES = [None, True, False, 0, 1, -1, 1.5, 1e22, 1e400, 2**31, 2**32, 2**63, 2**64, -2**63 - 1, "", "x",
              "1", "true", "5s", [], {}, [None], [1], ["x"], [[]], [{}], {"a": "b"}, {"a": 1}, {"": None},
              {"a": None}, {"a": {"b": "c"}}, "\u00fc", "\u0000", "\ud800", "a" * 300, "null"]


def members(value, path=()):
    """The paths of all members of all objects in a document, and of all elements."""
    if isinstance(value, dict):
        for key in value:
            yield path + (key,)
            yield from members(value[key], path + (key,))
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield path + (number,)
            yield from members(one, path + (number,))


def at(value, path):
    for part in path:
        value = value[part]
    return value


def another_case(random, key):
    snake = "".join("_" + char.lower() if char.isupper() else char for char in key).lstrip("_")
    return random.choice([key.lower(), key.upper(), snake, key[:1].lower() + key[1:], key.swapcase(),
                          key + "_", " " + key])


def odd_document(random, document):
    """Some members replaced, renamed, added. Changes `document`."""
    if random.random() < 0.05:
        return copy.deepcopy(random.choice(ODD_VALUES))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        paths = list(members(document))
        if not paths:
            return document
        path = random.choice(paths)
        parent, key = at(document, path[:-1]), path[-1]
        way = random.random()
        if way < 0.55 or not isinstance(parent, dict):
            value = copy.deepcopy(random.choice(ODD_VALUES))
            # Consul takes this for an id, and then nothing can take it away.
            parent[key] = value if value != "\u0000" or key not in ("ID", "CheckID", "Name") else ""
        elif way < 0.9:
            parent[another_case(random, key)] = parent.pop(key)
        else:
            parent[random.choice(["Odd", "", "ID", "Node", "Name", "Namespace", "CreateIndex", "a.b"])] = \
                copy.deepcopy(random.choice(ODD_VALUES))
    return document


def odd_text(random, text):
    """A document's text, no longer or hardly JSON."""
    cut = random.randrange(len(text) + 1)
    first = text.find("\"")
    name = text[first:text.find(":", first)] if text.find(":", first) > 0 else "\"x\""
    ways = [text[:cut], text + " ", text + "x", text + "{}", text + "\x00", "\ufeff" + text, "  \n\t" + text,
            text[:cut] + "\x01" + text[cut:], text.replace("\"", "'"), text.replace("}", ",}"),
            text.replace("}", ", \"Odd\": 1}", 1), text[:cut] + "/* x */" + text[cut:],
            text.replace("{", "{%s: 1, " % name, 1), text.replace("{", "{%s: null, " % name, 1),
            text.replace("{", "{%s: {}, %s: \"x\", " % (name, name.lower()), 1),
            text.replace("true", "True"), "[" * 9000, "{\"a\":" * 200,
            text.replace(" 0", " 00"), text.replace("1", "1.0"), text.replace("1", "1e0"), text.replace("1", "+1"),
            text.replace("1", "NaN"), text.replace("a", "\\u0061"), text.replace("a", "\\u00zz"),
            text.replace("a", "\\ud800\\udc00"), text.replace("a", "\\x61"), text.replace("a", "\\/"), "", " ",
            "null", "nul", "{", "[", "\"", "{}", "[]", "[{}]", "0", "-", "{}{}", "[null]", "{\"\": 1}", "\x00"]
    return random.choice(ways)


def text_of(document):
    return json.dumps(document)
