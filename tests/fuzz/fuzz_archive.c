/* An archive to restore, of arbitrary bytes: whatever a client sends is refused with a reason, or
 * its records can be given out, are what a restore takes, and amount to what it says.
 *
 * The first byte says how deep the rest goes: 0 is sent as it is; 1 is compressed first, so that it
 * is read as a tar file; 2 becomes state.bin of an otherwise right archive, with its checksums
 * put right. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "server/snapshot/archive.h"
#include "server/snapshot/sha256.h"
#include "tests/fuzz/snapshot_repair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 64 * 1024, FUZZ_STATE_BYTES_MAX = 1024 * 1024, FUZZ_BLOCK_BYTES = 512 };

static char fuzz_folder[64];
static struct crc32c fuzz_crc32c;

static void fuzz_remove(void)
{
    (void)rmdir(fuzz_folder); /* Fails when something was left in it: see below. */
}

static void fuzz_compress(struct slice bytes, struct buffer *out)
{
    z_stream stream = {0};
    const size_t space = bytes.size + bytes.size / 8 + 1024;

    int rc = deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    assert(rc == Z_OK);
    buffer_clear(out);
    stream.next_in = (Bytef *)(uintptr_t)bytes.data;
    stream.avail_in = (uInt)bytes.size;
    stream.next_out = (Bytef *)buffer_reserve(out, space);
    stream.avail_out = (uInt)space;
    rc = deflate(&stream, Z_FINISH);
    assert(rc == Z_STREAM_END);
    out->size = stream.total_out;
    (void)deflateEnd(&stream);
}

static void fuzz_pad(struct buffer *out)
{
    while (out->size % FUZZ_BLOCK_BYTES != 0) {
        buffer_append_char(out, '\0');
    }
}

static void fuzz_member(struct buffer *out, const char *name, struct slice bytes)
{
    char header[FUZZ_BLOCK_BYTES] = "";
    unsigned sum = 0;

    (void)snprintf(header, 100, "%s", name);
    (void)snprintf(header + 124, 12, "%011zo", bytes.size);
    memset(header + 148, ' ', 8);
    header[156] = '0';
    for (size_t i = 0; i < sizeof(header); i++) {
        sum += (unsigned char)header[i];
    }
    (void)snprintf(header + 148, 7, "%06o", sum);
    buffer_append(out, header, sizeof(header));
    buffer_append_slice(out, bytes);
    fuzz_pad(out);
}

/* An archive around a state. */
static void fuzz_wrap(struct slice state, struct buffer *out)
{
    static const char *const names[] = {"meta.json", "state.bin"};
    const struct slice members[] = {slice_from_text("{}"), state};
    struct buffer sums = {0};

    for (size_t i = 0; i < 2; i++) {
        char text[SHA256_TEXT_BYTES + 1];
        struct sha256 sha256;

        sha256_begin(&sha256);
        sha256_add(&sha256, members[i].data, members[i].size);
        sha256_end(&sha256, text);
        buffer_printf(&sums, "%s  %s\n", text, names[i]);
        fuzz_member(out, names[i], members[i]);
    }
    fuzz_member(out, "SHA256SUMS", buffer_slice(&sums));
    for (size_t i = 0; i < (size_t)2 * FUZZ_BLOCK_BYTES; i++) {
        buffer_append_char(out, '\0');
    }
    buffer_deinit(&sums);
}

static void fuzz_use(struct archive *archive)
{
    struct buffer records = {0};
    struct restore_sum sum = {0};
    struct errmsg err = {""};
    int rc;

    while ((rc = archive_next(archive, &records, 4096, &err)) == SNAPSHOT_OK) {
        struct reader reader = reader_from(buffer_slice(&records));

        assert(restore_records_valid(buffer_slice(&records)));
        while (!reader_done(&reader)) {
            const struct slice key = reader_string(&reader);
            const struct slice value = reader_string(&reader);

            assert(!reader.failed && key.size > 0);
            restore_sum_add(&sum, (enum store_table)(unsigned char)key.data[0],
                            slice_from(key.data + 1, key.size - 1), value);
        }
        buffer_clear(&records);
    }
    assert(rc == SNAPSHOT_ENOTFOUND);
    assert(sum.records == archive_sum(archive)->records);
    assert(sum.hash == archive_sum(archive)->hash);
    buffer_deinit(&records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buffer state = {0}, tar = {0}, bytes = {0};
    struct archive *archive = NULL;
    struct errmsg err = {""};
    int fd = -1;

    if (size < 1 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    if (fuzz_folder[0] == '\0') {
        (void)snprintf(fuzz_folder, sizeof(fuzz_folder), "/dev/shm/fuzz_archive.%d", (int)getpid());
        const int made = mkdir(fuzz_folder, 0700);
        assert(made == 0);
        (void)atexit(fuzz_remove);
        crc32c_init(&fuzz_crc32c);
    }
    struct slice input = slice_from((const char *)data + 1, size - 1);

    if (data[0] == 2) {
        buffer_append_slice(&state, input);
        fuzz_repair(&fuzz_crc32c, (uint8_t *)state.data, state.size);
        fuzz_wrap(buffer_slice(&state), &tar);
        input = buffer_slice(&tar);
    }
    if (data[0] == 1 || data[0] == 2) {
        fuzz_compress(input, &bytes);
        input = buffer_slice(&bytes);
    }
    int rc = archive_file_open(fuzz_folder, &fd, &err);

    assert(rc == SNAPSHOT_OK);
    rc = archive_file_write(fuzz_folder, fd, input, 0, &err);
    assert(rc == SNAPSHOT_OK);
    rc = archive_open(fd, fuzz_folder, FUZZ_STATE_BYTES_MAX, &archive, &err);
    (void)close(fd);
    if (rc == SNAPSHOT_OK) {
        fuzz_use(archive);
    } else {
        assert(archive == NULL && err.text[0] != '\0');
    }
    archive_free(archive);
    buffer_deinit(&state);
    buffer_deinit(&tar);
    buffer_deinit(&bytes);
    const int removed = rmdir(fuzz_folder); /* Nothing was left. */
    assert(removed == 0);
    const int made = mkdir(fuzz_folder, 0700);
    assert(made == 0);
    return 0;
}
