/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill_child.c - `lockstep server` when it serves a drill.
 *
 * What it looks at is what a promotion would stand on: does the barrier open, is every value that
 * is stored opened by it, are mounts, policies and tokens there, does a write commit. Its figures
 * are counts and times, never names or values.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core_private.h"
#include "drill.h"
#include "mounts.h"
#include "policy_private.h"
#include "token_private.h"

#define DRILL_ROW "core/drill" /* says what this data is */

struct look {
    struct core *core;
    const uint8_t *root;
    struct reactor_task task;
    sem_t done;
    struct err err;
    int rc;
    int64_t unseal_ns, write_ns;
    uint64_t mounts, auth, tokens, policies, secrets, opened, damaged;
};

/* ---- on a coroutine ---- */
static int open_barrier(struct look *l)
{
    int64_t from = env_mono_ns(l->core->env);

    if (core_unseal_with_root(l->core, l->root, &l->err) != 0)
        return -1;
    l->unseal_ns = env_mono_ns(l->core->env) - from;
    return 0;
}

static int count_mounts(struct look *l)
{
    struct mount_table *t;
    const struct mount *m;

    if (mount_table_get(l->core, &t, &l->err) != 0)
        return -1;
    for (size_t i = 0; (m = mount_at(t, i)) != NULL; i++)
        (*(m->auth ? &l->auth : &l->mounts))++;
    mount_table_unref(t);
    return 0;
}

static int first_write(struct look *l)
{
    static const char text[] = "{\"drill\":true}";
    int64_t from = env_mono_ns(l->core->env);
    struct batch *b = batch_new(l->core);

    if (b == NULL)
        return err_set(&l->err, ERR_NOMEM, 0, "drill");
    if (batch_put_clear(b, DRILL_ROW, text, sizeof(text) - 1, &l->err) != 0) {
        batch_free(b);
        return -1;
    }
    if (batch_commit(b, &l->err) != 0)
        return -1;
    l->write_ns = env_mono_ns(l->core->env) - from;
    return 0;
}

static void look_co(void *arg)
{
    struct look *l = arg;

    l->rc = open_barrier(l) == 0 && count_mounts(l) == 0 && first_write(l) == 0 ? 0 : -1;
    sem_post(&l->done);
}

static void look_run(struct reactor_task *t)
{
    struct look *l = (struct look *)((char *)t - offsetof(struct look, task));

    if (co_spawn(l->core->reactors[0], look_co, l, &l->err) != 0)
        sem_post(&l->done);
}

/* ---- on this thread ---- */
static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static int look_row(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                    struct err *err)
{
    struct look *l = arg;
    struct buf plain = {.secret = true};
    struct err why = {0};

    (void)lsn, (void)err;
    if (starts(key, "core/"))
        return 0; /* the seal's, the engine's: some are clear, and without them we were not here */
    if (starts(key, TOKEN_ID_PREFIX))
        l->tokens++;
    else if (starts(key, POLICY_PREFIX))
        l->policies++;
    else if (starts(key, "logical/"))
        l->secrets++;
    if (barrier_decrypt(l->core->barrier, key, value, len, &plain, &why) == 0)
        l->opened++;
    else
        l->damaged++;
    buf_free(&plain);
    return 0;
}

static int send_line(int fd, json_t *v)
{
    char *text = v != NULL ? json_dumps(v, JSON_COMPACT) : NULL;
    size_t len, done = 0;

    json_decref(v);
    if (text == NULL)
        return -1;
    len = strlen(text);
    text[len++] = '\n'; /* instead of the NUL */
    while (done < len) {
        ssize_t n = write(fd, text + done, len - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    free(text);
    return done == len ? 0 : -1;
}

void drill_report_failure(int fd, const char *why)
{
    (void)send_line(fd, json_pack("{s:s}", "error", why)); /* if nobody listens, nobody cares */
}

static int report(const struct look *l, int fd, struct err *err)
{
    json_t *v =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "mounts", (json_int_t)l->mounts,
                  "auth_methods", (json_int_t)l->auth, "tokens", (json_int_t)l->tokens, "policies",
                  (json_int_t)l->policies, "secrets", (json_int_t)l->secrets, "values_opened",
                  (json_int_t)l->opened, "values_not_opened", (json_int_t)l->damaged, "unseal_ms",
                  (double)l->unseal_ns / 1e6, "write_ms", (double)l->write_ns / 1e6);

    return send_line(fd, v) == 0 ? 0 : err_set(err, ERR_CLOSED, 0, "the secondary is gone");
}

static int read_root(int fd, uint8_t root[BARRIER_KEY_BYTES], struct err *err)
{
    size_t got = 0;

    while (got < BARRIER_KEY_BYTES) {
        ssize_t n = read(fd, root + got, BARRIER_KEY_BYTES - got);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_CLOSED, 0, "no key came");
        got += (size_t)n;
    }
    return 0;
}

/* The secondary says nothing more; when its end goes, so do we. */
static void *watch_main(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char c;
    ssize_t n;

    while ((n = read(fd, &c, 1)) > 0 || (n < 0 && errno == EINTR))
        ;
    kill(getpid(), SIGTERM);
    return NULL;
}

static int watch(int fd, struct err *err)
{
    pthread_t t;
    int sys = pthread_create(&t, NULL, watch_main, (void *)(intptr_t)fd);

    if (sys != 0)
        return err_set(err, ERR_NOMEM, sys, "drill");
    pthread_detach(t);
    return 0;
}

int drill_serve(struct core *c, int fd, struct err *err)
{
    uint8_t *root = OPENSSL_secure_malloc(BARRIER_KEY_BYTES);
    struct look l = {.core = c, .root = root, .task.run = look_run, .rc = -1};
    int rc = -1;

    if (root == NULL)
        return err_set(err, ERR_NOMEM, 0, "no guarded memory for the root key");
    if (read_root(fd, root, err) == 0 && watch(fd, err) == 0) {
        sem_init(&l.done, 0, 0);
        reactor_post(c->reactors[0], &l.task);
        while (sem_wait(&l.done) != 0)
            ;
        rc = l.rc;
        if (rc != 0)
            *err = l.err;
    }
    OPENSSL_secure_clear_free(root, BARRIER_KEY_BYTES);
    if (rc != 0 || engine_scan(c->engine, "", NULL, 0, false, look_row, &l, err) != 0)
        return -1;
    return report(&l, fd, err);
}
