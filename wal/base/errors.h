/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * errors.h - the one error shape of the project.
 *
 * A function that can fail returns 0 or -1 and fills a struct err that the caller gives. The first
 * error is kept: cleanup never overwrites it. Messages never hold a key, a token or a secret.
 */
#ifndef LOCKSTEP_ERRORS_H
#define LOCKSTEP_ERRORS_H

#define CHECKED __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

enum err_code {
    ERR_OK = 0,
    ERR_AGAIN,           /* full or busy now: retry after a completion */
    ERR_NOMEM,           /* allocation failed */
    ERR_IO,              /* the disk or the kernel refused; sys holds errno */
    ERR_NOSPC,           /* below the disk reserve */
    ERR_CORRUPT,         /* bytes on our disk are not what we wrote */
    ERR_PROTO,           /* bytes from a peer break the protocol */
    ERR_INVAL,           /* the caller's input is wrong; msg says how */
    ERR_NOTFOUND,        /* no such thing */
    ERR_EXISTS,          /* there already */
    ERR_BUSY,            /* in use by somebody else */
    ERR_DENIED,          /* not allowed */
    ERR_SEALED,          /* needs the barrier open */
    ERR_ROLE,            /* not in this role or state */
    ERR_CLOSED,          /* the object or the peer is gone */
    ERR_TIMEOUT,         /* the time limit passed */
    ERR_UNSUPPORTED,     /* this machine or build cannot do it */
    ERR_UNKNOWN_OUTCOME, /* durable here, not confirmed elsewhere */
};

struct err {
    enum err_code code;
    int sys; /* errno, or 0 */
    char msg[256];
};

/**
 * Fill *err (which may be NULL) and return -1. With sys != 0 the text of errno is appended.
 */
int err_set(struct err *err, enum err_code code, int sys, const char *fmt, ...) PRINTF_LIKE(4, 5);

/**
 * Put context before the message: err_wrap(err, "segment %u", n) gives "segment 7: <old message>".
 * Returns -1.
 */
int err_wrap(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/** Forget: code ERR_OK, empty message. */
void err_clear(struct err *err);

/** A short stable name, "io", "corrupt", ... for logs and tests. */
const char *err_name(enum err_code code);

#endif
