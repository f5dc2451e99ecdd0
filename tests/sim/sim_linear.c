/* The search for an order: see sim_linear.h. Depth first over pairs of (operations already put in
 * order, state of the key), each visited once. What keeps it small on the histories of a simulator:
 *  - an answer that changes nothing (reads, refused conditions) is put in order as soon as it fits,
 *    without trying to delay it: taking it out of its later place in a valid order and putting it
 *    here leaves a valid order;
 *  - of operations of unknown outcome that have the same effect only the earliest is tried;
 *  - what comes next after one of unknown outcome is something that depends on it: past all else it
 *    can be moved, and if an unconditional write or delete comes next, it need not have happened;
 *  - writes know their index where any read tells it, so that most of their order is given. */

#include "tests/sim/sim_linear.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    HISTORY_INITIAL = 64,
    SEARCH_NODES_INITIAL = 256,
    BITS_PER_WORD = 64,
};

static const uint64_t LINEAR_OPEN = UINT64_MAX;

/* Open operations of one group differ in nothing but their beginning. */
enum linear_group { LINEAR_ALONE = 0, LINEAR_OPEN_DELETE, LINEAR_OPEN_UNSEEN, LINEAR_GROUPS };

struct linear_operation {
    struct sim_linear_call call;
    struct sim_linear_answer answer;
    uint64_t start;
    uint64_t end; /* LINEAR_OPEN: not answered */
    bool dropped;
    enum linear_group group; /* while its key is judged */
};

struct sim_linear {
    struct linear_operation *operations; /* in the order of their calls */
    size_t count;
    size_t capacity;
    uint64_t moment;
};

/* --- the history --- */

struct sim_linear *sim_linear_new(void)
{
    return calloc(1, sizeof(struct sim_linear));
}

void sim_linear_free(struct sim_linear *history)
{
    if (history != NULL) {
        free(history->operations);
        free(history);
    }
}

size_t sim_linear_call(struct sim_linear *history, const struct sim_linear_call *call)
{
    if (history->count == history->capacity) {
        const size_t capacity = history->capacity == 0 ? HISTORY_INITIAL : history->capacity * 2;
        struct linear_operation *grown =
            realloc(history->operations, capacity * sizeof(*history->operations));
        if (grown == NULL) {
            return SIZE_MAX;
        }
        history->operations = grown;
        history->capacity = capacity;
    }
    history->operations[history->count] =
        (struct linear_operation){.call = *call, .start = ++history->moment, .end = LINEAR_OPEN};
    return history->count++;
}

void sim_linear_return(struct sim_linear *history, size_t operation,
                       const struct sim_linear_answer *answer)
{
    assert(operation < history->count);
    assert(history->operations[operation].end == LINEAR_OPEN);
    assert(!history->operations[operation].dropped);

    history->operations[operation].answer = *answer;
    history->operations[operation].end = ++history->moment;
}

void sim_linear_drop(struct sim_linear *history, size_t operation)
{
    assert(operation < history->count);
    assert(history->operations[operation].end == LINEAR_OPEN);

    history->operations[operation].dropped = true;
}

size_t sim_linear_count(const struct sim_linear *history)
{
    return history->count;
}

static bool linear_is_open(const struct linear_operation *operation)
{
    return operation->end == LINEAR_OPEN;
}

/* Whether its answer says that its condition did not hold. */
static bool linear_is_refused(const struct linear_operation *operation)
{
    switch (operation->call.kind) {
    case SIM_LINEAR_CAS_INDEX:
    case SIM_LINEAR_CAS_VALUE:
    case SIM_LINEAR_DELETE_CAS:
        return !linear_is_open(operation) && !operation->answer.done;
    case SIM_LINEAR_READ:
    case SIM_LINEAR_WRITE:
    case SIM_LINEAR_DELETE:
        break;
    }
    return false;
}

