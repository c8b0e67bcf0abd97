/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rekey.c - sys/rekey: new key shares, agreed to by the holders of the old ones.
 *
 * Only the share key changes: the root key is sealed again under a new one, in one transaction with
 * the new seal configuration, so an unsealed secondary follows without noticing. With verification
 * the new seal is kept aside, in memory, until the new shares have proven that they were received;
 * until then the old ones stay in force. A seal or restart ends the rekey.
 *
 * There is one at a time, which anybody may begin and every holder takes part in from his own host,
 * with the nonce that the status tells. So that no stranger can end it (CVE-2026-5807) it is
 * cancelled, as is what was verified, from the address that began it (as Vault's CLI does, without
 * a token), or with a token that has sudo and delete on sys/rekey/init, from anywhere: this also
 * clears away what a stranger began. One to which nothing was given for ATTEMPT_MS may be cancelled
 * by anybody, and makes room for another.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "ceremony.h"
#include "core.h"
#include "core_private.h"
#include "policy.h"
#include "token.h"

#define BACKUP_PATH "core/unseal-keys-backup" /* sealed: put_backup */

struct rekey {
    bool started, verify_required, verifying;
    unsigned new_shares, new_threshold;
    char nonce[37], verify_nonce[37];
    char address[ADDRESS_BYTES]; /* who began it */
    int64_t given_ms;            /* wall: the last share, or the begin */
    struct shares shares;        /* old ones, to agree; then new ones, to verify */
    struct shares new_keys;      /* while verifying: what was given out */
    struct batch *pending;       /* while verifying: the new seal, committed once it is proven */
    json_t *pgp_keys, *fingerprints; /* of the holders of the new keys; NULL: none */
    bool backup;                     /* what they are given is stored, too */
};

struct rekey *rekey_new(void)
{
    return calloc(1, sizeof(struct rekey));
}

void rekey_drop(struct rekey *r)
{
    shares_clear(&r->shares);
    shares_clear(&r->new_keys);
    batch_free(r->pending);
    json_decref(r->pgp_keys);
    json_decref(r->fingerprints);
    memset(r, 0, sizeof(*r));
}

void rekey_free(struct rekey *r)
{
    if (r == NULL)
        return;
    rekey_drop(r);
    free(r);
}

static void reply_progress(struct response *rs, const struct rekey *r, unsigned required)
{
    rs->raw = json_pack("{s:s, s:b, s:i, s:i, s:i, s:i, s:O?, s:b, s:b}", "nonce", r->nonce,
                        "started", r->started, "t", (int)r->new_threshold, "n", (int)r->new_shares,
                        "progress", r->verifying ? 0 : (int)r->shares.n, "required", (int)required,
                        "pgp_fingerprints", r->fingerprints, "backup", r->backup,
                        "verification_required", r->verify_required);
    if (r->verifying)
        json_object_set_new(rs->raw, "verification_nonce", json_string(r->verify_nonce));
}

/* ---- who may end it ---- */

static bool idle(const struct request *rq, const struct rekey *r)
{
    /* A request that waited is older than what was given meanwhile: only a clock set back far ends
     * it. */
    return rq->now_ms >= r->given_ms + ATTEMPT_MS || rq->now_ms + ATTEMPT_MS < r->given_ms;
}

/* These endpoints need no token, so the router has not looked at it. */
static bool token_may_cancel(struct request *rq)
{
    struct token *t = NULL;
    struct err err = {0};
    unsigned caps = 0;
    bool last = false;

    if (rq->client_token == NULL || token_lookup(rq, rq->client_token, &t, &err) != 0 ||
        !token_from_here(rq, t) || policy_capabilities(rq, t, "sys/rekey/init", &caps, &err) != 0 ||
        ((caps & CAP_ROOT) == 0 && (caps & (CAP_DELETE | CAP_SUDO)) != (CAP_DELETE | CAP_SUDO)) ||
        token_use(rq, t, &last, &err) != 0)
        return false;
    if (last && token_revoke(rq->core, t->hmac, &err) != 0)
        log_error(rq->core->log, "core", "failed to revoke token after its last use: %s", err.msg);
    return true;
}

