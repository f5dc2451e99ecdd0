#!/usr/bin/env python3
"""The differ's own parts, without servers: what it takes for equal, and what it makes of a failure."""
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import accepted  # noqa: E402
import normalise  # noqa: E402
import sequences  # noqa: E402
import servers  # noqa: E402
import shrink  # noqa: E402

JSON = {"Content-Type": "application/json"}
FIRST = "11111111-1111-1111-1111-111111111111"
SECOND = "22222222-2222-2222-2222-222222222222"


def answers(*bodies, address="10.0.0.1", headers=None):
    names = normalise.Names([(address, "ADDR")])
    return [normalise.answer(200, headers or JSON, body.encode(), names, True) for body in bodies]


def differ(ours, theirs):
    ours, theirs = normalise.histories(ours, theirs)
    for one, other in zip(ours, theirs):
        found = normalise.difference(one, other)
        if found:
            return found
    return None


class Normalising(unittest.TestCase):
    def test_identifiers_are_equal_by_order_of_appearance(self):
        ours = answers('{"ID": "%s"}' % FIRST, '[{"ID": "%s"}]' % FIRST)
        same = answers('{"ID": "%s"}' % SECOND, '[{"ID": "%s"}]' % SECOND)
        other = answers('{"ID": "%s"}' % SECOND, '[{"ID": "%s"}]' % FIRST)
        self.assertIsNone(differ(ours, same))
        self.assertEqual(differ(ours, other)[0], ".body[0].ID")

    def test_indexes_are_equal_by_rank(self):
        ours = answers('{"CreateIndex": 5, "ModifyIndex": 9}', '{"ModifyIndex": 9}')
        self.assertIsNone(differ(ours, answers('{"CreateIndex": 50, "ModifyIndex": 51}',
                                               '{"ModifyIndex": 51}')))
        self.assertIsNotNone(differ(ours, answers('{"CreateIndex": 50, "ModifyIndex": 50}',
                                                  '{"ModifyIndex": 50}')))
        self.assertIsNotNone(differ(ours, answers('{"CreateIndex": 50, "ModifyIndex": 51}',
                                                  '{"ModifyIndex": 52}')))

    def test_the_index_header_of_a_key_is_ranked_with_the_indexes_in_bodies(self):
        one = answers('{"ModifyIndex": 7}', headers=dict(JSON, **{"X-Consul-Index": "7"}))
        other = answers('{"ModifyIndex": 8}', headers=dict(JSON, **{"X-Consul-Index": "9"}))
        self.assertIsNotNone(differ(one, other))

    def test_null_and_empty_and_missing_and_types_are_told_apart(self):
        for one, other in (("null", "[]"), ("[]", "{}"), ('{"a": null}', "{}"), ("1", "true"),
                           ('"1"', "1"), ('["a"]', '["a", "b"]'), ('["a", "b"]', '["b", "a"]')):
            self.assertIsNotNone(differ(answers(one), answers(other)), (one, other))

    def test_the_order_of_members_does_not_count(self):
        self.assertIsNone(differ(answers('{"a": 1, "b": 2}'), answers('{"b": 2, "a": 1}')))

    def test_statuses_and_headers_and_texts_count(self):
        names = normalise.Names()
        text = {"Content-Type": "text/plain"}
        base = normalise.answer(500, text, b"No path", names)
        for other in (normalise.answer(400, text, b"No path", names),
                      normalise.answer(500, {}, b"No path", names),
                      normalise.answer(500, text, b"no path", names)):
            self.assertIsNotNone(differ([base], [other]))

    def test_a_parser_s_own_words_do_not_count(self):
        names = normalise.Names()
        texts = [b"Request decode failed: x", b"Request decode failed: y", b"Invalid index"]
        one, same, other = [normalise.answer(400, {}, text, names) for text in texts]
        self.assertIsNone(differ([one], [same]))
        self.assertIsNotNone(differ([one], [other]))

    def test_addresses_are_named(self):
        self.assertIsNone(differ(answers('"10.0.0.1:1"'), answers('"10.0.0.2:1"', address="10.0.0.2")))

    def test_sessions_are_compared_by_age_not_by_id(self):
        session = '{"ID": "%s", "Name": "%s", "LockDelay": 1, "CreateIndex": %d}'
        ours = "[%s, %s]" % (session % (FIRST, "a", 1), session % (SECOND, "b", 2))
        theirs = "[%s, %s]" % (session % (FIRST, "b", 2), session % (SECOND, "a", 1))
        self.assertIsNone(differ(answers(ours), answers(theirs)))


