/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ceremony_api.c - sys/generate-root and generate-operation-token over HTTP: the attempts are
 * ceremony.c's.
 *
 * The token is answered only under the one-time pad or to a PGP key, and only after it is stored.
 * Both nonces of an attempt are answered as `nonce`: see ceremony.h for who sees which.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "ceremony.h"
#include "core.h"
#include "core_private.h"
#include "token.h"

static void reply_view(struct response *rs, const struct attempt_view *v, unsigned required,
                       const char *encoded, const char *otp, int otp_length)
{
    rs->raw =
        json_pack("{s:s, s:b, s:i, s:i, s:b, s:s, s:s, s:s, s:s, s:i}", "nonce", v->nonce,
                  "started", v->started, "progress", (int)v->progress, "required", (int)required,
                  "complete", encoded[0] != '\0', "encoded_token", encoded, "encoded_root_token",
                  encoded, "pgp_fingerprint", v->fingerprint, "otp", otp, "otp_length", otp_length);
    if (rs->raw == NULL)
        reply_router_error(rs, 500, "out of memory");
}

static void start(struct request *rq, struct response *rs, enum ceremony_kind kind,
                  const char *address, unsigned required)
{
    char made[TOKEN_ID_BYTES + 1] = "", nonce[37], open_nonce[37];
    char fingerprint[PGP_FINGERPRINT_BYTES] = "";
    const char *otp, *pgp;
    struct attempt_view view;
    struct err err = {0};

    if (raw_str(rq, rs, "otp", &otp) != 0 || raw_str(rq, rs, "pgp_key", &pgp) != 0)
        return;
    if (otp[0] != '\0')
        pgp = ""; /* both: the pad counts, and the key is not looked at */
    if (raw_pgp_key(rs, pgp, "error parsing PGP key: ", fingerprint) != 0)
        return;
    if (pgp[0] != '\0' && core_sealed(rq->core)) { /* meanwhile */
        reply_error(rs, 503, "Vault is sealed");
        return;
    }
    if (otp[0] == '\0')
        otp = base62(rq->core, made, TOKEN_ID_BYTES);
    uuid_new(rq->core, nonce);
    uuid_new(rq->core, open_nonce);
    const struct attempt_new n = {kind,       address,    otp, nonce,
                                  open_nonce, rq->now_ms, pgp, fingerprint};
    if (ceremony_start(rq->core->ceremonies, &n, &view, &err) != 0) {
        if (err.code == ERR_INVAL)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
    } else {
        log_info(rq->core->log, "core", "root generation initialized: nonce=%s", view.nonce);
        reply_view(rs, &view, required, "", pgp[0] != '\0' ? "" : made, TOKEN_ID_BYTES);
    }
    OPENSSL_cleanse(made, sizeof(made));
}

/* first_copy: as it was when the shares were checked. */
static int store_token(struct request *rq, enum ceremony_kind kind, bool first_copy, const char *id,
                       struct err *err)
{
    struct core *c = rq->core;
    struct token *t;
    struct batch *b;

