#include "server/server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server/monitor.h"
#include "server/server_dns.h"
#include "server/server_metrics.h"

enum {
    SERVER_DRAIN_MS_MAX = 5000,         /* how long an orderly stop waits for requests in flight */
    SERVER_STOP_MS_MAX = 10 * 1000,     /* then for the parts to stop: a disk may hang */
    SERVER_CLOSE_MS_MAX = 5000,         /* and then for what they closed to call back */
    SERVER_WATCHDOG_MS = 250,           /* how often the loop's stalls are measured */
    SERVER_STALL_MS_WARN = 500,         /* a stall that is worth a line in the log */
    SERVER_MAPPED_BYTES_MIN = 1 << 20,  /* what is as large is mapped, and unmapped when freed */
    SERVER_TRIMMED_BYTES_MIN = 1 << 19, /* free at the heap's end: is given back */
    SERVER_ARENAS_MAX = 2,              /* the loop's, and one for all other threads */
    SERVER_OPEN_FILES_WARN = 4096       /* fewer are too few for the connections that are allowed */
};

/* The server and what only its life cycle needs. */
struct server_process {
    struct server server;
    uv_loop_t loop;
    uv_signal_t on_term, on_int, on_hup;
    uv_timer_t watchdog;
    uv_timer_t close_guard;
    uint64_t watchdog_due_ms; /* by uv_hrtime, not the loop's cached clock */
    uint64_t stall_ms_max;    /* longest stall so far */
    int lock_fd;              /* data_dir/.lock, held while we run; -1 in -dev */
    int exit_status;
    bool handles_open;
    bool pid_file_written; /* else the one that is there is another process's */
    bool leave_requested;  /* it stops because /v1/agent/leave asked for it, not a signal */
    pthread_t guard;       /* while the parts stop */
    int guard_fd;          /* which it reads from */
};

/* --- small services for everybody --- */

void server_random(void *out, size_t size)
{
    char *at = out;

    while (size > 0) {
        const ssize_t count = getrandom(at, size, 0);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        assert(count > 0); /* The kernel's generator cannot fail once it is there. */
        at += count;
        size -= (size_t)count;
    }
}

struct uuid server_random_uuid(void)
{
    struct uuid uuid;

    server_random(uuid.bytes, sizeof(uuid.bytes));
    return uuid;
}

uint64_t server_now_ms(const struct server *server)
{
    return uv_now(server->loop);
}

/* --- before the loop --- */

/* glibc raises both bounds to the largest block that was ever freed, and gives each thread a heap
 * of its own: after one long listing or snapshot in each of them, tens of MiB would stay. */
static void server_tame_allocator(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_MMAP_THRESHOLD, SERVER_MAPPED_BYTES_MIN); /* Else it is as it was. */
    (void)mallopt(M_TRIM_THRESHOLD, SERVER_TRIMMED_BYTES_MIN);
    (void)mallopt(M_ARENA_MAX, SERVER_ARENAS_MAX);
#endif
}

/* What a parent had ignored or blocked is inherited: without SIGCHLD nobody learns how a script
 * check ended, and a blocked SIGTERM would stop nothing. */
static void server_reset_signals(void)
{
    sigset_t none;

    (void)sigemptyset(&none); /* None of these can fail, with what they are given. */
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGCHLD, SIG_DFL);
    (void)signal(SIGPIPE, SIG_IGN); /* a write to a closed connection is an error code, no death */
}

/* As many open files as the system grants: each connection and long poll is one. */
static void server_raise_open_files(struct server *server)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        log_write(LOG_WARN, "agent", "cannot read the limit of open files: %s", strerror(errno));
        return;
    }
    const unsigned long long before = (unsigned long long)limit.rlim_cur;

    server->open_files_before = (uint64_t)limit.rlim_cur;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            log_write(LOG_WARN, "agent", "cannot raise the limit of open files to %llu: %s",
                      (unsigned long long)limit.rlim_max, strerror(errno));
        } else {
            log_write(LOG_INFO, "agent", "raised the limit of open files from %llu to %llu", before,
                      (unsigned long long)limit.rlim_max);
        }
    }
    if (limit.rlim_max < SERVER_OPEN_FILES_WARN) {
        log_write(LOG_WARN, "agent",
                  "only %llu open files are allowed; raise the limit (LimitNOFILE=, ulimit -n)",
                  (unsigned long long)limit.rlim_max);
    }
}

