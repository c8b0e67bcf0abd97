/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token.h - tokens: stored under the HMAC of their id, never in clear.
 *
 * Storage: "sys/token/id/<hex hmac>", "sys/token/accessor/<hex hmac>", "sys/token/parent/<parent hmac>/<hmac>". The HMAC key is
 * derived from the barrier's root key ("token"). Expiry is checked on use; the holder of an expired token is refused at once,
 * the row is removed by paced background work of a primary.
 */
#ifndef LOCKSTEP_TOKEN_H
#define LOCKSTEP_TOKEN_H

#include "handler.h"

struct token { /* a decoded row; owned by the request's arena */
    const char *id;        /* in clear only for the request's own token, else "" */
    const char *hmac;      /* hex, names the row */
    const char *accessor, *display_name, *path, *parent_hmac, *entity_id, *role;
    json_t *policies;      /* array of names, sorted */
    json_t *meta;          /* object or NULL */
    int64_t created_ms, expire_ms; /* 0: never */
    int64_t creation_ttl_s, explicit_max_ttl_s, period_s, last_renewal_ms;
    int64_t num_uses;      /* 0: unlimited; -1: last use under way */
    bool orphan, renewable, batch;
    bool wrapping;         /* policy response-wrapping */
    json_t *json;          /* the row */
};
struct token_new {
    const char *id; /* NULL: random s. + 24 base62 */
    const char *display_name, *path, *parent_hmac, *role, *entity_id;
    json_t *policies, *meta; /* borrowed */
    int64_t ttl_s, explicit_max_ttl_s, period_s, num_uses;
    bool orphan, renewable;
};
/** Look up by id; ERR_DENIED when unknown, expired, revoked. Does not count a use. */
CHECKED int token_lookup(struct request *rq, const char *id, struct token **tp, struct err *err);
/** Count a use (durably) when limited; ERR_DENIED when used up. *lastp: revoke it when the request ends. */
CHECKED int token_use(struct request *rq, struct token *t, bool *lastp, struct err *err);
/** Add the rows of a new token to b; *tp is it, id in clear. */
CHECKED int token_create(struct request *rq, struct batch *b, const struct token_new *n, struct token **tp, struct err *err);
/** Remove the token, its cubbyhole and its whole tree of children. Commits. */
CHECKED int token_revoke(struct core *c, const char *hmac, struct err *err);
/** HMAC name of a token id, into arena. */
CHECKED int token_hmac(struct request *rq, const char *id, const char **hmacp, struct err *err);
/** The auth block of VAULT-API section 8. */
json_t *token_auth_block(const struct token *t, int64_t lease_duration_s);
/** A root token: policies [root], path auth/token/root, display name root, no expiry; for init and generate-root. */
CHECKED int token_create_root(struct request *rq, struct batch *b, const char *id, struct token **tp, struct err *err);
/** The mount's handler: auth/token/... */
void token_handle(struct request *rq, struct response *rs);

/* ---- response wrapping (wrapping.c) ---- */
/** Turn a finished response into a wrapped one: a single-use token whose cubbyhole holds the envelope. */
CHECKED int wrapping_wrap(struct request *rq, struct response *rs, int64_t ttl_s, bool as_jwt, struct err *err);
void wrapping_handle(struct request *rq, struct response *rs); /* sys/wrapping/... (path after sys/) */
/** JWT signing key, made at first need, sealed at "core/wrapping/jwtkey". */
CHECKED int wrapping_jwt_key(struct request *rq, struct buf *pem, struct err *err);

#endif
