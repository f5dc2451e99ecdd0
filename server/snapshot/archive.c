#include "server/snapshot/archive.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include <jansson.h>

#include "server/snapshot/sha256.h"
#include "server/snapshot/snapshot_internal.h"

enum {
    TAR_BLOCK_BYTES = 512,
    TAR_NAME_BYTES = 100,
    TAR_SIZE_OFFSET = 124,
    TAR_SIZE_BYTES = 12,
    TAR_CHECKSUM_OFFSET = 148,
    TAR_CHECKSUM_BYTES = 8,
    TAR_TYPE_OFFSET = 156,
    ARCHIVE_PIECE_BYTES = 64 * 1024,
    ARCHIVE_TAIL_BYTES_MAX = 1024 * 1024, /* unpacked, behind the end: padding */
    ARCHIVE_PATH_BYTES_MAX = 4096,
    GZIP_WINDOW_BITS = 15 + 16, /* 16: gzip's head and end, not zlib's */
};

/* --- a folder for what is made meanwhile --- */

static int archive_code(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG ? SNAPSHOT_EFULL : SNAPSHOT_EIO;
}

/* Passes the code on; who reads of a full disk is told what to do. */
static int archive_say_full(int rc, const char *folder, struct errmsg *err)
{
    const struct errmsg cause = *err;

    return rc != SNAPSHOT_EFULL
               ? rc
               : errmsg_set(err, rc, "no space left for the snapshot: free disk space in %s (%s)",
                            folder, cause.text);
}

int archive_file_open(const char *folder, int *fd, struct errmsg *err)
{
    char path[ARCHIVE_PATH_BYTES_MAX];
    const int size = snprintf(path, sizeof(path), "%s/archive-XXXXXX", folder);

    errno = ENAMETOOLONG;
    *fd = size < 0 || (size_t)size >= sizeof(path) ? -1 : mkostemp(path, O_CLOEXEC);
    if (*fd < 0) {
        const int rc =
            errmsg_set_errno(err, archive_code(errno), "cannot make a file in %s", folder);

        return archive_say_full(rc, folder, err);
    }
    (void)unlink(path); /* Else the next start does: archive_clean. */
    return SNAPSHOT_OK;
}

int archive_file_write(const char *folder, int fd, struct slice bytes, uint64_t offset,
                       struct errmsg *err)
{
    const int error = snapshot_write_all(&snapshot_ops_default, fd, bytes.data, bytes.size, offset);

    if (error == 0) {
        return SNAPSHOT_OK;
    }
    errno = -error;
    const int rc =
        errmsg_set_errno(err, archive_code(-error), "cannot write a snapshot in %s", folder);

    return archive_say_full(rc, folder, err);
}

struct scratch {
    char path[ARCHIVE_PATH_BYTES_MAX];
    struct snapshot_dir *dir;
};

static int scratch_open(struct scratch *scratch, const char *folder, struct errmsg *err)
{
    const int size = snprintf(scratch->path, sizeof(scratch->path), "%s/archive-XXXXXX", folder);

    scratch->dir = NULL;
    if (size < 0 || (size_t)size >= sizeof(scratch->path) || mkdtemp(scratch->path) == NULL) {
        scratch->path[0] = '\0';
        return errmsg_set_errno(err, archive_code(errno), "cannot make a folder below %s", folder);
    }
    return snapshot_dir_open(scratch->path, &scratch->dir, err);
}

static int scratch_remove_file(void *host, const char *name, struct errmsg *err)
{
    const bool self = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;

    return self ? SNAPSHOT_OK : snapshot_dir_remove(host, name, err);
}

/* Names go; what is open stays readable. */
static void scratch_remove_names(struct scratch *scratch)
{
    struct errmsg ignored; /* It costs space, nothing else. */

    if (scratch->dir != NULL) {
        (void)snapshot_dir_visit(scratch->dir, scratch_remove_file, scratch->dir, &ignored);
    }
    if (scratch->path[0] != '\0') {
        (void)rmdir(scratch->path);
        scratch->path[0] = '\0';
    }
}

