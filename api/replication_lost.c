/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_lost.c - lost writes: shown and given out where they are saved, taken in by the
 * primary.
 *
 * A file of lost writes is a piece of log. What it comes to is a set of entries (storage keys with
 * their last value), in groups: keys that one transaction wrote belong together, as the versions
 * and the metadata of a secret do. A group is taken in whole or not at all: when nothing in it was
 * changed at the primary since the fork, or when the operator says overwrite. A key of kv version 2
 * that was changed is never overwritten: its lost versions become new ones (kv2_lost.c). Only
 * entries of
 * mounts of secrets are taken in; tokens, policies and mounts of a history that ended are shown
 * and stay ended.
 *
 * Values travel as ciphertext and are opened once here, so that what is damaged is never taken in.
 * One that cannot be opened hides none of the others: its entry has `error` in place of `value`,
 * and its group is not taken in.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "kv2_private.h"
#include "mounts.h"
#include "replication_private.h"

#define SECRETS "logical/"
#define GROUPS_PAGE 200
#define PAGE_BYTES ((size_t)8 << 20) /* of values in one answer */
#define ENTRIES_MAX 1000000

struct entry {
    char *key;
    uint64_t lsn; /* of its last record */
    int64_t commit_ms;
    size_t group, len; /* group: index of an entry of the same group; itself: the first */
    bool deletes;
};

struct reading { /* on a helper thread */
    struct core *core;
    const char *id;
    bool values;
    int64_t from; /* group */
    struct engine_lost head;
    struct entry *v;
    size_t n, cap;
    json_t *index; /* key -> place in v */
    size_t first;  /* of this transaction in the group */
    bool any;
    uint64_t lsn;
    int64_t commit_ms;
    uint64_t others;     /* records that are not of secrets */
    uint64_t unreadable; /* values of this answer that cannot be opened */
    struct buf keyring;
    json_t *groups; /* the answer: array of arrays */
    size_t bytes;
    int64_t next;
    struct err err;
    int rc;
};

static size_t root_of(const struct reading *r, size_t i)
{
    while (r->v[i].group != i)
        i = r->v[i].group;
    return i;
}

static int entry_of(struct reading *r, const struct rec *rec, size_t *ip, struct err *err)
{
    char *key = strndup(rec->key, rec->key_len);
    json_t *at = key != NULL ? json_object_get(r->index, key) : NULL;

    if (at != NULL) {
        *ip = (size_t)json_integer_value(at);
        free(key);
        return 0;
    }
    if (r->n == ENTRIES_MAX) {
        free(key);
        return err_set(err, ERR_INVAL, 0, "more than %d entries", ENTRIES_MAX);
    }
    if (key != NULL && r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 256;
        struct entry *v = reallocarray(r->v, cap, sizeof(*v));

        if (v != NULL) {
            r->v = v;
            r->cap = cap;
        }
    }
    if (key == NULL || r->n == r->cap ||
        json_object_set_new(r->index, key, json_integer((json_int_t)r->n)) != 0) {
        free(key);
        return err_set(err, ERR_NOMEM, 0, "lost writes");
    }
    *ip = r->n;
    r->v[r->n] = (struct entry){.key = key, .group = r->n};
    r->n++;
    return 0;
}

static int index_rec(void *arg, const struct rec *rec, struct err *err)
{
    struct reading *r = arg;
    struct entry *e;
    size_t i = 0;

    if (rec->kind != REC_PUT && rec->kind != REC_DELETE)
        return 0;
    if (rec->key_len < strlen(SECRETS) || memcmp(rec->key, SECRETS, strlen(SECRETS)) != 0) {
        r->others++;
        return 0;
    }
    if (entry_of(r, rec, &i, err) != 0)
        return -1;
    e = &r->v[i];
    e->lsn = r->lsn;
    e->commit_ms = r->commit_ms;
    e->deletes = rec->kind == REC_DELETE;
    e->len = rec->value_len;
    if (r->any) { /* with the others of this transaction; the lower place leads */
        size_t a = root_of(r, r->first), b = root_of(r, i);

        r->v[a > b ? a : b].group = a > b ? b : a;
    }
    r->first = i;
    r->any = true;
    return 0;
}

