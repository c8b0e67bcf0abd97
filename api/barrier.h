/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * barrier.h - the only place that holds keys: XAES-256-GCM over values, bound to their path.
 *
 * Root key (32 bytes) -> encrypts the keyring (terms: random 16-byte id, number, key, install time)
 * at "core/keyring". Ciphertext: byte 1 (version), 16 byte term id, 24 byte nonce, ciphertext, 16
 * byte tag; additional data: the path. Keys live in an arena of locked, undumpable memory that is
 * wiped (OPENSSL_secure_malloc); what is derived from one for its use is kept until the keys change
 * or the barrier is sealed, then wiped. XAES-256-GCM: https://c2sp.org/XAES-256-GCM. Any thread;
 * open and seal are exclusive of uses inside.
 */
#ifndef LOCKSTEP_BARRIER_H
#define LOCKSTEP_BARRIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "env.h"
#include "errors.h"

#define BARRIER_KEY_BYTES 32
#define BARRIER_KEYRING_PATH "core/keyring"

struct barrier;
CHECKED int barrier_new(struct env *env, struct barrier **bp, struct err *err);
void barrier_free(struct barrier *b);
/** A fresh root key and keyring with one term; open afterwards. keyring_out: the sealed bytes to
 * store at the path. */
CHECKED int barrier_init(struct barrier *b, int64_t now_ms, struct buf *keyring_out,
                         struct err *err);
/** Open with a root key. ERR_DENIED: this key does not open this keyring. */
CHECKED int barrier_open(struct barrier *b, const uint8_t root[BARRIER_KEY_BYTES],
                         const void *keyring, size_t len, struct err *err);
void barrier_seal(struct barrier *b); /* wipes */
bool barrier_is_open(struct barrier *b);
CHECKED int barrier_encrypt(struct barrier *b, const char *path, const void *plain, size_t len,
                            struct buf *out, struct err *err); /* ERR_SEALED */
CHECKED int barrier_decrypt(struct barrier *b, const char *path, const void *sealed, size_t len,
                            struct buf *out /* marked secret */,
                            struct err *err); /* ERR_SEALED, ERR_CORRUPT */
/** New term; keyring_out is what to store. The new term is used only after barrier_adopt of those
 * bytes. */
CHECKED int barrier_rotate(struct barrier *b, int64_t now_ms, struct buf *keyring_out,
                           struct err *err);
/** A keyring that came through the log (or our own rotation, once applied). */
CHECKED int barrier_adopt(struct barrier *b, const void *keyring, size_t len, struct err *err);
/** The keyring, sealed under its oldest term and bound to path: whoever has that term opens it. */
CHECKED int barrier_export(struct barrier *b, const char *path, struct buf *out, struct err *err);
/** Decrypt by the keyring that barrier_export gave for ring_path, wherever it was made. */
CHECKED int barrier_decrypt_by(struct barrier *b, const char *ring_path, const void *ring,
                               size_t ring_len, const char *path, const void *sealed, size_t len,
                               struct buf *out /* marked secret */, struct err *err);
void barrier_info(struct barrier *b, uint32_t *termp, int64_t *installed_msp,
                  uint64_t *encryptionsp);
/** HKDF-SHA-256 of the root key with a label ("epoch", "token", ...). ERR_SEALED. */
CHECKED int barrier_derive(struct barrier *b, const char *label, uint8_t out[32], struct err *err);
/** HMAC-SHA-256 under such a key that is kept ready. ERR_SEALED. */
enum barrier_mac { BARRIER_MAC_TOKEN, BARRIER_MAC_ACCESSOR, BARRIER_MAC_INDEX, BARRIER_MACS };
CHECKED int barrier_mac(struct barrier *b, enum barrier_mac which, const void *data, size_t len,
                        uint8_t out[32], struct err *err);
/** Copy of the root key, for sealing to a secondary and for shares; secret buffer. */
CHECKED int barrier_root(struct barrier *b, struct buf *out, struct err *err);
/** XAES-256-GCM itself, for vectors and for the seal: out = ciphertext and tag. */
CHECKED int xaes_seal(const uint8_t key[32], const uint8_t nonce[24], const void *aad,
                      size_t aad_len, const void *plain, size_t len, uint8_t *out, struct err *err);
CHECKED int xaes_open(const uint8_t key[32], const uint8_t nonce[24], const void *aad,
                      size_t aad_len, const void *sealed, size_t len, uint8_t *out,
                      struct err *err);

/* ---- Shamir over GF(2^8), polynomial 0x11b, constant time; a share is secret_len + 1 bytes, last
 * byte the x coordinate, as Vault's. ---- */
#define SHAMIR_SHARES_MAX 255
CHECKED int shamir_split(struct env *env, const uint8_t *secret, size_t len, unsigned shares,
                         unsigned threshold, uint8_t *out /* shares * (len + 1) */,
                         struct err *err);
CHECKED int shamir_combine(const uint8_t *const *parts, unsigned n, size_t part_len,
                           uint8_t *secret /* part_len - 1 */,
                           struct err *err); /* ERR_INVAL: too few, duplicate x */

/* ---- memory ---- */
/** mlockall, no core, not dumpable. lock false: only the latter. ERR_UNSUPPORTED with how to allow
 * it (LimitMEMLOCK, CAP_IPC_LOCK, disable_mlock). */
CHECKED int memory_protect(bool lock, struct err *err);

#endif