static void scratch_close(struct scratch *scratch)
{
    scratch_remove_names(scratch);
    snapshot_dir_close(scratch->dir);
    scratch->dir = NULL;
}

void archive_clean(const char *folder)
{
    static const char prefix[] = "archive-";
    struct scratch scratch;
    struct errmsg ignored;
    struct dirent *entry;
    DIR *dir = opendir(folder);

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const int size =
            snprintf(scratch.path, sizeof(scratch.path), "%s/%s", folder, entry->d_name);

        if (strlen(entry->d_name) != sizeof(prefix) - 1 + 6 || /* mkdtemp's six */
            strncmp(entry->d_name, prefix, sizeof(prefix) - 1) != 0 ||
            (size_t)size >= sizeof(scratch.path)) {
            continue;
        }
        if (unlink(scratch.path) != 0 && /* A folder. */
            snapshot_dir_open_existing(scratch.path, &scratch.dir, &ignored) == SNAPSHOT_OK) {
            scratch_close(&scratch);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir); /* Only read from. */
    }
}

/* --- saving --- */

struct archive_writer {
    int fd;
    uint64_t offset;
    z_stream stream;
    struct errmsg *err;
    uint8_t out[ARCHIVE_PIECE_BYTES];
};

static int writer_deflate(struct archive_writer *writer, const void *data, size_t size, int flush)
{
    writer->stream.next_in = (Bytef *)(uintptr_t)data; /* zlib only reads it. */
    writer->stream.avail_in = (uInt)size;
    assert(size <= UINT32_MAX);
    do {
        writer->stream.next_out = writer->out;
        writer->stream.avail_out = sizeof(writer->out);
        if (deflate(&writer->stream, flush) == Z_STREAM_ERROR) {
            return errmsg_set(writer->err, SNAPSHOT_EIO, "cannot compress the snapshot");
        }
        const size_t made = sizeof(writer->out) - writer->stream.avail_out;
        const int error = snapshot_write_all(&snapshot_ops_default, writer->fd, writer->out, made,
                                             writer->offset);

        if (error != 0) {
            errno = -error;
            return errmsg_set_errno(writer->err, archive_code(-error), "cannot write the snapshot");
        }
        writer->offset += made;
    } while (writer->stream.avail_out == 0);
    return SNAPSHOT_OK;
}

/* A header of a plain file, mode 0600 of nobody in particular. Source: POSIX.1-1988 ustar. */
static void tar_header(uint8_t out[TAR_BLOCK_BYTES], const char *name, uint64_t size,
                       int64_t now_ms)
{
    unsigned sum = 0;
    char *text = (char *)out;

    memset(out, 0, TAR_BLOCK_BYTES);
    (void)snprintf(text, TAR_NAME_BYTES, "%s", name);
    memcpy(text + 100, "0000600", 8);
    memcpy(text + 108, "0000000", 8);
    memcpy(text + 116, "0000000", 8);
    if (size < (uint64_t)1 << 33) {
        (void)snprintf(text + TAR_SIZE_OFFSET, TAR_SIZE_BYTES, "%011" PRIo64, size);
    } else { /* Base 256, as GNU's tar and Go's have it. */
        out[TAR_SIZE_OFFSET] = 0x80;
        for (size_t i = 0; i < 8; i++) {
            out[TAR_SIZE_OFFSET + 4 + i] = (uint8_t)(size >> (8 * (7 - i)));
        }
    }
    (void)snprintf(text + 136, 12, "%011" PRIo64,
                   (uint64_t)(now_ms / 1000) & UINT64_C(0x1ffffffff));
    memset(text + TAR_CHECKSUM_OFFSET, ' ', TAR_CHECKSUM_BYTES);
    text[TAR_TYPE_OFFSET] = '0';
    memcpy(text + 257, "ustar", 6); /* with its NUL */
    text[263] = '0';
    text[264] = '0';
    for (size_t i = 0; i < TAR_BLOCK_BYTES; i++) {
        sum += out[i];
    }
    (void)snprintf(text + TAR_CHECKSUM_OFFSET, TAR_CHECKSUM_BYTES - 1, "%06o", sum);
}

