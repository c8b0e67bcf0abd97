/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * core.c - the life of the server's state: caches, what the engine's hooks set in motion, periodic
 * work.
 *
 * Hooks run on the engine's threads and only set bits and post a task; what follows (dropping
 * caches, opening the barrier with a root key that came over the link, taking up work as a primary)
 * runs in one coroutine of the first reactor, in order.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "audit.h"
#include "core.h"
#include "core_private.h"
#include "drill.h"
#include "mounts.h"
#include "policy.h"
#include "sys.h"
#include "token.h"

#define SWEEP_NS (10 * 1000000000LL)

enum event {
    EVENT_ROLE = 1,
    EVENT_REPLACED = 2,
    EVENT_SWEEP = 4,
    EVENT_TIMER = 8,
    EVENT_REJOINED = 16,
    EVENT_PROBE = 64
};

struct background {
    struct core *core;
    _Atomic unsigned events;
    _Atomic bool posted; /* task is in the reactor's queue */
    _Atomic bool on;     /* unsealed: periodic work goes on */
    bool running;        /* the coroutine lives. Reactor 0, like all below */
    bool rejoin_again;   /* what EVENT_REJOINED asked for is not written yet */
    struct reactor_task task;
    struct reactor_timer timer;
};

int core_new(const struct config *cfg, struct env *env, struct logger *log, struct core **cp,
             struct err *err)
{
    struct core *c = calloc(1, sizeof(*c));

    *cp = NULL;
    if (c == NULL)
        return err_set(err, ERR_NOMEM, 0, "core");
    c->config = cfg;
    c->env = env;
    c->log = log;
    c->role = ENGINE_PRIMARY;
    snprintf(c->cluster_name, sizeof(c->cluster_name), "%s",
             cfg->cluster_name != NULL ? cfg->cluster_name : "");
    c->latches = latches_new(env);
    c->seal = seal_new();
    c->ceremonies = ceremonies_new();
    c->rekey = rekey_new();
    c->inflights = inflights_new();
    c->drill = drill_new(c);
    c->background = calloc(1, sizeof(*c->background));
    c->probes = probes_new();
    if (c->latches == NULL || c->seal == NULL || c->ceremonies == NULL || c->rekey == NULL ||
        c->inflights == NULL || c->drill == NULL || c->background == NULL || c->probes == NULL) {
        core_free(c);
        return err_set(err, ERR_NOMEM, 0, "core");
    }
    c->background->core = c;
    c->background->timer.slot = -1;
    if (barrier_new(env, &c->barrier, err) != 0) {
        core_free(c);
        return -1;
    }
    *cp = c;
    return 0;
}

void core_free(struct core *c)
{
    if (c == NULL)
        return;
    if (c->tokens != NULL)
        tokens_free(c);
    audits_free(c);
    if (c->policies != NULL)
        policies_free(c);
    if (c->mounts != NULL)
        mounts_free(c);
    cluster_free(c);
    barrier_free(c->barrier);
    rekey_free(c->rekey);
    inflights_free(c->inflights);
    drill_free(c->drill);
    ceremonies_free(c->ceremonies);
    seal_free(c->seal);
    latches_free(c->latches);
    probes_free(c->probes);
    free(c->background);
    free(c);
}

/* The thread that applies: must not block. A keyring of a rotation, ours or the primary's: before
 * anything that it sealed is read. */
static void keyring_changed(void *arg, const char *key, uint64_t lsn)
{
    struct core *c = arg;
    struct buf keyring = {0};
    struct err err = {0};

    (void)lsn;
    if (strcmp(key, BARRIER_KEYRING_PATH) != 0 || !barrier_is_open(c->barrier))
        return;
    if (engine_get(c->engine, BARRIER_KEYRING_PATH, &keyring, &err) != 0 ||
        barrier_adopt(c->barrier, keyring.data, keyring.len, &err) != 0)
        log_error(c->log, "core", "cannot take the new keyring: %s", err.msg);
    buf_free(&keyring);
}

int core_prepare(struct core *c, struct err *err)
{
    struct engine_status *st = calloc(1, sizeof(*st));

    if (st == NULL)
        return err_set(err, ERR_NOMEM, 0, "core");
    engine_status(c->engine, st);
    c->role = (int)st->role; /* as recovered; the hook tells changes only */
    free(st);
    if (mounts_new(c, err) != 0 || policies_new(c, err) != 0 || tokens_new(c, err) != 0 ||
        audits_new(c, err) != 0)
        return -1;
    return engine_watch(c->engine, BARRIER_KEYRING_PATH, keyring_changed, c, err);
}

const char *core_dr_mode(struct core *c)
{
    struct buf b = {0};
    struct repl_config rc = {0};
    struct err err = {0};

    if (c->role == ENGINE_SECONDARY || c->role == ENGINE_BOOTSTRAPPING)
        return "secondary";
    if (engine_get(c->engine, ENGINE_KEY_CONFIG, &b, &err) != 0 ||
        repl_config_decode(b.data, b.len, &rc, &err) != 0)
        rc.primary_enabled = false;
    buf_free(&b);
    return rc.primary_enabled ? "primary" : "disabled";
}

/* ---- events ---- */

static void drop_caches(struct core *c)
{
    mounts_forget(c);
    policy_forget(c, NULL);
    audits_forget(c);
    tokens_forget(c);
}

