/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * errors.c - filling and wrapping struct err. A message that does not fit is cut, never overrun.
 */
#include "errors.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *err, enum err_code code, int sys, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (err == NULL)
        return -1;
    err->code = code;
    err->sys = sys;
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (sys != 0 && n >= 0 && (size_t)n < sizeof(err->msg)) {
        char text[96];
        /* the GNU form: may return a static string instead of filling text */
        snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s",
                 strerror_r(sys, text, sizeof(text)));
    }
    return -1;
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    char old[sizeof(err->msg)];
    va_list ap;
    int n;

    if (err == NULL)
        return -1;
    memcpy(old, err->msg, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof(err->msg))
        snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", old);
    return -1;
}

void err_clear(struct err *err)
{
    if (err != NULL)
        *err = (struct err){0};
}

const char *err_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_OK] = "ok",
        [ERR_AGAIN] = "again",
        [ERR_NOMEM] = "no_memory",
        [ERR_IO] = "io",
        [ERR_NOSPC] = "no_space",
        [ERR_CORRUPT] = "corrupt",
        [ERR_PROTO] = "protocol",
        [ERR_INVAL] = "invalid",
        [ERR_NOTFOUND] = "not_found",
        [ERR_EXISTS] = "exists",
        [ERR_BUSY] = "busy",
        [ERR_DENIED] = "denied",
        [ERR_SEALED] = "sealed",
        [ERR_ROLE] = "role",
        [ERR_CLOSED] = "closed",
        [ERR_TIMEOUT] = "timeout",
        [ERR_UNSUPPORTED] = "unsupported",
        [ERR_UNKNOWN_OUTCOME] = "unknown_outcome",
    };

    if ((size_t)code >= sizeof(names) / sizeof(names[0]) || names[code] == NULL)
        return "unknown";
    return names[code];
}