/* false: answered. A nonce that is given must be right: who gives it means that one. */
static bool may_cancel(struct request *rq, struct response *rs, const struct rekey *r)
{
    char address[ADDRESS_BYTES];
    const char *nonce;

    if (raw_str(rq, rs, "nonce", &nonce) != 0)
        return false;
    if (nonce[0] != '\0' && strcmp(nonce, r->nonce) != 0 && strcmp(nonce, r->verify_nonce) != 0) {
        reply_error(rs, 400, "incorrect nonce supplied; nonce for this rekey operation is \"%s\"",
                    r->nonce);
        return false;
    }
    ceremony_address(rq->http->peer_ip, address);
    if (strcmp(address, r->address) == 0 || idle(rq, r) || token_may_cancel(rq))
        return true;
    reply_error(rs, 403,
                "this rekey was begun from another address: cancel it from there, with a token "
                "that has sudo and delete on sys/rekey/init, or when nothing was given to it for "
                "%d minutes",
                ATTEMPT_MS / 60000);
    return false;
}

/* What rekey/init asks for. */
struct rekey_asked {
    int64_t shares, threshold;
    bool backup, verify;
    const json_t *pgp_keys; /* of the request; NULL: none */
    json_t *fingerprints;
};

/* Without REKEY_LATCH: anybody may ask, and a trial of keys takes its time. -1: answered. */
static int rekey_read(struct request *rq, struct response *rs, struct rekey_asked *a)
{
    bool backup, capital_backup;
    struct err err = {0};

    if (raw_int(rq, rs, "secret_shares", &a->shares) != 0 ||
        raw_int(rq, rs, "secret_threshold", &a->threshold) != 0 ||
        raw_bool(rq, rs, "backup", &backup) != 0 ||
        raw_bool(rq, rs, "Backup", &capital_backup) != 0 ||
        raw_bool(rq, rs, "require_verification", &a->verify) != 0)
        return -1;
    a->backup = backup || capital_backup;
    if (json_array_size(json_object_get(rq->data, "pgp_keys")) == 0 && a->backup) {
        reply_error(
            rs, 400,
            "cannot request a backup of the new keys without providing PGP keys for encryption");
        return -1;
    }
    if (seal_check_numbers(a->shares, a->threshold, &err) != 0) {
        reply_error(rs, 400, "invalid rekey seal configuration: %s", err.msg);
        return -1;
    }
    a->fingerprints = json_array();
    return raw_pgp_keys(rq, rs, a->shares, true, &a->pgp_keys, a->fingerprints);
}

static void rekey_start(struct request *rq, struct response *rs, struct rekey *r,
                        const struct rekey_asked *a, unsigned required)
{
    if (r->started && !idle(rq, r)) {
        reply_error(rs, 400, "rekey already in progress");
        return;
    }
    rekey_drop(r);
    if (a->pgp_keys != NULL) {
        r->pgp_keys = json_deep_copy(a->pgp_keys);
        r->fingerprints = json_incref(a->fingerprints);
        if (r->pgp_keys == NULL || r->fingerprints == NULL) {
            rekey_drop(r);
            reply_router_error(rs, 500, "out of memory");
            return;
        }
    }
    r->started = true;
    r->given_ms = rq->now_ms;
    ceremony_address(rq->http->peer_ip, r->address);
    r->verify_required = a->verify;
    r->backup = a->backup;
    r->new_shares = (unsigned)a->shares;
    r->new_threshold = (unsigned)a->threshold;
    uuid_new(rq->core, r->nonce);
    log_info(rq->core->log, "core",
             "rekey initialized: nonce=%s shares=%u threshold=%u validation_required=%s", r->nonce,
             r->new_shares, r->new_threshold, a->verify ? "true" : "false");
    reply_progress(rs, r, required);
}

/* Key and nonce of the body. -1: answered. */
static int given_share(struct request *rq, struct response *rs, const char *nonce,
                       const char *operation, uint8_t *part, size_t *lenp)
{
    const char *key, *given;
    struct err err = {0};

    if (raw_str(rq, rs, "key", &key) != 0 || raw_str(rq, rs, "nonce", &given) != 0)
        return -1;
    if (key[0] == '\0') {
        reply_error(rs, 400, "'key' must be specified in request body as JSON");
        return -1;
    }
    if (seal_parse_key(key, part, SHARE_MAX_BYTES, lenp, &err) != 0) {
        const char *text = strncmp(err.msg, "invalid key: ", 13) == 0 ? err.msg + 13 : err.msg;
        reply_error(rs, 400, "%s", text);
        return -1;
    }
    if (strcmp(given, nonce) != 0) {
        reply_error(rs, 400, "incorrect nonce supplied; nonce for this %s operation is \"%s\"",
                    operation, nonce);
        return -1;
    }
    return 0;
}

