/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill.c - the secondary's side of a drill: make the fork, start and end its process, tell of it.
 *
 *     NONE -> COPYING -> STARTING -> RUNNING -> ENDING -> NONE
 *
 * and from each to ENDING. One thread does it all, so a request never waits for it: a snapshot of
 * this server is piped into a restore (so the fork has a cluster id and an epoch of its own), a
 * second process of this program serves it, and gets the root key through a socket pair: never by
 * arguments, environment or disk. Replication goes on meanwhile.
 *
 * The folder is named in the local space before it is made, and holds the file MARK from its first
 * moment: what a crash leaves is removed at the next start, and nothing else ever is. The other
 * process sees the socket's end and stops; its lock on the data tells when it is gone.
 */
#include "drill.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core_private.h"
#include "replication_private.h"
#include "restore.h"

#define MARK "lockstep-drill"
#define LOCAL_NAME "drill" /* the folder, while there is one */
#define TTL_S 3600
#define TTL_MAX_S 86400
#define STOP_MS 10000 /* then SIGKILL */
#define CHILD_FD 3
#define LINE_MAX_BYTES 4096

enum state { NONE, COPYING, STARTING, RUNNING, ENDING };
static const char *const state_names[] = {"none", "copying", "starting", "running", "ending"};

struct outcome { /* of the present drill, or of the last one */
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
    enum state state;
    struct outcome out;
    /* the thread, which lives from COPYING to NONE */
    pthread_t thread;
    bool joinable;
    int stop_fd; /* readable: end it */
    int64_t ttl_s;
    uint8_t *root; /* secure memory, until the other process has it */
    pid_t pid;
    int fd; /* our end of the pair; -1 */
};

struct drill *drill_new(struct core *c)
{
    struct drill *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->core = c;
    d->fd = -1;
    d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (d->stop_fd < 0) {
        free(d);
        return NULL;
    }
    pthread_mutex_init(&d->mutex, NULL);
    return d;
}

void drill_free(struct drill *d)
{
    if (d == NULL)
        return;
    json_decref(d->out.child);
    close(d->stop_fd);
    pthread_mutex_destroy(&d->mutex);
    free(d);
}

static void move(struct drill *d, enum state s)
{
    pthread_mutex_lock(&d->mutex);
    d->state = s;
    pthread_mutex_unlock(&d->mutex);
}

static bool told_to_stop(struct drill *d, int timeout_ms)
{
    struct pollfd p = {.fd = d->stop_fd, .events = POLLIN};

    return poll(&p, 1, timeout_ms) > 0;
}

/* ---- the folder ---- */
/* The mark is durable before there is anything else in it. */
static int mark(const char *dir, struct err *err)
{
    int folder = -1, fd = -1, rc = -1;

    if (mkdir(dir, 0700) != 0)
        return err_set(err, errno == EEXIST ? ERR_EXISTS : ERR_IO, errno, "make %s", dir);
    folder = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0)
        fd = openat(folder, MARK, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        err_set(err, ERR_IO, errno, "make %s/" MARK, dir);
        (void)rmdir(dir);
    } else {
        rc = fsync(folder) == 0 ? 0 : err_set(err, ERR_IO, errno, "sync %s", dir);
    }
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag;
    /* The mark last, so that a removal that stops half way can be taken up again. */
    if (ftw->level == 1 && strcmp(path + ftw->base, MARK) == 0)
        return 0;
    if (ftw->level > 0 && remove(path) != 0)
        return -1;
    return 0;
}

/* Only what we have marked. */
static int remove_dir(const char *dir, struct err *err)
{
    char path[1100];

    snprintf(path, sizeof(path), "%s/" MARK, dir);
    if (access(path, F_OK) != 0)
        return errno == ENOENT ? 0 : err_set(err, ERR_IO, errno, "look at %s", path);
    if (nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 || unlink(path) != 0 ||
        rmdir(dir) != 0)
        return err_set(err, ERR_IO, errno, "remove %s", dir);
    return 0;
}

