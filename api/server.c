/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * server.c - `lockstep server`: builds the server from its configuration, waits for signals, takes
 * it down.
 *
 * Up: configuration, memory, log, disk, reactors, link, engine, caches, engine's threads,
 * listeners. Down is the reverse, and each step takes NULL, so a start that fails half way goes the
 * same way. SIGTERM and SIGINT stop cleanly; SIGHUP reads the TLS files and the log level again.
 * Answers under way are finished before the barrier is sealed.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "audit.h"
#include "core.h"
#include "core_private.h"
#include "drill.h"
#include "tls.h"

#define DISK_RING_ENTRIES 256
#define STOP_GRACE_MS 3000
#define STOP_LATCH_MS 1000

struct seal_task {
    struct reactor_task task;
    struct core *core;
    sem_t done;
};

struct server {
    const char *const *paths;
    size_t n_paths;
    int drill_fd; /* -1: none */
    struct config config;
    struct env *env;
    struct logger *log;
    int log_fd; /* -1: stdout */
    struct disk *disk;
    struct disk *store_disk; /* crash-test builds: WiredTiger lies on it */
    struct core *core;
    size_t reactors_started;
    struct seal_task seal;
    bool engine_started, cluster_made, cluster_started, pid_written;
};

/* ---- memory of JSON values: they hold secrets ---- */

static void *json_alloc(size_t n)
{
    return malloc(n);
}

static void json_wipe(void *p)
{
    if (p != NULL)
        explicit_bzero(p, malloc_usable_size(p));
    free(p);
}

/* ---- up ---- */

static int open_log(struct server *s, struct err *err)
{
    int fd = STDOUT_FILENO;

    s->log_fd = -1;
    if (s->config.log_file != NULL) {
        fd = s->log_fd = open(s->config.log_file, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0)
            return err_set(err, ERR_IO, errno, "log_file %s", s->config.log_file);
    }
    s->log = logger_new(fd, s->config.log_level);
    return s->log != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "logger");
}

static int write_pid(struct server *s, struct err *err)
{
    FILE *f;

    if (s->config.pid_file == NULL)
        return 0;
    f = fopen(s->config.pid_file, "we");
    if (f == NULL)
        return err_set(err, ERR_IO, errno, "pid_file %s", s->config.pid_file);
    s->pid_written = true;
    fprintf(f, "%ld", (long)getpid());
    return fclose(f) == 0 ? 0 : err_set(err, ERR_IO, errno, "pid_file %s", s->config.pid_file);
}

static size_t reactor_count(const struct config *cfg)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (cfg->reactors > 0)
        return cfg->reactors < REACTORS_MAX ? cfg->reactors : REACTORS_MAX;
    return cores < 1 ? 1 : cores > 4 ? 4 : (size_t)cores;
}

static int make_reactors(struct server *s, struct err *err)
{
    struct core *c = s->core;
    size_t n = reactor_count(&s->config);

    for (size_t i = 0; i < n; i++) {
        if (reactor_new(s->env, s->log, &c->reactors[i], err) != 0)
            return -1;
        c->n_reactors = i + 1;
    }
    return 0;
}

static int start_reactors(struct server *s, struct err *err)
{
    char name[32];

    for (; s->reactors_started < s->core->n_reactors; s->reactors_started++) {
        snprintf(name, sizeof(name), "reactor-%zu", s->reactors_started);
        if (reactor_start(s->core->reactors[s->reactors_started], name, err) != 0)
            return -1;
    }
    return 0;
}

static int open_engine(struct server *s, struct err *err)
{
    const struct config *cfg = &s->config;
    struct engine_config ec = {.path = cfg->storage_path,
                               .disk = s->disk,
                               .store_disk = s->store_disk,
                               .env = s->env,
                               .log = s->log,
                               .cache_bytes = cfg->cache_bytes,
                               .wal_file_bytes = cfg->wal_file_bytes,
                               .reserve_bytes = cfg->reserve_bytes,
                               .retain_bytes = cfg->retain_bytes,
                               .retain_ms = (uint64_t)cfg->retain_age_s * 1000,
                               .force_async = cfg->force_async,
                               .scrub_interval_ms = cfg->scrub_interval_ms,
                               .fence_wait_ms = (uint32_t)cfg->fence_wait_ms,
                               .sealed_wait_ms = (uint32_t)cfg->sealed_wait_ms,
                               .lag_guard_ms = (uint32_t)cfg->lag_guard_ms,
                               .lag_guard_bytes = cfg->lag_guard_bytes};

    if (config_modes(cfg, &ec, err) != 0)
        return -1;
    core_hooks(s->core, &ec.hooks);
    ec.link = cluster_link_ops(s->core, &ec.net);
    if (engine_open(&ec, &s->core->engine, err) != 0 || cluster_engine_opened(s->core, err) != 0)
        return err_wrap(err, "storage %s", cfg->storage_path);
    if (core_prepare(s->core, err) != 0 || engine_start(s->core->engine, err) != 0)
        return -1;
    s->engine_started = true;
    return 0;
}

