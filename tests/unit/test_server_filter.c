/* Filter expressions: each row was asked of Consul 1.8.7, about the same node or instance. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "server/http/filter.h"
#include "server/http/regex.h"

static const char node_json[] =
    "{\"ID\":\"\",\"Node\":\"fn\",\"Address\":\"10.0.0.1\",\"Datacenter\":\"dc1\","
    "\"TaggedAddresses\":null,\"Meta\":{\"a-b\":\"c\",\"os\":\"\",\"role\":\"db\"}}";
static const char instance_json[] =
    "{\"Node\":\"fn\",\"NodeMeta\":{\"role\":\"db\"},\"ServiceTags\":[\"v1\",\"prod\"],"
    "\"ServicePort\":81,\"ServiceMeta\":{\"ver\":\"3\"},\"ServiceEnableTagOverride\":false,"
    "\"ServiceTaggedAddresses\":{\"lan\":{\"Address\":\"1.2.3.4\",\"Port\":5}},"
    "\"ServiceConnect\":{},\"ServiceWeights\":{\"Passing\":1,\"Warning\":1}}";
static const char health_json[] =
    "{\"Node\":{\"Node\":\"fn\",\"Meta\":{\"role\":\"db\"}},\"Service\":{\"Port\":81,\"Tags\":["
    "\"v1\"]},"
    "\"Checks\":[{\"Status\":\"warning\",\"ServiceTags\":[\"v1\"]},{\"Status\":\"passing\"}]}";

struct filter_case {
    const char *expression;
    const char *expected; /* "yes", "no", or how the error begins */
};

static void check_cases(enum filter_kind kind, const char *text, const struct filter_case *cases)
{
    json_t *json = json_loads(text, 0, NULL);

    assert_non_null(json);
    for (; cases->expression != NULL; cases++) {
        struct errmsg err = {""};
        struct filter *filter = filter_new(kind, slice_from_text(cases->expression), &err);
        const char *got = filter == NULL ? err.text : filter_matches(filter, json) ? "yes" : "no";

        if (strncmp(got, cases->expected, strlen(cases->expected)) != 0) {
            fail_msg("%s: got \"%s\", expected \"%s\"", cases->expression, got, cases->expected);
        }
        filter_free(filter);
    }
    json_decref(json);
}

