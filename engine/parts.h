/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * parts.h - which of the 65,536 leaves of two Merkle trees differ, found out by few bytes.
 *
 * A part of level l is 2^(16-l) leaves in a row. Its value is two sums over its leaves, modulo
 * 2^32, where h is the low half of a leaf's salted hash (store_leaf_hashes):
 *     s = sum of h(i)      m = sum of i * h(i)
 * The difference of both sides' values is that of the leaves that differ alone. Where just one
 * does, it is (d, i * d): i is found at once, whatever the size of the part. A part with more than
 * one is split; of its children all but the last are sent, since the last is what remains. So a
 * leaf that differs costs about 1.5 to 2 values of 8 bytes when few differ, and fewer than one of 4
 * (a leaf's own value is s alone) when most do. The parts are those of a trie over random keys, as
 * in the analysis of tree algorithms for collisions (Capetanakis 1979; with the last child
 * subtracted: Yu and Giannakis 2007).
 *
 * How far a question splits follows from how many parts of the last answer were settled, and from
 * the questions that are left: PARTS_QUESTIONS in all. The asker chooses, the one who is asked just
 * answers, all of one moment: a leaf that changes between two answers would spoil the subtraction.
 *
 * 32 bits may err (about once in thousands of large differences). parts_rest tells it: the sum of
 * all 64 bits of the leaves that were found equal.
 *
 * Threads: none of its own; a struct parts belongs to one at a time.
 */
#ifndef LOCKSTEP_PARTS_H
#define LOCKSTEP_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "errors.h"
#include "store.h"

#define PARTS_DEPTH 16u    /* level of the leaves */
#define PARTS_QUESTIONS 7u /* at most */
#define PARTS_SUM_BYTES 8u /* s and m, each of 4 bytes, big endian */
#define PARTS_LEAF_BYTES 4u
#define PARTS_SUMS_MAX (MERKLE_LEAVES * PARTS_SUM_BYTES) /* bytes of an answer */

/* ---- sets of parts of one level, as bitmaps of MERKLE_LEAVES bits ---- */
/**
 * Append the set to out: a bitmap of 2^level bits (at least one byte), or the numbers, each of two
 * bytes, big endian, ascending, when those are shorter. ENOMEM shows in out.
 */
void parts_put(unsigned level, const uint8_t *set, struct buf *out);
/** The set of bytes that parts_put made. *np: how many. ERR_PROTO: they are no set of the level. */
CHECKED int parts_get(unsigned level, const uint8_t *data, size_t len,
                      uint8_t set[STORE_LEAVES_BYTES], size_t *np, struct err *err);

/* ---- who is asked ---- */
/**
 * Values of the children, on level below, of those parts of level that data names (parts_put): all
 * but each part's last child; of level 0, all. Appended to out. leaf: MERKLE_LEAVES hashes.
 * ERR_PROTO: no such question.
 */
CHECKED int parts_answer(const uint64_t *leaf, unsigned level, unsigned below, const uint8_t *data,
                         size_t len, struct buf *out, struct err *err);
/** The sum, modulo 2^64, of the hashes of all leaves that are not in the set. */
uint64_t parts_rest(const uint64_t *leaf, const uint8_t *set);

/* ---- who asks ---- */
struct part {
    uint32_t at;   /* number on its level */
    uint32_t s, m; /* ours less theirs */
};
struct parts {
    uint64_t leaf[MERKLE_LEAVES]; /* ours, to be filled before the first answer */
    uint8_t differ[STORE_LEAVES_BYTES];
    size_t n_differ;
    unsigned level, below; /* of the question that is due */
    unsigned asked;        /* answers taken */
    struct part *open;     /* of level: more than one of its leaves differs */
    size_t n_open;         /* 0: all is known */
};
/** ERR_NOMEM. */
CHECKED int parts_new(struct parts **pp, struct err *err);
void parts_free(struct parts *p); /* takes NULL */
/** The question that is due: append the names of its parts to out. */
void parts_ask(const struct parts *p, struct buf *out);
/**
 * Take the answer to it. Then n_open is 0 and differ holds the leaves, or another question is due.
 * ERR_PROTO: it is not of the length that was asked for; ERR_NOMEM. Nothing has changed then.
 */
CHECKED int parts_take(struct parts *p, const uint8_t *sums, size_t len, struct err *err);

#endif
