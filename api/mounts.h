/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts.h - the mount table: one row a mount at "core/mount/<uuid>", an immutable table shared by generation.
 *
 * A change applied to a row (engine_watch) marks the table stale; the next request builds the new one. On a secondary a mount
 * that arrives is logged as Vault does: `core: successful mount: namespace= path=kv/ type=kv`.
 */
#ifndef LOCKSTEP_MOUNTS_H
#define LOCKSTEP_MOUNTS_H

#include "handler.h"

struct mount {
    const char *path;     /* "kv/", "auth/token/", "sys/" */
    const char *type;     /* system, cubbyhole, identity, token, kv, userpass */
    const char *uuid, *accessor, *description, *prefix;
    int kv_version;       /* 1 or 2 for kv */
    bool auth, builtin;
    json_t *row;          /* the stored object */
    handler_fn *handle;
    bool (*exists)(struct request *rq); /* existence check for create/update; NULL: always update */
};
struct mount_table; /* immutable, reference counted */
/** The current table; release with mount_table_unref. Coroutine. ERR_SEALED. */
CHECKED int mount_table_get(struct core *c, struct mount_table **tp, struct err *err);
void mount_table_unref(struct mount_table *t);
/** Longest prefix; path without v1/. NULL: none. *restp: the rest of path. */
const struct mount *mount_find(const struct mount_table *t, const char *path, const char **restp);
void mounts_forget(struct core *c); /* the table is stale. Any thread */
CHECKED int mounts_init(struct core *c, struct batch *b, struct err *err); /* rows of a new cluster */
/** Mount types and their handlers. */
struct mount_type {
    const char *name;
    bool auth;
    handler_fn *handle;
    bool (*exists)(struct request *rq);
};
const struct mount_type *mount_type_find(const char *name, bool auth);
void mounts_handle(struct request *rq, struct response *rs);       /* sys/mounts..., sys/auth..., sys/remount (path after sys/) */
void ui_mounts_handle(struct request *rq, struct response *rs);    /* sys/internal/ui/mounts... */
/** Paced removal of the data of detached mounts and revoked tokens; resumes after a restart. Background coroutine of a primary. */
void mounts_sweep(struct core *c);

/* backends */
void kv1_handle(struct request *rq, struct response *rs);
bool kv1_exists(struct request *rq);
void kv2_handle(struct request *rq, struct response *rs);
bool kv2_exists(struct request *rq);
void cubbyhole_handle(struct request *rq, struct response *rs);
bool cubbyhole_exists(struct request *rq);
#define CUBBYHOLE_PREFIX "cubbyhole/" /* + token hmac + "/" + key */

#endif
