/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * barrier.c - the keyring and the values under it.
 *
 * Sealed value: 0 version 1, 1-16 term id, 17-40 nonce, ciphertext, 16 bytes tag. Additional data
 * is the path, so a value moved to another path does not open. The keyring is sealed alike, under
 * the root key, with a term id of zeros:
 *
 *     0-3 "LKR1", 4-7 terms (LE), then for each 16 id, 4 number (LE), 8 installed ms (LE), 32 key;
 * the last is in use.
 *
 * Root key and keyring lie in memory that is locked, guarded and wiped. What a use of a key needs
 * besides is made once and kept in lanes: cipher contexts with the term's schedule, and MACs that
 * have taken their key. A thread uses its own lane under the lane's lock, so threads do not meet;
 * whoever changes the keys holds every lane and wipes them all. So a seal returns when no key is
 * in use any more, and nothing derived from one is left.
 */
#include "barrier.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "hmac.h"
#include "xaes_private.h"

#define SECURE_HEAP_BYTES (1u << 20)
#define SEALED_VERSION 1
#define ID_BYTES 16
#define NONCE_BYTES 24
#define TAG_BYTES 16
#define HEAD_BYTES (1 + ID_BYTES + NONCE_BYTES)
#define RING_HEAD_BYTES 8
#define TERM_BYTES (ID_BYTES + 4 + 8 + BARRIER_KEY_BYTES)
#define TERMS_MAX 1024

struct term {
    uint8_t id[ID_BYTES];
    uint32_t number;
    int64_t installed_ms;
    uint8_t key[BARRIER_KEY_BYTES];
};

struct keys { /* secure memory */
    uint8_t root[BARRIER_KEY_BYTES];
    size_t n_terms;
    struct term terms[]; /* by number, the last is in use */
};

#define LANES 16 /* threads beyond that share */

struct lane {
    _Alignas(64) pthread_mutex_t lock; /* a cache line of its own */
    struct xaes xaes;
    bool keyed; /* xaes has the key of term_id */
    uint8_t term_id[ID_BYTES];
    struct hmac macs[BARRIER_MACS]; /* those without a key are not made yet */
};

struct barrier {
    struct env *env;
    struct keys *keys; /* NULL: sealed. Read with one lane held, changed with all */
    _Atomic uint64_t encryptions;
    struct lane lanes[LANES];
};

/* ---- little endian ---- */

