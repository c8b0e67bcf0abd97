/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication.c - sys/replication/...: enable, tokens for secondaries, revoke, promote, disable.
 *
 * What a step needs on disk comes before what others can see of it: the link identity before the
 * configuration row, the durable role before the answer. Each verb can be given again after a crash
 * in the middle.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "drill.h"
#include "tls.h"

#define SECONDARY_TTL_S 1800
#define SECONDARY_TTL_MAX_S (30 * 86400)

/* ---- primary/enable ---- */

static int issue_own(struct core *c, const char *cluster_id, const struct link_ca *ca,
                     struct link_identity *me, struct err *err)
{
    struct cert_request cr = {.common_name = cluster_id, .days = CERT_DAYS};

    buf_clear(&me->cert);
    buf_clear(&me->ca);
    if (cert_issue(&cr, buf_str(&me->key), NULL, buf_str(&ca->cert), buf_str(&ca->key), &me->cert,
                   err) != 0)
        return -1;
    buf_adds(&me->ca, buf_str(&ca->cert));
    if (buf_check(&me->ca, err) != 0)
        return -1;
    return identity_save(c, me, err);
}

static int make_ca(const char *cluster_id, struct link_ca *ca, struct err *err)
{
    char name[64];
    struct cert_request cr = {.common_name = name, .days = CERT_DAYS, .ca = true};

    snprintf(name, sizeof(name), "replication %s", cluster_id);
    if (cert_key_new(&ca->key, err) != 0)
        return -1;
    return cert_issue(&cr, buf_str(&ca->key), NULL, NULL, NULL, &ca->cert, err);
}

static int own_member(struct core *c, const char *id, const struct link_identity *me,
                      struct member *m, struct err *err)
{
    memset(m, 0, sizeof(*m));
    snprintf(m->id, sizeof(m->id), "%s", id);
    snprintf(m->cluster_addr, sizeof(m->cluster_addr), "%s", c->config->cluster_addr);
    snprintf(m->api_addr, sizeof(m->api_addr), "%s", c->config->api_addr);
    m->primary = true;
    return cert_key_hash(buf_str(&me->cert), m->key_hash, err);
}

