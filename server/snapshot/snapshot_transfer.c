/* Snapshots on their way between servers: reading pieces, and putting pieces together again. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/snapshot/snapshot_internal.h"

/* --- sending --- */

int snapshot_file_open(struct snapshot_dir *dir, const struct snapshot_meta *meta,
                       struct snapshot_file *out, struct errmsg *err)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];
    struct snapshot_reader reader;

    snapshot_name(meta, SNAPSHOT_NAME_WHOLE, name);
    const int rc = snapshot_reader_open(&reader, dir, name, NULL, err);
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    if (reader.meta.bytes != meta->bytes || reader.meta.checksum != meta->checksum) {
        snapshot_reader_close(&reader);
        return errmsg_set(err, SNAPSHOT_ENOTFOUND, "%s/%s: replaced by another one", dir->path,
                          name);
    }
    *out = (struct snapshot_file){.dir = dir, .fd = reader.fd, .bytes = reader.meta.bytes};
    reader.fd = -1; /* Taken over. */
    snapshot_reader_close(&reader);
    return SNAPSHOT_OK;
}

int snapshot_file_read(const struct snapshot_file *file, uint64_t offset, void *out, size_t size,
                       size_t *got, struct errmsg *err)
{
    const struct snapshot_ops *ops = file->dir->ops;
    char *bytes = out;
    size_t done = 0;

    if (offset >= file->bytes) {
        *got = 0;
        return SNAPSHOT_OK;
    }
    if (size > file->bytes - offset) {
        size = (size_t)(file->bytes - offset);
    }
    while (done < size) {
        const ssize_t count =
            ops->pread(ops->host, file->fd, bytes + done, size - done, offset + done);
        if (count == -EINTR) {
            continue;
        }
        if (count < 0) {
            return errmsg_set(err, SNAPSHOT_EIO, "read a snapshot at offset %" PRIu64 ": %s",
                              offset, strerror((int)-count));
        }
        if (count == 0) {
            return errmsg_set(err, SNAPSHOT_ECORRUPT, "a snapshot has become shorter");
        }
        done += (size_t)count;
    }
    *got = done;
    return SNAPSHOT_OK;
}

void snapshot_file_close(struct snapshot_file *file)
{
    if (file->fd >= 0) {
        file->dir->ops->close(file->dir->ops->host, file->fd);
        file->fd = -1;
    }
}

/* --- receiving --- */

struct snapshot_receive {
    struct snapshot_dir *dir;
    struct snapshot_meta offer;
    char name[SNAPSHOT_NAME_BYTES_MAX];
    int fd;
    uint64_t offset;
};

struct snapshot_forget {
    struct snapshot_dir *dir;
    const char *except; /* NULL: none */
};

static int snapshot_forget_visit(void *host, const char *name, struct errmsg *err)
{
    const struct snapshot_forget *forget = host;
    struct snapshot_meta meta;

    if (snapshot_name_parse(name, &meta) != SNAPSHOT_NAME_PARTIAL ||
        (forget->except != NULL && strcmp(name, forget->except) == 0)) {
        return SNAPSHOT_OK;
    }
    return snapshot_dir_remove(forget->dir, name, err);
}

int snapshot_receive_forget(struct snapshot_dir *dir, struct errmsg *err)
{
    struct snapshot_forget forget = {.dir = dir};

    return snapshot_dir_visit(dir, snapshot_forget_visit, &forget, err);
}

/* Opens the file of before, or a new one, and takes the room for all of it. */
static int snapshot_receive_open(struct snapshot_receive *receive, struct errmsg *err)
{
    const struct snapshot_dir *dir = receive->dir;
    const struct snapshot_ops *ops = dir->ops;
    int error;

    receive->fd = ops->open(ops->host, dir->fd, receive->name, SNAPSHOT_OPEN_RESUME);
    if (receive->fd < 0) {
        return snapshot_error_errno(err, receive->fd, dir, receive->name, "create");
    }
    error = ops->size(ops->host, receive->fd, &receive->offset);
    if (error != 0) {
        return snapshot_error_errno(err, error, dir, receive->name, "stat");
    }
    if (receive->offset > receive->offer.bytes) {
        ops->close(ops->host, receive->fd);
        receive->offset = 0;
        receive->fd = ops->open(ops->host, dir->fd, receive->name, SNAPSHOT_OPEN_NEW);
        if (receive->fd < 0) {
            return snapshot_error_errno(err, receive->fd, dir, receive->name, "truncate");
        }
    }
    /* The size stays, because it tells how much was received. */
    error = ops->reserve(ops->host, receive->fd, receive->offer.bytes);
    return error == 0 ? SNAPSHOT_OK
                      : snapshot_error_errno(err, error, dir, receive->name, "reserve room");
}

int snapshot_receive_begin(struct snapshot_dir *dir, const struct snapshot_meta *offer,
                           struct snapshot_receive **out, struct errmsg *err)
{
    struct errmsg ignored = {""};

