#include "server/agent/script.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kv/buffer.h"
#include "server/duration.h"

#define SCRIPT_MAGIC 0x53435250u

enum { SCRIPT_READ_BYTES = 4096 };

struct script {
    uint32_t magic;
    uv_loop_t *loop;
    uv_work_t work;
    uv_timer_t timer;
    uv_poll_t exit;   /* the pidfd: readable when the process has ended */
    uv_poll_t output; /* the pipe's reading end */
    unsigned handles; /* of these three, open */
    bool working;     /* the worker has it */
    bool reported;
    bool cancelled;
    bool gone; /* the process was reaped, or never was */

    char **args; /* NULL at the end; owned */
    uint64_t timeout_ms;
    uint64_t output_bytes_max;
    uint64_t open_files;
    struct script_handlers handlers;

    /* The worker's result. */
    pid_t pid; /* also the process group; 0: not started */
    int pipe_fd;
    int pid_fd;
    int error; /* errno of a failed start */

    struct buffer text; /* at most twice output_bytes_max: cut when it grows beyond */
    uint64_t written;   /* bytes that came */
};

/* --- life --- */

static void script_free(struct script *script)
{
    for (char **arg = script->args; arg != NULL && *arg != NULL; arg++) {
        free(*arg);
    }
    free(script->args);
    buffer_deinit(&script->text);
    script->magic = 0;
    free(script);
}

static void script_free_when_idle(struct script *script)
{
    if (!script->gone || script->working || script->handles > 0) {
        return;
    }
    if (script->pipe_fd >= 0) {
        (void)close(script->pipe_fd); /* only read from */
    }
    if (script->pid_fd >= 0) {
        (void)close(script->pid_fd);
    }
    const struct script_handlers handlers = script->handlers;
    const bool cancelled = script->cancelled;

    script_free(script);
    if (!cancelled) {
        handlers.ended(handlers.context);
    }
}

static void script_on_closed(uv_handle_t *handle)
{
    struct script *script = handle->data;

    assert(script->magic == SCRIPT_MAGIC);
    assert(script->handles > 0);
    script->handles--;
    script_free_when_idle(script);
}

static void script_close(struct script *script, uv_handle_t *handle)
{
    if (handle->loop != NULL && !uv_is_closing(handle)) {
        uv_close(handle, script_on_closed);
    }
    (void)script;
}

/* The process is gone: nothing more can come. */
static void script_end(struct script *script)
{
    script->gone = true;
    script_close(script, (uv_handle_t *)&script->timer);
    script_close(script, (uv_handle_t *)&script->exit);
    script_close(script, (uv_handle_t *)&script->output);
    script_free_when_idle(script);
}

/* While the worker starts it, its number is the worker's: then script_on_spawned kills. */
static void script_kill(const struct script *script)
{
    if (!script->working && script->pid > 0 && !script->gone) {
        (void)kill(-script->pid, SIGKILL); /* The group may be empty already. */
        (void)kill(script->pid, SIGKILL);  /* Or not be there yet. */
    }
}

void script_cancel(struct script *script)
{
    assert(script->magic == SCRIPT_MAGIC);
    script->cancelled = true;
    script->reported = true;
    script_kill(script);
}

static void script_report(struct script *script, enum probe_status status, struct slice output)
{
    if (!script->reported) {
        script->reported = true;
        script->handlers.report(script->handlers.context, status, output);
    }
}

/* --- output --- */

static void script_cut(struct script *script)
{
    const size_t limit = (size_t)script->output_bytes_max;

    if (script->text.size > limit) {
        memmove(script->text.data, script->text.data + script->text.size - limit, limit);
        script->text.size = limit;
    }
}

