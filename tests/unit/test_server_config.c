/* The configuration: files and flags as Consul takes them, with its messages where it has one;
 * every refusal names what is wrong. Expected texts were asked of Consul 1.8.7. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/slice.h"
#include "server/config_internal.h"

enum { ARGUMENTS_MAX = 32 };

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/test_server_config.XXXXXX");
    log_level_set(LOG_ERROR); /* warnings are many and wanted */
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int remove_folder(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static const char *file_path(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = file_path(name);
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* Loads with the blank-separated `flags` ("@" stands for the folder). */
static int load(const char *flags, struct config **config, struct errmsg *err)
{
    char words[1024];
    char *argv[ARGUMENTS_MAX] = {NULL};
    char *rest = NULL;
    int argc = 0;
    size_t at = 0;

    for (const char *c = flags; *c != '\0'; c++) {
        if (*c == '@') {
            at += (size_t)snprintf(words + at, sizeof(words) - at, "%s", folder);
        } else {
            words[at++] = *c;
        }
    }
    words[at] = '\0';
    for (char *word = strtok_r(words, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        argv[argc++] = word;
    }
    err->text[0] = '\0';
    return config_load(argc, argv, config, err);
}

#define BASE "\"data_dir\": \"/nowhere\", \"server\": true, \"bind_addr\": \"127.0.0.1\""

/* Files that are right, or that fail with a text that contains `expected`. */
static const struct {
    const char *name, *json, *expected;
} file_cases[] = {
    {"smallest", "{" BASE "}", NULL},
    {"empty file has no data_dir", "{}", "data_dir cannot be empty"},
    {"empty data_dir", "{\"server\": true, \"data_dir\": \"\"}", "data_dir cannot be empty"},
    {"null is as if unset", "{" BASE ", \"datacenter\": null, \"ports\": null}", NULL},
    {"no text at all", "", "data_dir cannot be empty"},
    {"a list of one section is the section",
     "{" BASE ", \"performance\": [{\"raft_multiplier\": 11}]}",
     "performance.raft_multiplier cannot be 11"},
    {"lists of one thing are the thing",
     "{\"data_dir\": [\"/nowhere\"], \"server\": [[true]], \"bind_addr\": [\"127.0.0.1\"], "
     "\"node_meta\": [{\"a\": [\"b\"]}], \"recursors\": [[\"8.8.8.8\"]], \"services\": [[{"
     "\"name\": [\"x\"], \"port\": [80], \"weights\": [{\"passing\": [5]}]}]]}",
     NULL},
    {"a list of two sections", "{" BASE ", \"ports\": [{\"dns\": 1}, {\"http\": 2}]}",
     "'ports' expected a map, got 'slice'"},
    {"a list of no thing", "{" BASE ", \"node_name\": []}",
     "'node_name' expected type 'string', got unconvertible type 'slice'"},
    {"a list of a number for a section", "{" BASE ", \"ports\": [5]}",
     "'ports' expected a map, got 'float64'"},
    {"case of keys does not matter", "{" BASE ", \"Datacenter\": \"x\", \"PORTS\": {\"Http\": 1}}",
     NULL},
    {"unknown key", "{" BASE ", \"nosuchkey\": 1}", "invalid config key nosuchkey (did you mean"},
    {"nearest key is named", "{" BASE ", \"boostrap_expect\": 1}",
     "invalid config key boostrap_expect (did you mean bootstrap_expect?)"},
    {"nearest key in a section", "{" BASE ", \"dns_config\": {\"only_pasing\": true}}",
     "(did you mean dns_config.only_passing?)"},
    {"unknown section", "{" BASE ", \"foo\": {\"x\": 1}}", "invalid config key foo"},
    {"file is named", "{\"x\": 1}", "case.json"},
    {"not JSON", "{", "failed to parse"},
    {"text behind JSON", "{" BASE "} x", "failed to parse"},
    {"not an object", "[]", "expected an object, got 'slice'"},
    {"text for bool", "{\"server\": \"true\"}",
     "'server' expected type 'bool', got unconvertible type 'string'"},
    {"number for bool", "{\"server\": 1}",
     "'server' expected type 'bool', got unconvertible type 'float64'"},
    {"text for port", "{\"ports\": {\"http\": \"8500\"}}",
     "'ports.http' expected type 'int', got unconvertible type 'string'"},
    {"fraction for int is cut", "{" BASE ", \"ports\": {\"http\": 8500.5}}", NULL},
    {"huge int", "{" BASE ", \"ports\": {\"http\": 1e300}}", "ports.http: invalid port"},
    {"number for section", "{\"ports\": 5}", "'ports' expected a map, got 'float64'"},
    {"text for list", "{\"retry_join\": \"a\"}",
     "'retry_join': source data must be an array or slice, got string"},
    {"number in list", "{\"retry_join\": [\"a\", 1]}",
     "'retry_join[1]' expected type 'string', got unconvertible type 'float64'"},
    {"number in map", "{\"node_meta\": {\"x\": 1}}", "'node_meta[x]' expected type 'string'"},
    {"number for duration", "{\"session_ttl_min\": 5}", "'session_ttl_min' expected type 'string'"},
    {"duration without unit", "{\"session_ttl_min\": \"5\"}",
     "session_ttl_min: invalid duration: \"5\": time: missing unit in duration \"5\""},
    {"negative duration", "{" BASE ", \"session_ttl_min\": \"-5s\"}", "session_ttl_min cannot be"},
    {"bad duration of an ignored key", "{" BASE ", \"ae_interval\": \"5\"}",
     "ae_interval: invalid"},
    /* role */
    {"bootstrap twice", "{" BASE ", \"bootstrap\": true, \"bootstrap_expect\": 3}",
     "'bootstrap_expect > 0' and 'bootstrap = true' are mutually exclusive"},
    {"expect needs server", "{\"data_dir\": \"/x\", \"bootstrap_expect\": 3}",
     "'bootstrap_expect > 0' requires 'server = true'"},
    {"bootstrap needs server", "{\"data_dir\": \"/x\", \"bootstrap\": true}",
     "'bootstrap = true' requires 'server = true'"},
    {"no client agent", "{\"data_dir\": \"/x\"}", "'server = true' is required"},
    {"negative expect", "{" BASE ", \"bootstrap_expect\": -1}",
     "bootstrap_expect cannot be -1. Must be greater than or equal to zero"},
    {"too many expected", "{" BASE ", \"bootstrap_expect\": 1000}", "bootstrap_expect cannot be"},
    /* names */
    {"datacenter with blank", "{" BASE ", \"datacenter\": \"a b\"}",
     "datacenter cannot be \"a b\". Please use only [a-z0-9-_]"},
    {"alternative domain that begins like a name", "{" BASE ", \"alt_domain\": \"node.x\"}",
     "alt_domain cannot start with {service,connect,node,query,addr,dc1}"},
    {"alternative domain that begins with the datacenter",
     "{" BASE ", \"datacenter\": \"East\", \"alt_domain\": \"east.x\"}",
     "alt_domain cannot start with {service,connect,node,query,addr,east}"},
    {"alternative domain of one such label", "{" BASE ", \"alt_domain\": \"node\"}", NULL},
    {"datacenter empty", "{" BASE ", \"datacenter\": \"\"}", "datacenter cannot be empty"},
    {"node name with blank is only warned of", "{" BASE ", \"node_name\": \"a b\"}", NULL},
    {"node id of wrong form", "{" BASE ", \"node_id\": \"abc\"}", "specified NodeID is invalid"},
    {"reserved meta", "{" BASE ", \"node_meta\": {\"consul-x\": \"y\"}}",
     "node_meta invalid: Couldn't load metadata pair ('consul-x', 'y'): Key prefix 'consul-' is "
     "reserved for internal use"},
    {"meta with blank key", "{" BASE ", \"node_meta\": {\"\": \"y\"}}", "Key cannot be blank"},
    {"meta with bad key", "{" BASE ", \"node_meta\": {\"a b\": \"y\"}}",
     "Key contains invalid characters"},
    /* addresses */
    {"bind not an address", "{" BASE ", \"bind_addr\": \"foo\"}", "bind_addr: invalid ip address"},
    {"bind several", "{" BASE ", \"bind_addr\": \"127.0.0.1 127.0.0.2\"}",
     "bind_addr cannot contain multiple addresses. Use 'addresses.{dns,http,https}' instead."},
    {"advertise any", "{" BASE ", \"advertise_addr\": \"0.0.0.0\"}",
     "Advertise address cannot be 0.0.0.0, :: or [::]"},
    {"client not an address", "{" BASE ", \"client_addr\": \"foo\"}",
     "client_addr: invalid ip address: foo"},
    {"client several", "{" BASE ", \"client_addr\": \"127.0.0.1 127.0.0.2\"}", NULL},
    {"client socket", "{" BASE ", \"client_addr\": \"unix:///tmp/x\"}",
     "client_addr cannot be a unix socket"},
    {"interface template", "{" BASE ", \"client_addr\": \"{{ GetInterfaceIP \\\"lo\\\" }}\"}",
     NULL},
    {"template in a list", "{" BASE ", \"client_addr\": \"127.0.0.2 {{GetInterfaceIP `lo`}}\"}",
     NULL},
    {"template of no interface", "{" BASE ", \"bind_addr\": \"{{ GetInterfaceIP \\\"no0\\\" }}\"}",
     "finds no IPv4 address"},
    {"template not known", "{" BASE ", \"bind_addr\": \"{{ GetAllInterfaces | join }}\"}",
     "is not understood"},
    {"template without end", "{" BASE ", \"bind_addr\": \"{{ GetPrivateIP\"}", "{{ without }}"},
    {"cloud discovery", "{" BASE ", \"retry_join\": [\"provider=aws tag_key=x\"]}",
     "name the servers' addresses"},
    {"port too large", "{" BASE ", \"ports\": {\"http\": 70000}}",
     "ports.http: invalid port: 70000"},
    {"port zero disables", "{" BASE ", \"ports\": {\"http\": 0}}", NULL},
    {"server port needed", "{" BASE ", \"ports\": {\"server\": -1}}", "cannot be disabled"},
    {"ports meet", "{" BASE ", \"ports\": {\"dns\": 8300}}",
     "RPC Advertise address 127.0.0.1:8300 already configured for DNS"},
    {"equal ports on other addresses",
     "{" BASE ", \"client_addr\": \"127.0.0.2\", \"ports\": {\"dns\": 8300}}", NULL},
    {"recursor not an address", "{" BASE ", \"recursors\": [\"8.8.8.256\"]}",
     "invalid recursor address"},
    {"recursor of five numbers", "{" BASE ", \"recursors\": [\"8.8.8.8.8:53\"]}",
     "invalid recursor address"},
    {"recursor with two ports", "{" BASE ", \"recursors\": [\"foo:1:2\"]}",
     "invalid recursor address"},
    {"recursor's port too high", "{" BASE ", \"recursors\": [\"foo:65536\"]}",
     "invalid recursor address"},
    {"recursor that is no name", "{" BASE ", \"recursors\": [\"foo/bar\"]}",
     "invalid recursor address"},
    {"recursors by name", "{" BASE ", \"recursors\": [\"ns1.example.com\", \"n_s-2:5353\"]}", NULL},
    {"recursors", "{" BASE ", \"recursors\": [\"8.8.8.8\", \"8.8.8.8:53\", \"[::1]:53\", \"::1\"]}",
     NULL},
    /* values */
    {"raft_multiplier", "{" BASE ", \"performance\": {\"raft_multiplier\": 11}}",
     "performance.raft_multiplier cannot be 11. Must be between 1 and 10"},
    {"raft_multiplier zero", "{" BASE ", \"performance\": {\"raft_multiplier\": 0}}",
     "performance.raft_multiplier cannot be 0. Must be between 1 and 10"},
    {"negative a_record_limit", "{" BASE ", \"dns_config\": {\"a_record_limit\": -1}}",
     "dns_config.a_record_limit cannot be -1. Must be greater than or equal to zero"},
    {"log level", "{" BASE ", \"log_level\": \"foo\"}",
     "Invalid log level: foo. Valid log levels are: [TRACE DEBUG INFO WARN ERR ERROR]"},
    {"service ttl", "{" BASE ", \"dns_config\": {\"service_ttl\": {\"*\": \"5\"}}}",
     "dns_config.service_ttl[*]: invalid duration"},
    /* what promises security is not ignored */
    {"encrypt", "{" BASE ", \"encrypt\": \"pUqJrVyVRj5jsiYEkM/tFQ==\"}", "encrypt is refused"},
    {"encrypt empty", "{" BASE ", \"encrypt\": \"\"}", NULL},
    {"verify_incoming", "{" BASE ", \"verify_incoming\": true}", "verify_incoming is refused"},
    {"verify_incoming off", "{" BASE ", \"verify_incoming\": false}", NULL},
    {"new tls", "{" BASE ", \"tls\": {\"internal_rpc\": {\"verify_server_hostname\": true}}}",
     "tls.internal_rpc.verify_server_hostname is refused"},
    {"acl without deny",
     "{" BASE ", \"acl\": {\"enabled\": true, \"tokens\": {\"master\": \"m\"}}}",
     "acl.enabled needs acl.default_policy \"deny\""},
    {"acl without a token",
     "{" BASE ", \"acl\": {\"enabled\": true, \"default_policy\": \"deny\"}}",
     "acl.enabled needs acl.tokens.initial_management"},
    {"acl with one token",
     "{" BASE ", \"acl\": {\"enabled\": true, \"default_policy\": \"deny\", "
     "\"tokens\": {\"master\": \"m\"}}}",
     NULL},
    {"recursor by an unknown template", "{" BASE ", \"recursors\": [\"{{ GetIt }}\"]}",
     "recursors: template {{ GetIt }} is not understood"},
    {"recursor strategy", "{" BASE ", \"dns_config\": {\"recursor_strategy\": \"random\"}}", NULL},
    {"no recursor strategy", "{" BASE ", \"dns_config\": {\"recursor_strategy\": \"any\"}}",
     "Invalid recursor strategy: any"},
    {"negative max_stale", "{" BASE ", \"dns_config\": {\"max_stale\": \"-1s\"}}", "max_stale"},
    {"acl off", "{" BASE ", \"acl\": {\"enabled\": false, \"default_policy\": \"allow\"}}", NULL},
    {"legacy acl", "{" BASE ", \"acl_datacenter\": \"dc1\"}", "acl_datacenter is refused"},
    {"https", "{" BASE ", \"ports\": {\"https\": 8501}}", "ports.https is refused"},
    {"https off", "{" BASE ", \"ports\": {\"https\": -1, \"grpc\": 8502, \"grpc_tls\": 8503}}",
     NULL},
    {"write filter", "{" BASE ", \"http_config\": {\"allow_write_http_from\": [\"127.0.0.0/8\"]}}",
     "is refused"},
    {"response header of the framing",
     "{" BASE ", \"http_config\": {\"response_headers\": {\"content-length\": \"1\"}}}",
     "http_config.response_headers: the server itself says content-length"},
    {"response header of Consul's",
     "{" BASE ", \"http_config\": {\"response_headers\": {\"X-Consul-Index\": \"1\"}}}",
     "the server itself says X-Consul-Index"},
    {"response headers",
     "{" BASE ", \"http_config\": {\"response_headers\": {\"X-Consul\": \"1\", \"Vary\": \"a\"}}}",
     NULL},
    /* definitions */
    {"service", "{" BASE ", \"service\": {\"name\": \"a\"}}", NULL},
    {"service as list", "{" BASE ", \"service\": [{\"name\": \"a\"}]}", NULL},
    {"services not a list", "{" BASE ", \"services\": {\"name\": \"a\"}}",
     "'services': source data must be an array or slice, got map"},
    {"unknown key of service", "{" BASE ", \"service\": {\"name\": \"a\", \"prot\": 1}}",
     "invalid config key service.prot (did you mean service.port?)"},
    {"unknown key of its check",
     "{" BASE ", \"service\": {\"name\": \"a\", \"check\": {\"htp\": \"\"}}}",
     "invalid config key service.check.htp (did you mean service.check.http?)"},
    {"gRPC check", "{" BASE ", \"check\": {\"name\": \"a\", \"grpc\": \"127.0.0.1:1\"}}",
     "check.grpc is refused: checks are of type HTTP, TCP, TTL, script or alias"},
    {"bad interval", "{" BASE ", \"check\": {\"name\": \"a\", \"interval\": \"5\"}}",
     "check.interval: invalid duration: \"5\""},
    {"service not an object", "{" BASE ", \"services\": [1]}",
     "'services' expected a map, got 'float64'"},
};

static void test_config_files_are_taken_or_refused_with_the_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(file_cases) / sizeof(file_cases[0]); i++) {
        struct config *config = NULL;
        struct errmsg err;

        (void)write_file("case.json", file_cases[i].json);
        const int rc = load("-config-file @/case.json", &config, &err);
        if (file_cases[i].expected == NULL && rc != 0) {
            fail_msg("%s: refused: %s", file_cases[i].name, err.text);
        }
        if (file_cases[i].expected != NULL && rc == 0) {
            fail_msg("%s: taken", file_cases[i].name);
        }
        if (rc != 0 && strstr(err.text, file_cases[i].expected) == NULL) {
            fail_msg("%s: %s", file_cases[i].name, err.text);
        }
        if (rc == 0) {
            config_free(config);
        }
    }
    assert_int_equal(unlink(file_path("case.json")), 0);
}

static const struct {
    const char *name, *flags, *expected;
} flag_cases[] = {
    {"dev alone", "-dev", NULL},
    {"two dashes", "--dev", NULL},
    {"booleans with equals", "-dev=true -server=1 -ui=F", NULL},
    {"a boolean takes no second word", "-dev true", "Unexpected extra arguments: [true]"},
    {"bad boolean", "-server=maybe",
     "invalid boolean value \"maybe\" for -server: strconv.ParseBool: parsing \"maybe\": invalid "
     "syntax"},
    {"unknown", "-bogus", "flag provided but not defined: -bogus"},
    {"unknown with value", "-bogus=1", "flag provided but not defined: -bogus"},
    {"prefix of a flag", "-ser", "flag provided but not defined: -ser"},
    {"three dashes", "---dev", "bad flag syntax: ---dev"},
    {"only an equals sign", "-=1", "bad flag syntax: -=1"},
    {"extra", "extra", "Unexpected extra arguments: [extra]"},
    {"end of flags", "-dev -- extra", "Unexpected extra arguments: [extra]"},
    {"bad number", "-http-port=x",
     "invalid value \"x\" for flag -http-port: strconv.Atoi: parsing \"x\": invalid syntax"},
    {"huge number", "-http-port=99999999999999999999", "value out of range"},
    {"value missing", "-http-port", "flag needs an argument: -http-port"},
    {"bad duration", "-dev -retry-interval=5",
     "retry_interval: invalid duration: \"5\": time: missing unit in duration \"5\""},
    {"bad level", "-dev -log-level foo", "Invalid log level: foo"},
    {"missing file", "-dev -config-file @/missing.json", "missing.json"},
    {"hcl", "-dev -hcl x=1", "HCL is not read"},
    {"format", "-dev -config-format hcl", "HCL is not read"},
    {"format json", "-dev -config-format json", NULL},
    {"format of neither kind", "-dev -config-format xml",
     "config: -config-format must be either 'hcl' or 'json'"},
    {"a value that is not UTF-8", "-dev -node \xff",
     "-node: out of memory, or a value that is not"},
    {"encrypt", "-dev -encrypt abc", "encrypt is refused"},
    {"data_dir by flag", "-server -data-dir /nowhere -bind 127.0.0.1 -bootstrap-expect 3", NULL},
    {"no data_dir", "-server", "data_dir cannot be empty"},
    {"meta without colon", "-dev -node-meta a -node-meta b:c:d", NULL},
};

static void test_flags_follow_go_syntax(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(flag_cases) / sizeof(flag_cases[0]); i++) {
        struct config *config = NULL;
        struct errmsg err;
        const int rc = load(flag_cases[i].flags, &config, &err);

        if ((rc == 0) != (flag_cases[i].expected == NULL)) {
            fail_msg("%s: %d %s", flag_cases[i].name, rc, err.text);
        }
        if (rc != 0 && strstr(err.text, flag_cases[i].expected) == NULL) {
            fail_msg("%s: %s", flag_cases[i].name, err.text);
        }
        if (rc == 0) {
            config_free(config);
        }
    }
}

