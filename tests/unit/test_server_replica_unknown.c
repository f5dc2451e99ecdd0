/* Writes of a newer version in the log of a server that does not know them: it stops, without
 * having applied anything of them, and goes on once it knows them. What is no command in any
 * version does not get into the log. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

enum { WAIT_MS_MAX = 120000, TEXT_BYTES_MAX = 8192 };

/* A cluster of one. */
struct alone {
    uv_loop_t loop;
    struct server server;
    struct config config;
    char dir[64];
    char name[8], address[16], datacenter[4];
};

static void alone_prepare(struct alone *alone)
{
    struct config *config = &alone->config;

    memset(alone, 0, sizeof(*alone));
    (void)snprintf(alone->dir, sizeof(alone->dir), "/tmp/proconsul-test-XXXXXX");
    assert_non_null(mkdtemp(alone->dir));
    (void)snprintf(alone->name, sizeof(alone->name), "one");
    (void)snprintf(alone->address, sizeof(alone->address), "127.0.9.31");
    (void)snprintf(alone->datacenter, sizeof(alone->datacenter), "dc1");
    config->server = true;
    config->bootstrap_expect = 1;
    config->datacenter = alone->datacenter;
    config->node_name = alone->name;
    config->data_dir = alone->dir;
    config->bind_addr = alone->address;
    config->advertise_addr = alone->address;
    config->raft_multiplier = 1;
    autopilot_config_init(&config->autopilot);
    config->rpc_hold_timeout_ms = 60000;
    config->raft_snapshot_threshold = 500;
    config->raft_snapshot_interval_ms = 100;
    config->raft_trailing_logs = 100;
    config->state_bytes_max = 1 << 30;
    alone->server.config = config;
    alone->server.loop = &alone->loop;
    server_random(alone->server.node_id.bytes, UUID_BYTES);
}

static void alone_start(struct alone *alone)
{
    struct errmsg err = {""};

    log_level_set(LOG_ERROR);
    if (uv_loop_init(&alone->loop) != 0 || watch_table_new(&alone->server.watches) != 0 ||
        replica_new(&alone->server, &alone->server.replica, &err) != 0) {
        (void)fprintf(stderr, "cannot start: %s\n", err.text);
        abort();
    }
}

static void alone_stop(struct alone *alone)
{
    replica_free(alone->server.replica);
    alone->server.replica = NULL;
    watch_table_free(alone->server.watches);
    for (int i = 0; i < 1000 && uv_loop_close(&alone->loop) != 0; i++) {
        (void)uv_run(&alone->loop, UV_RUN_ONCE);
    }
}

static void alone_remove(struct alone *alone)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf %s", alone->dir);
    assert_int_equal(system(command), 0);
}

/* Where the loop runs until something has happened. */
struct write {
    bool done;
    char failure[ERRMSG_BYTES_MAX]; /* "": none */
};

static void on_written(void *context, const char *failure, const struct command_result *result)
{
    struct write *write = context;

    write->done = true;
    (void)snprintf(write->failure, sizeof(write->failure), "%s",
                   failure != NULL                     ? failure
                   : result->status == COMMAND_REFUSED ? result->error.text
                                                       : "");
}

static void on_guard(uv_timer_t *timer)
{
    (void)timer;
}

static void alone_write(struct alone *alone, struct slice command, struct write *write)
{
    const uint64_t start_ms = uv_hrtime() / 1000000;
    uv_timer_t guard;

    memset(write, 0, sizeof(*write));
    replica_propose(alone->server.replica, command, on_written, write);
    (void)uv_timer_init(&alone->loop, &guard);
    (void)uv_timer_start(&guard, on_guard, 10, 10);
    while (!write->done && uv_hrtime() / 1000000 - start_ms < WAIT_MS_MAX) {
        (void)uv_run(&alone->loop, UV_RUN_ONCE);
    }
    assert_true(write->done);
    uv_close((uv_handle_t *)&guard, NULL);
    (void)uv_run(&alone->loop, UV_RUN_NOWAIT);
}

