/* A disk: files in memory, each as reads see it and as a crash of the machine would leave it. What
 * was written since the last sync is kept as a list of extents; at the machine's crash each of them
 * is there, or not, or torn at any byte. Names come and go in the same way, in order. */

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_full.h"

enum { SIM_HANDLE_DIR = SIM_HANDLES_MAX, SIM_HANDLE_LOCK };
enum { SIM_MARK_BYTES = 32 }; /* before the last batch: of its ordinal, and as hard to tell apart */

/* --- files --- */

static void file_release(struct sim_file *file)
{
    if (file != NULL && --file->references == 0) {
        free(file->bytes);
        free(file->synced);
        free(file->pending);
        free(file);
    }
}

static void file_reserve(struct sim_files *files, struct sim_file *file, uint64_t bytes)
{
    if (bytes <= file->capacity) {
        return;
    }
    file->bytes = realloc(file->bytes, bytes);
    file->synced = realloc(file->synced, bytes);
    sim_require(files->sim, file->bytes != NULL && file->synced != NULL, "out of memory");
    memset(file->bytes + file->capacity, 0, bytes - file->capacity);
    memset(file->synced + file->capacity, 0, bytes - file->capacity);
    file->capacity = bytes;
}

/* After the bytes are written. */
static void file_note(struct sim_file *file, uint64_t offset, uint64_t bytes)
{
    bool zeros = true;

    for (uint64_t i = 0; i < bytes && zeros; i++) {
        zeros = file->bytes[offset + i] == 0;
    }
    file->pending = sim_grow(file->pending, &file->pending_capacity, file->pending_count + 1,
                             sizeof(*file->pending));
    file->pending[file->pending_count++] = (struct sim_extent){offset, bytes, zeros};
}

/* `bytes` of an extent reach the disk. */
static void file_sync_extent(struct sim_file *file, const struct sim_extent *extent, uint64_t bytes)
{
    memcpy(file->synced + extent->offset, file->bytes + extent->offset, bytes);
    if (extent->offset + bytes > file->synced_size) {
        file->synced_size = extent->offset + bytes;
    }
}

/* Some of what is not synced is on the disk all the same: whole, in part, or not at all. What is
 * written twice and only then synced shows as it was at last, which is one of the ways. */
static void file_sync_some(struct sim_files *files, struct sim_file *file)
{
    struct sim *sim = files->sim;
    const bool in_order = sim_chance(sim, 5000);
    bool over = false;

    for (size_t i = 0; i < file->pending_count && !over; i++) {
        const struct sim_extent *extent = &file->pending[i];
        uint64_t bytes = 0;
        switch (sim_between(sim, 0, 2)) {
        case 0:
            bytes = extent->bytes;
            break;
        case 1:
            bytes = sim_between(sim, 0, extent->bytes);
            break;
        default:
            break;
        }
        file_sync_extent(file, extent, bytes);
        if (files->garbles && bytes > 0 && sim_chance(sim, 2000)) {
            file->synced[extent->offset + sim_between(sim, 0, bytes - 1)] ^=
                (uint8_t)(1U << sim_between(sim, 0, 7));
        }
        over = in_order && bytes < extent->bytes;
    }
    file->pending_count = 0;
}

/* What reads see is what the disk has. */
static void file_reread(struct sim_file *file)
{
    const uint64_t rest = file->capacity - file->synced_size;

    if (file->capacity > 0) {
        memset(file->synced + file->synced_size, 0, rest);
        memcpy(file->bytes, file->synced, file->capacity);
    }
    file->size = file->synced_size;
}

/* --- names --- */

static struct sim_file **folder_find(struct sim_folder *folder, const char *name)
{
    for (size_t i = 0; i < folder->count; i++) {
        if (strcmp(folder->names[i].name, name) == 0) {
            return &folder->names[i].file;
        }
    }
    return NULL;
}

/* `file` NULL: the name goes. */
static void folder_set(struct sim_files *files, struct sim_folder *folder, const char *name,
                       struct sim_file *file)
{
    struct sim_file **found = folder_find(folder, name);

