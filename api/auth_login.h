/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * auth_login.h - the token_ fields of a user or role of an auth method, and the token of a login.
 */
#ifndef LOCKSTEP_AUTH_LOGIN_H
#define LOCKSTEP_AUTH_LOGIN_H

#include "handler.h"

/** The token_ fields with their defaults. NULL: out of memory. */
json_t *auth_fields_new(void);
/** Those that auth_fields reads and both methods know, for warn_unknown. */
#define AUTH_FIELDS                                                                                \
    "policies", "token_policies", "token_ttl", "token_max_ttl", "token_explicit_max_ttl",          \
        "token_period", "token_num_uses", "token_no_default_policy", "token_bound_cidrs",          \
        "token_type"
/** The field as a list of addresses and blocks, as Vault shows it; NULL when absent. -1: answered.
 */
CHECKED int auth_cidrs(struct request *rq, struct response *rs, const char *name, json_t **outp);
/** Put what the request gives into row. -1: answered, and row is not to be stored. */
CHECKED int auth_fields(struct request *rq, struct response *rs, json_t *row);

struct auth_who {
    const char *name; /* after the mount's name in the display name, or NULL */
    const json_t *meta;
    const json_t *cidrs; /* instead of the row's token_bound_cidrs; NULL or empty: those */
};
/**
 * Make the token of a login that was right, by the row's token_ fields, in one transaction with
 * what is in b (taken; NULL: out of memory), and answer. Coroutine.
 */
void auth_login(struct request *rq, struct response *rs, const json_t *row,
                const struct auth_who *who, struct batch *b);

#endif
