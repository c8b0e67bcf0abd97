/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * pgp.h - key shares and tokens encrypted to their holders' OpenPGP keys (RFC 4880), so that who
 * starts a ceremony does not see them.
 *
 * Anybody may hand a key in, and the library that reads it writes to stderr: it runs in a process
 * of its own, which has none of the server's memory, and ends after one message.
 */
#ifndef LOCKSTEP_PGP_H
#define LOCKSTEP_PGP_H

#include <stddef.h>
#include "buf.h"
#include "errors.h"

#define PGP_FINGERPRINT_BYTES 65             /* 40 hex digits (version 4), or 64; NUL */
#define PGP_KEY_MAX_CHARS ((size_t)32 << 10) /* of a key in base64: attempts hold it */
#define PGP_PLAIN_MAX_BYTES 1024u
#define PGP_VERB "pgp-encrypt" /* of this program, for that process */

struct core;

/**
 * Encrypt plain to a public key, given as base64 of its binary or armored form; the first key in it
 * counts. Appends the binary message to out (NULL: a trial); len is 1 to PGP_PLAIN_MAX_BYTES.
 * ERR_INVAL with Vault's text as far as it has one: it is no key, expired, revoked, or not for
 * encryption; ERR_TIMEOUT, ERR_IO. Coroutine: one at a time, the others wait; some 20 milliseconds.
 */
CHECKED int pgp_encrypt(struct core *c, const char *key_base64, const void *plain, size_t len,
                        struct buf *out, char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err);

/** The process: one request from stdin, its answer to stdout. Returns its exit code. */
int pgp_main(void);

/* ---- pgp.c, within that process ---- */
CHECKED int pgp_encrypt_here(const char *key_base64, const void *plain, size_t len, struct buf *out,
                             char fingerprint[PGP_FINGERPRINT_BYTES], struct err *err);

#endif