static void alone_put(struct alone *alone, const char *key, struct write *write)
{
    struct buffer command = {0};

    command_encode_kv(&command, COMMAND_KV_SET, slice_from_text(key), SLICE_EMPTY, 0, 0, NULL);
    alone_write(alone, buffer_slice(&command), write);
    buffer_deinit(&command);
}

/* Reads the store of a server that does not run. */
static uint64_t alone_applied(const struct alone *alone, const char *key, bool *found)
{
    char path[96], boot_id[64] = "";
    const struct store_options options = {.dir = path, .bytes_max = 1 << 30, .boot_id = boot_id};
    struct errmsg err = {""};
    struct kv_entry entry;
    struct store *store;
    struct store_txn txn;
    uint64_t term, index;
    bool wiped;

    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re"); /* Else the store begins anew. */
    assert_non_null(file);
    assert_non_null(fgets(boot_id, sizeof(boot_id), file));
    boot_id[strcspn(boot_id, "\n")] = 0;
    (void)fclose(file);
    (void)snprintf(path, sizeof(path), "%s/state", alone->dir);
    assert_int_equal(store_open(&options, &store, &wiped, &err), 0);
    assert_int_equal(store_read_begin(store, &txn), 0);
    assert_int_equal(store_applied_get(&txn, &term, &index), 0);
    *found = kv_get(&txn, slice_from_text(key), &entry) == STORE_OK;
    store_read_end(&txn);
    store_close(store);
    return index;
}

static void on_durable(void *host, uint64_t sequence)
{
    (void)host;
    (void)sequence;
}

/* As a leader of another version would: puts a command behind what the log has, or in the place of
 * entry `at` and of what follows it. */
static uint64_t alone_append(const struct alone *alone, struct slice command, raft_index at)
{
    char path[96], message[WAL_ERROR_BYTES_MAX];
    const struct wal_options options = {.dir = path, .on_durable = on_durable};
    struct raft_state state;
    struct wal *wal;

    (void)snprintf(path, sizeof(path), "%s/raft", alone->dir);
    assert_int_equal(wal_open(&options, &wal, &state, message), WAL_OK);
    const raft_index index = at == 0 ? state.last_index + 1 : at;
    const struct raft_entry entry = {.index = index,
                                     .term = state.term,
                                     .type = RAFT_ENTRY_COMMAND,
                                     .data = command.data,
                                     .size = command.size};
    const struct wal_write write = {
        .sequence = 1, .truncate_from = at, .entries = &entry, .entry_count = 1};

    assert_int_equal(wal_write(wal, &write), WAL_OK);
    wal_close(wal);
    return index;
}

/* Runs the server in a process of its own until that ends, by itself or by an alarm; returns what
 * it wrote to stderr. */
static int alone_run(struct alone *alone, char *text)
{
    int pipe_ends[2];
    int status;
    size_t size = 0;
    ssize_t got;

    assert_int_equal(pipe(pipe_ends), 0);
    const pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(pipe_ends[1], STDERR_FILENO);
        (void)alarm(WAIT_MS_MAX / 1000);
        alone_start(alone);
        (void)uv_run(&alone->loop, UV_RUN_DEFAULT);
        _exit(0);
    }
    (void)close(pipe_ends[1]);
    while (size < TEXT_BYTES_MAX - 1 &&
           (got = read(pipe_ends[0], text + size, TEXT_BYTES_MAX - 1 - size)) > 0) {
        size += (size_t)got;
    }
    text[size] = 0;
    (void)close(pipe_ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) {
        fail_msg("the server did not stop by itself: %s", text);
    }
    return WEXITSTATUS(status);
}

struct unknown {
    const char *name;
    const char *told;
    uint8_t version, type;
    uint8_t more[9];
    size_t more_bytes;
};

