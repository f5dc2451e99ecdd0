#include "kv/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { STORE_FORMAT = 1, STORE_MARK_BYTES_MAX = 512, STORE_BLOCK_BYTES = 512 /* of st_blocks */ };

#define STORE_BYTES_MAX_DEFAULT ((size_t)16 << 30)
/* The map beyond bytes_max: an eighth of it, and no less than this. */
#define STORE_RESERVE_BYTES_MIN ((size_t)4 << 20)
/* A short write on a file system with less free than this was a full disk, not a broken one. */
#define STORE_DISK_FULL_BYTES ((uint64_t)16 << 20)

static const char STORE_DATA_NAME[] = "data.mdb";
static const char STORE_LOCK_NAME[] = "lock.mdb";
static const char STORE_MARK_NAME[] = "mark";
static const char STORE_MARK_NEW_NAME[] = "mark.new";
/* LMDB's key: STORE_KEY_TAG and the name. */
static const char store_format_name[] = "\x6b"
                                        "format";
static const char STORE_MARK_CLEAN[] = "proconsul-store 1 clean\n";

static const char *const store_dbi_names[STORE_DBI_COUNT] = {
    [STORE_META] = "meta",
    [STORE_INDEX] = "index",
    [STORE_KV] = "kv",
    [STORE_TOMBSTONE] = "tombstone",
    [STORE_LOCK_DELAY] = "lock-delay",
    [STORE_SESSION] = "session",
    [STORE_SESSION_NODE] = "session-node",
    [STORE_SESSION_KEY] = "session-key",
    [STORE_NODE] = "node",
    [STORE_NODE_ID] = "node-id",
    [STORE_SERVICE] = "service",
    [STORE_SERVICE_NAME] = "service-name",
    [STORE_CHECK] = "check",
    [STORE_COORDINATE] = "coordinate",
    [STORE_STAGED] = "staged",
    [STORE_SETTING] = "setting",
    [STORE_FOLDERS] = "folders",
};

const char *store_strerror(int code)
{
    switch ((enum store_error)code) {
    case STORE_OK:
        return "success";
    case STORE_ENOMEM:
        return "out of memory";
    case STORE_EIO:
        return "input/output error in the state store";
    case STORE_EFULL:
        return "the state store is full";
    case STORE_ENOTFOUND:
        return "not found";
    case STORE_ECORRUPT:
        return "a record in the state store does not decode";
    }
    return "unknown error of the state store";
}

static int store_error_from(int rc)
{
    switch (rc) {
    case 0:
        return STORE_OK;
    case MDB_NOTFOUND:
        return STORE_ENOTFOUND;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return STORE_EFULL;
    case ENOMEM:
    case MDB_READERS_FULL:
        return STORE_ENOMEM;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return STORE_ECORRUPT;
    default:
        return STORE_EIO;
    }
}

int store_txn_error(struct store_txn *txn, int rc)
{
    if (rc == 0) {
        return STORE_OK;
    }
    if (rc == MDB_BAD_TXN && txn->failure != 0) {
        return txn->failure;
    }
    const int code = store_error_from(rc);
    if (code != STORE_ENOTFOUND && txn->failure == 0) {
        txn->failure = code;
    }
    return code;
}

/* --- the mark: whether data.mdb may be trusted --- */

/* The mark of a store in use. Names the boot of the machine (its page cache holds what was not
 * synced) and the very file (a copy of a live one may be torn). Without a boot's name it is one
 * that nobody trusts. */
static void store_mark_open(const char *boot_id, const struct stat *data,
                            char out[STORE_MARK_BYTES_MAX])
{
    if (boot_id == NULL || boot_id[0] == '\0') {
        (void)snprintf(out, STORE_MARK_BYTES_MAX, "proconsul-store 1 unknown\n");
        return;
    }
    (void)snprintf(out, STORE_MARK_BYTES_MAX, "proconsul-store 1 open %.128s %llu %llu\n", boot_id,
                   (unsigned long long)data->st_dev, (unsigned long long)data->st_ino);
}

/* Empty text when there is no mark that can be read: such a store is not trusted. */
static void store_mark_read(int dir_fd, char out[STORE_MARK_BYTES_MAX])
{
    const int fd = openat(dir_fd, STORE_MARK_NAME, O_RDONLY | O_CLOEXEC);

    out[0] = '\0';
    if (fd < 0) {
        return;
    }
    const ssize_t size = read(fd, out, STORE_MARK_BYTES_MAX - 1);
    out[size > 0 ? size : 0] = '\0';
    close(fd);
}

