#include "server/config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/buffer.h"
#include "server/config_internal.h"

/* What a configuration was read from, and what its strings live in. */
struct config_sources {
    int argc;
    char **argv; /* copies */
    struct config_settings settings;
};

enum { CONFIG_READ_BYTES = 65536 }; /* at a time */

/* --- files --- */

static bool config_has_suffix(const char *name, const char *suffix)
{
    const size_t name_size = strlen(name);
    const size_t suffix_size = strlen(suffix);

    return name_size >= suffix_size && strcmp(name + name_size - suffix_size, suffix) == 0;
}

/* Reads a whole file of bounded size into `text`. */
static int config_read_text(const char *path, struct buffer *text, struct errmsg *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = 1;

    if (fd < 0) {
        return errmsg_set_errno(err, -1, "config: Open failed on %.300s", path);
    }
    while (count > 0 && text->size <= CONFIG_FILE_BYTES_MAX) {
        char *at = buffer_reserve(text, CONFIG_READ_BYTES);

        if (at == NULL) {
            errno = ENOMEM;
            count = -1;
            break;
        }
        count = read(fd, at, CONFIG_READ_BYTES);
        if (count < 0 && errno == EINTR) {
            count = 1;
            continue;
        }
        text->size += count > 0 ? (size_t)count : 0;
    }
    int rc = 0;
    if (count < 0) {
        rc = errmsg_set_errno(err, -1, "config: Read failed on %.300s", path);
    } else if (text->size > CONFIG_FILE_BYTES_MAX) {
        rc = errmsg_set(err, -1, "config: %.300s is larger than %d bytes", path,
                        CONFIG_FILE_BYTES_MAX);
    }
    (void)close(fd); /* only read from */
    return rc;
}

static int config_read_file(struct config_settings *settings, const char *path, struct errmsg *err)
{
    struct buffer text = {0};

    if (!settings->format && config_has_suffix(path, ".hcl")) {
        return errmsg_set(err, -1,
                          "config: %.300s: HCL is not read; write the file as JSON (Consul reads "
                          "both) and name it *.json",
                          path);
    }
    if (!settings->format && !config_has_suffix(path, ".json")) {
        if (!settings->quiet) {
            log_write(LOG_WARN, "agent",
                      "skipping file %s, extension must be .json, or config format must be set",
                      path);
        }
        return 0;
    }
    int rc = config_read_text(path, &text, err);
    if (rc == 0) {
        rc = config_settings_read(settings, path, buffer_slice(&text), err);
    }
    buffer_deinit(&text);
    return rc;
}

/* By bytes, whatever the locale. */
static int config_compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int config_read_folder(struct config_settings *settings, const char *path,
                              struct errmsg *err)
{
    struct dirent **entries = NULL;
    struct stat status;
    int rc = 0;

    const int count = scandir(path, &entries, NULL, config_compare_names);
    if (count < 0) {
        return errmsg_set_errno(err, -1, "config: Open failed on %.300s", path);
    }
    if (count > CONFIG_FILES_MAX) {
        rc = errmsg_set(err, -1, "config: %.300s holds more than %d files", path, CONFIG_FILES_MAX);
    }
    for (int i = 0; i < count; i++) {
        char file[4096];

        (void)snprintf(file, sizeof(file), "%s/%s", path, entries[i]->d_name);
        free(entries[i]);
        if (rc == 0 && (stat(file, &status) != 0 || !S_ISDIR(status.st_mode))) {
            rc = config_read_file(settings, file, err);
        }
    }
    free(entries);
    return rc;
}

/* -config-file and -config-dir both take either. */
static int config_read_source(struct config_settings *settings, const char *path,
                              struct errmsg *err)
{
    struct stat status;

    if (stat(path, &status) != 0) {
        return errmsg_set_errno(err, -1, "config: Open failed on %.300s. open %.100s", path, path);
    }
    return S_ISDIR(status.st_mode) ? config_read_folder(settings, path, err)
                                   : config_read_file(settings, path, err);
}

