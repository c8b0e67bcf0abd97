/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts_private.h - what mounts.c, mounts_api.c and sweep.c share.
 */
#ifndef LOCKSTEP_MOUNTS_PRIVATE_H
#define LOCKSTEP_MOUNTS_PRIVATE_H

#include "mounts.h"

#define ROW_FOLDER "core/mount/"         /* + uuid */
#define DETACHED_FOLDER "core/detached/" /* + id */
#define MOUNTS_LATCH "core/mounts" /* held by whoever changes the set of mounts, until applied */

/** A row as it is first stored; options and config are stolen. NULL: out of memory. */
json_t *mount_row_new(struct core *c, const char *path, const char *type, const char *description,
                      json_t *config, json_t *options);
/** A mount as sys/mounts shows it: new object; NULL: out of memory. */
json_t *mount_entry_json(const struct mount *m);
/** The path as the caller of sys/auth knows it: without auth/. */
const char *mount_shown_path(const char *path);
uint64_t mount_table_generation(const struct mount_table *t);

/* ---- mounts_config.c ---- */
extern const char
    *const mount_config_lists[]; /* names of configuration fields that are lists; NULL ends */
/**
 * A duration; *givenp false when it is absent, null or empty. "system" is 0. -1: err and *textp
 * (the value as given) tell what is wrong.
 */
CHECKED int mount_ttl_value(struct arena *a, const json_t *v, bool *givenp, int64_t *secondsp,
                            const char **textp, struct err *err);
/** Set the lists and texts that src has. -1: answered. */
CHECKED int mount_config_extras(struct request *rq, struct response *rs, json_t *src, bool auth,
                                json_t *config);
/** The configuration of a new mount; NULL: answered. */
json_t *mount_config_new(struct request *rq, struct response *rs, json_t *given, bool auth);

/* ---- one sweep at a time ---- */
/** Start to sweep; false: somebody does, and will look again. */
bool mounts_sweep_claim(struct core *c);
/** Stop; false: look again first. */
bool mounts_sweep_release(struct core *c);

#endif
