#include "server/agent/agent_store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/agent/agent.h"
#include "server/log.h"

enum {
    AGENT_STORE_PATH_BYTES_MAX = 4096,
    AGENT_STORE_NAME_BYTES = 33,
    AGENT_STORE_JOBS_MAX = 65536,
    AGENT_STORE_JOBS_BYTES_MAX = 32 * 1024 * 1024,
};

static const char *const folder_names[] = {"services", "checks", "check-states"};

/* One file to write (text) or to remove (NULL). */
struct agent_store_job {
    struct agent_store_job *next;
    enum agent_store_folder folder;
    char name[AGENT_STORE_NAME_BYTES];
    char *text;
    size_t text_bytes;
    int failed_errno;
};

struct agent_store {
    uv_loop_t *loop;
    char *data_dir;
    uv_work_t work;
    bool working;
    bool orphaned;
    struct agent_store_job *first, *last; /* the first one is being worked on if `working` */
    size_t job_count, job_bytes;          /* of all their texts */
};

/* FNV-1a, 64 bits. The file says whose it is; its name only has to differ from others'. */
static uint64_t agent_store_hash(struct slice id, uint64_t basis)
{
    uint64_t hash = basis;

    for (size_t i = 0; i < id.size; i++) {
        hash ^= (unsigned char)id.data[i];
        hash *= 1099511628211ULL;
    }
    return hash;
}

static void agent_store_name(struct slice id, char out[AGENT_STORE_NAME_BYTES])
{
    (void)snprintf(out, AGENT_STORE_NAME_BYTES, "%016" PRIx64 "%016" PRIx64,
                   agent_store_hash(id, 14695981039346656037ULL),
                   agent_store_hash(id, 0x9E3779B97F4A7C15ULL));
}

static bool agent_store_path(const struct agent_store *store, enum agent_store_folder folder,
                             const char *name, char out[AGENT_STORE_PATH_BYTES_MAX])
{
    const int size = snprintf(out, AGENT_STORE_PATH_BYTES_MAX, "%s/%s%s%s", store->data_dir,
                              folder_names[folder], name[0] == '\0' ? "" : "/", name);
    return size > 0 && size < AGENT_STORE_PATH_BYTES_MAX;
}

/* --- on the pool --- */

static int agent_store_sync_folder(const struct agent_store *store, enum agent_store_folder folder)
{
    char path[AGENT_STORE_PATH_BYTES_MAX];
    int rc = 0;

    if (folder == AGENT_STORE_STATES) {
        return 0;
    }
    if (!agent_store_path(store, folder, "", path)) {
        return ENAMETOOLONG;
    }
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    if (fsync(fd) != 0) {
        rc = errno;
    }
    (void)close(fd); /* Nothing was written through it. */
    return rc;
}

static int agent_store_write_file(const char *path, const char *text, bool synced)
{
    const size_t size = strlen(text);
    size_t written = 0;
    int rc = 0;
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0) {
        return errno;
    }
    while (rc == 0 && written < size) {
        const ssize_t count = write(fd, text + written, size - written);
        if (count >= 0) {
            written += (size_t)count;
        } else if (errno != EINTR) {
            rc = errno;
        }
    }
    if (rc == 0 && synced && fsync(fd) != 0) {
        rc = errno;
    }
    if (close(fd) != 0 && rc == 0) {
        rc = errno;
    }
    return rc;
}

static int agent_store_run(const struct agent_store *store, const struct agent_store_job *job)
{
    char path[AGENT_STORE_PATH_BYTES_MAX];
    char temporary[AGENT_STORE_PATH_BYTES_MAX];
    char temporary_name[AGENT_STORE_NAME_BYTES + 4];

    (void)snprintf(temporary_name, sizeof(temporary_name), "%s.tmp", job->name);
    if (!agent_store_path(store, job->folder, job->name, path) ||
        !agent_store_path(store, job->folder, temporary_name, temporary)) {
        return ENAMETOOLONG;
    }
    if (job->text == NULL) {
        if (unlink(path) != 0 && errno != ENOENT) {
            return errno;
        }
        return agent_store_sync_folder(store, job->folder);
    }
    const int rc = agent_store_write_file(temporary, job->text, job->folder != AGENT_STORE_STATES);
    if (rc != 0) {
        (void)unlink(temporary); /* It is skipped at start anyway. */
        return rc;
    }
    if (rename(temporary, path) != 0) {
        return errno;
    }
    return agent_store_sync_folder(store, job->folder);
}

