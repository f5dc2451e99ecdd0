#!/usr/bin/python3
"""The parts of the tester for DNS, without servers: what it takes for equal, and what it asks."""
import json
import os
import random
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "differ")]

import dns.flags  # noqa: E402
import dns.message  # noqa: E402
import dns.rrset  # noqa: E402

import compare  # noqa: E402
import dns_accepted  # noqa: E402
import packets  # noqa: E402
import upstream  # noqa: E402
import worlds  # noqa: E402


def answer(*records, name="web.service.consul.", flags=dns.flags.AA, rcode=0, additional=(), size=None):
    """An answer's bytes; a record is (type, data) or (type, data, TTL)."""
    message = dns.message.make_response(dns.message.make_query(name, "A", use_edns=size is not None, payload=size))
    message.id = packets.QUERY_ID
    message.flags |= flags
    message.set_rcode(rcode)
    for section, wanted in ((message.answer, records), (message.additional, additional)):
        for kind, data, *ttl in wanted:
            owner = name if section is message.answer else "n1.node.dc1.consul."
            section.append(dns.rrset.from_text(owner, ttl[0] if ttl else 0, "IN", kind, data))
    return message.to_wire()


def same(ours, theirs):
    """Whether two servers with these answers, told in turn, are taken for equal."""
    turns = [iter(side * 500) for side in (ours, theirs)]
    found, _ = compare.compare(*[lambda turn=turn: next(turn) for turn in turns])
    return found is None


ONE, TWO, THREE = [("A", "10.0.0.%d" % number) for number in (1, 2, 3)]
SOA = "ns.consul. hostmaster.consul. %d 3600 600 86400 0"


class Compare(unittest.TestCase):
    def test_order_does_not_count(self):
        self.assertTrue(same([answer(ONE, TWO)], [answer(TWO, ONE)]))

    def test_everything_else_counts(self):
        other = [answer(ONE), answer(ONE, THREE), answer(ONE, TWO, flags=0), answer(ONE, TWO, rcode=3),
                 answer(ONE, ("A", "10.0.0.2", 5)), answer(ONE, TWO, additional=[ONE]), answer(ONE, TWO, size=512),
                 answer(ONE, TWO, flags=dns.flags.AA | dns.flags.TC), answer(ONE, TWO, name="WEB.service.consul."),
                 None, b"short", answer(ONE, TWO)[:-1]]
        for one in other:
            self.assertFalse(same([answer(ONE, TWO)], [one]), one)
            self.assertFalse(same([one], [answer(ONE, TWO)]), one)

    def test_sizes_count(self):
        packed = answer(ONE)
        owner = dns.message.from_wire(packed).question[0].name.to_wire()
        self.assertIn(b"\xc0\x0c", packed)
        self.assertFalse(same([packed], [packed.replace(b"\xc0\x0c", owner)]))

    def test_parts_of_one_set_are_equal(self):
        parts = [answer(ONE, TWO), answer(TWO, THREE), answer(THREE, ONE)]
        self.assertTrue(same(parts, list(reversed(parts))))
        self.assertFalse(same(parts[1:], parts[:1]))
        self.assertFalse(same(parts, [answer(ONE), answer(TWO), answer(THREE)]))

    def test_serials_are_times(self):
        self.assertTrue(same([answer(("SOA", SOA % 1))], [answer(("SOA", SOA % 2))]))

    def test_an_alias_comes_first(self):
        alias = ("CNAME", "x.example.")
        self.assertFalse(same([answer(alias, ONE)], [answer(ONE, alias)]))

    def test_own_addresses_are_alike(self):
        sides = [compare.summary(answer(("A", address)), [(address, "<own>")])
                 for address in ("127.1.1.1", "127.2.2.2")]
        self.assertTrue(compare.same_at_once(*sides))