static int writer_pad(struct archive_writer *writer, uint64_t size)
{
    static const uint8_t zeros[TAR_BLOCK_BYTES];
    const size_t over = (size_t)(size % TAR_BLOCK_BYTES);

    return over == 0 ? SNAPSHOT_OK
                     : writer_deflate(writer, zeros, TAR_BLOCK_BYTES - over, Z_NO_FLUSH);
}

static int writer_file(struct archive_writer *writer, const char *name, struct slice bytes,
                       int64_t now_ms)
{
    uint8_t header[TAR_BLOCK_BYTES];

    tar_header(header, name, bytes.size, now_ms);
    int rc = writer_deflate(writer, header, sizeof(header), Z_NO_FLUSH);

    if (rc == SNAPSHOT_OK) {
        rc = writer_deflate(writer, bytes.data, bytes.size, Z_NO_FLUSH);
    }
    return rc == SNAPSHOT_OK ? writer_pad(writer, bytes.size) : rc;
}

static int writer_state(struct archive_writer *writer, struct snapshot_dir *dir,
                        const struct snapshot_meta *meta, int64_t now_ms,
                        char sum[SHA256_TEXT_BYTES + 1])
{
    uint8_t header[TAR_BLOCK_BYTES];
    char piece[ARCHIVE_PIECE_BYTES];
    struct snapshot_file file;
    struct sha256 sha256;
    uint64_t offset = 0;
    size_t got = 0;
    int rc = snapshot_file_open(dir, meta, &file, writer->err);

    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    sha256_begin(&sha256);
    tar_header(header, "state.bin", file.bytes, now_ms);
    rc = writer_deflate(writer, header, sizeof(header), Z_NO_FLUSH);
    while (rc == SNAPSHOT_OK && offset < file.bytes) {
        rc = snapshot_file_read(&file, offset, piece, sizeof(piece), &got, writer->err);
        if (rc == SNAPSHOT_OK && got == 0) {
            rc = errmsg_set(writer->err, SNAPSHOT_EIO, "the snapshot's file ends early");
        }
        if (rc == SNAPSHOT_OK) {
            sha256_add(&sha256, piece, got);
            rc = writer_deflate(writer, piece, got, Z_NO_FLUSH);
            offset += got;
        }
    }
    snapshot_file_close(&file);
    if (sha256_end(&sha256, sum) != 0 && rc == SNAPSHOT_OK) {
        rc = errmsg_set(writer->err, SNAPSHOT_ENOMEM, "cannot compute SHA-256");
    }
    return rc == SNAPSHOT_OK ? writer_pad(writer, offset) : rc;
}

/* hashicorp/raft's SnapshotMeta, but without its "Peers", which repeats the servers in another
 * encoding. */
static void put_meta(struct buffer *out, const struct snapshot_meta *meta, struct slice servers,
                     int64_t now_ms)
{
    buffer_printf(out,
                  "{\"Version\":1,\"ID\":\"%" PRIu64 "-%" PRIu64 "-%" PRId64 "\",\"Index\":%" PRIu64
                  ",\"Term\":%" PRIu64 ",\"Peers\":\"\",\"Configuration\":{\"Servers\":",
                  meta->term, meta->index, now_ms, meta->index, meta->term);
    buffer_append_slice(out, servers);
    buffer_printf(out, "},\"ConfigurationIndex\":%" PRIu64 ",\"Size\":%" PRIu64 "}\n",
                  meta->configuration.index, meta->bytes);
}

/* The checksum of the archive's description. */
static int sum_meta(const struct buffer *meta, char sum[SHA256_TEXT_BYTES + 1], struct errmsg *err)
{
    struct sha256 sha256;

    sha256_begin(&sha256);
    sha256_add(&sha256, meta->data, meta->size);
    return sha256_end(&sha256, sum) == 0
               ? SNAPSHOT_OK
               : errmsg_set(err, SNAPSHOT_ENOMEM, "cannot compute SHA-256");
}

