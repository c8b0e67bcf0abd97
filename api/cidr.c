/* SPDX-License-Identifier: GPL-3.0-or-later */
/* cidr.c - see cidr.h. Addresses of IPv4 are kept as ::ffff:a.b.c.d. */
#include "cidr.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MAPPED_BITS 96
#define SHOWN "%.60s" /* of what a caller wrote, in an error */

struct block {
    uint8_t address[16];
    unsigned bits;
    bool has_bits; /* written with a slash */
};

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const struct block *b)
{
    return memcmp(b->address, mapped, sizeof(mapped)) == 0;
}

static bool parse_bits(const char *s, unsigned max, unsigned *outp)
{
    unsigned n = 0;

    if (*s == '\0' || (s[0] == '0' && s[1] != '\0'))
        return false;
    for (; *s != '\0'; s++) {
        if (*s < '0' || *s > '9' || (n = n * 10 + (unsigned)(*s - '0')) > max)
            return false;
    }
    *outp = n;
    return true;
}

static bool block_parse(const char *text, struct block *b)
{
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    char address[INET6_ADDRSTRLEN];
    bool v4;

    memset(b, 0, sizeof(*b));
    if (len >= sizeof(address))
        return false;
    memcpy(address, text, len);
    address[len] = '\0';
    v4 = inet_pton(AF_INET, address, b->address + sizeof(mapped)) == 1;
    if (v4)
        memcpy(b->address, mapped, sizeof(mapped));
    else if (inet_pton(AF_INET6, address, b->address) != 1)
        return false;
    b->has_bits = slash != NULL;
    b->bits = v4 ? 32 : 128;
    if (b->has_bits && !parse_bits(slash + 1, b->bits, &b->bits))
        return false;
    b->bits += v4 ? MAPPED_BITS : 0;
    return true;
}

static bool holds(const struct block *outer, const struct block *inner)
{
    unsigned bytes = outer->bits / 8, rest = outer->bits % 8;

    if (inner->bits < outer->bits || (is_v4(inner) && outer->bits < MAPPED_BITS))
        return false;
    if (memcmp(outer->address, inner->address, bytes) != 0)
        return false;
    return rest == 0 || ((outer->address[bytes] ^ inner->address[bytes]) >> (8 - rest)) == 0;
}

static bool held(const json_t *list, const struct block *inner)
{
    struct block outer;
    size_t i;
    json_t *e;

    json_array_foreach((json_t *)list, i, e) if (json_is_string(e) &&
                                                 block_parse(json_string_value(e), &outer) &&
                                                 holds(&outer, inner)) return true;
    return false;
}

static json_t *shown(const struct block *b)
{
    char address[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 8];
    bool v4 = is_v4(b) && b->bits >= MAPPED_BITS;

    if (inet_ntop(v4 ? AF_INET : AF_INET6, b->address + (v4 ? sizeof(mapped) : 0), address,
                  sizeof(address)) == NULL)
        return NULL;
    if (b->bits == 128)
        return json_string(address);
    snprintf(text, sizeof(text), "%s/%u", address, b->bits - (v4 ? MAPPED_BITS : 0));
    return json_string(text);
}

int cidrs_parse(const json_t *list, json_t **outp, struct err *err)
{
    json_t *out = json_array(), *e;
    struct block b;
    size_t i;

    *outp = NULL;
    if (out == NULL)
        return err_set(err, ERR_NOMEM, 0, "addresses");
    json_array_foreach((json_t *)list, i, e)
    {
        if (!block_parse(json_string_value(e), &b)) {
            err_set(err, ERR_INVAL, 0,
                    "error parsing address \"" SHOWN "\": it is no IPv4 or IPv6 address or block",
                    json_string_value(e));
            json_decref(out);
            return -1;
        }
        if (json_array_append_new(out, shown(&b)) != 0) {
            json_decref(out);
            return err_set(err, ERR_NOMEM, 0, "addresses");
        }
    }
    *outp = out;
    return 0;
}

int cidrs_check(const json_t *list, struct err *err)
{
    struct block b;
    size_t i;
    json_t *e;

    json_array_foreach((json_t *)list, i,
                       e) if (!block_parse(json_string_value(e), &b) ||
                              !b.has_bits) return err_set(err, ERR_INVAL, 0,
                                                          "invalid CIDR address: " SHOWN,
                                                          json_string_value(e));
    return 0;
}

bool cidrs_hold(const json_t *list, const char *address)
{
    struct block b;

    if (json_array_size(list) == 0)
        return true;
    return block_parse(address, &b) && held(list, &b);
}

bool cidrs_within(const json_t *list, const json_t *outer)
{
    struct block b;
    size_t i;
    json_t *e;

    if (json_array_size(outer) == 0)
        return true;
    json_array_foreach((json_t *)list, i, e) if (!block_parse(json_string_value(e), &b) ||
                                                 !held(outer, &b)) return false;
    return true;
}
