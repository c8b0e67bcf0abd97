/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_page.c - pages of a primary: what is taken for a page has its entries in order, within its
 * last key, and none newer than itself.
 */
#include <assert.h>
#include <string.h>

#include "store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct store_page p = {0};
    struct err err;

    if (store_page_parse(data, len, &p, &err) != 0)
        return 0;
    assert(p.entries >= data && p.entries <= p.end && p.end == data + len);
    assert(p.last_len == 0 || memchr(p.last, '\0', p.last_len) == NULL);
    assert(p.done || p.last_len > 0);
    assert(p.count <= len);
    return 0;
}