static int64_t archive_now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now); /* The argument is right. */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int writer_content(struct archive_writer *writer, struct snapshot_dir *dir,
                          const struct snapshot_meta *meta, struct slice servers)
{
    static const uint8_t end[2 * TAR_BLOCK_BYTES];
    const int64_t now_ms = archive_now_ms();
    char sum[SHA256_TEXT_BYTES + 1];
    struct buffer text = {0};
    struct buffer sums = {0};
    int rc;

    put_meta(&text, meta, servers, now_ms);
    if (text.failed) {
        return errmsg_set(writer->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    rc = sum_meta(&text, sum, writer->err);
    buffer_printf(&sums, "%s  meta.json\n", sum);
    if (rc == SNAPSHOT_OK) {
        rc = writer_file(writer, "meta.json", buffer_slice(&text), now_ms);
    }
    if (rc == SNAPSHOT_OK) {
        rc = writer_state(writer, dir, meta, now_ms, sum);
    }
    buffer_printf(&sums, "%s  state.bin\n", sum);
    if (rc == SNAPSHOT_OK && sums.failed) {
        rc = errmsg_set(writer->err, SNAPSHOT_ENOMEM, "out of memory");
    }
    if (rc == SNAPSHOT_OK) {
        rc = writer_file(writer, "SHA256SUMS", buffer_slice(&sums), now_ms);
    }
    if (rc == SNAPSHOT_OK) {
        rc = writer_deflate(writer, end, sizeof(end), Z_FINISH);
    }
    buffer_deinit(&text);
    buffer_deinit(&sums);
    return rc;
}

static int archive_write(struct scratch *scratch, const struct snapshot_meta *meta,
                         struct slice servers, int fd, uint64_t *bytes, struct errmsg *err)
{
    struct archive_writer *writer = calloc(1, sizeof(*writer));
    int rc = SNAPSHOT_ENOMEM;

    if (writer != NULL && deflateInit2(&writer->stream, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS,
                                       8, Z_DEFAULT_STRATEGY) == Z_OK) {
        writer->fd = fd;
        writer->err = err;
        rc = writer_content(writer, scratch->dir, meta, servers);
        *bytes = writer->offset;
        (void)deflateEnd(&writer->stream); /* Says whether all was used: it was. */
    } else {
        (void)errmsg_set(err, rc, "out of memory");
    }
    free(writer);
    return rc;
}

int archive_save(struct store *store, const struct raft_configuration *configuration,
                 struct slice servers, const char *folder, struct snapshot_meta *meta, int *fd,
                 uint64_t *bytes, struct errmsg *err)
{
    struct scratch scratch;
    int opened = -1;
    int rc = scratch_open(&scratch, folder, err);

    if (rc == SNAPSHOT_OK) {
        rc = snapshot_write(scratch.dir, store, configuration, NULL, meta, err);
    }
    if (rc == SNAPSHOT_OK) {
        assert(scratch.dir != NULL);
        opened = openat(scratch.dir->fd, "archive", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (opened < 0) {
            rc = errmsg_set_errno(err, archive_code(errno), "cannot make a file in %s",
                                  scratch.path);
        }
    }
    if (rc == SNAPSHOT_OK) {
        rc = archive_write(&scratch, meta, servers, opened, bytes, err);
    }
    scratch_close(&scratch);
    if (rc != SNAPSHOT_OK && opened >= 0) {
        (void)close(opened); /* Nothing in it is wanted. */
        opened = -1;
    }
    *fd = opened;
    return archive_say_full(rc, folder, err);
}

/* --- opening --- */

enum archive_member { MEMBER_NONE, MEMBER_META, MEMBER_STATE, MEMBER_SUMS };

struct archive {
    struct scratch scratch;
    struct snapshot_reader reader;
    bool reader_open;
    struct restore_sum sum;
    /* While it is unpacked. */
    int fd;
    uint64_t state_bytes_max;
    uint64_t state_bytes;
    struct sha256 state_sha256;
    struct buffer meta;
    struct buffer sums;
    bool seen[MEMBER_SUMS + 1];
    enum archive_member member;
    uint64_t left;       /* of the member */
    size_t padding_left; /* behind it */
    bool ended;
    uint64_t tail_bytes; /* behind the end */
    size_t header_bytes; /* gathered */
    uint8_t header[TAR_BLOCK_BYTES];
    struct errmsg *err;
};

static int archive_bad(struct errmsg *err, const char *what)
{
    return errmsg_set(err, SNAPSHOT_ECORRUPT, "failed to read snapshot file: %s", what);
}

static bool tar_number(const uint8_t *at, size_t size, uint64_t *out)
{
    uint64_t value = 0;
    size_t i = 0;

    if (at[0] == 0x80) {
        for (i = 1; i < size; i++) {
            if (value >> 56 != 0) {
                return false;
            }
            value = value << 8 | at[i];
        }
        *out = value;
        return true;
    }
    while (i < size && at[i] == ' ') {
        i++;
    }
    for (; i < size && at[i] >= '0' && at[i] <= '7'; i++) {
        value = value << 3 | (uint64_t)(at[i] - '0');
    }
    *out = value;
    return i == size || at[i] == ' ' || at[i] == '\0';
}

static bool tar_checksum_right(const uint8_t *header)
{
    uint64_t expected;
    unsigned sum = 0;

    for (size_t i = 0; i < TAR_BLOCK_BYTES; i++) {
        const bool in_sum =
            i >= TAR_CHECKSUM_OFFSET && i < TAR_CHECKSUM_OFFSET + TAR_CHECKSUM_BYTES;
        sum += in_sum ? ' ' : header[i];
    }
    return tar_number(header + TAR_CHECKSUM_OFFSET, TAR_CHECKSUM_BYTES, &expected) &&
           expected == sum;
}

/* A header is complete. */
static int archive_member_begin(struct archive *archive)
{
    static const char *const names[] = {
        [MEMBER_META] = "meta.json", [MEMBER_STATE] = "state.bin", [MEMBER_SUMS] = "SHA256SUMS"};
    static const uint8_t zeros[TAR_BLOCK_BYTES];
    const uint8_t *header = archive->header;
    char name[TAR_NAME_BYTES + 1] = "";
    uint64_t limit[] = {0, ARCHIVE_META_BYTES_MAX, archive->state_bytes_max,
                        ARCHIVE_SUMS_BYTES_MAX};

    archive->header_bytes = 0;
    if (memcmp(header, zeros, sizeof(zeros)) == 0) {
        archive->ended = true;
        return SNAPSHOT_OK;
    }
    if (!tar_checksum_right(header) ||
        !tar_number(header + TAR_SIZE_OFFSET, TAR_SIZE_BYTES, &archive->left)) {
        return archive_bad(archive->err, "archive/tar: invalid tar header");
    }
    memcpy(name, header, TAR_NAME_BYTES);
    for (char *at = name; *at != '\0'; at++) { /* It goes into an error text. */
        *at = *at < ' ' || *at == '"' || *at > '~' ? '?' : *at;
    }
    archive->member = MEMBER_NONE;
    for (enum archive_member m = MEMBER_META; m <= MEMBER_SUMS; m++) {
        if (strcmp(name, names[m]) == 0) {
            archive->member = m;
        }
    }
    if (archive->member == MEMBER_NONE ||
        (header[TAR_TYPE_OFFSET] != '0' && header[TAR_TYPE_OFFSET] != '\0') ||
        archive->seen[archive->member]) {
        return errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                          "failed to read snapshot file: unexpected file \"%s\" in snapshot", name);
    }
    if (archive->left > limit[archive->member]) {
        return errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                          "failed to read snapshot file: %s is too large: %" PRIu64
                          " bytes, at most %" PRIu64 " are taken",
                          name, archive->left, limit[archive->member]);
    }
    archive->seen[archive->member] = true;
    archive->padding_left =
        (size_t)((TAR_BLOCK_BYTES - archive->left % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES);
    return SNAPSHOT_OK;
}

static int archive_member_bytes(struct archive *archive, const uint8_t *data, size_t size)
{
    if (archive->member == MEMBER_STATE) {
        const int error = snapshot_write_all(&snapshot_ops_default, archive->fd, data, size,
                                             archive->state_bytes);

        if (error != 0) {
            errno = -error;
            return errmsg_set_errno(archive->err, archive_code(-error),
                                    "cannot unpack the snapshot");
        }
        sha256_add(&archive->state_sha256, data, size);
        archive->state_bytes += size;
        return SNAPSHOT_OK;
    }
    struct buffer *to = archive->member == MEMBER_META ? &archive->meta : &archive->sums;

    buffer_append(to, data, size);
    return to->failed ? errmsg_set(archive->err, SNAPSHOT_ENOMEM, "out of memory") : SNAPSHOT_OK;
}

/* Takes unpacked bytes. What follows the end is not looked at, as in Go, but there is little of it:
 * a small archive can hold hundreds of gigabytes that somebody must unpack. */
static int archive_take(struct archive *archive, const uint8_t *data, size_t size)
{
    int rc = SNAPSHOT_OK;

    while (rc == SNAPSHOT_OK && size > 0 && !archive->ended) {
        size_t part;

        if (archive->left > 0) {
            part = archive->left < size ? (size_t)archive->left : size;
            rc = archive_member_bytes(archive, data, part);
            archive->left -= part;
        } else if (archive->padding_left > 0) {
            part = archive->padding_left < size ? archive->padding_left : size;
            archive->padding_left -= part;
        } else {
            part = TAR_BLOCK_BYTES - archive->header_bytes;
            part = part < size ? part : size;
            memcpy(archive->header + archive->header_bytes, data, part);
            archive->header_bytes += part;
            if (archive->header_bytes == TAR_BLOCK_BYTES) {
                rc = archive_member_begin(archive);
            }
        }
        data += part;
        size -= part;
    }
    if (archive->ended) {
        archive->tail_bytes += size;
        if (rc == SNAPSHOT_OK && archive->tail_bytes > ARCHIVE_TAIL_BYTES_MAX) {
            return archive_bad(archive->err, "too much follows the archive's end");
        }
    }
    return rc;
}

/* What is packed, read piece by piece. */
struct archive_input {
    int fd;
    uint64_t offset;
    bool ended;
    uint8_t bytes[ARCHIVE_PIECE_BYTES];
};

static int input_fill(struct archive *archive, struct archive_input *input, z_stream *stream)
{
    const ssize_t got = pread(input->fd, input->bytes, sizeof(input->bytes), (off_t)input->offset);

    if (got < 0) {
        return errmsg_set_errno(archive->err, SNAPSHOT_EIO, "cannot read the snapshot");
    }
    input->offset += (uint64_t)got;
    input->ended = got == 0;
    stream->next_in = input->bytes;
    stream->avail_in = (uInt)got;
    return SNAPSHOT_OK;
}

static int archive_inflate(struct archive *archive, struct archive_input *input, z_stream *stream,
                           uint8_t *piece)
{
    int status = Z_OK;

    while (status != Z_STREAM_END) {
        if (stream->avail_in == 0 && !input->ended &&
            input_fill(archive, input, stream) != SNAPSHOT_OK) {
            return SNAPSHOT_EIO;
        }
        stream->next_out = piece;
        stream->avail_out = ARCHIVE_PIECE_BYTES;
        status = inflate(stream, Z_NO_FLUSH);
        if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
            return errmsg_set(archive->err, SNAPSHOT_ECORRUPT, "failed to decompress snapshot: %s",
                              stream->total_out == 0 ? "gzip: invalid header"
                              : stream->msg != NULL  ? stream->msg
                                                     : "flate: corrupt input");
        }
        const size_t made = ARCHIVE_PIECE_BYTES - stream->avail_out;
        const int rc = archive_take(archive, piece, made);

        if (rc != SNAPSHOT_OK) {
            return rc;
        }
        if (made == 0 && status != Z_STREAM_END && input->ended) {
            return stream->total_out == 0
                       ? errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                                    "failed to decompress snapshot: unexpected EOF")
                       : archive_bad(archive->err, "failed to read snapshot: unexpected EOF");
        }
    }
    if (!archive->ended && (archive->left > 0 || archive->header_bytes > 0)) {
        return archive_bad(archive->err, "failed to read snapshot: unexpected EOF");
    }
    return SNAPSHOT_OK;
}

