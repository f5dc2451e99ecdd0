/* consul snapshot: the state as an archive in a file, and back. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/cli/cli.h"
#include "server/cli/cli_client.h"
#include "server/snapshot/archive.h"

#define SNAPSHOT_STATE_BYTES_MAX ((uint64_t)64 << 30) /* unpacked, when a file is looked into */

enum { SNAPSHOT_PATH_BYTES_MAX = 4096 };

const char cli_snapshot_usage[] =
    "Usage: consul snapshot <subcommand> [options] [args]\n\n"
    "  Saves and restores the state of the servers: key/value entries, the catalog,\n"
    "  sessions and locks, as one file.\n\n"
    "Subcommands:\n\n"
    "    save [options] FILE       Saves the state of the servers to a snapshot file\n"
    "    restore [options] FILE    Restores the state of the servers from a snapshot file\n"
    "    inspect [options] FILE    Displays information about a snapshot file; asks no server\n\n"
    "Options of save\n\n"
    "  -append-filename=<list>\n"
    "     Of version,dc,node,status (leader or follower): put into the file's name, before\n"
    "     its extension, in this order, each behind a \"-\".\n\n"
    "Options of inspect\n\n"
    "  -format=<pretty|json>  Shows how many records of each type there are, and their size.\n"
    "  -kvdetails             The same, and of the keys, grouped by how they begin.\n"
    "  -kvdepth=<int>         How many parts of a key, at slashes, make a group. Default 2.\n"
    "  -kvfilter=<prefix>     Only keys that begin so.\n\n"
    "save and restore also take:\n\n";

/* --- files --- */

static int file_read(const char *path, struct buffer *out)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = 0;

    if (fd < 0) {
        return -errno;
    }
    do {
        char *at = out->size > CLI_ANSWER_BYTES_MAX ? NULL : buffer_reserve(out, 1 << 16);

        got = at == NULL ? -1 : read(fd, at, 1 << 16);
        out->size += got > 0 ? (size_t)got : 0;
        if (at == NULL) {
            errno = EFBIG;
        }
    } while (got > 0);
    const int rc = got < 0 ? -errno : 0;

    (void)close(fd); /* Only read from. */
    return rc;
}

static int file_write_all(int fd, struct slice bytes)
{
    size_t at = 0;

    while (at < bytes.size) {
        const ssize_t put = write(fd, bytes.data + at, bytes.size - at);

        if (put < 0 && errno != EINTR) {
            return -errno;
        }
        at += put > 0 ? (size_t)put : 0;
    }
    return fsync(fd) == 0 ? 0 : -errno;
}

static const char *temporary_folder(void)
{
    const char *folder = getenv("TMPDIR");

    return folder == NULL || folder[0] == '\0' ? "/tmp" : folder;
}

/* As Go words it. */
static void say_lower(char *out, size_t size, int error)
{
    (void)snprintf(out, size, "%s", strerror(error));
    if (out[0] >= 'A' && out[0] <= 'Z') {
        out[0] = (char)(out[0] - 'A' + 'a');
    }
}

/* --- subcommands --- */

/* Appends the member behind a "-", if it is one of the list's and a text. False: it cannot be part
 * of a file's name; said so. */
static bool name_append(struct buffer *out, const char *list, const char *word, const char *text)
{
    const size_t size = strlen(word);
    bool listed = false;

    for (const char *at = list; at != NULL && !listed; at = strchr(at, ',')) {
        at += *at == ',' ? 1 : 0;
        listed = strcspn(at, ",") == size && strncmp(at, word, size) == 0;
    }
    if (!listed || text == NULL) {
        return true;
    }
    if (strchr(text, '/') != NULL) {
        (void)fprintf(stderr, "Error: %s is \"%s\", which cannot be part of a file's name\n", word,
                      text);
        return false;
    }
    buffer_printf(out, "-%s", text);
    return true;
}

