/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * trace.c - see trace.h.
 */
#include "trace.h"

void (*trace_hook)(enum trace_point p, uint64_t first, uint64_t last);
