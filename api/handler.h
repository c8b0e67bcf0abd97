/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * handler.h - what a backend (sys, token, kv v1, kv v2, cubbyhole, ...) sees of a request.
 *
 * A handler runs on a coroutine of a reactor, reads top to bottom and may wait for latches and
 * commits. It sees plain paths and JSON; only the barrier sees keys; only the engine sees LSNs. It
 * fills the response and returns; it never touches sockets. Memory from request->arena lives until
 * the answer is sent.
 */
#ifndef LOCKSTEP_HANDLER_H
#define LOCKSTEP_HANDLER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "errors.h"
#include "http.h"
#include "txn.h"

struct core;  /* core.h: the server's state */
struct mount; /* mounts.h */
struct token; /* token.h */

enum op { OP_READ, OP_WRITE, OP_DELETE, OP_LIST, OP_PATCH };
/* OP_WRITE is POST and PUT: create or update is decided for the ACL by the backend's existence
 * check. */

struct wrap_info {
    char token[64], accessor[64];
    int64_t ttl_s, creation_ms;
    const char *creation_path; /* arena */
    char wrapped_accessor[64]; /* or empty */
    const char *jwt;           /* arena; replaces token in the answer when not NULL */
};

struct request {
    struct core *core;
    struct arena *arena;
    const struct http_request *http;
    enum op op;
    char id[37];      /* request_id */
    const char *path; /* relative to the mount: "data/a/b", for LIST with trailing '/' or empty */
    const char *full_path; /* "s2/data/a/b", without v1/ */
    const struct mount *mount;
    json_t *
        data; /* body fields merged with query fields; an object, never NULL; owned by the router */
    json_t *query;             /* query fields alone */
    bool body_absent;          /* no body, or null */
    const struct token *token; /* NULL on unauthenticated paths without token */
    const char *client_token;  /* as sent, or NULL */
    int64_t wrap_ttl_s;        /* 0: not asked for */
    bool wrap_jwt;             /* X-Vault-Wrap-Format: jwt */
    int64_t now_ms;
    json_t *keep; /* array or NULL: what must live as long as the request; the router drops it at
                     the end */
};

/** Give v (stolen) to the request. Returns v, or NULL (v is dropped) when out of memory or v is
 * NULL. */
static inline json_t *request_keep(struct request *rq, json_t *v)
{
    if (rq->keep == NULL)
        rq->keep = json_array();
    return v != NULL && json_array_append_new(rq->keep, v) == 0 ? v : NULL;
}

struct response {
    int status;   /* 0: derived: 200 with data/auth, 204 without */
    json_t *data; /* owned */
    const char
        *data_text; /* arena: an object as json_write wrote it, where data would be; NULL: none */
    size_t data_text_len;
    bool data_null;   /* envelope with "data":null even though there is nothing else */
    json_t *auth;     /* owned: the auth block */
    json_t *raw;      /* owned: a bare body without envelope */
    const char *text; /* a bare text body (arena), with content_type */
    const char *content_type;
    struct http_stream stream; /* a bare body, made while it is sent, with content_type; next NULL:
                                  none */
    json_t *warnings;          /* owned array or NULL */
    json_t *errors;            /* owned array: an error answer; status must be set */
    json_t *top; /* owned object: copies beside the envelope (VAULT's double reply); `double_reply`
                    makes it from data */
    bool double_reply;
    struct wrap_info *wrap; /* arena */
    const char *lease_id;
    bool renewable;
    int64_t lease_duration;
    bool no_wrap;      /* never wrap this answer */
    int retry_after_s; /* 0: no such header */
};

typedef void handler_fn(struct request *rq, struct response *rs);

/* ---- answers ---- */
void reply_error(struct response *rs, int status, const char *fmt, ...)
    PRINTF_LIKE(3, 4); /* {"errors":[text]} */
void reply_router_error(struct response *rs, int status, const char *fmt, ...)
    PRINTF_LIKE(3, 4); /* "1 error occurred:\n\t* ...\n\n" */
/** The same without that frame: errors of what needs no token come to the client as they are. */
void reply_unwrap_error(struct response *rs);
void reply_no_errors(struct response *rs, int status); /* {"errors":[]} */
void reply_err(struct response *rs,
               const struct err
                   *err); /* maps codes: SEALED 503, NOSPC 503 disk_reserve, STATE ..., else 500 */
void reply_data(struct response *rs, json_t *data); /* steals */
/** Data that is stored as it is answered: nobody but an audit device or a wrapping looks into it.
 */
void reply_data_text(struct request *rq, struct response *rs, const void *text, size_t len);
/** For those: rs->data from data_text, where there is one. */
CHECKED int response_data(struct response *rs, struct err *err);
void reply_empty(struct response *rs); /* 204 */
void reply_warning(struct response *rs, const char *fmt, ...) PRINTF_LIKE(2, 3);
void reply_unsupported(struct response *rs);      /* 405 with the logical text */
void reply_unsupported_path(struct response *rs); /* 404 with the logical text */

/* ---- fields of rq->data: conversions as Vault's field schema does them. Absent or null: the
 * default. -1: the answer is filled with Vault's text (400). ---- */
CHECKED int field_str(struct request *rq, struct response *rs, const char *name, const char *dflt,
                      const char **outp);
CHECKED int field_bool(struct request *rq, struct response *rs, const char *name, bool dflt,
                       bool *outp);
