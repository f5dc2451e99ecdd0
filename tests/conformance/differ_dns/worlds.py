"""What is registered, how the servers are set, and what is asked: random, by seed."""
import ipaddress

import packets

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, AXFR, ANY = \
    1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 252, 255

NODES = ["n1", "Node-2", "NODE3", "db.host", "under_score", "a" * 63, "x" * 64, "sp ace", "d\u00e9", "node",
         "service", "web.service", "-dash", "star*", 'quo"te', "semi;colon", "at@home",
         "final.", "123", "dc1", "consul", "(round)", "tab\there", "zero\u0001",
         "long" + ".label" * 20, "y" * 62 + "." + "z" * 63, "addr", "10.0.0.1", "_sip", "tick'", "dollar$"]
SERVICES = ["web", "Web", "db", "DB-2", "db-replica", "under_score", "dot.name", "s" * 63, "t" * 64, "consul",
            "a b", "node", "service", "_odd", "u\u00fc", "semi;", "at@", "web-", "0a000001", "tcp", "quo\"te"]
TAGS = ["master", "replica", "v1.2", "UPPER", "under_score", "tcp", "udp", "_t", "a b", "", "t" * 63, "x;y",
        "dot.", "m\u00e4ster", "master.web"]
IPS = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.168.7.77", "255.255.255.255", "0.0.0.0", "::1", "2001:db8::5",
       "2001:DB8::5", "fe80::1", "::ffff:10.0.0.9", "::", "127.0.0.1",
       "::ffff:a00:a", "0:0:0:0:0:FFFF:0A00:000B", "::10.0.0.12", "2001:0db8:0:0::5"]
HOSTS = ["host.example.com", "a.example", "b.example", "c.example", "d.example", "e.example", "f.example", "g.example",
          "Host.Example.COM", "host.example.com.", "localhost", "with space", "a..b", "x" * 64,
         "10.0.0.01", "10.0.0", "1.2.3.4.5", "fe80::1%lo", "[::1]", "-", "under_score.example",
         "long." * 45 + "example", "semi;colon.example", "at@example"]
TAGGED = ["lan", "wan", "lan_ipv4", "lan_ipv6", "wan_ipv4", "wan_ipv6", "other", "LAN_IPV4"]
META = [("env", "prod"), ("rfc1035-text", "plain value"), ("RFC1035-upper", "x=y"), ("k", ""), ("eq", "a=b"),
        ("quote", 'say "hi"'), ("back", "a\\b"), ("tick", "`x`"), ("long", "v" * 200), ("longer", "w" * 300),
        ("space", " lead and trail "), ("utf", "gr\u00fcn"), ("semi", "a;b"), ("key-1_2", "1"), ("d", "\\065\\"),
        ("rfc1035-long", "z" * 255), ("rfc1035-longer", "z" * 256), ("rfc1035-", "bare"), ("tab", "a\tb")]
STATES = ["passing"] * 6 + ["warning"] * 2 + ["critical"] * 2 + ["maintenance"] * 2 + ["odd", "", "Passing"]
TYPES = [A] * 8 + [AAAA] * 4 + [SRV] * 8 + [ANY] * 4 + [TXT] * 3 + [SOA, NS, PTR, CNAME, MX, 65, 257, 0, 99]
RARE_TYPES = [AXFR, 251, 253, 254, OPT, 3, 35, 48, 43, 46, 250, 65535, 256, 32769]
SIZES = [0, 1, 100, 511, 512, 513, 519, 520, 600, 800, 1232, 1400, 4096, 8192, 65535]
DURATIONS = ["0s", "1s", "1500ms", "10s", "1m30s", "1h"]


def chance(source, part):
    return source.random() < part


# --- settings: what a reload does not change ---

