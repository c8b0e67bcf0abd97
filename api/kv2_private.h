/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kv2_private.h - the rows of a kv version 2 mount, for the files that read and write them.
 *
 *     <mount prefix>2/config               {max_versions, cas_required, delete_version_after}
 *     <mount prefix>2/meta/<key>           {id, current_version, oldest_version, first_row,
 * created_ms, updated_ms, max_versions, cas_required, delete_version_after, custom_metadata,
 * versions: {"3": {created_ms, deletion_ms, destroyed, lost (kv2_lost.c)}}} <mount
 * prefix>2/data/<id>/<version> {data}
 *
 * id is random and new whenever the key is made anew, so that the versions of a removed key can go
 * in the background. Invariant: whoever changes a key's rows holds the latch named by its meta row
 * until the transaction is applied. A row of a version exists only between first_row and
 * current_version.
 */
#ifndef LOCKSTEP_KV2_PRIVATE_H
#define LOCKSTEP_KV2_PRIVATE_H

#include "core.h"
#include "mounts.h"

#define KV2_KEPT_DEFAULT 10
#define KV2_ROWS_MAX 256 /* rows of versions that one transaction removes at most */

struct kv2_config {
    int64_t max_versions, delete_version_after_s; /* -1 s: no key deletes versions by time */
    bool cas_required;
};
CHECKED int kv2_config_load(struct request *rq, struct kv2_config *cfg, struct err *err);

/** "<prefix>2/meta/<name>" in the arena; NULL: answered. It names the latch, too. */
const char *kv2_meta_key(struct request *rq, struct response *rs, const char *name);
/** "<prefix>2/data/<id>/<n>" or, with n < 0, the folder; NULL: out of memory. */
const char *kv2_data_key(struct arena *a, const char *mount_prefix, const json_t *meta, int64_t n);
/** *metap: new reference, or NULL when the key does not exist. */
CHECKED int kv2_meta_load(struct request *rq, const char *meta_key, json_t **metap,
                          struct err *err);
json_t *kv2_meta_new(struct core *c, int64_t now_ms); /* NULL: out of memory */
int64_t kv2_int(const json_t *row, const char *name);

const json_t *kv2_version(const json_t *meta, int64_t n); /* NULL: none */
bool kv2_version_gone(const json_t *version, int64_t now_ms);
/** The new version's entry in meta; it becomes the current one. now_ms also sets the times. */
CHECKED int kv2_version_add(json_t *meta, const struct kv2_config *cfg, int64_t now_ms,
                            struct err *err);
/** Forget versions beyond those kept, and add the removal of (some of) their rows to b. */
CHECKED int kv2_trim(struct request *rq, struct batch *b, json_t *meta,
                     const struct kv2_config *cfg, struct err *err);
/** Vault's block of a version: created_time, custom_metadata, deletion_time, destroyed, version. */
json_t *kv2_version_block(struct request *rq, const json_t *meta, int64_t n);
/** The stored data of a version: new reference (JSON null is a value). ERR_NOTFOUND. */
CHECKED int kv2_data_load(struct request *rq, const json_t *meta, int64_t n, json_t **datap,
                          struct err *err);
/** Which version a read means: field version, else the current one. -1: answered. */
CHECKED int kv2_asked_version(struct request *rq, struct response *rs, const json_t *meta,
                              int64_t *np);
void kv2_metadata(struct request *rq, struct response *rs, const char *name);
void kv2_config(struct request *rq, struct response *rs);
/**
 * Lost rows of a key whose metadata here is newer: each lost version that is not here becomes a new
 * one, in b. The caller holds the latch of meta_key.
 * @rows  storage key -> stored object, of the whole transaction   @np  out: the newest version that
 * was added; 0: all are here already; -1: no version was written there, so there is none to add
 */
CHECKED int kv2_lost_take(struct request *rq, const struct mount *m, const char *meta_key,
                          const json_t *rows, struct batch *b, int64_t *np, struct err *err);
void kv2_subkeys(struct request *rq, struct response *rs, const char *name);

/** A PATCH of a key that is not there: 404 without a body. */
void kv2_nothing_to_patch(struct response *rs);

#endif