static int open_listener(struct server *s, struct config_listener *l, struct err *err)
{
    struct http_listener_config lc = {.address = l->address, .user = l};
    char bound[128];
    int rc = -1;

    if (!l->tls_disable && tls_server_files(l->tls_cert_file, l->tls_key_file, &lc.tls, err) != 0)
        return err_wrap(err, "listener %s", l->address);
    rc = http_listen(s->core->http, &lc, bound, sizeof(bound), err);
    tls_unref(lc.tls);
    if (rc != 0)
        return err_wrap(err, "listener %s", l->address);
    log_info(s->log, "core", "listening: addr=%s tls=%s", bound,
             l->tls_disable ? "disabled" : "enabled");
    return 0;
}

static int listen_all(struct server *s, struct err *err)
{
    if (http_server_new(s->core->reactors, s->core->n_reactors, router_handle, s->core, s->log,
                        &s->core->http, err) != 0)
        return -1;
    for (size_t i = 0; i < s->config.n_listeners; i++)
        if (open_listener(s, &s->config.listeners[i], err) != 0)
            return -1;
    if (cluster_start(s->core, err) != 0)
        return err_wrap(err, "cluster listener");
    s->cluster_started = true;
    s->core->listening = true;
    return 0;
}

static void print_row(const char *name, const char *value)
{
    printf("%24s: %s\n", name, value);
}

static void print_banner(const struct server *s)
{
    const struct config *cfg = &s->config;
    char text[640], name[32];

    printf("==> Vault server configuration:\n\n");
    print_row("Api Address", cfg->api_addr != NULL ? cfg->api_addr : "");
    print_row("Cluster Address", cfg->cluster_addr != NULL ? cfg->cluster_addr : "");
    for (size_t i = 0; i < cfg->n_listeners; i++) {
        const struct config_listener *l = &cfg->listeners[i];
        snprintf(name, sizeof(name), "Listener %zu", i + 1);
        snprintf(text, sizeof(text),
                 "tcp (addr: \"%s\", cluster address: \"%s\", max_request_duration: \"1m30s\", "
                 "max_request_size: "
                 "\"%u\", tls: \"%s\")",
                 l->address, l->cluster_address != NULL ? l->cluster_address : "",
                 HTTP_BODY_MAX_BYTES, l->tls_disable ? "disabled" : "enabled");
        print_row(name, text);
    }
    print_row("Log Level", logger_level_name(cfg->log_level));
    print_row("Mlock", cfg->disable_mlock ? "supported: true, enabled: false"
                                          : "supported: true, enabled: true");
    print_row("Recovery Mode", "false");
    print_row("Storage", "wiredtiger");
    print_row("Version", "Lockstep v" LOCKSTEP_VERSION_TEXT);
    printf("\n==> Vault server started! Log data will stream in below:\n\n");
    fflush(stdout);
}

static int open_disks(struct server *s, struct err *err)
{
    if (disk_pair_is_volatile())
        log_warn(s->log, "storage", "crash-test build: unflushed writes are kept in memory");
    return disk_open_pair(DISK_RING_ENTRIES, &s->disk, &s->store_disk, err);
}

/* A drill is nobody's on the link. */
static void keep_apart(struct server *s)
{
    struct config *c = &s->config;

    for (size_t i = 0; i < c->n_listeners; i++) {
        free(c->listeners[i].cluster_address);
        c->listeners[i].cluster_address = NULL;
    }
}

static int start(struct server *s, struct err *err)
{
    if (config_load(s->paths, s->n_paths, &s->config, err) != 0 ||
        config_complete(&s->config, err) != 0)
        return -1;
    if (s->drill_fd >= 0)
        keep_apart(s);
    if (memory_protect(!s->config.disable_mlock, err) != 0 || open_log(s, err) != 0)
        return -1;
    if (core_new(&s->config, s->env, s->log, &s->core, err) != 0 || make_reactors(s, err) != 0)
        return -1;
    if (open_disks(s, err) != 0)
        return -1;
    /* The link is taken down on its reactor, so that runs first, also when the next step fails. */
    if (start_reactors(s, err) != 0 || cluster_new(s->core, err) != 0)
        return -1;
    s->cluster_made = true;
    if (open_engine(s, err) != 0)
        return -1;
    core_started(s->core);
    drill_recover(s->core);
    if (listen_all(s, err) != 0)
        return -1;
    return write_pid(s, err);
}

/* ---- reload ---- */

static void reload_tls(struct server *s)
{
    for (size_t i = 0; i < s->config.n_listeners; i++) {
        struct config_listener *l = &s->config.listeners[i];
        struct tls_ctx *tls = NULL;
        struct err err = {0};

        if (l->tls_disable)
            continue;
        if (tls_server_files(l->tls_cert_file, l->tls_key_file, &tls, &err) != 0) {
            log_error(s->log, "core",
                      "cannot reload the certificate of listener %s, the old one stays: %s",
                      l->address, err.msg);
            continue;
        }
        http_set_tls(s->core->http, l, tls);
        tls_unref(tls);
        log_info(s->log, "core", "reloaded the certificate of listener %s", l->address);
    }
}