    if (offer->index == 0 || offer->term == 0 || offer->bytes > SNAPSHOT_FILE_BYTES_MAX ||
        offer->bytes <= SNAPSHOT_HEAD_BYTES + SNAPSHOT_HEAD_END_BYTES + SNAPSHOT_TRAILER_BYTES) {
        return errmsg_set(err, SNAPSHOT_EINVAL,
                          "impossible snapshot offered: term %" PRIu64 ", index %" PRIu64
                          ", %" PRIu64 " bytes",
                          offer->term, offer->index, offer->bytes);
    }
    struct snapshot_receive *receive = calloc(1, sizeof(*receive));
    if (receive == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    receive->dir = dir;
    receive->offer = *offer;
    receive->fd = -1;
    snapshot_name(offer, SNAPSHOT_NAME_PARTIAL, receive->name);
    struct snapshot_forget forget = {.dir = dir, .except = receive->name};
    int rc = snapshot_dir_visit(dir, snapshot_forget_visit, &forget, err);
    if (rc == SNAPSHOT_OK) {
        rc = snapshot_receive_open(receive, err);
    }
    if (rc != SNAPSHOT_OK) {
        if (receive->fd >= 0 && receive->offset == 0) {
            (void)snapshot_dir_remove(dir, receive->name, &ignored); /* It holds nothing. */
        }
        snapshot_receive_free(receive);
        return rc;
    }
    *out = receive;
    return SNAPSHOT_OK;
}

void snapshot_receive_free(struct snapshot_receive *receive)
{
    if (receive == NULL) {
        return;
    }
    if (receive->fd >= 0) {
        /* What counts was synced; the rest is checked again. */
        receive->dir->ops->close(receive->dir->ops->host, receive->fd);
    }
    free(receive);
}

uint64_t snapshot_receive_offset(const struct snapshot_receive *receive)
{
    return receive->offset;
}

bool snapshot_receive_complete(const struct snapshot_receive *receive)
{
    return receive->offset == receive->offer.bytes;
}

int snapshot_receive_chunk(struct snapshot_receive *receive, uint64_t offset, struct slice bytes,
                           struct errmsg *err)
{
    assert(receive->offset <= receive->offer.bytes);
    if (bytes.size > SNAPSHOT_CHUNK_BYTES_MAX || offset > receive->offset ||
        bytes.size > receive->offer.bytes - offset) {
        return errmsg_set(err, SNAPSHOT_EINVAL,
                          "a piece of a snapshot that does not fit: offset %" PRIu64
                          ", %zu bytes; %" PRIu64 " of %" PRIu64 " are there",
                          offset, bytes.size, receive->offset, receive->offer.bytes);
    }
    if (bytes.size <= receive->offset - offset) {
        return SNAPSHOT_OK; /* All of it was there: a repetition. */
    }
    const size_t known = (size_t)(receive->offset - offset);
    const int error = snapshot_write_all(receive->dir->ops, receive->fd, bytes.data + known,
                                         bytes.size - known, receive->offset);
    if (error != 0) {
        return snapshot_error_errno(err, error, receive->dir, receive->name, "write");
    }
    receive->offset = offset + bytes.size;
    return SNAPSHOT_OK;
}

/* Reads all of it back and compares with the offer. */
static int snapshot_receive_check(struct snapshot_receive *receive, struct snapshot_meta *meta,
                                  struct errmsg *err)
{
    const struct snapshot_table *table;
    struct snapshot_reader reader;
    struct slice key;
    struct slice value;
    int rc = snapshot_reader_open(&reader, receive->dir, receive->name, NULL, err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    do {
        rc = snapshot_reader_next(&reader, &table, &key, &value);
    } while (rc == SNAPSHOT_OK);
    if (rc == SNAPSHOT_ENOTFOUND) {
        rc = SNAPSHOT_OK;
        *meta = reader.meta;
    }
    snapshot_reader_close(&reader);
    if (rc == SNAPSHOT_OK &&
        (meta->index != receive->offer.index || meta->term != receive->offer.term ||
         meta->bytes != receive->offer.bytes || meta->checksum != receive->offer.checksum)) {
        rc = errmsg_set(err, SNAPSHOT_ECORRUPT, "%s/%s: not the snapshot that was offered",
                        receive->dir->path, receive->name);
    }
    return rc;
}

int snapshot_receive_finish(struct snapshot_receive *receive, struct snapshot_meta *meta,
                            struct errmsg *err)
{
    struct snapshot_dir *dir = receive->dir;
    char final_name[SNAPSHOT_NAME_BYTES_MAX];
    struct snapshot_meta found;
    struct errmsg ignored = {""};

    if (!snapshot_receive_complete(receive)) {
        return errmsg_set(err, SNAPSHOT_EINVAL,
                          "%s/%s: only %" PRIu64 " of %" PRIu64 " bytes were received", dir->path,
                          receive->name, receive->offset, receive->offer.bytes);
    }
    /* Before it is read: what is checked should be what is on disk. */
    const int error = dir->ops->fsync(dir->ops->host, receive->fd);
    if (error != 0) {
        /* Nobody knows what of it is on disk: begin anew. */
        (void)snapshot_dir_remove(dir, receive->name, &ignored);
        return snapshot_error_errno(err, error, dir, receive->name, "sync");
    }
    int rc = snapshot_receive_check(receive, &found, err);
    if (rc == SNAPSHOT_ECORRUPT || rc == SNAPSHOT_EFORMAT) {
        (void)snapshot_dir_remove(dir, receive->name, &ignored); /* Else the next offer does. */
    }
    if (rc == SNAPSHOT_OK) {
        snapshot_name(&found, SNAPSHOT_NAME_WHOLE, final_name);
        rc = snapshot_dir_publish(dir, receive->name, final_name, err);
    }
    if (rc == SNAPSHOT_OK) {
        *meta = found;
    }
    return rc;
}
