/* SPDX-License-Identifier: GPL-3.0-or-later */
/* bad_row.h - change rows of a store behind its back, as bad memory or a bad program would. */
#ifndef LOCKSTEP_BAD_ROW_H
#define LOCKSTEP_BAD_ROW_H

#include "store.h"

/** Flip the last bit of the first row with the prefix; the tree is left as it is. Any thread. */
CHECKED int bad_row_flip(struct store *s, const char *prefix, struct err *err);
/** A row that no record wrote; row and tree agree with each other. The writing thread. */
CHECKED int bad_row_add(struct store *s, const char *key, struct err *err);

#endif
