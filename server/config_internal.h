#ifndef SERVER_CONFIG_INTERNAL_H
#define SERVER_CONFIG_INTERNAL_H

/* What the files of the configuration share: the table of keys, the settings that sources are
 * merged into, and the steps from arguments to a struct config. */

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "kv/errmsg.h"
#include "kv/slice.h"
#include "server/config.h"

enum {
    CONFIG_FILE_BYTES_MAX = 16 * 1024 * 1024,
    CONFIG_PATH_BYTES_MAX = 256,   /* of a key with its sections, as "dns_config.soa.refresh" */
    CONFIG_DEFINITIONS_MAX = 4096, /* services and checks */
    CONFIG_NAME_BYTES_MAX = 127,   /* node name: what membership carries */
    CONFIG_DOMAIN_BYTES_MAX = 242, /* RFC 1035: 253 with the "hostmaster." of each SOA */
};

enum config_kind {
    CONFIG_BOOL,
    CONFIG_INT,
    CONFIG_NUMBER, /* a fraction may matter */
    CONFIG_STRING,
    CONFIG_DURATION, /* a string in Go's syntax */
    CONFIG_STRINGS,  /* joined over all sources */
    CONFIG_MAP,      /* of strings; joined, later keys win */
    CONFIG_SERVICE,  /* one definition, or a list of them */
    CONFIG_SERVICES,
    CONFIG_CHECK,
    CONFIG_CHECKS,
    CONFIG_ANY, /* whatever is below is not looked at */
};

enum config_use {
    CONFIG_HONOURED,
    CONFIG_IGNORED, /* one log line, unless the value switches the thing off */
    CONFIG_ALWAYS,  /* true is how it always is; one log line for false */
    CONFIG_REFUSED, /* an error, unless the value switches the thing off */
};

struct config_key {
    const char *path;
    enum config_kind kind;
    enum config_use use;
    const char *note; /* of what is not honoured: why, or what to do */
};

/* The tables of keys, in the order of docs/configuration.md. */
extern const struct config_key config_keys[];
extern const size_t config_key_count;
/* Below service, services[], and below check, checks[]. */
extern const struct config_key config_service_keys[];
extern const size_t config_service_key_count;
extern const struct config_key config_check_keys[];
extern const size_t config_check_key_count;

/* Case does not matter, as in Consul. NULL when there is none. */
const struct config_key *config_key_find(const struct config_key *keys, size_t count,
                                         const char *path);
/* Whether some key's path goes on below `path`. */
bool config_key_is_section(const struct config_key *keys, size_t count, const char *path);
/* The key whose path differs least from `path`; never NULL. */
const struct config_key *config_key_nearest(const struct config_key *keys, size_t count,
                                            const char *path);

/* Merged values, by the paths of config_keys. */
struct config_settings {
    json_t *values;   /* object: path -> value, checked for its kind */
    json_t *services; /* array of definitions; keys in Consul's spelling */
    json_t *checks;
    bool quiet;  /* no log lines */
    bool format; /* -config-format says json: every file is, whatever its name */
};

/* -1 when out of memory. */
int config_settings_init(struct config_settings *settings);
void config_settings_deinit(struct config_settings *settings);
/* Merges one JSON text; no text at all says nothing. `name` is the file's, for errors and log
 * lines. Returns 0 or -1. */
int config_settings_read(struct config_settings *settings, const char *name, struct slice text,
                         struct errmsg *err);
/* Merges one value, as if it had been written in a file. Takes `value`. */
int config_settings_set(struct config_settings *settings, const char *name,
                        const struct config_key *key, json_t *value, struct errmsg *err);

/* Flags, sorted by how they are merged. */
struct config_flags {
    bool dev;
    bool format;    /* -config-format json */
    json_t *lists;  /* path -> value: lists, which come before the files' */
    json_t *values; /* path -> value: the rest, which comes after them */
    json_t *files;  /* array of paths: -config-file and -config-dir in their order */
};
int config_flags_parse(int argc, char **argv, struct config_flags *flags, struct errmsg *err);
void config_flags_deinit(struct config_flags *flags);
struct config_flag {
    const char *name; /* without dash */
    const char *path; /* of config_keys; NULL: handled by the parser itself */
    const char *help;
};
extern const struct config_flag config_flag_table[];
extern const size_t config_flag_count;

/* Settings to a configuration, with all defaults and checks. Takes what it needs of `settings`,
 * which still needs its deinit. Returns 0 or -1. */
int config_build(struct config_settings *settings, bool dev, struct config *config,
                 struct errmsg *err);

/* Whether `text` is an IPv4 or IPv6 address without port. */
bool config_is_ip(const char *text);
bool config_is_any_ip(const char *text); /* "0.0.0.0", "::" */
/* Replaces the templates {{ GetPrivateIP }}, {{ GetInterfaceIP "eth0" }}, {{ GetPublicIP }} in
 * `text`. Returns owned, NULL on failure. */
char *config_address_expand(const char *key, const char *text, struct errmsg *err);
/* This machine's one private IPv4 address, as Consul picks it. Returns owned. */
char *config_address_private(struct errmsg *err);

#endif