static void store_replaced(struct core *c)
{
    struct err err = {0};

    log_info(
        c->log, "core",
        "storage was replaced by the primary's: caches dropped, sealing with the old keys ends");
    drop_caches(c);
    cluster_store_replacing(c);
    if (core_seal(c, &err) != 0)
        log_error(c->log, "core", "cannot seal: %s", err.msg);
    cluster_store_replaced(c);
}

/* Periodic work is a primary's. */
static void background_start(struct core *c)
{
    if (c->role != ENGINE_PRIMARY || atomic_exchange(&c->background->on, true))
        return;
    log_info(c->log, "rollback", "starting rollback manager");
}

static void role_changed(struct core *c)
{
    drop_caches(c);
    if (c->role != ENGINE_SECONDARY)
        drill_end_soon(c);
    if (c->role != ENGINE_PRIMARY)
        core_background_stop(c);
    if (core_sealed(c))
        return;
    cluster_unsealed(c);
    if (c->role == ENGINE_PRIMARY) {
        background_start(c);
        log_info(c->log, "core", "post-unseal setup complete");
    }
}

static void sweep(struct core *c)
{
    if (c->role == ENGINE_PRIMARY && !core_sealed(c) && c->background->on) {
        tokens_sweep_start(c);
        mounts_sweep_start(c);
        rotate_if_due(c);
    }
}

static void post(struct background *g, unsigned events);

static void timer_fired(struct reactor_timer *t)
{
    struct background *g = (struct background *)((char *)t - offsetof(struct background, timer));

    post(g, EVENT_SWEEP | EVENT_TIMER);
}

static void events_co(void *arg)
{
    struct background *g = arg;
    unsigned events;

    while ((events = atomic_exchange(&g->events, 0)) != 0) {
        if (events & EVENT_REPLACED)
            store_replaced(g->core);
        if (events & EVENT_ROLE)
            role_changed(g->core);
        if (events & EVENT_REJOINED || (events & EVENT_TIMER && g->rejoin_again))
            g->rejoin_again = !replication_rejoined(g->core);
        if (events & EVENT_TIMER && atomic_load(&g->core->settle_again))
            cluster_unsealed(g->core);
        if (events & EVENT_SWEEP)
            sweep(g->core);
        if (events & (EVENT_TIMER | EVENT_PROBE | EVENT_ROLE))
            probes_run(g->core);
        if (events & EVENT_TIMER && !g->core->stopping)
            reactor_timer_arm(g->core->reactors[0], &g->timer, SWEEP_NS);
    }
    g->running = false;
}

static void events_task(struct reactor_task *t)
{
    struct background *g = (struct background *)((char *)t - offsetof(struct background, task));
    struct err err = {0};

    g->posted = false;
    if (g->running || g->events == 0)
        return;
    g->running = true;
    if (co_spawn(g->core->reactors[0], events_co, g, &err) != 0) {
        g->running = false;
        log_error(g->core->log, "core", "cannot handle an event of the engine: %s", err.msg);
    }
}

/* Any thread. */
static void post(struct background *g, unsigned events)
{
    atomic_fetch_or(&g->events, events);
    if (g->core->n_reactors > 0 && !g->core->stopping && !atomic_exchange(&g->posted, true))
        reactor_post(g->core->reactors[0], &g->task);
}

void core_started(struct core *c)
{
    c->background->task.run = events_task;
    c->background->timer.fire = timer_fired;
    post(c->background, EVENT_TIMER);
}

void core_look(struct core *c)
{
    if (c->background != NULL) /* a test's core has none */
        post(c->background, EVENT_PROBE);
}

static void on_fatal(void *arg, const struct err *err)
{
    struct core *c = arg;

    log_error(c->log, "core", "fatal: %s", err->msg);
    _exit(1); /* what was answered is durable; nothing may be answered from here on */
}

static int on_lost_keyring(void *arg, const char *id, struct buf *out, struct err *err)
{
    struct core *c = arg;
    char path[96];

    snprintf(path, sizeof(path), LOST_KEYRING_PATH "%.63s", id);
    return barrier_export(c->barrier, path, out, err);
}

static void on_role(void *arg, enum engine_role role)
{
    struct core *c = arg;

    c->role = role;
    if (c->background->task.run != NULL)
        post(c->background, EVENT_ROLE);
}

static void on_replaced(void *arg)
{
    struct core *c = arg;

    c->unsealed = false; /* no request may mix old keys and new rows */
    if (c->background->task.run != NULL)
        post(c->background, EVENT_REPLACED);
}

static void on_rejoined(void *arg)
{
    struct core *c = arg;

    if (c->background->task.run != NULL)
        post(c->background, EVENT_REJOINED);
}

void core_hooks(struct core *c, struct engine_hooks *h)
{
    *h = (struct engine_hooks){.arg = c,
                               .fatal = on_fatal,
                               .role = on_role,
                               .lost_keyring = on_lost_keyring,
                               .store_replaced = on_replaced,
                               .enrol = cluster_enrol,
                               .rejoined = on_rejoined};
}

/* ---- unseal and seal ---- */

void core_post_unseal(struct core *c)
{
    log_info(c->log, "core", "post-unseal setup starting");
    drop_caches(c);
    cluster_unsealed(c);
    background_start(c);
    log_info(c->log, "core", "post-unseal setup complete");
    post(c->background, EVENT_SWEEP);
}

void core_background_stop(struct core *c)
{
    if (atomic_exchange(&c->background->on, false))
        log_info(c->log, "rollback", "stopping rollback manager");
}
