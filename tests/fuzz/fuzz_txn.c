/* SPDX-License-Identifier: GPL-3.0-or-later */
/* fuzz_txn.c - any bytes as a transaction; what is accepted has records within their bounds. */
#include <stdlib.h>
#include <string.h>

#include "txn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct span {
    const uint8_t *from, *to;
    size_t n;
};

static int each(void *arg, const struct rec *r, struct err *err)
{
    struct span *s = arg;

    (void)err;
    s->n++;
    if (r->kind == REC_PUT || r->kind == REC_DELETE) {
        const uint8_t *key = (const uint8_t *)r->key;
        if (r->key_len == 0 || r->key_len > TXN_KEY_MAX_BYTES || key < s->from ||
            key + r->key_len > s->to || memchr(key, 0, r->key_len) != NULL)
            abort();
    }
    if (r->kind == REC_PUT && (r->value < s->from || r->value + r->value_len > s->to))
        abort();
    if (r->kind == REC_EPOCH && memchr(r->epoch.member, 0, sizeof(r->epoch.member)) == NULL)
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span s = {data, data + size, 0};
    struct err err;

    if (txn_each(data, size, each, &s, &err) == 0 && s.n == 0)
        abort();
    return 0;
}
