/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_check.c - sys/replication/merkle-check, reindex and recover, and their dr/secondary
 * forms: is the data what its Merkle tree says, make it so, and make the link anew.
 *
 * merkle-check waits for a scrub of all rows and answers with Vault's report. The tree has two
 * levels of 256: a page is a node, a subpage a leaf of it. There is one tree, the replicated one.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

#define CHECK_WAIT_MS (60u * 60 * 1000) /* the request's own limit is shorter as a rule */

static void set(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name, v);
}

/* One scrub, or a reindex with its scrub. */
static int scrub(struct core *c, bool reindex, struct err *err)
{
    struct commit *w = commit_new(c);

    if (w == NULL)
        return err_set(err, ERR_NOMEM, 0, "scrub");
    return commit_wait(w, engine_scrub(c->engine, reindex, commit_done, w, err) == 0, CHECK_WAIT_MS,
                       err);
}

static json_t *pages(const struct engine_status *st)
{
    json_t *map = json_object();

    for (size_t i = 0; i < st->scrub_named; i++) {
        uint32_t leaf = st->scrub_leaves[i];
        char page[16];
        json_t *o;

        snprintf(page, sizeof(page), "%u", leaf / 256);
        o = json_object_get(map, page);
        if (o == NULL) {
            o = json_pack("{s:b, s:[]}", "corrupted", 1, "subpages");
            json_object_set_new(map, page, o);
        }
        json_array_append_new(json_object_get(o, "subpages"), json_integer(leaf % 256));
    }
    return map;
}

static json_t *report(struct request *rq, const struct engine_status *st)
{
    bool bad = st->scrub_bad_leaves > 0;
    const char *when = time_rfc3339(rq->arena, st->scrub_ms);
    struct buf root = {0};
    json_t *tree = json_object(), *r = json_object();

    base64_write(&root, st->merkle_root, sizeof(st->merkle_root), true);
    set(tree, "tree_type", json_string("replicated"));
    set(tree, "root_hash", json_string(buf_str(&root)));
    buf_free(&root);
    set(tree, "corrupted_subtree_root", json_boolean(bad));
    set(tree, "corrupted_index_tuples_map", bad ? pages(st) : json_null());
    set(r, "corrupted_root", json_boolean(bad));
    set(r, "last_corruption_check_epoch", json_string(when != NULL ? when : ""));
    set(r, "corrupted_tree_map", json_pack("{s:o}", "1", tree));
    /* Ours. */
    set(r, "checked_lsn", json_integer((json_int_t)st->scrub_lsn));
    set(r, "checked_keys", json_integer((json_int_t)st->scrub_keys));
    set(r, "corrupted_leaves", json_integer((json_int_t)st->scrub_bad_leaves));
    return json_pack("{s:o}", "merkle_corruption_report", r);
}

static void reply_failed(struct response *rs, const struct err *err)
{
    if (err->code == ERR_AGAIN || err->code == ERR_BUSY || err->code == ERR_ROLE)
        reply_error(rs, 400, "%s", err->msg);
    else
        reply_err(rs, err);
}

static void check(struct request *rq, struct response *rs)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st)); /* large */
    struct err err = {0};

    if (st == NULL)
        reply_error(rs, 500, "out of memory");
    else if (scrub(rq->core, false, &err) != 0)
        reply_failed(rs, &err);
    else {
        replication_settle_root(rq->core);
        engine_status(rq->core->engine, st);
        reply_data(rs, report(rq, st));
    }
}

static bool follows_somebody(struct request *rq)
{
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st)); /* large */

    if (st == NULL)
        return true;
    engine_status(rq->core->engine, st);
    return st->primary_cluster_addr[0] != '\0';
}

/* A link is the secondary's to make. */
static void recover(struct request *rq, struct response *rs)
{
    struct repl_config conf;
    bool primary = rq->core->role == ENGINE_PRIMARY || rq->core->role == ENGINE_FENCED;

    if (primary && !replication_on_primary(rq, rs, &conf))
        return;
    if (!primary && !follows_somebody(rq)) {
        reply_error(rs, 400,
                    "this secondary follows nobody: give it a primary with update-primary");
        return;
    }
    engine_recover(rq->core->engine);
    reply_warning(rs, primary ? "The members are read again. A link is made anew by the secondary: "
                                "sys/replication/dr/secondary/recover there."
                              : "The link to the primary is made anew: see the status. Where the "
                                "data differs, sys/replication/dr/secondary/reindex is what mends "
                                "it.");
}

/* Nothing is answered before it is done on a primary; on a secondary before it has begun. diff and
 * skip_flush, which choose between ways that Vault has, change nothing: there is one way. */
static void reindex(struct request *rq, struct response *rs)
{
    bool diff, force, skip_flush;
    struct err err = {0};

    if (field_bool(rq, rs, "diff", false, &diff) != 0 ||
        field_bool(rq, rs, "force", false, &force) != 0 ||
        field_bool(rq, rs, "skip_flush", false, &skip_flush) != 0)
        return;
    if (scrub(rq->core, true, &err) != 0)
        reply_failed(rs, &err);
    else
        reply_warning(rs,
                      rq->core->role == ENGINE_PRIMARY
                          ? "The Merkle tree is what the stored rows give. Secondaries take from "
                            "here what differs: see their status."
                          : "What differs is taken from the primary: see the status. Until it is "
                            "here, the data at hand stays as it is.");
}

void replication_check_handle(struct request *rq, struct response *rs)
{
    const char *verb = strrchr(rq->path, '/') + 1;
    const char *token;

    if (strncmp(rq->path, "replication/dr/secondary/", 25) == 0 &&
        !replication_dr_token(rq, rs, &token))
        return;
    if (strcmp(verb, "reindex") == 0)
        reindex(rq, rs);
    else if (strcmp(verb, "recover") == 0)
        recover(rq, rs);
    else
        check(rq, rs);
}
