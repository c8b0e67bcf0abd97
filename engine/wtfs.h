/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * wtfs.h - WiredTiger's file-system interface over struct disk.
 *
 * The connection configuration names an entry point that WiredTiger looks up in this program; the
 * address of the struct wtfs rides in the configuration, so there is no global. The struct is the
 * caller's and outlives the connection. File locks are no-ops: a struct disk has one user.
 */
#ifndef LOCKSTEP_WTFS_H
#define LOCKSTEP_WTFS_H

#include <stdatomic.h>
#include <wiredtiger.h>
#include <wiredtiger_ext.h>

#include "buf.h"
#include "disk.h"
#include "logger.h"

struct wtfs {
    WT_FILE_SYSTEM fs; /* first: WiredTiger hands it back */
    struct disk *disk;
    struct logger *log;
    WT_SESSION *_Atomic checkpoint; /* whose writes wait for the device; NULL: none */
    void (*failed)(void *arg, const char *why);
    void *arg;
};

/* failed: a flush did, and what it was to make durable is not known; from any thread. WiredTiger
 * panics at some of those only, and would try others again. */
void wtfs_init(struct wtfs *w, struct disk *disk, struct logger *log,
               void (*failed)(void *arg, const char *why), void *arg);
/* Append ",extensions=(...)" for wiredtiger_open. */
void wtfs_config(const struct wtfs *w, struct buf *out);
/* Found by name by WiredTiger, which calls it while the connection opens. */
int lockstep_wtfs_start(WT_CONNECTION *conn, WT_CONFIG_ARG *config);

#endif