def settings(source):
    """Members of the configuration that servers are started with."""
    out = {"datacenter": source.choice(["dc1", "dc1", "dc1", "My-DC_2", "node", "service", "consul"])}
    if chance(source, 0.4):
        out["domain"] = source.choice(["consul.", "Consul", "example.com", "a.b.c.", "dc1.consul", "service",
                                       "in.addr.example", "x" * 63 + ".long", ".", "",
                                       ".".join(["l" * 63] * 3 + ["l" * 33]), "arpa", "_tcp", "query"])
    if chance(source, 0.5):
        out["alt_domain"] = source.choice(["alt", "Alt.", "test.consul", "sub.example.com", "x.consul", "com",
                                           "consul", "alt.node", "addr", "ns", ".", "a.consul", "c", "arpa",
                                           ".".join(["m" * 63] * 3 + ["m" * 33])])
    if chance(source, 0.3):
        out["translate_wan_addrs"] = True
    if chance(source, 0.3):
        out["node_meta"] = {"rack": "r1", "rfc1035-own": "text"}
    if chance(source, 0.2):
        # The address of "one" is known later; nobody listens at the other.
        out["recursors"] = source.choice([["one"], ["one"], ["127.0.0.1:9", "one"], ["one 127.0.0.1:9"]])
    if not out.get("domain", "consul").strip("."):
        out.pop("recursors", None)  # Consul then forwards every question.
    return out


def dns_config(source):
    """What a reload changes."""
    out = {}

    def maybe(part, name, values):
        if chance(source, part):
            out[name] = source.choice(values)
    maybe(0.3, "allow_stale", [True, False])
    maybe(0.2, "max_stale", ["1s", "87600h"])
    maybe(0.4, "node_ttl", DURATIONS)
    maybe(0.4, "enable_truncate", [True, False])
    maybe(0.3, "only_passing", [True, False])
    maybe(0.4, "udp_answer_limit", [1, 2, 3, 4, 8, 9, 100])
    maybe(0.3, "a_record_limit", [0, 1, 2, 5])
    maybe(0.3, "disable_compression", [True, False])
    maybe(0.3, "enable_additional_node_meta_txt", [True, False])
    maybe(0.1, "recursor_timeout", ["100ms"])
    maybe(0.1, "cache_max_age", ["0s", "10s"])
    if chance(source, 0.4):
        keys = [name.lower() for name in SERVICES if "." not in name] + ["*", "d*", "db*", "w*", "web*", "DB*", "Web"]
        out["service_ttl"] = {source.choice(keys): source.choice(DURATIONS) for _ in range(3)}
    if chance(source, 0.3):
        out["soa"] = {source.choice(["min_ttl", "refresh", "retry", "expire"]): source.choice([0, 1, 5, 7200])
                      for _ in range(2)}
    return out


# --- the catalog ---

def address(source, catalog):
    """Mostly one that is an address, now and then a name of ours or of others, or nonsense."""
    draw = source.random()
    if draw < 0.72:
        return source.choice(IPS)
    if draw < 0.80:
        return "10.1.%d.%d" % (source.randrange(3), source.randrange(256))
    if draw < 0.88:
        return source.choice(HOSTS)
    subject = source.choice([source.choice(catalog["nodes"]) + ".node", source.choice(catalog["services"]) + ".service",
                             source.choice(TAGS) + "." + source.choice(catalog["services"]) + ".service",
                             "0a000007.addr", "2" * 32 + ".addr", "nothing.here"])
    return subject + source.choice(["", "." + catalog["datacenter"], ".other"]) + "." + \
        source.choice(catalog["domains"]) + source.choice(["", "", "."])


def tagged(source, catalog):
    return {name: address(source, catalog) for name in source.sample(TAGGED, source.choice([1, 1, 2, 4]))}


def node(source, catalog, name):
    out = {"Node": name, "Address": address(source, catalog) if chance(source, 0.97) else ""}
    if chance(source, 0.3):
        # Addresses only: Consul mistakes host names here.
        out["TaggedAddresses"] = {tag: source.choice(IPS) for tag in tagged(source, catalog)}
    if chance(source, 0.4):
        out["NodeMeta"] = dict(source.sample(META, source.choice([1, 1, 2, 5])))
    return out


def check(source, node_name, service_id, number):
    state = source.choice(STATES)
    kind = "_service_maintenance:" + service_id if service_id else "_node_maintenance"
    out = {"Node": node_name, "CheckID": kind if state == "maintenance" else "c%d" % number,
           "Status": "critical" if state == "maintenance" else state, "Name": "check"}
    if service_id:
        out["ServiceID"] = service_id
    return out


