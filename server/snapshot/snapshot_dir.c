/* The folder: names, listing, and what may be removed. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/log.h"
#include "server/snapshot/snapshot_internal.h"

#define SNAPSHOT_LOG "agent.server.snapshot"

int snapshot_error_errno(struct errmsg *err, int error, const struct snapshot_dir *dir,
                         const char *name, const char *what)
{
    const bool full = error == -ENOSPC || error == -EDQUOT || error == -EFBIG;

    assert(error < 0);
    return errmsg_set(err, full ? SNAPSHOT_EFULL : SNAPSHOT_EIO, "%s/%s: %s: %s", dir->path, name,
                      what, strerror(-error));
}

/* --- life --- */

/* A new folder's own name is durable before anything in it counts. */
static int snapshot_dir_make(struct snapshot_dir *dir, struct errmsg *err)
{
    char *parent;

    assert(dir->path != NULL);
    const int made = dir->ops->dir_make(dir->ops->host, dir->path);
    if (made != 0) {
        return made == -EEXIST ? SNAPSHOT_OK
                               : errmsg_set(err, SNAPSHOT_EIO, "%s: cannot create: %s", dir->path,
                                            strerror(-made));
    }
    if (asprintf(&parent, "%s/..", dir->path) < 0) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    const int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int error = fd < 0 ? -errno : dir->ops->dir_sync(dir->ops->host, fd);
    free(parent);
    if (fd >= 0) {
        (void)close(fd); /* Only synced through. */
    }
    return error == 0 ? SNAPSHOT_OK
                      : snapshot_error_errno(err, error, dir, "..", "cannot sync the folder");
}

static int snapshot_dir_new(const char *path, const struct snapshot_ops *ops, bool make,
                            struct snapshot_dir **out, struct errmsg *err)
{
    struct snapshot_dir *dir = calloc(1, sizeof(*dir));
    int rc = SNAPSHOT_OK;