static int index_txn(void *arg, uint64_t lsn, int64_t commit_ms, const uint8_t *data, size_t len,
                     struct err *err)
{
    struct reading *r = arg;

    r->any = false;
    r->lsn = lsn;
    r->commit_ms = commit_ms;
    return txn_each(data, len, index_rec, r, err);
}

/* ---- values: opened by whichever keyring has the term, and sealed anew ---- */
/* *openp: it was opened. false with ERR_CORRUPT: the value itself is the reason. */
static int reseal(struct reading *r, const char *key, const uint8_t *value, size_t len,
                  struct buf *out, bool *openp, struct err *err)
{
    struct barrier *b = r->core->barrier;
    struct buf plain = {.secret = true};
    char path[96];
    int rc;

    snprintf(path, sizeof(path), LOST_KEYRING_PATH "%.63s", r->id);
    rc = r->keyring.len > 0 ? barrier_decrypt_by(b, path, r->keyring.data, r->keyring.len, key,
                                                 value, len, &plain, err)
                            : barrier_decrypt(b, key, value, len, &plain, err);
    *openp = rc == 0;
    if (rc == 0)
        rc = barrier_encrypt(b, key, plain.data, plain.len, out, err);
    buf_free(&plain);
    return rc;
}

struct pick {
    struct reading *r;
    json_t **places; /* of each entry: its object in the answer, or NULL */
};

static int pick_rec(void *arg, const struct rec *rec, struct err *err)
{
    struct pick *p = arg;
    struct reading *r = p->r;
    struct buf sealed = {0}, text = {0};
    char *key;
    json_t *at;
    size_t i;
    int rc = 0;

    if (rec->kind != REC_PUT || rec->key_len < strlen(SECRETS))
        return 0;
    key = strndup(rec->key, rec->key_len);
    at = key != NULL ? json_object_get(r->index, key) : NULL;
    i = at != NULL ? (size_t)json_integer_value(at) : 0;
    if (at != NULL && p->places[i] != NULL && r->v[i].lsn == r->lsn) {
        bool open;

        rc = reseal(r, key, rec->value, rec->value_len, &sealed, &open, err);
        if (rc != 0 && !open && err->code == ERR_CORRUPT) {
            json_object_set_new(p->places[i], "error", json_string(err->msg));
            r->unreadable++;
            err_clear(err);
            rc = 0;
        } else if (rc == 0) {
            base64_write(&text, sealed.data, sealed.len, true);
            rc = buf_check(&text, err);
            if (rc == 0)
                json_object_set_new(p->places[i], "value", json_string(buf_str(&text)));
        }
    }
    buf_free(&sealed);
    buf_free(&text);
    free(key);
    return rc;
}

static int pick_txn(void *arg, uint64_t lsn, int64_t commit_ms, const uint8_t *data, size_t len,
                    struct err *err)
{
    struct pick *p = arg;

    (void)commit_ms;
    p->r->lsn = lsn;
    return txn_each(data, len, pick_rec, p, err);
}

/* ---- one answer ---- */
static json_t *entry_json(const struct entry *e)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I}", "key", e->key, "op",
                     e->deletes ? "delete" : "put", "lsn", (json_int_t)e->lsn, "time_ms",
                     (json_int_t)e->commit_ms, "bytes", (json_int_t)e->len);
}

/* Groups in the order of their first entry, from r->from on. */
static int page(struct reading *r, json_t **places)
{
    json_t **lists = calloc(r->n + 1, sizeof(*lists)); /* by leading entry */
    int64_t group = -1;
    size_t bytes = 0;

    if (lists == NULL)
        return err_set(&r->err, ERR_NOMEM, 0, "lost writes");
    r->next = -1;
    for (size_t i = 0; i < r->n; i++) {
        size_t lead = root_of(r, i);

        if (lead == i) {
            group++;
            if (group >= r->from && r->next < 0 &&
                (json_array_size(r->groups) == GROUPS_PAGE || bytes > PAGE_BYTES))
                r->next = group;
            if (group >= r->from && r->next < 0) {
                lists[i] = json_array();
                json_array_append_new(r->groups, lists[i]);
            }
        }
        if (lists[lead] == NULL)
            continue;
        places[i] = entry_json(&r->v[i]);
        json_array_append_new(lists[lead], places[i]);
        bytes += r->v[i].len;
    }
    free(lists);
    return 0;
}