static int store_mark_write(int dir_fd, const char *text, struct errmsg *err)
{
    const size_t size = strlen(text);
    const int fd =
        openat(dir_fd, STORE_MARK_NEW_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        return errmsg_set_errno(err, store_error_from(errno), "create %s", STORE_MARK_NEW_NAME);
    }
    errno = ENOSPC; /* What a short write means. */
    if (write(fd, text, size) != (ssize_t)size || fsync(fd) != 0) {
        const int rc =
            errmsg_set_errno(err, store_error_from(errno), "write %s", STORE_MARK_NEW_NAME);
        close(fd);
        return rc;
    }
    close(fd);
    if (renameat(dir_fd, STORE_MARK_NEW_NAME, dir_fd, STORE_MARK_NAME) != 0 || fsync(dir_fd) != 0) {
        return errmsg_set_errno(err, store_error_from(errno), "rename %s", STORE_MARK_NEW_NAME);
    }
    return STORE_OK;
}

/* The mark goes first: a crash between leaves a store that is wiped again. */
static int store_wipe(int dir_fd, struct errmsg *err)
{
    const char *const names[] = {STORE_MARK_NAME, STORE_DATA_NAME, STORE_LOCK_NAME};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (unlinkat(dir_fd, names[i], 0) != 0 && errno != ENOENT) {
            return errmsg_set_errno(err, STORE_EIO, "remove %s", names[i]);
        }
        if (i == 0 && fsync(dir_fd) != 0) {
            return errmsg_set_errno(err, STORE_EIO, "sync the folder");
        }
    }
    return STORE_OK;
}

/* After an I/O error nobody knows what the file holds: without its mark the next open wipes it. */
static void store_suspect(struct store *store)
{
    if (!store->suspect) {
        store->suspect = true;
        (void)unlinkat(store->dir_fd, STORE_MARK_NAME, 0); /* Best effort: the disk is failing. */
        (void)fsync(store->dir_fd);
    }
}

/* --- life --- */

static int store_open_dir(struct store *store, const char *dir, struct errmsg *err)
{
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return errmsg_set_errno(err, store_error_from(errno), "create the folder %s", dir);
    }
    store->dir = strdup(dir);
    if (store->dir == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    store->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->dir_fd < 0) {
        return errmsg_set_errno(err, STORE_EIO, "open the folder %s", dir);
    }
    if (flock(store->dir_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            return errmsg_set(err, STORE_EIO, "%s is in use by another process", dir);
        }
        return errmsg_set_errno(err, STORE_EIO, "lock the folder %s", dir);
    }
    return STORE_OK;
}

/* Whether what is in the folder may be used. Clean, or of this boot and this very file. */
static bool store_trusted(const struct store *store, const struct stat *data, const char *boot_id)
{
    char found[STORE_MARK_BYTES_MAX];
    char expected[STORE_MARK_BYTES_MAX];

    store_mark_read(store->dir_fd, found);
    if (strcmp(found, STORE_MARK_CLEAN) == 0) {
        return true;
    }
    if (boot_id == NULL || boot_id[0] == '\0') {
        return false;
    }
    store_mark_open(boot_id, data, expected);
    return strcmp(found, expected) == 0;
}

/* The limit, twice, because a load keeps the state that it replaces until it is done; and the
 * reserve. Address space only: the limit itself is kept by store_put. A file that grew under a
 * higher limit needs its reserve, too. */
static size_t store_map_bytes(const struct store *store)
{
    size_t data_bytes = store->limit_bytes;
    size_t reserve_bytes = store->limit_bytes / 8;
    struct stat data;

    if (fstatat(store->dir_fd, STORE_DATA_NAME, &data, 0) == 0 &&
        (size_t)data.st_size > data_bytes) {
        data_bytes = (size_t)data.st_size;
    }
    if (reserve_bytes < STORE_RESERVE_BYTES_MIN) {
        reserve_bytes = STORE_RESERVE_BYTES_MIN;
    }
    return (2 * data_bytes + reserve_bytes) / store->page_bytes * store->page_bytes;
}

