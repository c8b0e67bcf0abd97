/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ceremony.h - the attempts of a key-share ceremony, apart from HTTP, so that its rule for
 * strangers can be tested.
 *
 * Times are milliseconds of the wall clock, given by the caller. Any thread.
 */
#ifndef LOCKSTEP_CEREMONY_H
#define LOCKSTEP_CEREMONY_H

#include "core_private.h"

#define ATTEMPTS_MAX 16
#define ATTEMPT_MS (10 * 60 * 1000)
#define TOKEN_ID_BYTES 26 /* "s." and 24 base62 characters: also the length of the one-time pad */
#define ADDRESS_BYTES 64

enum ceremony_kind { CEREMONY_ROOT, CEREMONY_DR_OPERATION };

struct attempt {
    enum ceremony_kind kind;
    char address[ADDRESS_BYTES]; /* who started it */
    char nonce[37];
    uint8_t otp[TOKEN_ID_BYTES];
    int64_t end_ms;
    struct shares shares;
};
struct attempt_new {
    enum ceremony_kind kind;
    const char *address, *otp, *nonce;
    int64_t now_ms;
};
struct attempt_view {
    bool started;
    unsigned progress;
    char nonce[37];
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
/** ERR_INVAL with Vault's text: pad of another length, or this address has an attempt. */
CHECKED int ceremony_start(struct ceremonies *cs, const struct attempt_new *n,
                           struct attempt_view *view, struct err *err);
void ceremony_status(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     int64_t now_ms, struct attempt_view *view);
/** End the attempt with this nonce; without one (""), the caller's own. None: fine. */
void ceremony_cancel(struct ceremonies *cs, enum ceremony_kind kind, const char *address,
                     const char *nonce, int64_t now_ms);
/** Add a share. At the threshold *whole takes all of them and otp the pad; the attempt stays, with
 * none. */
CHECKED int ceremony_share(struct ceremonies *cs, const struct share_given *g,
                           struct attempt_view *view, struct shares *whole,
                           uint8_t otp[TOKEN_ID_BYTES], struct err *err);

#endif
