/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * parts.c - sums of parts of the tree: questions, answers, and what follows from them.
 */
#include "parts.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LEVEL 3u /* eight parts at first: more would be dear for one leaf, fewer slow */

static bool in_set(const uint8_t *set, uint32_t i)
{
    return (set[i / 8] >> (i % 8) & 1) != 0;
}

static void add_to_set(uint8_t *set, uint32_t i)
{
    set[i / 8] |= (uint8_t)(1u << (i % 8));
}

static size_t bitmap_bytes(unsigned level)
{
    return level < 3 ? 1 : (size_t)1 << (level - 3);
}

static size_t count_set(const uint8_t *set, size_t bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++)
        n += (size_t)__builtin_popcount(set[i]);
    return n;
}

void parts_put(unsigned level, const uint8_t *set, struct buf *out)
{
    const size_t whole = bitmap_bytes(level), n = count_set(set, whole);

    if (2 * n >= whole) {
        buf_add(out, set, whole);
        return;
    }
    for (uint32_t i = 0; i < 1u << level; i++) {
        uint16_t be = htobe16((uint16_t)i);

        if (in_set(set, i))
            buf_add(out, &be, sizeof(be));
    }
}

int parts_get(unsigned level, const uint8_t *data, size_t len, uint8_t set[STORE_LEAVES_BYTES],
              size_t *np, struct err *err)
{
    const uint32_t count = 1u << level;
    bool good = len > 0 && len <= bitmap_bytes(level);

    memset(set, 0, STORE_LEAVES_BYTES);
    *np = 0;
    if (good && len == bitmap_bytes(level)) {
        memcpy(set, data, len);
        *np = count_set(set, len);
        good = *np > 0 && (count >= 8 || set[0] >> count == 0);
    } else if (good) {
        uint32_t least = 0;

        good = len % 2 == 0;
        for (size_t i = 0; good && i < len; i += 2) {
            uint32_t v = (uint32_t)data[i] << 8 | data[i + 1];

            good = v >= least && v < count;
            if (good)
                add_to_set(set, v);
            least = v + 1;
        }
        *np = len / 2;
    }
    if (!good)
        return err_set(err, ERR_PROTO, 0, "%zu bytes name no parts of level %u of the tree", len,
                       level);
    return 0;
}

/* Of part i of a level. */
static struct part value_of(const uint64_t *leaf, unsigned level, uint32_t i)
{
    const uint32_t span = MERKLE_LEAVES >> level;
    struct part v = {.at = i};

    for (uint32_t l = i * span; l < (i + 1) * span; l++) {
        v.s += (uint32_t)leaf[l];
        v.m += (uint32_t)leaf[l] * l;
    }
    return v;
}

static size_t value_bytes(unsigned level)
{
    return level == PARTS_DEPTH ? PARTS_LEAF_BYTES : PARTS_SUM_BYTES;
}

int parts_answer(const uint64_t *leaf, unsigned level, unsigned below, const uint8_t *data,
                 size_t len, struct buf *out, struct err *err)
{
    uint8_t set[STORE_LEAVES_BYTES];
    size_t n;

    if (level >= below || below > PARTS_DEPTH)
        return err_set(err, ERR_PROTO, 0, "level %u of the tree is not below level %u", below,
                       level);
    if (parts_get(level, data, len, set, &n, err) != 0)
        return -1;
    for (uint32_t i = 0; i < 1u << level; i++) {
        const uint32_t children = 1u << (below - level), sent = children - (level > 0);

        for (uint32_t c = 0; in_set(set, i) && c < sent; c++) {
            struct part v = value_of(leaf, below, i * children + c);
            uint32_t be[2] = {htobe32(v.s), htobe32(v.m)};

            buf_add(out, be, value_bytes(below));
        }
    }
    return buf_check(out, err);
}

uint64_t parts_rest(const uint64_t *leaf, const uint8_t *set)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < MERKLE_LEAVES; i++)
        if (!in_set(set, i))
            sum += leaf[i];
    return sum;
}