static void nodes_are_filtered_as_by_consul(void **state)
{
    static const struct filter_case cases[] = {
        {"Meta.role == db", "yes"},
        {"Meta.role==db", "yes"},
        {"Meta.role != db", "no"},
        {"Meta.role = db", "1:11 (10): no match found"},
        {"Meta.role", "1:10 (9): no match found"},
        {" ", "1:2 (1): no match found"},
        {"Node == \"fn\"", "yes"},
        {"Node == `fn`", "yes"},
        {"Node == 'fn'", "1:9 (8): no match found"},
        {"Nope == x", "Selector \"Nope\" is not valid"},
        {"node == fn", "Selector \"node\" is not valid"},
        {"Meta == x", "Invalid match operator \"Equal\" for selector \"Meta\""},
        {"Meta.role == ", "1:14 (13): no match found"},
        {"== db", "1:1 (0): no match found"},
        {"Meta.role == db and Node == fn", "yes"},
        {"Meta.role == db AND Node == fn", "1:17 (16): no match found"},
        {"not Meta.role == db", "no"},
        {"not not Node == fn", "yes"},
        {"not (Node == fn) or Node == fn", "yes"},
        {"Node == fn or Node == a and Node == b", "yes"},
        {"(Node == fn or Node == a) and Node == b", "no"},
        {"(Node == fn", "1:12 (11): rule \"grouping\": Unmatched parentheses"},
        {"Node == fn)", "1:11 (10): no match found"},
        {"Node==fn and(Node==fn)", "1:"},
        {"Meta is empty", "no"},
        {"Meta is not empty", "yes"},
        {"TaggedAddresses is empty", "yes"},
        {"Meta.role is empty", "Invalid match operator \"Is Empty\" for selector \"Meta.role\""},
        {"role in Meta", "yes"},
        {"\"role\" in Meta", "yes"},
        {"role not in Meta", "no"},
        {"Meta contains role", "yes"},
        {"Meta not contains role", "no"},
        {"Node contains f", "yes"},
        {"f in Node", "yes"},
        {"Node matches \"f.*\"", "yes"},
        {"Node not matches \"f.*\"", "no"},
        {"Node matches \"f(\"",
         "Failed to compile regular expression \"f(\": error parsing regexp: "
         "missing closing ): `f(`"},
        {"Meta[\"role\"] == db", "yes"},
        {"Meta[\"a-b\"] == c", "yes"},
        {"Meta[role] == db", "1:6 (5): rule \"index\": Invalid index"},
        {"Meta.a-b == c", "1:7 (6): no match found"},
        {"Node == 5", "no"},
        {"Node == \"a\\\"b\"", "1:9 (8): rule \"string\": invalid syntax"},
        {"Node == \"fn", "1:12 (11): rule \"string\": Unterminated string literal"},
        {"Node == 10.0.0.1", "1:13 (12): rule \"number\": Invalid number literal"},
        {"Node in (fn)", "1:9 (8): rule \"match\": Invalid selector"},
        {"Meta.nokey == x", "no"},
        {"Meta.nokey != x", "yes"},
        {"Meta.role in Meta", "no"},
        {"Meta.role.x == 1", "Selector \"Meta.role.x\" is not valid"},
        {"in == in", "Selector \"in\" is not valid"},
        {"Node == not", "no"},
        {"Node == \"\\x66\\u006e\"", "yes"},
        {"Node == \"\\146\\U0000006e\"", "yes"},
        {"Node == `\rf\rn`", "yes"},
        {"Node == \"\\ud800\"", "no"},
        {"Node == \"\\U00110000\"", "1:9 (8): rule \"string\": invalid syntax"},
        {"Node == \"\\400\"", "1:9 (8): rule \"string\": invalid syntax"},
        {"Node == \"\\08\"", "1:9 (8): rule \"string\": invalid syntax"},
        {"Node == \"\\'\"", "1:9 (8): rule \"string\": invalid syntax"},
        {"Node == \"\xc3\xa9\" x", "1:13 (13): no match found"},
        {"Node == \"\xff\"", "1:10 (9): invalid encoding"},
        {"Node == a.b.c.d.e.f.g.h.i.j.k", "no"},
        {"a.b.c.d.e.f.g.h.i == x", "Selector \"a.b.c.d.e.f.g.h.i\" is not valid"},
        {"a.b[\"c d\"] in Node", "no"},
        {NULL, NULL},
    };

    (void)state;
    check_cases(FILTER_NODE, node_json, cases);
}

static void instances_are_filtered_as_by_consul(void **state)
{
    static const struct filter_case cases[] = {
        {"ServicePort == 81", "yes"},
        {"ServicePort == \"81\"", "yes"},
        {"ServicePort == -1", "no"},
        {"ServicePort == \"+81\"", "yes"},
        {"ServicePort == \"0x5_1\"", "yes"},
        {"ServicePort == \"0121\"", "yes"},
        {"ServicePort == \"0o1_21\"", "yes"},
        {"ServicePort == \"0b1010001\"", "yes"},
        {"ServicePort == \"081\"", "Failed to coerce value \"081\""},
        {"ServicePort == \"81_\"", "Failed to coerce value \"81_\""},
        {"ServicePort == \"0x\"", "Failed to coerce value \"0x\""},
        {"ServicePort == \"-\"", "Failed to coerce value \"-\""},
        {"ServicePort == \"-0x8000000000000000\"", "no"},
        {"ServicePort == \"-9223372036854775809\"",
         "Failed to coerce value \"-9223372036854775809\" for selector \"ServicePort\": "
         "strconv.ParseInt: parsing \"-9223372036854775809\": value out of range"},
        {"ServicePort == abc", "Failed to coerce value \"abc\" for selector \"ServicePort\": "
                               "strconv.ParseInt: parsing \"abc\": invalid syntax"},
        {"ServicePort == 99999999999999999999",
         "Failed to coerce value \"99999999999999999999\" for selector \"ServicePort\": "
         "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"},
        {"8 in ServicePort", "Invalid match operator \"In\" for selector \"ServicePort\""},
        {"ServiceEnableTagOverride == f", "yes"},
        {"ServiceEnableTagOverride == no", "Failed to coerce value \"no\""},
        {"ServiceTags matches v", "Invalid match operator \"Matches\""},
        {"v1 in ServiceTags", "yes"},
        {"ServiceTags contains v", "no"},
        {"ServiceTaggedAddresses.lan.Port == 5", "yes"},
        {"ServiceTaggedAddresses.lan == x", "Invalid match operator \"Equal\""},
        {"lan in ServiceTaggedAddresses", "yes"},
        {"ServiceTaggedAddresses.nope.Port == 0", "no"},
        {"ServiceTaggedAddresses.nope.Port != 5", "yes"},
        {"ServiceKind == \"\"", "yes"},
        {"ServiceConnect.Native == false", "yes"},
        {"ServiceProxy.Upstreams is empty", "yes"},
        {"ServiceProxy.Upstreams.Datacenter != x", "no"},
        {"not ServiceProxy.Upstreams.Datacenter != x", "yes"},
        {"ServiceProxy.Upstreams.LocalBindPort == 0", "no"},
        {"ServiceMeta.nokey matches x", "yes"},
        {"ServiceMeta.nokey not matches x", "yes"},
        {"x in ServiceMeta.nokey", "no"},
        {"x not in ServiceMeta.nokey", "yes"},
        {NULL, NULL},
    };

    (void)state;
    check_cases(FILTER_INSTANCE, instance_json, cases);
}