    if (file != NULL) {
        file->references++;
    }
    if (found != NULL) {
        file_release(*found);
        *found = file;
        if (file == NULL) {
            const size_t at =
                (size_t)((struct sim_name *)(void *)((char *)found -
                                                     offsetof(struct sim_name, file)) -
                         folder->names);
            folder->names[at] = folder->names[--folder->count];
        }
        return;
    }
    if (file != NULL) {
        sim_require(files->sim, folder->count < SIM_FILES_MAX, "too many files");
        struct sim_name *added = &folder->names[folder->count++];
        (void)snprintf(added->name, sizeof(added->name), "%s", name);
        added->file = file;
    }
}

/* In the folder as it is seen, and to be made durable later. */
static void folder_change(struct sim_files *files, const char *name, struct sim_file *file)
{
    sim_require(files->sim, files->change_count < SIM_NAMES_MAX, "a folder that is never synced");
    struct sim_name_change *change = &files->changes[files->change_count++];
    (void)snprintf(change->name, sizeof(change->name), "%s", name);
    change->file = file;
    change->with_next = false;
    if (file != NULL) {
        file->references++;
    }
    folder_set(files, &files->folder, name, file);
}

/* The first `count` changes reach the disk, the others are forgotten. */
static void folder_sync(struct sim_files *files, size_t count)
{
    for (size_t i = 0; i < files->change_count; i++) {
        const struct sim_name_change *change = &files->changes[i];
        if (i < count) {
            folder_set(files, &files->durable, change->name, change->file);
        }
        file_release(change->file);
    }
    files->change_count = 0;
}

/* --- the table --- */

/* True when the process is as good as dead: nothing is changed any more. */
static bool disk_frozen(struct sim_files *files)
{
    if (!files->frozen) {
        return false;
    }
    if (files->steps_left == 0) {
        return true;
    }
    files->steps_left--;
    return false;
}

bool sim_disk_is_full(const struct sim_files *files)
{
    return files->full_for_good ||
           (files->full_until_ms > files->sim->now_ms && !files->sim->healed);
}

/* Whether bytes up to `end` of the file would need room that there is not. */
static bool disk_lacks_space(const struct sim_files *files, const struct sim_file *file,
                             uint64_t end)
{
    return (file == NULL || end > file->size) && sim_disk_is_full(files);
}

static struct sim_file *disk_file(struct sim_files *files, int handle)
{
    assert(handle >= 0 && handle < SIM_HANDLES_MAX && files->handle_used[handle]);
    return files->handles[handle];
}

static int disk_dir_open(void *host, const char *path)
{
    (void)host;
    (void)path;
    return SIM_HANDLE_DIR;
}

static int disk_dir_list(void *host, int dir, bool (*on_name)(void *context, const char *name),
                         void *context)
{
    struct sim_files *files = host;

    (void)dir;
    for (size_t i = 0; i < files->folder.count; i++) {
        if (!on_name(context, files->folder.names[i].name)) {
            break;
        }
    }
    return 0;
}

static int disk_dir_sync(void *host, int dir)
{
    struct sim_files *files = host;

    (void)dir;
    if (disk_frozen(files)) {
        return -EIO;
    }
    folder_sync(files, files->change_count);
    return 0;
}

static int disk_lock(void *host, int dir, const char *name)
{
    (void)host;
    (void)dir;
    (void)name;
    return SIM_HANDLE_LOCK;
}

static int disk_rename(void *host, int dir, const char *from, const char *to)
{
    struct sim_files *files = host;
    struct sim_file **found = folder_find(&files->folder, from);

    (void)dir;
    if (disk_frozen(files)) {
        return -EIO;
    }
    if (found == NULL) {
        return -ENOENT;
    }
    struct sim_file *file = *found;
    folder_change(files, to, file);
    files->changes[files->change_count - 1].with_next = true;
    folder_change(files, from, NULL);
    return 0;
}

