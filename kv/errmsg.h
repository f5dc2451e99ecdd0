#ifndef KV_ERRMSG_H
#define KV_ERRMSG_H

/* An error's text, filled where the context is known: what failed, on what, what to do. */

#include <stdarg.h>

enum { ERRMSG_BYTES_MAX = 512 };

struct errmsg {
    char text[ERRMSG_BYTES_MAX];
};

/* Each returns `code`, so that `return errmsg_set(err, KV_EIO, ...)` reads well. `err` may be NULL.
 */
int errmsg_set(struct errmsg *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends ": " and strerror(errno). */
int errmsg_set_errno(struct errmsg *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