static int archive_unpack(struct archive *archive, int from)
{
    struct archive_input *input = malloc(sizeof(*input));
    uint8_t *piece = malloc(ARCHIVE_PIECE_BYTES);
    z_stream stream = {0};
    int rc = SNAPSHOT_ENOMEM;

    if (input == NULL || piece == NULL || inflateInit2(&stream, GZIP_WINDOW_BITS) != Z_OK) {
        (void)errmsg_set(archive->err, rc, "out of memory");
        goto free_memory;
    }
    input->fd = from;
    input->offset = 0;
    rc = input_fill(archive, input, &stream);
    if (rc == SNAPSHOT_OK && input->ended) {
        rc = errmsg_set(archive->err, SNAPSHOT_ECORRUPT, "failed to decompress snapshot: EOF");
    }
    if (rc == SNAPSHOT_OK) {
        rc = archive_inflate(archive, input, &stream, piece);
    }
    (void)inflateEnd(&stream); /* Only fails on a stream that is none. */
free_memory:
    free(input);
    free(piece);
    return rc;
}

/* Whether SHA256SUMS has a line of this file, and it is right. */
static int archive_check_sum(struct archive *archive, const char *name, const char *sum)
{
    char line[2 * SHA256_TEXT_BYTES];

    (void)snprintf(line, sizeof(line), "%s  %s\n", sum, name);
    const struct slice sums = buffer_slice(&archive->sums);

    if (sums.size > 0 && memmem(sums.data, sums.size, line, strlen(line)) != NULL) {
        return SNAPSHOT_OK;
    }
    const bool listed = sums.size > 0 && memmem(sums.data, sums.size, name, strlen(name)) != NULL;

    return errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                      "failed to read snapshot file: failed checking integrity of snapshot: %s "
                      "\"%s\"",
                      listed ? "hash check failed for" : "list missing hash for", name);
}