/* Reads what is there. False: the pipe has ended. */
static bool script_read(struct script *script)
{
    char bytes[SCRIPT_READ_BYTES];

    /* Bounded, so that one that never stops writing does not hold the loop. */
    for (size_t i = 0; i < SCRIPT_OUTPUT_BYTES_MAX / SCRIPT_READ_BYTES; i++) {
        const ssize_t count = read(script->pipe_fd, bytes, sizeof(bytes));

        if (count < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        if (count == 0) {
            return false;
        }
        script->written += (uint64_t)count;
        buffer_append(&script->text, bytes, (size_t)count);
        if (script->text.size > 2 * script->output_bytes_max) {
            script_cut(script);
        }
    }
    return true;
}

static void script_on_output(uv_poll_t *poll, int status, int events)
{
    struct script *script = poll->data;

    (void)events;
    assert(script->magic == SCRIPT_MAGIC);
    if (status < 0 || !script_read(script)) {
        (void)uv_poll_stop(poll);
    }
}

/* --- the end of the process --- */

static void script_report_status(struct script *script, int status)
{
    const enum probe_status result = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? PROBE_PASSING
                                     : WIFEXITED(status) && WEXITSTATUS(status) == 1
                                         ? PROBE_WARNING
                                         : PROBE_CRITICAL;
    struct buffer output = {0};

    (void)script_read(script);
    script_cut(script);
    if (script->written > script->output_bytes_max) {
        buffer_printf(&output, "Captured %llu of %llu bytes\n...\n",
                      (unsigned long long)script->output_bytes_max,
                      (unsigned long long)script->written);
    }
    buffer_append_slice(&output, buffer_slice(&script->text));
    script_report(script, result, output.size == 0 ? SLICE_EMPTY : buffer_slice(&output));
    buffer_deinit(&output);
}

static void script_on_exit(uv_poll_t *poll, int status, int events)
{
    struct script *script = poll->data;
    int result = 0;

    (void)status;
    (void)events;
    assert(script->magic == SCRIPT_MAGIC);
    const pid_t pid = waitpid(script->pid, &result, WNOHANG);
    if (pid == 0 || (pid < 0 && errno == EINTR)) {
        return; /* Not yet. */
    }
    script->gone = pid == script->pid;
    script_report_status(script, pid == script->pid ? result : -1);
    script_end(script);
}

static void script_on_timer(uv_timer_t *timer)
{
    struct script *script = timer->data;
    char duration[64];
    char text[128];

    assert(script->magic == SCRIPT_MAGIC);
    script_kill(script);
    duration_format((int64_t)script->timeout_ms * 1000000, duration, sizeof(duration));
    (void)snprintf(text, sizeof(text), "Timed out (%s) running check", duration);
    script_report(script, PROBE_CRITICAL, slice_from_text(text));
}

/* --- the start --- */

/* A server takes as many descriptors as the system grants, which can be a billion: programs that
 * close all that they may have would not come to their work. posix_spawn has no attribute for it:
 * the program has the higher limit for a moment. */
static void script_limit_files(const struct script *script)
{
    struct rlimit limit;

    if (script->open_files > 0 && prlimit(script->pid, RLIMIT_NOFILE, NULL, &limit) == 0 &&
        script->open_files < limit.rlim_cur) {
        limit.rlim_cur = script->open_files;
        (void)prlimit(script->pid, RLIMIT_NOFILE, &limit, NULL); /* Else it has more. */
    }
}

/* On a worker: posix_spawn waits until the program is loaded, which may take a disk's time. */
static void script_spawn(uv_work_t *work)
{
    struct script *script = work->data;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) != 0) {
        script->error = errno;
        return;
    }
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    /* These fail only without memory, and then so does the spawn, or the script lacks a default. */
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, fds[1], STDERR_FILENO);
    (void)posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                    POSIX_SPAWN_SETSIGDEF);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    (void)posix_spawnattr_setsigdefault(&attributes, &all);
    script->error =
        posix_spawnp(&script->pid, script->args[0], &actions, &attributes, script->args, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(fds[1]);
    if (script->error != 0) {
        script->pid = 0;
        (void)close(fds[0]);
        return;
    }
    script_limit_files(script);
    script->pipe_fd = fds[0];
    (void)fcntl(script->pipe_fd, F_SETFL, O_NONBLOCK);
    script->pid_fd = (int)syscall(SYS_pidfd_open, script->pid, 0);
    if (script->pid_fd < 0) { /* Linux before 5.3, or no descriptors: nobody could wait for it. */
        int ignored;

        script->error = errno;
        (void)kill(-script->pid, SIGKILL);
        (void)waitpid(script->pid, &ignored, 0);
        script->pid = 0;
    }
}