    if (dir == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    dir->fd = -1;
    dir->ops = ops == NULL ? &snapshot_ops_default : ops;
    crc32c_init(&dir->crc32c);
    dir->path = strdup(path);
    if (dir->path == NULL) {
        rc = errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    if (rc == SNAPSHOT_OK && make) {
        rc = snapshot_dir_make(dir, err);
    }
    if (rc == SNAPSHOT_OK) {
        dir->fd = dir->ops->dir_open(dir->ops->host, path);
        if (dir->fd < 0) {
            rc = errmsg_set(err, dir->fd == -ENOENT ? SNAPSHOT_ENOTFOUND : SNAPSHOT_EIO,
                            "%s: cannot open: %s", path, strerror(-dir->fd));
        }
    }
    if (rc == SNAPSHOT_OK && make) {
        /* A process that ended between a rename and the sync of the folder left a name that may
         * not be on disk: what is found from here on is. */
        const int error = dir->ops->dir_sync(dir->ops->host, dir->fd);
        if (error != 0) {
            rc = snapshot_error_errno(err, error, dir, ".", "sync the folder");
        }
    }
    if (rc != SNAPSHOT_OK) {
        snapshot_dir_close(dir);
        return rc;
    }
    *out = dir;
    return SNAPSHOT_OK;
}

int snapshot_dir_open_with(const char *path, const struct snapshot_ops *ops,
                           struct snapshot_dir **out, struct errmsg *err)
{
    return snapshot_dir_new(path, ops, true, out, err);
}

int snapshot_dir_open(const char *path, struct snapshot_dir **out, struct errmsg *err)
{
    return snapshot_dir_new(path, NULL, true, out, err);
}

int snapshot_dir_open_existing(const char *path, struct snapshot_dir **out, struct errmsg *err)
{
    return snapshot_dir_new(path, NULL, false, out, err);
}

void snapshot_dir_close(struct snapshot_dir *dir)
{
    if (dir == NULL) {
        return;
    }
    if (dir->fd >= 0) {
        dir->ops->close(dir->ops->host, dir->fd);
    }
    free(dir->path);
    free(dir);
}

/* --- names --- */

void snapshot_name(const struct snapshot_meta *meta, enum snapshot_name_kind kind,
                   char out[SNAPSHOT_NAME_BYTES_MAX])
{
    assert(kind != SNAPSHOT_NAME_OTHER);
    if (kind == SNAPSHOT_NAME_PARTIAL) {
        (void)snprintf(out, SNAPSHOT_NAME_BYTES_MAX,
                       "%" PRIu64 "-%" PRIu64 "-%" PRIu64 "-%08" PRIx32 ".partial", meta->term,
                       meta->index, meta->bytes, meta->checksum);
        return;
    }
    (void)snprintf(out, SNAPSHOT_NAME_BYTES_MAX, "%" PRIu64 "-%" PRIu64 ".snapshot%s", meta->term,
                   meta->index, kind == SNAPSHOT_NAME_NEW ? ".new" : "");
}

/* Reads digits of the base up to something else; false when there is none or it overflows. */
static bool snapshot_name_number(const char **at, unsigned base, uint64_t *out)
{
    const char *const digits = "0123456789abcdef";
    const char *const start = *at;
    uint64_t value = 0;

    for (; **at != '\0'; (*at)++) {
        const char *digit = strchr(digits, **at);
        if (digit == NULL || (size_t)(digit - digits) >= base) {
            break;
        }
        if (value > (UINT64_MAX - 15) / base) {
            return false;
        }
        value = value * base + (uint64_t)(digit - digits);
    }
    *out = value;
    return *at > start;
}

enum snapshot_name_kind snapshot_name_parse(const char *name, struct snapshot_meta *meta)
{
    struct snapshot_meta found = {0};
    char again[SNAPSHOT_NAME_BYTES_MAX];
    enum snapshot_name_kind kind = SNAPSHOT_NAME_OTHER;
    const char *at = name;
    uint64_t checksum;

    if (!snapshot_name_number(&at, 10, &found.term) || *at++ != '-' ||
        !snapshot_name_number(&at, 10, &found.index)) {
        return SNAPSHOT_NAME_OTHER;
    }
    if (strcmp(at, ".snapshot") == 0) {
        kind = SNAPSHOT_NAME_WHOLE;
    } else if (strcmp(at, ".snapshot.new") == 0) {
        kind = SNAPSHOT_NAME_NEW;
    } else if (*at == '-' && (at++, snapshot_name_number(&at, 10, &found.bytes)) && *at == '-' &&
               (at++, snapshot_name_number(&at, 16, &checksum)) && strcmp(at, ".partial") == 0) {
        kind = SNAPSHOT_NAME_PARTIAL;
        found.checksum = (uint32_t)checksum;
    }
    if (kind == SNAPSHOT_NAME_OTHER) {
        return kind;
    }
    snapshot_name(&found, kind, again); /* No leading zeros, no other spelling. */
    if (strcmp(name, again) != 0) {
        return SNAPSHOT_NAME_OTHER;
    }
    *meta = found;
    return kind;
}

/* --- the files --- */

struct snapshot_visit {
    int (*visit)(void *host, const char *name, struct errmsg *err);
    void *host;
    struct errmsg *err;
    int rc;
};

static int snapshot_dir_on_name(void *context, const char *name)
{
    struct snapshot_visit *visit = context;

    visit->rc = visit->visit(visit->host, name, visit->err);
    return visit->rc != SNAPSHOT_OK ? 1 : 0;
}

int snapshot_dir_visit(struct snapshot_dir *dir,
                       int (*visit)(void *host, const char *name, struct errmsg *err), void *host,
                       struct errmsg *err)
{
    struct snapshot_visit state = {.visit = visit, .host = host, .err = err};
    const int error = dir->ops->dir_list(dir->ops->host, dir->fd, snapshot_dir_on_name, &state);

    return error < 0
               ? errmsg_set(err, SNAPSHOT_EIO, "%s: cannot list: %s", dir->path, strerror(-error))
               : state.rc;
}

int snapshot_dir_remove(struct snapshot_dir *dir, const char *name, struct errmsg *err)
{
    const int error = dir->ops->unlink(dir->ops->host, dir->fd, name);

    return error == 0 || error == -ENOENT ? SNAPSHOT_OK
                                          : snapshot_error_errno(err, error, dir, name, "remove");
}

int snapshot_dir_publish(struct snapshot_dir *dir, const char *from, const char *to,
                         struct errmsg *err)
{
    int error = dir->ops->rename(dir->ops->host, dir->fd, from, to);

    if (error != 0) {
        return snapshot_error_errno(err, error, dir, from, "rename");
    }
    error = dir->ops->dir_sync(dir->ops->host, dir->fd);
    return error == 0 ? SNAPSHOT_OK : snapshot_error_errno(err, error, dir, to, "sync the folder");
}

/* --- listing --- */

static bool snapshot_is_newer(const struct snapshot_meta *a, const struct snapshot_meta *b)
{
    return a->term != b->term ? a->term > b->term : a->index > b->index;
}

struct snapshot_listing {
    struct snapshot_dir *dir;
    struct snapshot_meta *out;
    size_t out_max;
    size_t count;
};

static int snapshot_list_visit(void *host, const char *name, struct errmsg *err)
{
    struct snapshot_listing *listing = host;
    struct snapshot_reader reader;
    struct snapshot_meta meta;
    struct errmsg reason = {""};

    if (snapshot_name_parse(name, &meta) != SNAPSHOT_NAME_WHOLE) {
        return SNAPSHOT_OK;
    }
    const int rc = snapshot_reader_open(&reader, listing->dir, name, NULL, &reason);
    if (rc == SNAPSHOT_ENOTFOUND) {
        return SNAPSHOT_OK; /* Pruned this moment. */
    }
    if (rc == SNAPSHOT_ENOMEM) {
        return errmsg_set(err, rc, "%s", reason.text);
    }
    if (rc != SNAPSHOT_OK) {
        log_write(LOG_ERROR, SNAPSHOT_LOG, "snapshot passed over, and left there: %s", reason.text);
        return SNAPSHOT_OK;
    }
    meta = reader.meta;
    snapshot_reader_close(&reader);
    size_t at = listing->count;
    while (at > 0 && snapshot_is_newer(&meta, &listing->out[at - 1])) {
        at--;
    }
    if (at == listing->out_max) {
        return SNAPSHOT_OK; /* Older than all that there is room for. */
    }
    if (listing->count < listing->out_max) {
        listing->count++;
    }
    memmove(&listing->out[at + 1], &listing->out[at],
            (listing->count - 1 - at) * sizeof(*listing->out));
    listing->out[at] = meta;
    return SNAPSHOT_OK;
}

int snapshot_list(struct snapshot_dir *dir, struct snapshot_meta *out, size_t out_max,
                  size_t *count, struct errmsg *err)
{
    struct snapshot_listing listing = {.dir = dir, .out = out, .out_max = out_max};
    const int rc = snapshot_dir_visit(dir, snapshot_list_visit, &listing, err);

    if (rc == SNAPSHOT_OK) {
        *count = listing.count;
    }
    return rc;
}

int snapshot_latest(struct snapshot_dir *dir, struct snapshot_meta *out, struct errmsg *err)
{
    size_t count = 0;
    const int rc = snapshot_list(dir, out, 1, &count, err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    return count == 1 ? SNAPSHOT_OK
                      : errmsg_set(err, SNAPSHOT_ENOTFOUND, "%s: no snapshot", dir->path);
}

/* --- pruning --- */

static int snapshot_prune_visit(void *host, const char *name, struct errmsg *err)
{
    struct snapshot_dir *dir = host;
    struct snapshot_meta meta;

    return snapshot_name_parse(name, &meta) == SNAPSHOT_NAME_NEW
               ? snapshot_dir_remove(dir, name, err)
               : SNAPSHOT_OK;
}

int snapshot_prune(struct snapshot_dir *dir, size_t keep, struct errmsg *err)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];
    size_t count = 0;

    assert(keep >= 1);
    int rc = snapshot_dir_visit(dir, snapshot_prune_visit, dir, err);
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    struct snapshot_meta *list = calloc(SNAPSHOT_LIST_MAX, sizeof(*list));
    if (list == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    rc = snapshot_list(dir, list, SNAPSHOT_LIST_MAX, &count, err);
    for (size_t i = keep; rc == SNAPSHOT_OK && i < count; i++) {
        snapshot_name(&list[i], SNAPSHOT_NAME_WHOLE, name);
        rc = snapshot_dir_remove(dir, name, err);
    }
    free(list);
    return rc;
}