static int disk_unlink(void *host, int dir, const char *name)
{
    struct sim_files *files = host;

    (void)dir;
    if (disk_frozen(files)) {
        return -EIO;
    }
    if (folder_find(&files->folder, name) == NULL) {
        return -ENOENT;
    }
    folder_change(files, name, NULL);
    return 0;
}

static int disk_open(void *host, int dir, const char *name, enum wal_file_mode mode)
{
    struct sim_files *files = host;
    struct sim_file **found = folder_find(&files->folder, name);
    struct sim_file *file = found == NULL ? NULL : *found;

    (void)dir;
    if (mode == WAL_FILE_CREATE) {
        if (file != NULL) {
            return -EEXIST;
        }
        if (disk_frozen(files)) {
            return -EIO;
        }
        if (disk_lacks_space(files, NULL, 0)) {
            return -ENOSPC;
        }
        file = calloc(1, sizeof(*file));
        sim_require(files->sim, file != NULL, "out of memory");
        folder_change(files, name, file);
    } else if (file == NULL) {
        return -ENOENT;
    }
    for (int i = 0; i < SIM_HANDLES_MAX; i++) {
        if (!files->handle_used[i]) {
            files->handle_used[i] = true;
            files->handles[i] = file;
            file->references++;
            return i;
        }
    }
    sim_require(files->sim, false, "too many open files");
    return -EMFILE;
}

static int disk_size(void *host, int file, uint64_t *bytes)
{
    *bytes = disk_file(host, file)->size;
    return 0;
}

static ssize_t disk_pread(void *host, int handle, void *out, size_t bytes, uint64_t offset)
{
    const struct sim_file *file = disk_file(host, handle);

    if (offset >= file->size) {
        return 0;
    }
    if (bytes > file->size - offset) {
        bytes = (size_t)(file->size - offset);
    }
    memcpy(out, file->bytes + offset, bytes);
    return (ssize_t)bytes;
}

static ssize_t disk_pwritev(void *host, int handle, const struct iovec *iov, int count,
                            uint64_t offset)
{
    struct sim_files *files = host;
    struct sim_file *file = disk_file(files, handle);
    uint64_t total = 0;

    for (int i = 0; i < count; i++) {
        total += iov[i].iov_len;
    }
    uint64_t left = total;
    if (disk_frozen(files)) {
        return -EIO;
    }
    if (disk_lacks_space(files, file, offset + total)) {
        return -ENOSPC;
    }
    if (files->frozen && files->steps_left == 0 && sim_chance(files->sim, 5000)) {
        left = sim_between(files->sim, 0, total); /* Killed in the middle, else right after it. */
    }
    file_reserve(files, file, offset + left);
    if (offset + left > file->size) {
        file->size = offset + left;
    }
    uint64_t at = offset;
    for (int i = 0; i < count && at < offset + left; i++) {
        const uint64_t rest = offset + left - at;
        const uint64_t bytes = iov[i].iov_len < rest ? iov[i].iov_len : rest;
        memcpy(file->bytes + at, iov[i].iov_base, bytes);
        at += bytes;
    }
    file_note(file, offset, left);
    return (ssize_t)total;
}

static int disk_allocate(void *host, int handle, uint64_t bytes)
{
    struct sim_files *files = host;
    struct sim_file *file = disk_file(files, handle);

    if (disk_frozen(files)) {
        return -EIO;
    }
    if (disk_lacks_space(files, file, bytes)) {
        return -ENOSPC;
    }
    if (bytes > file->size) {
        file_reserve(files, file, bytes);
        file_note(file, file->size, bytes - file->size);
        file->size = bytes;
    }
    return 0;
}

