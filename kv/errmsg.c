#include "kv/errmsg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Text that does not fit is cut. */
static void errmsg_format(struct errmsg *err, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

static void errmsg_format(struct errmsg *err, const char *format, va_list arguments)
{
    if (vsnprintf(err->text, sizeof(err->text), format, arguments) < 0) {
        err->text[0] = '\0';
    }
}

int errmsg_set(struct errmsg *err, int code, const char *format, ...)
{
    if (err != NULL) {
        va_list arguments;

        va_start(arguments, format);
        errmsg_format(err, format, arguments);
        va_end(arguments);
    }
    return code;
}

int errmsg_set_errno(struct errmsg *err, int code, const char *format, ...)
{
    const int error = errno; /* Before anything here can change it. */

    if (err != NULL) {
        va_list arguments;

        va_start(arguments, format);
        errmsg_format(err, format, arguments);
        va_end(arguments);
        const size_t size = strlen(err->text);
        (void)snprintf(err->text + size, sizeof(err->text) - size, ": %s", strerror(error));
    }
    return code;
}
