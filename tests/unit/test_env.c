/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_env.c - randomness that is drawn ahead is handed out once, also across fork.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "env.h"

#define DRAWS 5000

static int by_bytes(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

Test(env, no_id_comes_twice, .timeout = 20)
{
    static uint8_t ids[DRAWS][16];

    for (size_t i = 0; i < DRAWS; i++)
        env_random(env_real(), ids[i], 16);
    qsort(ids, DRAWS, 16, by_bytes);
    for (size_t i = 1; i < DRAWS; i++)
        cr_assert(memcmp(ids[i - 1], ids[i], 16) != 0);
}

/* Two processes that draw from one pool would seal under one nonce. */
Test(env, a_child_does_not_draw_what_its_parent_draws, .timeout = 20)
{
    uint8_t before[24], mine[24], childs[24];
    int fds[2], status;
    pid_t pid;

    env_random(env_real(), before, sizeof(before)); /* the pool is there now */
    cr_assert_eq(pipe(fds), 0);
    pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        env_random(env_real(), childs, sizeof(childs));
        _exit(write(fds[1], childs, sizeof(childs)) == sizeof(childs) ? 0 : 1);
    }
    env_random(env_real(), mine, sizeof(mine));
    cr_assert_eq(read(fds[0], childs, sizeof(childs)), (ssize_t)sizeof(childs));
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
    cr_assert(memcmp(mine, childs, sizeof(mine)) != 0);
    close(fds[0]);
    close(fds[1]);
}