static int disk_fdatasync(void *host, int handle)
{
    struct sim_files *files = host;
    struct sim_file *file = disk_file(files, handle);

    if (disk_frozen(files)) {
        return -EIO;
    }
    if (files->sync_fails && file->pending_count > 0) {
        /* The cache calls clean what never came to the disk. */
        files->sync_fails = false;
        file_sync_some(files, file);
        return -EIO;
    }
    uint64_t last = UINT64_MAX;
    bool cut = false;
    for (size_t i = 0; i < file->pending_count; i++) {
        const struct sim_extent *extent = &file->pending[i];
        file_sync_extent(file, extent, extent->bytes);
        if (!extent->zeros && extent->offset < last) {
            last = extent->offset;
        }
        cut = cut || (extent->zeros && extent->offset <= file->last_synced);
    }
    if (last != UINT64_MAX) {
        file->synced_before = file->last_synced;
        file->last_synced = last;
    } else if (cut) {
        file->last_synced = file->synced_before;
    }
    file->pending_count = 0;
    return 0;
}

static void disk_forget(void *host, int handle)
{
    struct sim_file *file = disk_file(host, handle);

    if (file->pending_count == 0) {
        file_reread(file);
    }
}

static void disk_close(void *host, int handle)
{
    struct sim_files *files = host;

    if (handle < SIM_HANDLES_MAX) {
        file_release(disk_file(files, handle));
        files->handle_used[handle] = false;
    }
}

static uint64_t disk_now_us(void *host)
{
    const struct sim_files *files = host;

    return files->sim->now_ms * 1000;
}

static int disk_random(void *host, void *out, size_t bytes)
{
    struct sim_files *files = host;
    uint8_t *at = out;

    for (size_t i = 0; i < bytes; i++) {
        files->random = files->random * 6364136223846793005U + 1442695040888963407U;
        at[i] = (uint8_t)(files->random >> 56);
    }
    return 0;
}

/* --- the same, as snapshots ask for it --- */

static int disk_ops_dir_make(void *host, const char *path)
{
    (void)host;
    (void)path;
    return -EEXIST;
}

/* What is called back may remove names. */
static int disk_ops_dir_list(void *host, int dir, int (*on_name)(void *context, const char *name),
                             void *context)
{
    const struct sim_files *files = host;
    const struct sim_folder folder = files->folder;
    int rc = 0;

    (void)dir;
    for (size_t i = 0; i < folder.count && rc == 0; i++) {
        rc = on_name(context, folder.names[i].name);
    }
    return rc;
}

static int disk_ops_open(void *host, int dir, const char *name, enum snapshot_open_mode mode)
{
    struct sim_files *files = host;
    const bool there = folder_find(&files->folder, name) != NULL;

    if (mode == SNAPSHOT_OPEN_READ) {
        return disk_open(host, dir, name, WAL_FILE_READ);
    }
    if (mode == SNAPSHOT_OPEN_RESUME && there) {
        return disk_open(host, dir, name, WAL_FILE_WRITE);
    }
    const int rc = there ? disk_unlink(host, dir, name) : 0;
    return rc != 0 ? rc : disk_open(host, dir, name, WAL_FILE_CREATE);
}

static ssize_t disk_ops_pwrite(void *host, int file, const void *data, size_t size, uint64_t offset)
{
    const struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};

    return disk_pwritev(host, file, &iov, 1, offset);
}

static int disk_ops_reserve(void *host, int file, uint64_t bytes)
{
    return disk_lacks_space(host, disk_file(host, file), bytes) ? -ENOSPC : 0;
}

/* --- life --- */

void sim_disk_init(struct sim *sim, struct sim_files *files, uint64_t random)
{
    memset(files, 0, sizeof(*files));
    files->sim = sim;
    files->random = random;
    files->ops = (struct snapshot_ops){
        .host = files,
        .dir_make = disk_ops_dir_make,
        .dir_open = disk_dir_open,
        .dir_list = disk_ops_dir_list,
        .open = disk_ops_open,
        .size = disk_size,
        .pread = disk_pread,
        .reserve = disk_ops_reserve,
        .close = disk_close,
        .pwrite = disk_ops_pwrite,
        .fsync = disk_fdatasync,
        .dir_sync = disk_dir_sync,
        .rename = disk_rename,
        .unlink = disk_unlink,
    };
    files->table = (struct wal_files){
        .host = files,
        .dir_open = disk_dir_open,
        .dir_list = disk_dir_list,
        .dir_sync = disk_dir_sync,
        .lock = disk_lock,
        .rename = disk_rename,
        .unlink = disk_unlink,
        .open = disk_open,
        .size = disk_size,
        .pread = disk_pread,
        .pwritev = disk_pwritev,
        .allocate = disk_allocate,
        .fdatasync = disk_fdatasync,
        .forget = disk_forget,
        .close = disk_close,
        .now_us = disk_now_us,
        .random = disk_random,
    };
}

