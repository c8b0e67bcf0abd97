/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * queue.h - a bounded queue from many threads to one, and the wakeup of its reader.
 *
 * Nodes are intrusive: the pusher owns the node's memory until the reader takes it. The bound
 * counts weight (bytes or items, as the user of the queue decides); beyond it push answers
 * ERR_AGAIN, which is how the source is slowed down.
 */
#ifndef LOCKSTEP_QUEUE_H
#define LOCKSTEP_QUEUE_H

#include <stddef.h>
#include <stdint.h>
#include "errors.h"

struct queue_node {
    struct queue_node *next;
    size_t weight;
};

struct queue; /* opaque */

/** wake(arg) is called, outside the queue's lock, by the first push that is not quiet since the
 * reader took what was there. May be NULL. */
struct queue *queue_new(size_t weight_max, void (*wake)(void *), void *arg);
void queue_free(
    struct queue *q); /* must be empty, or the nodes are the caller's problem; takes NULL */
/** Any thread. ERR_AGAIN when full (an empty queue takes one node of any weight); ERR_CLOSED when
 * closed. */
CHECKED int queue_push(struct queue *q, struct queue_node *n, struct err *err);
/** Any thread, never refuses: for completions, whose number is bounded by requests elsewhere. */
void queue_push_always(struct queue *q, struct queue_node *n);
/** The same without a wakeup: the reader finds it when it looks for another reason. */
void queue_push_quiet(struct queue *q, struct queue_node *n);
/** Reader: take everything, in order; NULL when empty. */
struct queue_node *queue_take_all(struct queue *q);
size_t queue_weight(struct queue *q);
size_t queue_count(struct queue *q);
void queue_close(struct queue *q); /* later pushes answer ERR_CLOSED; what is in stays */

#endif
