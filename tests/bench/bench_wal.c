/* The log against the disk beneath it: megabytes and records per second for writes of 1, 16 and
 * 256 entries, beside a bare pwrite and fdatasync of the same bytes, taking turns on the same disk
 * in the same run. Each figure is the median of the rounds.
 *
 *   bench_wal [directory] [entry bytes] [rounds]
 *
 * `sync`: the next write only when the one before is durable, as one client at a time sees it. The
 * bare disk writes the same batches one after the other.
 * `queue`: writes as fast as the log takes them, at most 16 MiB ahead, so that group commit decides
 * the size of the batches. The bare disk writes the same bytes in as many pieces as the log made
 * syncs. */

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
    BENCH_ROUNDS_MAX = 31,
    BENCH_AHEAD_BYTES = 16 * 1024 * 1024,
    BENCH_SEGMENT_BYTES = 64 * 1024 * 1024,
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

/* Seconds for `writes` writes of `count` entries. */
static double bench_log(struct bench *bench, size_t writes, size_t count, bool queue)
{
    double start = bench_now_s();
    for (size_t i = 0; i < writes; i++) {
        bench_write(bench, count);
        if (!queue) {
            bench_wait(bench, bench->sequence);
        } else if (wal_pending_bytes(bench->wal) > BENCH_AHEAD_BYTES) {
            bench_wait_change(bench);
        }
    }
    bench_wait(bench, bench->sequence);
    return bench_now_s() - start;
}

/* Seconds to write and sync `bytes` bytes in `pieces` pieces to a preallocated file. */
static double bench_raw(const struct bench *bench, size_t bytes, size_t pieces)
{
    char path[4096];
    size_t piece = bytes / pieces;
    uint8_t *buffer = malloc(piece + 1);
    (void)snprintf(path, sizeof(path), "%s/raw", bench->dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || buffer == NULL) {
        bench_die(path, strerror(errno));
    }
    memset(buffer, 0x5a, piece + 1);
    if (posix_fallocate(fd, 0,
                        (off_t)(bytes > BENCH_SEGMENT_BYTES ? bytes : BENCH_SEGMENT_BYTES)) != 0 ||
        fdatasync(fd) != 0) {
        bench_die(path, "cannot preallocate");
    }
    double start = bench_now_s();
    for (size_t i = 0; i < pieces; i++) {
        if (pwrite(fd, buffer, piece, (off_t)(i * piece)) != (ssize_t)piece || fdatasync(fd) != 0) {
            bench_die(path, strerror(errno));
        }
    }
    double seconds = bench_now_s() - start;
    (void)close(fd);
    (void)unlink(path);
    free(buffer);
    return seconds;
}

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

static void bench_case(struct bench *bench, size_t count, bool queue, size_t rounds)
{
    double log_s[BENCH_ROUNDS_MAX];
    double raw_s[BENCH_ROUNDS_MAX];
    double ratios[BENCH_ROUNDS_MAX];
    double syncs[BENCH_ROUNDS_MAX];
    size_t writes = queue ? (count == 1    ? 50000
                             : count == 16 ? 10000
                                           : 1000)
                          : (count == 256 ? 100 : 300);
    size_t span = (size_t)wal_record_span((uint32_t)bench->entry_bytes);
    size_t bytes = writes * count * span;

    for (size_t i = 0; i < rounds; i++) {
        atomic_store(&bench->syncs, 0);
        log_s[i] = bench_log(bench, writes, count, queue);
        size_t pieces = queue ? (size_t)atomic_load(&bench->syncs) : writes;
        syncs[i] = (double)pieces;
        raw_s[i] = bench_raw(bench, bytes, pieces);
        ratios[i] = raw_s[i] / log_s[i];
    }
    double seconds = bench_median(log_s, rounds);
    double raw = bench_median(raw_s, rounds);
    (void)printf("%-5s %5zu %8zu %8.0f %9.1f %11.0f %9.1f %8.2f\n", queue ? "queue" : "sync", count,
                 writes, bench_median(syncs, rounds), (double)bytes / seconds / 1e6,
                 (double)(writes * count) / seconds, (double)bytes / raw / 1e6,
                 bench_median(ratios, rounds));
    char message[WAL_ERROR_BYTES_MAX];
    wal_snapshot_synced(bench->wal, bench->next - 2, 1); /* Nobody wants them back. */
    if (wal_trim(bench->wal, bench->next - 1, message) != WAL_OK) {
        bench_die("wal_trim", message);
    }
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct raft_state state;
    char message[WAL_ERROR_BYTES_MAX];
    char dir[4096];
    size_t rounds = argc > 3 ? strtoul(argv[3], NULL, 10) : 7;

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
        .segment_bytes = BENCH_SEGMENT_BYTES,
        .host = &bench,
        .on_durable = bench_on_durable,
        .on_failed = bench_on_failed,
        .files = &bench.files,
    };
    if (bench.entries == NULL || bench.payload == NULL ||
        wal_open(&options, &bench.wal, &state, message) != WAL_OK) {
        bench_die("open", message);
    }
    (void)printf("entries of %zu bytes, medians of %zu rounds, in %s\n", bench.entry_bytes, rounds,
                 dir);
    (void)printf("%-5s %5s %8s %8s %9s %11s %9s %8s\n", "mode", "batch", "writes", "syncs", "MB/s",
                 "records/s", "raw MB/s", "log/raw");
    const size_t counts[] = {1, 16, 256};
    for (int queue = 0; queue < 2; queue++) {
        for (size_t i = 0; i < 3; i++) {
            bench_case(&bench, counts[i], queue == 1, rounds);
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
