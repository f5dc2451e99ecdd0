#ifndef SESSION_TIMERS_H
#define SESSION_TIMERS_H

/* The leader's TTL timers: which session expires when. Pure: time comes in. A session expires 2 x
 * TTL after its creation or last renewal, never before TTL (Consul's contract). */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/uuid.h"

struct session_timers;

int session_timers_new(struct session_timers **out); /* STORE_ENOMEM */
void session_timers_free(struct session_timers *timers);
void session_timers_clear(struct session_timers *timers);

/* Starts, or starts anew, a session's timer: it is due at now_ms + 2 * ttl_ms. A ttl_ms of 0 is no
 * TTL, and no timer. STORE_ENOMEM: nothing has changed. */
int session_timers_reset(struct session_timers *timers, const struct uuid *id, uint64_t ttl_ms,
                         uint64_t now_ms);
void session_timers_remove(struct session_timers *timers, const struct uuid *id);
bool session_timers_has(const struct session_timers *timers, const struct uuid *id);

/* When the next one is due; UINT64_MAX if none runs. */
uint64_t session_timers_next_ms(const struct session_timers *timers);
/* Takes out one session that is due at now_ms. False when none is. The caller proposes its end, and
 * if that fails restarts the timer with session_timers_retry. */
bool session_timers_expire(struct session_timers *timers, uint64_t now_ms, struct uuid *id);
/* Makes a session due at `due_ms`. STORE_ENOMEM: nothing has changed. */
int session_timers_retry(struct session_timers *timers, const struct uuid *id, uint64_t due_ms);
/* Moves all deadlines by `gap_ms`: the process was stopped for so long. */
void session_timers_extend(struct session_timers *timers, uint64_t gap_ms);
size_t session_timers_count(const struct session_timers *timers);

#endif
