/* What operators ask for: it goes to the leader, which does it and answers. */

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "server/replica/replica_internal.h"

#define OPERATOR_LOG "agent.server.operator"
#define OPERATOR_NO_LEADER "No cluster leader"
#define OPERATOR_LOST "leadership lost while committing log"
#define OPERATOR_MANY "too many requests at once, try again"

/* --- requests --- */

static struct replica_request *operator_new(struct replica *replica,
                                            enum replica_operation operation, struct slice argument)
{
    struct replica_request *request = calloc(1, sizeof(*request) + argument.size);

    if (request == NULL) {
        replica_fatal("out of memory");
    }
    request->operation = operation;
    request->state = REQUEST_QUEUED;
    request->start_ms = replica_now_ms(replica);
    request->argument_size = argument.size;
    if (argument.size > 0) {
        memcpy(request->argument, argument.data, argument.size);
    }
    REPLICA_LIST_APPEND(&replica->requests, request);
    replica_wake(replica);
    return request;
}

void replica_operate(struct replica *replica, enum replica_operation operation,
                     struct slice argument, replica_operate_done done, void *context)
{
    struct replica_request *request;

    if (argument.size > REPLICA_OPERATE_BYTES_MAX) {
        argument.size = REPLICA_OPERATE_BYTES_MAX; /* Nothing has so long a name. */
    }
    request = operator_new(replica, operation, argument);
    request->done = done;
    request->context = context;
}

static void operator_answer_remote(struct replica *replica, raft_id from, uint64_t request,
                                   enum message_status status, struct slice text)
{
    buffer_clear(&replica->scratch);
    message_put_operated(&replica->scratch, request, status, text);
    (void)peers_send(replica->peers, from, MESSAGE_OPERATED,
                     buffer_slice(&replica->scratch)); /* Lost: the asker gives up by itself. */
}

/* Ends it: `failure` NULL when it was done. */
static void operator_finish(struct replica *replica, struct replica_request *request,
                            const char *failure, struct slice answer)
{
    REPLICA_LIST_REMOVE(&replica->requests, request);
    if (request->from == 0) {
        request->done(request->context, failure, answer);
    } else {
        operator_answer_remote(replica, request->from, request->request,
                               failure == NULL ? MESSAGE_OK : MESSAGE_FAILED,
                               failure == NULL ? answer : slice_from_text(failure));
    }
    free(request);
}

/* --- on the leader --- */

static const struct raft_server *operator_find(const struct replica *replica,
                                               const struct replica_request *request)
{
    const struct raft_configuration *configuration = raft_configuration(replica->raft);
    const struct slice argument = slice_from(request->argument, request->argument_size);

    for (size_t i = 0; i < configuration->count; i++) {
        struct replica_server_info info;
        char id[UUID_TEXT_BYTES + 1];

        if (!replica_server_info(&configuration->servers[i], &info)) {
            continue;
        }
        uuid_format(&info.node_id, id);
        if (slice_equal(argument,
                        slice_from_text(request->operation == REPLICA_REMOVE_ADDRESS ? info.address
                                                                                     : id))) {
            return &configuration->servers[i];
        }
    }
    return NULL;
}

static void operator_not_found(struct replica *replica, struct replica_request *request)
{
    char text[REPLICA_OPERATE_BYTES_MAX + 64];

    (void)snprintf(text, sizeof(text), "%s \"%.*s\" was not found in the Raft configuration",
                   request->operation == REPLICA_REMOVE_ADDRESS ? "address" : "id",
                   (int)request->argument_size, request->argument);
    operator_finish(replica, request, text, SLICE_EMPTY);
}

static void operator_remove(struct replica *replica, struct replica_request *request,
                            uint64_t now_ms)
{
    const struct raft_server *server = operator_find(replica, request);
    raft_index index;
    raft_id id;
    int rc;

    if (server == NULL) {
        operator_not_found(replica, request);
        return;
    }
    id = server->id;
    rc = replica_membership_remove(replica, id, &index);
    if (rc == RAFT_EINVAL) {
        operator_finish(replica, request, "need at least one voter in configuration", SLICE_EMPTY);
    } else if (rc == RAFT_OK) {
        log_write(LOG_WARN, OPERATOR_LOG, "removed Raft peer: peer=%.*s",
                  (int)request->argument_size, request->argument);
        replica_membership_ban(replica, id, now_ms);
        request->state = REQUEST_CHANGING;
        request->term = replica->term;
        request->index = index;
    } /* Else another change is under way: tried again. */
}

