/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_link_msg.c - frames of a peer: whatever decodes must encode to bytes that decode to the same
 * message.
 */
#include <assert.h>
#include <string.h>

#include "link_msg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct link_msg a, b;
    struct buf first = {0}, second = {0};
    struct err err;

    if (link_msg_decode(data, len, &a, &err) != 0)
        return 0;
    assert(link_msg_encode(&a, &first, &err) == 0);
    buf_add(&first, a.tail, a.tail_len);
    assert(link_msg_decode(first.data, first.len, &b, &err) == 0);
    assert(a.type == b.type && a.tail_len == b.tail_len);
    assert(link_msg_encode(&b, &second, &err) == 0);
    buf_add(&second, b.tail, b.tail_len);
    assert(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    buf_free(&first);
    buf_free(&second);
    return 0;
}
