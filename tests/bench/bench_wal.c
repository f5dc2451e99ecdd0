/* The log against the disk beneath it: megabytes and records per second for writes of 1, 16 and
 * 256 entries, beside a bare pwrite and fdatasync of the same bytes, taking turns on the same disk
 * in the same run. Each figure is the median of the rounds; a round is short, so that what else the
 * disk has to do meets both.
 *
 *   bench_wal [directory] [entry bytes] [rounds]
 *
 * `one`: the next write only when the one before is durable, as one client at a time sees it, with
 * both changes of thread. `two`: one write waits while the one before is synced, so that each sync
 * has one write, and the writer always work. The bare disk writes the same batches one after the
 * other. `queue`: writes as fast as the log takes them, at most 16 MiB ahead, so that group commit
 * decides the size of the batches; the bare disk writes the same bytes in as many pieces as the log
 * made syncs.
 *
 * The bare disk writes to three files: one that grows (append), one that was preallocated, and one
 * that was filled with zeros. What a sync costs besides the data differs: a growing file's size and
 * blocks, or the marks of preallocated blocks as written, go through the file system's journal. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "raft/wal_internal.h"

enum {
    BENCH_ROUNDS_MAX = 101,
    BENCH_AHEAD_BYTES = 16 * 1024 * 1024,
    BENCH_RAW_BYTES = 64 * 1024 * 1024, /* as a segment of the log */
};

enum bench_raw_kind { BENCH_RAW_APPEND, BENCH_RAW_ALLOCATED, BENCH_RAW_ZEROED, BENCH_RAW_KINDS };

struct bench_raw {
    enum bench_raw_kind kind;
    int fd;
    size_t end;
};

struct bench_mode {
    const char *name;
    size_t ahead; /* writes not yet durable; 0: as many as BENCH_AHEAD_BYTES hold */
};

struct bench {
    const char *dir;
    struct wal *wal;
    raft_index next;
    uint64_t sequence;
    size_t entry_bytes;
    struct raft_entry *entries;
    uint8_t *payload;

    pthread_mutex_t lock;
    pthread_cond_t change;
    uint64_t durable;

    struct bench_raw raw[BENCH_RAW_KINDS];
    atomic_ulong syncs;
    struct wal_files files;
};

static void bench_die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_wal: %s: %s\n", what, why);
    exit(1);
}

static double bench_now_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void bench_on_durable(void *host, uint64_t sequence)
{
    struct bench *bench = host;
    (void)pthread_mutex_lock(&bench->lock);
    bench->durable = sequence;
    (void)pthread_cond_signal(&bench->change);
    (void)pthread_mutex_unlock(&bench->lock);
}

static void bench_on_failed(void *host, const char *message)
{
    (void)host;
    bench_die("the log failed", message);
}

static int bench_fdatasync(void *host, int fd)
{
    struct bench *bench = host;
    atomic_fetch_add(&bench->syncs, 1);
    return wal_files_default.fdatasync(NULL, fd);
}

static void bench_wait(struct bench *bench, uint64_t sequence)
{
    (void)pthread_mutex_lock(&bench->lock);
    while (bench->durable < sequence) {
        (void)pthread_cond_wait(&bench->change, &bench->lock);
    }
    (void)pthread_mutex_unlock(&bench->lock);
}

/* Waits until the writer has reported something since `durable`. */
static void bench_wait_change(struct bench *bench)
{
    (void)pthread_mutex_lock(&bench->lock);
    uint64_t durable = bench->durable;
    while (bench->durable == durable && durable < bench->sequence) {
        (void)pthread_cond_wait(&bench->change, &bench->lock);
    }
    (void)pthread_mutex_unlock(&bench->lock);
}

static void bench_write(struct bench *bench, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bench->entries[i] = (struct raft_entry){.index = bench->next++,
                                                .term = 1,
                                                .type = RAFT_ENTRY_COMMAND,
                                                .data = bench->payload,
                                                .size = bench->entry_bytes};
    }
    struct wal_write write = {
        .sequence = ++bench->sequence, .entries = bench->entries, .entry_count = count};
    int rc = wal_write(bench->wal, &write);
    if (rc != WAL_OK) {
        bench_die("wal_write", wal_strerror(rc));
    }
}

