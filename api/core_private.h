/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * core_private.h - what the files that make up the core share among themselves.
 */
#ifndef LOCKSTEP_CORE_PRIVATE_H
#define LOCKSTEP_CORE_PRIVATE_H

#include "core.h"

/* latch.c */
struct latches *latches_new(struct env *env); /* NULL: out of memory */
void latches_free(struct latches *l);         /* takes NULL; nobody holds or waits */

#endif
