/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pgp.h - key shares and tokens encrypted to their holders' OpenPGP keys (RFC 4880), so that who
 * starts a ceremony does not see them.
 *
 * Anybody may hand a key in, and the library that reads it writes to stderr: it runs in a process
 * of its own, which has none of the server's memory and environment, and PGP_CPU_S of processor
 * time. What anybody can ask for, a trial, runs once at a time, and nobody waits for his turn.
 */
#ifndef LOCKSTEP_PGP_H
#define LOCKSTEP_PGP_H

#include <jansson.h>
#include <stddef.h>
#include "buf.h"
#include "errors.h"

#define PGP_FINGERPRINT_BYTES 65             /* 40 hex digits (version 4), or 64; NUL */
#define PGP_KEY_MAX_CHARS ((size_t)32 << 10) /* of a key in base64: attempts hold it */
#define PGP_PLAIN_MAX_BYTES 1024u
#define PGP_CPU_S 2            /* of a process: some milliseconds are enough for honest keys */
#define PGP_LIMIT_S 5          /* until it has answered */
#define PGP_VERB "pgp-encrypt" /* of this program, for that process */

/**
 * Encrypt plain to a public key, given as base64 of its binary or armored form; the first key in it
 * counts. Appends the binary message to out; len is 1 to PGP_PLAIN_MAX_BYTES, without NUL.
 * ERR_INVAL with Vault's text as far as it has one: it is no key, expired, revoked, or not for
 * encryption; ERR_IO. Coroutine; some 20 milliseconds. Only for what key holders have agreed to.
 */
CHECKED int pgp_encrypt(const char *key_base64, const void *plain, size_t len, struct buf *out,
                        struct err *err);
/**
 * Would pgp_encrypt work with each of these n keys? Their fingerprints are added to fingerprints,
 * which may be NULL. Errors as above, and ERR_BUSY: others are being tried, ask again. Coroutine.
 */
CHECKED int pgp_try(const char *const *keys, size_t n, json_t *fingerprints, struct err *err);

/** The process: one request from stdin, its answer to stdout. Returns its exit code. */
int pgp_main(void);

/* ---- pgp.c, within that process ---- */
CHECKED int pgp_encrypt_here(const char *key_base64, const void *plain, size_t len, struct buf *out,
                             char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err);

#endif
