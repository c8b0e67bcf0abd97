/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * diff.c - the secondary's side of catching up by difference, until all ranges are here (copy.c has
 * the rest). One question is out at a time, and one job of the apply thread; each is asked again on
 * the next connection.
 *
 *     CLONE   the old store is read page by page into the new one
 *     TREE    sums of parts of the tree, from the top down (parts.h), at most 7 questions; then the
 *             leaves that differ are told, and the first list comes with a sum of all others, which
 *             proves them equal. Is it not as here, the tree is compared again with another salt.
 *     RANGES  a list of hashes of the entries in leaves that differ, range by range; the apply
 *             thread compares; what is missing is fetched. With nothing in common: pages of all
 *             entries.
 *
 * With a primary of version 2 of the protocol the tree is compared level by level in 4 questions of
 * 16 children, and what is wanted is told by its hashes; of version 1, all is pages.
 *
 * Bytes: 16 a key in differing leaves for the list, a bit for each that is wanted or not, the
 * entries themselves, and some 25 or fewer for each leaf that differs.
 */
#include "engine_private.h"
#include "follow_private.h"
#include "parts.h"
#include "ship_private.h"
#include "threads_private.h"

#include <endian.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define PARTS_TRIES_MAX 3u /* on one connection; one in thousands of large differences fails */

/* ---- small parts ---- */
static struct conn *primary_conn(struct engine *e)
{
    return conn_find(e, e->follow.conn_id);
}

static void ask(struct engine *e, const struct link_msg *m)
{
    conn_send(e, primary_conn(e), m, NULL);
    e->follow.moved_bytes += LINK_FRAME_HEAD_BYTES + e->out.len;
    e->follow.asked = true;
    e->follow.asked_ns = env_mono_ns(e->cfg.env);
}

static void refuse(struct engine *e, const char *why)
{
    conn_close(e, primary_conn(e), why);
}

/* An answer of a state that our log does not reach back to is of no use: of a primary that has not
 * applied yet what the one before it had. */
static bool too_old(struct engine *e, uint64_t lsn)
{
    if (lsn >= wal_base(e->copy->wal)->lsn)
        return false;
    refuse(e, "an answer older than the log of the copy");
    return true;
}

struct job *copy_job(struct engine *e, enum job_kind kind)
{
    struct job *j = job_new(e, kind);

    j->gen = e->copy;
    j->conn = e->follow.conn_id;
    j->lsn = wal_base(e->copy->wal)->lsn;
    j->moved_bytes = e->follow.moved_bytes;
    j->started_ms = e->follow.copy_started_ms;
    e->follow.job_out = true;
    return j;
}

static struct diff_range *range_new(struct engine *e)
{
    struct diff_range *r = calloc(1, sizeof(*r));
    struct err err;

    if (r == NULL) {
        err_set(&err, ERR_NOMEM, 0, "range of a copy");
        engine_fatal(e, &err);
    }
    return r;
}

void diff_range_free(struct diff_range *r)
{
    if (r == NULL)
        return;
    buf_free(&r->hashes);
    buf_free(&r->missing);
    free(r);
}

void diff_forget(struct follow *f)
{
    f->asked = false;
    f->leaves_told = false;
    f->keys_asked = false;
    parts_free(f->parts);
    f->parts = NULL;
    f->parts_failed = 0;
    buf_free(&f->nodes);
    diff_range_free(f->range);
    f->range = NULL;
}

/* ---- the clone ---- */
static size_t clone_step(struct engine *e)
{
    struct job *j = copy_job(e, JOB_COPY_CLONE);

    j->arg = e->cur->store;
    job_post(e, j);
    return 1;
}

/* ---- the tree ---- */
static uint16_t node_at(const struct buf *nodes, size_t i)
{
    uint16_t v;

    memcpy(&v, nodes->data + 2 * i, 2);
    return be16toh(v);
}

static void add_node(struct buf *nodes, uint32_t v)
{
    uint16_t be = htobe16((uint16_t)v);

    buf_add(nodes, &be, sizeof(be));
}

static void tree_begins(struct engine *e)
{
    struct follow *f = &e->follow;

    f->at.low_lsn = f->at.high_lsn = 0;
    memset(f->at.leaves, 0, sizeof(f->at.leaves));
    log_info(e->cfg.log, LOG_REPLICATION, "starting merkle diff");
}

