/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wall_fixture.h - the machine's environment, but for the wall clock: that is what the test says.
 */
#ifndef LOCKSTEP_WALL_FIXTURE_H
#define LOCKSTEP_WALL_FIXTURE_H

#include <stdatomic.h>

#include "env.h"

static _Atomic int64_t wall = 1543000000000; /* ms since 1970 */

static int64_t told_wall(struct env *env)
{
    (void)env;
    return atomic_load(&wall);
}

static int64_t real_mono(struct env *env)
{
    (void)env;
    return env_mono_ns(env_real());
}

static void real_random(struct env *env, void *out, size_t len)
{
    (void)env;
    env_random(env_real(), out, len);
}

static const struct env_ops wall_ops = {told_wall, real_mono, real_random};
static struct env wall_env = {&wall_ops};

#endif