/* Creates a folder and its missing parents. */
static int server_make_folder(const char *path, struct errmsg *err)
{
    char part[4096];

    if (strlen(path) >= sizeof(part)) {
        return errmsg_set(err, -1, "data_dir is too long");
    }
    (void)snprintf(part, sizeof(part), "%s", path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            return errmsg_set_errno(err, -1, "cannot create folder %.300s", part);
        }
        *slash = '/';
    }
    if (mkdir(part, 0700) != 0 && errno != EEXIST) {
        return errmsg_set_errno(err, -1, "cannot create data_dir %.300s", part);
    }
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return errmsg_set(err, -1, "data_dir %.300s is not a folder", path);
    }
    return 0;
}

/* Two servers on one folder would destroy each other's log. The lock goes with the process. */
static int server_lock_folder(struct server_process *process, const char *path, struct errmsg *err)
{
    char file[4096];

    (void)snprintf(file, sizeof(file), "%s/.lock", path);
    process->lock_fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (process->lock_fd < 0) {
        return errmsg_set_errno(err, -1, "cannot open %.300s", file);
    }
    if (flock(process->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK
                   ? errmsg_set(err, -1, "data_dir %.300s is in use by another process", path)
                   : errmsg_set_errno(err, -1, "cannot lock %.300s", file);
    }
    return 0;
}

/* Writes data_dir/node-id so that it is whole or not there. */
static int server_write_node_id(const char *dir, const char *text, struct errmsg *err)
{
    char file[4096], temporary[4096];
    int rc = 0;

    (void)snprintf(file, sizeof(file), "%s/node-id", dir);
    (void)snprintf(temporary, sizeof(temporary), "%s/node-id.tmp", dir);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errmsg_set_errno(err, -1, "cannot create %.300s", temporary);
    }
    if (write(fd, text, UUID_TEXT_BYTES) != UUID_TEXT_BYTES || fsync(fd) != 0) {
        rc = errmsg_set_errno(err, -1, "cannot write %.300s", temporary);
    }
    if (close(fd) != 0 && rc == 0) {
        rc = errmsg_set_errno(err, -1, "cannot write %.300s", temporary);
    }
    if (rc == 0 && rename(temporary, file) != 0) {
        rc = errmsg_set_errno(err, -1, "cannot rename %.300s to node-id", temporary);
    }
    const int dir_fd = rc == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (rc == 0 && (dir_fd < 0 || fsync(dir_fd) != 0)) {
        rc = errmsg_set_errno(err, -1, "cannot sync %.300s", dir);
    }
    if (dir_fd >= 0) {
        (void)close(dir_fd); /* nothing was written through it */
    }
    return rc;
}

/* The id kept in data_dir. 0 with the id zero when there is none yet. */
static int server_read_node_id(const char *dir, struct uuid *id, struct errmsg *err)
{
    char file[4096];
    char text[64];

    (void)snprintf(file, sizeof(file), "%s/node-id", dir);
    memset(id, 0, sizeof(*id));
    const int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : errmsg_set_errno(err, -1, "cannot open %.300s", file);
    }
    const ssize_t count = read(fd, text, sizeof(text));
    (void)close(fd); /* only read from */
    size_t size = count > 0 ? (size_t)count : 0;
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == ' ')) {
        size--; /* Consul's file, or one edited by hand, may end so. */
    }
    if (!uuid_parse(slice_from(text, size), id)) {
        return errmsg_set(err, -1, "%.300s does not hold a node id; restore or remove the file",
                          file);
    }
    return 0;
}

