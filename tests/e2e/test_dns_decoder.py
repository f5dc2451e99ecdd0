"""Messages of all kinds, good and broken, to a server with a small catalog behind it: whatever it
answers can be read by a decoder that is not ours (dnspython), and fits who asked."""
import os
import random
import socket
import struct

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest

from cluster import DNS_PORT, ROOT, Cluster
from test_dns_clients import register

CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus", "dns")
SEED, MUTANTS = 20, 2500
SENTINEL = dns.message.make_query("n1.node.consul", "A", id=0xfffe).to_wire()


@pytest.fixture(scope="module")
def server():
    with Cluster(size=1, extra={"alt_domain": "alt.example",
                                "dns_config": {"enable_truncate": True}}) as cluster:
        one = cluster.servers[0]
        register(one, "n1", "10.7.0.1", "web", ["a.b", "Master"], Meta={"x": "y"},
                 TaggedAddresses={"lan_ipv6": {"Address": "2001:db8::1", "Port": 80}})
        register(one, "six", "2001:db8::6", "web", Address="www.example.org")
        register(one, "alias", "web.service.consul", "inside")
        register(one, "Odd_node.with.dots", "10.7.0.2", "web")
        register(one, "n" * 64, "10.7.0.3", "web")
        for i in range(1, 61):
            register(one, "m%d" % i, "10.7.1.%d" % i, "many", port=6000 + i)
        yield one


def whole_questions(draw):
    """Well-formed ones, of names and types that are there or nearly."""
    labels = ["consul", "alt", "example", "service", "node", "addr", "query", "connect", "dc1", "dc",
              "n1", "web", "many", "_web", "_tcp", "_Master", "a", "b", "six", "alias", "inside",
              "0a070001", "arpa", "in-addr", "10", "7", "0", "1", "x" * 63]
    kinds = ["A", "AAAA", "SRV", "TXT", "ANY", "SOA", "NS", "PTR", "MX", "CNAME", "TYPE65280", "AXFR"]
    for _ in range(MUTANTS):
        name = ".".join(draw.choice(labels) for _ in range(draw.randint(1, 6))) + draw.choice(
            ["", ".service.consul", ".node.consul", ".consul", ".alt.example"])
        options = {}
        if draw.random() < 0.6:
            options = {"use_edns": draw.choice([0, 0, 1]),
                       "payload": draw.choice([0, 512, 600, 1232, 4096, 65535])}
            if draw.random() < 0.4:
                options["options"] = [dns.edns.ECSOption("192.0.2.77", draw.randint(0, 32))]
        try:
            yield dns.message.make_query(name, draw.choice(kinds), **options).to_wire()
        except dns.exception.DNSException:
            continue  # the name is too long


def mutants(draw, messages):
    for _ in range(MUTANTS):
        message = bytearray(draw.choice(messages))
        for _ in range(draw.randint(1, 4)):
            if not message:
                break
            at = draw.randrange(len(message))
            kind = draw.randrange(4)
            if kind == 0:
                message[at] = draw.randrange(256)
            elif kind == 1:
                del message[at:at + draw.randint(1, 8)]
            elif kind == 2:
                message[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 8)))
            else:
                other = draw.choice(messages)
                message[at:] = other[draw.randrange(len(other) + 1):]
        yield bytes(message[:4000])


def messages():
    draw = random.Random(SEED)
    corpus = []
    for name in sorted(os.listdir(CORPUS)):
        with open(os.path.join(CORPUS, name), "rb") as file:
            corpus.append(file.read()[1:4001])  # the first byte chooses settings
    good = list(whole_questions(draw))
    return corpus + good + list(mutants(draw, corpus + good))


def check(question, answer, limit):
    """What holds for every answer, whatever the question."""
    assert len(answer) <= limit
    assert answer[:2] == question[:2] and answer[2] & 0x80
    if answer[2] >> 3 & 0xf not in (dns.opcode.QUERY, dns.opcode.NOTIFY):
        # The decoder knows only some of these: a header alone, that says so.
        assert len(answer) == 12 and answer[3] & 0xf == dns.rcode.NOTIMP
        assert answer[4:] == bytes(8)
        return dns.message.Message()
    decoded = dns.message.from_wire(answer)  # fails on what it cannot read, and on bytes behind
    assert decoded.rcode() < 6
    again = dns.message.from_wire(decoded.to_wire(max_size=65535))
    assert again == decoded
    for section in (decoded.answer, decoded.authority, decoded.additional):
        for records in section:
            assert records.rdtype != dns.rdatatype.OPT
    return decoded


def largest(question):
    """What the asker says that it takes."""
    try:
        decoded = dns.message.from_wire(question, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return 65535  # not readable for the decoder; ours may be more patient
    return max(512, decoded.payload) if decoded.edns >= 0 else 512


def test_every_answer_can_be_read_and_fits(server):
    answered = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(30)
        udp.connect((server.address, DNS_PORT))
        for message in messages():
            if message[:2] == SENTINEL[:2]:
                continue
            # One thread answers in order: if the known answer comes first, there is no other.
            udp.send(message)
            udp.send(SENTINEL)
            answer = udp.recv(65535)
            if answer[:2] == SENTINEL[:2]:
                assert len(message) < 12 or message[2] & 0x80, message
                continue
            assert len(message) >= 12 and not message[2] & 0x80, message
            assert udp.recv(65535)[:2] == SENTINEL[:2]
            answered.append((message, check(message, answer, largest(message))))
    assert len(answered) > MUTANTS
    rcodes = {decoded.rcode() for _, decoded in answered}
    assert rcodes == {0, 1, 2, 3, 4, 5}
    over_tcp(server, answered)


def over_tcp(server, answered):
    """The same, many in flight: in order, with the same codes, nothing cut."""
    with socket.create_connection((server.address, DNS_PORT), 30) as tcp:
        stream = tcp.makefile("rb")
        for at in range(0, len(answered), 50):
            some = answered[at:at + 50]
            tcp.sendall(b"".join(struct.pack("!H", len(message)) + message for message, _ in some))
            for message, other in some:
                size, = struct.unpack("!H", stream.read(2))
                decoded = check(message, stream.read(size), 65535)
                assert decoded.rcode() == other.rcode()
                assert not decoded.flags & dns.flags.TC
                assert len(decoded.answer) >= len(other.answer)
