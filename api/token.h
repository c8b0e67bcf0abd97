/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token.h - tokens: stored under the HMAC of their id, never in clear.
 *
 * Storage: "sys/token/id/<hex hmac>", "sys/token/accessor/<hex hmac>", "sys/token/parent/<parent
 * hmac>/<hmac>". The HMAC key is derived from the barrier's root key ("token"). Expiry is checked
 * on use; the holder of an expired token is refused at once, the row is removed by paced background
 * work of a primary.
 */
#ifndef LOCKSTEP_TOKEN_H
#define LOCKSTEP_TOKEN_H

#include "handler.h"

struct token {        /* a decoded row; lives as long as the request */
    const char *id;   /* in clear only for the request's own token, else "" */
    const char *hmac; /* hex, names the row */
    const char *accessor, *display_name, *path, *parent_hmac, *entity_id, *role;
    json_t *policies;              /* array of names, sorted */
    json_t *meta;                  /* object or NULL */
    json_t *cidrs;                 /* it is used from there only; NULL: from anywhere */
    int64_t created_ms, expire_ms; /* 0: never */
    int64_t creation_ttl_s, explicit_max_ttl_s, period_s, last_renewal_ms;
    int64_t chain_ms; /* from then on ancestors may have expired and are looked at; 0: never */
    int64_t num_uses; /* 0: unlimited; -1: last use under way */
    bool orphan, renewable, batch;
    bool wrapping; /* policy response-wrapping */
    json_t *json;  /* the row */
};
struct token_new {
    const char *id; /* NULL: random s. + 24 base62 */
    const char *display_name, *path, *parent_hmac, *role, *entity_id;
    json_t *policies, *meta; /* borrowed */
    const json_t *cidrs;     /* borrowed; a token that never expires is bound to none */
    int64_t ttl_s, explicit_max_ttl_s, period_s, num_uses, chain_ms;
    bool orphan, renewable;
    bool batch; /* sealed into the id instead of stored: no accessor */
};
/** Look up by id; ERR_DENIED when unknown, expired, revoked. Does not count a use. */
CHECKED int token_lookup(struct request *rq, const char *id, struct token **tp, struct err *err);
/** Whether the request comes from where the token may be used. */
bool token_from_here(const struct request *rq, const struct token *t);
/** Count a use (durably) when limited; ERR_DENIED when used up. *lastp: revoke it when the request
 * ends. */
CHECKED int token_use(struct request *rq, struct token *t, bool *lastp, struct err *err);
/** Add the rows of a new token to b; *tp is it, id in clear. */
CHECKED int token_create(struct request *rq, struct batch *b, const struct token_new *n,
                         struct token **tp, struct err *err);
/** Remove the token, its cubbyhole and its whole tree of children. Commits. */
CHECKED int token_revoke(struct core *c, const char *hmac, struct err *err);
/**
 * Make the children of a token orphans, then remove it. ERR_NOTFOUND: unknown. Commits.
 */
CHECKED int token_revoke_orphan(struct core *c, const char *hmac, struct err *err);
/** Look up by accessor; t->id is "". ERR_NOTFOUND: unknown, expired or revoked. */
CHECKED int token_lookup_accessor(struct request *rq, const char *accessor, struct token **tp,
                                  struct err *err);
/** HMAC name of a token id, into arena. */
CHECKED int token_hmac(struct request *rq, const char *id, const char **hmacp, struct err *err);
/** Whether an orphan batch token may update path: a DR operation token that was given out before
 * the disaster. Works on a secondary. */
bool token_batch_allows(const struct request *from, const char *id, const char *path);
/** The auth block of VAULT-API section 8. */
json_t *token_auth_block(const struct token *t, int64_t lease_duration_s);
/** A root token: policies [root], path auth/token/root, display name root, no expiry; for init and
 * generate-root. */
CHECKED int token_create_root(struct request *rq, struct batch *b, const char *id,
                              struct token **tp, struct err *err);
/** What a server knows of its tokens in memory (c->tokens). After engine_open, before engine_start.
 */
CHECKED int tokens_new(struct core *c, struct err *err);
void tokens_free(struct core *c); /* after engine_close */
/** The store was replaced or became writable: look again whether trees are being revoked. Any
 * thread. */
void tokens_forget(struct core *c);
/**
 * One paced pass of a primary: finish the trees under revocation, then remove expired tokens. Run
 * after unseal and promotion, and from time to time. Coroutine.
 */
void tokens_sweep(struct core *c);
/** The same on a coroutine of its own; at most one runs. Reactor thread. */
void tokens_sweep_start(struct core *c);
/** The mount's handler: auth/token/... */
void token_handle(struct request *rq, struct response *rs);

/* ---- response wrapping (wrapping.c) ---- */
/** Turn a finished response into a wrapped one: a single-use token whose cubbyhole holds the
 * envelope. */
CHECKED int wrapping_wrap(struct request *rq, struct response *rs, int64_t ttl_s, bool as_jwt,
                          struct err *err);
/**
 * Before authentication on sys/wrapping/{lookup,unwrap,rewrap}: the token that is named (body field
 * token, else the client token) must be a living wrapping token, else -1 and 400 in rs. A JWT is
 * verified and replaced by its jti in rq->data or rq->client_token.
 */
CHECKED int wrapping_precheck(struct request *rq, struct response *rs);
void wrapping_handle(struct request *rq,
                     struct response *rs); /* sys/wrapping/... (path after sys/) */
/** JWT signing key, made at first need, sealed at "core/wrapping/jwtkey". */
CHECKED int wrapping_jwt_key(struct request *rq, struct buf *pem, struct err *err);

#endif