static int store_open_env(struct store *store)
{
    const size_t map_bytes = store_map_bytes(store);

    int rc = mdb_env_create(&store->env);
    if (rc != 0) {
        return rc;
    }
    rc = mdb_env_set_maxdbs(store->env, STORE_DBI_COUNT);
    if (rc == 0) {
        rc = mdb_env_set_maxreaders(store->env, STORE_READERS_MAX);
    }
    if (rc == 0) {
        rc = mdb_env_set_mapsize(store->env, map_bytes);
    }
    if (rc == 0) {
        rc = mdb_env_open(store->env, store->dir, MDB_NOTLS | MDB_NOSYNC | MDB_NOMETASYNC, 0600);
    }
    return rc;
}

int store_format_put(const struct store *store, MDB_txn *mdb_txn)
{
    MDB_val key = {sizeof(store_format_name) - 1, (void *)(uintptr_t)store_format_name};
    char format = STORE_FORMAT;
    MDB_val value = {sizeof(format), &format};

    return mdb_put(mdb_txn, store->dbis[STORE_META], &key, &value, 0);
}

/* Opens the tables, creating what is missing, and looks at the format. */
static int store_open_tables(struct store *store)
{
    MDB_val key = {sizeof(store_format_name) - 1, (void *)(uintptr_t)store_format_name};
    MDB_val value;
    MDB_txn *txn;

    int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (rc != 0) {
        return rc;
    }
    for (size_t i = 0; rc == 0 && i < STORE_DBI_COUNT; i++) {
        rc = mdb_dbi_open(txn, store_dbi_names[i], MDB_CREATE, &store->dbis[i]);
    }
    if (rc == 0) {
        rc = mdb_get(txn, store->dbis[STORE_META], &key, &value);
        if (rc == MDB_NOTFOUND) {
            rc = store_format_put(store, txn);
        } else if (rc == 0 &&
                   (value.mv_size != 1 || *(const char *)value.mv_data != STORE_FORMAT)) {
            rc = MDB_VERSION_MISMATCH;
        }
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int store_open_data(struct store *store)
{
    int rc = store_open_env(store);

    if (rc == 0) {
        rc = store_open_tables(store);
    }
    if (rc != 0 && store->env != NULL) {
        mdb_env_close(store->env);
        store->env = NULL;
    }
    return rc;
}

/* Opens data.mdb, wiping it first if it is not to be trusted, or if LMDB cannot make sense of it.
 */
static int store_open_trusted(struct store *store, const char *boot_id, bool *wiped,
                              struct errmsg *err)
{
    struct stat data;
    const bool exists = fstatat(store->dir_fd, STORE_DATA_NAME, &data, 0) == 0;
    bool wipe = exists && !store_trusted(store, &data, boot_id);
    int rc;

    for (;;) {
        if (wipe) {
            rc = store_wipe(store->dir_fd, err);
            if (rc != 0) {
                return rc;
            }
        }
        rc = store_open_data(store);
        if (rc == 0) {
            *wiped = wipe;
            return STORE_OK;
        }
        if (!exists || wipe || store_error_from(rc) != STORE_ECORRUPT) {
            return errmsg_set(err, store_error_from(rc), "open %s/%s: %s", store->dir,
                              STORE_DATA_NAME, mdb_strerror(rc));
        }
        wipe = true;
    }
}

/* Closes without a word about how: the mark stays as it is. */
static void store_free(struct store *store)
{
    if (store->env != NULL) {
        mdb_env_close(store->env);
    }
    if (store->dir_fd >= 0) {
        close(store->dir_fd); /* Ends the lock. */
    }
    free(store->dir);
    free(store);
}

int store_open(const struct store_options *options, struct store **out, bool *wiped,
               struct errmsg *err)
{
    struct store *store = calloc(1, sizeof(*store));
    char mark[STORE_MARK_BYTES_MAX];
    char found[STORE_MARK_BYTES_MAX];
    struct stat data;
    bool was_wiped = false;
    int rc;

    if (store == NULL) {
        return errmsg_set(err, STORE_ENOMEM, "out of memory");
    }
    store->dir_fd = -1;
    store->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    store->limit_bytes = options->bytes_max == 0 ? STORE_BYTES_MAX_DEFAULT : options->bytes_max;

    rc = store_open_dir(store, options->dir, err);
    if (rc != 0) {
        goto fail;
    }
    rc = store_open_trusted(store, options->boot_id, &was_wiped, err);
    if (rc != 0) {
        goto fail;
    }
    if (fstatat(store->dir_fd, STORE_DATA_NAME, &data, 0) != 0) {
        rc = errmsg_set_errno(err, STORE_EIO, "stat %s/%s", store->dir, STORE_DATA_NAME);
        goto fail;
    }
    store_mark_open(options->boot_id, &data, mark); /* Durable before the first commit. */
    store_mark_read(store->dir_fd, found);
    /* What is there already is not written again: a full disk keeps no server from restarting. */
    if (strcmp(found, mark) != 0) {
        rc = store_mark_write(store->dir_fd, mark, err);
        if (rc != 0) {
            goto fail;
        }
    }
    *out = store;
    *wiped = was_wiped;
    return STORE_OK;

fail:
    store_free(store);
    return rc;
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    assert(!atomic_load(&store->write_active));
    if (!store->suspect) {
        if (mdb_env_sync(store->env, 1) != 0) {
            store_suspect(store);
        } else {
            /* If this fails the old mark stays, and the next open wipes after another boot. */
            (void)store_mark_write(store->dir_fd, STORE_MARK_CLEAN, NULL);
        }
    }
    store_free(store);
}

uint64_t store_used_bytes(const struct store *store, MDB_txn *mdb_txn)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < STORE_DBI_COUNT; i++) {
        MDB_stat stat;
        if (mdb_stat(mdb_txn, store->dbis[i], &stat) == 0) {
            pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        }
    }
    return pages * store->page_bytes;
}