static void operator_transfer(struct replica *replica, struct replica_request *request)
{
    const struct raft_server *server = NULL;
    int rc;

    if (request->argument_size > 0) {
        server = operator_find(replica, request);
        if (server == NULL) {
            operator_not_found(replica, request);
            return;
        }
        if (server->id == replica->id) {
            operator_finish(replica, request, "cannot transfer leadership to itself", SLICE_EMPTY);
            return;
        }
        const struct raft_event event = {
            .type = RAFT_EVENT_TRANSFER, .now_ms = replica_clock_ms(replica), .peer = server->id};

        replica_step(replica, &event, &rc);
    } else {
        rc = replica_transfer(replica, true);
    }
    if (rc == RAFT_OK) {
        request->state = REQUEST_TRANSFERRING;
        request->term = replica->term;
    } else if (rc == RAFT_EINVAL) {
        operator_finish(replica, request, "cannot find peer", SLICE_EMPTY);
    } else if (rc != RAFT_ENOTLEADER) {
        operator_finish(replica, request, raft_strerror(rc), SLICE_EMPTY);
    }
}

static void operator_health(struct replica *replica, struct replica_request *request)
{
    struct buffer answer = {0};

    if (replica->autopilot.term != replica->term) {
        return; /* Its leadership has not quite begun. */
    }
    replica_health_encode(replica, &answer);
    operator_finish(replica, request, answer.failed ? "out of memory" : NULL,
                    buffer_slice(&answer));
    buffer_deinit(&answer);
}

static void operator_lead(struct replica *replica, struct replica_request *request, uint64_t now_ms)
{
    switch (request->operation) {
    case REPLICA_HEALTH:
        operator_health(replica, request);
        break;
    case REPLICA_REMOVE_ID:
    case REPLICA_REMOVE_ADDRESS:
        operator_remove(replica, request, now_ms);
        break;
    case REPLICA_TRANSFER:
        operator_transfer(replica, request);
        break;
    }
}

void replica_on_operate(struct replica *replica, raft_id from, struct slice payload)
{
    struct replica_request *request;
    uint64_t number;
    uint8_t operation;
    struct slice argument;
    size_t count = 0;

    if (!message_get_operate(payload, &number, &operation, &argument) ||
        argument.size > REPLICA_OPERATE_BYTES_MAX || operation < REPLICA_HEALTH ||
        operation > REPLICA_OPERATION_LAST) {
        log_write(LOG_WARN, OPERATOR_LOG, "dropped a malformed request");
        return;
    }
    for (request = replica->requests.first; request != NULL; request = request->next) {
        count++;
    }
    if (replica->role != RAFT_LEADER) {
        operator_answer_remote(replica, from, number, MESSAGE_NOT_LEADER, SLICE_EMPTY);
    } else if (count >= REPLICA_REQUESTS_MAX) {
        operator_answer_remote(replica, from, number, MESSAGE_FAILED, SLICE_LITERAL(OPERATOR_MANY));
    } else {
        request = operator_new(replica, (enum replica_operation)operation, argument);
        request->from = from;
        request->request = number;
    }
}

/* --- on others --- */

static void operator_forward(struct replica *replica, struct replica_request *request)
{
    if (replica->leader == 0 || !peers_is_up(replica->peers, replica->leader)) {
        return;
    }
    request->request = ++replica->last_request;
    buffer_clear(&replica->scratch);
    message_put_operate(&replica->scratch, request->request, (uint8_t)request->operation,
                        slice_from(request->argument, request->argument_size));
    if (peers_send(replica->peers, replica->leader, MESSAGE_OPERATE,
                   buffer_slice(&replica->scratch))) {
        request->state = REQUEST_SENT;
        request->sent_to = replica->leader;
    }
}

void replica_on_operated(struct replica *replica, raft_id from, struct slice payload)
{
    struct replica_request *request = replica->requests.first;
    enum message_status status;
    uint64_t number;
    struct slice text;
    char failure[REPLICA_OPERATE_BYTES_MAX + 64];

    if (!message_get_operated(payload, &number, &status, &text)) {
        log_write(LOG_WARN, OPERATOR_LOG, "dropped a malformed answer");
        return;
    }
    while (request != NULL && (request->state != REQUEST_SENT || request->request != number ||
                               request->sent_to != from)) {
        request = request->next;
    }
    if (request == NULL) {
        return; /* It has been given up. */
    }
    switch (status) {
    case MESSAGE_OK:
        operator_finish(replica, request, NULL, text);
        break;
    case MESSAGE_NOT_LEADER:
        request->state = REQUEST_QUEUED;
        break;
    case MESSAGE_FAILED:
        (void)snprintf(failure, sizeof(failure), "%.*s",
                       (int)(text.size < sizeof(failure) ? text.size : sizeof(failure) - 1),
                       text.data);
        operator_finish(replica, request, failure, SLICE_EMPTY);
        break;
    }
}