/* From the configuration, else from data_dir, else drawn and kept there. */
static int server_choose_node_id(struct server *server, struct errmsg *err)
{
    const struct config *config = server->config;
    struct uuid kept = {{0}};
    int rc = 0;

    if (config->data_dir != NULL) {
        rc = server_read_node_id(config->data_dir, &kept, err);
    }
    if (rc != 0) {
        return rc;
    }
    if (config->node_id != NULL) {
        const bool parsed = uuid_parse(slice_from_text(config->node_id), &server->node_id);
        assert(parsed); /* config_load checked it */
    } else if (!uuid_is_zero(&kept)) {
        server->node_id = kept;
    } else {
        server->node_id = server_random_uuid();
    }
    uuid_format(&server->node_id, server->node_id_text);
    if (config->data_dir != NULL && !uuid_equal(&kept, &server->node_id)) {
        rc = server_write_node_id(config->data_dir, server->node_id_text, err);
    }
    return rc;
}

static int server_prepare(struct server_process *process, struct errmsg *err)
{
    const char *dir = process->server.config->data_dir;
    int rc = 0;

    if (dir != NULL) {
        rc = server_make_folder(dir, err);
        if (rc == 0) {
            rc = server_lock_folder(process, dir, err);
        }
    }
    return rc == 0 ? server_choose_node_id(&process->server, err) : rc;
}

/* --- outside world: service manager, pid file, terminal --- */

/* systemd's notification protocol: a datagram to the socket that it named. */
static void server_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (path == NULL || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof(address.sun_path)) {
        return;
    }
    memcpy(address.sun_path, path, strlen(path));
    if (path[0] == '@') {
        address.sun_path[0] = '\0'; /* abstract socket */
    }
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return;
    }
    const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0) {
        log_write(LOG_WARN, "agent", "cannot notify %s: %s", path, strerror(errno));
    }
    (void)close(fd);
}

static int server_write_pid_file(const char *path, struct errmsg *err)
{
    FILE *file = fopen(path, "we");

    if (file == NULL) {
        return errmsg_set_errno(err, -1, "cannot create pid file %.300s", path);
    }
    const bool written = fprintf(file, "%ld", (long)getpid()) > 0;
    if (fclose(file) != 0 || !written) {
        return errmsg_set_errno(err, -1, "cannot write pid file %.300s", path);
    }
    return 0;
}

/* On standard output, in Consul's words, which scripts wait for. */
static void server_print_banner(const struct server *server)
{
    const struct config *config = server->config;

    printf("==> Starting Proconsul agent...\n"
           "           Version: '%s' (answers as Consul %s)\n"
           "           Node ID: '%s'\n"
           "         Node name: '%s'\n"
           "        Datacenter: '%s'\n"
           "            Server: true (Bootstrap: %s)\n"
           "       Client Addr: [%s] (HTTP: %d, DNS: %d)\n"
           "      Cluster Addr: %s (RPC: %d, LAN: %d)\n\n"
           "==> Log data will now stream in as it occurs:\n\n",
           PROCONSUL_VERSION, PROCONSUL_CONSUL_VERSION, server->node_id_text, config->node_name,
           config->datacenter, config->bootstrap ? "true" : "false", config->client_addr,
           config->http_port, config->dns_port, config->advertise_addr, config->server_port,
           config->serf_lan_port);
    (void)fflush(stdout); /* A banner that cannot be printed is no reason not to serve. */
}

/* --- the parts --- */

static void server_on_member(void *host, const struct member *member)
{
    struct server_process *process = host;
    struct server *server = &process->server;

    if (server->agent != NULL) { /* The first members may be found while we start. */
        agent_members_changed(server->agent);
    }
    if (server->replica != NULL) {
        replica_members_changed(server->replica, member);
    }
}

static int server_start_metrics(struct server *server, struct errmsg *err)
{
    const struct config *config = server->config;
    char hostname[HOST_NAME_MAX + 1] = "";
    struct metrics_options options = {
        .prefix = config->metrics_prefix,
        .filter_default = config->metrics_filter_default,
        .filters = (const char *const *)config->metrics_filters,
        .filter_count = config->metrics_filter_count,
    };

    /* Consul's rule: no host name while nobody but /v1/agent/metrics asks. */
    if (config->prometheus_retention_ns > 0 && !config->metrics_disable_hostname) {
        (void)gethostname(hostname, sizeof(hostname) - 1); /* else there is none */
        options.hostname = hostname[0] == '\0' ? NULL : hostname;
    }
    if (metrics_new(&options, uv_hrtime() / 1000000, &server->metrics) != 0) {
        return errmsg_set(err, -1, "out of memory");
    }
    return 0;
}