static void forget(struct drill *d, const char *dir)
{
    struct err err = {0};

    if (remove_dir(dir, &err) != 0 ||
        engine_local_put(d->core->engine, LOCAL_NAME, NULL, 0, &err) != 0)
        log_error(d->core->log, "drill", "%s: it is tried again at the next start", err.msg);
}

/* ---- the fork ---- */
static int pipe_fork(struct drill *d, struct engine_snapshot *s, struct restore *r, struct err *err)
{
    struct buf b = {0};
    int rc = 1;

    while (rc == 1) {
        buf_clear(&b);
        if (told_to_stop(d, 0)) {
            rc = err_set(err, ERR_CLOSED, 0, "ended before it ran");
            break;
        }
        rc = engine_snapshot_next(s, &b, err);
        if (rc >= 0 && restore_feed(r, b.data, b.len, err) != 0)
            rc = -1;
    }
    buf_free(&b);
    return rc == 0 ? restore_snapshot_end(r, err) : -1;
}

static int make_fork(struct drill *d, struct restore_report *rep, struct err *err)
{
    struct core *c = d->core;
    struct restore_config cfg = {
        .env = c->env, .log = c->log, .cache_bytes = c->config->cache_bytes};
    struct engine_snapshot *s = NULL;
    struct restore *r = NULL;
    char data[1100];
    int rc = -1;

    snprintf(data, sizeof(data), "%s/data", d->out.dir);
    if (disk_open_pair(64, &cfg.disk, &cfg.store_disk, err) != 0)
        return -1;
    if (engine_snapshot_begin(c->engine, &s, err) == 0 &&
        restore_directory_begin(&cfg, data, &r, err) == 0 && pipe_fork(d, s, r, err) == 0)
        rc = restore_finish(r, rep, err);
    engine_snapshot_end(s);
    restore_free(r);
    disk_free(cfg.store_disk);
    disk_free(cfg.disk);
    return rc;
}

/* What a promotion would have had to apply first: the secondary's own tail, at the speed at which
 * the fork's log was applied. */
static void note_tail(struct drill *d, const struct engine_status *st,
                      const struct restore_report *rep)
{
    d->out.tail = st->durable_lsn > st->applied_lsn ? st->durable_lsn - st->applied_lsn : 0;
    if (rep->transactions > 0)
        d->out.tail_ms =
            (double)rep->apply_ns / 1e6 / (double)rep->transactions * (double)d->out.tail;
}

static int copy(struct drill *d, struct err *err)
{
    int64_t from = env_mono_ns(d->core->env);
    struct restore_report *rep = calloc(1, sizeof(*rep)); /* large */
    struct engine_status *st = calloc(1, sizeof(*st));
    int rc = -1;

    if (rep == NULL || st == NULL)
        err_set(err, ERR_NOMEM, 0, "drill");
    else {
        engine_status(d->core->engine, st);
        rc = make_fork(d, rep, err);
    }
    if (rc == 0) {
        pthread_mutex_lock(&d->mutex);
        d->out.fork = *rep;
        d->out.forked = true;
        d->out.copy_ms = (double)(env_mono_ns(d->core->env) - from) / 1e6;
        note_tail(d, st, rep);
        pthread_mutex_unlock(&d->mutex);
    }
    free(rep);
    free(st);
    return rc;
}

/* ---- the other process ---- */
static json_t *child_config(const struct drill *d)
{
    const struct config *cfg = d->core->config;
    const struct config_listener *l = &cfg->listeners[0];
    json_t *listener = json_pack("{s:s, s:s}", "address", d->out.address, "tls_disable",
                                 l->tls_disable ? "true" : "false");
    char data[1100], url[300];

    if (!l->tls_disable) {
        json_object_set_new(listener, "tls_cert_file", json_string(l->tls_cert_file));
        json_object_set_new(listener, "tls_key_file", json_string(l->tls_key_file));
    }
    snprintf(data, sizeof(data), "%s/data", d->out.dir);
    snprintf(url, sizeof(url), "%s://%s", l->tls_disable ? "http" : "https", d->out.address);
    return json_pack("{s:{s:{s:s}}, s:{s:o}, s:s, s:s, s:s, s:b}", "storage", "wiredtiger", "path",
                     data, "listener", "tcp", listener, "api_addr", url, "cluster_addr", url,
                     "cluster_name", "drill", "disable_mlock", cfg->disable_mlock);
}