def instance(source, catalog, service, number):
    out = {"ID": "%s-%d" % (service, number) if chance(source, 0.8) else service, "Service": service}
    if chance(source, 0.8):
        out["Port"] = source.choice([5432, 6432, 80, 0, 65535, 8080])
    if chance(source, 0.6):
        out["Tags"] = source.sample(TAGS, source.choice([1, 1, 2, 3]))
    if chance(source, 0.5):
        out["Address"] = address(source, catalog)
    if chance(source, 0.3):
        out["TaggedAddresses"] = {name: {"Address": one, "Port": source.choice([0, 1, 7000])}
                                  for name, one in tagged(source, catalog).items()}
    if chance(source, 0.4):
        out["Weights"] = {"Passing": source.choice([1, 2, 10, 65535]), "Warning": source.choice([0, 1, 3])}
    return out


def catalog_steps(source, settings_used):
    """(steps that register, what there is)."""
    domain = settings_used.get("domain", "consul").strip(".")
    catalog = {
        "nodes": source.sample(NODES, source.choice([1, 2, 3, 5])),
        "services": source.sample(SERVICES, source.choice([1, 2, 3])),
        "domains": [domain, domain, settings_used.get("alt_domain", domain).strip(".")],
        "datacenter": settings_used["datacenter"],
        "ips": list(IPS),
    }
    steps = []
    for name in catalog["nodes"]:
        steps.append(register(node(source, catalog, name)))
    instances = source.choice([1, 3, 5, 5, 12])
    if chance(source, 0.05):
        instances = source.choice([40, 60])
    for number in range(instances):
        name = source.choice(catalog["nodes"])
        service = instance(source, catalog, source.choice(catalog["services"]), number)
        steps.append(register({"Node": name, "SkipNodeUpdate": True, "Service": service}))
        if chance(source, 0.3):
            steps.append(register({"Node": name, "SkipNodeUpdate": True,
                                   "Check": check(source, name, service["ID"], number)}))
        if service.get("Address"):
            catalog["ips"].append(service["Address"])
        catalog["ips"] += [one["Address"] for one in service.get("TaggedAddresses", {}).values()]
    if chance(source, 0.3):
        name = source.choice(catalog["nodes"])
        steps.append(register({"Node": name, "SkipNodeUpdate": True, "Check": check(source, name, "", 900)}))
    if chance(source, 0.2):
        steps.append({"do": "agent", "path": "/v1/agent/service/register",
                      "json": {"Name": source.choice(catalog["services"]), "ID": "own", "Port": 1234,
                               "Tags": source.sample(TAGS, 1)}})
    if chance(source, 0.1):
        steps.append({"do": "agent", "path": "/v1/agent/service/maintenance/own?enable=true", "json": None})
    return steps, catalog


def register(document):
    return {"do": "register", "json": document}


def change(source, catalog, steps):
    """One more step: something registered comes again otherwise, or goes."""
    name = source.choice(catalog["nodes"])
    instances = [step["json"] for step in steps if step["do"] == "register" and "Service" in step["json"]]
    draw = source.random()
    if draw < 0.25 or not instances:
        return register(node(source, catalog, name))
    one = source.choice(instances)
    service = one["Service"]
    if draw < 0.5:
        return register({"Node": one["Node"], "SkipNodeUpdate": True,
                         "Check": check(source, one["Node"], service["ID"], source.randrange(3))})
    if draw < 0.6:
        return register({"Node": name, "SkipNodeUpdate": True, "Check": check(source, name, "", 900)})
    if draw < 0.8:
        again = dict(instance(source, catalog, service["Service"], 0), ID=service["ID"])
        return register({"Node": one["Node"], "SkipNodeUpdate": True, "Service": again})
    gone = {"Node": one["Node"]}
    if draw < 0.95:
        gone["ServiceID"] = service["ID"]
    return {"do": "deregister", "json": gone}


# --- questions ---

