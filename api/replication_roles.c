/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_roles.c - primary/demote and secondary/update-primary: roles change and the data
 * stays.
 */
#include <inttypes.h>
#include <string.h>

#include "cluster_private.h"
#include "config.h"
#include "core_private.h"
#include "replication_private.h"

#define REACH_LIMIT_MS 5000u /* that update-primary waits for its addresses */

/* ---- calls into the engine that a coroutine waits for ---- */
struct role_wait {
    struct co *co;
    uint64_t lsn;
    struct err err;
};

static void role_done(void *arg, uint64_t lsn, const struct err *err)
{
    struct role_wait *w = arg;

    w->lsn = lsn;
    if (err != NULL)
        w->err = *err;
    co_wake(w->co);
}

int replication_retarget(struct core *c, const struct follow_config *f, bool give_up,
                         struct err *err)
{
    struct role_wait w = {.co = co_current()};

    if (engine_retarget(c->engine, f, give_up, role_done, &w, err) != 0)
        return -1;
    co_wait();
    if (w.err.code == ERR_OK)
        return 0;
    *err = w.err;
    return -1;
}

int replication_cut(struct core *c, const char *id, bool force, struct err *err)
{
    struct role_wait w = {.co = co_current()};

    if (engine_revoke(c->engine, id, force, role_done, &w, err) != 0)
        return -1;
    co_wait();
    if (w.err.code == ERR_OK)
        return 0;
    *err = w.err;
    return -1;
}

/* After the change was made. */
static int await_primary(struct core *c, struct err *err)
{
    struct role_wait w = {.co = co_current()};

    engine_await_primary(c->engine, REACH_LIMIT_MS, role_done, &w);
    co_wait();
    if (w.err.code == ERR_OK)
        return 0;
    *err = w.err;
    return -1;
}

static int demote_do(struct core *c, uint64_t *lackingp, struct err *err)
{
    struct role_wait w = {.co = co_current()};

    if (engine_demote(c->engine, role_done, &w, err) != 0)
        return -1;
    co_wait();
    *lackingp = w.lsn;
    if (w.err.code == ERR_OK)
        return 0;
    *err = w.err;
    return -1;
}

/* ---- member rows ---- */
struct flags {
    struct batch *batch;
    const uint8_t *own;                /* or NULL: */
    const struct engine_status *peers; /* those that follow now */
    bool any;
};

static bool follows(const struct engine_status *st, const char *id)
{
    for (size_t i = 0; i < st->n_peers; i++) {
        if (st->peers[i].connected && strcmp(st->peers[i].id, id) == 0)
            return true;
    }
    return false;
}

static int clear_flag(void *arg, const struct member *m, struct err *err)
{
    struct flags *f = arg;
    struct member now = *m;

    if (!m->primary || m->revoked ||
        (f->own != NULL ? memcmp(m->key_hash, f->own, 32) != 0 : !follows(f->peers, m->id)))
        return 0;
    now.primary = false;
    f->any = true;
    return member_put(f->batch, &now, err);
}

/* Holds REPL_LATCH. */
static int clear_flags(struct core *c, const uint8_t *own, const struct engine_status *peers,
                       struct err *err)
{
    struct flags f = {.batch = batch_new(c), .own = own, .peers = peers};

    if (f.batch == NULL)
        return err_set(err, ERR_NOMEM, 0, "members");
    if (members_each(c, clear_flag, &f, err) != 0 || !f.any) {
        batch_free(f.batch);
        return err->code != ERR_OK ? -1 : 0;
    }
    return batch_commit(f.batch, err);
}

bool replication_rejoined(struct core *c)
{
    struct engine_status *st = calloc(1, sizeof(*st));
    struct latch_ref latch;
    struct err err = {0};
    int rc;

    if (st == NULL || c->role != ENGINE_PRIMARY || core_sealed(c)) {
        free(st);
        return true;
    }
    engine_status(c->engine, st);
    rc = latch_take(c, REPL_LATCH, &latch, &err);
    if (rc == 0) {
        rc = clear_flags(c, NULL, st, &err);
        latch_release(c, &latch);
    }
    if (rc != 0)
        log_error(c->log, "replication", "cannot note that an old primary has rejoined: %s",
                  err.msg);
    free(st);
    return rc == 0;
}

/* ---- primary/demote ---- */
int replication_own_hash(struct core *c, uint8_t hash[32], struct err *err)
{
    struct link_identity me = {0};
    int rc;

    if (identity_load(c, &me, err) != 0)
        return -1;
    rc = cert_key_hash(buf_str(&me.cert), hash, err);
    identity_free(&me);
    return rc;
}

void replication_demote_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    uint8_t own[32];
    uint64_t lacking;
    int rc = -1;

    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (repl_config_get(c, &conf, &err) != 0)
        goto out;
    if (!conf.primary_enabled) {
        reply_error(rs, 400, "Not a DR primary: there is nothing to demote.");
        latch_release(c, &latch);
        return;
    }
    /* The row goes to the secondaries with the last writes: the next primary finds an ordinary
     * member. One that was superseded can't write; it is noted when it rejoins. */
    if (c->role == ENGINE_PRIMARY &&
        (replication_own_hash(c, own, &err) != 0 || clear_flags(c, own, NULL, &err) != 0))
        goto out;
    rc = demote_do(c, &lacking, &err);
