/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ceremony.h - the attempts of a key-share ceremony, apart from HTTP, so that its rule for
 * strangers can be tested.
 *
 * Anybody may start an attempt, so no stranger may stand in the way of the key holders
 * (CVE-2026-5807), and each of them uses Vault's CLI as it is, from his own host.
 *
 * An attempt has two nonces. The true one is told to who started it (by address), and passed on by
 * him: who gives a share under it counts as a key holder, and may cancel. The open one is what
 * anybody else sees in status while there is exactly one attempt, so that a second holder's CLI,
 * which asks for the status and prompts, can give a share; with several, they see that one is
 * started, and need the true nonce (-nonce). Shares cannot be judged one by one. So those under the
 * open nonce are kept apart, OPEN_SHARES_MAX of them, and tried in every combination with the
 * others; what a stranger gives spoils nothing, and those under the true nonce never need them.
 *
 * Each client address has one attempt, and each network (an IPv4 /24, an IPv6 /48) NETWORK_MAX of
 * ATTEMPTS_MAX, for ATTEMPT_MS each. When there is no room, a network gives some to one that has
 * less: the one with the most, of it one without a share, the oldest. An attempt with a share goes
 * only for a network that has two less. So a flood costs its own networks, an IPv4 network alone
 * cannot flood itself, and to shut others out it takes garbage shares from ATTEMPTS_MAX networks.
 * Who comes from the holder's own address (through a proxy that hides addresses) is the holder.
 *
 * Times are milliseconds of the wall clock, given by the caller. Any thread.
 */
#ifndef LOCKSTEP_CEREMONY_H
#define LOCKSTEP_CEREMONY_H

#include "core_private.h"

#define ATTEMPTS_MAX 320
#define NETWORK_MAX 256   /* attempts of one: every address of a /24 */
#define OPEN_SHARES_MAX 8 /* kept of an attempt: 256 combinations at most */
#define ATTEMPT_MS (10 * 60 * 1000)
#define TOKEN_ID_BYTES 26 /* "s." and 24 base62 characters: also the length of the one-time pad */
#define ADDRESS_BYTES 64

enum ceremony_kind { CEREMONY_ROOT, CEREMONY_DR_OPERATION };

struct attempt {
    enum ceremony_kind kind;
    char address[ADDRESS_BYTES]; /* who started it */
    unsigned neighbours;         /* attempts of its network, itself among them */
    char nonce[37], open_nonce[37];
    uint8_t *otp;  /* TOKEN_ID_BYTES, secure memory */
    char *pgp_key; /* in place of the pad; NULL: the pad */
    char fingerprint[PGP_FINGERPRINT_BYTES];
    int64_t end_ms;
    struct shares shares;                         /* under the true nonce */
    struct shares open;                           /* under the other one, oldest first, */
    char open_by[OPEN_SHARES_MAX][ADDRESS_BYTES]; /* and from whom */
};
struct attempt_new {
    enum ceremony_kind kind;
    const char *address, *otp, *nonce, *open_nonce;
    int64_t now_ms;
    const char *pgp_key, *fingerprint; /* "" for the pad, or NULL */
};
struct attempt_view {
    bool started;
    unsigned progress;
    char nonce[37];                          /* the one that the caller may know, or gave */
    char fingerprint[PGP_FINGERPRINT_BYTES]; /* of the PGP key; "": a pad */
};
struct share_given {
    enum ceremony_kind kind;
    const char *address, *nonce;
    const uint8_t *part;
    size_t len;
    unsigned threshold;
    int64_t now_ms;
};

/** The address that owns an attempt: an IPv4 address, or the /64 of an IPv6 one. */
void ceremony_address(const char *ip, char out[ADDRESS_BYTES]);
/** ERR_INVAL with Vault's text: pad of another length, this address has an attempt, or no room. */
CHECKED int ceremony_start(struct ceremonies *cs, const struct attempt_new *n,
                           struct attempt_view *view, struct err *err);
/** What this address may see: its own attempt, else that there is one. */
void ceremony_status(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     int64_t now_ms, struct attempt_view *view);
/** End the attempt with this true nonce; without one (""), the caller's own. None: fine. */
void ceremony_cancel(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     const char *nonce, int64_t now_ms);
/**
 * Add a share. When there are enough, *whole has them, and all of its first *surep belong to the
 * set that may open the barrier; of the rest as many as are missing, whichever. Those given under
 * the true nonce are enough: the attempt keeps none of them. Else it keeps all. ERR_INVAL with
 * Vault's text.
 */
CHECKED int ceremony_share(struct ceremonies *cs, const struct share_given *g,
                           struct attempt_view *view, struct shares *whole, unsigned *surep,
                           struct err *err);
/** A set of shares was found to be good: the attempt (either nonce) ends, and its pad is given, and
 * in *pgp_keyp, for the caller to free, its PGP key (NULL: the pad counts). -1: it ended meanwhile.
 */
CHECKED int ceremony_finish(struct ceremonies *cs, enum ceremony_kind kind, const char *nonce,
                            uint8_t otp[TOKEN_ID_BYTES], char **pgp_keyp, int64_t now_ms,
                            struct err *err);

#endif
