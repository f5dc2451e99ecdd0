/* What the agent keeps on disk, over a disk that hangs: the first file to be written is a pipe that
 * nobody reads. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/agent/agent_store.h"

enum { MIB = 1024 * 1024 };

struct fixture {
    uv_loop_t loop;
    struct agent_store *store;
    char dir[64];
    char pipe[512]; /* what the disk hangs in */
    size_t count;   /* of the objects that were loaded, */
    char text[64];  /* and what the last one says */
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct errmsg err = {""};

    assert_non_null(fixture);
    strcpy(fixture->dir, "/tmp/proconsul-store-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    assert_int_equal(uv_loop_init(&fixture->loop), 0);
    assert_int_equal(agent_store_new(&fixture->loop, fixture->dir, &fixture->store, &err), 0);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;
    char command[128];

    agent_store_free(fixture->store);
    assert_int_equal(uv_run(&fixture->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&fixture->loop), 0);
    (void)snprintf(command, sizeof(command), "rm -rf %s", fixture->dir);
    assert_int_equal(system(command), 0);
    free(fixture);
    return 0;
}

static void put(struct fixture *fixture, const char *id, const char *text, size_t filler_bytes)
{
    char *filler = malloc(filler_bytes + 1);

    assert_non_null(filler);
    memset(filler, 'x', filler_bytes);
    filler[filler_bytes] = '\0';
    json_t *document = json_pack("{s:s, s:s}", "Text", text, "Filler", filler);

    assert_non_null(document);
    agent_store_put(fixture->store, AGENT_STORE_SERVICES, slice_from_text(id), document);
    json_decref(document);
    free(filler);
}

static void written(struct fixture *fixture)
{
    (void)uv_run(&fixture->loop, UV_RUN_DEFAULT);
}

static void visit(void *host, const json_t *document)
{
    struct fixture *fixture = host;

    fixture->count++;
    (void)snprintf(fixture->text, sizeof(fixture->text), "%s",
                   json_string_value(json_object_get(document, "Text")));
}

static void load(struct fixture *fixture)
{
    struct errmsg err = {""};

    fixture->count = 0;
    fixture->text[0] = '\0';
    assert_int_equal(agent_store_load(fixture->store, AGENT_STORE_SERVICES, visit, fixture, &err),
                     0);
}

/* The next file that is written is that of "first", and its write does not end. */
static void hang(struct fixture *fixture)
{
    char folder[128];
    struct dirent *entry;

    put(fixture, "first", "", 0);
    written(fixture);
    (void)snprintf(folder, sizeof(folder), "%s/services", fixture->dir);
    DIR *dir = opendir(folder);

    assert_non_null(dir);
    do {
        entry = readdir(dir);
        assert_non_null(entry);
    } while (entry->d_name[0] == '.');
    (void)snprintf(fixture->pipe, sizeof(fixture->pipe), "%s/%s.tmp", folder, entry->d_name);
    (void)closedir(dir);
    assert_int_equal(mkfifo(fixture->pipe, 0600), 0);
    put(fixture, "first", "", 0);
}

static void go_on(struct fixture *fixture)
{
    const int fd = open(fixture->pipe, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    assert_true(fd >= 0);
    written(fixture);
    (void)close(fd);
}

/* Symptom: a service that registered itself again every few seconds filled the memory while the
 * disk hung. */
static void what_waits_for_the_disk_gives_way_to_what_comes_later(void **state)
{
    struct fixture *fixture = *state;

    hang(fixture);
    for (int i = 0; i < 100; i++) {
        put(fixture, "a", i < 99 ? "old" : "new", MIB);
    }
    put(fixture, "b", "removed", MIB);
    agent_store_remove(fixture->store, AGENT_STORE_SERVICES, SLICE_LITERAL("b"));
    agent_store_remove(fixture->store, AGENT_STORE_SERVICES, SLICE_LITERAL("first"));
    go_on(fixture);
    load(fixture);
    assert_int_equal(fixture->count, 1);
    assert_string_equal(fixture->text, "new");
}

static void what_waits_for_the_disk_is_bounded(void **state)
{
    struct fixture *fixture = *state;

    hang(fixture);
    for (int i = 0; i < 64; i++) {
        char id[16];

        (void)snprintf(id, sizeof(id), "%d", i);
        put(fixture, id, "", MIB);
    }
    go_on(fixture);
    load(fixture);
    assert_in_range(fixture->count, 1, 32);
    put(fixture, "later", "", MIB); /* There is room again. */
    const size_t before = fixture->count;

    written(fixture);
    load(fixture);
    assert_int_equal(fixture->count, before + 1);
}

/* Symptom: what a request of nearly 1 MiB had registered was gone after the next start. */
static void what_a_request_can_bring_is_read_again(void **state)
{
    struct fixture *fixture = *state;

    put(fixture, "a", "large", MIB);
    written(fixture);
    load(fixture);
    assert_string_equal(fixture->text, "large");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_waits_for_the_disk_gives_way_to_what_comes_later),
        TEST(what_waits_for_the_disk_is_bounded),
        TEST(what_a_request_can_bring_is_read_again),
    };
#undef TEST
    return cmocka_run_group_tests(tests, NULL, NULL);
}
