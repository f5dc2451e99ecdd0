/* A snapshot of arbitrary bytes: whatever a disk or another server makes of one, it is refused with
 * a reason, or loads; and what loads is written again, and that snapshot has the same records.
 *
 * Checksums are put right first (unless the first byte says not to), or nothing but their
 * comparison would ever be reached. */

#include <assert.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/log.h"
#include "server/snapshot/snapshot_internal.h"
#include "tests/fuzz/snapshot_repair.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_BYTES_MAX = 64 * 1024, FUZZ_STORE_BYTES = 64 << 20 };

static const struct snapshot_meta fuzz_name = {.term = 1, .index = 1};

static struct {
    char path[64];
    struct snapshot_dir *dir;
    struct store *store;
} fuzz;

static void fuzz_remove(void)
{
    char path[512];
    DIR *dir = opendir(fuzz.path);

    for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        (void)snprintf(path, sizeof(path), "%s/%s", fuzz.path, entry->d_name);
        (void)unlink(path); /* Fails for the folder itself and its parent. */
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    (void)rmdir(fuzz.path);
}

static int fuzz_sync(void *host, int fd)
{
    (void)host;
    (void)fd;
    return 0; /* Nothing is waited for. */
}

static void fuzz_open(void)
{
    static struct snapshot_ops ops;
    const struct store_options options = {.dir = fuzz.path, .bytes_max = FUZZ_STORE_BYTES};
    struct errmsg err = {""};
    bool wiped;

    (void)snprintf(fuzz.path, sizeof(fuzz.path), "/dev/shm/fuzz_snapshot.%d", (int)getpid());
    ops = snapshot_ops_default;
    ops.fsync = fuzz_sync;
    ops.dir_sync = fuzz_sync;
    log_level_set(LOG_ERROR);
    int rc = snapshot_dir_open_with(fuzz.path, &ops, &fuzz.dir, &err);
    assert(rc == SNAPSHOT_OK);
    rc = store_open(&options, &fuzz.store, &wiped, &err);
    assert(rc == STORE_OK);
    (void)atexit(fuzz_remove);
}

static void fuzz_file(const uint8_t *bytes, size_t size)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];

    snapshot_name(&fuzz_name, SNAPSHOT_NAME_WHOLE, name);
    const int fd = openat(fuzz.dir->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert(fd >= 0);
    const ssize_t written = write(fd, bytes, size);
    assert(written == (ssize_t)size);
    (void)close(fd);
}

static uint64_t fuzz_checksum(void)
{
    struct store_txn txn;
    uint64_t checksum = 0;

    int rc = store_read_begin(fuzz.store, &txn);
    assert(rc == STORE_OK);
    rc = store_checksum(&txn, &checksum);
    assert(rc == STORE_OK);
    store_read_end(&txn);
    return checksum;
}

/* Loads what was just written under its real name; writes it again and loads that. */
static void fuzz_use(const struct snapshot_meta *meta)
{
    char from[SNAPSHOT_NAME_BYTES_MAX];
    char to[SNAPSHOT_NAME_BYTES_MAX];
    struct snapshot_meta again;
    struct errmsg err = {""};

    snapshot_name(&fuzz_name, SNAPSHOT_NAME_WHOLE, from);
    snapshot_name(meta, SNAPSHOT_NAME_WHOLE, to);
    int rc = snapshot_dir_publish(fuzz.dir, from, to, &err);
    assert(rc == SNAPSHOT_OK);
    const uint64_t before = fuzz_checksum();
    rc = snapshot_load(fuzz.dir, meta, fuzz.store, NULL, &err);
    const uint64_t loaded = fuzz_checksum();
    if (rc != SNAPSHOT_OK) {
        assert(err.text[0] != '\0');
        assert(loaded == before);
    } else {
        rc = snapshot_write(fuzz.dir, fuzz.store, &meta->configuration, NULL, &again, &err);
        assert(rc == SNAPSHOT_OK);
        assert(again.index == meta->index);
        rc = snapshot_load(fuzz.dir, &again, fuzz.store, NULL, &err);
        assert(rc == SNAPSHOT_OK);
        assert(fuzz_checksum() == loaded);
    }
    (void)snapshot_dir_remove(fuzz.dir, to, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[SNAPSHOT_NAME_BYTES_MAX];
    struct snapshot_reader reader;
    struct errmsg err = {""};

    if (size < 1 || size > FUZZ_BYTES_MAX) {
        return 0;
    }
    if (fuzz.dir == NULL) {
        fuzz_open();
    }
    uint8_t *bytes = malloc(size);
    assert(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if ((data[0] & 1) == 0) {
        fuzz_repair(&fuzz.dir->crc32c, bytes, size - 1);
    }
    fuzz_file(bytes, size - 1);
    free(bytes);
    snapshot_name(&fuzz_name, SNAPSHOT_NAME_WHOLE, name);
    const int rc = snapshot_reader_open(&reader, fuzz.dir, name, NULL, &err);
    if (rc != SNAPSHOT_OK) {
        assert(err.text[0] != '\0');
        return 0;
    }
    const struct snapshot_meta meta = reader.meta;
    snapshot_reader_close(&reader);
    fuzz_use(&meta);
    return 0;
}