static bool linear_writes(const struct linear_operation *operation)
{
    switch (operation->call.kind) {
    case SIM_LINEAR_WRITE:
        return true;
    case SIM_LINEAR_CAS_INDEX:
    case SIM_LINEAR_CAS_VALUE:
        return !linear_is_refused(operation);
    case SIM_LINEAR_READ:
    case SIM_LINEAR_DELETE:
    case SIM_LINEAR_DELETE_CAS:
        break;
    }
    return false;
}

/* --- what is known of a key's operations before the search --- */

/* The operations on one key that matter, in the order of their calls. */
struct linear_key {
    struct linear_operation *operations; /* copies */
    size_t count;
};

static size_t linear_writers_of(const struct linear_key *key, uint64_t value, size_t *last)
{
    size_t writers = 0;

    for (size_t i = 0; i < key->count; i++) {
        if (linear_writes(&key->operations[i]) && key->operations[i].call.value == value) {
            writers++;
            *last = i;
        }
    }
    return writers;
}

/* Writes whose index was not told learn it from a read of their value, if it is theirs alone. */
static void linear_learn_indexes(struct linear_key *key)
{
    for (size_t i = 0; i < key->count; i++) {
        const struct linear_operation *read = &key->operations[i];
        size_t writer = 0;
        if (read->call.kind != SIM_LINEAR_READ || linear_is_open(read) || !read->answer.found ||
            read->answer.index == 0 || linear_writers_of(key, read->answer.value, &writer) != 1) {
            continue;
        }
        if (key->operations[writer].answer.index == 0) {
            key->operations[writer].answer.index = read->answer.index;
        }
    }
}

static bool linear_index_known(const struct linear_key *key, uint64_t index)
{
    for (size_t i = 0; i < key->count; i++) {
        if (linear_writes(&key->operations[i]) && key->operations[i].answer.index == index) {
            return true;
        }
    }
    return false;
}

/* Whether some answer speaks of this write's value, or of its index. */
static bool linear_is_seen(const struct linear_key *key, const struct linear_operation *write)
{
    if (write->answer.index != 0) {
        return true;
    }
    for (size_t i = 0; i < key->count; i++) {
        const struct linear_operation *other = &key->operations[i];
        if (other->call.kind == SIM_LINEAR_READ && other->answer.found &&
            other->answer.value == write->call.value) {
            return true;
        }
        if (other->call.kind == SIM_LINEAR_CAS_VALUE && other->call.expected == write->call.value) {
            return true;
        }
    }
    return false;
}

/* Whether a write that nobody has seen may still explain an answer: it may be what made a condition
 * fail, or what gave the key an index that a client knows and that is no other write's. */
static bool linear_unseen_matters(const struct linear_key *key)
{
    for (size_t i = 0; i < key->count; i++) {
        const struct linear_operation *operation = &key->operations[i];
        const bool by_index = operation->call.kind == SIM_LINEAR_CAS_INDEX ||
                              operation->call.kind == SIM_LINEAR_DELETE_CAS;
        if (linear_is_refused(operation) || (by_index && operation->call.expected != 0 &&
                                             !linear_index_known(key, operation->call.expected))) {
            return true;
        }
    }
    return false;
}

