/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * audit.h - audit devices: every request and every answer, one JSON line each, before the request
 * does anything and before the answer goes out. VAULT-API section 12.
 *
 * A device is a row at "core/audit/<path>", replicated. Texts in a line are HMACs under the
 * device's own salt, unless its options say otherwise. A request that no device can write down is
 * not executed: one device at least must take the line. Without devices nothing is written and
 * nothing is looked at.
 */
#ifndef LOCKSTEP_AUDIT_H
#define LOCKSTEP_AUDIT_H

#include "handler.h"

struct audits;

/** c->audits and its watches: after engine_open, before engine_start. */
CHECKED int audits_new(struct core *c, struct err *err);
void audits_free(struct core *c); /* after engine_close */
/** Read the rows and open the files again at the next request: rotated files, a replaced store. Any
 * thread. */
void audits_forget(struct core *c);

/**
 * Names of the devices that cannot be written here, ", " between; empty: none. True: not one of
 * them can. On a primary those whose files could not be opened are tried again; elsewhere, where
 * hardly a line is written, each file is opened anew, as a promotion would. Coroutine.
 */
bool audit_unwritable(struct core *c, char *names, size_t len);

struct audit_facts { /* what the router found out about a request */
    bool create;     /* the write makes something new */
    bool allowed;
    const char *error; /* why it is refused, or NULL */
};
/** Whether lines are written at all. Coroutine. */
bool audit_on(struct request *rq);
/** The line of a request. -1: there are devices, and none took it. Coroutine. */
CHECKED int audit_request(struct request *rq, const struct audit_facts *f);
/** The line of its answer. */
CHECKED int audit_response(struct request *rq, struct response *rs, const struct audit_facts *f);

/** sys/audit, sys/audit/PATH, sys/audit-hash/PATH. */
void audit_handle(struct request *rq, struct response *rs);

#endif