CHECKED int field_int(struct request *rq, struct response *rs, const char *name, int64_t dflt,
                      int64_t *outp);
CHECKED int field_seconds(struct request *rq, struct response *rs, const char *name, int64_t dflt,
                          int64_t *outp);
CHECKED int field_list(struct request *rq, struct response *rs, const char *name,
                       json_t **outp); /* new array of strings, or NULL when absent */
/** The same for what names who is followed or counted: a list of texts, or one text with commas; of
 * another type it is not converted. */
CHECKED int field_names(struct request *rq, struct response *rs, const char *name, json_t **outp);
CHECKED int field_map(struct request *rq, struct response *rs, const char *name,
                      json_t **outp); /* new object, values as they came, or NULL when absent */
CHECKED int field_string_map(struct request *rq, struct response *rs, const char *name,
                             json_t **outp);            /* the same with every value as a string */
bool field_given(struct request *rq, const char *name); /* present and not null */
/** Go's ParseBool, durations as in VAULT-API 1.6; for headers and stored values. */
CHECKED int parse_bool(const char *s, bool *outp);
CHECKED int parse_seconds(const char *s, int64_t *outp,
                          struct err *err); /* err->msg: Go's text: time: invalid duration "abc" */
CHECKED int parse_millis(const char *s, int64_t *outp, struct err *err); /* a number is seconds */
/** Seconds as Go prints a duration: 3h25m19s. Arena. */
const char *duration_text(struct arena *a, int64_t seconds);

/* ---- storage: sealed JSON under a full path, through the barrier. Coroutine. ---- */
/** *outp: new reference. ERR_NOTFOUND, ERR_SEALED, ERR_CORRUPT. */
CHECKED int storage_get(struct core *c, const char *path, json_t **outp, struct err *err);
CHECKED int storage_get_bytes(struct core *c, const char *path, struct buf *out, struct err *err);
/** Direct children of a folder, sorted: new array of "a", "b/". Empty array when none. */
CHECKED int storage_list(struct core *c, const char *folder, json_t **keysp, struct err *err);
/* The whole answer to a LIST of folder, and to a DELETE of one key; NULL: out of memory. */
void storage_answer_list(struct request *rq, struct response *rs, const char *folder);
void storage_answer_delete(struct request *rq, struct response *rs, const char *key);
/* A batch of changes that commits as one transaction. */
struct batch;
struct batch *batch_new(struct core *c); /* NULL: out of memory */
void batch_free(struct batch *b);        /* takes NULL */
CHECKED int batch_put(struct batch *b, const char *path, const json_t *value, struct err *err);
CHECKED int batch_put_bytes(struct batch *b, const char *path, const void *data, size_t len,
                            struct err *err);
CHECKED int batch_put_clear(struct batch *b, const char *path, const void *data, size_t len,
                            struct err *err); /* not sealed */
CHECKED int batch_delete(struct batch *b, const char *path, struct err *err);
size_t batch_count(const struct batch *b);
/** What b takes away (a token, a use, a wrapped answer) must not come back when the other site
 * takes over: in every mode its commit waits for the connected secondaries' flush, for
 * best_effort_wal_wait_duration at most. */
void batch_takes_away(struct batch *b);
/** Commit and wait until applied. Takes b in every case. ERR_UNKNOWN_OUTCOME: a secondary has not
 * confirmed it in time; it may still be applied, and until that is known nobody else gets the
 * latches that the caller holds. */
CHECKED int batch_commit(struct batch *b, struct err *err);
/** A mount's view: the storage prefix "logical/<uuid>/" (or auth/...), ends in '/'. */
const char *mount_prefix(const struct mount *m);

/* ---- latches: a handler that decides on what it read holds the key's latch until its transaction
 * is applied. ---- */
struct latch_ref {
    struct latch_ref *next; /* latch.c's */
    void *internal[4];
};
/** Wait in a queue for the key; released by latch_release. Take several in sorted order. A request
 * that does not get it within its limit (or the strict mode's, or a minute) goes on without it and
 * cannot write any more: its batch_commit says why. Coroutine. */
void latch_acquire(struct core *c, const char *key, struct latch_ref *ref);
/** The same for a caller that does more than write. ERR_TIMEOUT: not had within that limit, also
 * for work in the background; a release does nothing then. */
CHECKED int latch_take(struct core *c, const char *key, struct latch_ref *ref, struct err *err);
/** The same for a handler; false: answered. */
CHECKED bool latch_for(struct request *rq, struct response *rs, const char *key,
                       struct latch_ref *ref);
void latch_release(struct core *c, struct latch_ref *ref);

/* ---- JSON text as Vault writes it ---- */
/** Go-like: sorted keys, \u003c escapes, numbers with the precision they came with. */
void json_write(struct buf *out, const json_t *v);
/** Strict Go-like parse; big and exponent numbers keep their text (see json.c). NULL and *err on
 * bad input. */
json_t *json_read(const uint8_t *data, size_t len, struct err *err);
/** The same for what we wrote ourselves, with bounds that nothing accepted by json_read exceeds,
 * merged or wrapped: it can be read back. */
json_t *json_read_own(const uint8_t *data, size_t len, struct err *err);
/** RFC3339 with up to 9 fraction digits, zeros trimmed, in UTC. */
const char *time_rfc3339(struct arena *a, int64_t ms);
char *base62(struct core *c, char *out, size_t n); /* n random base62 characters and NUL */
void uuid_new(struct core *c, char out[37]);

#endif
