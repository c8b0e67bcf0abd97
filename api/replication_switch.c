/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_switch.c - sys/replication/dr/primary/switchover: hand over to a secondary. The
 * engine keeps the order of it (switchover.c); here it is asked for, and its outcome told.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

#define LIMIT_DEFAULT "10s"
#define LIMIT_MAX_MS 600000

static int hand_over(struct core *c, const char *id, int64_t limit_ms, struct err *err)
{
    struct commit *w = commit_new(c);

    if (w == NULL)
        return err_set(err, ERR_NOMEM, 0, "switchover");
    return commit_wait(
        w, engine_switchover(c->engine, id, (uint32_t)limit_ms, commit_done, w, err) == 0, 0, err);
}

void replication_switchover_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct member m;
    struct err err = {0};
    const char *id, *text;
    int64_t limit_ms;

    if (field_str(rq, rs, "id", "", &id) != 0 ||
        field_str(rq, rs, "limit", LIMIT_DEFAULT, &text) != 0)
        return;
    if (parse_millis(text, &limit_ms, &err) != 0 || limit_ms <= 0 || limit_ms > LIMIT_MAX_MS) {
        reply_error(rs, 400, "limit must be from 1ms to 10m%s%s", err.msg[0] != '\0' ? ": " : "",
                    err.msg);
        return;
    }
    if (id[0] == '\0' || !member_id_good(id)) {
        reply_error(rs, 400, "secondary ID must be provided");
        return;
    }
    if (!replication_on_serving_primary(rq, rs))
        return;
    if (member_get(c, id, &m, &err) != 0 || m.revoked) {
        (void)err_set(&err, ERR_NOTFOUND, 0, "no secondary with ID \"%s\"", id);
        replication_no_such(rq, rs, err.msg);
        return;
    }
    log_warn(c->log, "replication", "switchover to %s asked for: limit_ms=%lld", id,
             (long long)limit_ms);
    if (hand_over(c, id, limit_ms, &err) == 0) {
        reply_data(rs, json_pack("{s:s, s:s, s:s}", "primary", id, "primary_api_addr", m.api_addr,
                                 "primary_cluster_addr", m.cluster_addr));
        reply_warning(rs, "This cluster is a secondary of %s now: clients belong to %s.", id,
                      m.api_addr);
    } else if (err.code == ERR_TIMEOUT || err.code == ERR_UNKNOWN_OUTCOME)
        reply_error(rs, 503, "%s", err.msg);
    else if (err.code == ERR_INVAL || err.code == ERR_BUSY || err.code == ERR_ROLE)
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
}
