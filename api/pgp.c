/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pgp.c - encryption to an OpenPGP public key, by librnp, with an engine that knows that one key
 * and nothing of this machine's key rings.
 */
#include "pgp.h"

#include <rnp/rnp.h>
#include <rnp/rnp_err.h>
#include <stdlib.h>
#include <string.h>

#include "core_private.h"

struct pgp {
    rnp_ffi_t ffi;
    rnp_input_t in;
    rnp_output_t out;
    rnp_identifier_iterator_t keys;
    rnp_key_handle_t key;
    rnp_op_encrypt_t op;
};

static void pgp_end(struct pgp *p)
{
    rnp_op_encrypt_destroy(p->op);
    rnp_key_handle_destroy(p->key);
    rnp_identifier_iterator_destroy(p->keys);
    rnp_output_destroy(p->out);
    rnp_input_destroy(p->in);
    rnp_ffi_destroy(p->ffi);
}

static int parse_failed(struct err *err, const char *why)
{
    return err_set(err, ERR_INVAL, 0, "error parsing given PGP key: %s", why);
}

/* The first key of data, which is not a subkey. */
static int load_key(struct pgp *p, const struct buf *data, char fingerprint[PGP_FINGERPRINT_BYTES],
                    struct err *err)
{
    const char *found;
    rnp_result_t rc;

    if (rnp_ffi_create(&p->ffi, RNP_KEYSTORE_GPG, RNP_KEYSTORE_GPG) != RNP_SUCCESS ||
        rnp_input_from_memory(&p->in, data->data, data->len, false) != RNP_SUCCESS)
        return err_set(err, ERR_NOMEM, 0, "PGP key");
    rc = rnp_import_keys(p->ffi, p->in, RNP_LOAD_SAVE_PUBLIC_KEYS, NULL);
    if (rc != RNP_SUCCESS)
        return err_set(
            err, ERR_INVAL, 0,
            "error parsing given PGP key: openpgp: no public key can be read from it (%s)",
            rnp_result_to_string(rc));
    if (rnp_identifier_iterator_create(p->ffi, &p->keys, "fingerprint") != RNP_SUCCESS ||
        rnp_identifier_iterator_next(p->keys, &found) != RNP_SUCCESS || found == NULL ||
        strlen(found) >= PGP_FINGERPRINT_BYTES)
        return parse_failed(err, "there is no key in it");
    for (size_t i = 0; i <= strlen(found); i++) /* as Vault writes it */
        fingerprint[i] =
            found[i] >= 'A' && found[i] <= 'F' ? (char)(found[i] + 'a' - 'A') : found[i];
    if (rnp_locate_key(p->ffi, "fingerprint", found, &p->key) != RNP_SUCCESS || p->key == NULL)
        return parse_failed(err, "there is no key in it");
    return 0;
}

static int encrypt_to(struct pgp *p, const struct buf *plain, struct buf *out, struct err *err)
{
    uint8_t *message;
    size_t len;
    rnp_result_t rc;

    rnp_input_destroy(p->in);
    p->in = NULL;
    if (rnp_input_from_memory(&p->in, plain->data, plain->len, false) != RNP_SUCCESS ||
        rnp_output_to_memory(&p->out, 0) != RNP_SUCCESS ||
        rnp_op_encrypt_create(&p->op, p->ffi, p->in, p->out) != RNP_SUCCESS)
        return err_set(err, ERR_NOMEM, 0, "PGP message");
    rc = rnp_op_encrypt_add_recipient(p->op, p->key);
    if (rc == RNP_SUCCESS)
        rc = rnp_op_encrypt_set_cipher(p->op, "AES256");
    if (rc == RNP_SUCCESS)
        rc = rnp_op_encrypt_set_armor(p->op, false);
    if (rc == RNP_SUCCESS)
        rc = rnp_op_encrypt_execute(p->op);
    if (rc == RNP_SUCCESS)
        rc = rnp_output_memory_get_buf(p->out, &message, &len, false);
    if (rc != RNP_SUCCESS)
        return err_set(err, ERR_INVAL, 0,
                       "error setting up encryption for PGP message: openpgp: no valid encryption "
                       "keys (%s)",
                       rnp_result_to_string(rc));
    buf_add(out, message, len);
    return buf_check(out, err);
}

int pgp_encrypt_here(const char *key_base64, const void *plain, size_t len, struct buf *out,
                     char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err)
{
    struct buf data = {0}, text = {.secret = true};
    struct pgp p = {0};
    size_t n = 0, bad, chars = strlen(key_base64);
    int rc = -1;

    buf_add(&text, plain, len);
    if (buf_reserve(&data, chars + 1) == NULL || text.failed)
        err_set(err, ERR_NOMEM, 0, "PGP key");
    else if (base64_read(key_base64, true, data.data, chars + 1, &n, &bad) != 0)
        err_set(err, ERR_INVAL, 0,
                "error decoding given PGP key: illegal base64 data at input byte %zu", bad);
    else if (n == 0)
        (void)parse_failed(err, "EOF");
    else {
        data.len = n;
        if (load_key(&p, &data, fingerprint, err) == 0)
            rc = encrypt_to(&p, &text, out, err);
    }
    pgp_end(&p);
    buf_free(&text);
    buf_free(&data);
    return rc;
}