static void read_run(void *arg)
{
    struct reading *r = arg;
    struct pick p = {.r = r};

    r->index = json_object();
    r->groups = json_array();
    r->rc = engine_lost_each(r->core->engine, r->id, 0, &r->head, index_txn, r, &r->err);
    if (r->rc == 0 && (p.places = calloc(r->n + 1, sizeof(*p.places))) == NULL)
        r->rc = err_set(&r->err, ERR_NOMEM, 0, "lost writes");
    if (r->rc == 0)
        r->rc = page(r, p.places);
    if (r->rc == 0 && r->values)
        r->rc = engine_lost_keyring(r->core->engine, r->id, &r->keyring, &r->err);
    if (r->rc == 0 && r->values)
        r->rc = engine_lost_each(r->core->engine, r->id, 0, &r->head, pick_txn, &p, &r->err);
    free(p.places);
    for (size_t i = 0; i < r->n; i++)
        free(r->v[i].key);
    free(r->v);
    json_decref(r->index);
    buf_free(&r->keyring);
}

/* The mount that a storage key lies in; NULL: none. *restp: within it. */
static const struct mount *mount_of(const struct mount_table *t, const char *key,
                                    const char **restp)
{
    const struct mount *m;

    for (size_t i = 0; (m = mount_at(t, i)) != NULL; i++) {
        size_t n = strlen(m->prefix);

        if (m->builtin || m->auth || n == 0 || strncmp(key, m->prefix, n) != 0)
            continue;
        *restp = key + n;
        return m;
    }
    return NULL;
}

/* For people: the secret's path instead of its storage key (kv1.c, kv2_private.h). */
static json_t *path_json(const struct mount *m, const char *rest)
{
    const char *version = strrchr(rest, '/');

    if (strncmp(rest, "1/", 2) == 0)
        return json_sprintf("%s%s", m->path, rest + 2);
    if (strncmp(rest, "2/meta/", 7) == 0)
        return json_sprintf("%s%s", m->path, rest + 7);
    if (strncmp(rest, "2/data/", 7) == 0)
        return json_sprintf("%s (version %s)", m->path, version + 1);
    return json_sprintf("%s%s", m->path, rest);
}

static int add_paths(struct core *c, json_t *groups, struct err *err)
{
    struct mount_table *t;
    const json_t *g;
    json_t *e;
    size_t i, k;

    if (mount_table_get(c, &t, err) != 0)
        return -1;
    json_array_foreach(groups, i, g)
    {
        json_array_foreach((json_t *)g, k, e)
        {
            const char *rest, *key = json_string_value(json_object_get(e, "key"));
            const struct mount *m = mount_of(t, key, &rest);

            json_object_set_new(e, "path", m != NULL ? path_json(m, rest) : json_string(key));
        }
    }
    mount_table_unref(t);
    return 0;
}

json_t *replication_lost_json(struct request *rq, const struct engine_status *st)
{
    json_t *list = json_array();

    for (size_t i = 0; i < st->n_lost; i++) {
        const struct engine_lost *h = &st->lost[i];
        const char *time = time_rfc3339(rq->arena, h->saved_ms);

        json_array_append_new(
            list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "id", h->id,
                            "epoch", (json_int_t)h->epoch, "fork_lsn", (json_int_t)h->fork_lsn,
                            "first_lsn", (json_int_t)h->first_lsn, "last_lsn",
                            (json_int_t)h->last_lsn, "transactions", (json_int_t)h->transactions,
                            "puts", (json_int_t)h->puts, "deletes", (json_int_t)h->deletes, "whole",
                            (int)h->whole, "saved", time != NULL ? time : ""));
    }
    return list;
}