    if (kind == CEREMONY_DR_OPERATION)
        return dr_token_store(c, id, first_copy, err);
    b = batch_new(c);
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "token");
    if (token_create_root(rq, b, id, &t, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* The first `sure` shares, and of the others as many as are missing: whichever fit. */
static int open_with(struct core *c, const struct shares *all, unsigned sure, unsigned required,
                     struct buf *root, struct err *err)
{
    unsigned rest = all->n - sure, missing = required > sure ? required - sure : 0;
    const uint8_t *part[SHAMIR_SHARES_MAX];
    size_t len[SHAMIR_SHARES_MAX];

    for (unsigned set = 0; set < 1u << rest; set++) {
        unsigned n = sure;

        if ((unsigned)__builtin_popcount(set) != missing)
            continue;
        memcpy(part, all->part, sure * sizeof(part[0]));
        memcpy(len, all->len, sure * sizeof(len[0]));
        for (unsigned i = 0; i < rest; i++) {
            if ((set & 1u << i) == 0)
                continue;
            part[n] = all->part[sure + i];
            len[n++] = all->len[sure + i];
        }
        err_clear(err);
        if (seal_check_shares(c, part, len, n, root, err) == 0)
            return 0;
        buf_clear(root);
    }
    return -1;
}

/* A new token id, of which *encoded is what is answered: under the pad, or to the PGP key. */
static int make_token(struct core *c, char id[TOKEN_ID_BYTES + 1],
                      const uint8_t otp[TOKEN_ID_BYTES], const char *pgp_key, struct buf *encoded,
                      struct err *err)
{
    uint8_t padded[TOKEN_ID_BYTES];
    struct buf message = {0};
    int rc = 0;

    id[0] = 's';
    id[1] = '.';
    base62(c, id + 2, TOKEN_ID_BYTES - 2);
    if (pgp_key != NULL) {
        rc = pgp_encrypt(pgp_key, id, TOKEN_ID_BYTES, &message, err);
        base64_write(encoded, message.data, message.len, true);
    } else {
        for (size_t i = 0; i < TOKEN_ID_BYTES; i++)
            padded[i] = (uint8_t)id[i] ^ otp[i];
        base64_write(encoded, padded, sizeof(padded), false);
    }
    buf_free(&message);
    return rc == 0 ? buf_check(encoded, err) : rc;
}

/* Enough shares are here: check them, make the token, answer it covered. */
static void finish(struct request *rq, struct response *rs, enum ceremony_kind kind,
                   struct attempt_view *view, struct shares *whole, unsigned sure,
                   unsigned required)
{
    /* Before the shares are checked: they may be of the cluster that is replaced meanwhile. */
    bool first_copy = rq->core->role == ENGINE_BOOTSTRAPPING;
    struct buf root = {.secret = true}, encoded = {.secret = true};
    char id[TOKEN_ID_BYTES + 1];
    uint8_t otp[TOKEN_ID_BYTES] = {0};
    char *pgp_key = NULL;
    struct err err = {0};

    if (open_with(rq->core, whole, sure, required, &root, &err) != 0) {
        if (err.code == ERR_DENIED)
            reply_error(rs, 400, "root generation aborted: unable to authenticate: %s", err.msg);
        else
            reply_err(rs, &err);
        goto out;
    }
    /* It ends first: two who complete it at once would get two tokens under one pad. */
    if (ceremony_finish(rq->core->ceremonies, kind, view->nonce, otp, &pgp_key, rq->now_ms, &err) !=
        0) {
        reply_error(rs, 400, "%s", err.msg);
        goto out;
    }
    if (make_token(rq->core, id, otp, pgp_key, &encoded, &err) != 0 ||
        store_token(rq, kind, first_copy, id, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    log_info(rq->core->log, "core", "root generation finished: nonce=%s", view->nonce);
    reply_view(rs, view, required, buf_str(&encoded), "", 0);
out:
    free(pgp_key);
    OPENSSL_cleanse(id, sizeof(id));
    OPENSSL_cleanse(otp, sizeof(otp));
    buf_free(&root);
    buf_free(&encoded);
}

static void update(struct request *rq, struct response *rs, enum ceremony_kind kind,
                   const char *address, unsigned required)
{
    uint8_t part[SHARE_MAX_BYTES];
    struct share_given g = {.kind = kind,
                            .address = address,
                            .part = part,
                            .threshold = required,
                            .now_ms = rq->now_ms};
    struct shares whole = {0};
    struct attempt_view view = {0};
    struct err err = {0};
    unsigned sure = 0;
    const char *key;

    if (raw_str(rq, rs, "key", &key) != 0 || raw_str(rq, rs, "nonce", &g.nonce) != 0)
        return;
    if (key[0] == '\0') {
        reply_error(rs, 400, "'key' must be specified in request body as JSON");
        return;
    }
    if (seal_parse_key(key, part, sizeof(part), &g.len, &err) != 0 ||
        ceremony_share(rq->core->ceremonies, &g, &view, &whole, &sure, &err) != 0) {
        if (err.code == ERR_INVAL)
            reply_error(rs, 400, "%s", err.msg);
        else
            reply_err(rs, &err);
    } else if (whole.n > 0) {
        finish(rq, rs, kind, &view, &whole, sure, required);
    } else {
        reply_view(rs, &view, required, "", "", 0);
    }
    shares_clear(&whole);
    OPENSSL_cleanse(part, sizeof(part));
}

void generate_root_handle(struct request *rq, struct response *rs)
{
    bool dr = strncmp(rq->full_path, "sys/replication/", 16) == 0;
    enum ceremony_kind kind = dr ? CEREMONY_DR_OPERATION : CEREMONY_ROOT;
    const char *last = strrchr(rq->full_path, '/');
    char address[ADDRESS_BYTES];
    unsigned shares, required;
    struct err err = {0};

    if (dr && rq->core->role != ENGINE_SECONDARY && rq->core->role != ENGINE_BOOTSTRAPPING) {
        reply_error(rs, 400,
                    "Not a DR secondary. A DR operation token is made on the secondary that is to "
                    "be promoted; on this "
                    "cluster use sys/generate-root (without -dr-token).");
        return;
    }
    if (seal_threshold(rq->core, &shares, &required, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    ceremony_address(rq->http->peer_ip, address);
    if (strcmp(last, "/update") == 0) {
        if (rq->op == OP_WRITE)
            update(rq, rs, kind, address, required);
        else
            reply_no_errors(rs, 405);
    } else if (rq->op == OP_READ) {
        struct attempt_view view;
        ceremony_status(rq->core->ceremonies, kind, address, rq->now_ms, &view);
        reply_view(rs, &view, required, "", "", TOKEN_ID_BYTES);
    } else if (rq->op == OP_WRITE) {
        start(rq, rs, kind, address, required);
    } else if (rq->op == OP_DELETE) {
        const char *nonce;
        if (raw_str(rq, rs, "nonce", &nonce) != 0)
            return;
        ceremony_cancel(rq->core->ceremonies, kind, address, nonce, rq->now_ms);
        reply_empty(rs);
    } else {
        reply_no_errors(rs, 405);
    }
}
