/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * audit.c - the set of audit devices, and writing to them.
 *
 * The set is an immutable snapshot that requests reference. A change of a row makes it stale; the
 * next request reads the rows and opens the files anew, and the last who used the old set closes
 * its files. Lines are written by a helper thread: a file system that hangs holds the requests that
 * it must record, and no reactor. Lines that come while a reactor's are being written wait, and go
 * together with the next: one hand-over to the helper for many requests.
 */
#include "audit_private.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core_private.h"
#include "sys.h"

/* Lines of one reactor's requests that wait to be written; its thread's alone. */
struct lines_queue {
    struct writing *first, **end;
    bool busy; /* somebody writes, and will see to what comes meanwhile */
};

struct audits {
    struct lines_queue queues[REACTORS_MAX];
    pthread_mutex_t lock; /* current, and the refs of every set */
    struct audit_set *current;
    _Atomic uint64_t changes;
    _Atomic bool refusing; /* no device took the last line */
};

static void set_free(struct audit_set *s)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->devices[i].fd > STDERR_FILENO)
            close(s->devices[i].fd);
        free(s->devices[i].path);
        hmac_fini(&s->devices[i].hash);
        free(s->devices[i].prefix);
    }
    free(s->devices);
    json_decref(s->headers);
    free(s);
}

static void set_unref(struct audits *as, struct audit_set *s)
{
    bool last;

    pthread_mutex_lock(&as->lock);
    last = --s->refs == 0;
    pthread_mutex_unlock(&as->lock);
    if (last)
        set_free(s);
}

static void changed(void *arg, const char *key, uint64_t lsn)
{
    struct core *c = arg;

    (void)key;
    (void)lsn;
    audits_forget(c);
}

int audits_new(struct core *c, struct err *err)
{
    struct audits *as = calloc(1, sizeof(*as));

    if (as == NULL)
        return err_set(err, ERR_NOMEM, 0, "audit");
    pthread_mutex_init(&as->lock, NULL);
    atomic_init(&as->changes, 1);
    c->audits = as;
    if (engine_watch(c->engine, AUDIT_FOLDER, changed, c, err) == 0 &&
        engine_watch(c->engine, AUDIT_HEADERS_ROW, changed, c, err) == 0)
        return 0;
    audits_free(c);
    return -1;
}

void audits_free(struct core *c)
{
    if (c->audits == NULL)
        return;
    if (c->audits->current != NULL)
        set_free(c->audits->current);
    pthread_mutex_destroy(&c->audits->lock);
    free(c->audits);
    c->audits = NULL;
}

void audits_forget(struct core *c)
{
    if (c->audits != NULL)
        atomic_fetch_add(&c->audits->changes, 1);
}

/* ---- opening ---- */

/* Go's text of an errno: as C's, in lower case. */
static const char *why(struct arena *a, const char *path, int code)
{
    char text[128];
    const char *s = strerror_r(code, text, sizeof(text));

    return arena_printf(a, "open %s: %c%s", path, s[0] >= 'A' && s[0] <= 'Z' ? s[0] + 32 : s[0],
                        s + 1);
}

static int make_parents(const char *path, mode_t mode)
{
    char *copy = strdup(path);
    int rc = copy != NULL ? 0 : -1;

    for (char *p = copy; rc == 0 && (p = strchr(p + 1, '/')) != NULL;) {
        *p = '\0';
        if (mkdir(copy, mode) != 0 && errno != EEXIST)
            rc = -1;
        *p = '/';
    }
    free(copy);
    return rc;
}

static const char *option(const json_t *options, const char *name, const char *dflt)
{
    const char *s = json_string_value(json_object_get(options, name));

    return s != NULL && s[0] != '\0' ? s : dflt;
}

struct opening { /* for the helper thread */
    const char *path;
    mode_t mode;
    bool keep_mode, parents;
    int fd, code;
};

static void open_work(void *arg)
{
    struct opening *o = arg;

    o->fd = -1;
    if (!o->parents || make_parents(o->path, 0700) == 0)
        o->fd = open(o->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, o->mode);
    o->code = errno;
    if (o->fd >= 0 && !o->keep_mode && fchmod(o->fd, o->mode) != 0 && errno != EPERM) {
        o->code = errno;
        close(o->fd);
        o->fd = -1;
    }
}

int audit_open(struct request *rq, const char *name, const json_t *options, bool *discardp,
               int *fdp, const char **whyp)
{
    const char *path = option(options, "file_path", option(options, "path", "")),
               *mode = option(options, "mode", "0600");
    bool apart = engine_apart(rq->core->engine); /* a copy's lines are not for the real files */
    struct opening o = {.path = path, .parents = apart || rq->core->role == ENGINE_PRIMARY};
    char *end;

    *fdp = -1;
    *discardp = strcmp(path, "discard") == 0;
    if (*discardp)
        return 0;
    if (strcmp(path, "stdout") == 0) {
        *fdp = STDOUT_FILENO;
        return 0;
    }
    if (apart)
        o.path = arena_printf(rq->arena, "%s/audit/%.*s.audit", rq->core->config->storage_path,
                              (int)strcspn(name, "/"), name);
    if (o.path == NULL) {
        *whyp = "out of memory";
        return -1;
    }
    o.mode = (mode_t)strtoul(mode, &end, 8);
    o.keep_mode = o.mode == 0;
    if (*end != '\0' || o.mode > 0777) {
        *whyp = arena_printf(rq->arena, "invalid mode %s", mode);
        return -1;
    }
    if (o.keep_mode)
        o.mode = 0600;
    co_blocking(open_work, &o);
    *fdp = o.fd;
    if (o.fd >= 0)
        return 0;
    *whyp = why(rq->arena, o.path, o.code);
    return -1;
}

