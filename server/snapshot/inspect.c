#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/snapshot/inspect.h"
#include "server/snapshot/snapshot_internal.h"

enum { SNAPSHOT_INSPECT_FILES_MAX = 64 };

struct snapshot_inspect_files {
    size_t count;
    struct snapshot_meta metas[SNAPSHOT_INSPECT_FILES_MAX]; /* what their names say */
};

/* By term and index, newest first. */
static int inspect_collect(void *host, const char *name, struct errmsg *err)
{
    struct snapshot_inspect_files *files = host;
    struct snapshot_meta meta;
    size_t at = files->count;

    (void)err;
    if (snapshot_name_parse(name, &meta) != SNAPSHOT_NAME_WHOLE ||
        files->count == SNAPSHOT_INSPECT_FILES_MAX) {
        return SNAPSHOT_OK;
    }
    while (at > 0 &&
           (meta.term > files->metas[at - 1].term ||
            (meta.term == files->metas[at - 1].term && meta.index > files->metas[at - 1].index))) {
        files->metas[at] = files->metas[at - 1];
        at--;
    }
    files->metas[at] = meta;
    files->count++;
    return SNAPSHOT_OK;
}

/* Keys are any bytes: those that are no plain text are shown as in C. */
static void inspect_text(FILE *out, struct slice text)
{
    (void)fputc('"', out);
    for (size_t i = 0; i < text.size; i++) {
        const unsigned char c = (unsigned char)text.data[i];
        if (c == '"' || c == '\\') {
            (void)fprintf(out, "\\%c", c);
        } else if (c >= 0x20 && c < 0x7f) {
            (void)fputc(c, out);
        } else {
            (void)fprintf(out, "\\x%02x", c);
        }
    }
    (void)fputc('"', out);
}

static void inspect_header(const struct snapshot_meta *meta, const char *name, FILE *out)
{
    (void)fprintf(out,
                  "snapshot %s index=%" PRIu64 " term=%" PRIu64 " bytes=%" PRIu64
                  " checksum=%08" PRIx32 " configuration-index=%" PRIu64 "\n",
                  name, meta->index, meta->term, meta->bytes, meta->checksum,
                  meta->configuration.index);
    for (size_t i = 0; i < meta->configuration.count; i++) {
        const struct raft_server *server = &meta->configuration.servers[i];
        (void)fprintf(out, "  server %016" PRIx64 " %s\n", server->id,
                      server->voter ? "voter" : "non-voter");
    }
}

static int inspect_records(struct snapshot_reader *reader, bool records, FILE *out)
{
    const struct snapshot_table *table = NULL;
    const struct snapshot_table *last = NULL;
    struct slice key = SLICE_EMPTY;
    struct slice value = SLICE_EMPTY;
    uint64_t count = 0;
    uint64_t bytes = 0;
    int rc;

    for (;;) {
        rc = snapshot_reader_next(reader, &table, &key, &value);
        if (last != NULL && (rc != SNAPSHOT_OK || table != last)) {
            (void)fprintf(out, "  table %s records=%" PRIu64 " bytes=%" PRIu64 "\n", last->name,
                          count, bytes);
            (void)fflush(out); /* A large one takes a while: show where it is. */
            count = 0;
            bytes = 0;
        }
        if (rc != SNAPSHOT_OK) {
            return rc == SNAPSHOT_ENOTFOUND ? SNAPSHOT_OK : rc;
        }
        last = table;
        count++;
        bytes += key.size + value.size;
        if (records) {
            (void)fprintf(out, "    %s ", table->name);
            inspect_text(out, key);
            (void)fprintf(out, " size=%zu\n", value.size);
        }
    }
}

static int inspect_file(struct snapshot_dir *dir, const char *name, bool records, FILE *out,
                        struct errmsg *err)
{
    struct snapshot_reader reader;
    int rc = snapshot_reader_open(&reader, dir, name, NULL, err);

    if (rc == SNAPSHOT_OK) {
        inspect_header(&reader.meta, name, out);
        rc = inspect_records(&reader, records, out);
        snapshot_reader_close(&reader);
    }
    if (rc == SNAPSHOT_OK) {
        (void)fprintf(out, "  sound: every checksum fits\n");
    } else {
        (void)fprintf(out, "  NOT sound: %s\n", err->text);
    }
    return rc;
}

static int inspect_folder(struct snapshot_dir *dir, bool records, FILE *out, struct errmsg *err)
{
    struct snapshot_inspect_files *files = calloc(1, sizeof(*files));
    char name[SNAPSHOT_NAME_BYTES_MAX];

    if (files == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    int rc = snapshot_dir_visit(dir, inspect_collect, files, err);
    if (rc == SNAPSHOT_OK && files->count == 0) {
        rc = errmsg_set(err, SNAPSHOT_ENOTFOUND, "%s: no snapshot", dir->path);
    }
    const size_t count = records && files->count > 1 ? 1 : files->count;
    for (size_t i = 0; i < count; i++) {
        struct errmsg reason = {""};
        snapshot_name(&files->metas[i], SNAPSHOT_NAME_WHOLE, name);
        const int file_rc = inspect_file(dir, name, records, out, &reason);
        if (rc == SNAPSHOT_OK && file_rc != SNAPSHOT_OK) {
            rc = errmsg_set(err, file_rc, "%s", reason.text);
        }
    }
    free(files);
    return rc;
}

int snapshot_inspect(const struct snapshot_inspect_options *options, FILE *out, struct errmsg *err)
{
    struct snapshot_dir *dir;
    int rc = snapshot_dir_open_existing(options->dir, &dir, err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    if (options->name == NULL) {
        rc = inspect_folder(dir, options->records, out, err);
    } else if (strlen(options->name) >= SNAPSHOT_NAME_BYTES_MAX ||
               strchr(options->name, '/') != NULL) {
        rc = errmsg_set(err, SNAPSHOT_EINVAL, "%s: not the name of a snapshot in %s", options->name,
                        options->dir);
    } else {
        rc = inspect_file(dir, options->name, options->records, out, err);
    }
    snapshot_dir_close(dir);
    return rc;
}
