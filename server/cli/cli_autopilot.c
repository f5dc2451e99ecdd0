/* consul operator autopilot: what the leader does with servers by itself. */

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli/cli.h"
#include "server/cli/cli_client.h"
#include "server/duration.h"

static const char autopilot_usage[] =
    "Usage: consul operator autopilot <subcommand> [options]\n\n"
    "The Autopilot operator command is used to interact with Consul's Autopilot\n"
    "subsystem. The command can be used to view or modify the current configuration.\n\n"
    "Subcommands:\n"
    "    get-config    Display the current Autopilot configuration\n"
    "    set-config    Modify the current Autopilot configuration\n";

/* The fields in the order that they are shown, and the flags that set them. */
enum autopilot_kind { AUTOPILOT_BOOL, AUTOPILOT_NUMBER, AUTOPILOT_DURATION, AUTOPILOT_TEXT };
static const struct autopilot_field {
    const char *name;
    const char *flag;
    enum autopilot_kind kind;
} autopilot_fields[] = {
    {"CleanupDeadServers", "cleanup-dead-servers", AUTOPILOT_BOOL},
    {"LastContactThreshold", "last-contact-threshold", AUTOPILOT_DURATION},
    {"MaxTrailingLogs", "max-trailing-logs", AUTOPILOT_NUMBER},
    {"MinQuorum", "min-quorum", AUTOPILOT_NUMBER},
    {"ServerStabilizationTime", "server-stabilization-time", AUTOPILOT_DURATION},
    {"RedundancyZoneTag", "redundancy-zone-tag", AUTOPILOT_TEXT},
    {"DisableUpgradeMigration", "disable-upgrade-migration", AUTOPILOT_BOOL},
    {"UpgradeVersionTag", "upgrade-version-tag", AUTOPILOT_TEXT},
};
static const size_t autopilot_field_count = sizeof(autopilot_fields) / sizeof(autopilot_fields[0]);

static json_t *autopilot_fetch(const struct cli_flag *flags, size_t count, struct errmsg *err)
{
    struct cli_answer answer;
    json_t *root = NULL;

    if (cli_ask(flags, count, "GET", "/v1/operator/autopilot/configuration", SLICE_EMPTY, &answer,
                err) == 0) {
        root = json_loadb(answer.body.data, answer.body.size, 0, NULL);
        if (!json_is_object(root)) {
            (void)errmsg_set(err, -1, "the answer is not understood");
            json_decref(root);
            root = NULL;
        }
    }
    buffer_deinit(&answer.body);
    return root;
}

static int autopilot_get_config(const struct cli_flag *flags, size_t count)
{
    struct errmsg err = {""};
    json_t *root = autopilot_fetch(flags, count, &err);

    if (root == NULL) {
        (void)fprintf(stderr, "Error querying Autopilot configuration: %s\n", err.text);
        return 1;
    }
    for (size_t i = 0; i < autopilot_field_count; i++) {
        const json_t *value = json_object_get(root, autopilot_fields[i].name);

        switch (autopilot_fields[i].kind) {
        case AUTOPILOT_BOOL:
            (void)printf("%s = %s\n", autopilot_fields[i].name,
                         json_is_true(value) ? "true" : "false");
            break;
        case AUTOPILOT_NUMBER:
            (void)printf("%s = %" JSON_INTEGER_FORMAT "\n", autopilot_fields[i].name,
                         json_integer_value(value));
            break;
        case AUTOPILOT_DURATION:
        case AUTOPILOT_TEXT: {
            const char *quote = autopilot_fields[i].kind == AUTOPILOT_TEXT ? "\"" : "";
            const char *text = json_string_value(value);

            (void)printf("%s = %s%s%s\n", autopilot_fields[i].name, quote, text == NULL ? "" : text,
                         quote);
            break;
        }
        }
    }
    json_decref(root);
    return 0;
}

/* What a flag says, as the field's JSON; NULL if it says nothing sensible. */
static json_t *autopilot_value(const struct autopilot_field *field, const char *text)
{
    struct errmsg ignored;
    char *end = NULL;
    int64_t ns;

    switch (field->kind) {
    case AUTOPILOT_BOOL:
        return json_boolean(strchr("1tT", text[0]) != NULL); /* One of Go's words for it. */
    case AUTOPILOT_NUMBER: {
        errno = 0;
        const long long number = strtoll(text, &end, 0); /* Also 0x10, as Go's flags. */

        return text[0] >= '0' && text[0] <= '9' && *end == 0 && errno == 0 ? json_integer(number)
                                                                           : NULL;
    }
    case AUTOPILOT_DURATION:
        return duration_parse(slice_from_text(text), &ns, &ignored) && ns >= 0 ? json_string(text)
                                                                               : NULL;
    case AUTOPILOT_TEXT:
        return json_string(text);
    }
    return NULL;
}

