#include "kv/store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* How records lie in LMDB.
 *
 * A short key is a record of its table: one byte STORE_KEY_TAG (so that LMDB's key is never empty),
 * then the key. A long key is cut into pieces of STORE_KEY_INLINE_BYTES. The first piece leads, as
 * a record of the table whose value is a folder's id (u64), to that folder; records in folders are
 * in the table `folders`, keyed by the folder's id (u64, big-endian) and the next piece, and lead
 * on, until less than a whole piece is left: that record has the value. So a full piece is always a
 * way on, anything shorter always a value, and LMDB's order of keys is byte order on every level.
 * A folder lives as long as there is something in it. */

enum {
    STORE_FORMAT = 1,
    STORE_KEY_TAG = 'k',
    STORE_FOLDER_ID_BYTES = 8,
    STORE_LMDB_KEY_BYTES_MAX = STORE_FOLDER_ID_BYTES + STORE_KEY_INLINE_BYTES,
    STORE_LMDB_RECORD_BYTES = 16, /* what LMDB adds to a record: node header, pointer, alignment */
    STORE_DBI_COUNT = STORE_TABLE_COUNT + 1,
    STORE_FOLDERS = STORE_TABLE_COUNT, /* position of the folders' table among the dbis */
    STORE_MARK_BYTES_MAX = 512,
};

static_assert(STORE_LMDB_KEY_BYTES_MAX <= 511, "LMDB takes keys of at most 511 bytes");

#define STORE_BYTES_MAX_DEFAULT ((size_t)16 << 30)
/* The map beyond bytes_max: an eighth of it, and no less than this. */
#define STORE_RESERVE_BYTES_MIN ((size_t)4 << 20)
/* A short write on a file system with less free than this was a full disk, not a broken one. */
#define STORE_DISK_FULL_BYTES ((uint64_t)16 << 20)

static const char STORE_DATA_NAME[] = "data.mdb";
static const char STORE_LOCK_NAME[] = "lock.mdb";
static const char STORE_MARK_NAME[] = "mark";
static const char STORE_MARK_NEW_NAME[] = "mark.new";
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
    [STORE_FOLDERS] = "folders",
};

struct store {
    MDB_env *env;
    MDB_dbi dbis[STORE_DBI_COUNT];
    int dir_fd; /* locked: one process at a time */
    char *dir;
    size_t limit_bytes;
    size_t page_bytes;
    bool suspect;      /* an I/O error was seen: never mark this file clean */
    bool write_active; /* a write transaction is open */
};