static int archive_check_sums(struct archive *archive)
{
    char sum[SHA256_TEXT_BYTES + 1];
    int rc;

    for (enum archive_member m = MEMBER_META; m <= MEMBER_STATE; m++) {
        if (!archive->seen[m]) {
            return errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                              "failed to read snapshot file: failed checking integrity of "
                              "snapshot: file missing for \"%s\"",
                              m == MEMBER_META ? "meta.json" : "state.bin");
        }
    }
    rc = sum_meta(&archive->meta, sum, archive->err);
    if (rc == SNAPSHOT_OK) {
        rc = archive_check_sum(archive, "meta.json", sum);
    }
    if (rc == SNAPSHOT_OK && sha256_end(&archive->state_sha256, sum) != 0) {
        rc = errmsg_set(archive->err, SNAPSHOT_ENOMEM, "cannot compute SHA-256");
    }
    return rc == SNAPSHOT_OK ? archive_check_sum(archive, "state.bin", sum) : rc;
}

static int archive_check_meta(struct archive *archive)
{
    json_error_t error;
    json_t *root = json_loadb(archive->meta.data, archive->meta.size, 0, &error);

    if (root == NULL || !json_is_object(root)) {
        json_decref(root);
        return archive_bad(archive->err,
                           "failed to decode snapshot metadata: meta.json is no JSON object");
    }
    json_decref(root);
    return SNAPSHOT_OK;
}