void replica_operator_peer_lost(struct replica *replica, raft_id id)
{
    struct replica_request *next;

    for (struct replica_request *request = replica->requests.first; request != NULL;
         request = next) {
        next = request->next;
        if (request->state != REQUEST_SENT || request->sent_to != id) {
            continue;
        }
        if (request->operation == REPLICA_HEALTH) {
            request->state = REQUEST_QUEUED; /* Asking twice does no harm. */
        } else {
            operator_finish(replica, request, OPERATOR_LOST, SLICE_EMPTY);
        }
    }
}

/* --- the turn --- */

/* A change of the configuration that was proposed here. */
static void operator_changing(struct replica *replica, struct replica_request *request)
{
    if (raft_commit_index(replica->raft) >= request->index) {
        const bool kept = raft_term_at(replica->raft, request->index) == request->term;

        operator_finish(replica, request, kept ? NULL : OPERATOR_LOST, SLICE_EMPTY);
    } else if (replica->role != RAFT_LEADER || replica->term != request->term) {
        operator_finish(replica, request, OPERATOR_LOST, SLICE_EMPTY);
    }
}

static void operator_transferring(struct replica *replica, struct replica_request *request)
{
    if (replica->role != RAFT_LEADER || replica->term != request->term) {
        if (replica->leader != 0) {
            operator_finish(replica, request, NULL, SLICE_EMPTY);
        } /* Else the target is being elected. */
    } else if (raft_transfer_target(replica->raft) == 0) {
        operator_finish(replica, request, "leadership transfer timeout", SLICE_EMPTY);
    }
}

static void operator_turn(struct replica *replica, struct replica_request *request, uint64_t now_ms)
{
    switch (request->state) {
    case REQUEST_QUEUED:
        if (replica->role == RAFT_LEADER) {
            operator_lead(replica, request, now_ms);
        } else if (request->from != 0) {
            operator_answer_remote(replica, request->from, request->request, MESSAGE_NOT_LEADER,
                                   SLICE_EMPTY);
            REPLICA_LIST_REMOVE(&replica->requests, request);
            free(request);
        } else {
            operator_forward(replica, request);
        }
        break;
    case REQUEST_SENT:
        break;
    case REQUEST_CHANGING:
        operator_changing(replica, request);
        break;
    case REQUEST_TRANSFERRING:
        operator_transferring(replica, request);
        break;
    }
}

void replica_operator_turn(struct replica *replica, uint64_t now_ms)
{
    const uint64_t hold_ms = replica->server->config->rpc_hold_timeout_ms;
    struct replica_request *next;

    for (struct replica_request *request = replica->requests.first; request != NULL;
         request = next) {
        next = request->next;
        if (now_ms - request->start_ms >= hold_ms) {
            operator_finish(replica, request,
                            request->state == REQUEST_QUEUED ? OPERATOR_NO_LEADER : OPERATOR_LOST,
                            SLICE_EMPTY);
        } else {
            operator_turn(replica, request, now_ms);
        }
    }
}

void replica_operator_stop(struct replica *replica)
{
    while (replica->requests.first != NULL) {
        struct replica_request *request;

        REPLICA_LIST_POP(&replica->requests, request);
        if (request->from == 0) {
            request->done(request->context, "the server is shutting down", SLICE_EMPTY);
        }
        free(request);
    }
}

/* --- leaving --- */

static void operator_on_left(void *context, const char *failure, struct slice answer)
{
    struct replica *replica = context;
    void (*done)(void *context) = replica->left_done;

    (void)answer;
    if (failure != NULL) {
        log_write(LOG_WARN, OPERATOR_LOG, "leaving without being taken out first: %s", failure);
    }
    replica->left_done = NULL;
    if (replica->server->membership != NULL) {
        membership_leave(replica->server->membership);
    }
    if (done != NULL) {
        done(replica->left_context);
    }
}

void replica_leave(struct replica *replica, void (*done)(void *context), void *context)
{
    char id[UUID_TEXT_BYTES + 1];

    assert(replica->left_done == NULL);
    replica->left_done = done;
    replica->left_context = context;
    uuid_format(&replica->server->node_id, id);
    replica_operate(replica, REPLICA_REMOVE_ID, slice_from_text(id), operator_on_left, replica);
}
