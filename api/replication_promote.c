/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_promote.c - sys/replication/dr/secondary/promote, and what a cluster does once it is
 * a primary.
 *
 * The durable role comes before the answer. What a primary notes of itself after that can fail, as
 * on a full disk: it is tried again at each timer, and at the next unseal (primary_settle).
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

/* ---- a primary takes stock of itself ---- */

struct settle {
    const uint8_t *key_hash;
    struct member me;
    bool found;
};

static int find_own(void *arg, const struct member *m, struct err *err)
{
    struct settle *s = arg;

    (void)err;
    if (memcmp(m->key_hash, s->key_hash, 32) == 0) {
        s->me = *m;
        s->found = true;
    }
    return 0;
}

/* Something changes in a promotion, or when an address in the configuration file did. */
static int settle_commit(struct core *c, struct repl_config *conf, struct settle *s,
                         const char *addr, struct err *err)
{
    bool first = !s->me.primary;
    struct batch *b;

    if (!first && addr == NULL && strcmp(s->me.cluster_addr, c->config->cluster_addr) == 0 &&
        strcmp(s->me.api_addr, c->config->api_addr) == 0)
        return 0;
    snprintf(s->me.cluster_addr, sizeof(s->me.cluster_addr), "%s", c->config->cluster_addr);
    snprintf(s->me.api_addr, sizeof(s->me.api_addr), "%s", c->config->api_addr);
    s->me.primary = true;
    if (first || addr != NULL)
        snprintf(conf->primary_cluster_addr, sizeof(conf->primary_cluster_addr), "%s",
                 addr != NULL ? addr : c->config->cluster_addr);
    b = batch_new(c);
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "settle");
    if (member_put(b, &s->me, err) != 0 || repl_config_put(b, conf, err) != 0 ||
        (first && activations_delete_all(c, b, err) != 0)) {
        batch_free(b);
        return -1;
    }
    if (batch_commit(b, err) != 0)
        return -1;
    engine_members_changed(c->engine);
    core_look(c);
    return 0;
}

int primary_settle(struct core *c, const char *primary_cluster_addr, struct err *err)
{
    struct repl_config conf;
    struct link_identity me = {0};
    struct latch_ref latch;
    struct settle s = {0};
    uint8_t hash[32];
    int rc = -1;

    atomic_store(&c->settle_again, true);
    if (latch_take(c, REPL_LATCH, &latch, err) != 0)
        return -1;
    if (dr_token_clear(c, err) != 0 || /* a primary has none */
        repl_config_get(c, &conf, err) != 0 || identity_load(c, &me, err) != 0 ||
        cert_key_hash(buf_str(&me.cert), hash, err) != 0)
        goto out;
    s.key_hash = hash;
    if (members_each(c, find_own, &s, err) != 0)
        goto out;
    rc = s.found ? settle_commit(c, &conf, &s, primary_cluster_addr, err)
                 : err_set(err, ERR_NOTFOUND, 0, "this node's link key is not in the member table");
out:
    latch_release(c, &latch);
    identity_free(&me);
    atomic_store(&c->settle_again, rc != 0);
    return rc;
}

/* ---- promote ---- */

struct promote_wait {
    struct co *co;
    struct err err;
};

static void promote_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct promote_wait *w = arg;

    (void)lsn;
    if (err != NULL)
        w->err = *err;
    co_wake(w->co);
}

int replication_take_role(struct core *c, bool force, bool alone, struct err *err)
{
    struct promote_wait w = {.co = co_current()};

    if ((alone ? engine_secede(c->engine, promote_done, &w, err)
               : engine_promote(c->engine, force, promote_done, &w, err)) != 0)
        return -1;
    co_wait();
    if (w.err.code == ERR_OK)
        return 0;
    *err = w.err;
    return -1;
}

/* A fenced cluster has its tokens and their policies still, so the router has looked at one. */
static bool may_promote(struct request *rq, struct response *rs, bool force)
{
    const char *token;

    if (rq->core->role != ENGINE_FENCED)
        return replication_copy_whole(rq, rs) && replication_dr_token(rq, rs, &token);
    if (force)
        return true;
    reply_error(
        rs, 400,
        "this cluster was superseded, or is one side of a split: with force=true it becomes "
        "the primary again, and supersedes the other one");
    return false;
}

/* The last that a primary which disables replication says is that there are no members and another
 * cluster id: this cluster is no member either then, and takes an id of its own. */
static int settle(struct core *c, const char *addr, bool *alonep, struct err *err)
{
    struct repl_config conf;
    struct latch_ref latch;
    int rc;

    if (repl_config_get(c, &conf, err) != 0)
        return -1;
    *alonep = !conf.primary_enabled;
    if (!*alonep)
        return primary_settle(c, addr, err);
    if (latch_take(c, REPL_LATCH, &latch, err) != 0)
        return -1;
    rc = dr_token_clear(c, err) != 0 ? -1 : replication_leave_members(c, err);
    latch_release(c, &latch);
    return rc;
}

void replication_promote_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    const char *addr;
    struct err err = {0};
    bool force, preview, alone = false;

    if (replication_field_cluster_addr(rq, rs, &addr) != 0 ||
        field_bool(rq, rs, "force", false, &force) != 0 ||
        field_bool(rq, rs, "preview", false, &preview) != 0 || !may_promote(rq, rs, force))
        return;
    if (preview) { /* the token is good */
        replication_preview(rq, rs);
        return;
    }
    if (c->role != ENGINE_FENCED && !replication_loss_accepted(rq, rs, force))
        return;
    log_info(c->log, "replication", "promoting to DR primary: force=%s", force ? "true" : "false");
    if (replication_take_role(c, force, false, &err) != 0) {
        log_error(c->log, "replication", "cannot promote: %s", err.msg);
        if (err.code == ERR_DENIED) /* not for want of a permission: it needs force, and says why */
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
        return;
    }
    log_info(c->log, "replication", "promoted to DR primary");
    if (settle(c, addr[0] != '\0' ? addr : NULL, &alone, &err) != 0) {
        log_error(c->log, "replication", "promoted, but cannot take up a primary's work: %s",
                  err.msg);
        reply_warning(rs,
                      "This cluster is a primary now, but could not note its address and void old "
                      "tokens (%s). It "
                      "is tried again every ten seconds.",
                      err.msg);
    }
    if (alone)
        reply_warning(rs,
                      "The primary had disabled replication, so this cluster stands alone, with "
                      "a cluster id of its own: replication is disabled here, too.");
    reply_warning(rs, "This cluster is being promoted to a replication primary. Vault will be "
                      "unavailable for a brief "
                      "period and will resume service shortly.");
}
