/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * listen.h - a listening TCP socket with multishot accept on one reactor, and addresses.
 */
#ifndef LOCKSTEP_LISTEN_H
#define LOCKSTEP_LISTEN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "errors.h"
#include "reactor.h"

struct listener;
/** Bind (no other process may have the port). bound gets host:port. ERR_BUSY: in use. Any thread.
 */
CHECKED int listener_open(const char *address, struct listener **lp, char *bound, size_t bound_len,
                          struct err *err);
/** Accept on r from now on; accepted owns fd. Posts to r. Any thread. */
void listener_start(struct listener *l, struct reactor *r, void (*accepted)(void *arg, int fd),
                    void *arg);
/** Stop accepting. Posts to its reactor; the socket is closed when the kernel has let go of it. Any
 * thread. */
void listener_stop(struct listener *l);
/** Stop, and free when the kernel has let go: the reactor goes on. Any thread. */
void listener_discard(struct listener *l);
/** After the reactor's thread has ended. Takes NULL. */
void listener_free(struct listener *l);

/** host:port or [v6]:port to its parts. */
CHECKED int address_split(const char *address, char *host, size_t host_len, char *port,
                          size_t port_len, struct err *err);
/** "1.2.3.4" and port of a socket address. */
void address_text(const struct sockaddr *sa, char *host, size_t host_len, uint16_t *portp);

#endif
