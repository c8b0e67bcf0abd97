/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * dummy.h - a secondary that only receives, writes and flushes: what any follower must cost.
 *
 * The sender gives it each segment over the same link (TLS); the receiver appends what has come to
 * a file and flushes it before it takes more.
 */
#ifndef LOCKSTEP_BENCH_DUMMY_H
#define LOCKSTEP_BENCH_DUMMY_H

#include "node.h"

struct dummy_sender;
struct dummy_sender *dummy_sender_new(const struct node_identity *id); /* listens */
const char *dummy_sender_addr(const struct dummy_sender *s);
void dummy_sender_await(struct dummy_sender *s); /* until the receiver is there */
/** tap_events.written; does nothing before the receiver is there. */
void dummy_send(void *sender, const void *seg, size_t len);
void dummy_sender_free(struct dummy_sender *s);

/** Receives until the sender closes; writes into the folder. */
void dummy_receive(const struct node_identity *id, const char *addr, const char *dir);

#endif
