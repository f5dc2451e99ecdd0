#ifndef SERVER_AGENT_PROBE_ANSWER_H
#define SERVER_AGENT_PROBE_ANSWER_H

/* The answer to an HTTP check, taken from its bytes by llhttp: status, reason, where a redirect
 * leads, and the end of the body. The other side is untrusted: all that is kept has a bound, and
 * what exceeds it is left out. */

#include <llhttp.h>
#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/slice.h"

enum {
    PROBE_RESPONSE_BYTES_MAX = 1 << 20, /* then the answer counts as complete */
};

struct probe_answer {
    llhttp_t parser;
    llhttp_settings_t settings;
    uint64_t received_bytes;
    uint64_t body_bytes_max;
    struct buffer reason;
    struct buffer body; /* at most twice body_bytes_max: cut when it grows beyond */
    struct buffer field;
    struct buffer location;
    bool in_location;
    bool head_only; /* HEAD was asked: no body follows, whatever the headers say */
    bool head_done;
    bool complete;
};

/* Ready for the answer to one request; a zeroed struct is ready for this call, and one that was in
 * use keeps its memory. The last `body_bytes_max` bytes of the body are kept. It holds pointers to
 * itself: it may not be moved from here to the last probe_answer_feed. */
void probe_answer_begin(struct probe_answer *answer, bool head_only, uint64_t body_bytes_max);
void probe_answer_deinit(struct probe_answer *answer);

/* Takes the next bytes. True when no more are needed: then either probe_answer_has_status, or
 * `*problem` is set to Go's words for what is wrong (static). */
bool probe_answer_feed(struct probe_answer *answer, struct slice bytes, const char **problem);

/* The final status is known, and counts from here on, whatever becomes of the body. */
bool probe_answer_has_status(const struct probe_answer *answer);
unsigned probe_answer_status(const struct probe_answer *answer);

/* All three valid until the next call with the answer. */
struct slice probe_answer_reason(const struct probe_answer *answer);
struct slice probe_answer_location(const struct probe_answer *answer); /* empty: none */
struct slice probe_answer_body(const struct probe_answer *answer);

#endif
