/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mp_read.h - a cursor over foreign msgpack bytes, for the few shapes that segments, pages and the
 * local file use.
 *
 * Nothing is allocated and nothing is believed: a count or a length beyond the bytes that are there
 * is refused by the read that meets it. Every function returns false at the first wrong byte and
 * leaves the cursor of no use.
 */
#ifndef LOCKSTEP_MP_READ_H
#define LOCKSTEP_MP_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mp_cursor {
    const uint8_t *at, *end;
};

static inline bool mp_be(struct mp_cursor *c, size_t bytes, uint64_t *out)
{
    if ((size_t)(c->end - c->at) < bytes)
        return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++)
        *out = *out << 8 | *c->at++;
    return true;
}

static inline bool mp_tag(struct mp_cursor *c, uint8_t *tag)
{
    if (c->at == c->end)
        return false;
    *tag = *c->at++;
    return true;
}

static inline bool mp_bytes(struct mp_cursor *c, uint64_t len, const uint8_t **out)
{
    if ((uint64_t)(c->end - c->at) < len)
        return false;
    *out = c->at;
    c->at += len;
    return true;
}

static inline bool mp_uint(struct mp_cursor *c, uint64_t *out)
{
    uint8_t tag;

    if (!mp_tag(c, &tag))
        return false;
    if (tag < 0x80) {
        *out = tag;
        return true;
    }
    return tag >= 0xcc && tag <= 0xcf && mp_be(c, (size_t)1 << (tag - 0xcc), out);
}

static inline bool mp_bool(struct mp_cursor *c, bool *out)
{
    uint8_t tag;

    if (!mp_tag(c, &tag) || (tag != 0xc2 && tag != 0xc3))
        return false;
    *out = tag == 0xc3;
    return true;
}

static inline bool mp_array(struct mp_cursor *c, uint64_t *count)
{
    uint8_t tag;

    if (!mp_tag(c, &tag))
        return false;
    if ((tag & 0xf0) == 0x90) {
        *count = tag & 0x0f;
        return true;
    }
    return (tag == 0xdc || tag == 0xdd) && mp_be(c, tag == 0xdc ? 2 : 4, count);
}

static inline bool mp_map(struct mp_cursor *c, uint64_t *count)
{
    uint8_t tag;

    if (!mp_tag(c, &tag))
        return false;
    if ((tag & 0xf0) == 0x80) {
        *count = tag & 0x0f;
        return true;
    }
    return (tag == 0xde || tag == 0xdf) && mp_be(c, tag == 0xde ? 2 : 4, count);
}

static inline bool mp_str(struct mp_cursor *c, const char **out, size_t *len)
{
    const uint8_t *bytes;
    uint64_t n;
    uint8_t tag;

    if (!mp_tag(c, &tag))
        return false;
    if ((tag & 0xe0) == 0xa0)
        n = tag & 0x1f;
    else if (tag < 0xd9 || tag > 0xdb || !mp_be(c, (size_t)1 << (tag - 0xd9), &n))
        return false;
    if (!mp_bytes(c, n, &bytes))
        return false;
    *out = (const char *)bytes;
    *len = (size_t)n;
    return true;
}

static inline bool mp_bin(struct mp_cursor *c, const uint8_t **out, size_t *len)
{
    uint64_t n;
    uint8_t tag;

    if (!mp_tag(c, &tag) || tag < 0xc4 || tag > 0xc6 || !mp_be(c, (size_t)1 << (tag - 0xc4), &n) ||
        !mp_bytes(c, n, out))
        return false;
    *len = (size_t)n;
    return true;
}

#endif