/* A read transaction's cursors between scans, so that scanning allocates nothing. */
struct store_cursors {
    MDB_cursor *at[STORE_DBI_COUNT];
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

/* Keeps the first real failure: LMDB itself only says MDB_BAD_TXN afterwards. */
static int store_txn_error(struct store_txn *txn, int rc)
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

static int store_open_env(struct store *store)
{
    int rc;
    size_t reserve_bytes = store->limit_bytes / 8;

    if (reserve_bytes < STORE_RESERVE_BYTES_MIN) {
        reserve_bytes = STORE_RESERVE_BYTES_MIN;
    }
    const size_t map_bytes =
        (store->limit_bytes + reserve_bytes) / store->page_bytes * store->page_bytes;

    rc = mdb_env_create(&store->env);
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

/* Opens the tables, creating what is missing, and looks at the format. */
static int store_open_tables(struct store *store)
{
    static const char format_name[] = "\x6b"
                                      "format";
    MDB_val key = {sizeof(format_name) - 1, (void *)(uintptr_t)format_name};
    MDB_val value;
    MDB_txn *txn;
    char format = STORE_FORMAT;

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
            value = (MDB_val){sizeof(format), &format};
            rc = mdb_put(txn, store->dbis[STORE_META], &key, &value, 0);
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
    rc = store_mark_write(store->dir_fd, mark, err);
    if (rc != 0) {
        goto fail;
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
    assert(!store->write_active);
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

/* Pages that hold data, as `mdb_txn` sees them; LMDB counts them as it goes. */
static uint64_t store_used_bytes(const struct store *store, MDB_txn *mdb_txn)
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

    *out = (struct store_usage){.limit_bytes = store->limit_bytes,
                                .disk_free_bytes = store_disk_free_bytes(store)};
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

    assert(!store->write_active); /* LMDB would wait for ever. */
    *txn = (struct store_txn){.store = store, .write = true, .note_last_offset = SIZE_MAX};
    const int rc = mdb_txn_begin(store->env, NULL, 0, &mdb_txn);
    if (rc != 0) {
        return store_error_from(rc);
    }
    store->write_active = true;
    txn->mdb_txn = mdb_txn;
    txn->used_bytes = store_used_bytes(store, mdb_txn);
    return STORE_OK;
}

static void store_write_over(struct store_txn *txn)
{
    txn->store->write_active = false;
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

/* --- records --- */

/* A level of the key space: a table, or a folder of long keys. */
struct store_level {
    MDB_dbi dbi;
    bool folder;
    uint64_t id;
};

struct store_key {
    char bytes[STORE_LMDB_KEY_BYTES_MAX];
    size_t size;
};

static struct store_level store_level_table(const struct store *store, enum store_table table)
{
    assert(table < STORE_TABLE_COUNT);
    return (struct store_level){.dbi = store->dbis[table]};
}

static struct store_level store_level_folder(const struct store *store, uint64_t id)
{
    return (struct store_level){.dbi = store->dbis[STORE_FOLDERS], .folder = true, .id = id};
}

/* Bytes before the piece in LMDB's key. */
static size_t store_level_head_bytes(const struct store_level *level)
{
    return level->folder ? STORE_FOLDER_ID_BYTES : 1;
}

static MDB_val store_key_compose(struct store_key *key, const struct store_level *level,
                                 struct slice piece)
{
    const size_t head = store_level_head_bytes(level);

    assert(piece.size <= STORE_KEY_INLINE_BYTES);
    if (level->folder) {
        for (size_t i = 0; i < STORE_FOLDER_ID_BYTES; i++) {
            key->bytes[i] = (char)(level->id >> (8 * (STORE_FOLDER_ID_BYTES - 1 - i)));
        }
    } else {
        key->bytes[0] = STORE_KEY_TAG;
    }
    if (piece.size > 0) {
        memcpy(key->bytes + head, piece.data, piece.size);
    }
    key->size = head + piece.size;
    return (MDB_val){key->size, key->bytes};
}

/* Whether LMDB's key belongs to the level; then *piece is what comes after its head. */
static bool store_key_split(const struct store_level *level, const MDB_val *mdb_key,
                            struct slice *piece)
{
    struct store_key head;
    const MDB_val expected = store_key_compose(&head, level, SLICE_EMPTY);

    if (mdb_key->mv_size < expected.mv_size ||
        memcmp(mdb_key->mv_data, expected.mv_data, expected.mv_size) != 0) {
        return false;
    }
    *piece = slice_from((const char *)mdb_key->mv_data + expected.mv_size,
                        mdb_key->mv_size - expected.mv_size);
    return true;
}

/* A little-endian u64 that is the whole of a record. */
static int store_number_decode(struct slice value, uint64_t *number)
{
    struct reader reader = reader_from(value);
    const uint64_t decoded = reader_u64(&reader);

    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *number = decoded;
    return STORE_OK;
}

static void store_number_encode(uint64_t number, char out[sizeof(uint64_t)])
{
    for (size_t i = 0; i < sizeof(number); i++) {
        out[i] = (char)(number >> (8 * i));
    }
}

static int store_level_get(struct store_txn *txn, const struct store_level *level,
                           struct slice piece, struct slice *value)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);
    MDB_val mdb_value;

    assert(txn->mdb_txn != NULL);
    const int rc = mdb_get(txn->mdb_txn, level->dbi, &mdb_key, &mdb_value);
    if (rc != 0) {
        return store_txn_error(txn, rc);
    }
    *value = slice_from(mdb_value.mv_data, mdb_value.mv_size);
    return STORE_OK;
}

static int store_level_put(struct store_txn *txn, const struct store_level *level,
                           struct slice piece, struct slice value)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);
    MDB_val mdb_value = {value.size, (void *)(uintptr_t)value.data};

    return store_txn_error(txn, mdb_put(txn->mdb_txn, level->dbi, &mdb_key, &mdb_value, 0));
}

