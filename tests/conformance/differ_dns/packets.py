"""Questions as bytes. A question is a document, so that it can be stored and made simpler:

    name    text, labels apart by dots; any byte of a label as \\DDD
    type, class, id, flags (the header's second 16 bits), opcode
    counts  the four counts of the header, where they are to differ from what follows
    edns    {"size", "version", "do", "options": [[code, hex], ...], "again": the same once more,
            "other": the members of a second OPT record, "owner": its name, else the root}
    more    further questions, each [name, type, class]
    tail    bytes in hex that follow
    raw     all bytes in hex; everything else is ignored
    tcp     true: over TCP
"""
import re

QUERY_ID = 0x1234
OPT = 41
ESCAPE = re.compile(r"\\(\d{3})|(.)", re.S)


def labels(text):
    """The labels of a name's text, as bytes."""
    out, label = [], bytearray()
    for number, char in ESCAPE.findall(text):
        if char == ".":
            out.append(bytes(label))
            label = bytearray()
        else:
            label += bytes([int(number) & 0xff]) if number else char.encode()
    return out + [bytes(label)] if label else out


def text(data):
    """A label's text."""
    return "".join(chr(byte) if 0x20 < byte < 0x7f and byte not in b".\\" else "\\%03d" % byte
                   for byte in data)


def name(value):
    return b"".join(bytes([len(label) & 0xff]) + label for label in labels(value)) + b"\0"


def number(value, size=2):
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "big")


def opt_record(edns):
    options = b"".join(number(code) + number(len(bytes.fromhex(data))) + bytes.fromhex(data)
                       for code, data in edns.get("options", []))
    high = edns.get("version", 0) << 16 | (0x8000 if edns.get("do") else 0)
    return name(edns.get("owner", "")) + number(OPT) + number(edns.get("size", 1232)) + number(high, 4) + \
        number(len(options)) + options


def encode(question):
    if "raw" in question:
        return bytes.fromhex(question["raw"])
    asked = [[question.get("name", ""), question.get("type", 1), question.get("class", 1)]]
    asked += question.get("more", [])
    extra = b""
    extra_count = 0
    if question.get("edns") is not None:
        records = [question["edns"]] * (2 if question["edns"].get("again") else 1)
        records += [question["edns"]["other"]] if "other" in question["edns"] else []
        extra_count = len(records)
        extra = b"".join(opt_record(record) for record in records)
    counts = question.get("counts") or [len(asked), 0, 0, extra_count]
    flags = question.get("flags", 0) | question.get("opcode", 0) << 11
    head = number(question.get("id", QUERY_ID)) + number(flags)
    return head + b"".join(number(count) for count in (counts + [0] * 4)[:4]) + \
        b"".join(name(one) + number(kind) + number(family) for one, kind, family in asked) + \
        extra + bytes.fromhex(question.get("tail", ""))


def can_encode(question):
    """A question that was made smaller may have lost what it needs."""
    try:
        encode(question)
        return True
    except (TypeError, ValueError, AttributeError):
        return False
