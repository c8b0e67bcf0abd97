/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * buf.c - the growing buffer and the arena. Once a buf has failed it holds nothing until it is
 * cleared.
 */
#include "buf.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop(struct buf *b)
{
    if (b->data != NULL && b->secret)
        OPENSSL_cleanse(b->data, b->cap);
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

/* A secret is moved by hand, so that realloc leaves no copy of it behind. */
static uint8_t *grow(struct buf *b, size_t cap)
{
    uint8_t *data;

    if (!b->secret)
        return realloc(b->data, cap);
    data = malloc(cap);
    if (data != NULL && b->data != NULL) {
        memcpy(data, b->data, b->len);
        OPENSSL_cleanse(b->data, b->cap);
        free(b->data);
    }
    return data;
}

uint8_t *buf_reserve(struct buf *b, size_t len)
{
    size_t want;
    uint8_t *data;

    if (b->failed)
        return NULL;
    if (len > SIZE_MAX / 4 - b->len)
        goto fail;
    want = b->len + len + 1; /* the NUL */
    if (want > b->cap) {
        size_t cap = b->cap == 0 ? 64 : b->cap;
        while (cap < want)
            cap *= 2;
        data = grow(b, cap);
        if (data == NULL)
            goto fail;
        b->data = data;
        b->cap = cap;
    }
    b->data[b->len + len] = '\0';
    return b->data + b->len;
fail:
    drop(b);
    b->failed = true;
    return NULL;
}

void buf_filled(struct buf *b, size_t len)
{
    assert(!b->failed && len < b->cap - b->len);
    b->len += len;
    b->data[b->len] = '\0';
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    uint8_t *to = buf_reserve(b, len);

    if (to == NULL)
        return;
    if (len > 0)
        memcpy(to, data, len);
    b->len += len;
}

void buf_adds(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    size_t room;
    va_list again;
    int n;

    if (buf_reserve(b, 63) == NULL)
        return;
    room = b->cap - b->len;
    va_copy(again, ap);
    n = vsnprintf((char *)b->data + b->len, room, fmt, ap);
    assert(n >= 0);
    if ((size_t)n >= room && buf_reserve(b, (size_t)n) != NULL)
        vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    if (!b->failed)
        b->len += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_clear(struct buf *b)
{
    if (b->data != NULL) {
        if (b->secret)
            OPENSSL_cleanse(b->data, b->len);
        b->data[0] = '\0';
    }
    b->len = 0;
    b->failed = false;
}

void buf_free(struct buf *b)
{
    drop(b);
    *b = (struct buf){0};
}

int buf_check(const struct buf *b, struct err *err)
{
    return b->failed ? err_set(err, ERR_NOMEM, 0, "out of memory for a buffer") : 0;
}

const char *buf_str(const struct buf *b)
{
    return b->data != NULL ? (const char *)b->data : "";
}

/* ---- arena ---- */

struct chunk {
    struct chunk *next;
    size_t cap, used;
    _Alignas(16) uint8_t data[];
};
struct arena {
    struct chunk *chunks;
    size_t chunk_bytes;
};

struct arena *arena_new(size_t chunk_bytes)
{
    struct arena *a = calloc(1, sizeof(*a));

    if (a != NULL)
        a->chunk_bytes = chunk_bytes < 256 ? 256 : (chunk_bytes + 15) & ~(size_t)15;
    return a;
}

static void chunk_free(struct chunk *c)
{
    OPENSSL_cleanse(c->data, c->used);
    free(c);
}

void arena_free(struct arena *a)
{
    if (a == NULL)
        return;
    while (a->chunks != NULL) {
        struct chunk *c = a->chunks;
        a->chunks = c->next;
        chunk_free(c);
    }
    free(a);
}

void arena_reset(struct arena *a)
{
    struct chunk *c = a->chunks;

    while (c != NULL && c->next != NULL) {
        a->chunks = c->next;
        chunk_free(c);
        c = a->chunks;
    }
    if (c != NULL && c->cap > a->chunk_bytes) {
        chunk_free(c);
        a->chunks = NULL;
    } else if (c != NULL) {
        OPENSSL_cleanse(c->data, c->used); /* to zeros, as arena_alloc promises */
        c->used = 0;
    }
}

void *arena_alloc(struct arena *a, size_t len)
{
    struct chunk *c = a->chunks;
    size_t need;
    void *p;

    if (len > SIZE_MAX / 4)
        return NULL;
    need = (len + 15) & ~(size_t)15;
    if (c == NULL || c->cap - c->used < need) {
        size_t cap = need > a->chunk_bytes ? need : a->chunk_bytes;
        c = calloc(1, sizeof(*c) + cap);
        if (c == NULL)
            return NULL;
        c->cap = cap;
        c->next = a->chunks;
        a->chunks = c;
    }
    p = c->data + c->used;
    c->used += need;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
    char *p = arena_alloc(a, len + 1);

    if (p != NULL && len > 0)
        memcpy(p, s, len);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    struct chunk *c = a->chunks;
    size_t room = c == NULL ? 0 : c->cap - c->used;
    char *p = room == 0 ? NULL : (char *)c->data + c->used;
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(p, room, fmt, again); /* where it goes, if it fits */
    va_end(again);
    if (n < 0) {
        p = NULL;
    } else if ((size_t)n < room) {
        p = arena_alloc(a, (size_t)n + 1); /* the same place */
    } else {
        if (p != NULL)
            OPENSSL_cleanse(p, room);
        p = arena_alloc(a, (size_t)n + 1);
        if (p != NULL)
            vsnprintf(p, (size_t)n + 1, fmt, ap);
    }
    va_end(ap);
    return p;
}