static int write_config(const struct drill *d, char *path, size_t size, struct err *err)
{
    json_t *v = child_config(d);
    int rc = -1;

    snprintf(path, size, "%s/server.json", d->out.dir);
    if (v == NULL)
        err_set(err, ERR_NOMEM, 0, "drill");
    else if (json_dump_file(v, path, JSON_INDENT(1)) != 0)
        err_set(err, ERR_IO, errno, "write %s", path);
    else
        rc = 0;
    json_decref(v);
    return rc;
}

/* A fresh set of signals; nothing of ours open but the pair's end and its log. */
static int spawn(struct drill *d, const char *config, int child_end, struct err *err)
{
    char flag[1200], log[1100], fd[32] = "";
    char *argv[] = {(char *)"lockstep", (char *)"server", flag, fd, NULL};
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int sys;

    snprintf(flag, sizeof(flag), "-config=%s", config);
    snprintf(fd, sizeof(fd), "-drill-fd=%d", CHILD_FD);
    snprintf(log, sizeof(log), "%s/server.log", d->out.dir);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&fa, 1, 2);
    posix_spawn_file_actions_adddup2(&fa, child_end, CHILD_FD);
    posix_spawn_file_actions_addclosefrom_np(&fa, CHILD_FD + 1);
    sys = posix_spawn(&d->pid, "/proc/self/exe", &fa, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&attr);
    if (sys == 0)
        return 0;
    d->pid = 0;
    return err_set(err, ERR_IO, sys, "start the drill's server");
}

