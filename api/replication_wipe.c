/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_wipe.c - a cluster with secrets becomes a secondary only when its name is said, and
 * what it held is set aside for a while.
 *
 * Secrets are what lies in mounts of kv and of auth methods, and in cubbyholes. A fresh cluster has
 * none, so that Vault's clients take it in unchanged.
 *
 * The cluster serves while it is being enabled, which takes minutes with a snapshot. So this is
 * looked at before anything is done, again before the token is spent, and last of all together
 * with the LSN that it is true for: the engine takes the new role only when nothing was written
 * after that. A wipe that was confirmed is confirmed whatever else is written.
 */
#include <inttypes.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "mounts.h"
#include "replication_private.h"

#define COUNT_MAX 1000

static int count_one(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    size_t *n = arg;

    (void)key, (void)value, (void)len, (void)lsn, (void)err;
    (*n)++;
    return 0;
}

/* "kv/ (12 entries), auth/userpass/ (more than 1000 entries)"; empty: no secrets. */
static int describe(struct core *c, struct buf *out, struct err *err)
{
    struct mount_table *t;
    const struct mount *m;
    int rc = 0;

    if (mount_table_get(c, &t, err) != 0)
        return -1;
    for (size_t i = 0; rc == 0 && (m = mount_at(t, i)) != NULL; i++) {
        const char *prefix = strcmp(m->type, "cubbyhole") == 0 ? CUBBYHOLE_PREFIX : m->prefix;
        size_t n = 0;

        if ((m->builtin && prefix == m->prefix) || prefix[0] == '\0')
            continue;
        rc = engine_scan(c->engine, prefix, NULL, COUNT_MAX + 1, true, count_one, &n, err);
        if (rc == 0 && n > 0)
            buf_printf(out, "%s%s (%s%zu entr%s)", out->len > 0 ? ", " : "", m->path,
                       n > COUNT_MAX ? "more than " : "", n > COUNT_MAX ? (size_t)COUNT_MAX : n,
                       n == 1 ? "y" : "ies");
    }
    mount_table_unref(t);
    return rc != 0 ? -1 : buf_check(out, err);
}

static bool may_wipe(struct request *rq, struct response *rs, const char *what, const char *confirm)
{
    struct core *c = rq->core;
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st));
    int64_t hours = c->config->keep_wiped_ms / 3600000;
    char name[128], id[40];
    struct err err = {0};

    if (core_cluster(c, id, name, &err) != 0) {
        reply_err(rs, &err);
        return false;
    }
    if (strcmp(confirm, name) != 0) {
        reply_error(rs, 400,
                    "%s%s holds secrets that becoming a secondary replaces by the primary's data: "
                    "%s. If that is meant, pass confirm_wipe=%s; %s",
                    confirm[0] != '\0' ? "confirm_wipe names another cluster: cluster "
                                       : "cluster ",
                    name, what, name,
                    hours > 0 ? "they are then set aside for the time of keep_wiped"
                              : "nothing of them is kept (keep_wiped)");
        return false;
    }
    if (st != NULL)
        engine_status(c->engine, st);
    if (st == NULL || (c->config->keep_wiped_ms > 0 && st->n_aside == ENGINE_ASIDE_MAX)) {
        reply_error(rs, 400,
                    "%u data sets are set aside already: remove one with "
                    "sys/replication/dr/secondary/aside/delete, or wait until its time is over",
                    ENGINE_ASIDE_MAX);
        return false;
    }
    return true;
}

bool replication_wipe_accepted(const struct join *j, int64_t *keep_msp, uint64_t *if_lsnp)
{
    struct core *c = j->rq->core;
    struct engine_status *st = arena_alloc(j->rq->arena, sizeof(*st));
    struct buf what = {0};
    struct err err = {0};
    bool good = false;

    *keep_msp = 0;
    *if_lsnp = 0;
    if (st != NULL)
        engine_status(c->engine, st); /* before the look: what comes after it is not seen */
    if (st == NULL)
        reply_router_error(j->rs, 500, "out of memory");
    else if (describe(c, &what, &err) != 0) {
        reply_err(j->rs, &err);
    } else if (what.len == 0) {
        *if_lsnp = st->applied_lsn;
        good = true;
    } else if (may_wipe(j->rq, j->rs, buf_str(&what), j->confirm)) {
        *keep_msp = c->config->keep_wiped_ms;
        log_warn(c->log, "replication", "becoming a secondary, which replaces %s", buf_str(&what));
        good = true;
    }
    buf_free(&what);
    return good;
}

/* ---- what is set aside ---- */

static json_t *time_json(struct request *rq, int64_t ms)
{
    const char *text = time_rfc3339(rq->arena, ms);

    return json_string(text != NULL ? text : "");
}

json_t *replication_aside_json(struct request *rq, const struct engine_status *st)
{
    json_t *list = json_array();

    for (size_t i = 0; i < st->n_aside; i++) {
        const struct engine_aside *a = &st->aside[i];

        json_array_append_new(
            list, json_pack("{s:I, s:s, s:I, s:o, s:o}", "generation", (json_int_t)a->generation,
                            "cluster_name", a->name, "end_lsn", (json_int_t)a->end_lsn, "since",
                            time_json(rq, a->since_ms), "until", time_json(rq, a->until_ms)));
    }
    return list;
}

void replication_aside_delete(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct commit *w;
    struct err err = {0};
    int64_t generation;

    if (field_int(rq, rs, "generation", 0, &generation) != 0)
        return;
    if (generation <= 0 || generation > UINT32_MAX) {
        reply_error(rs, 400, "generation must be provided, as status shows it");
        return;
    }
    w = commit_new(c);
    if (w == NULL)
        err_set(&err, ERR_NOMEM, 0, "remove what is set aside");
    else if (commit_wait(
                 w, engine_aside_drop(c->engine, (uint32_t)generation, commit_done, w, &err) == 0,
                 0, &err) == 0) {
        reply_empty(rs);
        return;
    }
    if (err.code == ERR_NOTFOUND)
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
}
