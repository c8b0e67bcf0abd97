/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * scrub.c - when the scan thread scrubs: one round a pause after the one before, at a bounded rate;
 * or at once and as fast as it goes, when somebody waits for it. Not while the data is copied.
 */
#include "engine_private.h"
#include "log_private.h"
#include "threads_private.h"
#include "time_private.h"
#include "verify_private.h"

#include <stdio.h>

#define SCRUB_BYTES_PER_S ((int64_t)32 << 20) /* rows read by a round that nobody waits for */
#define SCRUB_SLOWER 8                        /* that rate, when the fold is behind */
#define SCRUB_ROW_BYTES 128u                  /* what looking at a row counts as, at least */

static bool due(struct engine *e, int64_t now)
{
    enum engine_role role = engine_role(e);

    if ((role != ENGINE_PRIMARY && role != ENGINE_SECONDARY) || atomic_load(&e->catching_up))
        return false;
    if (atomic_load(&e->store_unreadable))
        return false; /* it is known to be bad */
    return atomic_load(&e->scrub_now) || now >= e->scrub_ns;
}

/* Rows that are not in the cache take cores and cache from the fold, which answers wait for once it
 * is far behind. Slower, and not stopped: a store that is always busy is scrubbed, too. */
static int64_t pause_ns(struct engine *e, size_t bytes)
{
    int64_t ns = (int64_t)bytes * NS_PER_S / SCRUB_BYTES_PER_S;

    return engine_unfolded_bytes(e) >= FOLD_PACED_BYTES ? SCRUB_SLOWER * ns : ns;
}

static void report(struct engine *e, struct store_scrub_result *r)
{
    struct event *ev = event_new(e, EV_SCRUBBED, NULL, 0);

    ev->serial = e->store_serial;
    ev->scrub = (struct scrub_report){
        .lsn = r->lsn, .keys = r->keys, .bytes = r->bytes, .bad_leaves = r->bad};
    while (ev->scrub.named < ENGINE_BAD_LEAVES &&
           store_scrub_names(&r->wrong, ev->scrub.named, &ev->scrub.leaves[ev->scrub.named]))
        ev->scrub.named++;
    ev->buf = r->wrong;
    event_post(e, ev);
}

size_t scrub_step(struct engine *e)
{
    size_t page = e->cfg.copy_page_bytes, bytes = 0;
    int64_t now = env_mono_ns(e->cfg.env);
    struct store_scrub_result r = {0};
    struct err err;
    int rc;

    if (!due(e, now))
        return 0;
    pthread_rwlock_rdlock(&e->store_lock);
    rc = store_scrub_step(e->store, page, page / SCRUB_ROW_BYTES + 1, &bytes, &r, &err);
    if (rc == 2)
        report(e, &r);
    pthread_rwlock_unlock(&e->store_lock);
    if (rc == 2) {
        atomic_store(&e->scrub_now, false);
        e->scrub_ns = now + e->cfg.scrub_interval_ms * NS_PER_MS;
    } else if (rc == 0) {
        e->scrub_ns = now + NS_PER_MS; /* a transaction is under way */
        return 0;
    } else if (rc < 0) {
        log_warn(e->cfg.log, LOG_REPLICATION, "scrub: %s", err.msg);
        e->scrub_ns = now + NS_PER_S;
        return 0;
    } else
        e->scrub_ns = now + pause_ns(e, bytes);
    return 1;
}

/* How long the scan thread may sleep; -1: until it is woken. */
int64_t scrub_wait_ns(struct engine *e)
{
    int64_t now = env_mono_ns(e->cfg.env), most = NS_PER_S;

    if (e->scrub_ns <= now)
        return most; /* not possible now: see again in a while */
    return e->scrub_ns - now < most ? e->scrub_ns - now : most;
}
