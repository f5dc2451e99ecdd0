#ifndef SERVER_LOG_H
#define SERVER_LOG_H

/* The process's log: one line an event on stderr, as Consul writes them:
 * 2026-01-31T12:00:00.123Z [INFO]  agent.server.raft: entering leader state: term=7
 * The level is the only global of the process; set at start and on reload. Safe from any thread. */

#include <stdbool.h>

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* "trace", "debug", "info", "warn"/"warning", "err"/"error", any case. */
bool log_level_parse(const char *text, enum log_level *level);
void log_level_set(enum log_level level);
bool log_enabled(enum log_level level);

/* `module` is the dotted name, e.g. "agent.http". Control bytes in the text are escaped: one event,
 * one line. */
void log_write(enum log_level level, const char *module, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
