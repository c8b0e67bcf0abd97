/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * env.h - clock and randomness behind tables of functions, so that a simulation owns both.
 *
 * env_real() uses the kernel; a simulation gives its own. All functions may be called by any
 * thread.
 */
#ifndef LOCKSTEP_ENV_H
#define LOCKSTEP_ENV_H

#include <stddef.h>
#include <stdint.h>

struct env;

struct env_ops {
    int64_t (*wall_ms)(struct env *); /* milliseconds since 1970, may jump */
    int64_t (*mono_ns)(struct env *); /* monotonic nanoseconds */
    void (*random)(struct env *, void *out,
                   size_t len); /* cryptographic; ends the process if it cannot */
};

struct env {
    const struct env_ops *ops;
};

struct env *env_real(void); /* static, not to be freed */

static inline int64_t env_wall_ms(struct env *e)
{
    return e->ops->wall_ms(e);
}
static inline int64_t env_mono_ns(struct env *e)
{
    return e->ops->mono_ns(e);
}
static inline void env_random(struct env *e, void *out, size_t len)
{
    e->ops->random(e, out, len);
}

#endif