static int server_start_parts(struct server_process *process, struct errmsg *err)
{
    struct server *server = &process->server;

    if (watch_table_new(&server->watches) != 0) {
        return errmsg_set(err, -1, "out of memory");
    }
    if (server_start_metrics(server, err) != 0) {
        return -1;
    }
    if (replica_new(server, &server->replica, err) != 0 ||
        membership_new(server, server_on_member, process, &server->membership, err) != 0 ||
        agent_new(server, &server->agent, err) != 0 ||
        http_server_new(server, &server->http, err) != 0) {
        return -1;
    }
    server->events = http_events(server->http);
    if (server->events == NULL) {
        return errmsg_set(err, -1, "out of memory");
    }
    events_set_spread(server->events, replica_spread_event, server->replica);
    return server_dns_start(server, err);
}

/* In the order that lets each part still talk to those that it needs: the agent to the replica, the
 * replica's last refusals to the requests of the HTTP server. */
static void server_stop_parts(struct server_process *process)
{
    struct server *server = &process->server;

    monitor_free(server->monitor);
    server->monitor = NULL;
    if (server->events != NULL) {
        events_set_spread(server->events, NULL, NULL);
        server->events = NULL;
    }
    if (server->agent != NULL) {
        agent_free(server->agent);
        server->agent = NULL;
    }
    server_dns_stop(server);
    if (server->membership != NULL) {
        membership_free(server->membership);
        server->membership = NULL;
    }
    if (server->replica != NULL) {
        replica_stop(server->replica);
    }
    if (server->http != NULL) {
        http_server_free(server->http); /* Ends its read transaction, before the store is closed. */
        server->http = NULL;
    }
    if (server->replica != NULL) {
        replica_free(server->replica);
        server->replica = NULL;
    }
    if (server->watches != NULL) {
        watch_table_free(server->watches);
        server->watches = NULL;
    }
}

/* --- signals --- */

/* Numbers that are read where they are needed. */
static void server_reload_limits(struct config *to, const struct config *from)
{
    to->log_level = from->log_level;
    to->kv_value_bytes_max = from->kv_value_bytes_max;
    to->txn_request_bytes_max = from->txn_request_bytes_max;
    to->http_conns_per_client_max = from->http_conns_per_client_max;
    to->rpc_rate = from->rpc_rate;
    to->read_rate = from->read_rate;
    to->write_rate = from->write_rate;
    to->request_limits_enforced = from->request_limits_enforced;
    to->raft_snapshot_threshold = from->raft_snapshot_threshold;
    to->raft_snapshot_interval_ms = from->raft_snapshot_interval_ms;
    to->raft_trailing_logs = from->raft_trailing_logs;
    to->check_update_interval_ms = from->check_update_interval_ms;
    to->check_output_bytes_max = from->check_output_bytes_max;
    to->discard_check_output = from->discard_check_output;
    to->script_checks = from->script_checks;
    to->local_script_checks = from->local_script_checks;
}

/* What names end in, and who may ask, stays as everything else about them does until a restart. */
static int server_reload_dns(struct server *server, const struct dns_config *from)
{
    const struct dns_config *old = &server->config->dns;
    struct dns_config to = *from;

    to.domain = old->domain;
    to.alt_domain = old->alt_domain;
    to.datacenter = old->datacenter;
    to.deny = old->deny;
    return server_dns_reload(server, &to);
}