static void a_selector_through_a_list_asks_for_any(void **state)
{
    static const struct filter_case cases[] = {
        {"Checks.Status == warning", "yes"},
        {"Checks.Status == critical", "no"},
        {"Checks.Status != warning", "yes"},
        {"Checks is empty", "no"},
        {"Checks is not empty", "yes"},
        {"w in Checks", "Invalid match operator \"In\" for selector \"Checks\""},
        {"Node.Meta.role == db and Service.Port == 81", "yes"},
        {"Checks.ServiceTags contains v1", "yes"},
        {"Checks.Definition == x", "Selector \"Checks.Definition\" is not valid"},
        {"Node == fn", "Invalid match operator \"Equal\" for selector \"Node\""},
        {NULL, NULL},
    };

    (void)state;
    check_cases(FILTER_HEALTH, health_json, cases);
}

/* Every bound is an answer, not memory or a crash. */
static void what_is_too_large_is_refused(void **state)
{
    static char text[2 * FILTER_BYTES_MAX];
    struct errmsg err = {""};

    (void)state;
    memset(text, '(', sizeof(text));
    assert_null(filter_new(FILTER_NODE, slice_from(text, FILTER_BYTES_MAX), &err));
    assert_non_null(strstr(err.text, "nests too deeply"));
    assert_null(filter_new(FILTER_NODE, slice_from(text, sizeof(text)), &err));
    assert_non_null(strstr(err.text, "longer than"));
    text[0] = '\0';
    for (int i = 0; i <= FILTER_MATCHES_MAX; i++) {
        strcat(text, i == 0 ? "Node == a" : " or Node == a");
    }
    assert_null(filter_new(FILTER_NODE, slice_from_text(text), &err));
    assert_non_null(strstr(err.text, "too many comparisons"));
    /* The expressions of a filter share their bound: each byte of a text is held against all. */
    text[0] = '\0';
    for (int i = 0; i < 3; i++) {
        strcat(text, i == 0 ? "Node matches `a{500}`" : " or Node matches `a{500}`");
    }
    assert_null(filter_new(FILTER_NODE, slice_from_text(text), &err));
    assert_non_null(strstr(err.text, "too large together"));
}