class Shrinking(unittest.TestCase):
    def test_only_what_is_needed_is_left(self):
        steps = [{"path": "/%d" % number, "params": [("x", "1"), ("y", "2")],
                  "json": {"a": [1, 2], "b": 3}} for number in range(20)]

        def fails(candidate):
            paths = {step["path"] for step in candidate}
            last = [step for step in candidate if step["path"] == "/13"]
            return "/4" in paths and bool(last) and ("y", "2") in last[0]["params"] and \
                2 in (last[0]["json"] or {}).get("a", [])

        self.assertTrue(fails(steps))
        left = shrink.shrink(steps, fails, tries=1000)
        self.assertEqual([step["path"] for step in left], ["/4", "/13"])
        self.assertEqual(left[0]["params"], [])
        self.assertEqual(left[1], {"path": "/13", "params": [("y", "2")], "json": {"a": [2]}})

    def test_the_tries_are_bounded_and_the_result_still_fails(self):
        steps = [{"path": "/%d" % number} for number in range(50)]
        count = [0]

        def fails(candidate):
            count[0] += 1
            return {"path": "/7"} in candidate

        left = shrink.shrink(steps, fails, tries=10)
        self.assertLessEqual(count[0], 10)
        self.assertIn({"path": "/7"}, left)


class Sequences(unittest.TestCase):
    def test_a_seed_gives_the_same_requests_again(self):
        for family in sequences.FAMILIES:
            one, other = [sequences.sequence(random.Random(7), family, 30) for _ in range(2)]
            self.assertEqual(one, other)

    def test_every_request_is_well_formed(self):
        for seed in range(50):
            for family in sequences.FAMILIES:
                for step in sequences.sequence(random.Random(seed), family, 20):
                    if "sleep" in step:
                        continue
                    self.assertTrue(step["path"].startswith("/"), step)
                    self.assertIn(step["method"], ("GET", "PUT", "POST", "DELETE", "HEAD",
                                                   "OPTIONS", "PATCH"))
                    self.assertRegex(step["path"], r"^[ -~]+$")
                    sequences.dumps(step)

    def test_values_are_taken_from_answers(self):
        self.assertEqual(servers.capture(b'[{"ModifyIndex": 5}]', {}, "json:0.ModifyIndex"), "5")
        self.assertEqual(servers.capture(b'{"ID": "x"}', {}, "json:ID"), "x")
        for raw in (b"", b"[]", b"no JSON", b"{}"):
            self.assertEqual(servers.capture(raw, {}, "json:0.ModifyIndex"), "0")

    def test_what_is_accepted_is_narrow(self):
        step = {"method": "GET", "path": "/v1/kv/a", "params": []}
        ours = {"status": 200, "headers": {}, "body": "a"}
        theirs = {"status": 200, "headers": {}, "body": "b"}
        self.assertFalse(accepted.explains(step, (".body", "a", "b"), ours, theirs))

    def test_what_is_accepted_may_be_the_values_themselves(self):
        ours, theirs = [{"status": 200, "headers": {}, "body": None}] * 2
        for path, one, other, accept in (
                ("/v1/health/node/n", "TTL expired", "", True), ("/v1/health/node/n", "", "TTL expired", False),
                ("/v1/agent/checks", "TTL expired", "", False), ("/v1/health/node/n", "0s", "-2562047h47m", True)):
            found = (".body[0].Output", one, other)
            self.assertEqual(accepted.explains({"method": "GET", "path": path, "params": []}, found, ours, theirs), accept)


if __name__ == "__main__":
    unittest.main()
