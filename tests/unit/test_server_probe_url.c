/* What checks ask, taken apart, and where redirects lead. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/agent/probe_url.h"

static void assert_slice(struct slice got, const char *expected)
{
    assert_int_equal(got.size, strlen(expected));
    assert_memory_equal(got.data, expected, got.size);
}

static void a_url_has_parts(void **state)
{
    static const struct {
        const char *text, *authority, *host, *port, *path;
        bool secure;
    } cases[] = {
        {"http://a/b", "a", "a", "", "/b", false},
        {"HTTPS://a:8443", "a:8443", "a", "8443", "", true},
        {"http://[::1]:80/x?y#z", "[::1]:80", "::1", "80", "/x?y", false},
        {"http://[::1]", "[::1]", "::1", "", "", false},
        {"http://a?q=/", "a", "a", "", "?q=/", false},
        {"http://a#f", "a", "a", "", "", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct probe_url url;
        struct buffer problem = {0};

        print_message("  %s\n", cases[i].text);
        assert_true(probe_url_parse(slice_from_text(cases[i].text), &url, &problem));
        assert_int_equal(problem.size, 0);
        assert_slice(url.authority, cases[i].authority);
        assert_slice(url.host, cases[i].host);
        assert_slice(url.port, cases[i].port);
        assert_slice(url.path, cases[i].path);
        assert_int_equal(probe_url_is_secure(&url), cases[i].secure);
        buffer_deinit(&problem);
    }
}

/* Go's client resolves what Location says; a relative one was once asked as if it were a URL. */
static void a_redirect_leads_where_rfc_3986_says(void **state)
{
    static const struct {
        const char *name, *base, *location, *expected;
    } cases[] = {
        {"another host", "http://a:1/b", "https://c/d", "https://c/d"},
        {"the same scheme", "https://a/b", "//c/d", "https://c/d"},
        {"the same host", "http://a:1/b/c?d", "/e?f", "http://a:1/e?f"},
        {"a neighbour", "http://a/b/c?d/e", "f", "http://a/b/f"},
        {"below the root", "http://a", "f", "http://a/f"},
        {"beside a query without path", "http://a?q", "f", "http://a/f"},
        {"another query", "http://a/b/c?d", "?e", "http://a/b/c?e"},
        {"another query of the root", "http://a", "?e", "http://a/?e"},
        {"a colon in the path", "http://a/b", "/c:d", "http://a/c:d"},
        {"a colon in the query", "http://a/b", "c?d:e", "http://a/c?d:e"},
        {"a scheme that is none of ours", "http://a/b", "ftp://c/", "ftp://c/"},
        {"nothing", "http://a/b", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct probe_url base;
        struct buffer out = {0};

        print_message("  %s\n", cases[i].name);
        assert_true(probe_url_parse(slice_from_text(cases[i].base), &base, &out));
        probe_url_resolve(&base, slice_from_text(cases[i].location), &out);
        assert_slice(buffer_slice(&out), cases[i].expected);
        buffer_deinit(&out);
    }
}

static void only_decimal_numbers_of_16_bits_are_ports(void **state)
{
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        {"0", true}, {"80", true},  {"65535", true}, {"65536", false}, {"000080", false},
        {"", false}, {"8x", false}, {"-1", false},   {" 80", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        print_message("  '%s'\n", cases[i].text);
        assert_int_equal(probe_port_is_valid(slice_from_text(cases[i].text)), cases[i].valid);
    }
}

static void only_a_hosts_own_subdomains_are_below_it(void **state)
{
    static const struct {
        const char *url, *base;
        bool below;
    } cases[] = {
        {"http://a.example/x", "http://a.example", true},
        {"http://A.example:80", "http://a.example/", true},
        {"http://b.a.example", "http://a.example", true},
        {"https://a.example:80", "http://a.example", true},
        {"http://a.example:443", "https://a.example", false},
        {"http://a.example:81", "http://a.example", false},
        {"http://ba.example", "http://a.example", false},
        {"http://a.example", "http://b.a.example", false},
        {"http://a.example.evil", "http://a.example", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct probe_url url, base;
        struct buffer problem = {0};

        print_message("  %s of %s\n", cases[i].url, cases[i].base);
        assert_true(probe_url_parse(slice_from_text(cases[i].url), &url, &problem));
        assert_true(probe_url_parse(slice_from_text(cases[i].base), &base, &problem));
        assert_int_equal(probe_url_is_below(&url, &base), cases[i].below);
        buffer_deinit(&problem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_url_has_parts),
        cmocka_unit_test(a_redirect_leads_where_rfc_3986_says),
        cmocka_unit_test(only_a_hosts_own_subdomains_are_below_it),
        cmocka_unit_test(only_decimal_numbers_of_16_bits_are_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