def mixed_case(source, text):
    way = source.random()
    if way < 0.6:
        return text
    if way < 0.75:
        return text.upper()
    return "".join(char.swapcase() if chance(source, 0.5) else char for char in text)


def escaped(text):
    """Registered text as labels: its dots part them."""
    return "".join(char if char == "." else packets.text(char.encode()) for char in text)


def datacenter(source, catalog):
    own = catalog["datacenter"]
    return source.choice(["", "", "", "", own, own, own.upper(), "other", own + ".extra", "extra." + own,
                          "dc1", own + ".dc", "x" * 63])


def reverse(source, catalog):
    text = source.choice(catalog["ips"])
    try:
        pointer = ipaddress.ip_address(text).reverse_pointer
    except ValueError:
        pointer = source.choice(["1.0.0.10.in-addr.arpa", "1.in-addr.arpa", "in-addr.arpa", "arpa",
                                 "x.1.0.0.10.in-addr.arpa", "256.0.0.10.in-addr.arpa",
                                 "01.0.0.10.in-addr.arpa", "ip6.arpa", "1.2.ip6.arpa",
                                 "g." + "0." * 31 + "ip6.arpa", "00." + "0." * 31 + "ip6.arpa", "9.0.0.10.in-addr.arpa",
                                 ".".join(reversed("00000000000000000000ffff0a000009")) + ".ip6.arpa"])
    return pointer


def subject(source, catalog):
    """What stands below the domain, the datacenter not yet with it."""
    node_name = escaped(source.choice(catalog["nodes"] * 4 + ["node1", "missing"]))
    service = escaped(source.choice(catalog["services"] * 5 + ["consul", "missing", "WEB"]))
    tag = escaped(source.choice(TAGS))
    forms = [
        (8, node_name + ".node"), (10, service + ".service"), (8, tag + "." + service + ".service"),
        (5, "_" + service + "._" + tag + ".service"), (2, "_" + service + "._" + tag),
        (3, "_" + service + "._tcp.service"), (1, "_" + service + "._tcp"), (1, "_" + service + "._TCP.service"),
        (1, "_" + service + "._.service"), (1, "_._tcp.service"), (1, "_" + service + ".service"),
        (1, "_" + service + "._a._b.service"), (1, "_" + service + ".tag.service"),
        (1, "a.b." + service + ".service"), (1, service + ".query"), (1, service + ".connect"),
        (1, service + ".ingress"), (1, service + ".virtual"), (1, "service"), (1, "node"), (1, "addr"),
        (2, "0a000001.addr"), (1, "0A00000f.addr"), (1, "2" * 32 + ".addr"), (1, "0a00001.addr"),
        (1, "zzzzzzzz.addr"), (1, "2" * 33 + ".addr"), (1, "x.0a000001.addr"), (1, "0" * 20 + "ffff0a000001.addr"),
        (1, "\\000.addr"), (1, "0a0000\\195\\169.addr"),
        (1, service), (1, node_name), (1, "ns"), (1, "hostmaster"), (1, ""), (1, "_tcp"),
        (1, "\\046" + service + ".service"), (1, service + "\\046x.node"), (1, service + "\\000.service"),
        (1, "_\\195\\169._\\000.service"), (1, ("l" * 50 + ".") * 4 + "node"), (1, "x" * 63 + ".service"),
        (1, node_name + ".node.service"), (1, service + ".service.node"), (1, "a.connect.service"),
        (1, service + ".service.addr"), (1, "_" + service + "._tcp.node"), (1, "_x.y"), (1, tag + ".query"),
    ]
    return source.choices([form for _, form in forms], [weight for weight, _ in forms])[0]


def padded(source, name):
    """With labels put before it until it has about as many bytes as a name may have, or one more."""
    wanted = source.choice([253, 254, 255, 255, 256])
    while wanted - len(packets.name(name)) > 1:
        size = min(63, wanted - len(packets.name(name)) - 1)
        name = "p" * size + "." + name
    return name