/* Of a primary of version 2. */
static void ask_tree(struct engine *e)
{
    struct follow *f = &e->follow;
    struct link_msg m = {.type = MSG_TREE_REQUEST};

    if (f->nodes.len == 0) {
        tree_begins(e);
        f->level = 0;
        add_node(&f->nodes, 0);
    }
    m.tree_request.level = f->level;
    m.tree_request.nodes = f->nodes.data;
    m.tree_request.n = f->nodes.len / 2;
    ask(e, &m);
}

static void note_lsn(struct store_copy *at, uint64_t lsn)
{
    if (at->low_lsn == 0 || lsn < at->low_lsn)
        at->low_lsn = lsn;
    if (lsn > at->high_lsn)
        at->high_lsn = lsn;
}

/* Which leaves differ is known. first: the list that came with the proof of it, or NULL. */
static void tree_done(struct engine *e, size_t differ, struct diff_range *first)
{
    struct follow *f = &e->follow;
    struct job *j = copy_job(e, JOB_COPY_LEAVES);

    f->at.phase = differ > 0 ? STORE_RANGES : STORE_FOLD;
    j->range = first;
    buf_add(&j->buf, &f->at, sizeof(f->at));
    log_info(e->cfg.log, LOG_REPLICATION, "%s%zu of %u leaves differ, %" PRIu64 " keys here",
             differ > 0 ? "starting merkle sync: " : "merkle diff: ", differ, MERKLE_LEAVES,
             f->at.keys);
    if (j->buf.failed) {
        struct err err;

        err_set(&err, ERR_NOMEM, 0, "leaves of a copy");
        engine_fatal(e, &err);
    }
    parts_free(f->parts);
    f->parts = NULL;
    job_post(e, j);
}

static void on_tree(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    struct buf ours = {0}, next = {0};
    uint16_t nodes[LINK_TREE_NODES_MAX];
    size_t n = f->nodes.len / 2, differ = 0;
    uint64_t none;
    struct err err;

    if (m->tree.level != f->level || m->tree.n != n) {
        refuse(e, "a tree that was not asked for");
        return;
    }
    if (too_old(e, m->tree.lsn))
        return;
    for (size_t i = 0; i < n; i++)
        nodes[i] = node_at(&f->nodes, i);
    if (store_tree_read(e->copy->store, f->level, nodes, n, &ours, &none, &err) != 0) {
        buf_free(&ours);
        refuse(e, err.msg);
        return;
    }
    note_lsn(&f->at, m->tree.lsn);
    f->keys_there = m->tree.keys;
    for (size_t i = 0; i < n * 16; i++) {
        uint32_t child = nodes[i / 16] * 16u + (uint32_t)(i % 16);
        const size_t at = i * LINK_SUM_BYTES;

        if (memcmp(ours.data + at, m->tree.sums + at, LINK_SUM_BYTES) == 0)
            continue;
        differ++;
        if (f->level + 1 < LINK_TREE_LEVELS)
            add_node(&next, child);
        else
            f->at.leaves[child / 8] |= (uint8_t)(1u << (child % 8));
    }
    buf_free(&ours);
    buf_free(&f->nodes);
    f->nodes = next;
    f->level++;
    if (next.failed)
        refuse(e, "out of memory");
    else if (differ == 0 || f->level == LINK_TREE_LEVELS)
        tree_done(e, f->level == LINK_TREE_LEVELS ? differ : 0, NULL);
}

static void ask_parts(struct engine *e)
{
    struct follow *f = &e->follow;
    struct link_msg m = {.type = MSG_PARTS_REQUEST};
    struct buf names = {0};
    uint64_t none;
    struct err err;

    if (f->parts == NULL) {
        if (parts_new(&f->parts, &err) != 0)
            engine_fatal(e, &err);
        tree_begins(e);
        env_random(e->cfg.env, &f->parts_salt, sizeof(f->parts_salt));
        store_leaf_hashes(e->copy->store, f->parts_salt, f->parts->leaf, &none);
    }
    parts_ask(f->parts, &names);
    if (buf_check(&names, &err) != 0)
        engine_fatal(e, &err);
    m.parts_request.level = f->parts->level;
    m.parts_request.below = f->parts->below;
    m.parts_request.salt = f->parts->level == 0 ? f->parts_salt : 0;
    m.parts_request.parts = names.data;
    m.parts_request.parts_len = names.len;
    ask(e, &m);
    buf_free(&names);
}

