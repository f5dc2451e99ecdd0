/* Recovery on a log that it may not change: the same code reads, with system calls that only
 * pretend to write. */

#include "raft/wal_inspect.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "raft/wal_internal.h"

struct wal_inspect {
    const struct wal_inspect_options *options;
    FILE *out;
    uint64_t segments;
    uint64_t entries; /* records of entries, those that were dropped later, too */
};

/* --- system calls that pretend --- */

static int inspect_dir_open(void *host, const char *path)
{
    (void)host;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static ssize_t inspect_pwritev(void *host, int file, const struct iovec *iov, int count,
                               uint64_t offset)
{
    size_t sum = 0;

    (void)host;
    (void)file;
    (void)offset;
    for (int i = 0; i < count; i++) {
        sum += iov[i].iov_len;
    }
    return (ssize_t)sum;
}

static int inspect_sync(void *host, int handle)
{
    (void)host;
    (void)handle;
    return 0;
}

static int inspect_allocate(void *host, int file, uint64_t bytes)
{
    (void)host;
    (void)file;
    (void)bytes;
    return 0;
}

static int inspect_rename(void *host, int dir, const char *from, const char *to)
{
    (void)host;
    (void)dir;
    (void)from;
    (void)to;
    return 0;
}

static int inspect_unlink(void *host, int dir, const char *name)
{
    (void)host;
    (void)dir;
    (void)name;
    return 0;
}

/* The real files, but for all that changes them. */
static struct wal_files inspect_files(void)
{
    struct wal_files files = wal_files_default;

    files.dir_open = inspect_dir_open;
    files.pwritev = inspect_pwritev;
    files.fdatasync = inspect_sync;
    files.allocate = inspect_allocate;
    files.dir_sync = inspect_sync;
    files.rename = inspect_rename;
    files.unlink = inspect_unlink;
    return files;
}

static void inspect_on_durable(void *host, uint64_t sequence)
{
    (void)host;
    (void)sequence; /* Nothing is ever written. */
}

/* --- printing --- */

static void inspect_on_segment(void *host, const char *name, const struct wal_header *header)
{
    struct wal_inspect *inspect = host;

    inspect->segments++;
    (void)fprintf(inspect->out,
                  "segment %s bytes=%" PRIu64 " next=%" PRIu64 " prev-term=%" PRIu64
                  " term=%" PRIu64 " vote=%016" PRIx64 "\n",
                  name, header->bytes, header->next, header->prev_term, header->term, header->vote);
    (void)fflush(inspect->out); /* A large log takes a while: show where it is. */
}

static const char *inspect_entry_type(uint8_t type)
{
    switch ((enum raft_entry_type)type) {
    case RAFT_ENTRY_NOOP:
        return "no-op";
    case RAFT_ENTRY_COMMAND:
        return "command";
    case RAFT_ENTRY_CONFIGURATION:
        return "configuration";
    }
    return "unknown";
}

static void inspect_configuration(struct wal_inspect *inspect, const struct wal_record *record,
                                  const uint8_t *bytes)
{
    struct raft_configuration configuration;

    if (raft_configuration_decode(bytes + WAL_RECORD_BYTES, record->size, &configuration) != 0) {
        (void)fputs("             not readable as a configuration\n", inspect->out);
        return;
    }
    for (size_t i = 0; i < configuration.count; i++) {
        const struct raft_server *server = &configuration.servers[i];
        (void)fprintf(inspect->out, "             server %016" PRIx64 " %s\n", server->id,
                      server->voter ? "voter" : "non-voter");
    }
}

static void inspect_on_record(void *host, uint64_t segment_id, uint64_t offset,
                              const struct wal_record *record, const uint8_t *bytes)
{
    struct wal_inspect *inspect = host;

    (void)segment_id; /* Its line stands above. */
    inspect->entries += record->type == WAL_RECORD_ENTRY ? 1 : 0;
    if (!inspect->options->records) {
        return;
    }
    (void)fprintf(inspect->out, "%12" PRIu64 " batch=%" PRIu32 " ", offset, record->batch);
    switch ((enum wal_record_type)record->type) {
    case WAL_RECORD_ENTRY:
        (void)fprintf(inspect->out, "entry index=%" PRIu64 " term=%" PRIu64 " type=%s size=%u\n",
                      record->index, record->term, inspect_entry_type(record->entry_type),
                      record->size);
        if (record->entry_type == RAFT_ENTRY_CONFIGURATION) {
            inspect_configuration(inspect, record, bytes);
        }
        break;
    case WAL_RECORD_HARD_STATE:
        (void)fprintf(inspect->out, "hard-state term=%" PRIu64 " vote=%016" PRIx64 "\n",
                      record->term, record->index);
        break;
    case WAL_RECORD_TRUNCATE:
        (void)fprintf(inspect->out, "truncate from=%" PRIu64 " prev-term=%" PRIu64 "\n",
                      record->index, record->term);
        break;
    case WAL_RECORD_COMMIT:
        (void)fprintf(inspect->out, "mark last=%" PRIu64 " bytes=%" PRIu64 "\n", record->index,
                      record->term);
        break;
    case WAL_RECORD_RESET:
        (void)fprintf(inspect->out, "reset index=%" PRIu64 " term=%" PRIu64 "\n", record->index,
                      record->term);
        break;
    case WAL_RECORD_SEAL:
        break; /* Ends a segment; recovery does not hand it out. */
    }
}

static void inspect_summary(struct wal_inspect *inspect, const struct wal *wal)
{
    if (wal->cut_bytes > 0) {
        (void)fprintf(inspect->out,
                      "torn tail: %" PRIu64 " bytes of a batch that was never acknowledged; a "
                      "server cuts them off when it starts\n",
                      wal->cut_bytes);
    }
    (void)fprintf(inspect->out,
                  "log is sound: segments=%" PRIu64 " first=%" PRIu64 " last=%" PRIu64
                  " prev-term=%" PRIu64 " last-term=%" PRIu64 " term=%" PRIu64 " vote=%016" PRIx64
                  " entries-written=%" PRIu64 "\n",
                  inspect->segments, wal->first, wal->last, wal->prev_term, wal->writer.last_term,
                  wal->writer.term, wal->writer.vote, inspect->entries);
}

/* --- the whole --- */

/* Whether a server has the log open; the lock is not kept, so that one can start meanwhile. */
static bool inspect_in_use(int dir_fd)
{
    const int fd = openat(dir_fd, "lock", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    const bool in_use = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    (void)close(fd); /* Ends the lock. */
    return in_use;
}

int wal_inspect(const struct wal_inspect_options *options, FILE *out, char *message)
{
    struct wal_inspect inspect = {.options = options, .out = out};
    const struct wal_observer observer = {
        .host = &inspect, .on_segment = inspect_on_segment, .on_record = inspect_on_record};
    const struct wal_files files = inspect_files();
    const struct wal_options wal_options = {
        .dir = options->dir, .on_durable = inspect_on_durable, .files = &files};
    raft_index configurations[2];
    struct wal wal;

    message[0] = '\0';
    int rc = wal_init(&wal, &wal_options);
    if (rc != WAL_OK) {
        return wal_error(message, rc, "out of memory for a lock");
    }
    wal.read_only = true;
    wal.observer = &observer;
    wal.dir_fd = files.dir_open(files.host, options->dir);
    if (wal.dir_fd < 0) {
        rc = wal_error(message, wal.dir_fd == -ENOENT ? WAL_ENOTFOUND : WAL_EIO,
                       "%s: cannot open: %s", options->dir, strerror(-wal.dir_fd));
    } else {
        if (inspect_in_use(wal.dir_fd)) {
            (void)fputs("a server is using this log: what it writes meanwhile may be seen torn\n",
                        out);
        }
        rc = wal_recover(&wal, configurations, message);
    }
    if (rc == WAL_OK) {
        inspect_summary(&inspect, &wal);
    }
    wal_deinit(&wal);
    return rc;
}
