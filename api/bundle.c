/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bundle.c - what a secondary token holds: who may enrol, as whom, until when, and where.
 *
 * Wrapped, it lies with the primary until the secondary unwraps it over the primary's API. Sealed,
 * it is the token itself: encrypted to the link key of the cluster that is to be the secondary,
 * whose public half generate-public-key told, so that no way to the primary's API is needed. Only
 * that cluster can open it, as often as it likes; what ends its use is the activation row on the
 * primary.
 */
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "tls.h"

#define SEALED "sealed." /* no JWT begins so: its header is base64 of {" */
#define SEALED_MAX_BYTES 16384u
#define SEAL_INFO "lockstep secondary token"
#define PUBLIC_MAX_CHARS 512u
#define PEM_BEGIN "-----BEGIN PUBLIC KEY-----\n"
#define PEM_END "-----END PUBLIC KEY-----\n"

int bundle_read(const json_t *data, struct bundle *b, struct err *err)
{
    b->id = json_string_value(json_object_get(data, "id"));
    b->ca_cert = json_string_value(json_object_get(data, "ca_cert"));
    b->client_cert = json_string_value(json_object_get(data, "client_cert"));
    b->client_key = json_string_value(json_object_get(data, "client_key"));
    b->cluster_id = json_string_value(json_object_get(data, "cluster_id"));
    b->cluster_addr = json_string_value(json_object_get(data, "primary_cluster_addr"));
    b->expires_s = json_integer_value(json_object_get(data, "expires"));
    if (b->id == NULL || !member_id_good(b->id) || b->ca_cert == NULL || b->client_cert == NULL ||
        b->client_key == NULL || b->cluster_id == NULL || strlen(b->cluster_id) > 39 ||
        b->cluster_addr == NULL || strlen(b->cluster_addr) > 255 ||
        !hex_to(json_string_value(json_object_get(data, "primary_key_hash")), b->primary_key_hash,
                32))
        return err_set(err, ERR_PROTO, 0, "the wrapped answer is not that of a DR secondary token");
    return 0;
}

/* ---- the public key: the base64 of its PEM form, in one line ---- */

int bundle_public_text(const struct link_identity *me, struct buf *out, struct err *err)
{
    struct buf pem = {0};
    const char *at, *end;
    int rc = cert_public_of(buf_str(&me->key), &pem, err);

    if (rc == 0) {
        at = buf_str(&pem) + strlen(PEM_BEGIN);
        end = strstr(at, PEM_END);
        for (; at < end; at++)
            if (*at != '\n')
                buf_addc(out, *at);
        rc = buf_check(out, err);
    }
    buf_free(&pem);
    return rc;
}

static int public_pem(const char *text, struct buf *out, struct err *err)
{
    if (strlen(text) > PUBLIC_MAX_CHARS)
        return err_set(err, ERR_INVAL, 0, "it is too long");
    buf_adds(out, PEM_BEGIN);
    for (size_t n = strlen(text); n > 0;) {
        size_t line = n < 64 ? n : 64; /* RFC 7468 */

        buf_add(out, text, line);
        buf_addc(out, '\n');
        text += line;
        n -= line;
    }
    buf_adds(out, PEM_END);
    return buf_check(out, err);
}

/* ---- sealed ---- */

bool bundle_is_sealed(const char *token)
{
    return strncmp(token, SEALED, strlen(SEALED)) == 0;
}

int bundle_seal(const json_t *bundle, const char *public_text, struct buf *out, struct err *err)
{
    struct buf pem = {0}, sealed = {0};
    char *text = json_dumps(bundle, JSON_COMPACT);
    int rc = -1;

    if (text == NULL) {
        (void)err_set(err, ERR_NOMEM, 0, "secondary token");
    } else if (public_pem(public_text, &pem, err) != 0 ||
               cert_seal_to(buf_str(&pem), SEAL_INFO, text, strlen(text), &sealed, err) != 0) {
        (void)err_wrap(err, "secondary_public_key must be what "
                            "sys/replication/dr/secondary/generate-public-key answered on the "
                            "cluster that is to be the secondary");
    } else {
        buf_adds(out, SEALED);
        base64_write(out, sealed.data, sealed.len, true);
        rc = buf_check(out, err);
    }
    if (text != NULL)
        OPENSSL_cleanse(text, strlen(text));
    free(text);
    buf_free(&pem);
    buf_free(&sealed);
    return rc;
}

int bundle_open(const char *token, const struct link_identity *me, struct bundle *b,
                struct err *err)
{
    struct buf sealed = {0}, plain = {.secret = true};
    const char *text = token + strlen(SEALED);
    size_t n = 0, bad;
    int rc = -1;

    if (strlen(text) > SEALED_MAX_BYTES) {
        (void)err_set(err, ERR_INVAL, 0, "the secondary token is too long");
    } else if (buf_reserve(&sealed, strlen(text)) == NULL) {
        (void)err_set(err, ERR_NOMEM, 0, "secondary token");
    } else if (base64_read(text, true, sealed.data, strlen(text), &n, &bad) != 0) {
        (void)err_set(err, ERR_INVAL, 0, "the secondary token is not whole: copy all of it");
    } else if (cert_open_with(buf_str(&me->key), SEAL_INFO, sealed.data, n, &plain, err) != 0) {
        (void)err_set(err, ERR_INVAL, 0,
                      "the secondary token was made for another public key, or is not whole: make "
                      "one for the key that sys/replication/dr/secondary/generate-public-key "
                      "answers here");
    } else {
        b->json = json_loadb((const char *)plain.data, plain.len, 0, NULL);
        rc = bundle_read(b->json, b, err);
    }
    buf_free(&plain);
    buf_free(&sealed);
    return rc;
}
