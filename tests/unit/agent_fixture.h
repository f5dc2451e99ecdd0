#ifndef TESTS_UNIT_AGENT_FIXTURE_H
#define TESTS_UNIT_AGENT_FIXTURE_H

/* An agent over a replica that is a store alone (http_fixture.h), and a membership that is a list.
 * Included by one program each, after cmocka.h: it defines the membership's functions, too. */

#include "server/agent/agent_internal.h"
#include "server/gossip/membership.h"
#include "tests/unit/http_fixture.h"

/* --- membership: this server, and others that a test adds --- */

struct membership {
    struct member members[2];
    size_t count;
};

size_t membership_count(const struct membership *membership)
{
    return membership->count;
}

const struct member *membership_at(const struct membership *membership, size_t position)
{
    assert(position < membership->count);
    return &membership->members[position];
}

const struct member *membership_find(const struct membership *membership, const struct uuid *id)
{
    for (size_t i = 0; i < membership->count; i++) {
        if (uuid_equal(&membership->members[i].id, id)) {
            return &membership->members[i];
        }
    }
    return NULL;
}

void membership_join(struct membership *membership, const char *address,
                     void (*done)(void *context, const char *failure), void *context)
{
    (void)membership;
    (void)address;
    done(context, "refused");
}

/* --- the agent --- */

struct fixture {
    struct http_fixture http;
    struct membership membership;
    struct agent *agent; /* NULL: it is shut */
    char data_dir[64];   /* "": the agent keeps nothing */
};

/* All but the agent: what it is started with may be changed before agent_open. */
static inline struct fixture *fixture_new(void)
{
    static char address[] = "10.0.0.1";
    struct fixture *fixture = calloc(1, sizeof(*fixture));

    assert_non_null(fixture);
    http_fixture_open(&fixture->http, 0);
    fixture->http.config.advertise_addr = address;
    strcpy(fixture->http.server.node_id_text, "99999999-2222-3333-4444-555555555555");
    fixture->membership.count = 1;
    fixture->membership.members[0] = (struct member){.name = "node1",
                                                     .address = "10.0.0.1",
                                                     .server_port = 8300,
                                                     .status = MEMBER_ALIVE,
                                                     .self = true};
    assert_true(uuid_parse(slice_from_text(fixture->http.server.node_id_text),
                           &fixture->membership.members[0].id));
    fixture->http.server.membership = &fixture->membership;
    return fixture;
}

static inline void agent_open(struct fixture *fixture)
{
    struct errmsg err = {""};
    const int rc = agent_new(&fixture->http.server, &fixture->agent, &err);

    if (rc != AGENT_OK) {
        print_error("%s\n", err.text);
    }
    assert_int_equal(rc, AGENT_OK);
    fixture->http.server.agent = fixture->agent;
}

/* Frees the agent and lets everything that it asked for come back. */
static inline void agent_shut(struct fixture *fixture)
{
    agent_free(fixture->agent);
    fixture->agent = NULL;
    fixture->http.server.agent = NULL;
    for (int i = 0; i < 20 || fixture->http.loop.active_reqs.count > 0; i++) {
        (void)uv_run(&fixture->http.loop, UV_RUN_NOWAIT);
    }
}

static inline void fixture_free(struct fixture *fixture)
{
    char command[128];

    if (fixture->agent != NULL) {
        agent_shut(fixture);
    }
    http_fixture_close(&fixture->http);
    if (fixture->data_dir[0] != '\0') {
        (void)snprintf(command, sizeof(command), "rm -rf %s", fixture->data_dir);
        assert_int_equal(system(command), 0);
    }
    json_decref(fixture->http.config.services);
    json_decref(fixture->http.config.checks);
    free(fixture);
}

#endif