static int commit_seal(struct core *c, struct batch *b, struct err *err)
{
    struct latch_ref latch;
    int rc;

    if (latch_take(c, SEAL_LATCH, &latch, err) != 0) { /* no unseal reads half of it */
        batch_free(b);
        return -1;
    }
    rc = batch_commit(b, err);
    latch_release(c, &latch);
    return rc;
}

/* {"nonce": .., "keys": {fingerprint: [hex]}, "keys_base64": {..}}: what the holders are given,
 * which nobody else can read. */
static int put_backup(struct batch *b, const json_t *answer, struct err *err)
{
    static const char *const forms[] = {"keys", "keys_base64"};
    json_t *row = json_pack("{s:O}", "nonce", json_object_get(answer, "nonce"));
    int rc = row == NULL;

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]) && rc == 0; f++) {
        json_t *of = json_object(), *v;
        size_t i;

        rc = json_object_set_new(row, forms[f], of);
        json_array_foreach(json_object_get(answer, "pgp_fingerprints"), i, v)
        {
            json_t *mine = json_object_get(of, json_string_value(v));

            if (mine == NULL) { /* one holder may have several */
                mine = json_array();
                rc |= json_object_set_new(of, json_string_value(v), mine);
            }
            rc |= json_array_append(mine, json_array_get(json_object_get(answer, forms[f]), i));
        }
    }
    rc = rc != 0 ? err_set(err, ERR_NOMEM, 0, "rekey") : batch_put(b, BACKUP_PATH, row, err);
    json_decref(row);
    return rc;
}

/* For shares that are to be verified: who loses the answer finds them there, and can prove them. */
static int keep_backup(struct core *c, const json_t *answer, struct err *err)
{
    struct batch *b = batch_new(c);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "rekey");
    if (put_backup(b, answer, err) == 0)
        return batch_commit(b, err);
    batch_free(b);
    return -1;
}

/* The answer, with the shares as their holders are given them. */
static int answer_keys(struct core *c, struct rekey *r, const struct buf *keys, struct response *rs,
                       struct err *err)
{
    int rc;

    rs->raw = json_pack("{s:s, s:b, s:O?, s:b, s:b}", "nonce", r->nonce, "complete", 1,
                        "pgp_fingerprints", r->fingerprints, "backup", r->backup,
                        "verification_required", r->verify_required);
    rc = rs->raw != NULL ? seal_keys_json(keys, r->new_shares, r->pgp_keys, rs->raw, err)
                         : err_set(err, ERR_NOMEM, 0, "rekey");
    if (rc == 0 && r->backup && r->verify_required)
        rc = keep_backup(c, rs->raw, err);
    return rc;
}

/* The new shares are given out, and hold once enough of them came back. Takes b. */
static int await_proof(struct core *c, struct rekey *r, const struct buf *keys, unsigned n,
                       struct batch *b, json_t *answer, struct err *err)
{
    for (unsigned i = 0; i < n; i++)
        if (shares_add(&r->new_keys, keys[i].data, keys[i].len) < 0) {
            shares_clear(&r->new_keys);
            batch_free(b);
            return err_set(err, ERR_NOMEM, 0, "rekey");
        }
    r->pending = b;
    r->verifying = true;
    uuid_new(c, r->verify_nonce);
    json_object_set_new(answer, "verification_nonce", json_string(r->verify_nonce));
    return 0;
}

/* The old shares agree: make the new ones. With verification they are given out and no seal is
 * stored. */