int server_reload(struct server *server, struct errmsg *err)
{
    struct config *config;

    log_write(LOG_INFO, "agent", "Reloading configuration...");
    if (config_reload(server->config, &config, err) != 0) {
        log_write(LOG_ERROR, "agent", "Reload failed, all stays as it was: %s", err->text);
        return -1;
    }
    if (server->agent != NULL && agent_reload(server->agent, config, err) != 0) {
        log_write(LOG_ERROR, "agent", "Reload of services and checks failed: %s", err->text);
        config_free(config);
        return -1;
    }
    log_level_set(config->log_level);
    if (server->dns != NULL && server_reload_dns(server, &config->dns) != 0) {
        log_write(LOG_ERROR, "agent", "Reload of DNS failed, it goes on as before");
    }
    /* Others hold pointers into the configuration that we started with: it stays, and takes over
     * what can change. */
    json_t *services = server->config->services;
    json_t *checks = server->config->checks;
    server->config->services = config->services;
    server->config->checks = config->checks;
    server_reload_limits(server->config, config);
    config->services = services;
    config->checks = checks;
    config_free(config);
    log_write(LOG_INFO, "agent",
              "Configuration reload complete: services, checks, DNS, log level, limits, snapshots");
    return 0;
}

static void server_on_drained(void *context)
{
    struct server_process *process = context;

    uv_stop(&process->loop);
}

/* Another server leads now, or nobody can: requests in flight are finished, then all stops. */
static void server_on_handed_over(void *context)
{
    struct server_process *process = context;

    /* They would hold the drain up: nothing else ends them. */
    monitor_free(process->server.monitor);
    process->server.monitor = NULL;
    http_server_drain(process->server.http, SERVER_DRAIN_MS_MAX, server_on_drained, process);
}

/* This server has no place in the cluster any more; if it still leads, nobody else could. */
static void server_on_left(void *context)
{
    struct server_process *process = context;

    replica_hand_over(process->server.replica, server_on_handed_over, process);
}

/* One that comes when this server is stopping already. */
static void server_stop_signalled(struct server_process *process)
{
    if (process->leave_requested) {
        /* The first from outside, the service manager's as a rule: `consul leave`, and once that
         * has its answer SIGTERM. */
        process->leave_requested = false;
        log_write(LOG_INFO, "agent", "leaving already; another signal ends the process at once");
        return;
    }
    log_write(LOG_WARN, "agent", "second signal, exiting at once");
    _exit(1); /* What was acknowledged is on disk already. */
}

static void server_on_signal(uv_signal_t *handle, int signal_number)
{
    struct server_process *process = handle->data;
    struct server *server = &process->server;
    const struct config *config = server->config;
    const bool interrupt = signal_number == SIGINT;
    struct errmsg ignored;

    if (signal_number == SIGHUP) {
        log_write(LOG_INFO, "agent", "Caught: signal=hangup");
        (void)server_reload(server, &ignored); /* It was logged. */
        return;
    }
    log_write(LOG_INFO, "agent", "Caught: signal=%s", interrupt ? "interrupt" : "terminated");
    if (server->stopping) {
        server_stop_signalled(process);
        return;
    }
    const bool leave = server->leaving ||
                       (interrupt ? !config->skip_leave_on_interrupt : config->leave_on_terminate);
    /* Consul's statuses: 0 only for one that leaves. */
    process->exit_status = leave ? 0 : 1;
    log_write(LOG_INFO, "agent",
              leave ? "Gracefully shutting down agent..." : "Graceful shutdown disabled. Exiting");
    server->stopping = true;
    server_notify("STOPPING=1");
    process->leave_requested = server->leaving;
    server->leaving = leave;
    if (leave) {
        replica_leave(server->replica, server_on_left, process);
    } else {
        replica_hand_over(server->replica, server_on_handed_over, process);
    }
}

/* --- the guard --- */

/* While the parts stop, the loop does not run, or waits for a worker, and a disk that hangs can
 * hold it up for ever: so signals go to a thread, which also sees to it that there is an end. */
enum { GUARD_SIGNAL = 1, GUARD_DONE };

static int server_guard_write_fd = -1; /* of the process: what a signal handler can reach */

static void server_guard_tell(char what)
{
    const int error = errno;
    const ssize_t written = write(server_guard_write_fd, &what, 1);

    (void)written; /* A pipe that is full tells as much. */
    errno = error;
}

static void server_guard_on_signal(int signal_number)
{
    (void)signal_number;
    server_guard_tell(GUARD_SIGNAL);
}

