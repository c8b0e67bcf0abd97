/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_operator.c - operator init, unseal, seal, generate-root (also -dr-token), rotate,
 * key-status; rekey is in cmd_rekey.c, snapshot and restore are in cmd_snapshot.c.
 */
#include "operator_private.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- init ---- */

void operator_print_keys(const json_t *answer, const char *label)
{
    json_t *k;
    size_t i;

    json_array_foreach(json_object_get(answer, "keys_base64"), i, k)
        printf("%s %zu: %s\n", label, i + 1, json_string_value(k));
}

static int init_status(struct client *c)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_LOCAL;

    if (client_call(c, "GET", "sys/init", NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, "Error checking init status");
    } else {
        bool done = yes(r.json, "initialized");
        printf("Vault is %sinitialized\n", done ? "" : "not ");
        rc = done ? 0 : 2;
    }
    reply_free(&r);
    return rc;
}

static json_t *init_json(const json_t *answer, int64_t shares, int64_t threshold)
{
    return json_pack("{s:O?, s:O?, s:I, s:I, s:[], s:[], s:i, s:i, s:O?}", "unseal_keys_b64",
                     json_object_get(answer, "keys_base64"), "unseal_keys_hex",
                     json_object_get(answer, "keys"), "unseal_shares", (json_int_t)shares,
                     "unseal_threshold", (json_int_t)threshold, "recovery_keys_b64",
                     "recovery_keys_hex", "recovery_keys_shares", 0, "recovery_keys_threshold", 0,
                     "root_token", json_object_get(answer, "root_token"));
}