/* Seconds for `writes` writes of `count` entries with at most `ahead` writes not yet durable; 0: as
 * many as BENCH_AHEAD_BYTES hold. */
static double bench_log(struct bench *bench, size_t writes, size_t count, size_t ahead)
{
    double start = bench_now_s();
    for (size_t i = 0; i < writes; i++) {
        bench_write(bench, count);
        if (ahead > 0) {
            bench_wait(bench, bench->sequence > ahead ? bench->sequence - ahead + 1 : 0);
        } else if (wal_pending_bytes(bench->wal) > BENCH_AHEAD_BYTES) {
            bench_wait_change(bench);
        }
    }
    bench_wait(bench, bench->sequence);
    return bench_now_s() - start;
}

/* --- the bare disk --- */

static void bench_raw_zero(int fd, const char *path)
{
    static uint8_t zeros[1024 * 1024];

    for (size_t at = 0; at < BENCH_RAW_BYTES; at += sizeof(zeros)) {
        if (pwrite(fd, zeros, sizeof(zeros), (off_t)at) != (ssize_t)sizeof(zeros)) {
            bench_die(path, strerror(errno));
        }
    }
}

static void bench_raw_open(const struct bench *bench, struct bench_raw *raw)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/raw", bench->dir);
    if (raw->fd >= 0) {
        (void)close(raw->fd);
    }
    raw->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (raw->fd < 0 || unlink(path) != 0) {
        bench_die(path, strerror(errno));
    }
    if (raw->kind == BENCH_RAW_ALLOCATED && posix_fallocate(raw->fd, 0, BENCH_RAW_BYTES) != 0) {
        bench_die(path, "cannot preallocate");
    }
    if (raw->kind == BENCH_RAW_ZEROED) {
        bench_raw_zero(raw->fd, path);
    }
    if (fdatasync(raw->fd) != 0) {
        bench_die(path, strerror(errno));
    }
    raw->end = 0;
}

/* Seconds to write and sync `bytes` bytes in `pieces` pieces, where the file was left. */
static double bench_raw(struct bench *bench, struct bench_raw *raw, size_t bytes, size_t pieces)
{
    size_t piece = bytes / pieces;
    uint8_t *buffer = malloc(piece + 1);

    if (buffer == NULL) {
        bench_die("raw", "out of memory");
    }
    memset(buffer, 0x5a, piece + 1);
    if (raw->fd < 0 || raw->end + bytes > BENCH_RAW_BYTES) {
        bench_raw_open(bench, raw);
    }
    double start = bench_now_s();
    for (size_t i = 0; i < pieces; i++) {
        if (pwrite(raw->fd, buffer, piece, (off_t)raw->end) != (ssize_t)piece ||
            fdatasync(raw->fd) != 0) {
            bench_die("raw", strerror(errno));
        }
        raw->end += piece;
    }
    double seconds = bench_now_s() - start;
    free(buffer);
    return seconds;
}

/* --- figures --- */

static int bench_compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof(*values), bench_compare);
    return values[count / 2];
}

static void bench_trim(struct bench *bench)
{
    char message[WAL_ERROR_BYTES_MAX];

    wal_snapshot_synced(bench->wal, bench->next - 2, 1); /* Nobody wants them back. */
    if (wal_trim(bench->wal, bench->next - 1, message) != WAL_OK) {
        bench_die("wal_trim", message);
    }
}

