/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * process.c - this program again, as a process of its own: a drill's server, what reads PGP keys.
 */
#include "process.h"

#include <signal.h>
#include <unistd.h>

int spawn_self(char *const argv[], char *const env[], posix_spawn_file_actions_t *actions,
               pid_t *pidp)
{
    posix_spawnattr_t attr;
    sigset_t none, all;
    int sys;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    sys = posix_spawn(pidp, "/proc/self/exe", actions, &attr, argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(actions);
    return sys;
}