/* An entry may name several, or look one up, as with Consul. */
static void test_recursors_are_words_of_their_entries(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    (void)write_file("base.json",
                     "{" BASE ", \"node_name\": \"n1\", \"recursors\": "
                     "[\"8.8.8.8  [::1]:54\", \"{{ GetInterfaceIP \\\"lo\\\" }}:55\"]}");
    assert_int_equal(load("-config-file @/base.json", &config, &err), 0);
    assert_int_equal(config->dns.recursor_count, 3);
    assert_string_equal(config->dns.recursors[0], "8.8.8.8");
    assert_string_equal(config->dns.recursors[1], "[::1]:54");
    assert_string_equal(config->dns.recursors[2], "127.0.0.1:55");
    config_free(config);
}

static void test_no_time_for_recursors_is_the_default(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    (void)write_file("base.json",
                     "{" BASE
                     ", \"node_name\": \"n1\", \"dns_config\": {\"recursor_timeout\": \"0s\"}}");
    assert_int_equal(load("-config-file @/base.json", &config, &err), 0);
    assert_int_equal(config->dns.recursor_timeout_ms, 2000);
    config_free(config);
    assert_int_equal(unlink(file_path("base.json")), 0);
}

static void test_defaults_are_consuls(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    (void)write_file("base.json", "{" BASE ", \"node_name\": \"n1\"}");
    assert_int_equal(load("-config-file @/base.json", &config, &err), 0);
    assert_string_equal(config->datacenter, "dc1");
    assert_string_equal(config->client_addr, "127.0.0.1");
    assert_string_equal(config->advertise_addr, "127.0.0.1");
    assert_int_equal(config->http_port, 8500);
    assert_int_equal(config->dns_port, 8600);
    assert_int_equal(config->server_port, 8300);
    assert_int_equal(config->serf_lan_port, 8301);
    assert_int_equal(config->log_level, LOG_INFO);
    assert_int_equal(config->raft_multiplier, 1);
    assert_int_equal(config->rpc_hold_timeout_ms, 7000);
    assert_int_equal(config->session_ttl_min_ns, 10000000000);
    assert_int_equal(config->kv_value_bytes_max, 512 * 1024);
    assert_int_equal(config->http_conns_per_client_max, 200);
    assert_int_equal(config->check_update_interval_ms, 300000);
    assert_int_equal(config->retry_interval_ms, 30000);
    assert_false(config->bootstrap);
    assert_false(config->leave_on_terminate);
    assert_true(config->skip_leave_on_interrupt);
    assert_string_equal(config->dns.domain, "consul");
    assert_int_equal(config->dns.udp_answer_limit, 3);
    assert_int_equal(config->dns.soa.refresh_s, 3600);
    assert_int_equal(config->dns.recursor_timeout_ms, 2000);
    assert_true(config->dns.node_meta_txt);
    assert_int_equal(json_array_size(config->services), 0);
    config_free(config);
    assert_int_equal(unlink(file_path("base.json")), 0);
}

