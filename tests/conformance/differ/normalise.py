"""What two servers answered, made comparable: identifiers, indexes, addresses and times are replaced
by names for what they are, so that two equal answers read the same."""
import json
import re

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
HEADERS = ("Content-Type", "Allow", "Location", "X-Consul-Knownleader",
           "X-Consul-Effective-Consistency", "X-Content-Type-Options", "Vary", "X-Cache",
           "Content-Encoding",
           "X-Consul-Lastcontact", "X-Consul-Reason", "Content-Security-Policy")
OWN_NODE = "node1"
INDEX_FIELDS = ("CreateIndex", "ModifyIndex")

# The parser's own words are not compared, only that and where it failed.
PARSER_TEXTS = [
    re.compile(r"^(Session TTL '.*' invalid: )time: .*", re.S),
    re.compile(r"^((?:Request decode failed|Failed to parse body|Failed to decode|"
               r"Failed to create boolean expression evaluator|Invalid wait time|"
               r"Failed to parse|failed to decompress snapshot|failed to read snapshot file|"
               r"Error decoding|Bad request: Failed to decode|"
               r"Bad request: Error parsing autopilot config)[^:]*: ?).*", re.S),
]


# Indexes inside of texts.
INDEX_TEXT = re.compile(r"(current modify index )\d+")


class Names:
    """One server's identifiers and addresses, named in the order in which they appear."""

    def __init__(self, replaced=()):
        self.uuids = {}
        self.replaced = [(text, name) for text, name in replaced if text]

    def text(self, text):
        for old, name in self.replaced:
            text = text.replace(old, name)
        text = INDEX_TEXT.sub(r"\1<index>", text)
        return UUID.sub(lambda found: self.uuid(found.group(0)), text)

    def uuid(self, text):
        return self.uuids.setdefault(text, "<uuid%d>" % (len(self.uuids) + 1))


class Index(int):
    """A Raft index, to be ranked among all that a server showed."""


def in_order(value):
    """Sessions are listed by id, which is drawn at random: by age instead."""
    if value and all(isinstance(one, dict) and "LockDelay" in one for one in value):
        return sorted(value, key=lambda one: one.get("CreateIndex", 0))
    return value


def walk(value, names, field=None):
    if isinstance(value, dict) and value and all(
            isinstance(one, list) and all(isinstance(tag, str) for tag in one)
            for one in value.values()):  # catalog/services: a set of tags in no order
        return {names.text(key): sorted(names.text(tag) for tag in value[key]) for key in value}
    if isinstance(value, dict) and value.get("Node") == OWN_NODE:
        # Registered, and told again, in an order of each server's own.
        value = {key: one for key, one in value.items() if key not in INDEX_FIELDS}
    if isinstance(value, dict):
        return {names.text(key): walk(value[key], names, key) for key in sorted(value)}
    if isinstance(value, list):
        return [walk(one, names, field) for one in in_order(value)]
    if isinstance(value, str):
        return names.text(value)
    if field in INDEX_FIELDS and isinstance(value, int) and not isinstance(value, bool):
        return Index(value)
    return value


def parser_text(text):
    for pattern in PARSER_TEXTS:
        found = pattern.match(text)
        if found:
            return found.group(1) + "..."
    return text


def body(raw, content_type, names):
    text = raw.decode("utf-8", "replace")
    if (content_type or "").startswith("application/json"):
        try:
            return walk(json.loads(text), names)
        except ValueError:
            return {"not JSON": names.text(text)}
    if (content_type or "").startswith("application/x-gzip"):
        return "<archive>"
    return names.text(parser_text(text))


def answer(status, headers, raw, names, index_counts=False):
    """One answer as a plain value. The index is compared for key-value reads, and in sequences that
    are about it: other tables move by themselves."""
    found = {name: names.text(headers[name]) for name in HEADERS if headers.get(name) is not None}
    if "X-Cache" in found:
        found["X-Cache"] = "<hit or miss>"
    index = headers.get("X-Consul-Index")
    if index is not None:
        found["X-Consul-Index"] = Index(index) if index_counts and status in (200, 404) else "<index>"
    redirect = status in (301, 307)  # the body repeats Location
    return {"status": status, "headers": found, "indented": raw[-1:] == b"\n",
            "body": None if redirect else body(raw, headers.get("Content-Type"), names)}


def collect(value, into):
    if isinstance(value, Index):
        into.add(int(value))
    elif isinstance(value, dict):
        for one in value.values():
            collect(one, into)
    elif isinstance(value, list):
        for one in value:
            collect(one, into)


def ranked(value, ranks):
    if isinstance(value, Index):
        return "<index %s>" % ranks.get(int(value), "?")
    if isinstance(value, dict):
        return {key: ranked(one, ranks) for key, one in value.items()}
    if isinstance(value, list):
        return [ranked(one, ranks) for one in value]
    return value


def histories(ours, theirs):
    """All answers of two servers with indexes as ranks: what is equal stays equal, what is later
    stays later, and how many numbers lie between does not matter. Indexes that only one of them
    showed, because the other one refused to answer, have no rank."""
    both = []
    for answers in (ours, theirs):
        seen = set()
        for number, one in enumerate(answers):
            if ours[number]["status"] == theirs[number]["status"]:
                collect(one, seen)
        ranks = {index: rank for rank, index in enumerate(sorted(seen))}
        both.append([ranked(one, ranks) for one in answers])
    return both


def difference(left, right, path=""):
    """Where two values differ first, as (path, left, right); None if they are equal."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(set(left) | set(right)):
            if key not in left or key not in right:
                return ("%s.%s" % (path, key), left.get(key, "<missing>"),
                        right.get(key, "<missing>"))
            found = difference(left[key], right[key], "%s.%s" % (path, key))
            if found:
                return found
        return None
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            return (path, left, right)
        for number, (one, other) in enumerate(zip(left, right)):
            found = difference(one, other, "%s[%d]" % (path, number))
            if found:
                return found
        return None
    same = left == right and isinstance(left, bool) == isinstance(right, bool)
    return None if same else (path, left, right)