static void expressions_match_as_in_go(void **state)
{
    static const struct {
        const char *pattern, *text;
        int expected; /* -1: refused */
    } cases[] = {
        {"", "", 1},
        {"", "x", 1},
        {"abc", "xabcx", 1},
        {"^abc$", "xabc", 0},
        {"^a|b$", "ab", 1},
        {"a|b|cd", "cd", 1},
        {"a|b|cd", "c", 0},
        {"(ab)+c", "ababc", 1},
        {"(ab)+c", "c", 0},
        {"a{2,3}b", "ab", 0},
        {"a{2,3}b", "aab", 1},
        {"^a{2,3}$", "aaaa", 0},
        {"^a{2}$", "aa", 1},
        {"^a{2,}$", "aaaa", 1},
        {"x{0}y", "y", 1},
        {"[a-c]+$", "zcab", 1},
        {"[^a]", "a", 0},
        {"[]a]", "]", 1},
        {"\\d+\\.\\d", "1.2", 1},
        {"\\D", "1", 0},
        {"a.c", "a\nc", 0},
        {"^(a*)*$", "aaaab", 0},
        {"(?:ab)?c", "c", 1},
        {"a{,2}", "a{,2}", 1},
        {"lag [0-9]+", "lag 12", 1},
        {"(a|b|c|)*d$", "abcabcd", 1},
        {"(", "", -1},
        {")", "", -1},
        {"[", "", -1},
        {"*", "", -1},
        {"a**", "", -1},
        {"\\1", "", -1},
        {"a{1001}", "", -1},
        {"(a{100}){100}", "", -1},
        /* flags, in Go's places for them */
        {"(?i)nODE", "Node", 1},
        {"(?i)[a-c]+$", "xABC", 1},
        {"(?i)[^a]", "A", 0},
        {"(?i)k", "\xe2\x84\xaa", 1},
        {"a(?i:b)c", "aBc", 1},
        {"a(?i:b)c", "aBC", 0},
        {"(?i)a(?-i)b", "AB", 0},
        {"((?i)a|b)c", "BC", 0},
        {"(?s)a.c", "a\nc", 1},
        {"(?m)^b$", "a\nb\nc", 1},
        {"^b$", "a\nb\nc", 0},
        {"(?U)a+?", "a", 1},
        {"a(?i)+$", "aaa", 1},
        {"(?i)\xc3\xa9", "", -1},
        {"(?z)", "", -1},
        {"(?i", "", -1},
        {"(?-)", "", -1},
        {"(?P<name>a)b", "ab", 1},
        {"(?P<>a)", "", -1},
        {"(?P<a b>a)", "", -1},
        {"(?<n>a)", "", -1},
        /* characters, not bytes */
        {"^.$", "\xc3\xa9", 1},
        {"^[^a]$", "\xf0\x9f\x98\x80", 1},
        {"^[\xc3\xa0-\xc3\xbf]{2}$", "\xc3\xa9\xc3\xa8", 1},
        {"\\x{e9}", "\xc3\xa9", 1},
        {"\\xe9", "\xc3\xa9", 1},
        {"^.$", "\xff", 1},
        {"\xff", "", -1},
        /* what a backslash makes */
        {"\\bfoo\\b", "a foo.", 1},
        {"\\bfoo\\b", "foo_bar", 0},
        {"o\\Bo", "foo", 1},
        {"\\Aa\\z", "a", 1},
        {"\\Qa.b*\\E+$", "a.b**", 1},
        {"\\Qa.b", "aXb", 0},
        {"\\141\\x62\\_", "ab_", 1},
        {"\\8", "", -1},
        {"\\Z", "", -1},
        {"\\x{110000}", "", -1},
        {"\\pL", "", -1},
        /* classes */
        {"^[[:alpha:]_]+$", "aB_", 1},
        {"[[:^digit:]]", "1", 0},
        {"[[:foo:]]", "", -1},
        {"[[:alpha]", ":", 1},
        {"[\\d-z]", "-", 1},
        {"[a-\\d]", "", -1},
        {"[^\\D]", "7", 1},
        {"[a-]", "-", 1},
        {"[--a]", ".", 1},
        /* repetitions */
        {"((((((((a+)+)+)+)+)+)+)+)+b", "aab", 1},
        {"^a{1000}$", "aaa", 0},
        {"a{01}", "a{01}", 1},
        {"{2}", "", -1},
        {"a{2}{3}", "", -1},
        {"a|*", "", -1},
        {"(*)", "", -1},
        {"a*?b", "aab", 1},
        {"(|a)+b", "b", 1},
        {"^*a", "ba", 1},
        {"(a|b|c){2}d", "bcd", 1},
        {"(a|b|c){2}d", "bd", 0},
        {"^(a|b)*(c|)$", "abac", 1},
        {"()", "", 1},
        {"[b-a]", "", -1},
        {"\\", "", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct errmsg err = {""};
        struct regex *regex = regex_new(slice_from_text(cases[i].pattern), &err);
        const int got = regex == NULL ? -1 : regex_matches(regex, slice_from_text(cases[i].text));

        if (got != cases[i].expected) {
            fail_msg("/%s/ on \"%s\": %d, expected %d (%s)", cases[i].pattern, cases[i].text, got,
                     cases[i].expected, err.text);
        }
        regex_free(regex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_are_filtered_as_by_consul),
        cmocka_unit_test(instances_are_filtered_as_by_consul),
        cmocka_unit_test(a_selector_through_a_list_asks_for_any),
        cmocka_unit_test(what_is_too_large_is_refused),
        cmocka_unit_test(expressions_match_as_in_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