static int start(struct drill *d, struct err *err)
{
    char config[1100];
    int pair[2], rc;

    if (write_config(d, config, sizeof(config), err) != 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return err_set(err, ERR_IO, errno, "drill");
    d->fd = pair[0];
    rc = spawn(d, config, pair[1], err);
    close(pair[1]);
    if (rc == 0 && send(d->fd, d->root, BARRIER_KEY_BYTES, MSG_NOSIGNAL) != BARRIER_KEY_BYTES)
        rc = err_set(err, ERR_IO, errno, "hand over to the drill's server");
    return rc;
}

static void drop_root(struct drill *d)
{
    if (d->root != NULL)
        OPENSSL_secure_clear_free(d->root, BARRIER_KEY_BYTES);
    d->root = NULL;
}

/* Its one line; 0: told to stop, or its time is over before it came. */
static int read_report(struct drill *d, int64_t until_ns, struct err *err)
{
    struct pollfd p[2] = {{.fd = d->fd, .events = POLLIN}, {.fd = d->stop_fd, .events = POLLIN}};
    char line[LINE_MAX_BYTES];
    size_t len = 0;

    while (len == 0 || line[len - 1] != '\n') {
        int64_t left = until_ns - env_mono_ns(d->core->env);
        ssize_t n;

        if (left <= 0 || poll(p, 2, (int)(left / 1000000 + 1)) < 0 || p[1].revents != 0)
            return 0;
        if (p[0].revents == 0)
            continue;
        n = len < sizeof(line) ? read(d->fd, line + len, sizeof(line) - len) : 0;
        if (n <= 0)
            return err_set(err, ERR_CLOSED, 0, "the drill's server ended");
        len += (size_t)n;
    }
    pthread_mutex_lock(&d->mutex);
    d->out.child = json_loadb(line, len, 0, NULL);
    pthread_mutex_unlock(&d->mutex);
    if (d->out.child == NULL)
        return err_set(err, ERR_PROTO, 0, "the drill's server reported nothing readable");
    if (json_object_get(d->out.child, "error") != NULL)
        return err_set(err, ERR_IO, 0, "the drill's server: %s",
                       json_string_value(json_object_get(d->out.child, "error")));
    return 1;
}

/* Until its time is over, it is told to stop, or it ends by itself. */
static int let_run(struct drill *d, int64_t until_ns, struct err *err)
{
    struct pollfd p[2] = {{.fd = d->fd, .events = POLLIN}, {.fd = d->stop_fd, .events = POLLIN}};
    int64_t left;

    while ((left = until_ns - env_mono_ns(d->core->env)) > 0) {
        int64_t ms = left / 1000000 + 1;

        if (poll(p, 2, ms < 3600000 ? (int)ms : 3600000) < 0 && errno != EINTR)
            return err_set(err, ERR_IO, errno, "drill");
        if (p[1].revents != 0)
            return 0;
        if (p[0].revents != 0)
            return err_set(err, ERR_CLOSED, 0, "the drill's server ended before its time");
    }
    return 0;
}

/* Its end of the pair goes with it: that is awaited, then the process is reaped. */
static void end_process(struct drill *d)
{
    struct pollfd p = {.fd = d->fd, .events = 0};

    if (d->pid > 0) {
        kill(d->pid, SIGTERM);
        if (poll(&p, 1, STOP_MS) <= 0)
            kill(d->pid, SIGKILL);
        while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    d->pid = 0;
    if (d->fd >= 0)
        close(d->fd);
    d->fd = -1;
}

/* ---- the thread ---- */
static int run(struct drill *d, struct err *err)
{
    int64_t until_ns = env_mono_ns(d->core->env) + d->ttl_s * 1000000000LL;
    int rc;

    if (engine_local_put(d->core->engine, LOCAL_NAME, d->out.dir, strlen(d->out.dir), err) != 0 ||
        mark(d->out.dir, err) != 0 || copy(d, err) != 0)
        return -1;
    move(d, STARTING);
    rc = start(d, err);
    drop_root(d);
    if (rc != 0)
        return -1;
    rc = read_report(d, until_ns, err);
    if (rc <= 0)
        return rc;
    log_info(d->core->log, "drill", "running: address=%s cluster_id=%s lsn=%llu", d->out.address,
             d->out.fork.cluster_id, (unsigned long long)d->out.fork.lsn);
    move(d, RUNNING);
    return let_run(d, until_ns, err);
}

static void *drill_main(void *arg)
{
    struct drill *d = arg;
    struct err err = {0};

    log_info(d->core->log, "drill", "begun: id=%s directory=%s", d->out.id, d->out.dir);
    if (run(d, &err) != 0) {
        log_warn(d->core->log, "drill", "%s", err.msg);
        pthread_mutex_lock(&d->mutex);
        snprintf(d->out.error, sizeof(d->out.error), "%s", err.msg);
        pthread_mutex_unlock(&d->mutex);
    }
    move(d, ENDING);
    drop_root(d);
    end_process(d);
    forget(d, d->out.dir);
    pthread_mutex_lock(&d->mutex);
    d->out.ended_ms = env_wall_ms(d->core->env);
    d->state = NONE;
    pthread_mutex_unlock(&d->mutex);
    log_info(d->core->log, "drill", "ended: id=%s", d->out.id);
    return NULL;
}

/* A thread of an earlier one is joined; it has nothing more to do. */
static int begin_thread(struct drill *d, void *(*fn)(void *), struct err *err)
{
    uint64_t old;
    int sys;

    if (d->joinable)
        pthread_join(d->thread, NULL);
    if (read(d->stop_fd, &old, sizeof(old)) < 0 && errno != EAGAIN)
        return err_set(err, ERR_IO, errno, "drill");
    sys = pthread_create(&d->thread, NULL, fn, d);
    d->joinable = sys == 0;
    return sys == 0 ? 0 : err_set(err, ERR_NOMEM, sys, "drill");
}

/* ---- after a crash ---- */
/* The other process ends when it sees that we did; the lock on its data is free then. */
static void await_gone(struct drill *d)
{
    char path[1100];
    int fd;

    snprintf(path, sizeof(path), "%s/data/lock", d->out.dir);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < STOP_MS / 100 && flock(fd, LOCK_EX | LOCK_NB) != 0; i++)
        if (told_to_stop(d, 100))
            break;
    close(fd);
}

static void *recover_main(void *arg)
{
    struct drill *d = arg;

    log_info(d->core->log, "drill", "removing %s: left by a drill that a crash ended", d->out.dir);
    await_gone(d);
    /* A crash right behind the making of the folder, or right before the end of its removal, leaves
     * it empty and without the mark. With something in it, it is forget's to decide. */
    (void)rmdir(d->out.dir);
    forget(d, d->out.dir);
    move(d, NONE);
    return NULL;
}

void drill_recover(struct core *c)
{
    struct drill *d = c->drill;
    struct buf dir = {0};
    struct err err = {0};

    if (engine_local_get(c->engine, LOCAL_NAME, &dir, &err) == 0) {
        snprintf(d->out.dir, sizeof(d->out.dir), "%s", buf_str(&dir));
        d->state = ENDING;
        err_clear(&err);
        if (begin_thread(d, recover_main, &err) != 0)
            d->state = NONE;
    }
    if (err.code != ERR_OK && err.code != ERR_NOTFOUND)
        log_error(c->log, "drill", "%s", err.msg);
    buf_free(&dir);
}

void drill_end_soon(struct core *c)
{
    uint64_t one = 1;

    if (c->drill != NULL && write(c->drill->stop_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
        log_error(c->log, "drill", "cannot end it: %s", strerror(errno));
}

void drill_stop(struct core *c)
{
    struct drill *d = c->drill;

    if (d == NULL)
        return;
    drill_end_soon(c);
    if (d->joinable)
        pthread_join(d->thread, NULL);
    d->joinable = false;
}

/* ---- requests ---- */
static json_t *time_json(struct request *rq, int64_t ms)
{
    return ms != 0 ? json_string(time_rfc3339(rq->arena, ms)) : json_null();
}

static double number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* What a promotion does: apply what is durable and not applied, log the epoch, note the new
 * address. The barrier is open already. */
static json_t *estimate_json(const struct outcome *o)
{
    double write_ms = number(o->child, "write_ms");

    return json_pack("{s:I, s:f, s:f, s:f}", "tail_transactions", (json_int_t)o->tail,
                     "tail_apply_ms", o->tail_ms, "write_ms", write_ms, "total_ms",
                     o->tail_ms + 2 * write_ms);
}

static json_t *checks_json(const struct outcome *o)
{
    static const char *const counts[] = {"mounts",  "auth_methods",  "tokens",           "policies",
                                         "secrets", "values_opened", "values_not_opened"};
    json_t *v = json_object();

    json_object_set_new(v, "root_equal", json_boolean(o->fork.root_equal));
    json_object_set_new(v, "barrier_opens",
                        json_boolean(number(o->child, "values_not_opened") == 0));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        json_object_set(v, counts[i], json_object_get(o->child, counts[i]));
    return v;
}

static json_t *drill_json(struct request *rq, struct drill *d)
{
    const struct outcome *o = &d->out;
    json_t *v = json_object();
    char root[41];

    json_object_set_new(v, "state", json_string(state_names[d->state]));
    if (o->id[0] == '\0')
        return v;
    json_object_set_new(v, "id", json_string(o->id));
    json_object_set_new(v, "address", json_string(o->address));
    json_object_set_new(v, "directory", json_string(o->dir));
    json_object_set_new(v, "started", time_json(rq, o->started_ms));
    json_object_set_new(v, "ends", time_json(rq, o->ends_ms));
    json_object_set_new(v, "ended", time_json(rq, o->ended_ms));
    json_object_set_new(v, "error", o->error[0] != '\0' ? json_string(o->error) : json_null());
    if (!o->forked)
        return v;
    hex_of(o->fork.root, sizeof(o->fork.root), root);
    json_object_set_new(v, "lsn", json_integer((json_int_t)o->fork.lsn));
    json_object_set_new(v, "merkle_root", json_string(root));
    json_object_set_new(v, "cluster_id", json_string(o->fork.cluster_id));
    json_object_set_new(v, "copy_ms", json_real(o->copy_ms));
    if (o->child != NULL && json_object_get(o->child, "error") == NULL) {
        json_object_set_new(v, "checks", checks_json(o));
        json_object_set_new(v, "promotion_estimate", estimate_json(o));
        json_object_set(v, "unseal_ms", json_object_get(o->child, "unseal_ms"));
    }
    return v;
}

static void reply_state(struct request *rq, struct response *rs)
{
    struct drill *d = rq->core->drill;
    json_t *v;

    pthread_mutex_lock(&d->mutex);
    v = drill_json(rq, d);
    pthread_mutex_unlock(&d->mutex);
    reply_data(rs, v);
}

/* It goes into a configuration file, and into a log. */
static bool address_good(const char *s)
{
    const char *colon = strrchr(s, ':');

    return colon != NULL && colon != s && colon[1] != '\0' && strlen(s) < 200 &&
           strspn(colon + 1, "0123456789") == strlen(colon + 1) &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") ==
               strlen(s);
}

static int take_root(struct drill *d, struct err *err)
{
    struct buf root = {.secret = true};
    int rc = barrier_root(d->core->barrier, &root, err);

    if (rc == 0) {
        d->root = OPENSSL_secure_malloc(BARRIER_KEY_BYTES);
        rc = d->root != NULL ? 0 : err_set(err, ERR_NOMEM, 0, "no guarded memory for the root key");
    }
    if (rc == 0)
        memcpy(d->root, root.data, BARRIER_KEY_BYTES);
    buf_free(&root);
    return rc;
}

/* Under the mutex, in state NONE: the last one's report goes. */
static int begin(struct request *rq, struct drill *d, const char *address, const char *dir,
                 int64_t ttl_s, struct err *err)
{
    json_decref(d->out.child);
    memset(&d->out, 0, sizeof(d->out));
    uuid_new(rq->core, d->out.id);
    snprintf(d->out.address, sizeof(d->out.address), "%s", address);
    snprintf(d->out.dir, sizeof(d->out.dir), "%s", dir);
    d->out.started_ms = rq->now_ms;
    d->out.ends_ms = rq->now_ms + ttl_s * 1000;
    d->ttl_s = ttl_s;
    if (take_root(d, err) != 0)
        return -1;
    if (begin_thread(d, drill_main, err) != 0) {
        drop_root(d);
        return -1;
    }
    d->state = COPYING;
    return 0;
}

static void start_drill(struct request *rq, struct response *rs)
{
    struct drill *d = rq->core->drill;
    const char *address, *dir, *dflt;
    struct err err = {0};
    int64_t ttl_s;
    bool busy;

    dflt = arena_printf(rq->arena, "%s/drill", rq->core->config->storage_path);
    if (field_str(rq, rs, "address", "", &address) != 0 ||
        field_str(rq, rs, "directory", dflt != NULL ? dflt : "", &dir) != 0 ||
        field_seconds(rq, rs, "ttl", TTL_S, &ttl_s) != 0)
        return;
    if (!address_good(address)) {
        reply_error(rs, 400, "address must be given: HOST:PORT, on which the drill is served");
    } else if (dir[0] != '/' || strlen(dir) > 1000) {
        reply_error(rs, 400, "directory must be an absolute path, which does not exist yet");
    } else if (ttl_s <= 0 || ttl_s > TTL_MAX_S) {
        reply_error(rs, 400, "ttl must be from one second to 24 hours");
    } else {
        pthread_mutex_lock(&d->mutex);
        busy = d->state != NONE;
        if (!busy && begin(rq, d, address, dir, ttl_s, &err) != 0)
            reply_err(rs, &err);
        pthread_mutex_unlock(&d->mutex);
        if (busy)
            reply_error(rs, 400,
                        "a drill is under way: end it first with "
                        "sys/replication/dr/secondary/drill/stop");
        else if (rs->errors == NULL)
            reply_state(rq, rs);
    }
}

void drill_handle(struct request *rq, struct response *rs)
{
    bool stop = strcmp(rq->path, "replication/dr/secondary/drill/stop") == 0;
    const char *token;

    if (!replication_dr_token(rq, rs, &token))
        return;
    if (rq->op == OP_READ && !stop) {
        reply_state(rq, rs);
    } else if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
    } else if (stop) {
        drill_end_soon(rq->core);
        reply_state(rq, rs);
    } else if (rq->core->role != ENGINE_SECONDARY) {
        reply_error(rs, 400, "the first copy of the primary's data is not complete");
    } else {
        start_drill(rq, rs);
    }
}