/* Drops open operations that explain nothing, and marks those that are alike. */
static void linear_prepare(struct linear_key *key)
{
    linear_learn_indexes(key);
    const bool unseen_matters = linear_unseen_matters(key);
    for (size_t i = 0; i < key->count; i++) {
        struct linear_operation *operation = &key->operations[i];
        operation->dropped = false;
        if (!linear_is_open(operation)) {
            continue;
        }
        switch (operation->call.kind) {
        case SIM_LINEAR_READ:
            operation->dropped = true;
            break;
        case SIM_LINEAR_WRITE:
        case SIM_LINEAR_CAS_INDEX:
        case SIM_LINEAR_CAS_VALUE:
            if (!linear_is_seen(key, operation)) {
                operation->dropped = !unseen_matters;
                operation->group =
                    operation->call.kind == SIM_LINEAR_WRITE ? LINEAR_OPEN_UNSEEN : LINEAR_ALONE;
            }
            break;
        case SIM_LINEAR_DELETE:
            operation->group = LINEAR_OPEN_DELETE;
            break;
        case SIM_LINEAR_DELETE_CAS:
            break;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < key->count; i++) {
        if (!key->operations[i].dropped) {
            key->operations[kept++] = key->operations[i];
        }
    }
    key->count = kept;
}

/* --- the key, as a sequential object --- */

struct linear_state {
    uint64_t present;
    uint64_t value;
    uint64_t index; /* 0: not known */
    uint64_t floor; /* highest index known so far: later changes have higher ones */
    uint64_t open;  /* 1: the last operation is one of unknown outcome, and nothing rests on it */
};

/* Whether the key may have this index; one that is not known may be any that is not too low. */
static bool linear_may_have_index(const struct linear_state *state, uint64_t index)
{
    if (state->present == 0) {
        return index == 0;
    }
    if (index == 0) {
        return false;
    }
    return state->index == 0 ? index > state->floor : state->index == index;
}

static bool linear_must_have_index(const struct linear_state *state, uint64_t index)
{
    return state->present == 0 ? index == 0 : state->index != 0 && state->index == index;
}

static bool linear_write(const struct linear_operation *operation, const struct linear_state *state,
                         struct linear_state *after)
{
    const uint64_t index = operation->answer.index;

    if (index != 0 && index <= state->floor) {
        return false;
    }
    *after = (struct linear_state){
        .present = 1,
        .value = operation->call.value,
        .index = index,
        .floor = index != 0 ? index : state->floor,
    };
    return true;
}

static void linear_remove(const struct linear_state *state, struct linear_state *after)
{
    *after = (struct linear_state){.floor = state->floor};
}

static bool linear_read(const struct linear_operation *operation, const struct linear_state *state,
                        struct linear_state *after)
{
    const struct sim_linear_answer *answer = &operation->answer;

    *after = *state;
    if (!answer->found) {
        return state->present == 0;
    }
    if (state->present == 0 || state->value != answer->value) {
        return false;
    }
    if (answer->index == 0) {
        return true;
    }
    if (!linear_may_have_index(state, answer->index)) {
        return false;
    }
    after->index = answer->index;
    after->floor = answer->index;
    return true;
}

static bool linear_cas(const struct linear_operation *operation, const struct linear_state *state,
                       struct linear_state *after)
{
    const uint64_t expected = operation->call.expected;
    const bool by_index = operation->call.kind != SIM_LINEAR_CAS_VALUE;
    const bool same_value = state->present != 0 && state->value == expected;

    if (linear_is_refused(operation)) {
        *after = *state;
        return by_index ? !linear_must_have_index(state, expected) : !same_value;
    }
    if (by_index ? !linear_may_have_index(state, expected) : !same_value) {
        return false;
    }
    return linear_write(operation, state, after);
}

static bool linear_delete_cas(const struct linear_operation *operation,
                              const struct linear_state *state, struct linear_state *after)
{
    if (linear_is_refused(operation)) {
        *after = *state;
        return state->present != 0 && !linear_must_have_index(state, operation->call.expected);
    }
    linear_remove(state, after);
    return state->present == 0 || linear_may_have_index(state, operation->call.expected);
}

/* Whether the operation can have happened in `state`, and what is after it. Open ones: whether it
 * can have had an effect. */
static bool linear_apply(const struct linear_operation *operation, const struct linear_state *state,
                         struct linear_state *after)
{
    switch (operation->call.kind) {
    case SIM_LINEAR_READ:
        return linear_read(operation, state, after);
    case SIM_LINEAR_WRITE:
        return linear_write(operation, state, after);
    case SIM_LINEAR_CAS_INDEX:
    case SIM_LINEAR_CAS_VALUE:
        return linear_cas(operation, state, after);
    case SIM_LINEAR_DELETE:
        linear_remove(state, after);
        return !linear_is_open(operation) || state->present != 0;
    case SIM_LINEAR_DELETE_CAS:
        return linear_delete_cas(operation, state, after) &&
               (!linear_is_open(operation) || state->present != 0);
    }
    return false;
}

/* --- the search --- */

/* A node is its state's words and then one bit per operation: taken or not. */
enum { STATE_WORDS = sizeof(struct linear_state) / sizeof(uint64_t) };

struct linear_search {
    const struct linear_key *key;
    size_t closed_count;
    size_t node_words;
    uint64_t *nodes;
    size_t node_count;
    size_t node_capacity;
    size_t nodes_max;
    size_t *stack; /* numbers of nodes that wait; has the nodes' capacity */
    size_t stack_count;
    size_t *table; /* open hashing: number of a node plus one */
    size_t table_capacity;
    uint64_t *scratch; /* one node */
    bool exhausted;    /* out of nodes or memory */
};

static size_t *linear_slot(const struct linear_search *search, const uint64_t *node)
{
    uint64_t hash = 0x9E3779B97F4A7C15U;

    for (size_t i = 0; i < search->node_words; i++) {
        hash = (hash ^ node[i]) * 0xBF58476D1CE4E5B9U;
        hash ^= hash >> 29;
    }
    size_t slot = (size_t)hash & (search->table_capacity - 1);
    while (search->table[slot] != 0 &&
           memcmp(search->nodes + (search->table[slot] - 1) * search->node_words, node,
                  search->node_words * sizeof(*node)) != 0) {
        slot = (slot + 1) & (search->table_capacity - 1);
    }
    return &search->table[slot];
}

/* Makes room for one more node. False: there is none. */
static bool linear_grow(struct linear_search *search)
{
    if (search->node_count < search->node_capacity) {
        return true;
    }
    size_t capacity = search->node_capacity == 0 ? SEARCH_NODES_INITIAL : search->node_capacity * 2;
    if (search->node_count == search->nodes_max) {
        return false;
    }
    uint64_t *nodes =
        realloc(search->nodes, capacity * search->node_words * sizeof(*search->nodes));
    if (nodes == NULL) {
        return false;
    }
    search->nodes = nodes;
    size_t *stack = realloc(search->stack, capacity * sizeof(*search->stack));
    if (stack == NULL) {
        return false;
    }
    search->stack = stack;
    size_t *table = calloc(capacity * 2, sizeof(*table));
    if (table == NULL) {
        return false;
    }
    free(search->table);
    search->table = table;
    search->table_capacity = capacity * 2;
    search->node_capacity = capacity;
    for (size_t i = 0; i < search->node_count; i++) {
        *linear_slot(search, search->nodes + i * search->node_words) = i + 1;
    }
    return true;
}

/* Adds the scratch node to those that wait, unless it was there before. */
static void linear_push(struct linear_search *search)
{
    if (search->node_count == search->nodes_max || !linear_grow(search)) {
        search->exhausted = true;
        return;
    }
    size_t *slot = linear_slot(search, search->scratch);
    if (*slot != 0) {
        return;
    }
    memcpy(search->nodes + search->node_count * search->node_words, search->scratch,
           search->node_words * sizeof(*search->scratch));
    search->stack[search->stack_count++] = search->node_count;
    search->node_count++;
    *slot = search->node_count;
}

static bool linear_taken(const uint64_t *node, size_t operation)
{
    return (node[STATE_WORDS + operation / BITS_PER_WORD] >> (operation % BITS_PER_WORD) & 1) != 0;
}

static void linear_take(uint64_t *node, size_t operation)
{
    node[STATE_WORDS + operation / BITS_PER_WORD] |= (uint64_t)1 << (operation % BITS_PER_WORD);
}

static bool linear_is_idle(const struct linear_operation *operation,
                           const struct linear_state *state, const struct linear_state *after)
{
    return (operation->call.kind == SIM_LINEAR_READ || linear_is_refused(operation)) &&
           memcmp(state, after, sizeof(*state)) == 0;
}

static bool linear_is_unconditional(const struct linear_operation *operation)
{
    return operation->call.kind == SIM_LINEAR_WRITE || operation->call.kind == SIM_LINEAR_DELETE;
}

/* First the operations that change nothing, in place; then one new node for each that may come
 * next. Open operations wait longest: most of them are not needed. */
static void linear_expand(struct linear_search *search, uint64_t *node)
{
    const struct linear_key *key = search->key;
    struct linear_state state;
    uint64_t first_end = LINEAR_OPEN;
    struct linear_state after;
    size_t count = 0;
    bool again = true;

    memcpy(&state, node, sizeof(state));
    bool needed = state.open != 0;
    state.open = 0;
    while (again) {
        again = false;
        first_end = LINEAR_OPEN;
        /* Whatever began after the first end among those not taken cannot come next. */
        for (count = 0; count < key->count && key->operations[count].start < first_end; count++) {
            const struct linear_operation *operation = &key->operations[count];
            if (linear_taken(node, count)) {
                continue;
            }
            if (!linear_is_open(operation) && linear_apply(operation, &state, &after) &&
                linear_is_idle(operation, &state, &after)) {
                linear_take(node, count);
                needed = false;
                again = true;
            } else if (operation->end < first_end) {
                first_end = operation->end;
            }
        }
    }
    for (int closed = 0; closed <= 1; closed++) {
        bool tried[LINEAR_GROUPS] = {false};
        for (size_t i = 0; i < count; i++) {
            const struct linear_operation *operation = &key->operations[i];
            if (linear_taken(node, i) || linear_is_open(operation) == (closed != 0) ||
                tried[operation->group] || (needed && linear_is_unconditional(operation))) {
                continue;
            }
            tried[operation->group] = operation->group != LINEAR_ALONE;
            if (linear_apply(operation, &state, &after)) {
                after.open = linear_is_open(operation) ? 1 : 0;
                memcpy(search->scratch, node, search->node_words * sizeof(*node));
                memcpy(search->scratch, &after, sizeof(after));
                linear_take(search->scratch, i);
                linear_push(search);
            }
        }
    }
}

static bool linear_is_explained(const struct linear_search *search, const uint64_t *node)
{
    for (size_t i = 0; i < search->key->count; i++) {
        if (!linear_is_open(&search->key->operations[i]) && !linear_taken(node, i)) {
            return false;
        }
    }
    return true;
}

static enum sim_linear_verdict linear_search_run(struct linear_search *search)
{
    uint64_t *node = calloc(search->node_words, sizeof(*node));
    enum sim_linear_verdict verdict = SIM_LINEAR_NO;

    search->scratch = calloc(search->node_words, sizeof(*search->scratch));
    if (node == NULL || search->scratch == NULL) {
        free(node);
        return SIM_LINEAR_UNDECIDED;
    }
    linear_push(search); /* Absent, nothing taken. */
    while (search->stack_count > 0 && verdict == SIM_LINEAR_NO) {
        const size_t number = search->stack[--search->stack_count];
        /* A copy: nodes move when more are added, and this one is not to change in its place. */
        memcpy(node, search->nodes + number * search->node_words,
               search->node_words * sizeof(*node));
        linear_expand(search, node);
        if (linear_is_explained(search, node)) {
            verdict = SIM_LINEAR_YES;
        }
    }
    if (verdict == SIM_LINEAR_NO && search->exhausted) {
        verdict = SIM_LINEAR_UNDECIDED;
    }
    free(node);
    return verdict;
}

static enum sim_linear_verdict linear_judge(struct linear_key *key, size_t states_max,
                                            uint64_t *states)
{
    linear_prepare(key);
    struct linear_search search = {
        .key = key,
        .nodes_max = states_max,
        .node_words = STATE_WORDS + (key->count + BITS_PER_WORD - 1) / BITS_PER_WORD,
    };
    const enum sim_linear_verdict verdict = linear_search_run(&search);
    *states += search.node_count;
    free(search.nodes);
    free(search.stack);
    free(search.table);
    free(search.scratch);
    return verdict;
}

/* --- all keys --- */

static int linear_compare(const void *a, const void *b)
{
    const struct linear_operation *left = a;
    const struct linear_operation *right = b;

    if (left->call.key != right->call.key) {
        return left->call.key < right->call.key ? -1 : 1;
    }
    return left->start < right->start ? -1 : left->start > right->start ? 1 : 0;
}

struct sim_linear_result sim_linear_check(const struct sim_linear *history, size_t states_max)
{
    struct sim_linear_result result = {.verdict = SIM_LINEAR_YES};
    size_t count = 0;

    struct linear_operation *sorted = calloc(history->count + 1, sizeof(*sorted));
    if (sorted == NULL) {
        return (struct sim_linear_result){.verdict = SIM_LINEAR_UNDECIDED};
    }
    for (size_t i = 0; i < history->count; i++) {
        if (!history->operations[i].dropped) {
            sorted[count++] = history->operations[i];
        }
    }
    qsort(sorted, count, sizeof(*sorted), linear_compare);
    for (size_t first = 0; first < count && result.verdict != SIM_LINEAR_NO;) {
        size_t end = first + 1;
        while (end < count && sorted[end].call.key == sorted[first].call.key) {
            end++;
        }
        struct linear_key key = {sorted + first, end - first};
        const uint64_t name = sorted[first].call.key;
        const enum sim_linear_verdict verdict = linear_judge(&key, states_max, &result.states);
        if (verdict == SIM_LINEAR_NO ||
            (verdict == SIM_LINEAR_UNDECIDED && result.verdict == SIM_LINEAR_YES)) {
            result.verdict = verdict;
            result.key = name;
        }
        first = end;
    }
    free(sorted);
    return result;
}

/* --- for people --- */

static void linear_print_answer(const struct linear_operation *operation, FILE *out)
{
    const struct sim_linear_answer *answer = &operation->answer;

    if (linear_is_open(operation)) {
        fputs("unknown", out);
    } else if (operation->call.kind == SIM_LINEAR_READ && !answer->found) {
        fputs("absent", out);
    } else if (operation->call.kind == SIM_LINEAR_READ) {
        fprintf(out, "%" PRIu64 " index %" PRIu64, answer->value, answer->index);
    } else if (linear_is_refused(operation)) {
        fputs("refused", out);
    } else {
        fprintf(out, "done index %" PRIu64, answer->index);
    }
}

void sim_linear_print(const struct sim_linear *history, uint64_t key, FILE *out)
{
    static const char *const words[] = {"",          "read",   "write",     "cas-index",
                                        "cas-value", "delete", "delete-cas"};

    for (size_t i = 0; i < history->count; i++) {
        const struct linear_operation *operation = &history->operations[i];
        const struct sim_linear_call *call = &operation->call;
        if (call->key != key || operation->dropped) {
            continue;
        }
        fprintf(out, "%6" PRIu64 "..", operation->start);
        if (linear_is_open(operation)) {
            fputs("      ", out);
        } else {
            fprintf(out, "%-6" PRIu64, operation->end);
        }
        fprintf(out, " client %" PRIu64 " %s value %" PRIu64 " expected %" PRIu64 ": ",
                call->client, words[call->kind], call->value, call->expected);
        linear_print_answer(operation, out);
        fputc('\n', out);
    }
}