def asked_name(source, catalog):
    draw = source.random()
    if draw < 0.05:
        return source.choice(["example.com", "a.example", "B.example", "d.example", "", "com",
                              "consul.example", "xconsul", "web.service", "x.consul.", "a" * 63])
    if draw < 0.13:
        return mixed_case(source, reverse(source, catalog))
    name = subject(source, catalog)
    place = datacenter(source, catalog)
    parts = [part for part in (name, place, source.choice(catalog["domains"])) if part]
    whole = ".".join(parts)
    return mixed_case(source, padded(source, whole) if chance(source, 0.03) else whole)


def subnet(source):
    family, address_bytes = source.choice([(1, b"\x0a\x01\x02\x03"), (2, bytes(range(16))), (3, b"abc"), (0, b"")])
    bits = source.choice([0, 1, 8, 17, 24, 32, 33, 56, 128, 129, 255])
    data = address_bytes[:(bits + 7) // 8] if chance(source, 0.8) else address_bytes[:source.randrange(17)]
    return packets.number(family) + bytes([bits, source.choice([0, 0, 0, 24])]) + data


def edns(source):
    out = {"size": source.choice(SIZES)}
    if chance(source, 0.3):
        out["do"] = True
    if chance(source, 0.05):
        out["version"] = source.choice([1, 255])
    options = []
    if chance(source, 0.3):
        options.append([8, subnet(source).hex()])
    if chance(source, 0.15):
        options.append(source.choice([[10, "0011223344556677"], [3, ""], [12, "00" * 20], [65001, "abcd"],
                                      [8, ""], [8, "00"], [11, "0000"], [9, "00000001"], [5, "0708"]]))
    if options:
        out["options"] = options
    if chance(source, 0.03):
        out["again"] = True
    elif chance(source, 0.03):
        out["other"] = {"size": source.choice(SIZES), "options": source.choice([[], [[8, subnet(source).hex()]]])}
    if chance(source, 0.02):
        out["owner"] = source.choice(["x", "example.com"])
    return out


def question(source, catalog):
    out = {"name": asked_name(source, catalog),
           "type": source.choice(TYPES) if chance(source, 0.95) else source.choice(RARE_TYPES)}
    if chance(source, 0.05):
        out["class"] = source.choice([3, 4, 254, 255, 0, 65535])
    if chance(source, 0.5):
        out["flags"] = 0x0100
    elif chance(source, 0.15):
        out["flags"] = source.choice([0x0010, 0x0020, 0x0040, 0x0400, 0x0200, 0x0080, 0x000f, 0x07f0, 0x0110,
                                      0x8000])
    if chance(source, 0.02):
        out["opcode"] = source.choice([1, 2, 3, 4, 4, 5, 6, 15])
    if chance(source, 0.45):
        out["edns"] = edns(source)
    if chance(source, 0.3):
        out["tcp"] = True
    if chance(source, 0.01):
        out["more"] = [[asked_name(source, catalog), A, 1]]
    if chance(source, 0.02):
        out["counts"] = source.choice([[0, 0, 0, 0], [2, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1],
                                       [1, 0, 0, 3], [1, 2, 0, 0], [1, 0, 2, 0], [1, 0, 0, 2], [1, 0, 0, 65535],
                                       [65535] * 4, [1, 1, 1, 2]])
    if chance(source, 0.02):
        out["tail"] = bytes(source.randrange(256) for _ in range(source.choice([1, 3, 12, 40]))).hex()
    if chance(source, 0.03):
        return {"raw": damaged(source, packets.encode(out)).hex(), **({"tcp": True} if chance(source, 0.2) else {})}
    return out


def damaged(source, data):
    """One to three things done to the bytes."""
    data = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 3])):
        at = source.randrange(len(data) + 1)
        way = source.randrange(5)
        if way == 0:
            del data[at:]
        elif way == 1 and at < len(data):
            data[at] = source.choice([0, 0xc0, 0xff, 0x40, 0x80, 63, 64, source.randrange(256)])
        elif way == 2:
            data[at:at] = source.choice([b"\xc0\x0c", b"\xc0\x00", b"\xff\xff", b"\x00", b"\x3f", bytes(12)])
        elif way == 3:
            del data[at:at + source.choice([1, 2, 4])]
        else:
            data[at:at] = data[12:at]
    return bytes(data[:65535])