static void agent_store_on_work(uv_work_t *work)
{
    const struct agent_store *store = work->data;

    /* The first job is the pool's until agent_store_on_done: the loop only appends. */
    store->first->failed_errno = agent_store_run(store, store->first);
}

/* --- on the loop --- */

static void agent_store_destroy(struct agent_store *store)
{
    assert(store->first == NULL);
    free(store->data_dir);
    free(store);
}

static void agent_store_pump(struct agent_store *store);

static void agent_store_on_done(uv_work_t *work, int status)
{
    struct agent_store *store = work->data;
    struct agent_store_job *job = store->first;

    (void)status; /* Never cancelled. */
    if (job->failed_errno != 0) {
        log_write(LOG_ERROR, "agent", "failed to keep a registration in %s/%s/%s: %s",
                  store->data_dir, folder_names[job->folder], job->name,
                  strerror(job->failed_errno));
    }
    store->first = job->next;
    if (store->first == NULL) {
        store->last = NULL;
    }
    store->job_count--;
    store->job_bytes -= job->text_bytes;
    free(job->text);
    free(job);
    store->working = false;
    agent_store_pump(store);
}

static void agent_store_pump(struct agent_store *store)
{
    if (store->working) {
        return;
    }
    if (store->first == NULL) {
        if (store->orphaned) {
            agent_store_destroy(store);
        }
        return;
    }
    store->work.data = store;
    store->working = true;
    const int rc =
        uv_queue_work(store->loop, &store->work, agent_store_on_work, agent_store_on_done);
    assert(rc == 0); /* Fails without a callback only. */
    (void)rc;
}

int agent_store_new(uv_loop_t *loop, const char *data_dir, struct agent_store **out,
                    struct errmsg *err)
{
    char path[AGENT_STORE_PATH_BYTES_MAX];
    struct agent_store *store = calloc(1, sizeof(*store));

    if (store == NULL || (store->data_dir = strdup(data_dir)) == NULL) {
        free(store);
        return errmsg_set(err, AGENT_EINTERNAL, "out of memory");
    }
    store->loop = loop;
    for (int folder = AGENT_STORE_SERVICES; folder <= AGENT_STORE_STATES; folder++) {
        if (!agent_store_path(store, (enum agent_store_folder)folder, "", path)) {
            errno = ENAMETOOLONG;
        } else if (mkdir(path, 0700) == 0 || errno == EEXIST) {
            continue;
        }
        const int rc =
            errmsg_set_errno(err, AGENT_EINTERNAL, "create %s/%s", data_dir, folder_names[folder]);
        agent_store_destroy(store);
        return rc;
    }
    *out = store;
    return AGENT_OK;
}

void agent_store_free(struct agent_store *store)
{
    if (store == NULL) {
        return;
    }
    store->orphaned = true;
    agent_store_pump(store);
}

static int agent_store_is_file(const struct dirent *entry)
{
    /* Temporary names are left-overs of a crash. */
    return entry->d_name[0] != '.' && strchr(entry->d_name, '.') == NULL;
}

static json_t *agent_store_read(const char *path, char *problem, size_t problem_bytes)
{
    json_error_t error;
    struct stat status;

    if (stat(path, &status) != 0) {
        (void)snprintf(problem, problem_bytes, "%s", strerror(errno));
        return NULL;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > AGENT_STORE_FILE_BYTES_MAX) {
        (void)snprintf(problem, problem_bytes, "no file of ours: not regular, or too large");
        return NULL;
    }
    json_t *document = json_load_file(path, 0, &error);
    if (document == NULL) {
        (void)snprintf(problem, problem_bytes, "%s", error.text);
    }
    return document;
}

int agent_store_load(struct agent_store *store, enum agent_store_folder folder,
                     void (*visit)(void *host, const json_t *document), void *host,
                     struct errmsg *err)
{
    char folder_path[AGENT_STORE_PATH_BYTES_MAX];
    struct dirent **entries = NULL;

