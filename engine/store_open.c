/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * store_open.c - open and close the state: WiredTiger, its tables, the tree as the rows have it.
 *
 * What is damaged is not touched: of STORE_ROWS the leaves are not opened and nothing is written,
 * not even the checkpoint at close; of STORE_NOTHING no file is.
 */
#include "store_private.h"
#include "turtle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/random.h>
#include <unistd.h>

#define COMPONENT "storage.wiredtiger"
#define CACHE_BYTES_MIN (256ull << 20)
#define CACHE_BYTES_MAX (4096ull << 20)
#define ROWS_OF_CACHE 32u /* 8 MiB at least hold some 20,000 small rows */
#define ROWS_BYTES_MAX (64ull << 20)
#define CACHE_OF_MEMORY 8u
#define DIRTY_BYTES_MIN (16ull << 20)
/* Small pages, since a random write costs a page in the end; most values fit one. */
#define KV_FORMAT "key_format=S,value_format=u,leaf_page_max=4KB,leaf_value_max=64KB"

/* ---- what WiredTiger says ---- */
static int on_error(WT_EVENT_HANDLER *events, WT_SESSION *session, int error, const char *message)
{
    struct store *s = (struct store *)events;

    (void)session;
    if (message == NULL ||
        strstr(message, "_corrupt_dump") != NULL) /* what the block holds: names of keys, too */
        return 0;
    log_error(s->cfg.log, COMPONENT, "%s", message);
    if (strstr(message, "checksum error") != NULL) /* it has no code of its own */
        atomic_store(&s->unreadable, true);
    if (error == WT_PANIC)
        store_fail(s, "WiredTiger panicked");
    return 0;
}

static void on_flush_failed(void *arg, const char *why)
{
    store_fail(arg, why);
}

static int on_message(WT_EVENT_HANDLER *events, WT_SESSION *session, const char *message)
{
    struct store *s = (struct store *)events;

    (void)session;
    log_info(s->cfg.log, COMPONENT, "%s", message);
    return 0;
}

static int on_progress(WT_EVENT_HANDLER *events, WT_SESSION *session, const char *operation,
                       uint64_t progress)
{
    (void)events;
    (void)session;
    (void)operation;
    (void)progress;
    return 0;
}

/* ---- open and close ---- */
static int make_dir(struct store *s, struct err *err)
{
    if (s->cfg.disk != NULL)
        return s->cfg.disk->ops->mkdir(s->cfg.disk, s->dir, err);
    if (mkdir(s->dir, 0700) != 0 && errno != EEXIST)
        return err_set(err, ERR_IO, errno, "make %s", s->dir);
    return 0;
}

static int files_ready(struct store *s, struct err *err)
{
    if (s->cfg.access == STORE_NOTHING)
        return 0;
    if (make_dir(s, err) != 0)
        return -1;
    /* A killed process may have renamed WiredTiger's root and not synced: what is opened from it
     * overwrites what the root before it needs. */
    if (s->cfg.disk != NULL && s->cfg.disk->ops->sync_dir(s->cfg.disk, s->dir, err) != 0)
        return -1;
    if (s->cfg.disk != NULL && turtle_check(s->cfg.disk, s->dir, err) != 0)
        return err->code == ERR_CORRUPT
                   ? store_corrupt(s, err, "WiredTiger.turtle is not what was written there")
                   : -1;
    return store_backup_forget(s, err);
}

/* What the kernel lets this process have: the machine's memory, or a limit of its control group. */
static uint64_t memory_bytes(void)
{
    uint64_t bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), limit;
    FILE *f = fopen("/sys/fs/cgroup/memory.max", "re"); /* version 2; of the container */

    if (f != NULL) {
        if (fscanf(f, "%" SCNu64, &limit) == 1 && limit < bytes)
            bytes = limit;
        (void)fclose(f);
    }
    return bytes;
}

static uint64_t default_cache_bytes(void)
{
    uint64_t part = memory_bytes() / CACHE_OF_MEMORY;

    return part < CACHE_BYTES_MIN   ? CACHE_BYTES_MIN
           : part > CACHE_BYTES_MAX ? CACHE_BYTES_MAX
                                    : part;
}

/* Checkpoints write what is dirty, once; eviction writes it as often as it gets to it. But all of
 * it must find room on a disk that is at its reserve. */
static uint64_t dirty_bytes(const struct store_config *cfg, uint64_t cache)
{
    uint64_t dirty = cache / 5 * 2,
             room = cfg->dirty_bytes > DIRTY_BYTES_MIN ? cfg->dirty_bytes : DIRTY_BYTES_MIN;

    return cfg->dirty_bytes != 0 && room < dirty ? room : dirty;
}