static int autopilot_change(json_t *root, const struct cli_flag *flags, size_t count,
                            struct errmsg *err)
{
    for (size_t i = 0; i < autopilot_field_count; i++) {
        const char *text = cli_flag(flags, count, autopilot_fields[i].flag);
        json_t *value;

        if (text == NULL) {
            continue;
        }
        value = autopilot_value(&autopilot_fields[i], text);
        if (value == NULL || json_object_set_new(root, autopilot_fields[i].name, value) != 0) {
            return errmsg_set(err, -1, "invalid value \"%.100s\" for flag -%s: parse error", text,
                              autopilot_fields[i].flag);
        }
    }
    return 0;
}

/* Puts back what was fetched, changed; nobody else may have changed it meanwhile. */
static int autopilot_store(json_t *root, const struct cli_flag *flags, size_t count, bool *stored,
                           struct errmsg *err)
{
    struct cli_answer answer = {0};
    char path[96];
    char *text = json_dumps(root, JSON_COMPACT);
    int rc = -1;

    (void)snprintf(path, sizeof(path),
                   "/v1/operator/autopilot/configuration?cas=%" JSON_INTEGER_FORMAT,
                   json_integer_value(json_object_get(root, "ModifyIndex")));
    if (text == NULL) {
        (void)errmsg_set(err, -1, "out of memory");
    } else {
        rc = cli_ask(flags, count, "PUT", path, slice_from_text(text), &answer, err);
    }
    *stored = rc == 0 && slice_starts_with(buffer_slice(&answer.body), SLICE_LITERAL("true"));
    free(text);
    buffer_deinit(&answer.body);
    return rc;
}

static int autopilot_set_config(const struct cli_flag *flags, size_t count)
{
    struct errmsg err = {""};
    json_t *given = json_object();
    json_t *root = NULL;
    bool stored = false;
    int status = 1;

    if (given == NULL || autopilot_change(given, flags, count, &err) != 0) {
        (void)fprintf(stderr, "%s\n\n%s\n%s", err.text, autopilot_usage, cli_client_usage);
    } else if ((root = autopilot_fetch(flags, count, &err)) == NULL) {
        (void)fprintf(stderr, "Error querying Autopilot configuration: %s\n", err.text);
    } else if (json_object_update(root, given) != 0 ||
               autopilot_store(root, flags, count, &stored, &err) != 0) {
        (void)fprintf(stderr, "Error setting Autopilot configuration: %s\n", err.text);
    } else if (!stored) {
        (void)printf("Configuration could not be atomically updated, please try again\n");
    } else {
        (void)printf("Configuration updated!\n");
        status = 0;
    }
    json_decref(given);
    json_decref(root);
    return status;
}

int cli_autopilot(int argc, char **argv)
{
    struct cli_flag flags[] = {
        {"cleanup-dead-servers", true, NULL},
        {"last-contact-threshold", false, NULL},
        {"max-trailing-logs", false, NULL},
        {"min-quorum", false, NULL},
        {"server-stabilization-time", false, NULL},
        {"redundancy-zone-tag", false, NULL},
        {"disable-upgrade-migration", true, NULL},
        {"upgrade-version-tag", false, NULL},
        CLI_CLIENT_FLAGS,
    };
    const size_t count = sizeof(flags) / sizeof(flags[0]);
    const bool get = argc > 0 && strcmp(argv[0], "get-config") == 0;
    struct errmsg err = {""};

    if (!get && (argc == 0 || strcmp(argv[0], "set-config") != 0)) {
        (void)fprintf(stderr, "%s", autopilot_usage);
        return 1;
    }
    if (cli_flags_parse(argc - 1, argv + 1, flags, count, &err) < 0) {
        (void)fprintf(stderr, "%s\n\n%s\n%s", err.text, autopilot_usage, cli_client_usage);
        return 1;
    }
    return get ? autopilot_get_config(flags, count) : autopilot_set_config(flags, count);
}