static void put_le(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t get_le(const uint8_t *p, int bytes)
{
    uint64_t v = 0;

    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* ---- lanes ---- */

static struct lane *lane_lock(struct barrier *b)
{
    static _Atomic unsigned next;
    static _Thread_local unsigned mine; /* from 1 */
    struct lane *l;

    if (mine == 0)
        mine = atomic_fetch_add(&next, 1) % LANES + 1;
    l = &b->lanes[mine - 1];
    pthread_mutex_lock(&l->lock);
    return l;
}

static void lane_unlock(struct lane *l)
{
    pthread_mutex_unlock(&l->lock);
}

/* What was derived from keys goes. */
static void lane_wipe(struct lane *l)
{
    xaes_fini(&l->xaes);
    l->keyed = false;
    for (size_t i = 0; i < BARRIER_MACS; i++)
        hmac_fini(&l->macs[i]);
}

static struct xaes *lane_xaes(struct lane *l, const struct term *t, struct err *err)
{
    if (l->keyed && memcmp(l->term_id, t->id, ID_BYTES) == 0)
        return &l->xaes;
    l->keyed = false;
    if (l->xaes.gcm == NULL && xaes_init(&l->xaes, err) != 0)
        return NULL;
    if (xaes_key(&l->xaes, t->key, err) != 0)
        return NULL;
    memcpy(l->term_id, t->id, ID_BYTES);
    l->keyed = true;
    return &l->xaes;
}

/* ---- sealing under one key ---- */

static int seal_with(struct barrier *b, struct xaes *x, const uint8_t id[ID_BYTES],
                     const char *path, const void *plain, size_t len, struct buf *out,
                     struct err *err)
{
    uint8_t *p = buf_reserve(out, HEAD_BYTES + len + TAG_BYTES);

    if (p == NULL)
        return err_set(err, ERR_NOMEM, 0, "encrypt %zu bytes", len);
    p[0] = SEALED_VERSION;
    memcpy(p + 1, id, ID_BYTES);
    env_random(b->env, p + 1 + ID_BYTES, NONCE_BYTES);
    if (xaes_seal_by(x, p + 1 + ID_BYTES, path, strlen(path), plain, len, p + HEAD_BYTES, err) != 0)
        return -1;
    buf_filled(out, HEAD_BYTES + len + TAG_BYTES);
    return 0;
}

static int check_head(const uint8_t *sealed, size_t len, struct err *err)
{
    if (len < HEAD_BYTES + TAG_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "sealed value is too short (%zu bytes)", len);
    if (sealed[0] != SEALED_VERSION)
        return err_set(err, ERR_CORRUPT, 0, "sealed value has version %u, known is %d", sealed[0],
                       SEALED_VERSION);
    return 0;
}

/* ---- keyring ---- */

static struct keys *keys_new(size_t n_terms)
{
    return OPENSSL_secure_zalloc(sizeof(struct keys) + n_terms * sizeof(struct term));
}

static void keys_free(struct keys *k)
{
    if (k != NULL)
        OPENSSL_secure_clear_free(k, sizeof(*k) + k->n_terms * sizeof(struct term));
}

static int ring_seal(struct barrier *b, const struct keys *k, const uint8_t key[BARRIER_KEY_BYTES],
                     const uint8_t id[ID_BYTES], const char *path, struct buf *out, struct err *err)
{
    size_t len = RING_HEAD_BYTES + k->n_terms * TERM_BYTES;
    uint8_t *plain = OPENSSL_secure_zalloc(len), *p;
    struct xaes x;
    int rc;

    if (plain == NULL)
        return err_set(err, ERR_NOMEM, 0, "keyring");
    memcpy(plain, "LKR1", 4);
    put_le(plain + 4, k->n_terms, 4);
    p = plain + RING_HEAD_BYTES;
    for (size_t i = 0; i < k->n_terms; i++, p += TERM_BYTES) {
        memcpy(p, k->terms[i].id, ID_BYTES);
        put_le(p + ID_BYTES, k->terms[i].number, 4);
        put_le(p + ID_BYTES + 4, (uint64_t)k->terms[i].installed_ms, 8);
        memcpy(p + ID_BYTES + 12, k->terms[i].key, BARRIER_KEY_BYTES);
    }
    rc = xaes_init(&x, err);
    if (rc == 0)
        rc = xaes_key(&x, key, err);
    if (rc == 0)
        rc = seal_with(b, &x, id, path, plain, len, out, err);
    xaes_fini(&x);
    OPENSSL_secure_clear_free(plain, len);
    return rc;
}

static int ring_encode(struct barrier *b, const struct keys *k, struct buf *out, struct err *err)
{
    static const uint8_t root_id[ID_BYTES] = {0};

    return ring_seal(b, k, k->root, root_id, BARRIER_KEYRING_PATH, out, err);
}

static int ring_parse(const uint8_t *plain, size_t len, const uint8_t root[32], struct keys **kp,
                      struct err *err)
{
    uint64_t n = len >= RING_HEAD_BYTES ? get_le(plain + 4, 4) : 0;
    const uint8_t *p = plain + RING_HEAD_BYTES;
    struct keys *k;

    if (n == 0 || n > TERMS_MAX || memcmp(plain, "LKR1", 4) != 0 ||
        len != RING_HEAD_BYTES + n * TERM_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "keyring has an unknown form");
    k = keys_new(n);
    if (k == NULL)
        return err_set(err, ERR_NOMEM, 0, "keyring");
    memcpy(k->root, root, BARRIER_KEY_BYTES);
    k->n_terms = n;
    for (size_t i = 0; i < n; i++, p += TERM_BYTES) {
        memcpy(k->terms[i].id, p, ID_BYTES);
        k->terms[i].number = (uint32_t)get_le(p + ID_BYTES, 4);
        k->terms[i].installed_ms = (int64_t)get_le(p + ID_BYTES + 4, 8);
        memcpy(k->terms[i].key, p + ID_BYTES + 12, BARRIER_KEY_BYTES);
    }
    *kp = k;
    return 0;
}

/* ERR_DENIED: this root key does not open it. */
static int ring_decode(const void *keyring, size_t len, const uint8_t root[32], struct keys **kp,
                       struct err *err)
{
    const uint8_t *sealed = keyring;
    size_t plain_len;
    uint8_t *plain;
    int rc;

    *kp = NULL;
    if (check_head(sealed, len, err) != 0)
        return err_wrap(err, "keyring");
    plain_len = len - HEAD_BYTES - TAG_BYTES;
    plain = OPENSSL_secure_zalloc(plain_len > 0 ? plain_len : 1);
    if (plain == NULL)
        return err_set(err, ERR_NOMEM, 0, "keyring");
    rc = xaes_open(root, sealed + 1 + ID_BYTES, BARRIER_KEYRING_PATH, strlen(BARRIER_KEYRING_PATH),
                   sealed + HEAD_BYTES, len - HEAD_BYTES, plain, err);
    if (rc == 0)
        rc = ring_parse(plain, plain_len, root, kp, err);
    else if (err == NULL || err->code == ERR_CORRUPT) {
        err_clear(err);
        err_set(err, ERR_DENIED, 0, "this key does not open the keyring");
    }
    OPENSSL_secure_clear_free(plain, plain_len > 0 ? plain_len : 1);
    return rc;
}

static void term_fill(struct barrier *b, struct term *t, uint32_t number, int64_t now_ms)
{
    env_random(b->env, t->id, ID_BYTES);
    env_random(b->env, t->key, BARRIER_KEY_BYTES);
    t->number = number;
    t->installed_ms = now_ms;
}

/* ---- life ---- */

static int sealed_error(struct err *err)
{
    return err_set(err, ERR_SEALED, 0, "Vault is sealed");
}

int barrier_new(struct env *env, struct barrier **bp, struct err *err)
{
    struct barrier *b = aligned_alloc(_Alignof(struct barrier), sizeof(*b));

    *bp = NULL;
    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "barrier");
    memset(b, 0, sizeof(*b));
    /* 0: no arena at all. 2: an arena whose pages could not all be locked, which memory_protect
     * reports. */
    if (!CRYPTO_secure_malloc_initialized() &&
        CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, 64) == 0) {
        free(b);
        return err_set(err, ERR_UNSUPPORTED, 0, "no guarded memory for keys (mmap of %u bytes)",
                       SECURE_HEAP_BYTES);
    }
    for (size_t i = 0; i < LANES; i++)
        pthread_mutex_init(&b->lanes[i].lock, NULL);
    b->env = env;
    *bp = b;
    return 0;
}