/* The rows' part and WiredTiger's. */
static int caches_ready(struct store *s, struct err *err)
{
    uint64_t all = s->cfg.cache_bytes != 0 ? s->cfg.cache_bytes : default_cache_bytes();
    uint64_t rows = all / ROWS_OF_CACHE, seed = 0; /* a simulation replays */

    if (!s->cfg.deterministic && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        return err_set(err, ERR_IO, errno, "random bytes");
    if (rows > ROWS_BYTES_MAX)
        rows = ROWS_BYTES_MAX;
    s->cache_bytes = all - rows;
    s->rows = rows_new(rows, seed);
    return s->rows == NULL ? err_set(err, ERR_NOMEM, 0, "store") : 0;
}

static int connect_wt(struct store *s, struct err *err)
{
    uint64_t cache = s->cache_bytes, dirty = dirty_bytes(&s->cfg, cache);
    struct buf c = {0};
    int rc = -1;

    buf_printf(&c,
               "create,cache_size=%" PRIu64 ",log=(enabled=false),session_max=1000,"
               "config_base=false,use_environment=false,statistics=(none)%s",
               cache, s->cfg.access == STORE_NOTHING ? ",in_memory=true" : "");
    if (s->cfg.deterministic)
        buf_adds(&c, ",eviction=(threads_min=1,threads_max=1),eviction_dirty_target=80,"
                     "eviction_dirty_trigger=95,file_manager=(close_idle_time=0)");
    else
        buf_printf(&c,
                   ",eviction=(threads_min=1,threads_max=2),eviction_dirty_target=%" PRIu64
                   ",eviction_dirty_trigger=%" PRIu64,
                   dirty, dirty + dirty / 4);
    if (s->cfg.disk != NULL && s->cfg.access != STORE_NOTHING) {
        wtfs_init(&s->wtfs, s->cfg.disk, s->cfg.log, on_flush_failed, s);
        wtfs_config(&s->wtfs, &c);
    }
    if (buf_check(&c, err) == 0)
        rc = store_wt(s, NULL, wiredtiger_open(s->dir, &s->events, buf_str(&c), &s->conn), "open",
                      err);
    buf_free(&c);
    return rc;
}

static int create_tables(struct store *s, struct err *err)
{
    WT_SESSION *wt;
    int ret;

    if (s->cfg.access == STORE_ROWS)
        return 0;
    ret = s->conn->open_session(s->conn, NULL, NULL, &wt);
    if (ret != 0)
        return store_wt(s, NULL, ret, "open a session", err);
    ret = wt->create(wt, "table:kv", KV_FORMAT);
    if (ret == 0)
        ret = wt->create(wt, "table:leaf", "key_format=I,value_format=u");
    if (ret == 0)
        ret = wt->create(wt, "table:meta", "key_format=S,value_format=u");
    (void)wt->close(wt, NULL);
    return store_wt(s, NULL, ret, "create tables", err);
}

static int load(struct store *s, struct err *err)
{
    struct store_session *ss = s->writer;
    int ret;

    if (store_load_point(s, ss, &s->point, &s->stamp, err) != 0 ||
        (s->cfg.access == STORE_WHOLE && store_load_tree(s, ss, err) != 0))
        return -1;
    ss->meta->set_key(ss->meta, COPY_ROW);
    ret = ss->meta->search(ss->meta);
    if (ret != WT_NOTFOUND && store_wt(s, ss, ret, "read meta", err) != 0)
        return -1;
    s->copying = ret == 0;
    s->checkpoint_lsn = s->point.lsn;
    store_mem_begin(s, &s->point);
    store_session_rest(ss);
    return 0;
}

static struct store *store_new(const struct store_config *cfg, struct err *err)
{
    struct store *s = calloc(1, sizeof(*s));
    pthread_mutexattr_t again;

    if (s == NULL || (s->dir = strdup(cfg->dir)) == NULL) {
        free(s);
        err_set(err, ERR_NOMEM, 0, "store");
        return NULL;
    }
    s->cfg = *cfg;
    s->cfg.dir = s->dir;
    s->events.handle_error = on_error;
    s->events.handle_message = on_message;
    s->events.handle_progress = on_progress;
    pthread_mutexattr_init(&again);
    pthread_mutexattr_settype(&again, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->fail_lock, &again);
    pthread_mutexattr_destroy(&again);
    pthread_mutex_init(&s->pool_lock, NULL);
    pthread_mutex_init(&s->state_lock, NULL);
    pthread_mutex_init(&s->write_lock, NULL);
    pthread_mutex_init(&s->fold_lock, NULL);
    pthread_mutex_init(&s->take_lock, NULL);
    pthread_mutex_init(&s->view_lock, NULL);
    return s;
}

int store_open(const struct store_config *cfg, struct store **sp, struct err *err)
{
    struct store *s = store_new(cfg, err);

    *sp = NULL;
    if (s == NULL)
        return -1;
    if (store_mem_init(s, err) != 0 || merkle_new(&s->tree, err) != 0 || files_ready(s, err) != 0 ||
        caches_ready(s, err) != 0 || connect_wt(s, err) != 0 || create_tables(s, err) != 0 ||
        store_session_open(s, &s->writer, err) != 0 || load(s, err) != 0) {
        err_wrap(err, "open %s", s->dir);
        s->failed = true; /* no checkpoint of what could not be read */
        store_close(s);
        return -1;
    }
    *sp = s;
    return 0;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    if (!s->failed && s->cfg.access == STORE_WHOLE) {
        struct err err = {0};
        struct store_fold f = {0};
        uint64_t lsn;
        int rc;
        do {
            rc = store_fold(s, true, &f, &err);
        } while (rc == 1);
        if (rc != 0 || store_checkpoint(s, &lsn, &err) != 0)
            log_error(s->cfg.log, COMPONENT, "checkpoint at close: %s", err.msg);
    }
    store_backup_end(s);
    store_session_close(s->writer);
    while (s->pool != NULL) {
        struct store_session *ss = s->pool;
        s->pool = ss->next;
        store_session_close(ss);
    }
    if (s->conn != NULL)
        (void)s->conn->close(s->conn, NULL);
    store_scrub_stop(s);
    merkle_free(s->tree);
    buf_free(&s->row);
    buf_free(&s->noted);
    pthread_mutex_destroy(&s->fail_lock);
    pthread_mutex_destroy(&s->pool_lock);
    store_mem_fini(s);
    rows_free(s->rows);
    pthread_mutex_destroy(&s->state_lock);
    pthread_mutex_destroy(&s->write_lock);
    pthread_mutex_destroy(&s->fold_lock);
    pthread_mutex_destroy(&s->take_lock);
    pthread_mutex_destroy(&s->view_lock);
    free(s->dir);
    free(s);
}
