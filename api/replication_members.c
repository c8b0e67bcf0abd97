/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_members.c - sys/replication/dr/primary/secondary-token and revoke-secondary: who may
 * be a secondary of this primary.
 *
 * An id stands for one secondary or one open token, never for two. A revoked member is cut off
 * before anything else, and before its row says so; the row stays until the id is given out again.
 */
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"
#include "tls.h"
#include "token.h"

#define SECONDARY_TTL_S 1800
#define SECONDARY_TTL_MAX_S (30 * 86400)

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
                           const struct bootstrap *boot, const uint8_t primary_key[32],
                           int64_t expires_ms)
{
    char hash[65];

    hex_of(primary_key, 32, hash);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I}", "id", id, "ca_cert",
                     buf_str(&ca->cert), "client_cert", buf_str(&boot->cert), "client_key",
                     buf_str(&boot->key), "cluster_id", conf->cluster_id, "primary_cluster_addr",
                     conf->primary_cluster_addr, "primary_key_hash", hash, "expires",
                     (json_int_t)(expires_ms / 1000));
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

/* For who waits at the primary's API. A crash before the activation leaves a token that opens
 * nothing. */
static int wrap_bundle(struct request *rq, struct response *rs, json_t *bundle, int64_t ttl_s,
                       struct activation *a, struct err *err)
{
    const char *hmac;

    reply_data(rs, bundle);
    if (rs->errors != NULL)
        return err_set(err, ERR_NOMEM, 0, "secondary token");
    if (wrapping_wrap(rq, rs, ttl_s, true, err) != 0 ||
        token_hmac(rq, rs->wrap->token, &hmac, err) != 0)
        return -1;
    snprintf(a->token, sizeof(a->token), "%s", hmac);
    return 0;
}

/* For who has the private half of public_key; the answer is the token. */
static int seal_bundle(struct response *rs, json_t *bundle, const char *public_key, struct err *err)
{
    struct buf token = {.secret = true};
    int rc = bundle_seal(bundle, public_key, &token, err);

    if (rc == 0)
        reply_data(rs, json_pack("{s:s}", "token", buf_str(&token)));
    if (rc == 0 && rs->errors != NULL)
        rc = err_set(err, ERR_NOMEM, 0, "secondary token");
    json_decref(bundle);
    buf_free(&token);
    return rc;
}

static int token_do(struct request *rq, struct response *rs, const char *id, int64_t ttl_s,
                    const char *public_key, const struct repl_config *conf, struct err *err)
{
    struct activation a = {.expires_ms = rq->now_ms + ttl_s * 1000};
    struct link_ca ca = {0};
    struct bootstrap boot = {.key.secret = true};
    struct link_identity me = {0};
    uint8_t primary_key[32];
    json_t *bundle;
    int rc = -1;

    if (link_ca_get(rq->core, &ca, err) != 0 || identity_load(rq->core, &me, err) != 0 ||
        cert_key_hash(buf_str(&me.cert), primary_key, err) != 0 ||
        make_bootstrap(&ca, id, ttl_s, &boot, err) != 0)
        goto out;
    bundle = bundle_json(id, conf, &ca, &boot, primary_key, a.expires_ms);
    memcpy(a.key_hash, boot.hash, 32);
    rc = public_key[0] != '\0' ? seal_bundle(rs, bundle, public_key, err)
                               : wrap_bundle(rq, rs, bundle, ttl_s, &a, err);
    if (rc == 0)
        rc = put_activation(rq, id, &a, err);
out:
    link_ca_free(&ca);
    buf_free(&boot.key);
    buf_free(&boot.cert);
    identity_free(&me);
    return rc;
}

void replication_secondary_token_handle(struct request *rq, struct response *rs)
{
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *id, *public_key;
    int64_t ttl_s;
    bool full;

    if (field_id(rq, rs, &id) != 0 || field_seconds(rq, rs, "ttl", SECONDARY_TTL_S, &ttl_s) != 0 ||
        field_str(rq, rs, "secondary_public_key", "", &public_key) != 0)
        return;
    if (ttl_s <= 0 || ttl_s > SECONDARY_TTL_MAX_S) {
        reply_error(rs, 400, "ttl must be from one second to 30 days");
        return;
    }
    if (!latch_for(rq, rs, REPL_LATCH, &latch))
        return;
    if (replication_on_primary(rq, rs, &conf) && check_id_free(rq, rs, id) == 0) {
        if (strcmp(id, conf.cluster_id) == 0)
            reply_error(rs, 400, "secondary ID \"%s\" is this cluster's own", id);
        else if (secondaries_full(rq->core, rq->now_ms, &full, &err) != 0)
            reply_err(rs, &err);
        else if (full)
            reply_error(rs, 400, "there are %u secondaries and open tokens: revoke one first",
                        ENGINE_PEERS_MAX);
        else if (token_do(rq, rs, id, ttl_s, public_key, &conf, &err) != 0)
            reply_err(rs, &err);
        else
            log_info(rq->core->log, "replication", "secondary token made: id=%s ttl=%llds%s", id,
                     (long long)ttl_s, public_key[0] != '\0' ? " (sealed)" : "");
    }
    latch_release(rq->core, &latch);
}

