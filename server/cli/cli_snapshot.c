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
    "Subcommands:\n"
    "    inspect    Displays information about a snapshot file\n"
    "    restore    Restores the state of the servers from a snapshot file\n"
    "    save       Saves the state of the servers to a snapshot file\n";

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

/* Under another name first, so that a half written file is never taken for a snapshot. */
static int file_write(const char *path, struct slice bytes)
{
    char name[SNAPSHOT_PATH_BYTES_MAX];
    const int size = snprintf(name, sizeof(name), "%s.unverified", path);
    size_t at = 0;
    int rc = 0;

    if (size < 0 || (size_t)size >= sizeof(name)) {
        return -ENAMETOOLONG;
    }
    const int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        return -errno;
    }
    while (rc == 0 && at < bytes.size) {
        const ssize_t put = write(fd, bytes.data + at, bytes.size - at);

        rc = put < 0 && errno != EINTR ? -errno : 0;
        at += put > 0 ? (size_t)put : 0;
    }
    if (rc == 0 && fsync(fd) != 0) {
        rc = -errno;
    }
    if (close(fd) != 0 && rc == 0) {
        rc = -errno;
    }
    if (rc == 0 && rename(name, path) != 0) {
        rc = -errno;
    }
    if (rc != 0) {
        (void)unlink(name); /* What is left of it serves nobody. */
    }
    return rc;
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

static int snapshot_save(const struct cli_flag *flags, size_t count, const char *path)
{
    struct cli_answer answer = {0};
    struct archive *archive = NULL;
    struct errmsg err = {""};
    char text[256];
    int status = 1;
    int rc = cli_ask(flags, count, "GET", "/v1/snapshot", SLICE_EMPTY, &answer, &err);

    if (rc != 0) {
        (void)fprintf(stderr, "Error saving snapshot: %s\n", err.text);
    } else if (archive_open(buffer_slice(&answer.body), temporary_folder(),
                            SNAPSHOT_STATE_BYTES_MAX, &archive, &err) != SNAPSHOT_OK) {
        (void)fprintf(stderr, "Error verifying snapshot: %s\n", err.text);
    } else if ((rc = file_write(path, buffer_slice(&answer.body))) != 0) {
        say_lower(text, sizeof(text), -rc);
        (void)fprintf(stderr, "Error writing snapshot file: open %s: %s\n", path, text);
    } else {
        (void)printf("Saved and verified snapshot to index %" PRIu64 "\n",
                     archive_meta(archive)->index);
        status = 0;
    }
    archive_free(archive);
    buffer_deinit(&answer.body);
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

/* Needs no server. */
static int snapshot_inspect_file(const struct cli_flag *flags, size_t count, const char *path)
{
    struct archive *archive = NULL;
    struct buffer bytes = {0};
    struct errmsg err = {""};
    int status = 1;

    (void)flags;
    (void)count;
    if (snapshot_read(path, &bytes)) {
        if (archive_open(buffer_slice(&bytes), temporary_folder(), SNAPSHOT_STATE_BYTES_MAX,
                         &archive, &err) != SNAPSHOT_OK) {
            (void)fprintf(stderr, "Error verifying snapshot: %s\n", err.text);
        } else {
            inspect_print(archive);
            status = 0;
        }
    }
    archive_free(archive);
    buffer_deinit(&bytes);
    return status;
}

int cli_snapshot(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const struct cli_flag *flags, size_t count, const char *path);
    } commands[] = {
        {"save", snapshot_save},
        {"restore", snapshot_restore},
        {"inspect", snapshot_inspect_file},
    };
    struct cli_flag flags[] = {CLI_CLIENT_FLAGS};
    const size_t count = sizeof(flags) / sizeof(flags[0]);
    struct errmsg err = {""};

    for (size_t i = 0; argc > 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[0], commands[i].name) != 0) {
            continue;
        }
        const int taken = cli_flags_parse(argc - 1, argv + 1, flags, count, &err);
        const int left = argc - 1 - taken;

        if (taken < 0) {
            (void)fprintf(stderr, "%s\n\n%s\n%s", err.text, cli_snapshot_usage, cli_client_usage);
            return 1;
        }
        if (left != 1) {
            if (left == 0) {
                (void)fprintf(stderr, "Missing FILE argument\n");
            } else {
                (void)fprintf(stderr, "Too many arguments (expected 1, got %d)\n", left);
            }
            return 1;
        }
        return commands[i].run(flags, count, argv[1 + taken]);
    }
    (void)fprintf(stderr, "%s", cli_snapshot_usage);
    return 1;
}
