/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_modes.c - sys/replication/dr/primary/mode and quorum: the loss that is accepted, for
 * each secondary, and for any k of n.
 *
 * The engine keeps the order of changes and their meaning; no latch is taken here, since a write
 * that waits for a dead secondary may hold it, and this is what ends that wait.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

/* What both endpoints read. level is async when nothing is given. */
static int read_fields(struct request *rq, struct response *rs, struct repl_mode *m, bool *forcep)
{
    const char *level, *on_limit, *wait;
    int64_t ms;
    struct err err = {0};

    memset(m, 0, sizeof(*m));
    if (field_str(rq, rs, "mode", "", &level) != 0 ||
        field_str(rq, rs, "on_limit", "strict", &on_limit) != 0 ||
        field_str(rq, rs, "wait_limit", "10s", &wait) != 0 ||
        field_bool(rq, rs, "force", false, forcep) != 0)
        return -1;
    if (repl_level_parse(level, &m->level) != 0)
        reply_error(rs, 400, "mode must be async, flush or apply");
    else if (repl_on_limit_parse(on_limit, &m->on_limit) != 0)
        reply_error(rs, 400, "on_limit must be strict or fallback");
    else if (parse_millis(wait, &ms, &err) != 0)
        reply_error(rs, 400, "wait_limit: %s", err.msg);
    else if (ms <= 0 || ms > REPL_WAIT_MS_MAX)
        reply_error(rs, 400, "wait_limit must be from 1ms to 1h");
    else {
        m->wait_ms = (uint32_t)ms;
        return 0;
    }
    return -1;
}

static int add_name(struct repl_mode *m, const char *id)
{
    if (id == NULL || !member_id_good(id) || m->n == REPL_NAMES_MAX)
        return -1;
    memcpy(m->name[m->n++], id, strlen(id) + 1);
    return 0;
}

int replication_mode_set(struct core *c, const char *id, const struct repl_mode *m, bool force,
                         struct err *err)
{
    struct commit *w = commit_new(c);

    if (w == NULL)
        return err_set(err, ERR_NOMEM, 0, "mode");
    return commit_wait(w, engine_mode_set(c->engine, id, m, force, commit_done, w, err) == 0,
                       m->wait_ms, err);
}

static void reply_set(struct request *rq, struct response *rs, const char *id,
                      const struct repl_mode *m, bool force)
{
    struct core *c = rq->core;
    struct err err = {0};

    if (replication_mode_set(c, id, m, force, &err) == 0) {
        log_info(c->log, "replication",
                 "mode set: id=%s mode=%s wait_limit_ms=%u on_limit=%s force=%s",
                 id != NULL ? id : "(quorum)", repl_level_name(m->level), m->wait_ms,
                 repl_on_limit_name(m->on_limit), force ? "true" : "false");
        if (force)
            reply_warning(rs,
                          "The mode before this one ended at once. A secondary that has not read "
                          "this yet may still promise that nothing is lost.");
        else
            reply_empty(rs);
        return;
    }
    if (err.code == ERR_NOTFOUND)
        replication_no_such(rq, rs, err.msg);
    else if (err.code == ERR_BUSY)
        reply_error(rs, 400, "%s", err.msg);
    else if (err.code == ERR_UNKNOWN_OUTCOME)
        reply_error(rs, 503,
                    "outcome unknown: %s: the mode so far counts until then; force=true ends it at "
                    "once",
                    err.msg);
    else
        reply_err(rs, &err);
}

static void write_mode(struct request *rq, struct response *rs)
{
    struct repl_mode m;
    const char *id;
    bool force;

    if (field_str(rq, rs, "id", "", &id) != 0 || read_fields(rq, rs, &m, &force) != 0)
        return;
    m.k = 1;
    if (add_name(&m, id) != 0)
        reply_error(rs, 400, "secondary ID must be provided");
    else
        reply_set(rq, rs, id, &m, force);
}

static void write_quorum(struct request *rq, struct response *rs)
{
    struct repl_mode m;
    json_t *names = NULL;
    int64_t k;
    bool force, good = true;
    const json_t *v;
    size_t i;

    if (read_fields(rq, rs, &m, &force) != 0 || field_int(rq, rs, "quorum", 0, &k) != 0 ||
        field_names(rq, rs, "members", &names) != 0)
        return;
    json_array_foreach(names, i, v) good = good && add_name(&m, json_string_value(v)) == 0;
    m.k = k > 0 && k <= REPL_NAMES_MAX ? (uint32_t)k : 0;
    if (!good || m.n == 0 || m.k == 0 || m.k > m.n)
        reply_error(rs, 400,
                    "members must name 1 to %u secondaries, and quorum be a number of them",
                    REPL_NAMES_MAX);
    else
        reply_set(rq, rs, NULL, &m, force);
    json_decref(names);
}

static void delete_quorum(struct request *rq, struct response *rs)
{
    struct repl_mode none = {.wait_ms = REPL_WAIT_MS_DEFAULT};
    bool force;

    if (field_bool(rq, rs, "force", false, &force) == 0)
        reply_set(rq, rs, NULL, &none, force);
}

/* ---- reading ---- */

static void set(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name, v);
}

static void set_fields(json_t *o, enum repl_level level, enum repl_on_limit on_limit,
                       uint32_t wait_ms, const char *state)
{
    set(o, "mode", json_string(repl_level_name(level)));
    set(o, "mode_on_limit", json_string(repl_on_limit_name(on_limit)));
    set(o, "mode_wait_limit_ms", json_integer(wait_ms));
    set(o, "mode_state", json_string(state));
}

static const char *state_of(bool fallen, bool waiting)
{
    return fallen ? "fallback" : waiting ? "waiting" : "met";
}

void replication_mode_json(json_t *o, const struct engine_peer *p)
{
    set_fields(o, p->level, p->on_limit, p->wait_ms, state_of(p->fallen_back, p->waiting));
    set(o, "whole", json_boolean(p->whole));
}

json_t *replication_quorum_json(const struct engine_status *st)
{
    const struct repl_mode *q = &st->quorum;
    json_t *o, *names;

    if (q->n == 0)
        return json_null();
    o = json_object();
    names = json_array();
    for (uint32_t i = 0; i < q->n; i++)
        json_array_append_new(names, json_string(q->name[i]));
    set(o, "quorum", json_integer(q->k));
    set(o, "members", names);
    set_fields(o, q->level, q->on_limit, q->wait_ms,
               state_of(st->quorum_fallen_back, st->quorum_waiting));
    return o;
}

static void read_modes(struct request *rq, struct response *rs)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st)); /* large */
    json_t *all = json_object(), *data = json_object();

    if (st != NULL)
        engine_status(rq->core->engine, st);
    for (size_t i = 0; st != NULL && i < st->n_peers; i++) {
        json_t *o = json_object();

        replication_mode_json(o, &st->peers[i]);
        set(all, st->peers[i].id, o);
    }
    set(data, "secondaries", all);
    set(data, "quorum", st != NULL ? replication_quorum_json(st) : json_null());
    reply_data(rs, data);
}

void replication_mode_handle(struct request *rq, struct response *rs)
{
    bool quorum = strcmp(rq->path, "replication/dr/primary/quorum") == 0;

    if (!replication_on_serving_primary(rq, rs))
        return;
    if (rq->op == OP_READ)
        read_modes(rq, rs);
    else if (rq->op == OP_WRITE)
        (quorum ? write_quorum : write_mode)(rq, rs);
    else if (rq->op == OP_DELETE && quorum)
        delete_quorum(rq, rs);
    else
        reply_unsupported(rs);
}