static const char *member_text(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* False: said why. */
static bool name_append_all(struct buffer *out, const char *list, const json_t *self)
{
    const json_t *config = json_object_get(self, "Config");
    const json_t *stats = json_object_get(json_object_get(self, "Stats"), "consul");
    const char *leader = member_text(stats, "leader");
    const char *status = leader == NULL                ? NULL
                         : strcmp(leader, "true") == 0 ? "leader"
                                                       : "follower";

    return name_append(out, list, "version", member_text(config, "Version")) &&
           name_append(out, list, "dc", member_text(config, "Datacenter")) &&
           name_append(out, list, "node", member_text(config, "NodeName")) &&
           name_append(out, list, "status", status);
}

/* The file's name with what -append-filename lists of the server in it, and a NUL. False: said why.
 */
static bool snapshot_name(const struct cli_flag *flags, size_t count, const char *path,
                          struct buffer *out)
{
    const char *list = cli_flag(flags, count, "append-filename");
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash != NULL ? slash : path, '.');
    struct cli_answer answer = {0};
    struct errmsg err = {""};
    bool done = true;

    buffer_append(out, path, dot != NULL ? (size_t)(dot - path) : strlen(path));
    if (list != NULL && list[0] != '\0') {
        done = cli_ask(flags, count, "GET", "/v1/agent/self", SLICE_EMPTY, &answer, &err) == 0;
        if (done) {
            json_t *self = json_loadb(answer.body.data, answer.body.size, 0, NULL);

            done = name_append_all(out, list, self);
            json_decref(self);
        } else {
            (void)fprintf(stderr,
                          "Error connecting to Consul agent and fetching datacenter/version: %s\n",
                          err.text);
        }
        buffer_deinit(&answer.body);
    }
    buffer_append_text(out, dot != NULL ? dot : "");
    buffer_append_char(out, '\0');
    if (done && out->failed) {
        (void)fprintf(stderr, "Error: out of memory\n");
    }
    return done && !out->failed;
}

/* Under another name first, until it is verified: a bad file is never taken for a snapshot. */
static int save_file(const char *path, struct slice bytes)
{
    char name[SNAPSHOT_PATH_BYTES_MAX];
    char text[256];
    struct archive *archive = NULL;
    struct errmsg err = {""};
    const int size = snprintf(name, sizeof(name), "%s.unverified", path);
    const bool fits = size >= 0 && (size_t)size < sizeof(name);
    const int fd = fits ? open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    int rc = fd >= 0 ? file_write_all(fd, bytes) : fits ? -errno : -ENAMETOOLONG;
    const bool verified = rc == 0 && archive_open(fd, temporary_folder(), SNAPSHOT_STATE_BYTES_MAX,
                                                  &archive, &err) == SNAPSHOT_OK;

    if (verified && rename(name, path) != 0) {
        rc = -errno;
    }
    if (rc != 0) {
        say_lower(text, sizeof(text), -rc);
        (void)fprintf(stderr, "Error writing snapshot file: open %s: %s\n", path, text);
    } else if (!verified) {
        (void)fprintf(stderr, "Error verifying snapshot: %s\n", err.text);
    } else {
        (void)printf("Saved and verified snapshot to index %" PRIu64 "\n",
                     archive_meta(archive)->index);
    }
    if (fd >= 0) {
        (void)close(fd); /* It is synced, or not wanted. */
        if (rc != 0 || !verified) {
            (void)unlink(name); /* What is left of it serves nobody. */
        }
    }
    archive_free(archive);
    return rc == 0 && verified ? 0 : 1;
}

static int snapshot_save_as(const struct cli_flag *flags, size_t count, const char *path)
{
    struct cli_answer answer = {0};
    struct errmsg err = {""};
    int status = 1;

    if (cli_ask(flags, count, "GET", "/v1/snapshot", SLICE_EMPTY, &answer, &err) != 0) {
        (void)fprintf(stderr, "Error saving snapshot: %s\n", err.text);
    } else {
        status = save_file(path, buffer_slice(&answer.body));
    }
    buffer_deinit(&answer.body);
    return status;
}

static int snapshot_save(const struct cli_flag *flags, size_t count, const char *path)
{
    struct buffer name = {0};
    const int status =
        snapshot_name(flags, count, path, &name) ? snapshot_save_as(flags, count, name.data) : 1;

    buffer_deinit(&name);
    return status;
}

/* Reads the file; says so and returns false if that fails. */
static bool snapshot_read(const char *path, struct buffer *out)
{
    char text[256];
    const int rc = file_read(path, out);

    if (rc == 0) {
        return true;
    }
    say_lower(text, sizeof(text), -rc);
    (void)fprintf(stderr, "Error opening snapshot file: open %s: %s\n", path, text);
    return false;
}

static int snapshot_restore(const struct cli_flag *flags, size_t count, const char *path)
{
    struct cli_answer answer = {0};
    struct buffer bytes = {0};
    struct errmsg err = {""};
    int status = 1;

    if (snapshot_read(path, &bytes)) {
        if (cli_ask(flags, count, "PUT", "/v1/snapshot", buffer_slice(&bytes), &answer, &err) !=
            0) {
            (void)fprintf(stderr, "Error restoring snapshot: %s\n", err.text);
        } else {
            (void)printf("Restored snapshot\n");
            status = 0;
        }
    }
    buffer_deinit(&answer.body);
    buffer_deinit(&bytes);
    return status;
}