/* ---- the set ---- */

static int device_load(struct request *rq, const char *name, struct audit_device *d,
                       struct err *err)
{
    struct core *c = rq->core;
    const char *key = arena_printf(rq->arena, AUDIT_FOLDER "%s", name), *reason = "";
    const json_t *options;
    const char *salt;
    bool yes;
    json_t *row;
    int rc;

    if (key == NULL)
        return err_set(err, ERR_NOMEM, 0, "audit");
    if (storage_get(c, key, &row, err) != 0)
        return -1;
    options = json_object_get(row, "options");
    *d = (struct audit_device){.fd = -1, .hmac_accessor = true};
    d->path = strdup(name);
    salt = option(row, "salt", "");
    d->prefix = strdup(option(options, "prefix", ""));
    if (parse_bool(option(options, "log_raw", "false"), &yes) == 0)
        d->log_raw = yes;
    if (parse_bool(option(options, "hmac_accessor", "true"), &yes) == 0)
        d->hmac_accessor = yes;
    if (audit_open(rq, name, options, &d->discard, &d->fd, &reason) != 0)
        log_error(c->log, "audit", "cannot open the device: path=%s/ error=%s", name, reason);
    rc = hmac_init(&d->hash, salt, strlen(salt), err);
    json_decref(row);
    if (rc == 0 && (d->path == NULL || d->prefix == NULL))
        rc = err_set(err, ERR_NOMEM, 0, "audit");
    return rc;
}

static int set_load(struct request *rq, uint64_t changes, struct audit_set **sp, struct err *err)
{
    struct audit_set *s = calloc(1, sizeof(*s));
    json_t *names = NULL, *v;
    size_t i;
    int rc = -1;

    *sp = NULL;
    if (s == NULL)
        return err_set(err, ERR_NOMEM, 0, "audit");
    s->refs = 1;
    s->changes = changes;
    if (storage_list(rq->core, AUDIT_FOLDER, &names, err) != 0 ||
        setting_get(rq->core, AUDIT_HEADERS_ROW, &s->headers, err) != 0)
        goto out;
    s->devices = calloc(json_array_size(names) + 1, sizeof(*s->devices));
    if (s->devices == NULL) {
        err_set(err, ERR_NOMEM, 0, "audit");
        goto out;
    }
    json_array_foreach(names, i, v)
    {
        s->n++;
        if (device_load(rq, json_string_value(v), &s->devices[i], err) != 0)
            goto out;
    }
    *sp = s;
    s = NULL;
    rc = 0;
out:
    json_decref(names);
    if (s != NULL)
        set_free(s);
    return rc;
}

/* The current set with a reference. */
static int set_get(struct request *rq, struct audit_set **sp, struct err *err)
{
    struct audits *as = rq->core->audits;
    struct audit_set *fresh, *old = NULL;
    uint64_t changes = atomic_load(&as->changes);

    pthread_mutex_lock(&as->lock);
    *sp = as->current != NULL && as->current->changes == changes ? as->current : NULL;
    if (*sp != NULL)
        (*sp)->refs++;
    pthread_mutex_unlock(&as->lock);
    if (*sp != NULL)
        return 0;
    if (set_load(rq, changes, &fresh, err) != 0)
        return -1;
    fresh->refs++; /* one is the caller's */
    pthread_mutex_lock(&as->lock);
    old = as->current;
    as->current = fresh;
    pthread_mutex_unlock(&as->lock);
    if (old != NULL)
        set_unref(as, old);
    *sp = fresh;
    return 0;
}

/* ---- writing ---- */

struct writing { /* of one request, on its stack */
    struct writing *next;
    struct co *co;
    bool done;  /* the lines are written, or could not be */
    bool leads; /* it is to write what waits, its own first */
    const struct audit_set *set;
    struct buf *lines; /* one a device */
    size_t taken;
};

static void write_one(struct writing *w)
{
    for (size_t i = 0; i < w->set->n; i++) {
        const struct buf *b = &w->lines[i];
        ssize_t n;

        if (w->set->devices[i].discard) {
            w->taken++;
            continue;
        }
        if (w->set->devices[i].fd < 0 || b->failed || b->len == 0)
            continue;
        do
            n = write(w->set->devices[i].fd, b->data, b->len); /* one line, one write */
        while (n < 0 && errno == EINTR);
        w->taken += n == (ssize_t)b->len;
    }
}

