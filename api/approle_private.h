/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * approle_private.h - what the files of the auth method AppRole share: roles (approle_role.c),
 * secret ids (approle_secret.c), logins and paths (approle.c).
 */
#ifndef LOCKSTEP_APPROLE_PRIVATE_H
#define LOCKSTEP_APPROLE_PRIVATE_H

#include "auth_login.h"
#include "core.h"
#include "mounts.h"
#include "token_private.h"

#define APPROLE_NAME_MAX_BYTES 256
#define APPROLE_ID_MAX_BYTES 4096

/* Keys below the mount; NULL: no memory. */
const char *approle_key2(struct request *rq, const char *kind, const char *a);
const char *approle_key3(struct request *rq, const char *kind, const char *a, const char *b);
/** 0 with *rowp NULL: there is none. */
CHECKED int approle_row(struct request *rq, const char *key, json_t **rowp, struct err *err);
/** Into the batch; key may be NULL: no memory. */
CHECKED int approle_put(struct batch *b, const char *key, const json_t *row, struct err *err);
CHECKED int approle_drop(struct batch *b, const char *key, struct err *err);
int64_t approle_int(const json_t *row, const char *name); /* 0: absent */
/** Commit b (taken) unless what was put into it failed, and answer. */
void approle_finish(struct request *rq, struct response *rs, struct batch *b, int rc,
                    struct err *err);

/** The key of an id, by its HMAC; NULL: err. */
const char *approle_id_key(struct request *rq, const char *kind, const char *id, struct err *err);
/** The role, or NULL: answered. */
json_t *approle_role_of(struct request *rq, struct response *rs, const char *name);
/** The field as blocks of addresses, or NULL: absent. -1: answered. */
CHECKED int approle_blocks(struct request *rq, struct response *rs, const char *name,
                           json_t **outp);
/** role/<name> and what is below it, but for secret ids. */
void approle_role_handle(struct request *rq, struct response *rs, const char *rest);

bool approle_expired(const struct request *rq, const json_t *row); /* a secret id */
/** Put the removal of a secret id into b. */
CHECKED int approle_secret_drop(struct request *rq, struct batch *b, const char *name,
                                const char *hash, const json_t *row, struct err *err);
/** Below role/<name>/: secret-id, secret-id-accessor, custom-secret-id. */
void approle_secret_handle(struct request *rq, struct response *rs, const char *name,
                           const char *rest);
void approle_tidy(struct request *rq, struct response *rs); /* tidy/secret-id */

#endif
