/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * seg_private.h - looking at a frame before all of it is there.
 */
#ifndef LOCKSTEP_SEG_PRIVATE_H
#define LOCKSTEP_SEG_PRIVATE_H

#include "wal.h"

enum seg_peek {
    SEG_PEEK_NONE,  /* not the start of a segment */
    SEG_PEEK_SHORT, /* may be one: more bytes are needed (*framep: how many in all, 0: not yet
                       known) */
    SEG_PEEK_WHOLE  /* *framep bytes are there; the checksum is not looked at */
};
enum seg_peek seg_peek(const void *data, size_t len, size_t *framep);

#endif