void barrier_free(struct barrier *b)
{
    if (b == NULL)
        return;
    keys_free(b->keys);
    for (size_t i = 0; i < LANES; i++) {
        lane_wipe(&b->lanes[i]);
        pthread_mutex_destroy(&b->lanes[i].lock);
    }
    free(b);
}

/* Takes k. With `adopt`, only a barrier that is open now gets it: a seal that came first stays. */
static bool install(struct barrier *b, struct keys *k, bool adopt)
{
    struct keys *old;
    bool refused;

    for (size_t i = 0; i < LANES; i++)
        pthread_mutex_lock(&b->lanes[i].lock);
    old = b->keys;
    refused = adopt && old == NULL;
    if (!refused) {
        /* The count is of the term in use. */
        if (old == NULL || k == NULL ||
            memcmp(old->terms[old->n_terms - 1].id, k->terms[k->n_terms - 1].id, ID_BYTES) != 0)
            atomic_store(&b->encryptions, 0);
        b->keys = k;
        for (size_t i = 0; i < LANES; i++)
            lane_wipe(&b->lanes[i]);
    }
    for (size_t i = LANES; i-- > 0;)
        pthread_mutex_unlock(&b->lanes[i].lock);
    keys_free(refused ? k : old);
    return !refused;
}

int barrier_init(struct barrier *b, int64_t now_ms, struct buf *keyring_out, struct err *err)
{
    struct keys *k;

    if (barrier_is_open(b))
        return err_set(err, ERR_ROLE, 0, "the barrier is open already");
    k = keys_new(1);
    if (k == NULL)
        return err_set(err, ERR_NOMEM, 0, "keyring");
    k->n_terms = 1;
    env_random(b->env, k->root, BARRIER_KEY_BYTES);
    term_fill(b, &k->terms[0], 1, now_ms);
    if (ring_encode(b, k, keyring_out, err) != 0) {
        keys_free(k);
        return -1;
    }
    install(b, k, false);
    return 0;
}

int barrier_open(struct barrier *b, const uint8_t root[BARRIER_KEY_BYTES], const void *keyring,
                 size_t len, struct err *err)
{
    struct keys *k;

    if (ring_decode(keyring, len, root, &k, err) != 0)
        return -1;
    install(b, k, false);
    return 0;
}

