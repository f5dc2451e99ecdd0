#ifndef TESTS_SIM_SIM_LINEAR_H
#define TESTS_SIM_SIM_LINEAR_H

/* Whether a history of operations on keys is linearizable: whether there is an order of them, each
 * between its call and its return, that explains all answers. Wing and Gong's search with Lowe's
 * memory of visited states ("Testing for linearizability", 2017), key by key, since histories of
 * different keys can be judged apart.
 *
 * How a history is written down: sim_linear_call() when a client sends, then once
 * sim_linear_return() with the answer, or sim_linear_drop() when the answer says that nothing has
 * happened (refused before it was proposed), or neither: then the outcome is unknown, and the
 * operation may take effect at any later moment or never. The order of these calls is the real
 * time, so make them in the order in which things happen. An attempt that a client repeats is an
 * operation of its own.
 *
 * A key is absent, or has a value and the index that its last change gave it (ModifyIndex). Give
 * every write of a key a value of its own: it is by values that reads tell writes apart, and writes
 * whose index the client was not told learn it from the reads of their value. What does not fit
 * into the operations below: a lock that is granted is a write (acquire, release), one that is
 * refused is dropped; an expired session's hold on a key is a write or delete by nobody, called
 * where it may earliest happen, and left open. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum sim_linear_kind {
    SIM_LINEAR_READ = 1,
    SIM_LINEAR_WRITE,
    SIM_LINEAR_CAS_INDEX,  /* write if the key has index `expected`; 0: if it is absent */
    SIM_LINEAR_CAS_VALUE,  /* write if the key has value `expected` */
    SIM_LINEAR_DELETE,     /* also of an absent key */
    SIM_LINEAR_DELETE_CAS, /* delete if the key has index `expected`; done, too, if it is absent */
};

/* What is called. `value`: writes and cas: what is written. */
struct sim_linear_call {
    enum sim_linear_kind kind;
    uint64_t key;
    uint64_t client; /* for the report alone */
    uint64_t value;
    uint64_t expected;
};

/* What was answered. */
struct sim_linear_answer {
    bool found;     /* read */
    uint64_t value; /* read, if found */
    uint64_t index; /* read: the key's index; writes that were done: the index that they gave the
                     * key; 0: not told */
    bool done;      /* cas and delete_cas: whether the condition held; ignored for others */
};

enum sim_linear_verdict {
    SIM_LINEAR_YES = 1,
    SIM_LINEAR_NO,
    SIM_LINEAR_UNDECIDED, /* not within that many states */
};

struct sim_linear_result {
    enum sim_linear_verdict verdict;
    uint64_t key;    /* of what was not YES */
    uint64_t states; /* visited, over all keys */
};

struct sim_linear; /* a history */

/* Returns owned, NULL when out of memory; free with sim_linear_free (NULL is fine). */
struct sim_linear *sim_linear_new(void);
void sim_linear_free(struct sim_linear *history);

/* Returns the operation's number for the two below; SIZE_MAX when out of memory. */
size_t sim_linear_call(struct sim_linear *history, const struct sim_linear_call *call);
/* Once per operation. */
void sim_linear_return(struct sim_linear *history, size_t operation,
                       const struct sim_linear_answer *answer);
/* It is known to have had no effect and tells nothing: as if it had never been called. */
void sim_linear_drop(struct sim_linear *history, size_t operation);
size_t sim_linear_count(const struct sim_linear *history);

/* Judges all keys; stops at the first that is not linearizable, else reports the first undecided
 * one. At most `states_max` states are visited per key (about 100 bytes each, more for keys with
 * more than some hundreds of operations). UNDECIDED, too, when out of memory. */
struct sim_linear_result sim_linear_check(const struct sim_linear *history, size_t states_max);
/* Writes the operations on `key` in the order of their calls, one a line. */
void sim_linear_print(const struct sim_linear *history, uint64_t key, FILE *out);

#endif