/* --- merging --- */

static int config_merge_flags(struct config_settings *settings, json_t *values, struct errmsg *err)
{
    const char *path;
    json_t *value;

    json_object_foreach(values, path, value)
    {
        const struct config_key *key = config_key_find(config_keys, config_key_count, path);

        if (config_settings_set(settings, "flags", key, json_incref(value), err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Consul's order: lists from flags, files in their order, single values from flags. */
static int config_merge_sources(struct config_settings *settings, const struct config_flags *flags,
                                struct errmsg *err)
{
    int rc = config_merge_flags(settings, flags->lists, err);

    for (size_t i = 0; rc == 0 && i < json_array_size(flags->files); i++) {
        rc = config_read_source(settings, json_string_value(json_array_get(flags->files, i)), err);
    }
    return rc == 0 ? config_merge_flags(settings, flags->values, err) : rc;
}

static struct config_sources *config_sources_new(int argc, char **argv)
{
    struct config_sources *sources = calloc(1, sizeof(*sources));

    if (sources == NULL || config_settings_init(&sources->settings) != 0) {
        free(sources);
        return NULL;
    }
    sources->argv = calloc((size_t)argc + 1, sizeof(*sources->argv));
    for (int i = 0; sources->argv != NULL && i < argc; i++) {
        sources->argv[i] = strdup(argv[i]);
        if (sources->argv[i] == NULL) {
            break;
        }
        sources->argc++;
    }
    return sources;
}

static void config_sources_free(struct config_sources *sources)
{
    if (sources == NULL) {
        return;
    }
    for (int i = 0; i < sources->argc; i++) {
        free(sources->argv[i]);
    }
    free(sources->argv);
    config_settings_deinit(&sources->settings);
    free(sources);
}

int config_load(int argc, char **argv, struct config **out, struct errmsg *err)
{
    struct config_flags flags;

    if (config_flags_parse(argc, argv, &flags, err) != 0) {
        return -1;
    }
    int rc = -1;
    struct config *config = calloc(1, sizeof(*config));
    struct config_sources *sources = config_sources_new(argc, argv);
    if (config == NULL || sources == NULL || sources->argc != argc) {
        config_sources_free(sources);
        (void)errmsg_set(err, -1, "out of memory");
        goto done;
    }
    config->sources = sources;
    sources->settings.format = flags.format;
    rc = config_merge_sources(&sources->settings, &flags, err);
    if (rc == 0) {
        rc = config_build(&sources->settings, flags.dev, config, err);
    }

done:
    config_flags_deinit(&flags);
    if (rc != 0) {
        config_free(config);
        return -1;
    }
    *out = config;
    return 0;
}

int config_reload(const struct config *old, struct config **out, struct errmsg *err)
{
    return config_load(old->sources->argc, old->sources->argv, out, err);
}

static void config_free_strings(char **strings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(strings[i]);
    }
    free(strings);
}

void config_free(struct config *config)
{
    if (config == NULL) {
        return;
    }
    free(config->datacenter);
    free(config->node_name);
    free(config->node_id);
    json_decref(config->node_meta);
    free(config->data_dir);
    free(config->pid_file);
    free(config->metrics_prefix);
    config_free_strings(config->metrics_filters, config->metrics_filter_count);
    free(config->bind_addr);
    free(config->client_addr);
    free(config->advertise_addr);
    config_free_strings(config->retry_join, config->retry_join_count);
    free(config->http_address);
    free(config->dns_address);
    config_free_strings(config->http_blocked_prefixes, config->http_blocked_count);
    json_decref(config->http_response_headers);
    json_decref(config->services);
    json_decref(config->checks);
    free(config->acl_token);
    free(config->dns_domain);
    free(config->dns_alt_domain);
    free(config->dns_recursors);
    config_sources_free(config->sources);
    free(config);
}
