#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

/* The configuration: Consul's keys and flags, from files, folders and the command line, merged in
 * Consul's order (files in the order given, folders in lexical order, flags last; later wins, lists
 * are joined). One table in config_keys.c says of every key: honoured, accepted without effect, or
 * refused with the reason; a key in no table is an error that names it and the nearest known one.
 * docs/configuration.md shows the table; a test compares them. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dns/dns.h"
#include "kv/errmsg.h"
#include "kv/uuid.h"
#include "server/catalog/autopilot.h"
#include "server/duration.h"
#include "server/log.h"

enum { CONFIG_ADDRESSES_MAX = 64, CONFIG_FILES_MAX = 4096, CONFIG_HOST_BYTES_MAX = 253 };

/* A token bucket: so many requests a second, and so many at once. */
struct config_rate {
    bool limited;
    double per_second; /* not negative */
    uint32_t burst;
};

struct config {
    bool server;
    bool dev;
    bool bootstrap;
    uint32_t bootstrap_expect;
    char *datacenter;     /* "dc1" */
    char *node_name;      /* host name by default */
    char *node_id;        /* NULL: from data_dir/node-id, drawn at first start */
    json_t *node_meta;    /* object of strings, or NULL */
    char *data_dir;       /* NULL with -dev */
    char *bind_addr;      /* "0.0.0.0" */
    char *client_addr;    /* "127.0.0.1"; may hold several, blank-separated */
    char *advertise_addr; /* bind_addr if that is concrete, else the first private IPv4 address */
    char **retry_join;    /* start_join and -join too */
    size_t retry_join_count;
    uint32_t retry_interval_ms; /* 30 s in Consul */
    /* -1: disabled */
    int http_port;        /* 8500 */
    int dns_port;         /* 8600 */
    unsigned dns_threads; /* ours: dns_config.threads, 1 */
    int server_port;      /* 8300 */
    int serf_lan_port;    /* 8301 */
    char *http_address;   /* addresses.http, NULL: client_addr */
    char *dns_address;    /* addresses.dns, NULL: client_addr */
    enum log_level log_level;
    uint32_t raft_multiplier;           /* performance.raft_multiplier, 1 */
    uint32_t rpc_hold_timeout_ms;       /* performance.rpc_hold_timeout, 7 s */
    uint32_t disk_stall_timeout_ms;     /* ours: performance.disk_stall_timeout; 0: never */
    uint64_t raft_snapshot_threshold;   /* entries since the last snapshot, 16384 */
    uint32_t raft_snapshot_interval_ms; /* between looks whether one is due, 30 s */
    uint64_t raft_trailing_logs;        /* entries kept before a snapshot, 10240 */
    struct autopilot_config autopilot;  /* what the cluster begins with; then it is its own */
    uint64_t session_ttl_min_ns;        /* 10 s */
    uint64_t kv_value_bytes_max;        /* limits.kv_max_value_size, 512 KiB */
    uint64_t txn_request_bytes_max;     /* limits.txn_max_req_len, at least kv_max_value_size */
    uint32_t
        http_conns_per_client_max;     /* limits.http_max_conns_per_client, 200; none: UINT32_MAX */
    struct config_rate rpc_rate;       /* limits.rpc_rate, rpc_max_burst: all requests */
    struct config_rate read_rate;      /* limits.request_limits.read_rate */
    struct config_rate write_rate;     /* limits.request_limits.write_rate */
    bool request_limits_enforced;      /* mode is enforcing; else what exceeds is only told */
    uint64_t state_bytes_max;          /* ours: limits.state_max_size; 16 GiB */
    uint64_t check_update_interval_ms; /* 5 min */
    uint32_t check_output_bytes_max;   /* check_output_max_size, 4096 */
    bool discard_check_output;
    bool script_checks;       /* enable_script_checks: clients may register script checks */
    bool local_script_checks; /* or enable_local_script_checks: configuration files may */
    char *pid_file;           /* NULL: none */
    char *metrics_prefix;     /* telemetry.metrics_prefix, "consul" */
    char **metrics_filters;   /* telemetry.prefix_filter: each begins with '+' or '-' */
    size_t metrics_filter_count;
    bool metrics_filter_default;     /* telemetry.filter_default, true */
    bool metrics_disable_hostname;   /* telemetry.disable_hostname */
    int64_t prometheus_retention_ns; /* telemetry.prometheus_retention_time; 0: not offered */
    bool http_unprintable;           /* paths may hold bytes that nobody can print */
    bool leave_on_terminate;         /* SIGTERM leaves in order: status 0, else 1 (Consul's) */
    bool skip_leave_on_interrupt;    /* true on servers: SIGINT does not leave */
    bool acl_enabled;                /* nothing without the token */
    bool acl_anonymous;              /* acl.tokens.default is the token: all without it, too */
    char *acl_token;                 /* acl.tokens.master; NULL with ACLs off */
    char **http_blocked_prefixes;    /* http_config.block_endpoints */
    size_t http_blocked_count;
    json_t *http_response_headers; /* http_config.response_headers, object or NULL */
    struct dns_config dns; /* domain, alt_domain, dns_config; its strings are the config's */
    char *dns_domain;      /* owners of dns.domain, dns.alt_domain, dns.recursors */
    char *dns_alt_domain;
    char *dns_recursors;
    json_t *services; /* array of service definitions; keys in Consul's file spelling ("name",
                         "enable_tag_override"), whatever case they were written in */
    json_t *checks;   /* array of check definitions, likewise */
    struct config_sources *sources; /* what it was read from, for SIGHUP */
};

/* Reads the arguments after "agent" (`argc`, `argv` without program and sub-command) and the files
 * that they name. On failure `err` has one line that says what is wrong, where, and what to do.
 * Warnings (keys without effect) are logged. */
int config_load(int argc, char **argv, struct config **out, struct errmsg *err);
/* Reads the same sources again (SIGHUP). */
int config_reload(const struct config *old, struct config **out, struct errmsg *err);
void config_free(struct config *config);
/* Of a recursor "name" or "name:port": the name, and the port, 53 without one. False for addresses,
 * and for what is neither; then both may be anything. */
bool config_recursor_split(const char *text, char host[CONFIG_HOST_BYTES_MAX + 1], uint16_t *port);

#endif