/* Go's words for a program that cannot be started. */
static void script_report_error(struct script *script)
{
    const char *name = script->args[0];
    struct buffer text = {0};

    if (script->error == ENOENT && strchr(name, '/') == NULL && name[0] != '\0') {
        buffer_printf(&text, "exec: \"%s\": executable file not found in $PATH", name);
    } else {
        char reason[128];

        (void)snprintf(reason, sizeof(reason), "%s", strerror(script->error));
        reason[0] = slice_lower(reason[0]);
        buffer_printf(&text, "fork/exec %s: %s", name, reason);
    }
    script_report(script, PROBE_CRITICAL, buffer_slice(&text));
    buffer_deinit(&text);
}

static int script_watch(struct script *script, uv_poll_t *poll, int fd, uv_poll_cb callback)
{
    int rc = uv_poll_init(script->loop, poll, fd);

    if (rc == 0) {
        poll->data = script;
        script->handles++;
        rc = uv_poll_start(poll, UV_READABLE, callback);
    }
    return rc;
}

static void script_on_spawned(uv_work_t *work, int status)
{
    struct script *script = work->data;

    assert(script->magic == SCRIPT_MAGIC);
    script->working = false;
    if (status != 0 && script->error == 0) {
        script->error = ECANCELED;
    }
    if (script->error != 0) {
        script_report_error(script);
        script_end(script);
        return;
    }
    if (script->cancelled || script->reported) {
        script_kill(script); /* Its time was over before it began. */
    }
    if (script_watch(script, &script->exit, script->pid_fd, script_on_exit) != 0) {
        int ignored;

        script_kill(script);
        (void)waitpid(script->pid, &ignored, 0); /* It was killed: this does not take long. */
        script_report(script, PROBE_CRITICAL, SLICE_LITERAL("out of memory"));
        script_end(script);
        return;
    }
    /* Without it, what fits the pipe is read at the end. */
    (void)script_watch(script, &script->output, script->pipe_fd, script_on_output);
}

static bool script_copy_args(struct script *script, const json_t *args)
{
    const size_t count = json_array_size(args);

    if (count == 0 || count > SCRIPT_ARGS_MAX) {
        return false;
    }
    script->args = calloc(count + 1, sizeof(*script->args));
    for (size_t i = 0; script->args != NULL && i < count; i++) {
        script->args[i] = strdup(json_string_value(json_array_get(args, i)));
        if (script->args[i] == NULL) {
            return false;
        }
    }
    return script->args != NULL;
}

struct script *script_start(uv_loop_t *loop, const struct script_spec *spec,
                            const struct script_handlers *handlers)
{
    struct script *script = calloc(1, sizeof(*script));

    assert(spec->output_bytes_max > 0);
    assert(spec->output_bytes_max <= SCRIPT_OUTPUT_BYTES_MAX);
    if (script == NULL || !script_copy_args(script, spec->args)) {
        if (script != NULL) {
            script_free(script);
        }
        return NULL;
    }
    script->magic = SCRIPT_MAGIC;
    script->loop = loop;
    script->handlers = *handlers;
    script->timeout_ms = spec->timeout_ms;
    script->output_bytes_max = spec->output_bytes_max;
    script->open_files = spec->open_files;
    script->pipe_fd = -1;
    script->pid_fd = -1;
    script->work.data = script;
    (void)uv_timer_init(loop, &script->timer); /* cannot fail */
    script->timer.data = script;
    script->handles++;
    (void)uv_timer_start(&script->timer, script_on_timer, spec->timeout_ms, 0);
    script->working = true;
    const int rc = uv_queue_work(loop, &script->work, script_spawn, script_on_spawned);
    assert(rc == 0); /* Fails without a callback only. */
    (void)rc;
    return script;
}