static int make_keys(struct request *rq, struct response *rs, struct rekey *r,
                     const struct buf *root, struct err *err)
{
    struct core *c = rq->core;
    unsigned n = r->new_shares, threshold = r->new_threshold;
    struct buf *keys = calloc(n, sizeof(*keys));
    struct batch *b = batch_new(c);
    int rc = -1;

    if (keys == NULL || b == NULL) {
        err_set(err, ERR_NOMEM, 0, "rekey");
        goto out;
    }
    if (seal_make(c, n, threshold, root->data, b, keys, err) != 0 ||
        answer_keys(c, r, keys, rs, err) != 0)
        goto out;
    if (r->verify_required) {
        rc = await_proof(c, r, keys, n, b, rs->raw, err);
        b = NULL;
    } else if (!r->backup || put_backup(b, rs->raw, err) == 0) {
        rc = commit_seal(c, b, err);
        b = NULL;
        if (rc != 0 && err->code == ERR_UNKNOWN_OUTCOME) {
            /* It will hold, as a rule: without the new shares nobody could unseal then. */
            log_warn(c->log, "core", "security barrier rekeyed: %s", err->msg);
            json_object_set_new(rs->raw, "warnings",
                                json_pack("[s+]", "Keep the old key shares, too: ", err->msg));
            err_clear(err);
            rekey_drop(r);
            rc = 0;
        } else if (rc == 0) {
            log_info(c->log, "core", "security barrier rekeyed: shares=%u threshold=%u", n,
                     threshold);
            rekey_drop(r);
        }
    }
out:
    batch_free(b);
    for (unsigned i = 0; keys != NULL && i < n; i++)
        buf_free(&keys[i]);
    free(keys);
    return rc;
}

static void rekey_update(struct request *rq, struct response *rs, struct rekey *r,
                         unsigned required)
{
    uint8_t part[SHARE_MAX_BYTES];
    struct buf root = {.secret = true};
    struct err err = {0};
    size_t len;
    int added;

    if (r->verifying) {
        reply_error(rs, 400,
                    "rekey operation already finished; verification must be performed; nonce for "
                    "the verification operation is \"%s\"",
                    r->verify_nonce);
        return;
    }
    if (!r->started) {
        reply_error(rs, 400, "no barrier rekey in progress");
        return;
    }
    if (given_share(rq, rs, r->nonce, "rekey", part, &len) != 0)
        goto out;
    added = shares_add(&r->shares, part, len);
    if (added > 0)
        r->given_ms = rq->now_ms;
    if (added == 0) {
        reply_error(rs, 400,
                    "given key has already been provided during this generation operation");
    } else if (added < 0) {
        reply_router_error(rs, 500, "out of memory");
    } else if (r->shares.n < required) {
        reply_progress(rs, r, required);
    } else {
        int rc = seal_check_shares(rq->core, (const uint8_t *const *)r->shares.part, r->shares.len,
                                   r->shares.n, &root, &err);
        shares_clear(&r->shares);
        if (rc != 0)
            reply_error(rs, 500, "failed to read root key: %s",
                        strncmp(err.msg, "unable to retrieve stored keys: ", 32) == 0 ? err.msg + 32
                                                                                      : err.msg);
        else if (make_keys(rq, rs, r, &root, &err) != 0)
            reply_err(rs, &err);
    }
out:
    buf_free(&root);
    OPENSSL_cleanse(part, sizeof(part));
}

/* ---- verification ---- */

static void reply_verify(struct response *rs, const struct rekey *r)
{
    rs->raw =
        json_pack("{s:s, s:b, s:i, s:i, s:i}", "nonce", r->verify_nonce, "started", 1, "t",
                  (int)r->new_threshold, "n", (int)r->new_shares, "progress", (int)r->shares.n);
}

static bool known_key(const struct rekey *r, const uint8_t *part, size_t len)
{
    unsigned found = 0;

    for (unsigned i = 0; i < r->new_keys.n; i++)
        found |= r->new_keys.len[i] == len && CRYPTO_memcmp(r->new_keys.part[i], part, len) == 0;
    return found != 0;
}

/* Enough new shares are here. */
static void verify_finish(struct request *rq, struct response *rs, struct rekey *r)
{
    struct err err = {0};
    struct batch *pending;
    bool known = true;

    for (unsigned i = 0; i < r->shares.n; i++)
        known = known_key(r, r->shares.part[i], r->shares.len[i]) && known;
    shares_clear(&r->shares);
    if (!known) {
        reply_error(rs, 400, "rekey verification failed; incorrect key shares supplied");
        return;
    }
    rs->raw = json_pack("{s:s, s:b}", "nonce", r->verify_nonce, "complete", 1);
    pending = r->pending;
    r->pending = NULL;
    rekey_drop(r);
    if (commit_seal(rq->core, pending, &err) != 0)
        reply_err(rs, &err);
}