out:
    latch_release(c, &latch);
    if (rc != 0) {
        log_error(c->log, "replication", "cannot demote: %s", err.msg);
        reply_err(rs, &err);
        return;
    }
    reply_warning(rs, "This cluster is being demoted to a replication secondary. Vault will be "
                      "unavailable for a brief period and will resume service shortly.");
    if (lacking > 0)
        reply_warning(rs,
                      "A secondary is not known to have the last %" PRIu64
                      " transactions (the log of this server names it). Promoted now, it would "
                      "serve without them: let it follow this cluster first, or promote this "
                      "cluster again.",
                      lacking);
}

/* ---- secondary/update-primary ---- */
static int add_addr(struct response *rs, struct follow_config *f, const char *text)
{
    size_t n = strlen(f->addrs);
    char addr[256];
    struct err err = {0};

    if (addr_of_url(text, addr, &err) != 0) {
        reply_error(rs, 400, "update_primary_addrs: %s", err.msg);
        return -1;
    }
    if (config_check_dialled("update_primary_addrs", text, &err) != 0) {
        reply_error(rs, 400, "%s", err.msg);
        return -1;
    }
    if (n + strlen(addr) + 2 > sizeof(f->addrs)) {
        reply_error(rs, 400, "update_primary_addrs: the addresses are longer than %zu characters",
                    sizeof(f->addrs) - 1);
        return -1;
    }
    snprintf(f->addrs + n, sizeof(f->addrs) - n, "%s%s", n > 0 ? "," : "", addr);
    return 0;
}

static int read_addrs(struct request *rq, struct response *rs, struct follow_config *f)
{
    json_t *list;
    const json_t *v;
    size_t i;
    int rc = 0;

    if (field_names(rq, rs, "update_primary_addrs", &list) != 0)
        return -1;
    json_array_foreach(list, i, v)
    {
        if (rc == 0)
            rc = add_addr(rs, f, json_string_value(v));
    }
    json_decref(list);
    return rc;
}

/* The id and the key stay: they stand in the replicated member table, and so does the primary's. */
static int follow_same_member(struct core *c, struct follow_config *f, bool give_up,
                              struct err *err)
{
    struct engine_status *st = calloc(1, sizeof(*st));
    int rc;

    if (st == NULL)
        return err_set(err, ERR_NOMEM, 0, "update-primary");
    engine_status(c->engine, st);
    memcpy(f->member_id, st->secondary_id, sizeof(f->member_id));
    memcpy(f->cluster_id, st->cluster_id, sizeof(f->cluster_id));
    snprintf(f->cluster_addr, sizeof(f->cluster_addr), "%s", c->config->cluster_addr);
    free(st);
    rc = replication_retarget(c, f, give_up, err);
    return rc;
}

void replication_update_primary_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct join j = {.rq = rq, .seed_file = "", .keep = true};
    struct follow_config f = {0};
    struct latch_ref latch;
    struct err err = {0};
    const char *dr;
    int rc;

    if (!replication_dr_token(rq, rs, &dr) || field_str(rq, rs, "token", "", &j.token) != 0 ||
        field_str(rq, rs, "primary_api_addr", "", &j.api_addr) != 0 ||
        field_str(rq, rs, "ca_file", "", &j.ca_file) != 0 ||
        field_str(rq, rs, "ca_path", "", &j.ca_path) != 0 ||
        field_bool(rq, rs, "force", false, &j.give_up) != 0 || read_addrs(rq, rs, &f) != 0)
        return;
    /* What is misspelt, or empty by accident, must not read as "follow nobody". */
    if (!field_given(rq, "token") && !field_given(rq, "update_primary_addrs")) {
        reply_error(rs, 400,
                    "give token or update_primary_addrs; empty, it says to forget the primary");
        return;
    }
    if (j.token[0] != '\0' && f.addrs[0] != '\0') {
        reply_error(rs, 400, "token and update_primary_addrs exclude each other");
        return;
    }
    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    rc = j.token[0] != '\0' ? join_primary(&j, &err) : follow_same_member(c, &f, j.give_up, &err);
    latch_release(c, &latch);
    if (rc != 0) {
        log_error(c->log, "replication", "cannot update the primary: %s", err.msg);
        reply_error(rs, err.code == ERR_NOMEM || err.code == ERR_IO ? 500 : 400, "%s", err.msg);
    } else if (j.token[0] == '\0' && f.addrs[0] == '\0') {
        reply_warning(rs, "The primary is forgotten: this secondary follows nobody until it is "
                          "given another one.");
    } else if (j.token[0] == '\0' && await_primary(c, &err) != 0) {
        reply_warning(rs,
                      "The primary is not followed yet, at %s. This secondary goes on trying: see "
                      "connection_state and reasons in its status. If an address is wrong, or that "
                      "cluster is not the primary, give another one.",
                      err.msg);
    } else {
        reply_warning(rs,
                      "Vault has successfully found secondary information; it may take a while to "
                      "perform setup tasks. Vault will be unavailable until these tasks and "
                      "initial sync complete.");
    }
}
