/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * policy.h - policies and the ACL decision (VAULT-API section 9).
 *
 * Parsed policies are cached by generation: the whole set is an immutable snapshot that readers
 * reference; a change of "sys/policy/<name>" (engine_watch) drops the entry before the write's
 * callback.
 */
#ifndef LOCKSTEP_POLICY_H
#define LOCKSTEP_POLICY_H

#include "handler.h"

enum capability {
    CAP_DENY = 1,
    CAP_CREATE = 2,
    CAP_READ = 4,
    CAP_UPDATE = 8,
    CAP_DELETE = 16,
    CAP_LIST = 32,
    CAP_SUDO = 64,
    CAP_PATCH = 128,
    CAP_ROOT = 256
};
struct policy; /* one parsed policy, immutable */
CHECKED int policy_parse(const char *name, const char *text, struct policy **pp, struct err *err);
/** The same of a text that was stored, maybe by a version that took more: one text as a list, and a
 * template without end. */
CHECKED int policy_parse_stored(const char *name, const char *text, struct policy **pp,
                                struct err *err);
void policy_free(struct policy *p);
/** Capabilities of a list of policies on a path (0: none, i.e. deny). *rulep: parameters of the
 * deciding rule, or NULL. */
unsigned acl_capabilities(const struct policy *const *ps, size_t n, const char *path, bool list);

/** Decide for rq->token; fills rs with Vault's 403 when refused. exists: what the existence check
 * said (for OP_WRITE). sudo: path needs it. */
CHECKED int policy_check(struct request *rq, struct response *rs, bool exists, bool sudo);
/** Capabilities of a token on a path, for sys/capabilities*. */
CHECKED int policy_capabilities(struct request *rq, const struct token *t, const char *path,
                                unsigned *capsp, struct err *err);
/** The texts of default and response-wrapping policies are written at init. */
CHECKED int policy_init(struct batch *b, struct err *err);
/** The cache (c->policies). After engine_open, before engine_start: it watches "sys/policy/". */
CHECKED int policies_new(struct core *c, struct err *err);
void policies_free(struct core *c); /* after engine_close */
/** Drop a cached policy (NULL: all). Any thread. */
void policy_forget(struct core *c, const char *name);
void policy_handle(
    struct request *rq,
    struct response *rs); /* sys/policies/acl/..., sys/policy/... (path after sys/) */
void capabilities_handle(struct request *rq,
                         struct response *rs); /* sys/capabilities, -self, -accessor */

#endif
