/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * policy_private.h - a parsed policy, for policy.c (text to rules), acl.c (rules to a decision) and
 * acl_list.c (what a token may).
 */
#ifndef LOCKSTEP_POLICY_PRIVATE_H
#define LOCKSTEP_POLICY_PRIVATE_H

#include <stdatomic.h>

#include "core.h"
#include "policy.h"

#define POLICY_PREFIX "sys/policy/"
#define POLICIES_MAX 256 /* that one token may name */

struct policy_rule {
    const char *path;         /* without the final '*' */
    bool prefix;              /* it ended in '*' */
    bool segments;            /* has '+' segments */
    size_t wild_at;           /* where the first '+' or '*' stands; an exact path: its length */
    unsigned plus;            /* '+' segments */
    unsigned caps;            /* CAP_DENY alone, or what is granted */
    json_t *allowed, *denied; /* lower-case parameter -> array of values; NULL: not given */
    json_t *required;         /* array of lower-case names, or NULL */
    int64_t min_wrap_s, max_wrap_s; /* 0: not given */
    struct policy_rule *next;
};
struct policy {
    _Atomic int refs;
    struct arena *arena;
    const char *name;
    struct policy_rule *rules;
    json_t *keep; /* what rules point to */
};

/* What of a request parameters and wrapping limits look at. */
struct acl_request {
    enum op op;
    const json_t *data; /* object or NULL */
    int64_t wrap_ttl_s;
};
/** Which rule pattern decides for path, or NULL; capabilities are joined over all rules of that
 * pattern. */
const struct policy_rule *acl_find(const struct policy *const *ps, size_t n, const char *path,
                                   bool list, unsigned *capsp);
/** Whether parameters and wrapping limits of the deciding pattern let the request through. */
bool acl_parameters_pass(const struct policy *const *ps, size_t n, const struct policy_rule *found,
                         const struct acl_request *rq);

/** A cached policy with a reference, NULL when there is none by that name. */
CHECKED int policy_get(struct core *c, const char *name, struct policy **pp, struct err *err);
/** The text under a name: new reference to {"policy": text}. ERR_NOTFOUND. */
CHECKED int policy_row(struct core *c, const char *name, json_t **rowp, struct err *err);
const char *capability_name(unsigned cap);
/** The names, sorted; ["deny"] for none. New array, or NULL: no memory. */
json_t *capabilities_json(unsigned caps);

#endif