static void test_rates_are_none_unless_set(void **state)
{
    static const struct {
        const char *limits;
        bool ok, rpc, read, write, enforced;
        uint32_t rpc_burst, read_burst;
    } rows[] = {
        {"{}", true, false, false, false, false, 1000, 1},
        {"{\"rpc_rate\": -1, \"rpc_max_burst\": -1}", true, false, false, false, false, 0, 1},
        {"{\"rpc_rate\": 100.5, \"rpc_max_burst\": 50}", true, true, false, false, false, 50, 1},
        {"{\"request_limits\": {\"read_rate\": 5, \"write_rate\": 5}}", true, false, false, false,
         false, 1000, 1},
        {"{\"request_limits\": {\"mode\": \"permissive\", \"read_rate\": 500}}", true, false, true,
         false, false, 1000, 5000},
        {"{\"request_limits\": {\"mode\": \"enforcing\", \"read_rate\": 0.01, \"write_rate\": -1}}",
         true, false, true, false, true, 1000, 1},
        {"{\"request_limits\": {\"mode\": \"enforcing\", \"write_rate\": 1e300}}", true, false,
         false, false, true, 1000, 1},
        {"{\"request_limits\": {\"mode\": \"strict\"}}", .ok = false},
        {"{\"request_limits\": {\"read\": 5}}", .ok = false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct config *config = NULL;
        struct errmsg err;
        char text[512];

        (void)snprintf(text, sizeof(text), "{" BASE ", \"node_name\": \"n1\", \"limits\": %s}",
                       rows[i].limits);
        (void)write_file("rates.json", text);
        if ((load("-config-file @/rates.json", &config, &err) == 0) != rows[i].ok) {
            fail_msg("%s: %s", rows[i].limits, err.text);
        }
        if (rows[i].ok) {
            assert_int_equal(config->rpc_rate.limited, rows[i].rpc);
            assert_int_equal(config->rpc_rate.burst, rows[i].rpc_burst);
            assert_int_equal(config->read_rate.limited, rows[i].read);
            assert_int_equal(config->read_rate.burst, rows[i].read_burst);
            assert_int_equal(config->write_rate.limited, rows[i].write);
            assert_int_equal(config->request_limits_enforced, rows[i].enforced);
            config_free(config);
        }
    }
}

static void test_dev_is_one_server_on_the_loopback(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    assert_int_equal(load("-dev -http-port 18500", &config, &err), 0);
    assert_true(config->server);
    assert_true(config->bootstrap);
    assert_null(config->data_dir);
    assert_string_equal(config->bind_addr, "127.0.0.1");
    assert_int_equal(config->http_port, 18500);
    assert_int_equal(config->log_level, LOG_DEBUG);
    config_free(config);
}

static void test_later_sources_win_and_lists_are_joined(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    assert_int_equal(mkdir(file_path("d"), 0700), 0);
    (void)write_file("d/b.json", "{\"datacenter\": \"b\", \"retry_join\": [\"b\"],"
                                 " \"node_meta\": {\"x\": \"b\", \"y\": \"b\"},"
                                 " \"service\": {\"Name\": \"s2\", \"EnableTagOverride\": true}}");
    (void)write_file("d/a.json", "{" BASE ", \"datacenter\": \"a\", \"retry_join\": [\"a\"],"
                                 " \"node_meta\": {\"x\": \"a\", \"z\": \"a\"},"
                                 " \"log_level\": \"warn\", \"services\": [{\"name\": \"s1\"}]}");
    (void)write_file("d/ignored.txt", "not JSON");
    assert_int_equal(load("-retry-join f1 -log-level=trace -config-dir @/d -retry-join f2 "
                          "-node-meta z:flag",
                          &config, &err),
                     0);
    assert_string_equal(config->datacenter, "b");
    assert_int_equal(config->log_level, LOG_TRACE); /* flags win */
    assert_int_equal(config->retry_join_count, 4);
    assert_string_equal(config->retry_join[0], "f1"); /* flags' lists come first */
    assert_string_equal(config->retry_join[1], "f2");
    assert_string_equal(config->retry_join[2], "a");
    assert_string_equal(config->retry_join[3], "b");
    assert_string_equal(json_string_value(json_object_get(config->node_meta, "x")), "b");
    assert_string_equal(json_string_value(json_object_get(config->node_meta, "y")), "b");
    assert_string_equal(json_string_value(json_object_get(config->node_meta, "z")), "flag");
    assert_int_equal(json_array_size(config->services), 2);
    const json_t *service = json_array_get(config->services, 1);
    assert_string_equal(json_string_value(json_object_get(service, "name")), "s2");
    assert_true(json_is_true(json_object_get(service, "enable_tag_override")));

    /* With a format named, endings do not count. */
    struct config *formatted = NULL;
    assert_int_not_equal(load("-config-format json -config-dir @/d", &formatted, &err), 0);
    assert_non_null(strstr(err.text, "d/ignored.txt"));
    (void)write_file("d/ignored.txt", "{\"datacenter\": \"i\"}");
    (void)write_file("d/c.hcl", "{\"node_name\": \"h\"}");
    assert_int_equal(load("-config-format json -config-dir @/d", &formatted, &err), 0);
    assert_string_equal(formatted->datacenter, "i");
    assert_string_equal(formatted->node_name, "h");
    config_free(formatted);

    (void)write_file("d/c.hcl", "x = 1");
    struct config *refused = NULL;
    assert_int_not_equal(config_reload(config, &refused, &err), 0);
    assert_non_null(strstr(err.text, "HCL is not read"));
    assert_int_equal(unlink(file_path("d/c.hcl")), 0);

    (void)write_file("d/b.json", "{\"log_level\": \"warn\"}");
    struct config *again = NULL;
    assert_int_equal(config_reload(config, &again, &err), 0);
    assert_int_equal(json_array_size(again->services), 1);
    config_free(again);
    config_free(config);
}

/* The deployment that Proconsul is for, in the spellings that are found in the wild. */
static void test_service_definitions_get_one_spelling(void **state)
{
    struct config *config = NULL;
    struct errmsg err;

    (void)state;
    (void)write_file(
        "s.json",
        "{" BASE ", \"services\": [{\"Name\": \"db-replica\", \"Port\": 6432, \"Checks\": "
        "[{\"HTTP\": \"http://0.0.0.0:8009/replica\", \"Interval\": \"2s\", "
        "\"DeregisterCriticalServiceAfter\": \"1h\"}], \"weights\": {\"Passing\": 2}}]}");
    assert_int_equal(load("-config-file @/s.json", &config, &err), 0);
    const json_t *service = json_array_get(config->services, 0);
    assert_int_equal(json_integer_value(json_object_get(service, "port")), 6432);
    const json_t *check = json_array_get(json_object_get(service, "checks"), 0);
    assert_string_equal(json_string_value(json_object_get(check, "http")),
                        "http://0.0.0.0:8009/replica");
    assert_string_equal(
        json_string_value(json_object_get(check, "deregister_critical_service_after")), "1h");
    const json_t *weights = json_object_get(service, "weights");
    assert_int_equal(json_integer_value(json_object_get(weights, "passing")), 2);
    config_free(config);
    assert_int_equal(unlink(file_path("s.json")), 0);
}

/* Files as operators of three generations of Consul write them. */
static const char *const real_files[] = {
    /* 1.8 */
    "{\"server\": true, \"bootstrap_expect\": 5, \"datacenter\": \"east-us-2\", \"data_dir\": "
    "\"/var/lib/consul\", \"log_level\": \"INFO\", \"enable_syslog\": true, \"bind_addr\": "
    "\"127.0.0.1\", \"client_addr\": \"127.0.0.1\", \"disable_remote_exec\": true, "
    "\"disable_update_check\": true, \"leave_on_terminate\": false, \"rejoin_after_leave\": true, "
    "\"retry_join\": [\"10.0.0.1\", \"10.0.0.2\"], \"ui\": true, \"ports\": {\"http\": 8500, "
    "\"dns\": 8600, \"https\": -1}, \"performance\": {\"raft_multiplier\": 1}, \"dns_config\": "
    "{\"allow_stale\": true, \"max_stale\": \"87600h\", \"node_ttl\": \"30s\", \"service_ttl\": "
    "{\"*\": \"10s\"}, \"enable_truncate\": true, \"only_passing\": true}, \"telemetry\": "
    "{\"statsite_address\": \"127.0.0.1:8125\", \"disable_hostname\": true, "
    "\"prometheus_retention_time\": \"60s\"}, \"autopilot\": {\"cleanup_dead_servers\": true}, "
    "\"recursors\": [\"8.8.8.8\"], \"acl\": {\"enabled\": false, \"default_policy\": \"allow\"}, "
    "\"verify_incoming\": false, \"connect\": {\"enabled\": true}, \"raft_protocol\": 3}",
    /* 1.14 */
    "{\"server\": true, \"bootstrap_expect\": 3, \"data_dir\": \"/opt/consul\", \"bind_addr\": "
    "\"127.0.0.1\", \"auto_reload_config\": true, \"ui_config\": {\"enabled\": true, "
    "\"metrics_provider\": \"prometheus\"}, \"ports\": {\"grpc\": 8502, \"grpc_tls\": 8503, "
    "\"https\": -1}, \"peering\": {\"enabled\": true}, \"rpc\": {\"enable_streaming\": true}, "
    "\"use_streaming_backend\": true, \"tls\": {\"defaults\": {\"verify_incoming\": false, "
    "\"verify_outgoing\": false, \"ca_file\": \"/etc/ca.pem\"}}, \"limits\": "
    "{\"http_max_conns_per_client\": 400, \"rpc_rate\": 1000.5, \"rpc_client_timeout\": \"60s\"}, "
    "\"license_path\": \"\"}",
    /* 1.22 */
    "{\"server\": true, \"bootstrap_expect\": 5, \"data_dir\": \"/opt/consul\", \"bind_addr\": "
    "\"127.0.0.1\", \"raft_logstore\": {\"backend\": \"wal\", \"wal\": {\"segment_size_mb\": 64}, "
    "\"verification\": {\"enabled\": true, \"interval\": \"60s\"}}, \"limits\": "
    "{\"request_limits\": {\"mode\": \"permissive\", \"read_rate\": 500, \"write_rate\": 200}}, "
    "\"locality\": {\"region\": \"r\", \"zone\": \"z\"}, \"log_sublevels\": {\"agent.server\": "
    "\"warn\"}, \"experiments\": [\"v2dns\"], \"reporting\": {\"license\": {\"enabled\": false}}, "
    "\"server_rejoin_age_max\": \"168h\", \"http_config\": {\"max_header_bytes\": 8192, "
    "\"response_headers\": {\"Access-Control-Allow-Origin\": \"*\"}}, \"raft_prevote_disabled\": "
    "false, \"default_intention_policy\": \"allow\"}",
};

static void test_real_files_of_three_generations_start_a_server(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(real_files) / sizeof(real_files[0]); i++) {
        struct config *config = NULL;
        struct errmsg err;

        (void)write_file("real.json", real_files[i]);
        if (load("-config-file @/real.json", &config, &err) != 0) {
            fail_msg("file %zu: %s", i, err.text);
        }
        config_free(config);
    }
}