static void show(struct request *rq, struct response *rs)
{
    struct reading r = {.core = rq->core};
    struct err err = {0};

    if (field_str(rq, rs, "id", "", &r.id) != 0 || field_int(rq, rs, "from", 0, &r.from) != 0 ||
        field_bool(rq, rs, "values", false, &r.values) != 0)
        return;
    run_blocking(read_run, &r);
    err = r.err;
    if (r.rc == 0 && add_paths(rq->core, r.groups, &err) == 0) {
        reply_data(rs,
                   json_pack("{s:s, s:I, s:I, s:b, s:I, s:I, s:I, s:O}", "id", r.head.id, "epoch",
                             (json_int_t)r.head.epoch, "fork_lsn", (json_int_t)r.head.fork_lsn,
                             "whole", (int)r.head.whole, "other_records", (json_int_t)r.others,
                             "unreadable", (json_int_t)r.unreadable, "next", (json_int_t)r.next,
                             "groups", r.groups));
    } else if (err.code == ERR_NOTFOUND)
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
    json_decref(r.groups);
}

static void delete (struct request *rq, struct response *rs)
{
    struct commit *w = commit_new(rq->core);
    struct err err = {0};
    const char *id;

    if (w == NULL) {
        err_set(&err, ERR_NOMEM, 0, "lost writes");
    } else if (field_str(rq, rs, "id", "", &id) != 0) {
        free(w);
        return;
    } else if (commit_wait(w, engine_lost_delete(rq->core->engine, id, commit_done, w, &err) == 0,
                           0, &err) == 0) {
        reply_empty(rs);
        return;
    }
    if (err.code == ERR_NOTFOUND)
        reply_error(rs, 400, "%s", err.msg);
    else
        reply_err(rs, &err);
}

/* ---- apply, on the primary ---- */

struct row { /* of the primary */
    const char *key;
    bool there;
    uint64_t lsn;
    struct buf value;
};

static int row_one(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                   struct err *err)
{
    struct row *r = arg;

    if (strcmp(key, r->key) != 0)
        return 0;
    r->there = true;
    r->lsn = lsn;
    buf_add(&r->value, value, len);
    return buf_check(&r->value, err);
}

enum verdict { APPLIES, ALREADY, CONFLICT };

/* The key as it is here against what it was there, with value NULL: deleted. */
static int judge(struct core *c, const char *key, const struct buf *plain, bool deletes,
                 uint64_t fork_lsn, enum verdict *vp, struct err *err)
{
    struct row r = {.key = key};
    struct buf here = {.secret = true};
    int rc = engine_scan(c->engine, key, NULL, 1, false, row_one, &r, err);

    *vp = r.there && r.lsn > fork_lsn ? CONFLICT : APPLIES;
    if (rc == 0 && deletes && !r.there)
        *vp = ALREADY;
    if (rc == 0 && !deletes && r.there) {
        rc = barrier_decrypt(c->barrier, key, r.value.data, r.value.len, &here, err);
        if (rc == 0 && here.len == plain->len && memcmp(here.data, plain->data, here.len) == 0)
            *vp = ALREADY;
    }
    buf_free(&r.value);
    buf_free(&here);
    return rc;
}

struct applying {
    struct request *rq;
    struct mount_table *mounts;
    uint64_t fork_lsn;
    bool overwrite, dry_run;
    struct batch *batch;
    bool changes, conflicts, bad, no_mount;
    json_t *rows;            /* of the group, in mounts of kv version 2: key -> stored object */
    const char *meta_key;    /* of a key of kv version 2 that was changed here, or NULL */
    const struct mount *kv2; /* its mount */
};