/* Every byte and every record; and what they amount to. */
static int archive_check_state(struct archive *archive)
{
    struct snapshot_reader *reader = &archive->reader;
    const struct snapshot_table *table;
    struct slice key;
    struct slice value;
    char magic[8];
    int rc;

    if (pread(archive->fd, magic, sizeof(magic), 0) != (ssize_t)sizeof(magic) ||
        memcmp(magic, "PCSNAPSH", sizeof(magic)) != 0) {
        return archive_bad(archive->err, "state.bin is not in Proconsul's format. Archives that "
                                         "Consul has written cannot be restored here");
    }
    rc = snapshot_reader_open(reader, archive->scratch.dir, "state.bin", NULL, archive->err);
    if (rc != SNAPSHOT_OK) {
        return rc;
    }
    archive->reader_open = true;
    while ((rc = snapshot_reader_next(reader, &table, &key, &value)) == SNAPSHOT_OK) {
        if (!restore_takes(table->table)) {
            continue;
        }
        if (!restore_record_valid(table->table, key, value)) {
            return errmsg_set(archive->err, SNAPSHOT_ECORRUPT,
                              "failed to read snapshot file: a record of table %s is malformed",
                              table->name);
        }
        restore_sum_add(&archive->sum, table->table, key, value);
    }
    if (rc != SNAPSHOT_ENOTFOUND) {
        return rc;
    }
    snapshot_reader_rewind(reader);
    return SNAPSHOT_OK;
}