static void test_tables_have_no_key_twice_and_a_reason_for_what_is_not_honoured(void **state)
{
    const struct {
        const struct config_key *keys;
        size_t count;
    } tables[] = {{config_keys, config_key_count},
                  {config_service_keys, config_service_key_count},
                  {config_check_keys, config_check_key_count}};

    (void)state;
    for (size_t t = 0; t < 3; t++) {
        for (size_t i = 0; i < tables[t].count; i++) {
            const struct config_key *key = &tables[t].keys[i];

            assert_ptr_equal(config_key_find(tables[t].keys, tables[t].count, key->path), key);
            assert_ptr_equal(config_key_nearest(tables[t].keys, tables[t].count, key->path), key);
            assert_true((key->use == CONFIG_HONOURED) == (key->note == NULL));
            assert_true(strlen(key->path) < CONFIG_PATH_BYTES_MAX);
        }
    }
}

/* The help called flags for script checks without effect when they had one already. */
static void test_every_flag_names_a_key_and_its_help_says_what_becomes_of_it(void **state)
{
    static const char *const words[] = {
        [CONFIG_IGNORED] = "No effect", [CONFIG_ALWAYS] = "Always", [CONFIG_REFUSED] = "Refused"};

    (void)state;
    for (size_t i = 0; i < config_flag_count; i++) {
        const struct config_flag *flag = &config_flag_table[i];

        if (flag->path == NULL) {
            continue;
        }
        const struct config_key *key = config_key_find(config_keys, config_key_count, flag->path);

        assert_non_null(key);
        for (enum config_use use = CONFIG_IGNORED; use <= CONFIG_REFUSED; use++) {
            if ((strncmp(flag->help, words[use], strlen(words[use])) == 0) != (key->use == use)) {
                fail_msg("-%s: %s", flag->name, flag->help);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_files_are_taken_or_refused_with_the_reason),
        cmocka_unit_test(test_flags_follow_go_syntax),
        cmocka_unit_test(test_defaults_are_consuls),
        cmocka_unit_test(test_recursors_are_words_of_their_entries),
        cmocka_unit_test(test_no_time_for_recursors_is_the_default),
        cmocka_unit_test(test_rates_are_none_unless_set),
        cmocka_unit_test(test_dev_is_one_server_on_the_loopback),
        cmocka_unit_test(test_later_sources_win_and_lists_are_joined),
        cmocka_unit_test(test_service_definitions_get_one_spelling),
        cmocka_unit_test(test_real_files_of_three_generations_start_a_server),
        cmocka_unit_test(test_tables_have_no_key_twice_and_a_reason_for_what_is_not_honoured),
        cmocka_unit_test(test_every_flag_names_a_key_and_its_help_says_what_becomes_of_it),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