static void bench_case(struct bench *bench, size_t count, const struct bench_mode *mode,
                       size_t rounds)
{
    double log_s[BENCH_ROUNDS_MAX];
    double raw_s[BENCH_RAW_KINDS][BENCH_ROUNDS_MAX];
    double ratios[BENCH_RAW_KINDS][BENCH_ROUNDS_MAX];
    size_t writes = mode->ahead == 0 ? 12800 / count : count == 256 ? 40 : 100;
    size_t span = (size_t)wal_record_span((uint32_t)bench->entry_bytes);
    size_t bytes = writes * count * span;

    for (size_t i = 0; i < rounds; i++) {
        atomic_store(&bench->syncs, 0);
        log_s[i] = bench_log(bench, writes, count, mode->ahead);
        size_t pieces = mode->ahead == 0 ? (size_t)atomic_load(&bench->syncs) : writes;
        for (size_t kind = 0; kind < BENCH_RAW_KINDS; kind++) {
            raw_s[kind][i] = bench_raw(bench, &bench->raw[kind], bytes, pieces);
            ratios[kind][i] = raw_s[kind][i] / log_s[i];
        }
    }
    double seconds = bench_median(log_s, rounds);
    (void)printf("| %s | %zu | %.1f | %.0f | %.0f |", mode->name, count,
                 (double)bytes / seconds / 1e6, (double)(writes * count) / seconds,
                 seconds / (double)writes * 1e6);
    for (size_t kind = 0; kind < BENCH_RAW_KINDS; kind++) {
        (void)printf(" %.1f | %.2f |", (double)bytes / bench_median(raw_s[kind], rounds) / 1e6,
                     bench_median(ratios[kind], rounds));
    }
    (void)printf("\n");
    (void)fflush(stdout);
    bench_trim(bench);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct raft_state state;
    char message[WAL_ERROR_BYTES_MAX];
    char dir[4096];
    size_t rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 31;

    (void)snprintf(dir, sizeof(dir), "%s/bench_wal.XXXXXX", argc > 1 ? argv[1] : ".");
    if (mkdtemp(dir) == NULL) {
        bench_die(dir, strerror(errno));
    }
    bench.dir = dir;
    bench.entry_bytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 200;
    rounds = rounds == 0 ? 1 : rounds > BENCH_ROUNDS_MAX ? BENCH_ROUNDS_MAX : rounds;
    bench.next = 1;
    bench.entries = calloc(256, sizeof(*bench.entries));
    bench.payload = calloc(1, bench.entry_bytes + 1);
    bench.files = wal_files_default;
    bench.files.host = &bench;
    bench.files.fdatasync = bench_fdatasync;
    (void)pthread_mutex_init(&bench.lock, NULL);
    (void)pthread_cond_init(&bench.change, NULL);
    char wal_dir[4200];
    (void)snprintf(wal_dir, sizeof(wal_dir), "%s/log", dir);
    struct wal_options options = {
        .dir = wal_dir,
        .host = &bench,
        .on_durable = bench_on_durable,
        .on_failed = bench_on_failed,
        .files = &bench.files,
    };
    if (bench.entries == NULL || bench.payload == NULL ||
        wal_open(&options, &bench.wal, &state, message) != WAL_OK) {
        bench_die("open", message);
    }
    for (size_t kind = 0; kind < BENCH_RAW_KINDS; kind++) {
        bench.raw[kind] = (struct bench_raw){.kind = (enum bench_raw_kind)kind, .fd = -1};
    }
    (void)printf("entries of %zu bytes, medians of %zu rounds\n\n", bench.entry_bytes, rounds);
    (void)printf("| mode | entries a write | MB/s | records/s | µs a write | append MB/s | ratio | "
                 "preallocated MB/s | ratio | zeroed MB/s | ratio |\n"
                 "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    const struct bench_mode modes[] = {{"one", 1}, {"two", 2}, {"queue", 0}};
    const size_t counts[] = {1, 16, 256};
    for (size_t mode = 0; mode < 3; mode++) {
        for (size_t i = 0; i < 3; i++) {
            bench_case(&bench, counts[i], &modes[mode], rounds);
        }
    }
    wal_close(bench.wal);
    char command[4300];
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command) != 0) {
        bench_die(dir, "cannot be removed");
    }
    free(bench.entries);
    free(bench.payload);
    return 0;
}