/* For kv2_lost_take. */
static int keep_row(struct applying *a, const struct mount *m, const json_t *e, const char *rest,
                    const struct buf *plain, enum verdict v, struct err *err)
{
    const char *key = json_string_value(json_object_get(e, "key"));
    json_t *row;

    if (strncmp(rest, "2/meta/", 7) == 0 && v == CONFLICT) {
        a->meta_key = key;
        a->kv2 = m;
    }
    if (strncmp(rest, "2/", 2) != 0 || plain->len == 0)
        return 0;
    row = json_read_own(plain->data, plain->len, err);
    if (row == NULL)
        return -1;
    return json_object_set_new(a->rows, key, row) == 0 ? 0
                                                       : err_set(err, ERR_NOMEM, 0, "lost writes");
}

/* Instead of all that was put into the batch. The word for it, or NULL and err. */
static const char *take_versions(struct applying *a, struct err *err)
{
    const char *word;
    int64_t n;

    batch_free(a->batch);
    a->batch = batch_new(a->rq->core);
    if (a->batch == NULL) {
        err_set(err, ERR_NOMEM, 0, "lost writes");
        return NULL;
    }
    if (kv2_lost_take(a->rq, a->kv2, a->meta_key, a->rows, a->batch, &n, err) != 0)
        return NULL;
    a->changes = n > 0;
    if (n == 0)
        return "already";
    if (n < 0 || !a->overwrite)
        return "conflict";
    word = arena_printf(a->rq->arena, "version_%lld", (long long)n);
    if (word == NULL)
        err_set(err, ERR_NOMEM, 0, "lost writes");
    return word;
}