static int store_level_delete(struct store_txn *txn, const struct store_level *level,
                              struct slice piece)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, level, piece);

    return store_txn_error(txn, mdb_del(txn->mdb_txn, level->dbi, &mdb_key, NULL));
}

/* The folder that a full piece leads to. */
static int store_level_enter(struct store_txn *txn, const struct store_level *level,
                             struct slice piece, struct store_level *folder)
{
    struct slice value;
    uint64_t id;

    assert(piece.size == STORE_KEY_INLINE_BYTES);
    int rc = store_level_get(txn, level, piece, &value);
    if (rc == STORE_OK) {
        rc = store_number_decode(value, &id);
    }
    if (rc == STORE_OK) {
        *folder = store_level_folder(txn->store, id);
    }
    return rc;
}

static struct slice store_piece(struct slice rest)
{
    return slice_from(rest.data, STORE_KEY_INLINE_BYTES);
}

static struct slice store_rest(struct slice rest)
{
    return slice_from(rest.data + STORE_KEY_INLINE_BYTES, rest.size - STORE_KEY_INLINE_BYTES);
}

int store_get(struct store_txn *txn, enum store_table table, struct slice key, struct slice *value)
{
    struct store_level level = store_level_table(txn->store, table);
    struct slice rest = key;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const int rc = store_level_enter(txn, &level, store_piece(rest), &level);
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    return store_level_get(txn, &level, rest, value);
}

/* --- writing long keys --- */

/* A number of the store's own in STORE_META; 0 when missing. */
static int store_meta_number_get(struct store_txn *txn, struct slice name, uint64_t *number)
{
    const struct store_level meta = store_level_table(txn->store, STORE_META);
    struct slice value;
    const int rc = store_level_get(txn, &meta, name, &value);

    if (rc == STORE_ENOTFOUND) {
        *number = 0;
        return STORE_OK;
    }
    return rc != 0 ? rc : store_number_decode(value, number);
}

static int store_meta_number_set(struct store_txn *txn, struct slice name, uint64_t number)
{
    const struct store_level meta = store_level_table(txn->store, STORE_META);
    char value[sizeof(number)];

    store_number_encode(number, value);
    return store_level_put(txn, &meta, name, slice_from(value, sizeof(value)));
}

/* Long keys of a table, less the records of the table itself that lead to folders: what LMDB's own
 * count lacks. Wraps around, as the sum does back. */
static struct slice store_surplus_name(enum store_table table, char out[2])
{
    out[0] = '#';
    out[1] = (char)('A' + (int)table);
    return slice_from(out, 2);
}

static int store_surplus_add(struct store_txn *txn, enum store_table table, int64_t change)
{
    char text[2];
    const struct slice name = store_surplus_name(table, text);
    uint64_t surplus;

    if (change == 0) {
        return STORE_OK;
    }
    const int rc = store_meta_number_get(txn, name, &surplus);
    return rc != 0 ? rc : store_meta_number_set(txn, name, surplus + (uint64_t)change);
}

/* Makes a new folder and lets the piece lead to it. */
static int store_folder_make(struct store_txn *txn, const struct store_level *level,
                             struct slice piece, struct store_level *folder)
{
    const struct slice name = SLICE_LITERAL("folder-id-last");
    char value[sizeof(uint64_t)];
    uint64_t id;

    int rc = store_meta_number_get(txn, name, &id);
    if (rc != 0) {
        return rc;
    }
    id++;
    rc = store_meta_number_set(txn, name, id);
    if (rc != 0) {
        return rc;
    }
    store_number_encode(id, value);
    rc = store_level_put(txn, level, piece, slice_from(value, sizeof(value)));
    if (rc == 0) {
        *folder = store_level_folder(txn->store, id);
    }
    return rc;
}