void sim_disk_deinit(struct sim_files *files)
{
    if (files->sim == NULL) {
        return;
    }
    if (files->flipped) {
        file_release(files->flip_file);
    }
    folder_sync(files, 0);
    while (files->folder.count > 0) {
        file_release(files->folder.names[--files->folder.count].file);
    }
    while (files->durable.count > 0) {
        file_release(files->durable.names[--files->durable.count].file);
    }
}

void sim_disk_crash(struct sim *sim, size_t node, struct sim_files *files, bool machine)
{
    files->frozen = false;
    files->sync_fails = false;
    for (size_t i = 0; i < SIM_HANDLES_MAX; i++) {
        sim_require(sim, !files->handle_used[i], "a file is still open");
    }
    if (!machine) {
        return;
    }
    size_t names = sim_between(sim, 0, files->change_count);
    if (names > 0 && files->changes[names - 1].with_next) {
        names++;
    }
    folder_sync(files, names);
    while (files->folder.count > 0) {
        file_release(files->folder.names[--files->folder.count].file);
    }
    for (size_t i = 0; i < files->durable.count; i++) {
        struct sim_file *file = files->durable.names[i].file;
        folder_set(files, &files->folder, files->durable.names[i].name, file);
        for (size_t p = 0; p < file->pending_count; p++) {
            sim_trace(sim, node, "unsynced", "%s: %" PRIu64 " bytes at %" PRIu64 "%s",
                      files->durable.names[i].name, file->pending[p].bytes, file->pending[p].offset,
                      file->pending[p].zeros ? ", zeros" : "");
        }
        file_sync_some(files, file);
        file_reread(file);
    }
}

/* --- bits --- */

/* The log ends in the file with the last name: there, what was written last looks like a torn write
 * if it is damaged, which nobody can tell apart. */
bool sim_disk_flip(struct sim *sim, size_t node)
{
    struct sim_files *files = &sim->full->files[node];
    const size_t count = files->durable.count;

    if (files->flipped || count == 0) {
        return false;
    }
    const struct sim_name *chosen = &files->durable.names[sim_between(sim, 0, count - 1)];
    struct sim_file *file = chosen->file;
    const uint64_t limit =
        file->last_synced < file->synced_size ? file->last_synced : file->synced_size;
    if (limit <= SIM_MARK_BYTES) {
        return false;
    }
    files->flip_offset = sim_between(sim, 0, limit - SIM_MARK_BYTES - 1);
    files->flip_bit = (uint8_t)(1U << sim_between(sim, 0, 7));
    files->flip_file = file;
    files->flipped = true;
    file->references++;
    file->bytes[files->flip_offset] ^= files->flip_bit;
    file->synced[files->flip_offset] ^= files->flip_bit;
    sim_trace(sim, node, "flip", "bit %u of byte %" PRIu64 " in %s", files->flip_bit,
              files->flip_offset, chosen->name);
    return true;
}

void sim_disk_unflip(struct sim *sim, size_t node, bool undo)
{
    struct sim_files *files = &sim->full->files[node];

    if (files->flipped) {
        if (undo) {
            files->flip_file->bytes[files->flip_offset] ^= files->flip_bit;
            files->flip_file->synced[files->flip_offset] ^= files->flip_bit;
        }
        file_release(files->flip_file);
        files->flip_file = NULL;
        files->flipped = false;
    }
}