void barrier_seal(struct barrier *b)
{
    install(b, NULL, false);
}

bool barrier_is_open(struct barrier *b)
{
    struct lane *l = lane_lock(b);
    bool open = b->keys != NULL;

    lane_unlock(l);
    return open;
}

/* ---- values ---- */

int barrier_encrypt(struct barrier *b, const char *path, const void *plain, size_t len,
                    struct buf *out, struct err *err)
{
    struct lane *l = lane_lock(b);
    int rc = -1;

    if (b->keys == NULL) {
        sealed_error(err);
    } else {
        const struct term *t = &b->keys->terms[b->keys->n_terms - 1];
        struct xaes *x = lane_xaes(l, t, err);

        if (x != NULL)
            rc = seal_with(b, x, t->id, path, plain, len, out, err);
        atomic_fetch_add_explicit(&b->encryptions, 1, memory_order_relaxed);
    }
    lane_unlock(l);
    return rc;
}

static const struct term *term_by_id(const struct keys *k, const uint8_t *id)
{
    for (size_t i = k->n_terms; i-- > 0;)
        if (memcmp(k->terms[i].id, id, ID_BYTES) == 0)
            return &k->terms[i];
    return NULL;
}

/* In a lane: that of the barrier, whose keyring k is, or one for this call. */
static int decrypt_by(struct lane *l, const struct keys *k, const char *path, const uint8_t *sealed,
                      size_t len, struct buf *out, struct err *err)
{
    size_t plain_len = len - HEAD_BYTES - TAG_BYTES;
    const struct term *t;
    struct xaes *x;
    uint8_t *p;

    if (k == NULL)
        return sealed_error(err);
    t = term_by_id(k, sealed + 1);
    if (t == NULL)
        return err_set(err, ERR_CORRUPT, 0, "%s: sealed under a key term that the keyring lacks",
                       path);
    x = lane_xaes(l, t, err);
    if (x == NULL)
        return -1;
    p = buf_reserve(out, plain_len);
    if (p == NULL)
        return err_set(err, ERR_NOMEM, 0, "decrypt %zu bytes", plain_len);
    if (xaes_open_by(x, sealed + 1 + ID_BYTES, path, strlen(path), sealed + HEAD_BYTES,
                     len - HEAD_BYTES, p, err) != 0)
        return err_wrap(err, "%s", path);
    buf_filled(out, plain_len);
    return 0;
}

int barrier_decrypt(struct barrier *b, const char *path, const void *sealed, size_t len,
                    struct buf *out, struct err *err)
{
    struct lane *l;
    int rc;

    out->secret = true;
    if (check_head(sealed, len, err) != 0)
        return err_wrap(err, "%s", path);
    l = lane_lock(b);
    rc = decrypt_by(l, b->keys, path, sealed, len, out, err);
    lane_unlock(l);
    return rc;
}

int barrier_export(struct barrier *b, const char *path, struct buf *out, struct err *err)
{
    struct lane *l = lane_lock(b);
    int rc;

    rc = b->keys != NULL
             ? ring_seal(b, b->keys, b->keys->terms[0].key, b->keys->terms[0].id, path, out, err)
             : sealed_error(err);
    lane_unlock(l);
    return rc;
}

int barrier_decrypt_by(struct barrier *b, const char *ring_path, const void *ring, size_t ring_len,
                       const char *path, const void *sealed, size_t len, struct buf *out,
                       struct err *err)
{
    static const uint8_t no_root[BARRIER_KEY_BYTES] = {0};
    struct buf plain = {.secret = true};
    struct lane once = {0};
    struct keys *k = NULL;
    int rc = -1;

    out->secret = true;
    if (barrier_decrypt(b, ring_path, ring, ring_len, &plain, err) == 0 &&
        ring_parse(plain.data, plain.len, no_root, &k, err) == 0 &&
        check_head(sealed, len, err) == 0)
        rc = decrypt_by(&once, k, path, sealed, len, out, err);
    lane_wipe(&once);
    keys_free(k);
    buf_free(&plain);
    return rc;
}

/* ---- terms ---- */