static void *server_guard_run(void *context)
{
    struct server_process *process = context;
    const uint64_t end_ms = uv_hrtime() / 1000000 + SERVER_STOP_MS_MAX;
    struct pollfd told = {.fd = process->guard_fd, .events = POLLIN};
    char what = 0;

    while (what != GUARD_DONE) {
        const uint64_t now_ms = uv_hrtime() / 1000000;

        if (now_ms >= end_ms) {
            log_write(LOG_ERROR, "agent",
                      "the server did not stop in %d ms, exiting at once: does a disk hang?",
                      SERVER_STOP_MS_MAX);
            _exit(1); /* As after a second signal. */
        }
        if (poll(&told, 1, (int)(end_ms - now_ms)) == 1 && read(told.fd, &what, 1) == 1 &&
            what == GUARD_SIGNAL) {
            server_stop_signalled(process);
        }
    }
    return NULL;
}

/* False: there is none, which was logged; the parts are stopped without it. */
static bool server_guard_start(struct server_process *process)
{
    struct sigaction action = {.sa_handler = server_guard_on_signal, .sa_flags = SA_RESTART};
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0) {
        log_write(LOG_WARN, "agent", "stopping without a limit: cannot make a pipe: %s",
                  strerror(errno));
        return false;
    }
    process->guard_fd = fds[0]; /* Both stay open: a signal may come at any time. */
    server_guard_write_fd = fds[1];
    if (pthread_create(&process->guard, NULL, server_guard_run, process) != 0) {
        log_write(LOG_WARN, "agent", "stopping without a limit: cannot start a thread");
        return false;
    }
    (void)sigaction(SIGTERM, &action, NULL); /* Cannot fail for these two. */
    (void)sigaction(SIGINT, &action, NULL);
    return true;
}

static void server_guard_end(struct server_process *process)
{
    server_guard_tell(GUARD_DONE);
    (void)pthread_join(process->guard, NULL); /* It is there, and ends now. */
}

/* --- the loop --- */

/* Due every SERVER_WATCHDOG_MS: as late as it comes, so long the loop was busy, or the process
 * stopped. */
static void server_on_watchdog(uv_timer_t *handle)
{
    struct server_process *process = handle->data;
    const uint64_t now_ms = uv_hrtime() / 1000000;
    const uint64_t late_ms =
        now_ms > process->watchdog_due_ms ? now_ms - process->watchdog_due_ms : 0;

    if (late_ms > process->stall_ms_max) {
        process->stall_ms_max = late_ms;
    }
    if (late_ms > SERVER_STALL_MS_WARN) {
        log_write(LOG_WARN, "agent", "the loop stalled: duration=%llums longest=%llums",
                  (unsigned long long)late_ms, (unsigned long long)process->stall_ms_max);
    }
    metrics_time_ns(process->server.metrics, METRIC_LOOP_STALL, late_ms * 1000000);
    metrics_gauge(process->server.metrics, METRIC_LOOP_STALL_MAX, (double)process->stall_ms_max);
    server_metrics_tick(&process->server, now_ms, late_ms + SERVER_WATCHDOG_MS);
    process->watchdog_due_ms = now_ms + SERVER_WATCHDOG_MS;
}

static int server_open_handles(struct server_process *process, struct errmsg *err)
{
    uv_signal_t *const signals[] = {&process->on_term, &process->on_int, &process->on_hup};
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    int rc = uv_loop_init(&process->loop);

    if (rc != 0) {
        return errmsg_set(err, -1, "cannot start the event loop: %s", uv_strerror(rc));
    }
    process->server.loop = &process->loop;
    process->handles_open = true;
    (void)uv_timer_init(&process->loop, &process->close_guard); /* cannot fail, nor can these */
    (void)uv_timer_init(&process->loop, &process->watchdog);
    process->close_guard.data = process;
    process->watchdog.data = process;
    process->watchdog_due_ms = uv_hrtime() / 1000000 + SERVER_WATCHDOG_MS;
    (void)uv_timer_start(&process->watchdog, server_on_watchdog, SERVER_WATCHDOG_MS,
                         SERVER_WATCHDOG_MS);
    uv_unref((uv_handle_t *)&process->watchdog);
    for (size_t i = 0; i < 3; i++) {
        const int init_rc = uv_signal_init(&process->loop, signals[i]);

        assert(init_rc == 0); /* fails on broken loops only */
        signals[i]->data = process;
        rc = uv_signal_start(signals[i], server_on_signal, numbers[i]);
        if (rc != 0) {
            return errmsg_set(err, -1, "cannot catch signals: %s", uv_strerror(rc));
        }
        uv_unref((uv_handle_t *)signals[i]);
    }
    return 0;
}

