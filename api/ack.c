/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ack.c - X-Lockstep-Ack: what the answer to a write is to wait for, and what it tells of where the
 * write is.
 */
#include <string.h>

#include "core_private.h"
#include "handler.h"

int ack_read(struct ack *a, const struct http_request *http, struct response *rs)
{
    const char *word = http_header(http, "X-Lockstep-Ack"),
               *limit = http_header(http, "X-Lockstep-Ack-Limit");
    int64_t ms = 0;
    struct err err = {0};

    if (word == NULL && limit == NULL)
        return 0;
    if (word == NULL) {
        reply_error(rs, 400, "X-Lockstep-Ack-Limit needs X-Lockstep-Ack: local, flush or apply");
        return -1;
    }
    a->asked = true;
    if (strcmp(word, "local") != 0 &&
        (repl_level_parse(word, &a->level) != 0 || a->level == REPL_ASYNC)) {
        reply_error(rs, 400, "X-Lockstep-Ack must be local, flush or apply");
        return -1;
    }
    if (limit != NULL &&
        (parse_millis(limit, &ms, &err) != 0 || ms <= 0 || ms > REPL_WAIT_MS_MAX)) {
        reply_error(rs, 400, "error parsing X-Lockstep-Ack-Limit header: %s",
                    err.msg[0] != '\0' ? err.msg : "from 1ms to 1h");
        return -1;
    }
    a->limit_ms = (uint32_t)ms;
    return 0;
}

void ack_tell(struct core *c, const struct ack *a, struct buf *headers)
{
    static const char *const scopes[] = {"", "-some", "-quorum", ""}; /* by enum engine_scope */
    struct engine_reached r;

    if (!a->asked || a->lsn == 0)
        return;
    engine_reached(c->engine, a->lsn, &r);
    buf_printf(headers, "X-Lockstep-Ack: %s%s\r\nX-Lockstep-LSN: %llu\r\n",
               r.scope == ENGINE_NOWHERE ? "local" : repl_level_name(r.level), scopes[r.scope],
               (unsigned long long)a->lsn);
    if (r.by[0] != '\0')
        buf_printf(headers, "X-Lockstep-Ack-By: %s\r\n", r.by);
}
