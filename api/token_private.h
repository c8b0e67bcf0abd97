/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_private.h - what the files behind token.h share: rows, names, latches.
 */
#ifndef LOCKSTEP_TOKEN_PRIVATE_H
#define LOCKSTEP_TOKEN_PRIVATE_H

#include "core.h"
#include "token.h"

#define TOKEN_ID_PREFIX "sys/token/id/"
#define TOKEN_ACCESSOR_PREFIX "sys/token/accessor/"
#define TOKEN_PARENT_PREFIX "sys/token/parent/"
#define TOKEN_REVOKE_PREFIX "sys/token/revoke/" /* tombstones: trees whose root is gone already */
#define TOKEN_ROLE_PREFIX "sys/token/role/"
#define TOKEN_HMAC_CHARS 64
#define TOKEN_PATH_BYTES (2 * TOKEN_HMAC_CHARS + 32)
#define TOKEN_TEXT_CHARS 24 /* random part of an id, and an accessor */

struct token_latch { /* the right to decide on a token's row until the change is applied */
    struct latch_ref ref;
    char key[TOKEN_HMAC_CHARS + 8];
};
void token_latch(struct core *c, const char *hmac, struct token_latch *l);
void token_unlatch(struct core *c, struct token_latch *l);

enum token_name { TOKEN_NAME_ID, TOKEN_NAME_ACCESSOR }; /* ids and accessors never share an HMAC */
CHECKED int token_name(struct core *c, enum token_name kind, const char *text,
                       char out[TOKEN_HMAC_CHARS + 1], struct err *err);
/** The row as stored, without checks, the caller's own to change. ERR_NOTFOUND. */
CHECKED int token_read(struct request *rq, const char *hmac, struct token **tp, struct err *err);
/** Whether a row may be used now: not expired, no ancestor gone. ERR_DENIED. */
CHECKED int token_alive(struct request *rq, const struct token *t, struct err *err);
/** Write t->json back after its fields were set there. */
CHECKED int token_put(struct batch *b, const struct token *t, struct err *err);
/** Drop id and accessor row, and the link to the parent. */
CHECKED int token_delete_rows(struct core *c, struct batch *b, const char *hmac, const json_t *row,
                              struct err *err);

const char *token_row_str(const json_t *row, const char *key); /* never NULL */
bool token_row_expired(const json_t *row, int64_t now_ms);

/* token_cache.c. Any thread. */
struct token_cache;
struct token_cache *token_cache_new(void); /* NULL: out of memory */
void token_cache_free(struct token_cache *tc);
/** Whether it is there. Then *t is the token as its row says, with a new reference to the row,
 * which must not be changed; its hmac and id are the caller's to fill. Else *seenp goes to
 * token_cache_put with what was read after. */
bool token_cache_get(struct token_cache *tc, const char *hmac, struct token *t, uint64_t *seenp);
void token_cache_put(struct token_cache *tc, const char *hmac, const struct token *t,
                     uint64_t seen);
void token_cache_drop(struct token_cache *tc, const char *hmac);
void token_cache_clear(struct token_cache *tc);

/* token_tree.c */
struct token_cache *tokens_cache(struct core *c);
/** Whether any tree is being removed: then ancestors must be looked at. */
CHECKED int tokens_dying(struct core *c, bool *dyingp, struct err *err);

/* token_create.c: auth/token/create, create-orphan, create/ROLE (role NULL: none) */
void token_create_handle(struct request *rq, struct response *rs, const char *role, bool orphan);
struct ttl_rule {
    int64_t wanted_s, period_s, explicit_max_s;
    int64_t start_ms; /* from when the maximum counts */
};
/** The time to live that is granted, with a warning where it is less than was asked for. */
int64_t token_ttl_grant(struct request *rq, struct response *rs, const struct ttl_rule *r);
/** A duration field with Go's errors as they are, without the prefix of a field check. */
CHECKED int token_seconds_field(struct request *rq, struct response *rs, const char *name,
                                int64_t *outp);

/* token_batch.c */
bool token_is_batch(const char *id);
CHECKED int token_batch_new(struct request *rq, json_t *row, const char **idp, struct err *err);
/** The row that an id carries; it lives as long as the request. ERR_DENIED: not ours. */
CHECKED int token_batch_row(struct request *rq, const char *id, json_t **rowp, struct err *err);

/* token_role.c */
struct token_role {
    json_t *row; /* as stored */
    const char *name, *path_suffix, *type;
    json_t *allowed, *allowed_glob, *disallowed, *disallowed_glob; /* arrays */
    json_t *cidrs;                                                 /* array or NULL */
    bool orphan, renewable, no_default_policy;
    int64_t explicit_max_ttl_s, period_s, num_uses;
};
/** ERR_NOTFOUND. The role lives as long as the request. */
CHECKED int token_role_get(struct request *rq, const char *name, struct token_role **rp,
                           struct err *err);
void token_role_handle(struct request *rq, struct response *rs); /* path: "roles", "roles/NAME" */

/* ---- lists of names ---- */
/** Vault's rules for policy names: trimmed, lower case, sorted, each once; root alone. New array or
 * NULL. */
json_t *policies_sanitize(const json_t *names, bool add_default);
bool list_has(const json_t *list, const char *s);
/** Whether a pattern of the list covers s: "*" at the start, the end or both. */
bool list_has_glob(const json_t *list, const char *s);
bool glob_match(const char *pattern, const char *s);

#endif
