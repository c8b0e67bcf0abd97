/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_rekey.c - operator rekey: new key shares, agreed to by the holders of the old ones; and the
 * files with PGP keys that shares and tokens are encrypted to.
 */
#include "operator_private.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- PGP keys ---- */

#define PGP_FILE_MAX_BYTES ((size_t)1 << 20)

/* Armored or binary: its base64. Base64 already: as it is, without white space. */
static json_t *api_form(const uint8_t *data, size_t len)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    struct buf text = {0};
    json_t *v;

    for (size_t i = 0; i < len && !text.failed; i++) {
        if (data[i] == ' ' || data[i] == '\t' || data[i] == '\r' || data[i] == '\n')
            continue;
        if (data[i] == '\0' || strchr(digits, data[i]) == NULL) {
            buf_clear(&text);
            break;
        }
        buf_addc(&text, (char)data[i]);
    }
    if (text.len == 0 && buf_reserve(&text, len / 3 * 4 + 8) != NULL)
        text.len = (size_t)EVP_EncodeBlock(text.data, data, (int)len);
    v = text.failed ? NULL : json_string(buf_str(&text));
    buf_free(&text);
    return v;
}

int operator_pgp_key(const char *file, json_t **outp)
{
    uint8_t *data;
    size_t len;
    FILE *f;

    if (file == NULL || *outp != NULL)
        return 0;
    if (strncmp(file, "keybase:", 8) == 0) {
        fprintf(stderr, "%s: keybase is not asked: give a file with the public key\n", file);
        return -1;
    }
    file += file[0] == '@';
    f = fopen(file, "rbe");
    data = f != NULL ? malloc(PGP_FILE_MAX_BYTES) : NULL;
    if (data == NULL) {
        fprintf(stderr, "PGP key %s: %s\n", file, strerror(errno));
        if (f != NULL)
            fclose(f);
        return -1;
    }
    len = fread(data, 1, PGP_FILE_MAX_BYTES, f);
    if (len > 0 && len < PGP_FILE_MAX_BYTES && !ferror(f))
        *outp = api_form(data, len);
    if (*outp == NULL)
        fprintf(stderr, "PGP key %s: it is empty, not readable, or no key\n", file);
    free(data);
    fclose(f);
    return *outp != NULL ? 0 : -1;
}

/* An empty name is an error: what was meant to be encrypted must not be shown for it. */
int operator_pgp_keys(const char *files, json_t **outp)
{
    char *list = files != NULL ? strdup(files) : NULL, *at = list, *file;

    if (list == NULL)
        return files == NULL ? 0 : -1;
    *outp = json_array();
    while ((file = strsep(&at, ",")) != NULL) {
        json_t *key = NULL;

        if (operator_pgp_key(file, &key) != 0 || json_array_append_new(*outp, key) != 0) {
            json_decref(*outp);
            *outp = NULL;
            break;
        }
    }
    free(list);
    return *outp != NULL ? 0 : -1;
}

/* ---- rekey ---- */

static void print_row(struct table *t, const char *name, const char *value)
{
    table_add(t, name);
    table_add(t, value);
}

static int print_done(const json_t *s)
{
    output_warnings(s);
    operator_print_keys(s, "Key");
    printf("\nOperation nonce: %s\n", str(s, "nonce"));
    if (yes(s, "backup"))
        printf("\nThe encrypted keys are kept at core/unseal-keys-backup too: see -backup-retrieve "
               "and -backup-delete.\n");
    if (*str(s, "verification_nonce"))
        printf("\nVerification nonce: %s\n\nThe old key shares unseal until enough of the new ones "
               "have been given to\n\"lockstep operator rekey -verify\".\n",
               str(s, "verification_nonce"));
    else
        printf("\nVault rekeyed. Please securely distribute the key shares printed above: the old "
               "ones\nno longer unseal.\n");
    return 0;
}

static int rekey_print(const struct client *c, const json_t *s)
{
    struct table t = {.cols = 2};
    json_t *fingerprints = json_object_get(s, "pgp_fingerprints"), *v;
    size_t i;

    if (c->format != OUT_TABLE || c->field != NULL)
        return output_data(c, s);
    if (yes(s, "complete") && json_object_get(s, "keys") != NULL)
        return print_done(s);
    if (yes(s, "complete")) {
        printf("Success! Rekey verification succeeded: the new key shares unseal, the old ones no "
               "longer do.\n");
        return 0;
    }
    print_row(&t, "Key", "Value");
    print_row(&t, "Nonce", str(s, "nonce"));
    print_row(&t, "Started", yes(s, "started") ? "true" : "false");
    if (yes(s, "started")) {
        table_add(&t, "Rekey Progress");
        table_addf(&t, "%lld/%lld", num(s, "progress"),
                   json_object_get(s, "required") != NULL ? num(s, "required") : num(s, "t"));
        table_add(&t, "New Shares");
        table_addf(&t, "%lld", num(s, "n"));
        table_add(&t, "New Threshold");
        table_addf(&t, "%lld", num(s, "t"));
    }
    if (*str(s, "verification_nonce"))
        print_row(&t, "Verification Nonce", str(s, "verification_nonce"));
    json_array_foreach(fingerprints, i, v) print_row(&t, "PGP Fingerprint", json_string_value(v));
    table_print(&t, true);
    return 0;
}