/* A copy with one more term. */
static int ring_grown(struct barrier *b, int64_t now_ms, struct keys **kp, struct err *err)
{
    const struct keys *old = b->keys;
    struct keys *k;

    *kp = NULL;
    if (old == NULL)
        return sealed_error(err);
    if (old->n_terms == TERMS_MAX)
        return err_set(err, ERR_INVAL, 0, "the keyring holds %d terms, the most it can", TERMS_MAX);
    k = keys_new(old->n_terms + 1);
    if (k == NULL)
        return err_set(err, ERR_NOMEM, 0, "keyring");
    memcpy(k->root, old->root, BARRIER_KEY_BYTES);
    memcpy(k->terms, old->terms, old->n_terms * sizeof(struct term));
    k->n_terms = old->n_terms + 1;
    term_fill(b, &k->terms[old->n_terms], old->terms[old->n_terms - 1].number + 1, now_ms);
    *kp = k;
    return 0;
}

int barrier_rotate(struct barrier *b, int64_t now_ms, struct buf *keyring_out, struct err *err)
{
    struct lane *l = lane_lock(b);
    struct keys *k;
    int rc;

    rc = ring_grown(b, now_ms, &k, err);
    lane_unlock(l);
    if (rc == 0)
        rc = ring_encode(b, k, keyring_out, err);
    keys_free(k);
    return rc;
}

int barrier_adopt(struct barrier *b, const void *keyring, size_t len, struct err *err)
{
    struct buf root = {0};
    struct keys *k;
    int rc = -1;

    if (barrier_root(b, &root, err) != 0)
        goto out;
    if (ring_decode(keyring, len, root.data, &k, err) != 0)
        goto out;
    rc = install(b, k, true) ? 0 : sealed_error(err);
out:
    buf_free(&root);
    return rc;
}

void barrier_info(struct barrier *b, uint32_t *termp, int64_t *installed_msp,
                  uint64_t *encryptionsp)
{
    struct lane *l = lane_lock(b);

    *termp = b->keys != NULL ? b->keys->terms[b->keys->n_terms - 1].number : 0;
    *installed_msp = b->keys != NULL ? b->keys->terms[b->keys->n_terms - 1].installed_ms : 0;
    lane_unlock(l);
    *encryptionsp = atomic_load(&b->encryptions);
}

/* ---- what comes from the root key ---- */

static int hkdf(const uint8_t root[32], const char *label, uint8_t out[32], struct err *err)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)root, BARRIER_KEY_BYTES),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, "lockstep", 8),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)label, strlen(label)),
        OSSL_PARAM_construct_end(),
    };
    int rc = 0;

    if (ctx == NULL || EVP_KDF_derive(ctx, out, 32, params) != 1)
        rc = err_set(err, ERR_IO, 0, "derive the %s key: the crypto library failed", label);
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return rc;
}

int barrier_derive(struct barrier *b, const char *label, uint8_t out[32], struct err *err)
{
    struct lane *l = lane_lock(b);
    int rc;

    rc = b->keys != NULL ? hkdf(b->keys->root, label, out, err) : sealed_error(err);
    lane_unlock(l);
    return rc;
}

/* ---- MACs under derived keys ---- */

static int mac_make(const uint8_t root[32], const char *label, struct hmac *m, struct err *err)
{
    uint8_t key[32];
    int rc = hkdf(root, label, key, err);

    if (rc == 0)
        rc = hmac_init(m, key, sizeof(key), err);
    OPENSSL_cleanse(key, sizeof(key));
    return rc;
}

int barrier_mac(struct barrier *b, enum barrier_mac which, const void *data, size_t len,
                uint8_t out[32], struct err *err)
{
    static const char *const labels[BARRIER_MACS] = {"token", "accessor", "index"};
    struct lane *l = lane_lock(b);
    struct hmac *m = &l->macs[which];
    int rc = 0;

    if (b->keys == NULL)
        rc = sealed_error(err);
    else if (m->inner == NULL)
        rc = mac_make(b->keys->root, labels[which], m, err);
    if (rc == 0)
        rc = hmac_of(m, data, len, out, err);
    lane_unlock(l);
    return rc;
}

int barrier_root(struct barrier *b, struct buf *out, struct err *err)
{
    struct lane *l = lane_lock(b);
    int rc = 0;

    out->secret = true;
    if (b->keys != NULL)
        buf_add(out, b->keys->root, BARRIER_KEY_BYTES);
    else
        rc = sealed_error(err);
    lane_unlock(l);
    return rc != 0 ? -1 : buf_check(out, err);
}