static int take_entry(struct applying *a, const json_t *e, struct err *err)
{
    struct core *c = a->rq->core;
    const char *key = json_string_value(json_object_get(e, "key")), *rest,
               *op = json_string_value(json_object_get(e, "op")),
               *text = json_string_value(json_object_get(e, "value"));
    bool deletes = op != NULL && strcmp(op, "delete") == 0;
    struct buf raw = {0}, plain = {.secret = true};
    const struct mount *m;
    enum verdict v;
    size_t n = 0, at;
    int rc = 0;

    if (key == NULL || op == NULL || (!deletes && text == NULL)) {
        a->bad = true;
        return 0;
    }
    m = mount_of(a->mounts, key, &rest);
    if (m == NULL) {
        a->no_mount = true;
        return 0;
    }
    if (!deletes) {
        if (buf_reserve(&raw, strlen(text) + 1) == NULL)
            return err_set(err, ERR_NOMEM, 0, "lost writes");
        if (base64_read(text, true, raw.data, strlen(text), &n, &at) != 0 ||
            barrier_decrypt(c->barrier, key, raw.data, n, &plain, err) != 0) {
            err_clear(err);
            a->bad = true;
            goto out;
        }
        raw.len = n;
    }
    rc = judge(c, key, &plain, deletes, a->fork_lsn, &v, err);
    if (rc == 0 && m->kv_version == 2)
        rc = keep_row(a, m, e, rest, &plain, v, err);
    if (rc != 0 || v == ALREADY)
        goto out;
    a->conflicts = a->conflicts || v == CONFLICT;
    a->changes = true;
    rc = deletes ? batch_delete(a->batch, key, err)
                 : batch_put_clear(a->batch, key, raw.data, raw.len, err);
out:
    buf_free(&raw);
    buf_free(&plain);
    return rc;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Nobody changes an entry of the group between the look at it and the write. */
static size_t hold(struct core *c, const json_t *group, struct latch_ref *refs, const char **keys)
{
    size_t n = 0, held = 0, i;
    const json_t *e;

    json_array_foreach((json_t *)group, i, e)
    {
        const char *key = json_string_value(json_object_get(e, "key"));

        if (key != NULL)
            keys[n++] = key;
    }
    qsort(keys, n, sizeof(*keys), by_text);
    for (i = 0; i < n; i++) {
        if (i == 0 || strcmp(keys[i], keys[i - 1]) != 0)
            latch_acquire(c, keys[i], &refs[held++]);
    }
    return held;
}

static const char *word_of(struct applying *a, struct err *err)
{
    if (a->bad || a->no_mount)
        return a->bad ? "unreadable" : "no_mount";
    if (a->meta_key != NULL)
        return take_versions(a, err);
    if (a->conflicts && !a->overwrite)
        return "conflict";
    return !a->changes ? "already" : a->conflicts ? "overwritten" : "applied";
}

/* The word for what became of it, or NULL and err. */
static const char *take_group(struct applying *a, const json_t *group, struct err *err)
{
    struct core *c = a->rq->core;
    size_t n = json_array_size(group), held, i;
    struct latch_ref *refs = calloc(n + 1, sizeof(*refs));
    const char **keys = calloc(n + 1, sizeof(*keys)), *word = NULL;
    const json_t *e;
    int rc = 0;

    a->changes = a->conflicts = a->bad = a->no_mount = false;
    a->meta_key = NULL;
    a->rows = json_object();
    a->batch = batch_new(c);
    if (refs == NULL || keys == NULL || a->batch == NULL || a->rows == NULL) {
        err_set(err, ERR_NOMEM, 0, "lost writes");
        held = 0;
        goto out;
    }
    held = hold(c, group, refs, keys);
    json_array_foreach((json_t *)group, i, e)
    {
        if (rc == 0)
            rc = take_entry(a, e, err);
    }
    if (rc != 0)
        goto out;
    word = word_of(a, err);
    if (word == NULL || a->dry_run || !a->changes || strcmp(word, "conflict") == 0 || a->bad ||
        a->no_mount)
        goto out;
    rc = batch_commit(a->batch, err);
    a->batch = NULL;
    if (rc != 0)
        word = NULL;
out:
    batch_free(a->batch);
    json_decref(a->rows);
    while (held > 0)
        latch_release(c, &refs[--held]);
    free(refs);
    free(keys);
    return word;
}

/* Arrays of entries, none of them empty. */
static bool groups_good(json_t *groups)
{
    json_t *g, *e;
    size_t i, k;

    json_array_foreach(groups, i, g)
    {
        if (json_array_size(g) == 0)
            return false;
        json_array_foreach(g, k, e)
        {
            if (!json_is_object(e))
                return false;
        }
    }
    return json_is_array(groups);
}

static void apply(struct request *rq, struct response *rs)
{
    struct applying a = {.rq = rq};
    json_t *groups = json_object_get(rq->data, "groups"), *words;
    const json_t *g;
    int64_t fork;
    struct err err = {0};
    size_t i;

    if (field_int(rq, rs, "fork_lsn", -1, &fork) != 0 ||
        field_bool(rq, rs, "overwrite", false, &a.overwrite) != 0 ||
        field_bool(rq, rs, "dry_run", false, &a.dry_run) != 0)
        return;
    if (fork < 0 || !groups_good(groups)) {
        reply_error(rs, 400, "fork_lsn and groups must be provided, as lost/show gives them");
        return;
    }
    if (mount_table_get(rq->core, &a.mounts, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    a.fork_lsn = (uint64_t)fork;
    words = json_array();
    json_array_foreach(groups, i, g)
    {
        const char *word = take_group(&a, g, &err);

        if (word == NULL)
            break;
        json_array_append_new(words, json_string(word));
    }
    mount_table_unref(a.mounts);
    if (err.code != ERR_OK) {
        json_decref(words);
        reply_err(rs, &err); /* what was taken in stays; the same call goes on */
        return;
    }
    log_info(rq->core->log, "replication", "lost writes: %zu groups looked at%s",
             json_array_size(words), a.dry_run ? ", nothing written" : "");
    reply_data(rs, json_pack("{s:o}", "results", words));
}

void replication_lost_handle(struct request *rq, struct response *rs)
{
    const char *verb = strrchr(rq->path, '/') + 1;
    bool on_primary = strncmp(rq->path, "replication/dr/primary/", 23) == 0;
    const char *token;

    if (!on_primary && !replication_dr_token(rq, rs, &token))
        return;
    if (strcmp(verb, "show") == 0)
        show(rq, rs);
    else if (strcmp(verb, "delete") == 0)
        delete (rq, rs);
    else if (strcmp(verb, "apply") == 0 && on_primary && rq->core->role == ENGINE_PRIMARY)
        apply(rq, rs);
    else
        reply_unsupported_path(rs);
}
