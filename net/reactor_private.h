/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * reactor_private.h - the ring behind a reactor, for the sockets of this folder.
 *
 * An op is embedded in its object and belongs to the ring from its submission to its last
 * completion (the one without IORING_CQE_F_MORE). Completions run on the reactor thread, never
 * inside a submitting call.
 */
#ifndef LOCKSTEP_REACTOR_PRIVATE_H
#define LOCKSTEP_REACTOR_PRIVATE_H

#include <liburing.h>
#include <stddef.h>

#include "reactor.h"

#define REACTOR_BUFFER_BYTES 16384u /* one TLS record */
#define REACTOR_BUFFERS 512u        /* power of two */
#define REACTOR_BUFFER_GROUP 1

struct reactor_op {
    void (*done)(struct reactor_op *op, int res, unsigned flags); /* flags: IORING_CQE_F_* */
};

/** A zeroed SQE bound to op; NULL only when the kernel takes none (the caller fails its object).
 * Reactor thread. */
struct io_uring_sqe *reactor_sqe(struct reactor *r, struct reactor_op *op);
/** Bytes of a provided buffer that a completion names; give it back when eaten. */
const uint8_t *reactor_buffer(struct reactor *r, unsigned flags);
void reactor_buffer_return(struct reactor *r, unsigned flags);
struct logger *reactor_log(struct reactor *r);
struct env *reactor_env(struct reactor *r);
/** The thread was started and not stopped. */
bool reactor_running(const struct reactor *r);
/** Work that is under way keeps the thread alive after reactor_stop until the grace time is over.
 */
void reactor_hold(struct reactor *r);
void reactor_release(struct reactor *r);

/* co.c: the pool of stacks and helper threads of one reactor. */
struct co_pool;
struct co_pool *co_pool_new(struct reactor *r);
void co_pool_free(struct co_pool *p);
struct co_pool *reactor_co_pool(struct reactor *r);

#endif