/* ---- who asks ---- */
int parts_new(struct parts **pp, struct err *err)
{
    struct parts *p = calloc(1, sizeof(*p));

    *pp = NULL;
    if (p != NULL)
        p->open = calloc(1, sizeof(*p->open)); /* level 0 is one part */
    if (p == NULL || p->open == NULL) {
        parts_free(p);
        return err_set(err, ERR_NOMEM, 0, "parts of the tree");
    }
    p->n_open = 1;
    p->below = FIRST_LEVEL;
    *pp = p;
    return 0;
}

void parts_free(struct parts *p)
{
    if (p == NULL)
        return;
    free(p->open);
    free(p);
}

void parts_ask(const struct parts *p, struct buf *out)
{
    uint8_t set[STORE_LEAVES_BYTES] = {0};

    for (size_t i = 0; i < p->n_open; i++)
        add_to_set(set, p->open[i].at);
    parts_put(p->level, set, out);
}

/* When just one leaf differs by d.s: its number. Two numbers may fit when d.s is a multiple of a
 * large power of two; then it is split as if it were two leaves. */
static bool one_leaf(const struct part *d, unsigned level, uint32_t *leafp)
{
    const uint32_t span = MERKLE_LEAVES >> level, first = d->at * span;
    unsigned found = 0;

    for (uint32_t l = first; d->s != 0 && l < first + span; l++) {
        if (l * d->s == d->m) {
            *leafp = l;
            found++;
        }
    }
    return found == 1;
}

/* What a child's difference says: settled, or one more part to split. */
static void judge(struct parts *p, const struct part *d, struct part *open, size_t *n_open)
{
    uint32_t leaf = d->at;
    bool equal = d->s == 0 && (p->below == PARTS_DEPTH || d->m == 0);

    if (equal)
        return;
    if (p->below == PARTS_DEPTH || one_leaf(d, p->below, &leaf)) {
        add_to_set(p->differ, leaf);
        p->n_differ++;
    } else
        open[(*n_open)++] = *d;
}

/* Two children each are cheapest while about two leaves in each part differ; more where next to no
 * part of the last answer was settled, by as many parts as that is known of, and where the
 * questions run out. */
static unsigned next_level(const struct parts *p, size_t told)
{
    size_t settled = told - p->n_open + 1;
    unsigned step = 1u + (settled * 8 <= told) + (settled * 32 <= told) + (settled * 256 <= told);
    unsigned least = (PARTS_DEPTH - p->level) / (PARTS_QUESTIONS - p->asked);
    unsigned below = p->level + (step > least ? step : least);

    return step > 1 && below + 1 >= PARTS_DEPTH ? PARTS_DEPTH : below;
}

int parts_take(struct parts *p, const uint8_t *sums, size_t len, struct err *err)
{
    const uint32_t children = 1u << (p->below - p->level), sent = children - (p->level > 0);
    const size_t size = value_bytes(p->below), told = p->n_open * children;
    struct part *open;
    size_t n = 0;

    if (len != p->n_open * sent * size)
        return err_set(err, ERR_PROTO, 0, "%zu bytes of sums of the tree, asked for %zu", len,
                       p->n_open * sent * size);
    open = calloc(told + 1, sizeof(*open));
    if (open == NULL)
        return err_set(err, ERR_NOMEM, 0, "parts of the tree");
    for (size_t i = 0; i < p->n_open; i++) {
        struct part rest = p->open[i];

        for (uint32_t c = 0; c < children; c++) {
            struct part d = rest;

            d.at = p->open[i].at * children + c;
            if (c < sent) {
                uint32_t be[2] = {0};

                memcpy(be, sums, size);
                sums += size;
                d = value_of(p->leaf, p->below, d.at);
                d.s -= be32toh(be[0]);
                d.m -= be32toh(be[1]);
                rest.s -= d.s;
                rest.m -= d.m;
            }
            judge(p, &d, open, &n);
        }
    }
    free(p->open);
    p->open = open;
    p->n_open = n;
    p->level = p->below;
    p->asked++;
    if (n > 0)
        p->below = next_level(p, told);
    return 0;
}
