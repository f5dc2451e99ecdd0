/* Flags, with the syntax of Go's flag package: one or two dashes, "-x v" or "-x=v"; booleans need
 * the "=" for a value; the first argument without dash, or "--", ends them. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config_internal.h"

#define FLAG(name, path, help)                                                                     \
    {                                                                                              \
        name, path, help                                                                           \
    }

const struct config_flag config_flag_table[] = {
    FLAG("advertise", "advertise_addr", "Address to tell the other servers."),
    FLAG("advertise-wan", "advertise_addr_wan", "No effect."),
    FLAG("allow-write-http-from", "http_config.allow_write_http_from", "Refused."),
    FLAG("alt-domain", "alt_domain", "A second domain for DNS."),
    FLAG("auto-reload-config", "auto_reload_config", "No effect: send SIGHUP."),
    FLAG("bind", "bind_addr", "Address for what servers say to each other."),
    FLAG("bootstrap", "bootstrap", "This server alone founds the cluster."),
    FLAG("bootstrap-expect", "bootstrap_expect", "How many servers found the cluster."),
    FLAG("check_output_max_size", "check_output_max_size",
         "Bytes of a check's output that are kept."),
    FLAG("client", "client_addr", "Addresses for clients: HTTP and DNS."),
    FLAG("config-dir", NULL, "Folder whose *.json files are read; may be repeated."),
    FLAG("config-file", NULL, "JSON file to read; may be repeated."),
    FLAG("config-format", NULL, "json: every file is read, whatever its ending."),
    FLAG("data-dir", "data_dir", "Where the state is kept."),
    FLAG("datacenter", "datacenter", "Name of the datacenter."),
    FLAG("default-query-time", "default_query_time", "No effect."),
    FLAG("dev", NULL, "One server alone, in memory, on the loopback."),
    FLAG("disable-host-node-id", "disable_host_node_id", "Always so."),
    FLAG("disable-keyring-file", "disable_keyring_file", "Always so."),
    FLAG("dns-port", "ports.dns", "Port of DNS."),
    FLAG("domain", "domain", "Domain of DNS."),
    FLAG("enable-local-script-checks", "enable_local_script_checks",
         "Script checks of configuration files may run."),
    FLAG("enable-script-checks", "enable_script_checks",
         "Script checks that clients register may run, too."),
    FLAG("encrypt", "encrypt", "Refused."),
    FLAG("grpc-port", "ports.grpc", "No effect."),
    FLAG("grpc-tls-port", "ports.grpc_tls", "No effect."),
    FLAG("hcl", NULL, "Refused: write JSON files."),
    FLAG("http-port", "ports.http", "Port of HTTP."),
    FLAG("https-port", "ports.https", "Refused."),
    FLAG("join", "start_join", "As -retry-join."),
    FLAG("join-wan", "start_join_wan", "No effect."),
    FLAG("log-file", "log_file", "No effect: logs go to standard error."),
    FLAG("log-json", "log_json", "No effect."),
    FLAG("log-level", "log_level", "trace, debug, info, warn or error."),
    FLAG("log-rotate-bytes", "log_rotate_bytes", "No effect."),
    FLAG("log-rotate-duration", "log_rotate_duration", "No effect."),
    FLAG("log-rotate-max-files", "log_rotate_max_files", "No effect."),
    FLAG("max-query-time", "max_query_time", "No effect."),
    FLAG("node", "node_name", "Name of this server; its host name by default."),
    FLAG("node-id", "node_id", "Identifier of this server; drawn at first start by default."),
    FLAG("node-meta", "node_meta", "key:value of this node; may be repeated."),
    FLAG("non-voting-server", "non_voting_server", "No effect."),
    FLAG("pid-file", "pid_file", "File for the process id."),
    FLAG("primary-gateway", "primary_gateways", "No effect."),
    FLAG("protocol", "protocol", "No effect."),
    FLAG("raft-protocol", "raft_protocol", "No effect."),
    FLAG("read-replica", "read_replica", "No effect."),
    FLAG("recursor", "recursors", "Server for names outside the domain; may be repeated."),
    FLAG("rejoin", "rejoin_after_leave", "Always so."),
    FLAG("retry-interval", "retry_interval", "Time between attempts to join."),
    FLAG("retry-interval-wan", "retry_interval_wan", "No effect."),
    FLAG("retry-join", "retry_join", "Address of another server; may be repeated."),
    FLAG("retry-join-wan", "retry_join_wan", "No effect."),
    FLAG("retry-max", "retry_max", "No effect: tried for ever."),
    FLAG("retry-max-wan", "retry_max_wan", "No effect."),
    FLAG("segment", "segment", "No effect."),
    FLAG("serf-lan-allowed-cidrs", "serf_lan_allowed_cidrs", "Refused."),
    FLAG("serf-lan-bind", "serf_lan", "No effect."),
    FLAG("serf-lan-port", "ports.serf_lan", "Port by which servers find each other."),
    FLAG("serf-wan-allowed-cidrs", "serf_wan_allowed_cidrs", "No effect."),
    FLAG("serf-wan-bind", "serf_wan", "No effect."),
    FLAG("serf-wan-port", "ports.serf_wan", "No effect."),
    FLAG("server", "server", "Run a server; required."),
    FLAG("server-port", "ports.server", "Port of what servers say to each other."),
    FLAG("syslog", "enable_syslog", "No effect."),
    FLAG("ui", "ui", "No effect."),
    FLAG("ui-content-path", "ui_content_path", "No effect."),
    FLAG("ui-dir", "ui_dir", "No effect."),
};
const size_t config_flag_count = sizeof(config_flag_table) / sizeof(config_flag_table[0]);

static const struct config_flag *config_flag_find(struct slice name)
{
    for (size_t i = 0; i < config_flag_count; i++) {
        if (slice_equal(name, slice_from_text(config_flag_table[i].name))) {
            return &config_flag_table[i];
        }
    }
    return NULL;
}

/* Go's strconv.ParseBool. */
static bool config_flag_bool(const char *text, bool *value)
{
    static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
    static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static int config_flag_set_bool(struct config_flags *flags, const struct config_flag *flag,
                                const char *text, struct errmsg *err)
{
    bool value;

    if (!config_flag_bool(text, &value)) {
        return errmsg_set(err, -1,
                          "invalid boolean value \"%.100s\" for -%s: strconv.ParseBool: parsing "
                          "\"%.100s\": invalid syntax",
                          text, flag->name, text);
    }
    if (flag->path == NULL) { /* -dev */
        flags->dev = value;
        return 0;
    }
    return json_object_set_new(flags->values, flag->path, json_boolean(value));
}

static int config_flag_set_int(struct config_flags *flags, const struct config_flag *flag,
                               const char *text, struct errmsg *err)
{
    char *end;

    errno = 0;
    const long value = strtol(text, &end, 10);
    const bool digits = text[0] == '-' || text[0] == '+' || (text[0] >= '0' && text[0] <= '9');
    if (!digits || end == text || *end != '\0' || errno != 0) {
        return errmsg_set(err, -1,
                          "invalid value \"%.100s\" for flag -%s: strconv.Atoi: parsing "
                          "\"%.100s\": %s",
                          text, flag->name, text,
                          errno == ERANGE ? "value out of range" : "invalid syntax");
    }
    return json_object_set_new(flags->values, flag->path, json_integer(value));
}

/* "key:value"; without a colon the value is empty, as in Consul. */
static int config_flag_add_pair(struct config_flags *flags, const struct config_flag *flag,
                                const char *text)
{
    const char *colon = strchr(text, ':');
    const size_t key_size = colon != NULL ? (size_t)(colon - text) : strlen(text);
    json_t *map = json_object_get(flags->values, flag->path);

    if (map == NULL) {
        map = json_object();
        if (json_object_set_new(flags->values, flag->path, map) != 0) {
            return -1;
        }
    }
    char *key = strndup(text, key_size);
    if (key == NULL) {
        return -1;
    }
    const int rc = json_object_set_new(map, key, json_string(colon != NULL ? colon + 1 : ""));
    free(key);
    return rc;
}

static int config_flag_add_string(struct config_flags *flags, const struct config_flag *flag,
                                  const char *text)
{
    json_t *list = json_object_get(flags->lists, flag->path);

    if (list == NULL) {
        list = json_array();
        if (json_object_set_new(flags->lists, flag->path, list) != 0) {
            return -1;
        }
    }
    return json_array_append_new(list, json_string(text));
}

/* The flags that name no configuration key. */
static int config_flag_set_own(struct config_flags *flags, const struct config_flag *flag,
                               const char *text, struct errmsg *err)
{
    if (strcmp(flag->name, "config-file") == 0 || strcmp(flag->name, "config-dir") == 0) {
        if (json_array_size(flags->files) >= CONFIG_FILES_MAX) {
            return errmsg_set(err, -1, "more than %d of -config-file and -config-dir",
                              CONFIG_FILES_MAX);
        }
        return json_array_append_new(flags->files, json_string(text));
    }
    if (strcmp(flag->name, "config-format") == 0 && strcmp(text, "hcl") != 0) {
        flags->format = true;
        return strcmp(text, "json") == 0
                   ? 0
                   : errmsg_set(err, -1, "config: -config-format must be either 'hcl' or 'json'");
    }
    return errmsg_set(err, -1,
                      "-%s %.100s: HCL is not read; write the configuration as JSON (Consul reads "
                      "both)",
                      flag->name, text);
}

static int config_flag_set(struct config_flags *flags, const struct config_flag *flag,
                           const char *text, struct errmsg *err)
{
    if (flag->path == NULL) {
        return config_flag_set_own(flags, flag, text, err);
    }
    switch (config_key_find(config_keys, config_key_count, flag->path)->kind) {
    case CONFIG_INT:
        return config_flag_set_int(flags, flag, text, err);
    case CONFIG_STRINGS:
        return config_flag_add_string(flags, flag, text);
    case CONFIG_MAP:
        return config_flag_add_pair(flags, flag, text);
    case CONFIG_BOOL:
    case CONFIG_NUMBER:
    case CONFIG_STRING:
    case CONFIG_DURATION:
    case CONFIG_SERVICE:
    case CONFIG_SERVICES:
    case CONFIG_CHECK:
    case CONFIG_CHECKS:
    case CONFIG_ANY:
        break;
    }
    return json_object_set_new(flags->values, flag->path, json_string(text));
}

static bool config_flag_is_bool(const struct config_flag *flag)
{
    if (flag->path == NULL) {
        return strcmp(flag->name, "dev") == 0;
    }
    return config_key_find(config_keys, config_key_count, flag->path)->kind == CONFIG_BOOL;
}

/* One flag at argv[*position]; moves behind it and its value. */
static int config_flag_parse(int argc, char **argv, int *position, struct config_flags *flags,
                             struct errmsg *err)
{
    const char *argument = argv[(*position)++];
    const char *name = argument + (argument[1] == '-' ? 2 : 1);
    const char *equals = strchr(name, '=');
    const size_t name_size = equals != NULL ? (size_t)(equals - name) : strlen(name);

    if (name_size == 0 || name[0] == '-') {
        return errmsg_set(err, -1, "bad flag syntax: %.100s", argument);
    }
    const struct config_flag *flag = config_flag_find(slice_from(name, name_size));
    if (flag == NULL) {
        return errmsg_set(err, -1, "flag provided but not defined: -%.*s",
                          name_size < 100 ? (int)name_size : 100, name);
    }
    /* A failure without a text of its own is jansson's: its strings are UTF-8. */
    (void)errmsg_set(err, -1, "-%s: out of memory, or a value that is not UTF-8", flag->name);
    if (config_flag_is_bool(flag)) {
        return config_flag_set_bool(flags, flag, equals != NULL ? equals + 1 : "true", err);
    }
    if (equals != NULL) {
        return config_flag_set(flags, flag, equals + 1, err);
    }
    if (*position >= argc) {
        return errmsg_set(err, -1, "flag needs an argument: -%s", flag->name);
    }
    return config_flag_set(flags, flag, argv[(*position)++], err);
}

int config_flags_parse(int argc, char **argv, struct config_flags *flags, struct errmsg *err)
{
    int position = 0;

    memset(flags, 0, sizeof(*flags));
    flags->lists = json_object();
    flags->values = json_object();
    flags->files = json_array();
    if (flags->lists == NULL || flags->values == NULL || flags->files == NULL) {
        (void)errmsg_set(err, -1, "out of memory");
        goto fail;
    }
    while (position < argc && argv[position][0] == '-' && argv[position][1] != '\0') {
        if (strcmp(argv[position], "--") == 0) {
            position++;
            break;
        }
        if (config_flag_parse(argc, argv, &position, flags, err) != 0) {
            goto fail;
        }
    }
    if (position < argc) {
        (void)errmsg_set(err, -1, "Unexpected extra arguments: [%.100s%s]", argv[position],
                         position + 1 < argc ? " ..." : "");
        goto fail;
    }
    return 0;

fail:
    config_flags_deinit(flags);
    return -1;
}

void config_flags_deinit(struct config_flags *flags)
{
    json_decref(flags->lists);
    json_decref(flags->values);
    json_decref(flags->files);
    memset(flags, 0, sizeof(*flags));
}