/* ---- revoke-secondary ---- */

/* foundp: it is a member, and not this cluster; a row of before may say that it is revoked. */
static int find_other(struct core *c, const char *id, struct member *m, bool *foundp,
                      struct err *err)
{
    struct err why = {0};
    uint8_t own[32];

    *foundp = false;
    if (replication_own_hash(c, own, err) != 0)
        return -1;
    if (member_get(c, id, m, &why) == 0)
        *foundp = memcmp(m->key_hash, own, sizeof(own)) != 0;
    else if (why.code != ERR_NOTFOUND)
        return err_set(err, why.code, 0, "%s", why.msg);
    return 0;
}

/* Its link ends before anything is waited for: neither another change nor the row that says so,
 * which a mode may hold back for a secondary that is dead, keeps it open. */
static int cut(struct core *c, const char *id, bool force, bool *cutp, struct err *err)
{
    struct member m;

    if (find_other(c, id, &m, cutp, err) != 0)
        return -1;
    return *cutp ? replication_cut(c, id, force, err) : 0;
}

static int revoke_do(struct core *c, const char *id, bool force, bool *foundp, struct err *err)
{
    struct activation a;
    struct member m;
    struct batch *b = batch_new(c);
    struct err why = {0};
    char key[128];
    int rc;

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    rc = find_other(c, id, &m, foundp, err);
    if (rc == 0 && *foundp) {
        m.revoked = true;
        snprintf(key, sizeof(key), ENGINE_KEY_MODES "%.63s", id);
        /* Again: it may have been taken in since. */
        if (replication_cut(c, id, force, err) != 0 || member_put(b, &m, err) != 0 ||
            batch_delete(b, key, err) != 0)
            rc = -1;
    }
    if (rc == 0 && activation_get(c, id, &a, &why) == 0) {
        *foundp = true;
        rc = activation_delete(b, id, err);
        if (rc == 0 && a.token[0] != '\0')
            rc = token_revoke(c, a.token, err);
    } else if (rc == 0 && why.code != ERR_NOTFOUND) {
        rc = err_set(err, why.code, 0, "%s", why.msg);
    }
    if (rc != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* What a strict mode holds back is not there yet; that the link is closed holds all the same. */
static void reply_failed(struct response *rs, const char *id, bool was_cut, const struct err *err)
{
    if (was_cut && err->code == ERR_UNKNOWN_OUTCOME)
        reply_error(
            rs, 503,
            "outcome unknown: %s: \"%s\" is cut off here, and the other secondaries learn "
            "it when that has confirmed; force=true on the mode that holds it ends the wait "
            "(lockstep replication mode, or quorum -force off)",
            err->msg, id);
    else if (was_cut && err->code == ERR_TIMEOUT)
        reply_error(rs, 503,
                    "\"%s\" is cut off here, but no row says so yet: ask again, so that the other "
                    "secondaries learn it: %s",
                    id, err->msg);
    else
        reply_err(rs, err);
}

/* Without this one there are fewer than the quorum asks for: nothing would be written any more. */
static int end_quorum(struct core *c, const char *id, struct err *err)
{
    static const struct repl_mode none = {.wait_ms = REPL_WAIT_MS_DEFAULT};
    struct engine_status *st = malloc(sizeof(*st));
    const struct repl_mode *q;
    bool named = false;
    int rc = 0;

    if (st == NULL)
        return err_set(err, ERR_NOMEM, 0, "revoke");
    engine_status(c->engine, st);
    q = &st->quorum;
    for (uint32_t i = 0; i < q->n; i++)
        named = named || strcmp(q->name[i], id) == 0;
    if (named && q->n == q->k) {
        rc = replication_mode_set(c, NULL, &none, true, err);
        if (rc == 0)
            log_warn(c->log, "replication",
                     "the quorum is ended: %s is revoked, and it asks for all %u", id, q->k);
    }
    free(st);
    return rc;
}

void replication_revoke_handle(struct request *rq, struct response *rs)
{
    struct core *c = rq->core;
    struct repl_config conf;
    struct latch_ref latch;
    struct err err = {0};
    const char *id;
    bool was_cut = false, found = false, force;
    int rc;

    if (field_id(rq, rs, &id) != 0 || field_bool(rq, rs, "force", false, &force) != 0 ||
        !replication_on_primary(rq, rs, &conf))
        return;
    if ((force && end_quorum(c, id, &err) != 0) || cut(c, id, force, &was_cut, &err) != 0 ||
        latch_take(c, REPL_LATCH, &latch, &err) != 0) {
        reply_failed(rs, id, was_cut, &err);
        return;
    }
    if (replication_on_primary(rq, rs, &conf)) {
        rc = revoke_do(c, id, force && !was_cut, &found, &err);
        if (rc != 0) {
            reply_failed(rs, id, was_cut, &err);
        } else if (!found) {
            (void)err_set(&err, ERR_NOTFOUND, 0, "no secondary with ID \"%s\"", id);
            replication_no_such(rq, rs, err.msg);
        } else {
            engine_members_changed(c->engine);
            log_info(c->log, "replication", "revoked secondary: id=%s", id);
            reply_empty(rs);
        }
    }
    latch_release(c, &latch);
}
