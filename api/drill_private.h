/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill_private.h - what the files of a drill share: drill.c (its state and its thread),
 * drill_fork.c (the folder and the data in it), drill_process.c (the process that serves it),
 * drill_api.c (the endpoints). The other process has drill_child.c.
 */
#ifndef LOCKSTEP_DRILL_PRIVATE_H
#define LOCKSTEP_DRILL_PRIVATE_H

#include <pthread.h>
#include <sys/types.h>

#include "core.h"
#include "drill.h"
#include "restore.h"

#define DRILL_LOCAL "drill" /* the folder, while there is one */
#define DRILL_STOP_MS 10000 /* then SIGKILL */

enum drill_state { DRILL_NONE, DRILL_COPYING, DRILL_STARTING, DRILL_RUNNING, DRILL_ENDING };

struct drill_outcome { /* of the present drill, or of the last one */
    char id[37], address[256], dir[1024], error[256];
    int64_t started_ms, ends_ms, ended_ms;
    double copy_ms, tail_ms;
    uint64_t tail;
    bool forked;
    struct restore_report fork;
    json_t *child; /* owned: the other process's report */
};

struct drill {
    struct core *core;
    pthread_mutex_t mutex; /* of state and out */
    enum drill_state state;
    struct drill_outcome out;
    /* the thread, which lives from DRILL_COPYING to DRILL_NONE */
    pthread_t thread;
    bool noted; /* the folder is ours to make and to remove, also after a crash */
    bool joinable;
    int stop_fd; /* readable: end it */
    int64_t ttl_s;
    uint8_t *root; /* secure memory, until the other process has it */
    pid_t pid;
    int fd; /* our end of the pair; -1 */
};

/* ---- drill.c ---- */
/** Wait up to timeout_ms for the word that it is to end. */
bool drill_told_to_stop(struct drill *d, int timeout_ms);
/** Under the mutex, in state DRILL_NONE: the last one's report goes. */
CHECKED int drill_begin(struct drill *d, int64_t now_ms, const char *address, const char *dir,
                        int64_t ttl_s, struct err *err);

/* ---- drill_fork.c; the drill's thread ---- */
/** With its mark, durable. ERR_EXISTS. */
CHECKED int drill_folder_make(const char *dir, struct err *err);
/** Remove it, if the mark is in it, and its name; what fails is logged. */
void drill_folder_forget(struct drill *d, const char *dir);
/** A cluster of its own, in the folder. ERR_CLOSED: told to stop. */
CHECKED int drill_fork_copy(struct drill *d, struct err *err);

/* ---- drill_process.c; the drill's thread ---- */
/** It runs, and has the root key. */
CHECKED int drill_process_start(struct drill *d, struct err *err);
/** Its one line; 0: told to stop, or its time is over before it came; else 1. */
CHECKED int drill_process_report(struct drill *d, int64_t until_ns, struct err *err);
/** Until its time is over or it is told to stop: 0. ERR_CLOSED: it ended by itself. */
CHECKED int drill_process_watch(struct drill *d, int64_t until_ns, struct err *err);
void drill_process_end(struct drill *d); /* returns when it is gone */

#endif
