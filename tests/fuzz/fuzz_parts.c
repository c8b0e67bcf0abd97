/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_parts.c - questions and answers about parts of the tree. A question that is answered gets
 * what it asked for; whatever is answered, seven questions are the end of it.
 *
 * The first byte chooses: 0 a question (level, level below, names), else answers to questions that
 * follow from them, the bytes being used again and again.
 */
#include <assert.h>
#include <string.h>

#include "parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void question(const uint8_t *data, size_t len)
{
    static uint64_t leaf[MERKLE_LEAVES];
    uint8_t set[STORE_LEAVES_BYTES];
    struct buf out = {0};
    struct err err;
    size_t n;

    if (parts_answer(leaf, data[0] % 20, data[1], data + 2, len - 2, &out, &err) == 0) {
        assert(parts_get(data[0] % 20, data + 2, len - 2, set, &n, &err) == 0 && n > 0);
        assert(out.len > 0 && out.len <= PARTS_SUMS_MAX);
    }
    buf_free(&out);
}

static void answers(const uint8_t *data, size_t len)
{
    static uint8_t sums[PARTS_SUMS_MAX];
    struct parts *p;
    struct err err;
    unsigned n = 0;

    for (size_t i = 0; i < sizeof(sums); i++)
        sums[i] = data[i % len];
    assert(parts_new(&p, &err) == 0);
    for (; p->n_open > 0; n++) {
        size_t sent = (1u << (p->below - p->level)) - (p->level > 0),
               size = p->below == PARTS_DEPTH ? PARTS_LEAF_BYTES : PARTS_SUM_BYTES;

        assert(parts_take(p, sums, p->n_open * sent * size + 1, &err) != 0);
        assert(parts_take(p, sums, p->n_open * sent * size, &err) == 0);
    }
    assert(n <= PARTS_QUESTIONS);
    parts_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 3)
        return 0;
    if (data[0] == 0)
        question(data + 1, len - 1);
    else
        answers(data + 1, len - 1);
    return 0;
}