static void reload(struct server *s)
{
    struct config fresh = {0};
    struct err err = {0};

    printf("==> Vault reload triggered\n");
    fflush(stdout);
    if (config_load(s->paths, s->n_paths, &fresh, &err) != 0 ||
        config_complete(&fresh, &err) != 0) {
        log_error(s->log, "core", "cannot reload the configuration, the old one stays: %s",
                  err.msg);
    } else {
        s->config.log_level = fresh.log_level;
        logger_level(s->log, fresh.log_level);
    }
    config_free(&fresh);
    reload_tls(s);
    audits_forget(s->core); /* files that were moved away are opened anew */
    core_look(s->core);
}

/* ---- down ---- */

static void seal_co(void *arg)
{
    struct seal_task *t = arg;
    struct ack brief = {.limit_ms = STOP_LATCH_MS}; /* a new seal may be held by a strict mode */
    struct err err = {0};

    co_local_set(&brief);
    if (core_seal(t->core, &err) != 0)
        log_error(t->core->log, "core", "cannot seal: %s", err.msg);
    sem_post(&t->done);
}

static void seal_run(struct reactor_task *task)
{
    struct seal_task *t = (struct seal_task *)((char *)task - offsetof(struct seal_task, task));
    struct err err = {0};

    if (co_spawn(t->core->reactors[0], seal_co, t, &err) != 0) {
        log_error(t->core->log, "core", "cannot seal: %s", err.msg);
        sem_post(&t->done);
    }
}

/* Seal on a reactor; a request that does not end must not keep the server from stopping. */
static void seal_and_wait(struct core *c, struct seal_task *t)
{
    struct timespec until;

    t->core = c;
    t->task.run = seal_run;
    sem_init(&t->done, 0, 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_GRACE_MS / 1000;
    reactor_post(c->reactors[0], &t->task);
    while (sem_timedwait(&t->done, &until) != 0) {
        if (errno == EINTR)
            continue;
        log_warn(c->log, "core", "sealing did not end in time; keys are wiped with the process");
        break;
    }
}

static void stop(struct server *s)
{
    struct core *c = s->core;

    if (c != NULL) {
        c->stopping = true;
        if (c->http != NULL)
            http_server_shutdown(c->http);
        drill_stop(c);
        if (s->reactors_started > 0 && s->engine_started)
            seal_and_wait(c, &s->seal);
        if (s->cluster_started)
            log_info(s->log, "core", "stopping cluster listeners");
        if (s->cluster_made)
            cluster_stop(c);
        if (s->cluster_started) {
            log_info(s->log, "core.cluster-listener", "forwarding rpc listeners stopped");
            log_info(s->log, "core.cluster-listener", "rpc listeners successfully shut down");
            log_info(s->log, "core", "cluster listeners successfully shut down");
        }
        if (c->engine != NULL)
            engine_stop(c->engine);
        for (size_t i = 0; i < s->reactors_started; i++)
            reactor_stop(c->reactors[i], STOP_GRACE_MS);
        if (c->http != NULL)
            http_server_free(c->http);
        engine_close(c->engine);
        for (size_t i = 0; i < c->n_reactors; i++)
            reactor_free(c->reactors[i]);
        if (s->cluster_started)
            log_info(s->log, "core", "vault is sealed");
        core_free(c);
    }
    disk_free(s->store_disk);
    disk_free(s->disk);
    if (s->pid_written)
        unlink(s->config.pid_file);
    logger_free(s->log);
    if (s->log_fd >= 0)
        close(s->log_fd);
    config_free(&s->config);
}

int server_run(const char *const *paths, size_t n, int drill_fd)
{
    struct server s = {
        .paths = paths, .n_paths = n, .drill_fd = drill_fd, .env = env_real(), .log_fd = -1};
    struct err err = {0};
    sigset_t signals;
    int got, code = 0;

    umask(077);
    json_set_alloc_funcs(json_alloc, json_wipe);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals,
                    NULL); /* inherited by every thread: only sigwait below takes them */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, our processes could not be waited for */
    if (start(&s, &err) != 0 || (drill_fd >= 0 && drill_serve(s.core, drill_fd, &err) != 0)) {
        fprintf(stderr, "Error starting the server: %s\n", err.msg);
        if (drill_fd >= 0)
            drill_report_failure(drill_fd, err.msg);
        stop(&s);
        return 1;
    }
    print_banner(&s);
    for (;;) {
        if (sigwait(&signals, &got) != 0)
            continue;
        if (got != SIGHUP)
            break;
        reload(&s);
    }
    printf("==> Vault shutdown triggered\n");
    fflush(stdout);
    stop(&s);
    return code;
}
