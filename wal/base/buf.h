/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * buf.h - a growing byte buffer with a sticky failure, and an arena.
 *
 * A buf that ran out of memory drops what it holds, keeps failed set and ignores further appends,
 * so a builder checks once, at the end. One thread at a time. Zero-initialise to start ({0}).
 */
#ifndef LOCKSTEP_BUF_H
#define LOCKSTEP_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "errors.h"

struct buf {
    uint8_t *data; /* owned; always followed by a NUL when non-NULL, for use as text */
    size_t len;    /* bytes */
    size_t cap;    /* bytes */
    bool failed;   /* an allocation failed */
    bool secret;   /* wipe before every free or move */
};

void buf_add(struct buf *b, const void *data, size_t len);
void buf_adds(struct buf *b, const char *text);
void buf_addc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
/** Room for len more bytes; returns where they go (len is not advanced) or NULL. */
uint8_t *buf_reserve(struct buf *b, size_t len);
/** len bytes of what was reserved last have been written: they belong to it now, and a NUL follows
 * them. */
void buf_filled(struct buf *b, size_t len);
void buf_clear(struct buf *b); /* keeps the memory, len = 0, failed = false */
void buf_free(struct buf *b);  /* wipes when secret; back to {0} */
/** 0, or ERR_NOMEM when an append failed. */
CHECKED int buf_check(const struct buf *b, struct err *err);
/** The text, never NULL. */
const char *buf_str(const struct buf *b);

/* An arena: many small allocations dropped as a whole. Memory is wiped when freed. */
struct arena;
struct arena *arena_new(size_t chunk_bytes);        /* NULL: out of memory */
void arena_free(struct arena *a);                   /* takes NULL */
void arena_reset(struct arena *a);                  /* empty again, with the memory of one chunk */
void *arena_alloc(struct arena *a, size_t len);     /* zeroed, 16-aligned; NULL: out of memory */
char *arena_strdup(struct arena *a, const char *s); /* NULL: out of memory */
char *arena_strndup(struct arena *a, const char *s, size_t len);
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
