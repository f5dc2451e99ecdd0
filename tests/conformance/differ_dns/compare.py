"""Answers made comparable. One answer becomes a summary: what does not depend on chance (`shape`), and
the sets of records. Servers shuffle records and, where an answer is cut, choose which are told; so where
two answers differ more are fetched, until what each server can answer is known well enough."""
import re

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rdatatype

# Client subnets are compared as bytes: dnspython refuses some that both servers echo.
dns.edns.register_type(dns.edns.GenericOption, dns.edns.OptionType.ECS)

SERIAL = re.compile(r"^(\S+ \d+ SOA \S+ \S+) \d+ ")
SECTIONS = ("answer", "authority", "additional")
FLAGS = (("qr", 0x8000), ("aa", 0x400), ("tc", 0x200), ("rd", 0x100), ("ra", 0x80), ("z", 0x40), ("ad", 0x20),
         ("cd", 0x10))


def masked(text, masks):
    text = SERIAL.sub(r"\1 <serial> ", text)
    for old, new in masks:
        text = text.replace(old, new)
    return text


def record(rrset, masks):
    if len(rrset) == 0:
        return rrset.to_text()
    return masked("%s %d %s %s" % (rrset.name.to_text(), rrset.ttl, dns.rdatatype.to_text(rrset.rdtype),
                                   rrset[0].to_text()), masks)


def types_in_order(records):
    """The types of records, as far as their order is not chance: a chain begins with its alias."""
    types = [text.split(" ")[2] for text in records]
    return types[:1] + sorted(types[1:]) if types[:1] == ["CNAME"] else sorted(types)


def target_of(text):
    parts = text.split(" ")
    return parts[6] if len(parts) > 6 and parts[2] == "SRV" else None


def summary(data, masks=()):
    """{"shape": ..., "records": {section: [text]}, "size": n}; for no answer {"shape": "silence"}."""
    if data is None:
        return {"shape": {"silence": True}, "records": {}, "size": 0}
    if len(data) < 12:
        return {"shape": {"bytes": data.hex()}, "records": {}, "size": len(data)}
    bits = int.from_bytes(data[2:4], "big")
    shape = {
        "id": data[:2].hex(),
        "flags": " ".join(name for name, bit in FLAGS if bits & bit),
        "opcode": bits >> 11 & 15,
        "rcode": bits & 15,
        "counts": [int.from_bytes(data[at:at + 2], "big") for at in (4, 6, 8, 10)],
    }
    try:
        message = dns.message.from_wire(data, one_rr_per_rrset=True, ignore_trailing=False)
    except (dns.exception.DNSException, ValueError, KeyError, AssertionError) as error:
        shape["undecodable"] = type(error).__name__
        return {"shape": shape, "records": {"bytes": [masked(data[12:].hex(), masks)]}, "size": len(data)}
    records = {}
    for name in SECTIONS:
        records[name] = [record(rrset, masks) for rrset in getattr(message, name)]
        shape[name] = " ".join(types_in_order(records[name]))
    shape["question"] = ["%s %d %d" % (one.name.to_text(), one.rdclass, one.rdtype) for one in message.question]
    if message.edns >= 0:
        shape["opt"] = {"size": message.payload, "flags": message.ednsflags, "version": message.edns,
                        "options": [[int(option.otype), option.to_wire().hex()] for option in message.options]}
    # Additional records stand in the order of what they belong to.
    targets = [target_of(text) for text in records["answer"]]
    owners = [text.split(" ")[0] for text in records["additional"] if " A" in text]
    places = [targets.index(owner) if owner in targets else -1 for owner in owners]
    shape["in order"] = places == sorted(places) or -1 in places
    return {"shape": shape, "records": records, "size": len(data)}


FIRST = ("rcode", "opcode", "flags", "question", "answer")


def rank(key):
    return FIRST.index(key) if key in FIRST else len(FIRST), key


def first_difference(one, other, path=""):
    """(path, one's, other's) of two documents, what tells most first; None: equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other), key=rank):
            found = first_difference(one.get(key), other.get(key), "%s.%s" % (path, key))
            if found:
                return found
        return None
    return None if one == other else (path or ".", one, other)


def same_at_once(one, other):
    """Whether two answers are equal but for the order of their records."""
    return one["shape"] == other["shape"] and set(one["records"]) == set(other["records"]) and \
        all(sorted(records) == sorted(other["records"][name]) for name, records in one["records"].items())


class Profile:
    """What a server was seen to answer to one question."""

    def __init__(self):
        self.shapes = {}
        self.records = {}
        self.sizes = set()

    def add(self, one):
        """Takes one answer in; whether it told anything new."""
        before = self.known()
        self.shapes[repr(sorted(one["shape"].items()))] = one["shape"]
        self.sizes.add(one["size"])
        for name, records in one["records"].items():
            self.records.setdefault(name, set()).update(records)
        return self.known() > before

    def known(self):
        return len(self.shapes) + sum(len(records) for records in self.records.values())

    def differs(self, other):
        """The first difference; None: each shape and record of one was seen of the other, too."""
        common = set(self.shapes) & set(other.shapes)
        if not common:
            mine, theirs = [profile.shapes[min(profile.shapes)] for profile in (self, other)]
            return first_difference(mine, theirs)
        for name in sorted(set(self.records) | set(other.records)):
            mine, theirs = self.records.get(name, set()), other.records.get(name, set())
            if mine != theirs:
                return (".records.%s" % name, sorted(mine - theirs)[:6], sorted(theirs - mine)[:6])
        return None

    def sizes_differ(self, other):
        if self.sizes & other.sizes or (min(self.sizes) <= max(other.sizes) and min(other.sizes) <= max(self.sizes)):
            return None
        return (".size", sorted(self.sizes)[:6], sorted(other.sizes)[:6])


SILENCE = repr([("silence", True)])
ROUNDS = (1, 4, 16, 64, 120)  # questions more, as long as there is a difference


def compare(ask_ours, ask_theirs, masks_ours=(), masks_theirs=(), sizes=True):
    """(first difference and the size of their largest answer, or None; how often it was asked). The two
    ask and return bytes or None."""
    ours, theirs = Profile(), Profile()
    asked = 0
    found = None
    for round_count in ROUNDS:
        news = False
        for _ in range(round_count):
            one, other = summary(ask_ours(), masks_ours), summary(ask_theirs(), masks_theirs)
            asked += 1
            news = ours.add(one) or news
            news = theirs.add(other) or news
            if asked == 1 and same_at_once(one, other) and (one["size"] == other["size"] or not sizes):
                return None, asked
        if SILENCE in ours.shapes or SILENCE in theirs.shapes:
            found = ours.differs(theirs)
            if found is not None and SILENCE in theirs.shapes and len(theirs.shapes) > 1:
                found = (".silence", sorted(ours.shapes)[:1], None)
            if found is None or asked > 1:
                break  # To wait for nothing takes long.
        found = ours.differs(theirs) or (ours.sizes_differ(theirs) if sizes else None)
        if found is None or (asked > (30 if found[0].startswith(".records") else 1) and not news):
            break  # Equal, or nothing new comes to light.
    return found and found + (max(theirs.sizes),), asked
