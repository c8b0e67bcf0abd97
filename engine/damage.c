/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * damage.c - a store of ours whose files cannot be read, as by a block with a wrong checksum.
 *
 * WiredTiger ends its use at the first one, and the process with it: what lies in it cannot be
 * known. A note in the local file tells the next start: the number of the generation and, of a
 * secondary, how much of the store is opened then. A copy that was being made is dropped. Else:
 *     nothing noted     all of it. Ends it while it is opened or recovered: rows; later: number
 *     "<number>"        all of it. Ends it again: rows
 *     "<number> rows"   keys and point; no tree, no recovery, and nothing is written. Ends it
 *                       again (a row that every start needs, or the point): nothing
 *     "<number> nothing"   no file of it
 * So a service manager that starts it again brings any secondary to where it follows, in three
 * starts at most. It asks for a copy, of everything, since nothing here is to be compared with. The
 * log is whole: what is committed in it is told to the primary as ever, and kept until the switch.
 * With rows or nothing it is not promotable: what the log has beyond the store cannot be applied.
 *
 * A primary has nobody to take its data from. It opens all of it, each time.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "roles_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NOTE "unreadable"

static const char *const words[] = {
    [STORE_WHOLE] = "", [STORE_ROWS] = " rows", [STORE_NOTHING] = " nothing"};

static bool follows(const struct engine *e)
{
    return engine_role(e) == ENGINE_SECONDARY || engine_role(e) == ENGINE_BOOTSTRAPPING;
}

static int set_note(struct gen *g, struct err *err)
{
    enum store_access next = STORE_WHOLE;
    char text[48];

    if (follows(g->e) && g->access != STORE_WHOLE)
        next = STORE_NOTHING;
    else if (follows(g->e) && (g->opening || g->unreadable))
        next = STORE_ROWS;
    snprintf(text, sizeof(text), "%" PRIu32 "%s", g->number, words[next]);
    return local_set_text(g->e, NOTE, text, err) != 0 ? -1 : local_save(g->e, err);
}

void damage_panic(void *arg, const char *why, bool unreadable)
{
    struct gen *g = arg;
    struct logger *log = g->e->cfg.log;
    struct err err, note;

    err_set(&err, ERR_IO, 0, "WiredTiger in %s: %s", g->store_dir, why);
    if (unreadable) {
        if (set_note(g, &note) != 0)
            log_error(log, "storage", "note that %s cannot be read: %s", g->store_dir, note.msg);
        log_error(log, "storage", "%s has a block that cannot be read: %s%s", g->dir,
                  follows(g->e)
                      ? "the next start of this secondary takes its data anew from the primary"
                      : "promote a secondary, or restore a snapshot into a new data directory",
                  !follows(g->e) && g->opening ? "; starting again does not help" : "");
    }
    engine_fatal(g->e, &err);
}

/* number: of a generation; *accessp only when it is the one that is noted. */
static bool noted(struct engine *e, uint64_t number, enum store_access *accessp)
{
    struct buf b = {0};
    struct err none;
    uint64_t bad;
    bool there;

    local_number(e, NOTE, &bad, &there);
    if (!there || bad != number || local_get_locked(e, NOTE, &b, &none) != 0)
        return false;
    *accessp = strstr(buf_str(&b), words[STORE_NOTHING]) != NULL ? STORE_NOTHING
               : strstr(buf_str(&b), words[STORE_ROWS]) != NULL  ? STORE_ROWS
                                                                 : STORE_WHOLE;
    buf_free(&b);
    return true;
}

int damage_drop_copy(struct engine *e, uint64_t copy, bool *copyingp, struct err *err)
{
    enum store_access none;

    if (!*copyingp || !noted(e, copy, &none))
        return 0;
    *copyingp = false;
    if (local_set_text(e, "copy", NULL, err) != 0 || local_set_text(e, NOTE, NULL, err) != 0)
        return -1;
    return local_save(e, err);
}

void damage_load(struct engine *e, struct gen *g)
{
    enum store_access access;

    if (!noted(e, g->number, &access))
        return;
    g->unreadable = true;
    g->access = follows(e) ? access : STORE_WHOLE;
    if (!follows(e))
        log_error(e->cfg.log, "storage",
                  "%s has a block that cannot be read: promote a secondary, or restore a snapshot "
                  "into a new data directory",
                  g->dir);
    else
        log_error(e->cfg.log, "storage",
                  "%s has a block that cannot be read: this secondary takes all of its data anew "
                  "from the primary%s",
                  g->dir,
                  g->access == STORE_WHOLE
                      ? ", and can be promoted as far as it can be read"
                      : ", and cannot be promoted before it is here: nothing is applied meanwhile");
}

uint64_t damage_commit_lsn(struct engine *e, uint64_t applied_lsn)
{
    uint64_t lsn = fence_noted_commit(e), base = wal_base(e->cur->wal)->lsn;

    if (lsn < applied_lsn)
        lsn = applied_lsn;
    return lsn > base ? lsn : base; /* what is gone from the log was applied */
}

bool gen_applies(const struct gen *g)
{
    return g->access == STORE_WHOLE;
}