static void unknown_encode(const struct unknown *unknown, struct buffer *out)
{
    buffer_clear(out);
    buffer_put_u8(out, unknown->version);
    buffer_put_u8(out, unknown->type);
    buffer_put_u64(out, 1);
    buffer_append(out, unknown->more, unknown->more_bytes);
}

static void a_server_stops_at_a_write_of_a_newer_version_and_goes_on_when_it_knows_it(void **state)
{
    static const struct unknown cases[] = {
        {"a type", "format=1 type=99", COMMAND_VERSION, 99, {0}, 0},
        {"the same, started again", "format=1 type=99", COMMAND_VERSION, 99, {0}, 0},
        {"a format", "format=2 type=1", COMMAND_VERSION + 1, COMMAND_LEADER_START, {0}, 0},
        {"a field", "format=1 type=7", COMMAND_VERSION, COMMAND_REAP, {0}, 9},
        {"for a worker", "type=10", COMMAND_VERSION, COMMAND_RESTORE, {COMMAND_RESTORE_FINISH}, 1},
    };
    struct alone alone;
    struct buffer command = {0};
    struct write write;
    raft_index index = 0;
    bool found;

    (void)state;
    alone_prepare(&alone);
    alone_start(&alone);
    alone_put(&alone, "before", &write);
    assert_string_equal(write.failure, "");
    alone_stop(&alone);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[TEXT_BYTES_MAX];
        char expected[64];

        unknown_encode(&cases[i], &command);
        assert_false(command_valid(buffer_slice(&command)));
        index = alone_append(&alone, buffer_slice(&command), index);
        if (alone_run(&alone, text) != 1) {
            fail_msg("%s: another end: %s", cases[i].name, text);
        }
        (void)snprintf(expected, sizeof(expected), "entry %llu of the Raft log",
                       (unsigned long long)index);
        assert_non_null(strstr(text, expected));
        assert_non_null(strstr(text, cases[i].told));
        assert_non_null(strstr(text, "upgrade this server"));
        assert_true(alone_applied(&alone, "before", &found) < index);
        assert_true(found);
    }

    /* Now it knows it. */
    buffer_clear(&command);
    command_encode_kv(&command, COMMAND_KV_SET, SLICE_LITERAL("after"), SLICE_EMPTY, 0, 0, NULL);
    assert_int_equal(alone_append(&alone, buffer_slice(&command), index), index);
    alone_start(&alone);
    alone_put(&alone, "later", &write);
    assert_string_equal(write.failure, "");
    alone_stop(&alone);
    assert_true(alone_applied(&alone, "after", &found) > index);
    assert_true(found);
    buffer_deinit(&command);
    alone_remove(&alone);
}

/* Else one client could stop all servers for good. */
static void what_is_no_command_does_not_get_into_the_log(void **state)
{
    struct alone alone;
    struct buffer command = {0};
    struct write write;
    char *key = malloc(COMMAND_KEY_BYTES_MAX + 1);

    (void)state;
    assert_non_null(key);
    memset(key, 'k', COMMAND_KEY_BYTES_MAX + 1);
    alone_prepare(&alone);
    alone_start(&alone);
    command_encode_kv(&command, COMMAND_KV_SET, slice_from(key, COMMAND_KEY_BYTES_MAX + 1),
                      SLICE_EMPTY, 0, 0, NULL);
    alone_write(&alone, buffer_slice(&command), &write);
    assert_string_equal(write.failure, "the write is malformed, or beyond a bound");
    alone_write(&alone, SLICE_LITERAL("short"), &write);
    assert_string_equal(write.failure, "the write is malformed, or beyond a bound");
    alone_put(&alone, "k", &write);
    assert_string_equal(write.failure, "");
    alone_stop(&alone);
    buffer_deinit(&command);
    free(key);
    alone_remove(&alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_stops_at_a_write_of_a_newer_version_and_goes_on_when_it_knows_it),
        cmocka_unit_test(what_is_no_command_does_not_get_into_the_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