class Packets(unittest.TestCase):
    def test_a_plain_question_is_what_dnspython_makes(self):
        query = dns.message.make_query("web.service.consul.", "SRV", use_edns=0, payload=1232)
        query.id = packets.QUERY_ID
        self.assertEqual(packets.encode({"name": "web.service.consul", "type": 33, "flags": 0x100,
                                         "edns": {"size": 1232}}), query.to_wire())

    def test_names_may_hold_anything(self):
        self.assertEqual(packets.name("a\\000b.\\046"), b"\3a\0b\1.\0")
        self.assertEqual(packets.name(""), b"\0")
        for byte in range(256):
            self.assertEqual(packets.labels(packets.text(bytes([byte]))), [bytes([byte])])

    def test_opt_records_may_be_several_and_have_names(self):
        one, other = packets.opt_record({"size": 600}), packets.opt_record({"size": 700})
        self.assertTrue(packets.encode({"edns": {"size": 600, "other": {"size": 700}}}).endswith(one + other))
        self.assertTrue(packets.encode({"edns": {"size": 600, "owner": "x"}}).endswith(b"\1x" + one))

    def test_lies_and_rubbish_are_written_as_told(self):
        self.assertEqual(packets.encode({"raw": "00ff"}), b"\0\xff")
        self.assertEqual(packets.encode({"counts": [7], "tail": "abcd"})[4:12], b"\0\7" + bytes(6))
        self.assertFalse(packets.can_encode({"edns": {"options": [["8"]]}}))


class Upstream(unittest.TestCase):
    def test_equal_questions_get_equal_answers_of_all_kinds(self):
        said = set()
        for number in range(200):
            query = packets.encode({"name": "n%d.example" % number})
            self.assertEqual(upstream.answer(query), upstream.answer(query))
            message = dns.message.from_wire(upstream.answer(query))
            said.add((message.rcode(), len(message.answer)))
        self.assertGreater(len(said), 4)
        self.assertIsNone(upstream.answer(b"rubbish"))


class Worlds(unittest.TestCase):
    def world(self, seed):
        source = random.Random(seed)
        settings = worlds.settings(source)
        steps, catalog = worlds.catalog_steps(source, settings)
        return [settings, worlds.dns_config(source), steps] + [worlds.question(source, catalog) for _ in range(40)]

    def test_a_seed_gives_the_same_again(self):
        for seed in range(20):
            self.assertEqual(json.dumps(self.world(seed)), json.dumps(self.world(seed)))

    def test_every_question_can_be_sent(self):
        for seed in range(40):
            for question in self.world(seed)[3:]:
                self.assertLessEqual(len(packets.encode(json.loads(json.dumps(question)))), 65535)

    def test_all_kinds_are_asked(self):
        asked = [question for seed in range(60) for question in self.world(seed)[3:]]
        for member in ("tcp", "edns", "raw", "counts", "tail", "opcode", "class", "more"):
            self.assertTrue(any(member in question for question in asked), member)
        for word in (".node.", ".service.", ".addr.", "in-addr", "ip6", "_tcp"):
            self.assertTrue(any(word in question.get("name", "").lower() for question in asked), word)


    def test_names_reach_their_limit_and_pass_it(self):
        sizes = {len(packets.name(question["name"])) for seed in range(200) for question in self.world(seed)[3:]
                 if "name" in question}
        self.assertLessEqual({255, 256}, sizes)

    def test_the_catalog_changes_in_all_ways(self):
        source = random.Random(1)
        steps, catalog = worlds.catalog_steps(source, worlds.settings(source))
        changes = [worlds.change(source, catalog, steps) for _ in range(200)]
        self.assertEqual({step["do"] for step in changes}, {"register", "deregister"})
        for member in ("Service", "Check", "Address", "ServiceID"):
            self.assertTrue(any(member in step["json"] for step in changes), member)


class Accepted(unittest.TestCase):
    def test_what_is_accepted_is_narrow(self):
        question = {"name": "web.service.consul"}
        settings = {"datacenter": "dc1"}
        for found in ((".rcode", 0, 3), (".answer", "A", ""), (".records.answer", ["a 0 A 1"], ["a 0 A 2"]),
                      (".flags", "qr aa", "qr aa tc"), (".size", [100], [90]), (".rcode", None, 0)):
            self.assertFalse(dns_accepted.explains(question, [], found + (100,), settings), found)

    def test_nodes_without_an_address_are_those_that_have_none(self):
        def step(do, **document):
            return {"do": do, "json": dict(document, Node="n1")}
        plain, check = step("register", Address="10.0.0.1"), step("register", SkipNodeUpdate=True, Check={})
        gone = step("deregister")
        for steps, expected in (([plain], False), ([plain, check], False), ([check], True),
                                ([plain, gone, check], True), ([step("register"), plain], False)):
            self.assertEqual(dns_accepted.nodes_without_an_address({}, steps, (".answer", "", "CNAME"), {}), expected)


if __name__ == "__main__":
    unittest.main()