static void on_parts(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    bool first = f->parts->level == 0;
    struct err err;

    if (first && too_old(e, m->parts.lsn))
        return;
    if (parts_take(f->parts, m->parts.sums, m->parts.len, &err) != 0) {
        refuse(e, err.msg);
        return;
    }
    if (first) {
        note_lsn(&f->at, m->parts.lsn);
        f->keys_there = m->parts.keys;
    }
    memcpy(f->at.leaves, f->parts->differ, sizeof(f->at.leaves));
    if (f->parts->n_open == 0 && f->parts->n_differ == 0)
        tree_done(e, 0, NULL);
}

/* The first list after the parts: is all that was not told as it is here? */
static bool rest_proved(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;

    if (m->list.has_rest && m->list.rest == parts_rest(f->parts->leaf, f->parts->differ))
        return true;
    parts_free(f->parts);
    f->parts = NULL;
    f->leaves_told = false;
    if (++f->parts_failed == PARTS_TRIES_MAX)
        refuse(e, "the leaves that its sums tell are not all that differ");
    else
        log_info(e->cfg.log, LOG_REPLICATION, "merkle diff: sums that misled, comparing again");
    return false;
}

/* ---- ranges ---- */
/* Pages when there is nothing to compare, or nobody to compare with. */
static bool takes_pages(const struct engine *e, const struct conn *c)
{
    return c->version < LINK_VERSION_DIFF || e->follow.at.keys == 0;
}

/* How many are there? Just for the progress. */
static void ask_keys(struct engine *e)
{
    struct link_msg m = {.type = MSG_TREE_REQUEST};

    m.tree_request.nodes = (const uint8_t *)"\0\0"; /* the whole tree */
    m.tree_request.n = 1;
    ask(e, &m);
    e->follow.keys_asked = true;
}

static void ask_page(struct engine *e)
{
    struct follow *f = &e->follow;
    struct link_msg m = {.type = MSG_PAGE_REQUEST};

    m.page_request.after = f->at.last;
    m.page_request.after_len = strlen(f->at.last);
    m.page_request.bytes_max = e->cfg.copy_page_bytes;
    ask(e, &m);
}

static void ask_list(struct engine *e)
{
    struct follow *f = &e->follow;
    struct link_msg m = {.type = MSG_LIST_REQUEST};
    struct buf leaves = {0};

    if (!f->leaves_told)
        parts_put(PARTS_DEPTH, f->at.leaves, &leaves);
    if (leaves.failed) {
        buf_free(&leaves);
        refuse(e, "out of memory");
        return;
    }
    m.list_request.after = f->at.last;
    m.list_request.after_len = strlen(f->at.last);
    m.list_request.leaves = leaves.data;
    m.list_request.leaves_len = leaves.len;
    ask(e, &m);
    f->leaves_told = true;
    buf_free(&leaves);
}

static void ask_wanted(struct engine *e)
{
    struct diff_range *r = e->follow.range;
    struct link_msg m = {.type = MSG_WANT};

    m.want.after = r->next;
    m.want.after_len = strlen(r->next);
    m.want.last = r->last;
    m.want.last_len = strlen(r->last);
    m.want.to_end = r->done;
    if (!r->told) { /* then the primary keeps it for what is left of the range */
        m.want.wanted = r->missing.data;
        m.want.wanted_len = r->missing.len;
    }
    r->told = true;
    ask(e, &m);
}

/* Of a primary of version 2. */
static void ask_entries(struct engine *e)
{
    struct diff_range *r = e->follow.range;
    struct link_msg m = {.type = MSG_FETCH};
    struct buf hashes = {0};
    struct err err;

    m.fetch.after = r->next;
    m.fetch.after_len = strlen(r->next);
    m.fetch.last = r->last;
    m.fetch.last_len = strlen(r->last);
    m.fetch.to_end = r->done;
    if (!r->told) { /* then the primary keeps them for what is left of the range */
        diff_pick(&r->hashes, r->missing.data, r->missing.len, &hashes);
        if (buf_check(&hashes, &err) != 0)
            engine_fatal(e, &err);
        m.fetch.hashes = hashes.data;
        m.fetch.n = hashes.len / LINK_HASH_BYTES;
    }
    r->told = true;
    ask(e, &m);
    buf_free(&hashes);
}

static void take_page(struct engine *e, const struct link_msg *m, enum job_kind kind)
{
    struct follow *f = &e->follow;
    struct job *j = copy_job(e, kind);

    buf_add(&j->buf, m->body.data, m->body.len);
    j->arg = f->one_history ? e->cur->store : NULL;
    j->range = f->range;
    f->range = NULL;
    if (j->buf.failed) {
        f->job_out = false;
        job_free(j);
        refuse(e, "out of memory");
        return;
    }
    job_post(e, j);
}

