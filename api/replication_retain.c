/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_retain.c - sys/replication/dr/primary/retention: how much of the log is kept for each
 * secondary, in bytes and in age.
 *
 * A secondary's own limits are in its member row, so they are replicated, and outlive a restart and
 * a promotion. 0 stands for what the configuration says.
 */
#include <string.h>

#include "cluster_private.h"
#include "replication_private.h"

static void set(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name, v);
}

json_t *replication_retention_json(const struct engine_peer *p)
{
    json_t *o = json_object();

    set(o, "bytes", json_integer((json_int_t)p->retain_bytes));
    set(o, "max_bytes", json_integer((json_int_t)p->retain_bytes_max));
    set(o, "age_ms", json_integer((json_int_t)p->retain_age_ms));
    set(o, "max_age_ms", json_integer((json_int_t)p->retain_age_ms_max));
    set(o, "used_percent", json_integer(p->retain_percent));
    set(o, "let_go", json_boolean(p->let_go));
    return o;
}

static void read_all(struct request *rq, struct response *rs)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st)); /* large */
    json_t *all = json_object();

    if (st != NULL)
        engine_status(rq->core->engine, st);
    for (size_t i = 0; st != NULL && i < st->n_peers; i++)
        set(all, st->peers[i].id, replication_retention_json(&st->peers[i]));
    reply_data(rs, json_pack("{s:o}", "secondaries", all));
}

static int change(struct core *c, const char *id, int64_t max_bytes, int64_t max_age_s,
                  struct err *err)
{
    struct batch *b;
    struct member m;

    if (member_get(c, id, &m, err) != 0)
        return -1;
    if (m.revoked || m.primary)
        return err_set(err, ERR_NOTFOUND, 0, "no member");
    if (max_bytes >= 0)
        m.retain_bytes = (uint64_t)max_bytes;
    if (max_age_s >= 0)
        m.retain_ms = (uint64_t)max_age_s * 1000;
    b = batch_new(c);
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "retention");
    if (member_put(b, &m, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static void write_one(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    int64_t max_bytes, max_age_s;
    struct latch_ref latch;
    struct err err = {0};
    const char *id;
    int rc;

    if (field_str(rq, rs, "id", "", &id) != 0 ||
        field_int(rq, rs, "max_bytes", -1, &max_bytes) != 0 ||
        field_seconds(rq, rs, "max_age", -1, &max_age_s) != 0)
        return;
    if (!member_id_good(id)) {
        reply_error(rs, 400, "secondary ID must be provided");
        return;
    }
    if ((max_bytes < 0 && field_given(rq, "max_bytes")) ||
        (max_age_s < 0 && field_given(rq, "max_age")) || max_age_s > 10LL * 366 * 86400) {
        reply_error(rs, 400,
                    "max_bytes and max_age must not be negative, and max_age be at most 10 "
                    "years; 0: as configured");
        return;
    }
    if (max_bytes < 0 && max_age_s < 0) {
        reply_error(rs, 400, "give max_bytes, max_age or both; 0: as configured");
        return;
    }
    rc = latch_take(c, REPL_LATCH, &latch, &err);
    if (rc == 0) {
        rc = change(c, id, max_bytes, max_age_s, &err);
        latch_release(c, &latch);
    }
    if (rc == 0) {
        engine_members_changed(c->engine);
        log_info(c->log, "replication", "retention set: id=%s max_bytes=%lld max_age=%llds", id,
                 (long long)max_bytes, (long long)max_age_s);
        reply_empty(rs);
    } else if (err.code == ERR_NOTFOUND) {
        (void)err_set(&err, ERR_NOTFOUND, 0, "no secondary with ID \"%s\"", id);
        replication_no_such(rq, rs, err.msg);
    } else
        reply_err(rs, &err);
}

void replication_retention_handle(struct request *rq, struct response *rs)
{
    if (!replication_on_serving_primary(rq, rs))
        return;
    if (rq->op == OP_READ)
        read_all(rq, rs);
    else if (rq->op == OP_WRITE)
        write_one(rq, rs);
    else
        reply_unsupported(rs);
}
