#ifndef SERVER_LOG_H
#define SERVER_LOG_H

/* The process's log: one line an event on stderr, as Consul writes them:
 * 2026-01-31T12:00:00.123Z [INFO]  agent.server.raft: entering leader state: term=7
 * The level and the tap are the only globals of the process. Safe from any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* "trace", "debug", "info", "warn"/"warning", "err"/"error", any case. */
bool log_level_parse(const char *text, enum log_level *level);
void log_level_set(enum log_level level);
bool log_enabled(enum log_level level);

/* `module` is the dotted name, e.g. "agent.http". Control bytes in the text are escaped: one event,
 * one line. */
void log_write(enum log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum {
    LOG_TEXT_BYTES_MAX = 4096, /* of one event, before escaping; the rest is cut off */
    LOG_MODULE_BYTES_MAX = 128,
    LOG_LINE_BYTES_MAX = 2 * LOG_TEXT_BYTES_MAX + 256,
};

struct log_event {
    enum log_level level;
    struct timespec when; /* wall clock */
    const char *module;
    const char *text; /* before escaping */
};

/* The event as a line with its end, without NUL. Returns its size. */
size_t log_format(char out[LOG_LINE_BYTES_MAX], const struct log_event *event);
/* "trace", "debug", "info", "warn", "error". */
const char *log_level_name(enum log_level level);

/* Somebody who follows the log besides stderr, also below its level: called with every event of at
 * least `level`, from any thread, one at a time. It must not log and must not wait. One at most;
 * NULL: nobody, and no call is under way any more. */
typedef void (*log_tap)(void *context, const struct log_event *event);
void log_tap_set(log_tap tap, void *context, enum log_level level);

#endif