static int store_put_long(struct store_txn *txn, enum store_table table, struct slice key,
                          struct slice value)
{
    struct store_level level = store_level_table(txn->store, table);
    struct slice rest = key;
    struct slice previous;
    int64_t surplus = 0;
    int rc;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        struct store_level folder;
        rc = store_level_enter(txn, &level, store_piece(rest), &folder);
        if (rc == STORE_ENOTFOUND) {
            rc = store_folder_make(txn, &level, store_piece(rest), &folder);
            surplus -= level.folder ? 0 : 1;
        }
        if (rc != 0) {
            return rc;
        }
        level = folder;
        rest = store_rest(rest);
    }
    rc = store_level_get(txn, &level, rest, &previous);
    if (rc == STORE_ENOTFOUND) {
        surplus++;
    } else if (rc != 0) {
        return rc;
    }
    rc = store_level_put(txn, &level, rest, value);
    return rc != 0 ? rc : store_surplus_add(txn, table, surplus);
}

static int store_folder_is_empty(struct store_txn *txn, const struct store_level *folder,
                                 bool *empty)
{
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, folder, SLICE_EMPTY);
    MDB_val mdb_value;
    MDB_cursor *cursor;
    struct slice piece;

    int rc = mdb_cursor_open(txn->mdb_txn, folder->dbi, &cursor);
    if (rc != 0) {
        return store_txn_error(txn, rc);
    }
    rc = mdb_cursor_get(cursor, &mdb_key, &mdb_value, MDB_SET_RANGE);
    if (rc == 0) {
        *empty = !store_key_split(folder, &mdb_key, &piece);
    } else if (rc == MDB_NOTFOUND) {
        *empty = true;
        rc = 0;
    }
    mdb_cursor_close(cursor);
    return store_txn_error(txn, rc);
}

/* Removes the last `levels` that nothing is left in, innermost first. `path` has the level above
 * each folder. */
static int store_folders_prune(struct store_txn *txn, const struct store_level *path, size_t depth,
                               struct slice key, int64_t *surplus)
{
    while (depth > 0) {
        bool empty;
        int rc = store_folder_is_empty(txn, &path[depth], &empty);
        if (rc != 0 || !empty) {
            return rc;
        }
        depth--;
        rc = store_level_delete(
            txn, &path[depth],
            slice_from(key.data + depth * STORE_KEY_INLINE_BYTES, STORE_KEY_INLINE_BYTES));
        if (rc != 0) {
            return rc == STORE_ENOTFOUND ? STORE_ECORRUPT : rc;
        }
        if (depth == 0) {
            (*surplus)++;
        }
    }
    return STORE_OK;
}

static int store_delete_long(struct store_txn *txn, enum store_table table, struct slice key)
{
    const size_t depth = key.size / STORE_KEY_INLINE_BYTES;
    struct store_level *path = calloc(depth + 1, sizeof(*path));
    struct slice rest = key;
    int64_t surplus = -1;
    int rc = STORE_OK;

    if (path == NULL) {
        return STORE_ENOMEM;
    }
    path[0] = store_level_table(txn->store, table);
    for (size_t i = 0; rc == 0 && i < depth; i++) {
        rc = store_level_enter(txn, &path[i], store_piece(rest), &path[i + 1]);
        rest = store_rest(rest);
    }
    if (rc == 0) {
        rc = store_level_delete(txn, &path[depth], rest);
    }
    if (rc == 0) {
        rc = store_folders_prune(txn, path, depth, key, &surplus);
    }
    free(path);
    return rc != 0 ? rc : store_surplus_add(txn, table, surplus);
}

/* --- writing --- */

/* What must go through even when the store is full: without it nothing could be deleted. */
static bool store_table_is_bookkeeping(enum store_table table)
{
    return table == STORE_META || table == STORE_INDEX || table == STORE_TOMBSTONE ||
           table == STORE_LOCK_DELAY;
}

/* An upper estimate of the space that a new record takes. */
static uint64_t store_record_bytes(const struct store *store, struct slice key, struct slice value)
{
    uint64_t bytes = (uint64_t)key.size + value.size + STORE_LMDB_RECORD_BYTES;

    if (bytes > store->page_bytes / 4) {
        bytes += store->page_bytes; /* pages of its own */
    }
    return bytes;
}

/* Whether the put may be done. Past the limit only bookkeeping may grow. */
static int store_put_fits(struct store_txn *txn, enum store_table table, struct slice key,
                          struct slice value)
{
    const struct store *store = txn->store;
    const uint64_t record_bytes = store_record_bytes(store, key, value);
    struct slice previous;