static void server_on_close_guard(uv_timer_t *handle)
{
    struct server_process *process = handle->data;

    log_write(LOG_ERROR, "agent", "parts of the server did not close in %d ms",
              SERVER_CLOSE_MS_MAX);
    uv_stop(&process->loop);
}

/* Runs the loop until all that the parts closed has called back, bounded. False: something has not,
 * and may still use its memory. */
static bool server_close_handles(struct server_process *process)
{
    if (!process->handles_open) {
        return true;
    }
    uv_close((uv_handle_t *)&process->on_term, NULL);
    uv_close((uv_handle_t *)&process->on_int, NULL);
    uv_close((uv_handle_t *)&process->on_hup, NULL);
    uv_close((uv_handle_t *)&process->watchdog, NULL);
    (void)uv_timer_start(&process->close_guard, server_on_close_guard, SERVER_CLOSE_MS_MAX, 0);
    uv_unref((uv_handle_t *)&process->close_guard);
    (void)uv_run(&process->loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&process->close_guard, NULL);
    (void)uv_run(&process->loop, UV_RUN_NOWAIT);
    const int rc = uv_loop_close(&process->loop);
    if (rc != 0) {
        log_write(LOG_WARN, "agent", "the event loop was not empty at exit: %s", uv_strerror(rc));
    }
    return rc == 0;
}

/* --- life --- */

static int server_start(struct server_process *process, struct errmsg *err)
{
    const struct config *config = process->server.config;

    if (server_prepare(process, err) != 0 || server_open_handles(process, err) != 0) {
        return -1;
    }
    server_print_banner(&process->server);
    if (server_start_parts(process, err) != 0) {
        return -1;
    }
    if (config->pid_file != NULL) {
        if (server_write_pid_file(config->pid_file, err) != 0) {
            return -1;
        }
        process->pid_file_written = true;
    }
    server_notify("READY=1");
    printf("==> Consul agent running!\n"); /* as Consul says it: scripts wait for this line */
    (void)fflush(stdout);
    return 0;
}

int server_run(struct config *config)
{
    struct server_process *process = calloc(1, sizeof(*process));
    struct errmsg err = {""};

    if (process == NULL) {
        (void)fprintf(stderr, "==> out of memory\n");
        config_free(config);
        return 1;
    }
    process->lock_fd = -1;
    process->exit_status = 1;
    process->server.config = config;
    log_level_set(config->log_level);
    server_tame_allocator();
    server_reset_signals();
    server_raise_open_files(&process->server);

    if (server_start(process, &err) == 0) {
        process->watchdog_due_ms = uv_hrtime() / 1000000 + SERVER_WATCHDOG_MS;
        (void)uv_run(&process->loop, UV_RUN_DEFAULT);
        log_write(LOG_INFO, "agent", "Requesting shutdown");
    } else {
        log_write(LOG_ERROR, "agent", "Error starting agent: error=\"%s\"", err.text);
        (void)fprintf(stderr, "==> %s\n", err.text);
    }

    const bool guarded = server_guard_start(process);
    server_stop_parts(process);
    if (guarded) {
        server_guard_end(process);
    }
    const bool closed = server_close_handles(process);
    if (process->pid_file_written) {
        (void)unlink(config->pid_file); /* an operator may have been faster */
    }
    log_write(LOG_INFO, "agent", "shutdown complete");
    log_write(LOG_INFO, "agent", "Exit code: code=%d", process->exit_status);
    if (process->lock_fd >= 0) {
        (void)close(process->lock_fd); /* gives up the lock */
    }
    const int exit_status = process->exit_status;
    if (!closed) {
        (void)fflush(stdout);
        _exit(exit_status); /* A worker hangs, on a disk or a name server: exit() waits for it. */
    }
    metrics_free(process->server.metrics);
    config_free(config);
    free(process);
    return exit_status;
}