/* As Consul 1.8 does. */
static void inspect_print(const struct archive *archive)
{
    const struct slice text = archive_description(archive);
    json_t *root = json_loadb(text.data, text.size, 0, NULL);
    const char *id = json_string_value(json_object_get(root, "ID"));

    (void)printf("ID           %s\n", id == NULL ? "" : id);
    (void)printf("Size         %" PRIu64 "\n", archive_meta(archive)->bytes);
    (void)printf("Index        %" PRIu64 "\n", archive_meta(archive)->index);
    (void)printf("Term         %" PRIu64 "\n", archive_meta(archive)->term);
    (void)printf("Version      %d\n\n", 1);
    json_decref(root);
}

/* False: said why. */
static bool inspect_parse(const struct cli_flag *flags, size_t count,
                          struct cli_inspect_options *out)
{
    const char *format = cli_flag(flags, count, "format");
    const char *prefix = cli_flag(flags, count, "kvfilter");
    const char *depth = cli_flag(flags, count, "kvdepth");
    char *end = NULL;

    *out = (struct cli_inspect_options){
        .details = cli_flag_on(flags, count, "kvdetails"),
        .json = format != NULL && strcmp(format, "json") == 0,
        .depth = 2,
        .key_prefix = prefix == NULL ? "" : prefix,
    };
    if (format != NULL && !out->json && strcmp(format, "pretty") != 0) {
        (void)fprintf(stderr, "Error outputting enhanced snapshot data: Unknown format: %s\n",
                      format);
        return false;
    }
    if (depth != NULL) {
        const unsigned long value = strtoul(depth, &end, 10);

        if (depth[0] < '0' || depth[0] > '9' || *end != '\0') {
            (void)fprintf(stderr, "invalid value \"%s\" for flag -kvdepth: parse error\n", depth);
            return false;
        }
        out->depth = value;
    }
    return true;
}

/* Needs no server. */
static int snapshot_inspect_file(const struct cli_flag *flags, size_t count, const char *path)
{
    struct cli_inspect_options options;
    struct archive *archive = NULL;
    struct errmsg err = {""};
    char text[256];
    int status = 1;

    if (!inspect_parse(flags, count, &options)) {
        return 1;
    }
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        say_lower(text, sizeof(text), errno);
        (void)fprintf(stderr, "Error opening snapshot file: open %s: %s\n", path, text);
        return 1;
    }
    if (archive_open(fd, temporary_folder(), SNAPSHOT_STATE_BYTES_MAX, &archive, &err) !=
        SNAPSHOT_OK) {
        (void)fprintf(stderr, "Error verifying snapshot: %s\n", err.text);
    } else if (options.details || cli_flag(flags, count, "format") != NULL) {
        status = cli_inspect(archive, &options) ? 0 : 1;
    } else {
        inspect_print(archive);
        status = 0;
    }
    archive_free(archive);
    (void)close(fd); /* Only read from. */
    return status;
}

/* --- which one --- */

static int snapshot_run(int argc, char **argv, struct cli_flag *flags, size_t count,
                        int (*run)(const struct cli_flag *flags, size_t count, const char *path))
{
    struct errmsg err = {""};
    const int taken = cli_flags_parse(argc, argv, flags, count, &err);
    const int left = argc - taken;

    if (taken < 0) {
        (void)fprintf(stderr, "%s\n\n%s%s", err.text, cli_snapshot_usage, cli_client_usage);
        return 1;
    }
    if (left == 0) {
        (void)fprintf(stderr, "Missing FILE argument\n");
        return 1;
    }
    if (left > 1) {
        (void)fprintf(stderr, "Too many arguments (expected 1, got %d)\n", left);
        return 1;
    }
    return run(flags, count, argv[taken]);
}

int cli_snapshot(int argc, char **argv)
{
    struct cli_flag save[] = {{"append-filename", false, NULL}, CLI_CLIENT_FLAGS};
    struct cli_flag restore[] = {CLI_CLIENT_FLAGS};
    struct cli_flag inspect[] = {{"kvdetails", true, NULL},
                                 {"kvdepth", false, NULL},
                                 {"kvfilter", false, NULL},
                                 {"format", false, NULL}};
    const struct {
        const char *name;
        struct cli_flag *flags;
        size_t count;
        int (*run)(const struct cli_flag *flags, size_t count, const char *path);
    } commands[] = {
        {"save", save, sizeof(save) / sizeof(save[0]), snapshot_save},
        {"restore", restore, sizeof(restore) / sizeof(restore[0]), snapshot_restore},
        {"inspect", inspect, sizeof(inspect) / sizeof(inspect[0]), snapshot_inspect_file},
    };

    for (size_t i = 0; argc > 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[0], commands[i].name) == 0) {
            return snapshot_run(argc - 1, argv + 1, commands[i].flags, commands[i].count,
                                commands[i].run);
        }
    }
    (void)fprintf(stderr, "%s%s", cli_snapshot_usage, cli_client_usage);
    return 1;
}
