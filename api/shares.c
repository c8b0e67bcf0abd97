/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * shares.c - key shares collected for one purpose, in secure memory, wiped when dropped.
 */
#include <openssl/crypto.h>
#include <string.h>

#include "core_private.h"

int shares_add(struct shares *s, const uint8_t *part, size_t len)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->len[i] == len && CRYPTO_memcmp(s->part[i], part, len) == 0)
            return 0;
    if (s->n == SHAMIR_SHARES_MAX)
        return -1;
    s->part[s->n] = OPENSSL_secure_malloc(len);
    if (s->part[s->n] == NULL)
        return -1;
    memcpy(s->part[s->n], part, len);
    s->len[s->n++] = len;
    return 1;
}

void shares_clear(struct shares *s)
{
    for (unsigned i = 0; i < s->n; i++)
        OPENSSL_secure_clear_free(s->part[i], s->len[i]);
    memset(s, 0, sizeof(*s));
}