    if (!agent_store_path(store, folder, "", folder_path)) {
        return errmsg_set(err, AGENT_EINTERNAL, "data_dir is too long");
    }
    const int count = scandir(folder_path, &entries, agent_store_is_file, alphasort);

    if (count < 0) {
        return errmsg_set_errno(err, AGENT_EINTERNAL, "cannot read %.300s", folder_path);
    }
    for (int i = 0; i < count; i++) {
        char path[AGENT_STORE_PATH_BYTES_MAX];
        char problem[256] = "name too long, or too many files";
        json_t *document = NULL;

        if (i < AGENT_STORE_FILES_MAX &&
            agent_store_path(store, folder, entries[i]->d_name, path)) {
            document = agent_store_read(path, problem, sizeof(problem));
        }
        if (document == NULL) {
            log_write(LOG_ERROR, "agent", "skipping %s/%s: %s", folder_path, entries[i]->d_name,
                      problem);
        } else {
            visit(host, document);
            json_decref(document);
        }
        free(entries[i]);
    }
    free(entries);
    return AGENT_OK;
}

/* The object's job that has not begun; NULL: none. So a disk that hangs costs one an object. */
static struct agent_store_job *agent_store_waiting(const struct agent_store *store,
                                                   enum agent_store_folder folder,
                                                   const char name[AGENT_STORE_NAME_BYTES])
{
    struct agent_store_job *job = store->first;

    if (job != NULL && store->working) {
        job = job->next;
    }
    while (job != NULL && (job->folder != folder || strcmp(job->name, name) != 0)) {
        job = job->next;
    }
    return job;
}

/* NULL: no memory, or too many wait already. */
static struct agent_store_job *agent_store_append(struct agent_store *store,
                                                  enum agent_store_folder folder,
                                                  const char name[AGENT_STORE_NAME_BYTES])
{
    struct agent_store_job *job =
        store->job_count < AGENT_STORE_JOBS_MAX ? calloc(1, sizeof(*job)) : NULL;

    if (job == NULL) {
        return NULL;
    }
    job->folder = folder;
    memcpy(job->name, name, sizeof(job->name));
    if (store->last == NULL) {
        store->first = job;
    } else {
        store->last->next = job;
    }
    store->last = job;
    store->job_count++;
    return job;
}

/* Takes `text`. */
static void agent_store_queue(struct agent_store *store, enum agent_store_folder folder,
                              struct slice id, char *text)
{
    const size_t text_bytes = text == NULL ? 0 : strlen(text);
    char name[AGENT_STORE_NAME_BYTES];

    agent_store_name(id, name);
    struct agent_store_job *job = agent_store_waiting(store, folder, name);
    const size_t replaced_bytes = job == NULL ? 0 : job->text_bytes;
    const bool fits = text_bytes <= AGENT_STORE_FILE_BYTES_MAX &&
                      (text == NULL || store->job_bytes - replaced_bytes + text_bytes <=
                                           AGENT_STORE_JOBS_BYTES_MAX);

    if (fits && job == NULL) {
        job = agent_store_append(store, folder, name);
    }
    if (!fits || job == NULL) {
        log_write(LOG_ERROR, "agent",
                  "failed to keep a registration in %s/%s/%s: too large, no memory, or too many "
                  "wait for the disk",
                  store->data_dir, folder_names[folder], name);
        free(text);
        return;
    }
    store->job_bytes += text_bytes - replaced_bytes;
    free(job->text);
    job->text = text;
    job->text_bytes = text_bytes;
    agent_store_pump(store);
}

void agent_store_put(struct agent_store *store, enum agent_store_folder folder, struct slice id,
                     const json_t *document)
{
    char *text = json_dumps(document, JSON_COMPACT);

    if (text == NULL) {
        log_write(LOG_ERROR, "agent", "failed to keep a registration: out of memory");
        return;
    }
    agent_store_queue(store, folder, id, text);
}

void agent_store_remove(struct agent_store *store, enum agent_store_folder folder, struct slice id)
{
    agent_store_queue(store, folder, id, NULL);
}