static void write_work(void *arg) /* helper thread */
{
    for (struct writing *w = arg; w != NULL; w = w->next)
        write_one(w);
}

static struct lines_queue *queue_here(struct core *c)
{
    struct reactor *r = reactor_current();

    for (size_t i = 0; i < c->n_reactors; i++)
        if (c->reactors[i] == r)
            return &c->audits->queues[i];
    return NULL;
}

/* Returns when the lines of w are written. Who finds nobody writing writes what is there, then
 * leaves the rest to the first of those that came meanwhile. */
static void write_lines(struct core *c, struct writing *w)
{
    struct lines_queue *q = queue_here(c);
    struct writing *all, *next;

    if (q == NULL) {
        co_blocking(write_work, w);
        return;
    }
    w->co = co_current();
    if (q->first == NULL)
        q->end = &q->first;
    *q->end = w;
    q->end = &w->next;
    while (q->busy && !w->done && !w->leads)
        co_wait();
    if (w->done)
        return;
    q->busy = true;
    all = q->first;
    q->first = NULL;
    co_blocking(write_work, all);
    for (struct writing *one = all; one != NULL; one = next) {
        next = one->next; /* it lies on a stack that goes on */
        one->done = true;
        if (one != w)
            co_wake(one->co);
    }
    if (q->first != NULL) {
        q->first->leads = true;
        co_wake(q->first->co);
    } else {
        q->busy = false;
    }
}

static int tell(struct request *rq, struct response *rs, const struct audit_facts *f)
{
    struct audit_set *set = NULL;
    struct writing w = {0};
    struct err err = {0};
    int rc = -1;

    if (rq->core->audits == NULL)
        return 0;
    if (set_get(rq, &set, &err) != 0) {
        log_error(rq->core->log, "audit", "cannot read the devices: %s", err.msg);
        return -1;
    }
    if (set->n == 0) {
        rc = 0;
        goto out;
    }
    w.set = set;
    w.lines = calloc(set->n, sizeof(*w.lines));
    if (w.lines == NULL || (rs != NULL && response_data(rs, &err) != 0))
        goto out;
    for (size_t i = 0; i < set->n; i++) {
        w.lines[i].secret = true;
        if (!set->devices[i].discard &&
            audit_line(set, &set->devices[i], rq, rs, f, &w.lines[i]) != 0)
            buf_clear(&w.lines[i]);
    }
    write_lines(rq->core, &w);
    rc = w.taken > 0 ? 0 : -1;
    atomic_store(&rq->core->audits->refusing, rc != 0);
    if (rc != 0)
        log_error(rq->core->log, "audit", "no audit device took the line: path=%s", rq->full_path);
out:
    for (size_t i = 0; w.lines != NULL && i < set->n; i++)
        buf_free(&w.lines[i]);
    free(w.lines);
    set_unref(rq->core->audits, set);
    return rc;
}

bool audit_unwritable(struct core *c, char *names, size_t len)
{
    struct request rq = {.core = c, .arena = arena_new(4096)};
    struct audit_set *set = NULL;
    struct err err = {0};
    size_t broken = 0, at = 0;
    bool all = false, refusing;

    names[0] = '\0';
    if (c->role != ENGINE_PRIMARY)
        audits_forget(c);
    /* The rows cannot be read: sealed, or in the middle of a switch. */
    if (c->audits == NULL || core_sealed(c) || rq.arena == NULL || set_get(&rq, &set, &err) != 0)
        goto out;
    refusing = atomic_load(&c->audits->refusing); /* a full disk: the files are open */
    for (size_t i = 0; i < set->n; i++) {
        if (!refusing && (set->devices[i].fd >= 0 || set->devices[i].discard))
            continue;
        if (at < len)
            at += (size_t)snprintf(names + at, len - at, "%s%s/", broken > 0 ? ", " : "",
                                   set->devices[i].path);
        broken++;
    }
    if (broken > 0)
        audits_forget(c);
    all = broken > 0 && broken == set->n;
    set_unref(c->audits, set);
out:
    arena_free(rq.arena);
    return all;
}

bool audit_on(struct request *rq)
{
    struct audit_set *set = NULL;
    struct err err = {0};
    bool on;

    if (rq->core->audits == NULL)
        return false;
    if (set_get(rq, &set, &err) != 0)
        return true; /* then no line can be written, and nothing is executed */
    on = set->n > 0;
    set_unref(rq->core->audits, set);
    return on;
}

int audit_request(struct request *rq, const struct audit_facts *f)
{
    return tell(rq, NULL, f);
}

int audit_response(struct request *rq, struct response *rs, const struct audit_facts *f)
{
    return tell(rq, rs, f);
}

int audit_hash(const struct hmac *salted, const char *text, size_t len,
               char out[AUDIT_HMAC_CHARS + 1])
{
    uint8_t md[32];

    if (hmac_of(salted, text, len, md, NULL) != 0)
        return -1;
    memcpy(out, "hmac-sha256:", 12);
    hex_of(md, sizeof(md), out + 12);
    return 0;
}