    if (txn->used_bytes + record_bytes > store->limit_bytes) {
        /* The estimate counts replaced records twice: now that it matters, look. */
        txn->used_bytes = store_used_bytes(store, txn->mdb_txn);
    }
    if (txn->used_bytes + record_bytes > store->limit_bytes && !store_table_is_bookkeeping(table)) {
        const int rc = store_get(txn, table, key, &previous);
        if (rc != 0 || previous.size < value.size) {
            return rc == 0 || rc == STORE_ENOTFOUND ? STORE_EFULL : rc;
        }
    }
    txn->used_bytes += record_bytes;
    return STORE_OK;
}

int store_put(struct store_txn *txn, enum store_table table, struct slice key, struct slice value)
{
    assert(txn->write);
    assert(txn->mdb_txn != NULL);

    const int rc = store_put_fits(txn, table, key, value);
    if (rc != 0) {
        if (txn->failure == 0) {
            txn->failure = rc;
        }
        return rc;
    }
    if (key.size >= STORE_KEY_INLINE_BYTES) {
        return store_put_long(txn, table, key, value);
    }
    const struct store_level level = store_level_table(txn->store, table);
    return store_level_put(txn, &level, key, value);
}

int store_delete(struct store_txn *txn, enum store_table table, struct slice key)
{
    assert(txn->write);
    assert(txn->mdb_txn != NULL);
    if (key.size >= STORE_KEY_INLINE_BYTES) {
        return store_delete_long(txn, table, key);
    }
    const struct store_level level = store_level_table(txn->store, table);
    return store_level_delete(txn, &level, key);
}

int store_table_count(struct store_txn *txn, enum store_table table, uint64_t *count)
{
    const struct store_level level = store_level_table(txn->store, table);
    char text[2];
    MDB_stat stat;
    uint64_t surplus;

    int rc = store_txn_error(txn, mdb_stat(txn->mdb_txn, level.dbi, &stat));
    if (rc == 0) {
        rc = store_meta_number_get(txn, store_surplus_name(table, text), &surplus);
    }
    if (rc == 0) {
        *count = stat.ms_entries + surplus;
    }
    return rc;
}

/* --- scans --- */

enum {
    STORE_SCAN_FRESH,     /* the cursor is at a record that was not visited yet */
    STORE_SCAN_VISITED,   /* the cursor is at the last one that was */
    STORE_SCAN_EXHAUSTED, /* nothing is left in this level */
    STORE_SCAN_OVER,
};

static int store_cursor_open(struct store_txn *txn, size_t dbi_index, void **out)
{
    MDB_cursor *cursor = NULL;
    int rc;

    if (txn->cursors != NULL && txn->cursors->at[dbi_index] != NULL) {
        cursor = txn->cursors->at[dbi_index];
        txn->cursors->at[dbi_index] = NULL;
        rc = mdb_cursor_renew(txn->mdb_txn, cursor);
        if (rc != 0) {
            mdb_cursor_close(cursor);
        }
    } else {
        rc = mdb_cursor_open(txn->mdb_txn, txn->store->dbis[dbi_index], &cursor);
    }
    if (rc == 0) {
        *out = cursor;
    }
    return store_txn_error(txn, rc);
}

static void store_cursor_close(struct store_txn *txn, size_t dbi_index, void *cursor)
{
    if (cursor == NULL) {
        return;
    }
    if (txn->cursors != NULL && txn->cursors->at[dbi_index] == NULL) {
        txn->cursors->at[dbi_index] = cursor;
    } else {
        mdb_cursor_close(cursor);
    }
}

static size_t store_scan_depth(const struct store_scan *scan)
{
    return scan->folders.size / sizeof(uint64_t);
}

/* The level that the scan is in, or an outer one of those that it came through. */
static struct store_level store_scan_level(const struct store_scan *scan, size_t depth)
{
    uint64_t id;

    assert(depth <= store_scan_depth(scan));
    if (depth == 0) {
        return store_level_table(scan->txn->store, scan->table);
    }
    memcpy(&id, scan->folders.data + (depth - 1) * sizeof(id), sizeof(id));
    return store_level_folder(scan->txn->store, id);
}