struct rekey_args {
    bool init, cancel, status, verify, backup, retrieve, drop;
    int64_t shares, threshold;
    const char *nonce, *pgp, *key; /* NULL: not given */
};

static json_t *init_body(const struct rekey_args *a)
{
    json_t *keys = NULL, *body = NULL;

    if (operator_pgp_keys(a->pgp, &keys) == 0)
        body = json_pack("{s:I, s:I, s:O?, s:b, s:b}", "secret_shares", (json_int_t)a->shares,
                         "secret_threshold", (json_int_t)a->threshold, "pgp_keys", keys, "backup",
                         a->backup, "require_verification", a->verify);
    json_decref(keys);
    return body;
}

/* The share, and the nonce that the server tells when none is given. */
static json_t *share_body(struct client *c, const struct rekey_args *a, const char *status_path)
{
    struct reply st = {0};
    struct err err = {0};
    struct buf key = {.secret = true};
    const char *nonce = a->nonce;
    json_t *body = NULL;

    if (nonce == NULL && client_call(c, "GET", status_path, NULL, &st, &err) == 0)
        nonce = str(st.json, "nonce");
    if (a->key != NULL)
        buf_adds(&key, a->key);
    if (a->key != NULL || read_hidden("Unseal Key (will be hidden): ", &key) == 0)
        body = json_pack("{s:s, s:s}", "key", buf_str(&key), "nonce", nonce ? nonce : "");
    buf_free(&key);
    reply_free(&st);
    return body;
}

/* What is asked of the server. false: nothing, and why was said. */
static bool rekey_request(struct client *c, const struct rekey_args *a, const char **methodp,
                          const char **pathp, json_t **bodyp)
{
    *pathp = a->retrieve || a->drop              ? "sys/rekey/backup"
             : a->verify && !a->init             ? "sys/rekey/verify"
             : a->init || a->cancel || a->status ? "sys/rekey/init"
                                                 : "sys/rekey/update";
    *methodp = a->retrieve || a->status ? "GET" : a->drop || a->cancel ? "DELETE" : "PUT";
    if (**methodp != 'P')
        return true;
    *bodyp = a->init     ? init_body(a)
             : a->verify ? share_body(c, a, "sys/rekey/verify")
                         : share_body(c, a, "sys/rekey/init");
    return *bodyp != NULL;
}

int operator_rekey(int argc, char **argv)
{
    struct rekey_args a = {.shares = 5, .threshold = 3};
    struct flag flags[] = {
        {"init", FLAG_BOOL, &a.init, "Start."},
        {"cancel", FLAG_BOOL, &a.cancel, "Give the attempt up."},
        {"status", FLAG_BOOL, &a.status, "Print the attempt."},
        {"key-shares", FLAG_INT, &a.shares, "How many new shares (5)."},
        {"n", FLAG_INT, &a.shares, "As -key-shares."},
        {"key-threshold", FLAG_INT, &a.threshold, "How many of them unseal (3)."},
        {"t", FLAG_INT, &a.threshold, "As -key-threshold."},
        {"nonce", FLAG_STR, &a.nonce, "The attempt that the key belongs to."},
        {"verify", FLAG_BOOL, &a.verify,
         "With -init: the old shares hold until enough new ones are given; else: give one."},
        {"pgp-keys", FLAG_STR, &a.pgp, PGP_KEYS_HELP},
        {"backup", FLAG_BOOL, &a.backup, "Keep the encrypted shares on the server, too."},
        {"backup-retrieve", FLAG_BOOL, &a.retrieve, "Print what is kept."},
        {"backup-delete", FLAG_BOOL, &a.drop, "Delete what is kept."},
    };
    const char *method, *path;
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int rc, i = verb_begin("operator rekey [options] [KEY]", flags,
                           sizeof(flags) / sizeof(flags[0]), &c, argc, argv, 0, WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    a.key = i < argc ? argv[i] : NULL;
    rc = EXIT_REMOTE;
    if (!rekey_request(&c, &a, &method, &path, &body))
        rc = EXIT_LOCAL;
    else if (client_call(&c, method, path, body, &r, &err) != 0 || !reply_ok(&r))
        reply_fail(&c, &r, &err, "Error rekeying");
    else if (a.cancel)
        rc = printf("Success! Canceled rekeying (if it was started)\n") < 0;
    else if (a.drop)
        rc = printf("Success! Deleted stored keys (if they existed)\n") < 0;
    else if (a.retrieve)
        rc = output_secret(&c, &r);
    else
        rc = rekey_print(&c, r.json);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}
