/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * time_private.h - units of the times in the engine. Monotonic times are in ns, wall times in ms.
 */
#ifndef LOCKSTEP_TIME_PRIVATE_H
#define LOCKSTEP_TIME_PRIVATE_H

#include <stdint.h>

#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_S ((int64_t)1000000000)

#endif
