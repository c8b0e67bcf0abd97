/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * process.h - this program again, as a process of its own.
 */
#ifndef LOCKSTEP_PROCESS_H
#define LOCKSTEP_PROCESS_H

#include <spawn.h>
#include <sys/types.h>

/**
 * Start /proc/self/exe with a fresh set of signals and what the actions leave open, which should
 * close the rest (posix_spawn_file_actions_addclosefrom_np); they are destroyed. Returns an errno,
 * 0: *pidp is the caller's to wait for. Any thread.
 */
int spawn_self(char *const argv[], char *const env[], posix_spawn_file_actions_t *actions,
               pid_t *pidp);

#endif
