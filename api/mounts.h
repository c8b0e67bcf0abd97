/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts.h - the mount table: one row a mount at "core/mount/<uuid>", an immutable table shared by
 * generation.
 *
 * A change applied to a row (engine_watch) marks the table stale; the next request builds the new
 * one. On a secondary a mount that arrives is logged as Vault does: `core: successful mount:
 * namespace= path=kv/ type=kv`.
 */
#ifndef LOCKSTEP_MOUNTS_H
#define LOCKSTEP_MOUNTS_H

#include "handler.h"

struct mount {
    const char *path; /* "kv/", "auth/token/", "sys/" */
    const char *type; /* system, cubbyhole, identity, token, kv, userpass, approle */
    const char *uuid, *accessor, *description, *prefix;
    int kv_version; /* 1 or 2 for kv */
    bool auth, builtin;
    bool upgrading; /* kv: rows of version 1 are being rewritten; the mount answers no requests */
    json_t *row;    /* the stored object */
    handler_fn *handle;
    bool (*exists)(struct request *rq); /* existence check for create/update; NULL: always update */
};
struct mount_table; /* immutable, reference counted */
/** The current table; release with mount_table_unref. Coroutine. ERR_SEALED. */
CHECKED int mount_table_get(struct core *c, struct mount_table **tp, struct err *err);
void mount_table_unref(struct mount_table *t);
/** Longest prefix; path without v1/. NULL: none. *restp: the rest of path. */
const struct mount *mount_find(const struct mount_table *t, const char *path, const char **restp);
void mounts_forget(
    struct core *c); /* sealed, or the store was replaced: the table is stale. Any thread */
/** Makes c->mounts and registers its watch: after engine_open, before engine_start. */
CHECKED int mounts_new(struct core *c, struct err *err);
void mounts_free(struct core *c); /* after the engine and the reactors stopped */
/** No request that saw an earlier table is under way any more: what was detached gets no new rows.
 */
bool mounts_quiet(struct core *c, uint64_t generation);
uint64_t mounts_generation(struct core *c);
/** Add to b what makes the rows under prefix go away in the background (id: unique; names the
 * work's row). */
CHECKED int mounts_detach(struct batch *b, const char *id, const char *prefix, struct err *err);
/** "core/mount/<uuid>" into the arena; NULL: out of memory. */
const char *mount_row_key(struct arena *a, const char *uuid);
/** Lease times that apply: the mount's own, or the server's. Seconds. */
int64_t mount_default_ttl(struct core *c, const struct mount *m);
int64_t mount_max_ttl(struct core *c, const struct mount *m);
/** The entries, sorted by path. */
const struct mount *mount_at(const struct mount_table *t, size_t i); /* NULL: past the end */
CHECKED int mounts_init(struct core *c, struct batch *b,
                        struct err *err); /* rows of a new cluster */
/** Mount types and their handlers. */
struct mount_type {
    const char *name;
    bool auth;
    handler_fn *handle;
    bool (*exists)(struct request *rq);
};
const struct mount_type *mount_type_find(const char *name, bool auth);
void mounts_handle(
    struct request *rq,
    struct response *rs); /* sys/mounts..., sys/auth..., sys/remount (path after sys/) */
void ui_mounts_handle(struct request *rq, struct response *rs); /* sys/internal/ui/mounts... */
/**
 * Paced removal of detached rows, and the rewriting of kv mounts that were upgraded. Background
 * coroutine of a primary; at most one runs, a second call makes it look again. It is started by the
 * first table after an unseal or a promotion and by mounts_sweep_start, so that work left by a
 * crash or an old primary goes on.
 */
void mounts_sweep(struct core *c);
void mounts_sweep_start(struct core *c); /* reactor thread */
/** A warning names the fields (query_only: query fields) that are not among known
 * (NULL-terminated); a 204 has none, as Vault's has none. */
typedef const char *const known_fields[];
void warn_unknown(struct request *rq, struct response *rs, bool query_only,
                  const char *const *known);
/** The same as an answer, 400, before anything is done: where what is misspelt would change what is
 * lost, or the answer has no room for a warning; false: there are none. */
bool refuse_unknown(struct request *rq, struct response *rs, const char *const *known);

/* backends */
void kv1_handle(struct request *rq, struct response *rs);
bool kv1_exists(struct request *rq);
void kv2_handle(struct request *rq, struct response *rs);
bool kv2_exists(struct request *rq);
void cubbyhole_handle(struct request *rq, struct response *rs);
bool cubbyhole_exists(struct request *rq);
void userpass_handle(struct request *rq, struct response *rs);
bool userpass_exists(struct request *rq);
void approle_handle(struct request *rq, struct response *rs);
bool approle_exists(struct request *rq);
#define CUBBYHOLE_PREFIX "cubbyhole/" /* + token hmac + "/" + key */

#endif