static int store_scan_enter(struct store_scan *scan, struct slice piece, uint64_t id)
{
    assert(scan->key.size == store_scan_depth(scan) * STORE_KEY_INLINE_BYTES);
    assert(piece.size == STORE_KEY_INLINE_BYTES);
    buffer_append_slice(&scan->key, piece);
    buffer_append(&scan->folders, &id, sizeof(id));
    if (scan->key.failed || scan->folders.failed) {
        return STORE_ENOMEM;
    }
    return scan->cursor_long != NULL
               ? STORE_OK
               : store_cursor_open(scan->txn, STORE_FOLDERS, &scan->cursor_long);
}

/* Moves the innermost level's cursor to the first record at or after `piece`. */
static int store_scan_seek(struct store_scan *scan, struct slice piece, MDB_val *mdb_key,
                           MDB_val *mdb_value)
{
    const size_t depth = store_scan_depth(scan);
    const struct store_level level = store_scan_level(scan, depth);
    struct store_key key;
    struct slice found;

    *mdb_key = store_key_compose(&key, &level, piece);
    const int rc = mdb_cursor_get(depth == 0 ? scan->cursor : scan->cursor_long, mdb_key, mdb_value,
                                  MDB_SET_RANGE);
    if (rc == MDB_NOTFOUND || (rc == 0 && !store_key_split(&level, mdb_key, &found))) {
        scan->position = STORE_SCAN_EXHAUSTED;
        return STORE_OK;
    }
    scan->position = STORE_SCAN_FRESH;
    return store_txn_error(scan->txn, rc);
}

/* Goes into the folders that the prefix itself leads through; the scan never leaves them. */
static int store_scan_enter_prefix(struct store_scan *scan)
{
    struct slice rest = scan->prefix;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const struct store_level level = store_scan_level(scan, store_scan_depth(scan));
        struct store_level folder;
        int rc = store_level_enter(scan->txn, &level, store_piece(rest), &folder);
        if (rc == STORE_ENOTFOUND) {
            scan->position = STORE_SCAN_OVER;
            return STORE_OK;
        }
        if (rc == 0) {
            rc = store_scan_enter(scan, store_piece(rest), folder.id);
        }
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    scan->floor = store_scan_depth(scan);
    return STORE_OK;
}

/* Moves to the first key at or after the one whose rest, from the present level on, this is. */
static int store_scan_seek_rest(struct store_scan *scan, struct slice rest)
{
    MDB_val mdb_key;
    MDB_val mdb_value;
    int rc;

    while (rest.size >= STORE_KEY_INLINE_BYTES) {
        const struct store_level level = store_scan_level(scan, store_scan_depth(scan));
        const struct slice wanted = store_piece(rest);
        struct slice piece;
        uint64_t id;

        rc = store_scan_seek(scan, wanted, &mdb_key, &mdb_value);
        if (rc != 0 || scan->position == STORE_SCAN_EXHAUSTED ||
            !store_key_split(&level, &mdb_key, &piece) || !slice_equal(piece, wanted)) {
            return rc; /* Whatever it is at comes after the key as a whole. */
        }
        rc = store_number_decode(slice_from(mdb_value.mv_data, mdb_value.mv_size), &id);
        if (rc == 0) {
            rc = store_scan_enter(scan, wanted, id);
        }
        if (rc != 0) {
            return rc;
        }
        rest = store_rest(rest);
    }
    return store_scan_seek(scan, rest, &mdb_key, &mdb_value);
}

int store_scan_from(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                    struct slice prefix, struct slice from)
{
    assert(txn->mdb_txn != NULL);
    assert(slice_starts_with(from, prefix));
    *scan = (struct store_scan){
        .txn = txn, .table = table, .prefix = prefix, .position = STORE_SCAN_FRESH};

    int rc = store_cursor_open(txn, table, &scan->cursor);
    if (rc == 0) {
        rc = store_scan_enter_prefix(scan);
    }
    if (rc == 0 && scan->position != STORE_SCAN_OVER) {
        const size_t entered_bytes = scan->floor * STORE_KEY_INLINE_BYTES;
        rc = store_scan_seek_rest(scan,
                                  slice_from(from.data + entered_bytes, from.size - entered_bytes));
    }
    if (rc != 0) {
        store_scan_end(scan);
    }
    return rc;
}

