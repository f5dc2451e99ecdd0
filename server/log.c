#include "server/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

/* Relaxed is enough: a line more or less around a change of level does not matter. */
static atomic_int log_level_now = LOG_INFO;
static atomic_int log_tap_level = LOG_ERROR + 1; /* above all: nobody taps */

/* Held while the tap runs or changes. */
static pthread_mutex_t log_tap_lock = PTHREAD_MUTEX_INITIALIZER;
static log_tap log_tap_call;
static void *log_tap_context;

static const struct {
    const char *name;
    enum log_level level;
} log_level_names[] = {
    {"trace", LOG_TRACE},  {"debug", LOG_DEBUG}, {"info", LOG_INFO},   {"warn", LOG_WARN},
    {"warning", LOG_WARN}, {"err", LOG_ERROR},   {"error", LOG_ERROR},
};

bool log_level_parse(const char *text, enum log_level *level)
{
    for (size_t i = 0; i < sizeof(log_level_names) / sizeof(log_level_names[0]); i++) {
        if (strcasecmp(text, log_level_names[i].name) == 0) {
            *level = log_level_names[i].level;
            return true;
        }
    }
    return false;
}

void log_level_set(enum log_level level)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed) ||
           (int)level >= atomic_load_explicit(&log_tap_level, memory_order_relaxed);
}

const char *log_level_name(enum log_level level)
{
    switch (level) {
    case LOG_TRACE:
        return "trace";
    case LOG_DEBUG:
        return "debug";
    case LOG_INFO:
        return "info";
    case LOG_WARN:
        return "warn";
    case LOG_ERROR:
        return "error";
    }
    return "error";
}

void log_tap_set(log_tap tap, void *context, enum log_level level)
{
    (void)pthread_mutex_lock(&log_tap_lock); /* fails for recursion only: the tap does not log */
    log_tap_call = tap;
    log_tap_context = context;
    atomic_store_explicit(&log_tap_level, tap == NULL ? LOG_ERROR + 1 : (int)level,
                          memory_order_relaxed);
    (void)pthread_mutex_unlock(&log_tap_lock);
}

/* Padded to one width, so that modules stand in a column. */
static const char *log_level_label(enum log_level level)
{
    switch (level) {
    case LOG_TRACE:
        return "[TRACE]";
    case LOG_DEBUG:
        return "[DEBUG]";
    case LOG_INFO:
        return "[INFO] ";
    case LOG_WARN:
        return "[WARN] ";
    case LOG_ERROR:
        return "[ERROR]";
    }
    return "[?]    ";
}

/* 2026-01-31T12:00:00.123Z, in local time with its offset as Consul has it. */
static size_t log_format_time(char *out, size_t out_bytes, const struct timespec *when)
{
    struct tm parts;
    char seconds[32];
    char zone[8];

    if (localtime_r(&when->tv_sec, &parts) == NULL ||
        strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &parts) == 0 ||
        strftime(zone, sizeof(zone), "%z", &parts) == 0) {
        return 0;
    }
    const char *suffix = strcmp(zone, "+0000") == 0 ? "Z" : zone;
    const int size =
        snprintf(out, out_bytes, "%s.%03ld%s ", seconds, when->tv_nsec / 1000000, suffix);
    return size > 0 && (size_t)size < out_bytes ? (size_t)size : 0;
}

/* Whether text[at] is of a control character beyond ASCII, U+0080 to U+009F, which is C2 80 to C2
 * 9F in UTF-8: some terminals obey U+009B as ESC [. */
static bool log_is_high_control(const char *text, size_t at)
{
    const unsigned char *bytes = (const unsigned char *)text;
    const size_t second = bytes[at] == 0xc2 ? at + 1 : at;

    return second > 0 && bytes[second - 1] == 0xc2 && (bytes[second] & 0xe0) == 0x80;
}

/* Copies text with control characters as \n, \t or \xNN: one event stays one line, and a terminal
 * is not driven by what a stranger put into a name. Returns the size written. */
static size_t log_escape(char *out, size_t out_bytes, const char *text)
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;

    for (size_t i = 0; text[i] != '\0' && at + 4 <= out_bytes; i++) {
        const unsigned char c = (unsigned char)text[i];

        if (c >= ' ' && c != 0x7f && !log_is_high_control(text, i)) {
            out[at++] = (char)c;
        } else if (c == '\n' || c == '\t') {
            out[at++] = '\\';
            out[at++] = c == '\n' ? 'n' : 't';
        } else {
            out[at++] = '\\';
            out[at++] = 'x';
            out[at++] = hex[c >> 4];
            out[at++] = hex[c & 15];
        }
    }
    return at;
}

size_t log_format(char out[LOG_LINE_BYTES_MAX], const struct log_event *event)
{
    size_t size = log_format_time(out, LOG_LINE_BYTES_MAX, &event->when);
    const int label_size =
        snprintf(out + size, 160, "%s %.128s: ", log_level_label(event->level), event->module);

    size += label_size > 0 ? (size_t)label_size : 0;
    size += log_escape(out + size, LOG_LINE_BYTES_MAX - size - 1, event->text);
    out[size++] = '\n';
    return size;
}

static void log_tap_tell(const struct log_event *event)
{
    (void)pthread_mutex_lock(&log_tap_lock);
    if (log_tap_call != NULL && (int)event->level >= atomic_load(&log_tap_level)) {
        log_tap_call(log_tap_context, event);
    }
    (void)pthread_mutex_unlock(&log_tap_lock);
}

void log_write(enum log_level level, const char *module, const char *format, ...)
{
    char text[LOG_TEXT_BYTES_MAX];
    char line[LOG_LINE_BYTES_MAX];
    struct log_event event = {.level = level, .module = module, .text = text};
    va_list arguments;

    if (!log_enabled(level)) {
        return;
    }
    va_start(arguments, format);
    const int text_size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (text_size < 0) {
        return; /* Only a broken format can do that; there is nobody to tell. */
    }
    (void)clock_gettime(CLOCK_REALTIME, &event.when); /* Cannot fail for this clock. */
    if ((int)level >= atomic_load_explicit(&log_tap_level, memory_order_relaxed)) {
        log_tap_tell(&event);
    }
    if ((int)level < atomic_load_explicit(&log_level_now, memory_order_relaxed)) {
        return;
    }
    /* One write, so that lines of several threads don't mix. A log that cannot be written must not
     * stop the server. */
    const ssize_t written = write(STDERR_FILENO, line, log_format(line, &event));
    (void)written;
}