static uint64_t store_disk_free_bytes(const struct store *store)
{
    struct statvfs fs;

    return fstatvfs(store->dir_fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
}

void store_usage(struct store *store, struct store_usage *out)
{
    MDB_txn *mdb_txn;
    struct stat data;

    *out = (struct store_usage){.limit_bytes = store->limit_bytes,
                                .disk_free_bytes = store_disk_free_bytes(store)};
    if (fstatat(store->dir_fd, STORE_DATA_NAME, &data, 0) == 0) {
        out->file_bytes = (uint64_t)data.st_blocks * STORE_BLOCK_BYTES;
    }
    if (mdb_txn_begin(store->env, NULL, MDB_RDONLY, &mdb_txn) == 0) {
        out->used_bytes = store_used_bytes(store, mdb_txn);
        mdb_txn_abort(mdb_txn);
    }
}

/* --- transactions --- */

int store_read_begin(struct store *store, struct store_txn *txn)
{
    MDB_txn *mdb_txn;

    *txn = (struct store_txn){.store = store};
    txn->cursors = calloc(1, sizeof(*txn->cursors));
    if (txn->cursors == NULL) {
        return STORE_ENOMEM;
    }
    const int rc = mdb_txn_begin(store->env, NULL, MDB_RDONLY, &mdb_txn);
    if (rc != 0) {
        free(txn->cursors);
        txn->cursors = NULL;
        return store_error_from(rc);
    }
    txn->mdb_txn = mdb_txn;
    return STORE_OK;
}

void store_read_reset(struct store_txn *txn)
{
    assert(!txn->write);
    mdb_txn_reset(txn->mdb_txn);
}

int store_read_renew(struct store_txn *txn)
{
    assert(!txn->write);
    txn->failure = 0;
    return store_error_from(mdb_txn_renew(txn->mdb_txn));
}

void store_read_end(struct store_txn *txn)
{
    assert(!txn->write);
    if (txn->mdb_txn == NULL) {
        return;
    }
    for (size_t i = 0; i < STORE_DBI_COUNT; i++) {
        if (txn->cursors->at[i] != NULL) {
            mdb_cursor_close(txn->cursors->at[i]);
        }
    }
    free(txn->cursors);
    mdb_txn_abort(txn->mdb_txn);
    buffer_deinit(&txn->scratch);
    txn->cursors = NULL;
    txn->mdb_txn = NULL;
}

int store_write_begin(struct store *store, struct store_txn *txn)
{
    MDB_txn *mdb_txn;

    *txn = (struct store_txn){.store = store, .write = true, .note_last_offset = SIZE_MAX};
    const bool others = atomic_exchange(&store->write_active, true);
    assert(!others); /* LMDB would wait for ever, or for as long as a load takes. */
    const int rc = mdb_txn_begin(store->env, NULL, 0, &mdb_txn);
    if (rc != 0) {
        atomic_store(&store->write_active, false);
        return store_error_from(rc);
    }
    txn->mdb_txn = mdb_txn;
    txn->used_bytes = store_used_bytes(store, mdb_txn);
    return STORE_OK;
}

static void store_write_over(struct store_txn *txn)
{
    atomic_store(&txn->store->write_active, false);
    txn->mdb_txn = NULL;
    buffer_deinit(&txn->scratch);
}

int store_write_commit(struct store_txn *txn)
{
    struct store *store = txn->store;

    assert(txn->write);
    assert(txn->mdb_txn != NULL);
    if (txn->failure != 0 || txn->changes.failed) {
        const int code = txn->failure != 0 ? txn->failure : STORE_ENOMEM;
        store_write_abort(txn);
        return code;
    }
    const int rc = mdb_txn_commit(txn->mdb_txn);
    store_write_over(txn);
    if (rc == 0) {
        return STORE_OK;
    }
    store_changes_free(txn);
    int code = store_error_from(rc);
    if (code == STORE_EIO) {
        /* LMDB calls a write that was cut short EIO, whatever cut it. */
        if (rc == EIO && store_disk_free_bytes(store) < STORE_DISK_FULL_BYTES) {
            code = STORE_EFULL;
        } else {
            store_suspect(store);
        }
    }
    return code;
}

void store_write_abort(struct store_txn *txn)
{
    assert(txn->write);
    if (txn->mdb_txn != NULL) {
        mdb_txn_abort(txn->mdb_txn);
        store_write_over(txn);
    }
    store_changes_free(txn);
}

/* --- savepoints --- */

int store_savepoint_begin(struct store_txn *txn, struct store_savepoint *savepoint)
{
    MDB_txn *child;

    assert(txn->write);
    assert(txn->mdb_txn != NULL);
    const int rc = mdb_txn_begin(txn->store->env, txn->mdb_txn, 0, &child);
    if (rc != 0) {
        return store_txn_error(txn, rc);
    }
    *savepoint = (struct store_savepoint){
        .mdb_parent = txn->mdb_txn,
        .used_bytes = txn->used_bytes,
        .topics_noted = txn->topics_noted,
        .changes_bytes = txn->changes.size,
        .note_last_offset = txn->note_last_offset,
    };
    txn->mdb_txn = child;
    return STORE_OK;
}

int store_savepoint_commit(struct store_txn *txn, struct store_savepoint *savepoint)
{
    assert(savepoint->mdb_parent != NULL);
    assert(savepoint->mdb_parent != txn->mdb_txn);
    const int rc = mdb_txn_commit(txn->mdb_txn);
    txn->mdb_txn = savepoint->mdb_parent;
    savepoint->mdb_parent = NULL;
    return store_txn_error(txn, rc);
}

void store_savepoint_rollback(struct store_txn *txn, struct store_savepoint *savepoint)
{
    assert(savepoint->mdb_parent != NULL);
    assert(savepoint->mdb_parent != txn->mdb_txn);
    assert(savepoint->changes_bytes <= txn->changes.size);
    mdb_txn_abort(txn->mdb_txn);
    txn->mdb_txn = savepoint->mdb_parent;
    savepoint->mdb_parent = NULL;
    txn->used_bytes = savepoint->used_bytes;
    txn->topics_noted = savepoint->topics_noted;
    txn->changes.size = savepoint->changes_bytes;
    txn->note_last_offset = savepoint->note_last_offset;
}

/* --- changes --- */

void store_note(struct store_txn *txn, enum store_topic topic, struct slice key)
{
    assert(txn->write);
    assert(topic < STORE_TOPIC_COUNT);
    if (key.size == 0) {
        if ((txn->topics_noted >> topic & 1) != 0) {
            return;
        }
        txn->topics_noted |= UINT64_C(1) << topic;
    } else if (txn->note_last_offset < txn->changes.size) {
        struct reader it = reader_from(buffer_slice(&txn->changes));
        enum store_topic last_topic;
        struct slice last_key;

        it.at += txn->note_last_offset;
        if (store_changes_next(&it, &last_topic, &last_key) && last_topic == topic &&
            slice_equal(last_key, key)) {
            return;
        }
    }
    txn->note_last_offset = txn->changes.size;
    buffer_put_u8(&txn->changes, (uint8_t)topic);
    buffer_put_string(&txn->changes, key);
}

struct reader store_changes_begin(const struct store_txn *txn)
{
    return reader_from(buffer_slice(&txn->changes));
}

bool store_changes_next(struct reader *it, enum store_topic *topic, struct slice *key)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    const uint8_t number = reader_u8(it);
    *key = reader_string(it);
    assert(!it->failed); /* Our own bytes. */
    assert(number < STORE_TOPIC_COUNT);
    *topic = (enum store_topic)number;
    return true;
}

void store_changes_free(struct store_txn *txn)
{
    buffer_deinit(&txn->changes);
    txn->note_last_offset = SIZE_MAX;
}