int store_scan_begin(struct store_scan *scan, struct store_txn *txn, enum store_table table,
                     struct slice prefix)
{
    return store_scan_from(scan, txn, table, prefix, prefix);
}

/* Leaves the innermost folder, for the record after the one that led to it. */
static int store_scan_leave(struct store_scan *scan)
{
    const size_t depth = store_scan_depth(scan);

    if (depth == scan->floor) {
        scan->position = STORE_SCAN_OVER;
        return STORE_ENOTFOUND;
    }
    scan->folders.size -= sizeof(uint64_t);
    scan->position = STORE_SCAN_VISITED;
    scan->key.size = (depth - 1) * STORE_KEY_INLINE_BYTES;
    if (depth == 1) {
        return STORE_OK; /* The table's own cursor never moved. */
    }

    /* The bytes cut off above are still there: the piece that leads to the folder. */
    const struct slice piece = slice_from(scan->key.data + scan->key.size, STORE_KEY_INLINE_BYTES);
    const struct store_level level = store_scan_level(scan, depth - 1);
    struct store_key key;
    MDB_val mdb_key = store_key_compose(&key, &level, piece);
    MDB_val mdb_value;
    const int rc = mdb_cursor_get(scan->cursor_long, &mdb_key, &mdb_value, MDB_SET);

    return rc == MDB_NOTFOUND ? STORE_ECORRUPT : store_txn_error(scan->txn, rc);
}

/* Whether the piece is still below the prefix. Only in the floor's level can it be past it. */
static bool store_scan_within(const struct store_scan *scan, size_t depth, struct slice piece)
{
    const size_t entered_bytes = scan->floor * STORE_KEY_INLINE_BYTES;

    if (depth > scan->floor) {
        return true;
    }
    return slice_starts_with(
        piece, slice_from(scan->prefix.data + entered_bytes, scan->prefix.size - entered_bytes));
}

/* The next record of the innermost level, a leading one too. STORE_ENOTFOUND: no more in it. */
static int store_scan_step(struct store_scan *scan, size_t depth, struct slice *piece,
                           struct slice *value)
{
    const struct store_level level = store_scan_level(scan, depth);
    MDB_val mdb_key;
    MDB_val mdb_value;

    if (scan->position == STORE_SCAN_EXHAUSTED) {
        return STORE_ENOTFOUND;
    }
    const int rc =
        mdb_cursor_get(depth == 0 ? scan->cursor : scan->cursor_long, &mdb_key, &mdb_value,
                       scan->position == STORE_SCAN_FRESH ? MDB_GET_CURRENT : MDB_NEXT);
    if (rc != 0) {
        return store_txn_error(scan->txn, rc);
    }
    if (!store_key_split(&level, &mdb_key, piece) || !store_scan_within(scan, depth, *piece)) {
        return STORE_ENOTFOUND;
    }
    scan->position = STORE_SCAN_VISITED;
    *value = slice_from(mdb_value.mv_data, mdb_value.mv_size);
    return piece->size <= STORE_KEY_INLINE_BYTES ? STORE_OK : STORE_ECORRUPT;
}

int store_scan_next(struct store_scan *scan, struct slice *key, struct slice *value)
{
    if (scan->position == STORE_SCAN_OVER) {
        return STORE_ENOTFOUND;
    }
    for (;;) {
        const size_t depth = store_scan_depth(scan);
        struct slice piece = SLICE_EMPTY;
        struct slice found;
        MDB_val mdb_key;
        MDB_val mdb_value;
        uint64_t id;

        scan->key.size = depth * STORE_KEY_INLINE_BYTES; /* Without the last one's rest. */
        int rc = store_scan_step(scan, depth, &piece, &found);
        if (rc == STORE_ENOTFOUND) {
            rc = store_scan_leave(scan);
        } else if (rc == 0 && piece.size == STORE_KEY_INLINE_BYTES) {
            rc = store_number_decode(found, &id);
            if (rc == 0) {
                rc = store_scan_enter(scan, piece, id);
            }
            if (rc == 0) {
                rc = store_scan_seek(scan, SLICE_EMPTY, &mdb_key, &mdb_value);
            }
        } else if (rc == 0) {
            if (depth > 0) {
                buffer_append_slice(&scan->key, piece);
                piece = buffer_slice(&scan->key);
            }
            if (scan->key.failed) {
                return STORE_ENOMEM;
            }
            *key = piece;
            *value = found;
            return STORE_OK;
        }
        if (rc != 0) {
            return rc;
        }
    }
}

