/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * jwt.h - the response-wrapping JWT: ES512 over P-521, claims accessor, addr, exp, iat, jti, nbf,
 * type. RFC 7515, 7518.
 */
#ifndef LOCKSTEP_JWT_H
#define LOCKSTEP_JWT_H

#include <stdint.h>
#include "buf.h"
#include "errors.h"

struct jwt_claims {
    char jti[128], accessor[64], addr[256], type[32];
    int64_t iat, exp, nbf; /* seconds */
};
CHECKED int jwt_key_new(struct buf *key_pem, struct err *err);
CHECKED int jwt_sign(const char *key_pem, const struct jwt_claims *c, struct buf *out,
                     struct err *err);
/** Parse without checking the signature. ERR_INVAL "wrapping token could not be parsed", "could not
 * validate type claim", ... */
CHECKED int jwt_parse(const char *token, struct jwt_claims *c, struct err *err);
/** Parse and check signature (key: private or public PEM) and type. ERR_INVAL "wrapping token
 * signature could not be validated". Times are the caller's. */
CHECKED int jwt_verify(const char *token, const char *key_pem, struct jwt_claims *c,
                       struct err *err);

#endif