static int cmd_init(int argc, char **argv)
{
    int64_t shares = 5, threshold = 3;
    bool status = false;
    const char *pgp = NULL, *root_pgp = NULL;
    json_t *keys = NULL, *root_key = NULL;
    struct flag flags[] = {
        {"key-shares", FLAG_INT, &shares, "How many shares the root key is split into (5)."},
        {"n", FLAG_INT, &shares, "As -key-shares."},
        {"key-threshold", FLAG_INT, &threshold, "How many of them unseal (3)."},
        {"t", FLAG_INT, &threshold, "As -key-threshold."},
        {"status", FLAG_BOOL, &status,
         "Only say whether the server is initialized; exit 0 yes, 2 no."},
        {"pgp-keys", FLAG_STR, &pgp, PGP_KEYS_HELP},
        {"root-token-pgp-key", FLAG_STR, &root_pgp,
         "File with a PGP public key, to which the root token is encrypted."},
    };
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int rc, i = verb_begin("operator init [options]", flags, 7, &c, argc, argv, 0, WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    if (status) {
        rc = init_status(&c);
        goto out;
    }
    rc = EXIT_LOCAL;
    if (operator_pgp_keys(pgp, &keys) != 0 || operator_pgp_key(root_pgp, &root_key) != 0)
        goto out;
    body =
        json_pack("{s:I, s:I, s:O?, s:O?}", "secret_shares", (json_int_t)shares, "secret_threshold",
                  (json_int_t)threshold, "pgp_keys", keys, "root_token_pgp_key", root_key);
    rc = EXIT_REMOTE;
    c.max_retries = 0; /* an init that may have happened is not asked for twice */
    if (client_call(&c, "PUT", "sys/init", body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error initializing");
        goto out;
    }
    rc = 0;
    if (c.format != OUT_TABLE || c.field != NULL) {
        json_t *doc = init_json(r.json, shares, threshold);
        rc = output_data(&c, doc);
        json_decref(doc);
        goto out;
    }
    output_warnings(r.json);
    operator_print_keys(r.json, "Unseal Key");
    printf("\nInitial Root Token: %s\n", str(r.json, "root_token"));
    printf("\nVault initialized with %lld key shares and a key threshold of %lld. Please securely\n"
           "distribute the key shares printed above. When the Vault is re-sealed,\n"
           "restarted, or stopped, you must supply at least %lld of these keys to unseal it\n"
           "before it can start servicing requests.\n\n"
           "Vault does not store the generated root key. Without at least %lld keys to\n"
           "reconstruct the root key, Vault will remain permanently sealed!\n\n"
           "It is possible to generate new unseal keys, provided you have a quorum of\n"
           "existing unseal keys shares. See \"lockstep operator rekey\" for more information.\n",
           (long long)shares, (long long)threshold, (long long)threshold, (long long)threshold);
out:
    json_decref(keys);
    json_decref(root_key);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

/* ---- unseal, seal ---- */

static void seal_table(const json_t *s)
{
    struct table t = {.cols = 2};

    table_add(&t, "Key");
    table_add(&t, "Value");
    table_add(&t, "Seal Type");
    table_add(&t, str(s, "type"));
    table_add(&t, "Initialized");
    table_add(&t, yes(s, "initialized") ? "true" : "false");
    table_add(&t, "Sealed");
    table_add(&t, yes(s, "sealed") ? "true" : "false");
    table_add(&t, "Total Shares");
    table_addf(&t, "%lld", num(s, "n"));
    table_add(&t, "Threshold");
    table_addf(&t, "%lld", num(s, "t"));
    if (yes(s, "sealed")) {
        table_add(&t, "Unseal Progress");
        table_addf(&t, "%lld/%lld", num(s, "progress"), num(s, "t"));
        table_add(&t, "Unseal Nonce");
        table_add(&t, str(s, "nonce"));
    }
    table_add(&t, "Version");
    table_add(&t, str(s, "version"));
    table_add(&t, "Build Date");
    table_add(&t, str(s, "build_date"));
    table_add(&t, "Storage Type");
    table_add(&t, str(s, "storage_type"));
    if (*str(s, "cluster_name")) {
        table_add(&t, "Cluster Name");
        table_add(&t, str(s, "cluster_name"));
        table_add(&t, "Cluster ID");
        table_add(&t, str(s, "cluster_id"));
    }
    table_print(&t, true);
}

static int cmd_unseal(int argc, char **argv)
{
    bool reset = false;
    struct flag flags[] = {{"reset", FLAG_BOOL, &reset, "Forget the shares given so far."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct buf key = {.secret = true};
    json_t *body = NULL;
    int rc, i = verb_begin("operator unseal [options] [KEY]", flags, 1, &c, argc, argv, 0,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    if (!reset && i < argc)
        buf_adds(&key, argv[i]);
    else if (!reset && read_hidden("Unseal Key (will be hidden): ", &key) != 0) {
        fprintf(stderr, "Error: no key was given\n");
        rc = EXIT_LOCAL;
        goto out;
    }
    body = reset ? json_pack("{s:b}", "reset", 1)
                 : json_pack("{s:s, s:b, s:b}", "key", buf_str(&key), "reset", 0, "migrate", 0);
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", "sys/unseal", body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error unsealing");
    } else if (c.format != OUT_TABLE || c.field != NULL) {
        rc = output_data(&c, r.json);
    } else {
        seal_table(r.json);
        rc = 0;
    }
out:
    buf_free(&key);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int simple_put(const char *usage, const char *method, const char *path, const char *doing,
                      const char *done, int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = verb_begin(usage, NULL, 0, &c, argc, argv, 0, WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, method, path, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, doing);
    } else {
        rc = json_is_object(json_object_get(r.json, "data")) ? output_secret(&c, &r) : 0;
        if (done != NULL)
            printf("%s\n", done);
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int cmd_seal(int argc, char **argv)
{
    return simple_put("operator seal [options]", "PUT", "sys/seal", "Error sealing",
                      "Success! Vault is sealed.", argc, argv);
}

static int cmd_step_down(int argc, char **argv)
{
    return simple_put("operator step-down [options]", "PUT", "sys/step-down", "Error stepping down",
                      "Success! Stepped down", argc, argv);
}

static int cmd_rotate(int argc, char **argv)
{
    return simple_put("operator rotate [options]", "PUT", "sys/rotate", "Error rotating key",
                      "Success! Rotated key", argc, argv);
}

static int cmd_key_status(int argc, char **argv)
{
    return simple_put("operator key-status [options]", "GET", "sys/key-status",
                      "Error reading key status", NULL, argc, argv);
}

/* ---- generate-root ---- */

struct ceremony {
    const char *attempt, *update; /* paths */
    const char *what;
};
static const struct ceremony ROOT = {"sys/generate-root/attempt", "sys/generate-root/update",
                                     "root generation"};
static const struct ceremony DR = {"sys/replication/dr/secondary/generate-operation-token/attempt",
                                   "sys/replication/dr/secondary/generate-operation-token/update",
                                   "DR operation token generation"};

static int ceremony_print(const struct client *c, const json_t *s)
{
    struct table t = {.cols = 2};

    if (c->format != OUT_TABLE || c->field != NULL)
        return output_data(c, s);
    table_add(&t, "Nonce");
    table_add(&t, str(s, "nonce"));
    table_add(&t, "Started");
    table_add(&t, yes(s, "started") ? "true" : "false");
    table_add(&t, "Progress");
    table_addf(&t, "%lld/%lld", num(s, "progress"), num(s, "required"));
    table_add(&t, "Complete");
    table_add(&t, yes(s, "complete") ? "true" : "false");
    if (*str(s, "pgp_fingerprint")) {
        table_add(&t, "PGP Fingerprint");
        table_add(&t, str(s, "pgp_fingerprint"));
    }
    if (*str(s, "encoded_token")) {
        table_add(&t, "Encoded Token");
        table_add(&t, str(s, "encoded_token"));
    } else if (*str(s, "encoded_root_token")) {
        table_add(&t, "Encoded Root Token");
        table_add(&t, str(s, "encoded_root_token"));
    }
    if (*str(s, "otp")) {
        table_add(&t, "OTP");
        table_add(&t, str(s, "otp"));
    }
    if (num(s, "otp_length") > 0) {
        table_add(&t, "OTP Length");
        table_addf(&t, "%lld", num(s, "otp_length"));
    }
    table_print(&t, false);
    return 0;
}

static int ceremony_status(struct client *c, const struct ceremony *k, struct reply *r)
{
    struct err err = {0};

    if (client_call(c, "GET", k->attempt, NULL, r, &err) != 0 || !reply_ok(r))
        return reply_fail(c, r, &err, "Error getting root generation status");
    return 0;
}

static int ceremony_init(struct client *c, const struct ceremony *k, const char *otp,
                         const char *pgp_file)
{
    json_t *body, *key = NULL;
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (operator_pgp_key(pgp_file, &key) != 0)
        return EXIT_LOCAL;
    body = json_pack("{s:s, s:o}", "otp", otp ? otp : "", "pgp_key",
                     key != NULL ? key : json_string(""));
    if (client_call(c, "PUT", k->attempt, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, "Error initializing root generation");
    } else {
        if (c->format == OUT_TABLE && c->field == NULL && *str(r.json, "otp"))
            printf("A One-Time-Password has been generated for you and is shown in the OTP field.\n"
                   "You will need this value to decode the resulting root token, so keep it "
                   "safe.\n\n");
        rc = ceremony_print(c, r.json);
    }
    json_decref(body);
    reply_free(&r);
    return rc;
}

static int ceremony_cancel(struct client *c, const struct ceremony *k)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (client_call(c, "DELETE", k->attempt, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, "Error canceling root token generation");
    } else {
        printf("Success! Root token generation canceled (if it was started)\n");
        rc = 0;
    }
    reply_free(&r);
    return rc;
}

static int ceremony_provide(struct client *c, const struct ceremony *k, const char *nonce,
                            const char *word)
{
    struct buf key = {.secret = true};
    struct reply r = {0}, st = {0};
    struct err err = {0};
    json_t *body = NULL;
    char prompt[200];
    int rc = EXIT_LOCAL;

    if (word != NULL && strcmp(word, "-") != 0) {
        if (nonce == NULL) {
            fprintf(stderr, "When providing values over stdin or as an argument, the nonce must be "
                            "given: -nonce=NONCE\n");
            goto out;
        }
        buf_adds(&key, word);
    } else {
        if (nonce == NULL) {
            rc = ceremony_status(c, k, &st);
            if (rc != 0)
                goto out;
            nonce = str(st.json, "nonce");
            rc = EXIT_LOCAL;
        }
        snprintf(prompt, sizeof(prompt),
                 "Operation nonce: %s\nUnseal Key (will be hidden): ", nonce);
        if (read_hidden(prompt, &key) != 0) {
            fprintf(stderr, "Error: no key was given\n");
            goto out;
        }
    }
    body = json_pack("{s:s, s:s}", "key", buf_str(&key), "nonce", nonce);
    rc = EXIT_REMOTE;
    if (client_call(c, "PUT", k->update, body, &r, &err) != 0 || !reply_ok(&r))
        reply_fail(c, &r, &err, "Error posting unseal key");
    else
        rc = ceremony_print(c, r.json);
out:
    buf_free(&key);
    json_decref(body);
    reply_free(&r);
    reply_free(&st);
    return rc;
}

static int decode_token(const struct client *c, const char *encoded, const char *otp)
{
    unsigned char raw[256];
    char padded[400];
    size_t len = strlen(encoded), n;
    int got;

    while (len > 0 && encoded[len - 1] == '=')
        len--;
    if (len == 0 || len > 300) {
        fprintf(stderr, "Error decoding root token: the encoded token is empty or too long\n");
        return EXIT_LOCAL;
    }
    snprintf(padded, sizeof(padded), "%.*s%.*s", (int)len, encoded, (int)((4 - len % 4) % 4),
             "===");
    got = EVP_DecodeBlock(raw, (const unsigned char *)padded, (int)strlen(padded));
    n = got < 0 ? 0 : (size_t)got - (4 - len % 4) % 4;
    if (got < 0 || n != strlen(otp)) {
        fprintf(stderr,
                got < 0 ? "Error decoding root token: not base64\n"
                        : "Error decoding root token: the OTP has %zu characters, the token %zu: "
                          "this OTP is of another attempt\n",
                strlen(otp), n);
        return EXIT_LOCAL;
    }
    for (size_t i = 0; i < n; i++)
        raw[i] ^= (unsigned char)otp[i];
    if (c->format == OUT_TABLE)
        printf("%.*s\n", (int)n, (char *)raw);
    else
        printf("{\n  \"token\": \"%.*s\"\n}\n", (int)n, (char *)raw);
    OPENSSL_cleanse(raw, sizeof(raw));
    return 0;
}

static int generate_otp(struct client *c, const struct ceremony *k)
{
    static const char set[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    struct reply r = {0};
    int rc = ceremony_status(c, k, &r);
    long long n = num(r.json, "otp_length");

    reply_free(&r);
    if (rc != 0)
        return rc;
    for (long long i = 0; i < n;) {
        unsigned char b;
        if (RAND_bytes(&b, 1) != 1)
            return EXIT_LOCAL;
        if (b < 248) { /* 4 * 62: no character is likelier than another */
            putchar(set[b % 62]);
            i++;
        }
    }
    putchar('\n');
    return 0;
}

static int cmd_generate_root(int argc, char **argv)
{
    bool init = false, cancel = false, status = false, gen_otp = false, dr = false;
    const char *otp = NULL, *nonce = NULL, *decode = NULL, *pgp = NULL;
    struct flag flags[] = {
        {"init", FLAG_BOOL, &init, "Start. Prints the nonce and the one-time password."},
        {"dr-token", FLAG_BOOL, &dr,
         "Make a DR operation token on a DR secondary instead of a root token."},
        {"nonce", FLAG_STR, &nonce, "The attempt that the key belongs to."},
        {"decode", FLAG_STR, &decode, "Decode this encoded token; needs -otp."},
        {"otp", FLAG_SECRET, &otp, "One-time password, or - to be asked for it."},
        {"pgp-key", FLAG_STR, &pgp, "File with a PGP public key, to which the token is encrypted."},
        {"generate-otp", FLAG_BOOL, &gen_otp, "Print a one-time password that fits -init -otp."},
        {"status", FLAG_BOOL, &status, "Print the attempt."},
        {"cancel", FLAG_BOOL, &cancel, "Give the attempt up."},
    };
    struct client c;
    struct reply r = {0};
    const struct ceremony *k;
    int rc, i = verb_begin("operator generate-root [options] [KEY]", flags, 9, &c, argc, argv, 0,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    k = dr ? &DR : &ROOT;
    if (decode != NULL && otp == NULL) {
        fprintf(stderr, "Missing otp: give the one-time password of the attempt, -otp=...\n");
        rc = EXIT_LOCAL;
    } else if (decode != NULL) {
        rc = decode_token(&c, decode, otp);
    } else if (gen_otp) {
        rc = generate_otp(&c, k);
    } else if (cancel) {
        rc = ceremony_cancel(&c, k);
    } else if (init) {
        rc = ceremony_init(&c, k, otp, pgp);
    } else if (status) {
        rc = ceremony_status(&c, k, &r);
        if (rc == 0)
            rc = ceremony_print(&c, r.json);
        reply_free(&r);
    } else {
        rc = ceremony_provide(&c, k, nonce, i < argc ? argv[i] : NULL);
    }
    client_free(&c);
    return rc;
}

int cmd_operator(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"init", cmd_init, "Initialize a server: makes the root key, its shares and a root token"},
        {"unseal", cmd_unseal, "Give one share of the root key"},
        {"seal", cmd_seal, "Seal the server"},
        {"generate-root", cmd_generate_root,
         "Make a root token, or a DR operation token, from key shares"},
        {"rekey", operator_rekey, "Make new key shares"},
        {"rotate", cmd_rotate, "Rotate the encryption key"},
        {"key-status", cmd_key_status, "Show the encryption key's term"},
        {"step-down", cmd_step_down, "Give up active duty"},
        {"snapshot", operator_snapshot, "Save the data to a file, or check such a file"},
        {"restore", operator_restore, "Make a data directory of a snapshot, at any LSN or time"},
    };

    return verb_run("operator", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