void store_scan_end(struct store_scan *scan)
{
    if (scan->txn == NULL) {
        return;
    }
    store_cursor_close(scan->txn, scan->table, scan->cursor);
    store_cursor_close(scan->txn, STORE_FOLDERS, scan->cursor_long);
    buffer_deinit(&scan->key);
    buffer_deinit(&scan->folders);
    *scan = (struct store_scan){.position = STORE_SCAN_OVER};
}

/* --- what is kept beside the tables --- */

int store_applied_get(struct store_txn *txn, uint64_t *term, uint64_t *index)
{
    struct slice value;

    const int rc = store_get(txn, STORE_META, SLICE_LITERAL("applied"), &value);
    if (rc == STORE_ENOTFOUND) {
        *term = 0;
        *index = 0;
        return STORE_OK;
    }
    if (rc != 0) {
        return rc;
    }
    struct reader reader = reader_from(value);
    const uint64_t found_term = reader_u64(&reader);
    const uint64_t found_index = reader_u64(&reader);
    if (!reader_done(&reader)) {
        return STORE_ECORRUPT;
    }
    *term = found_term;
    *index = found_index;
    return STORE_OK;
}

int store_applied_set(struct store_txn *txn, uint64_t term, uint64_t index)
{
    char value[2 * sizeof(uint64_t)];

    store_number_encode(term, value);
    store_number_encode(index, value + sizeof(uint64_t));
    return store_put(txn, STORE_META, SLICE_LITERAL("applied"), slice_from(value, sizeof(value)));
}

int store_index_get(struct store_txn *txn, struct slice name, uint64_t *index)
{
    struct slice value;
    const int rc = store_get(txn, STORE_INDEX, name, &value);

    if (rc == STORE_ENOTFOUND) {
        *index = 0;
        return STORE_OK;
    }
    return rc != 0 ? rc : store_number_decode(value, index);
}

int store_index_set(struct store_txn *txn, struct slice name, uint64_t index)
{
    char value[sizeof(index)];

    store_number_encode(index, value);
    return store_put(txn, STORE_INDEX, name, slice_from(value, sizeof(value)));
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

/* --- checksum --- */

static uint64_t store_checksum_word(uint64_t sum, uint64_t word)
{
    /* An odd multiplier spreads each word upwards, the shift brings it down again. */
    sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return sum ^ sum >> 29;
}

static uint64_t store_checksum_slice(uint64_t sum, struct slice bytes)
{
    struct reader reader = reader_from(bytes);

    sum = store_checksum_word(sum, bytes.size);
    while (reader.end - reader.at >= (ptrdiff_t)sizeof(uint64_t)) {
        sum = store_checksum_word(sum, reader_u64(&reader));
    }
    uint64_t tail = 0;
    while (reader.at < reader.end) {
        tail = tail << 8 | reader_u8(&reader);
    }
    return store_checksum_word(sum, tail);
}

int store_checksum(struct store_txn *txn, uint64_t *checksum)
{
    uint64_t sum = 0;

    for (int table = STORE_META + 1; table < STORE_TABLE_COUNT; table++) {
        struct store_scan scan;
        struct slice key;
        struct slice value;

        int rc = store_scan_begin(&scan, txn, (enum store_table)table, SLICE_EMPTY);
        if (rc != 0) {
            return rc;
        }
        sum = store_checksum_word(sum, (uint64_t)table);
        while ((rc = store_scan_next(&scan, &key, &value)) == 0) {
            sum = store_checksum_slice(sum, key);
            sum = store_checksum_slice(sum, value);
        }
        store_scan_end(&scan);
        if (rc != STORE_ENOTFOUND) {
            return rc;
        }
    }
    *checksum = sum;
    return STORE_OK;
}