static void rekey_verify(struct request *rq, struct response *rs, struct rekey *r)
{
    uint8_t part[SHARE_MAX_BYTES];
    size_t len;
    int added;

    if (!r->verifying) {
        reply_error(rs, 400,
                    rq->op == OP_WRITE ? "no rekey in progress" : "no rekey configuration found");
        return;
    }
    if (rq->op == OP_DELETE) {
        if (!may_cancel(rq, rs, r))
            return;
        shares_clear(&r->shares);
        uuid_new(rq->core, r->verify_nonce);
    }
    if (rq->op != OP_WRITE) {
        reply_verify(rs, r);
        return;
    }
    if (given_share(rq, rs, r->verify_nonce, "verify", part, &len) == 0) {
        added = shares_add(&r->shares, part, len);
        if (added > 0)
            r->given_ms = rq->now_ms;
        if (added == 0)
            reply_error(rs, 400,
                        "given key has already been provided during this verify operation");
        else if (added < 0)
            reply_router_error(rs, 500, "out of memory");
        else if (r->shares.n < r->new_threshold)
            reply_verify(rs, r);
        else
            verify_finish(rq, rs, r);
    }
    OPENSSL_cleanse(part, sizeof(part));
}

/* ---- backup ---- */

static void rekey_backup(struct request *rq, struct response *rs)
{
    json_t *row = NULL;
    struct err err = {0};

    if (rq->op == OP_DELETE)
        storage_answer_delete(rq, rs, BACKUP_PATH);
    else if (rq->op != OP_READ)
        reply_unsupported(rs);
    else if (storage_get(rq->core, BACKUP_PATH, &row, &err) == 0)
        reply_data(rs, row);
    else if (err.code == ERR_NOTFOUND)
        reply_error(rs, 400, "no backed-up keys found");
    else
        reply_err(rs, &err);
}

/* Holds REKEY_LATCH. */
static void rekey_run(struct request *rq, struct response *rs, const struct rekey_asked *asked)
{
    struct rekey *r = rq->core->rekey;
    const char *what = rq->full_path + strlen("sys/rekey/");
    unsigned shares, required;
    struct err err = {0};

    if (core_sealed(rq->core)) { /* since the request came */
        reply_error(rs, 503, "Vault is sealed");
    } else if (seal_threshold(rq->core, &shares, &required, &err) != 0) {
        reply_err(rs, &err);
    } else if (strcmp(what, "backup") == 0) {
        rekey_backup(rq, rs);
    } else if (strcmp(what, "verify") == 0 && rq->op != OP_LIST && rq->op != OP_PATCH) {
        rekey_verify(rq, rs, r);
    } else if (strcmp(what, "update") == 0 && rq->op == OP_WRITE) {
        rekey_update(rq, rs, r, required);
    } else if (strcmp(what, "init") == 0 && rq->op == OP_READ) {
        reply_progress(rs, r, required);
    } else if (strcmp(what, "init") == 0 && rq->op == OP_WRITE) {
        rekey_start(rq, rs, r, asked, required);
    } else if (strcmp(what, "init") == 0 && rq->op == OP_DELETE) {
        if (r->started && !may_cancel(rq, rs, r))
            return;
        rekey_drop(r);
        reply_empty(rs);
    } else {
        reply_no_errors(rs, 405);
    }
}

/* Before anything is tried for it. false: answered. */
static bool rekey_free_to_start(struct request *rq, struct response *rs)
{
    const struct rekey *r = rq->core->rekey;
    struct latch_ref latch;
    bool taken;

    if (!latch_for(rq, rs, REKEY_LATCH, &latch))
        return false;
    taken = r->started && !idle(rq, r);
    latch_release(rq->core, &latch);
    if (taken)
        reply_error(rs, 400, "rekey already in progress");
    return !taken;
}

void rekey_handle(struct request *rq, struct response *rs)
{
    bool init = rq->op == OP_WRITE && strcmp(rq->full_path, "sys/rekey/init") == 0;
    struct rekey_asked asked = {0};
    struct latch_ref latch;

    if ((!init || (rekey_free_to_start(rq, rs) && rekey_read(rq, rs, &asked) == 0)) &&
        latch_for(rq, rs, REKEY_LATCH, &latch)) {
        rekey_run(rq, rs, &asked);
        latch_release(rq->core, &latch);
    }
    json_decref(asked.fingerprints);
}