static int archive_fill(struct archive *archive, int from)
{
    int rc = archive_unpack(archive, from);

    if (rc == SNAPSHOT_OK) {
        rc = archive_check_sums(archive);
    }
    if (rc == SNAPSHOT_OK) {
        rc = archive_check_meta(archive);
    }
    return rc == SNAPSHOT_OK ? archive_check_state(archive) : rc;
}

int archive_open(int from, const char *folder, uint64_t state_bytes_max, struct archive **out,
                 struct errmsg *err)
{
    struct archive *archive = calloc(1, sizeof(*archive));
    int rc;

    if (archive == NULL) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    archive->err = err;
    archive->fd = -1;
    archive->state_bytes_max = state_bytes_max;
    sha256_begin(&archive->state_sha256);
    rc = scratch_open(&archive->scratch, folder, err);
    if (rc == SNAPSHOT_OK) {
        assert(archive->scratch.dir != NULL);
        archive->fd = openat(archive->scratch.dir->fd, "state.bin",
                             O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        rc = archive->fd >= 0 ? archive_fill(archive, from)
                              : errmsg_set_errno(err, archive_code(errno),
                                                 "cannot make a file in %s", archive->scratch.path);
    }
    scratch_remove_names(&archive->scratch);
    archive->err = NULL;
    archive->reader.err = NULL;
    if (rc != SNAPSHOT_OK) {
        archive_free(archive);
        return archive_say_full(rc, folder, err);
    }
    *out = archive;
    return SNAPSHOT_OK;
}

const struct restore_sum *archive_sum(const struct archive *archive)
{
    return &archive->sum;
}

struct slice archive_description(const struct archive *archive)
{
    return buffer_slice(&archive->meta);
}

const struct snapshot_meta *archive_meta(const struct archive *archive)
{
    return &archive->reader.meta;
}

int archive_next(struct archive *archive, struct buffer *out, size_t bytes_max, struct errmsg *err)
{
    const size_t before = out->size;
    const struct snapshot_table *table;
    struct slice key;
    struct slice value;
    int rc = SNAPSHOT_OK;

    archive->reader.err = err;
    while (out->size - before < bytes_max &&
           (rc = snapshot_reader_next(&archive->reader, &table, &key, &value)) == SNAPSHOT_OK) {
        if (restore_takes(table->table)) {
            restore_record_put(out, table->table, key, value);
        }
    }
    archive->reader.err = NULL;
    if (out->failed) {
        return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
    }
    return rc == SNAPSHOT_ENOTFOUND && out->size > before ? SNAPSHOT_OK : rc;
}

int archive_record(struct archive *archive, enum store_table *table, struct slice *key,
                   struct slice *value, struct errmsg *err)
{
    const struct snapshot_table *found;

    archive->reader.err = err;
    const int rc = snapshot_reader_next(&archive->reader, &found, key, value);

    archive->reader.err = NULL;
    if (rc == SNAPSHOT_OK) {
        *table = found->table;
    }
    return rc;
}

void archive_free(struct archive *archive)
{
    if (archive == NULL) {
        return;
    }
    if (archive->reader_open) {
        snapshot_reader_close(&archive->reader);
    }
    if (archive->fd >= 0) {
        (void)close(archive->fd); /* Only read from, or not wanted. */
    }
    scratch_close(&archive->scratch);
    sha256_free(&archive->state_sha256);
    buffer_deinit(&archive->meta);
    buffer_deinit(&archive->sums);
    free(archive);
}