static int enable_commit(struct core *c, struct repl_config *conf, const struct link_ca *ca,
                         const struct member *m, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "enable");
    if (repl_config_put(b, conf, err) != 0 || link_ca_put(b, ca, err) != 0 ||
        member_put(b, m, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static int enable_do(struct request *rq, struct repl_config *conf, struct err *err)
{
    struct core *c = rq->core;
    struct link_identity me = {0};
    struct link_ca ca = {0};
    struct member m;
    struct err why = {0};
    int rc = -1;

    if (conf->cluster_id[0] == '\0')
        uuid_new(c, conf->cluster_id);
    if (link_ca_get(c, &ca, &why) != 0) {
        if (why.code != ERR_NOTFOUND)
            return err_set(err, why.code, 0, "%s", why.msg);
        if (make_ca(conf->cluster_id, &ca, err) != 0)
            goto out;
    }
    if (identity_key(c, &me, err) != 0 || issue_own(c, conf->cluster_id, &ca, &me, err) != 0 ||
        own_member(c, conf->cluster_id, &me, &m, err) != 0)
        goto out;
    conf->primary_enabled = true;
    if (enable_commit(c, conf, &ca, &m, err) != 0 || cluster_credentials(c, &me, err) != 0)
        goto out;
    engine_members_changed(c->engine);
    core_look(c);
    rc = 0;
out:
    identity_free(&me);
    link_ca_free(&ca);
    return rc;
}

static int field_cluster_addr(struct request *rq, struct response *rs, const char **outp)
{
    char addr[256];
    struct err err = {0};

    if (field_str(rq, rs, "primary_cluster_addr", "", outp) != 0)
        return -1;
    if ((*outp)[0] == '\0')
        return 0;
    if (strlen(*outp) > 255 || addr_of_url(*outp, addr, &err) != 0) {
        reply_error(rs, 400, "primary_cluster_addr: %s", err.msg[0] != '\0' ? err.msg : "too long");
        return -1;
    }
    return 0;
}

static void enable_reply(struct core *c, struct response *rs, const struct repl_config *conf,
                         bool again)
{
    log_info(c->log, "replication", "enabled as DR primary: cluster_id=%s primary_cluster_addr=%s",
             conf->cluster_id, conf->primary_cluster_addr);
    if (again)
        reply_warning(rs, "This cluster is a DR primary already; its primary_cluster_addr is %s.",
                      conf->primary_cluster_addr);
    else
        reply_warning(
            rs,
            "This cluster is being enabled as a primary for replication. Vault will be unavailable "
            "for a brief period and will resume service shortly.");
}

static int put_config(struct core *c, const struct repl_config *conf, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "enable");
    if (repl_config_put(b, conf, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* Given again, after a lost answer or with another address: ids, keys and members stay. */
static void primary_enable(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *addr;
    bool again;

    if (field_cluster_addr(rq, rs, &addr) != 0)
        return;
    latch_acquire(c, REPL_LATCH, &latch);
    if (repl_config_get(c, &conf, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    again = conf.primary_enabled;
    if (addr[0] != '\0' || !again)
        snprintf(conf.primary_cluster_addr, sizeof(conf.primary_cluster_addr), "%s",
                 addr[0] != '\0' ? addr : c->config->cluster_addr);
    if ((again ? put_config(c, &conf, &err) : enable_do(rq, &conf, &err)) != 0) {
        log_error(c->log, "replication", "cannot enable the DR primary: %s", err.msg);
        reply_err(rs, &err);
    } else {
        enable_reply(c, rs, &conf, again);
    }
out:
    latch_release(c, &latch);
}

/* ---- secondary-token ---- */

/* The id must not name a member or a token that is still good. */
static int check_id_free(struct request *rq, struct response *rs, const char *id)
{
    struct activation a;
    struct member m;
    struct err err = {0};

    if (member_get(rq->core, id, &m, &err) == 0) {
        if (m.revoked)
            return 0;
        reply_error(rs, 400,
                    "secondary ID \"%s\" is in use: choose another, or revoke it first with "
                    "revoke-secondary",
                    id);
        return -1;
    }
    if (err.code == ERR_NOTFOUND) {
        err_clear(&err);
        if (activation_get(rq->core, id, &a, &err) == 0) {
            if (a.expires_ms < rq->now_ms)
                return 0;
            reply_error(rs, 400,
                        "secondary ID \"%s\" has an open token already: choose another, or revoke "
                        "it first with "
                        "revoke-secondary",
                        id);
            return -1;
        }
    }
    if (err.code == ERR_NOTFOUND)
        return 0;
    reply_err(rs, &err);
    return -1;
}

struct bootstrap {
    struct buf key, cert;
    uint8_t hash[32];
};

/* The certificate lives as long as the token: whole days, at least one; the activation row has the
 * exact end. */
static int make_bootstrap(const struct link_ca *ca, const char *id, int64_t ttl_s,
                          struct bootstrap *boot, struct err *err)
{
    struct cert_request cr = {.common_name = id, .days = (int)((ttl_s + 86399) / 86400)};

    if (cert_key_new(&boot->key, err) != 0 ||
        cert_issue(&cr, buf_str(&boot->key), NULL, buf_str(&ca->cert), buf_str(&ca->key),
                   &boot->cert, err) != 0)
        return -1;
    return cert_key_hash(buf_str(&boot->cert), boot->hash, err);
}

static json_t *bundle_json(const char *id, const struct repl_config *conf, const struct link_ca *ca,
                           const struct bootstrap *boot, const uint8_t primary_key[32])
{
    char hash[65];

    hex_of(primary_key, 32, hash);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "id", id, "ca_cert", buf_str(&ca->cert),
                     "client_cert", buf_str(&boot->cert), "client_key", buf_str(&boot->key),
                     "cluster_id", conf->cluster_id, "primary_cluster_addr",
                     conf->primary_cluster_addr, "primary_key_hash", hash);
}

static int put_activation(struct request *rq, const char *id, const struct activation *a,
                          struct err *err)
{
    struct batch *b = batch_new(rq->core);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "activation");
    if (activation_put(b, id, a, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static int token_do(struct request *rq, struct response *rs, const char *id, int64_t ttl_s,
                    const struct repl_config *conf, struct err *err)
{
    struct activation a = {.expires_ms = rq->now_ms + ttl_s * 1000};
    struct link_ca ca = {0};
    struct bootstrap boot = {.key.secret = true};
    struct link_identity me = {0};
    uint8_t primary_key[32];
    int rc = -1;

    if (link_ca_get(rq->core, &ca, err) != 0 || identity_load(rq->core, &me, err) != 0 ||
        cert_key_hash(buf_str(&me.cert), primary_key, err) != 0 ||
        make_bootstrap(&ca, id, ttl_s, &boot, err) != 0)
        goto out;
    memcpy(a.key_hash, boot.hash, 32);
    if (put_activation(rq, id, &a, err) != 0)
        goto out;
    reply_data(rs, bundle_json(id, conf, &ca, &boot, primary_key));
    if (rs->errors == NULL)
        rc = wrapping_wrap(rq, rs, ttl_s, true, err);
    else
        rc = err_set(err, ERR_NOMEM, 0, "secondary token");
out:
    link_ca_free(&ca);
    buf_free(&boot.key);
    buf_free(&boot.cert);
    identity_free(&me);
    return rc;
}

static bool check_enabled(struct request *rq, struct response *rs, struct repl_config *conf)
{
    struct err err = {0};

    if (repl_config_get(rq->core, conf, &err) != 0)
        reply_err(rs, &err);
    else if (!conf->primary_enabled)
        reply_error(rs, 400,
                    "Not a DR primary. Enable it first with sys/replication/dr/primary/enable.");
    else
        return true;
    return false;
}

static int field_id(struct request *rq, struct response *rs, const char **idp)
{
    if (field_str(rq, rs, "id", "", idp) != 0)
        return -1;
    if ((*idp)[0] == '\0') {
        reply_error(rs, 400, "secondary ID must be provided");
        return -1;
    }
    if (!member_id_good(*idp)) {
        reply_error(rs, 400, "secondary ID must have 1 to 63 characters, without space or '/'");
        return -1;
    }
    return 0;
}

static void secondary_token(struct request *rq, struct response *rs)
{
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *id;
    int64_t ttl_s;
    bool full;

    if (field_id(rq, rs, &id) != 0 || field_seconds(rq, rs, "ttl", SECONDARY_TTL_S, &ttl_s) != 0)
        return;
    if (ttl_s <= 0 || ttl_s > SECONDARY_TTL_MAX_S) {
        reply_error(rs, 400, "ttl must be from one second to 30 days");
        return;
    }
    if (field_given(rq, "secondary_public_key")) {
        reply_error(
            rs, 400,
            "secondary_public_key is not supported yet: leave it out and the answer is wrapped");
        return;
    }
    latch_acquire(rq->core, REPL_LATCH, &latch);
    if (check_enabled(rq, rs, &conf) && check_id_free(rq, rs, id) == 0) {
        if (strcmp(id, conf.cluster_id) == 0)
            reply_error(rs, 400, "secondary ID \"%s\" is this cluster's own", id);
        else if (secondaries_full(rq->core, rq->now_ms, &full, &err) != 0)
            reply_err(rs, &err);
        else if (full)
            reply_error(rs, 400, "there are %u secondaries and open tokens: revoke one first",
                        ENGINE_PEERS_MAX);
        else if (token_do(rq, rs, id, ttl_s, &conf, &err) != 0)
            reply_err(rs, &err);
        else
            log_info(rq->core->log, "replication", "secondary token made: id=%s ttl=%llds", id,
                     (long long)ttl_s);
    }
    latch_release(rq->core, &latch);
}

/* ---- revoke-secondary, primary/disable ---- */

static int revoke_do(struct core *c, const char *id, bool *foundp, struct err *err)
{
    struct activation a;
    struct member m;
    struct batch *b = batch_new(c);
    struct err why = {0};
    uint8_t own[32];
    char key[128];
    int rc = 0;

    *foundp = false;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    if (replication_own_hash(c, own, err) != 0) {
        batch_free(b);
        return -1;
    }
    if (member_get(c, id, &m, &why) == 0) {
        bool us = memcmp(m.key_hash, own, sizeof(own)) == 0;

        *foundp = !us;
        m.revoked = true;
        snprintf(key, sizeof(key), ENGINE_KEY_MODES "%.63s", id);
        rc = us || (replication_cut(c, id, err) == 0 && member_put(b, &m, err) == 0) ? 0 : -1;
        if (rc == 0 && !us)
            rc = batch_delete(b, key, err);
    } else if (why.code != ERR_NOTFOUND) {
        rc = err_set(err, why.code, 0, "%s", why.msg);
    }
    err_clear(&why);
    if (rc == 0 && activation_get(c, id, &a, &why) == 0) {
        *foundp = true;
        rc = activation_delete(b, id, err);
    } else if (rc == 0 && why.code != ERR_NOTFOUND) {
        rc = err_set(err, why.code, 0, "%s", why.msg);
    }
    if (rc != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

static void revoke_secondary(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *id;
    bool found, force;

    if (field_id(rq, rs, &id) != 0 || field_bool(rq, rs, "force", false, &force) != 0)
        return;
    /* Its own strict mode would hold back the record that cuts it. Not under the latch, which such
     * a record may hold. */
    if (force && replication_mode_force(c, id, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    latch_acquire(c, REPL_LATCH, &latch);
    if (check_enabled(rq, rs, &conf)) {
        if (revoke_do(c, id, &found, &err) != 0) {
            reply_err(rs, &err);
        } else if (!found) {
            reply_error(rs, 400, "no secondary with ID \"%s\"", id);
        } else {
            engine_members_changed(c->engine);
            log_info(c->log, "replication", "revoked secondary: id=%s", id);
            reply_empty(rs);
        }
    }
    latch_release(c, &latch);
}

struct drop {
    struct batch *batch;
};

static int drop_member(void *arg, const struct member *m, struct err *err)
{
    struct drop *d = arg;
    char key[128];

    snprintf(key, sizeof(key), ENGINE_KEY_MODES "%.63s", m->id);
    if (batch_delete(d->batch, key, err) != 0)
        return -1;
    snprintf(key, sizeof(key), ENGINE_KEY_MEMBERS "%.63s", m->id);
    return batch_delete(d->batch, key, err);
}

/* No members, no CA, no tokens, and another cluster id, so that no old secondary can come back by
 * mistake. */
static int disable_do(struct core *c, struct err *err)
{
    struct repl_config conf = {0};
    struct drop d = {.batch = batch_new(c)};

    if (d.batch == NULL)
        return err_set(err, ERR_NOMEM, 0, "disable");
    uuid_new(c, conf.cluster_id);
    if (repl_config_put(d.batch, &conf, err) != 0 || members_each(c, drop_member, &d, err) != 0 ||
        batch_delete(d.batch, ENGINE_KEY_QUORUM, err) != 0 ||
        activations_delete_all(c, d.batch, err) != 0 ||
        batch_delete(d.batch, REPL_CA_PATH, err) != 0) {
        batch_free(d.batch);
        return -1;
    }
    if (batch_commit(d.batch, err) != 0)
        return -1;
    cluster_epoch_key(c);
    engine_members_changed(c->engine);
    if (cluster_credentials(c, NULL, err) != 0 || identity_remove(c, err) != 0)
        return -1;
    log_info(c->log, "replication", "replication is disabled: cluster_id=%s", conf.cluster_id);
    return 0;
}

static int promote_do(struct core *c, bool force, bool alone, struct err *err);

static void primary_disable(struct request *rq, struct response *rs)
{
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};

    latch_acquire(rq->core, REPL_LATCH, &latch);
    if (check_enabled(rq, rs, &conf)) {
        /* A fenced one leaves, superseding nobody. */
        if ((rq->core->role == ENGINE_FENCED && promote_do(rq->core, true, true, &err) != 0) ||
            disable_do(rq->core, &err) != 0)
            reply_err(rs, &err);
        else
            reply_warning(rs, "This cluster is having replication disabled. Vault will be "
                              "unavailable for a brief "
                              "period and will resume service shortly.");
    }
    latch_release(rq->core, &latch);
}

/* ---- secondary/enable ---- */

static void already_secondary(struct response *rs)
{
    reply_error(rs, 400, "cluster is already a DR secondary: disable that first, or promote it");
}

static void secondary_enable(struct request *rq, struct response *rs)
{
    struct join j = {.rq = rq};
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};

    if (field_str(rq, rs, "token", "", &j.token) != 0 ||
        field_str(rq, rs, "primary_api_addr", "", &j.api_addr) != 0 ||
        field_str(rq, rs, "ca_file", "", &j.ca_file) != 0 ||
        field_str(rq, rs, "ca_path", "", &j.ca_path) != 0 ||
        field_str(rq, rs, "seed_file", "", &j.seed_file) != 0)
        return;
    latch_acquire(rq->core, REPL_LATCH, &latch);
    if (rq->core->role != ENGINE_PRIMARY) { /* another call was faster */
        already_secondary(rs);
    } else if (repl_config_get(rq->core, &conf, &err) != 0) {
        reply_err(rs, &err);
    } else if (conf.primary_enabled) {
        reply_error(
            rs, 400,
            "cluster is a DR primary: disable that first with sys/replication/dr/primary/disable");
    } else if (!replication_wipe_accepted(rq, rs, &j)) {
        log_warn(rq->core->log, "replication",
                 "not enabled as DR secondary: the wipe was not confirmed");
    } else if (join_primary(&j, &err) != 0) {
        log_error(rq->core->log, "replication", "cannot enable the DR secondary: %s", err.msg);
        reply_error(rs, err.code == ERR_NOMEM || err.code == ERR_IO ? 500 : 400, "%s", err.msg);
    } else {
        log_info(rq->core->log, "replication",
                 "enabled as DR secondary: what was stored here before is replaced by "
                 "the primary's data once that is complete");
        reply_warning(
            rs, "Vault has successfully found secondary information; it may take a while to "
                "perform setup "
                "tasks. Vault will be unavailable until these tasks and initial sync complete.");
    }
    latch_release(rq->core, &latch);
}

/* ---- promote ---- */

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

    latch_acquire(c, REPL_LATCH, &latch);
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
    return rc;
}

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

/* alone: to leave the cluster, without superseding anybody. */
static int promote_do(struct core *c, bool force, bool alone, struct err *err)
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

static bool dr_token_good(struct request *rq, const char *token)
{
    /* Made here from the key shares, or given out by the primary before the disaster. */
    return dr_token_valid(rq->core, token) || token_batch_allows(rq->core, token, rq->full_path);
}

/* The one thing that counts on a DR secondary is the token in the body, or in the header: a GET has
 * no body. A token of another kind in the header is none. */
bool replication_dr_token(struct request *rq, struct response *rs, const char **tokenp)
{
    if (field_str(rq, rs, "dr_operation_token", "", tokenp) != 0)
        return false;
    if ((*tokenp)[0] == '\0' && rq->client_token != NULL &&
        (rq->op != OP_WRITE || dr_token_good(rq, rq->client_token)))
        *tokenp = rq->client_token;
    if ((*tokenp)[0] == '\0') {
        reply_error(rs, 400,
                    "dr_operation_token must be provided: make one with generate-root -dr-token");
        return false;
    }
    if (!dr_token_good(rq, *tokenp)) {
        reply_error(rs, 403, "permission denied");
        return false;
    }
    return true;
}

static bool check_whole(struct request *rq, struct response *rs)
{
    if (rq->core->role == ENGINE_SECONDARY)
        return true;
    reply_error(
        rs, 400,
        "the first copy of the primary's data is not complete: this cluster can't be promoted yet");
    return false;
}

/* A fenced cluster has its tokens and their policies still, so the router has looked at one. */
static bool may_promote(struct request *rq, struct response *rs, bool force)
{
    const char *token;

    if (rq->core->role != ENGINE_FENCED)
        return replication_dr_token(rq, rs, &token) && check_whole(rq, rs);
    if (force)
        return true;
    reply_error(
        rs, 400,
        "this cluster was superseded, or is one side of a split: with force=true it becomes "
        "the primary again, and supersedes the other one");
    return false;
}

static void promote(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    const char *addr;
    struct err err = {0};
    bool force, preview;

    if (field_cluster_addr(rq, rs, &addr) != 0 || field_bool(rq, rs, "force", false, &force) != 0 ||
        field_bool(rq, rs, "preview", false, &preview) != 0 || !may_promote(rq, rs, force))
        return;
    if (preview) { /* the token is good */
        replication_preview(rq, rs);
        return;
    }
    if (c->role != ENGINE_FENCED && !replication_loss_accepted(rq, rs, force))
        return;
    log_info(c->log, "replication", "promoting to DR primary: force=%s", force ? "true" : "false");
    if (promote_do(c, force, false, &err) != 0) {
        log_error(c->log, "replication", "cannot promote: %s", err.msg);
        reply_err(rs, &err);
        return;
    }
    log_info(c->log, "replication", "promoted to DR primary");
    if (primary_settle(c, addr[0] != '\0' ? addr : NULL, &err) != 0) {
        log_error(c->log, "replication", "promoted, but cannot take up a primary's work: %s",
                  err.msg);
        reply_warning(rs,
                      "This cluster is a primary now, but could not note its address and void old "
                      "tokens (%s). It "
                      "is tried again at the next unseal.",
                      err.msg);
    }
    reply_warning(rs, "This cluster is being promoted to a replication primary. Vault will be "
                      "unavailable for a brief "
                      "period and will resume service shortly.");
}

static void token_delete(struct request *rq, struct response *rs)
{
    struct err err = {0};
    const char *token;

    if (!replication_dr_token(rq, rs, &token))
        return;
    if (dr_token_delete(rq->core, token, &err) != 0)
        reply_err(rs, &err);
    else
        reply_empty(rs);
}

static void aside_delete(struct request *rq, struct response *rs)
{
    const char *token;

    if (replication_dr_token(rq, rs, &token))
        replication_aside_delete(rq, rs);
}

/* A cluster of its own again, with the data that it has. */
static void secondary_disable(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct latch_ref latch;
    struct err err = {0};
    const char *token;
    int rc;

    if (!replication_dr_token(rq, rs, &token) || !check_whole(rq, rs))
        return;
    if (promote_do(c, true, true, &err) !=
        0) { /* it stands alone from here on: nobody else's writes count */
        reply_err(rs, &err);
        return;
    }
    latch_acquire(c, REPL_LATCH, &latch);
    rc = disable_do(c, &err);
    latch_release(c, &latch);
    if (rc != 0 || dr_token_clear(c, &err) != 0)
        reply_err(rs, &err);
    else
        reply_warning(rs, "This cluster is having replication disabled. Vault will be unavailable "
                          "for a brief period "
                          "and will resume service shortly.");
}

/* ---- dispatch ---- */

enum gate { ON_ANY, ON_SECONDARY };

static const struct {
    const char *path; /* after replication/ */
    enum gate gate;
    handler_fn *handle;
} verbs[] = {
    {"dr/primary/enable", ON_ANY, primary_enable},
    {"dr/primary/secondary-token", ON_ANY, secondary_token},
    {"dr/primary/revoke-secondary", ON_ANY, revoke_secondary},
    {"dr/primary/disable", ON_ANY, primary_disable},
    {"dr/primary/demote", ON_ANY, replication_demote_handle},
    {"merkle-check", ON_ANY, replication_check_handle},
    {"reindex", ON_ANY, replication_check_handle},
    {"dr/secondary/enable", ON_ANY, secondary_enable},
    {"dr/secondary/promote", ON_SECONDARY, promote},
    {"dr/secondary/update-primary", ON_SECONDARY, replication_update_primary_handle},
    {"dr/secondary/operation-token/delete", ON_SECONDARY, token_delete},
    {"dr/secondary/aside/delete", ON_SECONDARY, aside_delete},
    {"dr/secondary/lost/show", ON_SECONDARY, replication_lost_handle},
    {"dr/secondary/lost/delete", ON_SECONDARY, replication_lost_handle},
    {"dr/primary/lost/show", ON_ANY, replication_lost_handle},
    {"dr/primary/lost/delete", ON_ANY, replication_lost_handle},
    {"dr/primary/lost/apply", ON_ANY, replication_lost_handle},
    {"dr/primary/switchover", ON_ANY, replication_switchover_handle},
    {"dr/secondary/disable", ON_SECONDARY, secondary_disable},
    {"dr/secondary/merkle-check", ON_SECONDARY, replication_check_handle},
    {"dr/secondary/reindex", ON_SECONDARY, replication_check_handle},
};

static bool is_secondary(const struct core *c)
{
    return c->role == ENGINE_SECONDARY || c->role == ENGINE_BOOTSTRAPPING;
}

static void not_secondary(struct response *rs)
{
    reply_error(
        rs, 400,
        "Not a DR secondary. This path belongs to the cluster that follows; on this one see "
        "sys/replication/dr/status.");
}

/* No token has been looked at on a node that follows or is fenced: only what brings its own goes on
 * there. */
static bool may_run(struct request *rq, struct response *rs, enum gate gate)
{
    if (rq->core->role == ENGINE_FENCED &&
        strcmp(rq->path, "replication/dr/secondary/promote") == 0)
        gate = ON_ANY;
    if (gate == ON_SECONDARY && !is_secondary(rq->core)) {
        not_secondary(rs);
        return false;
    }
    if (gate == ON_ANY && rq->token == NULL) {
        if (is_secondary(rq->core) && strncmp(rq->path, "replication/dr/secondary/", 25) == 0)
            already_secondary(rs);
        else
            reply_error(rs, 403, "permission denied");
        return false;
    }
    return true;
}

void replication_handle(struct request *rq, struct response *rs)
{
    const char *rest = rq->path + strlen("replication/"), *token;
    size_t n = sizeof(verbs) / sizeof(verbs[0]), i = 0;

    if (strcmp(rest, "status") == 0 || strcmp(rest, "dr/status") == 0 ||
        strcmp(rest, "performance/status") == 0) {
        replication_status_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/primary/mode") == 0 || strcmp(rest, "dr/primary/quorum") == 0) {
        if (may_run(rq, rs, ON_ANY))
            replication_mode_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/doctor") == 0) {
        if (rq->op != OP_WRITE)
            reply_unsupported(rs);
        else if (is_secondary(rq->core) ? replication_dr_token(rq, rs, &token)
                                        : may_run(rq, rs, ON_ANY))
            doctor_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/primary/retention") == 0) {
        if (may_run(rq, rs, ON_ANY))
            replication_retention_handle(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/promote") == 0 && rq->op == OP_READ) {
        /* Needs no token: it is no more than status tells to anybody. */
        if (may_run(rq, rs, ON_SECONDARY) && check_whole(rq, rs))
            replication_preview(rq, rs);
        return;
    }
    if (strcmp(rest, "dr/secondary/drill") == 0 || strcmp(rest, "dr/secondary/drill/stop") == 0) {
        if (may_run(rq, rs, ON_SECONDARY))
            drill_handle(rq, rs);
        return;
    }
    while (i < n && strcmp(verbs[i].path, rest) != 0)
        i++;
    if (i < n && rq->op != OP_WRITE) {
        reply_unsupported(rs);
    } else if (i < n) {
        if (may_run(rq, rs, verbs[i].gate))
            verbs[i].handle(rq, rs);
    } else if (strncmp(rest, "dr/secondary/", 13) == 0 && !is_secondary(rq->core)) {
        not_secondary(rs);
    } else {
        reply_unsupported_path(rs);
    }
}