static void on_list(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    struct diff_range *r;
    struct job *j;

    if (too_old(e, m->list.lsn) || (f->phase == COPY_TREE && !rest_proved(e, m)))
        return;
    r = range_new(e);
    memcpy(r->after, f->at.last, sizeof(r->after));
    memcpy(r->next, f->at.last, sizeof(r->next));
    memcpy(r->last, m->list.last, m->list.last_len);
    r->done = m->list.done;
    r->low_lsn = r->high_lsn = m->list.lsn;
    r->looked = m->list.looked;
    memcpy(r->leaves, f->at.leaves, sizeof(r->leaves));
    buf_add(&r->hashes, m->list.hashes, m->list.n * LINK_HASH_BYTES);
    if (memchr(r->last, '\0', m->list.last_len) != NULL ||
        (!r->done && strcmp(r->last, r->after) <= 0) || r->hashes.failed) {
        diff_range_free(r);
        refuse(e, "a list that leads nowhere");
        return;
    }
    if (f->phase == COPY_TREE) {
        tree_done(e, f->parts->n_differ, r);
        return;
    }
    j = copy_job(e, JOB_COPY_COMPARE);
    j->range = r;
    job_post(e, j);
}

void diff_answer(struct engine *e, const struct link_msg *m)
{
    struct follow *f = &e->follow;
    bool ranges = f->phase == COPY_RANGES, fetching = ranges && f->range != NULL;
    bool parts = f->phase == COPY_TREE && f->parts != NULL, solved = parts && f->parts->n_open == 0;

    if (e->copy == NULL || !f->asked || f->job_out) {
        refuse(e, "an answer that was not asked for");
        return;
    }
    f->asked = false;
    f->moved_bytes += LINK_FRAME_HEAD_BYTES + m->frame_len;
    if (m->type == MSG_TREE && ranges && f->keys_asked)
        f->keys_there = m->tree.keys;
    else if (m->type == MSG_TREE && f->phase == COPY_TREE && !parts)
        on_tree(e, m);
    else if (m->type == MSG_PARTS && parts && !solved)
        on_parts(e, m);
    else if (m->type == MSG_LIST && ((ranges && !fetching) || solved))
        on_list(e, m);
    else if (m->type == MSG_ENTRIES && fetching) {
        timing_since(e, ENGINE_TIMING_FETCH, f->asked_ns);
        take_page(e, m, JOB_COPY_PUT);
    } else if (m->type == MSG_PAGE && !fetching && (ranges || f->phase == COPY_TREE)) {
        timing_since(e, ENGINE_TIMING_FETCH, f->asked_ns);
        take_page(e, m, JOB_COPY_PAGE);
    } else
        refuse(e, "an answer to another question");
}

size_t diff_step(struct engine *e)
{
    struct follow *f = &e->follow;
    struct conn *c = primary_conn(e);

    if (f->job_out || f->asked)
        return 0;
    if (f->phase == COPY_CLONE) /* needs nobody */
        return clone_step(e);
    if (c == NULL || f->state != FOLLOW_STREAM)
        return 0;
    if (takes_pages(e, c) && c->version >= LINK_VERSION_DIFF && !f->keys_asked)
        ask_keys(e);
    else if (takes_pages(e, c))
        ask_page(e);
    else if (f->phase == COPY_TREE && c->version < LINK_VERSION_PARTS)
        ask_tree(e);
    else if (f->phase == COPY_TREE && (f->parts == NULL || f->parts->n_open > 0))
        ask_parts(e);
    else if (f->range != NULL && c->version < LINK_VERSION_PARTS)
        ask_entries(e);
    else if (f->range != NULL)
        ask_wanted(e);
    else
        ask_list(e);
    return 1;
}

/* ---- what the apply thread did ---- */
void diff_done(struct engine *e, struct event *ev)
{
    struct follow *f = &e->follow;
    struct conn *c = primary_conn(e);
    uint64_t asked_on = ev->conn;

    f->job_out = false;
    f->at = *ev->copy;
    copy_phase_of(e);
    if (ev->text[0] != '\0') {
        if (strcmp(ev->text, PRIMARY_LOST_HISTORY) == 0)
            refused_by_copy(e);
        if (c != NULL && c->id == asked_on)
            conn_close(e, c, ev->text);
        return;
    }
    if (ev->range != NULL && f->conn_id == asked_on) { /* else it is compared again */
        f->range = ev->range;
        ev->range = NULL;
    }
}
