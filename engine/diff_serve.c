/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * diff_serve.c - the primary's side of catching up by difference: questions become jobs of the scan
 * thread, which never holds up apply; what it found goes out as it is. One question of a connection
 * is worked on at a time.
 */
#include "engine_private.h"
#include "parts.h"
#include "ship_private.h"
#include "threads_private.h"

#include <stdlib.h>
#include <string.h>

/* What a secondary need not send twice on one connection. */
struct asked {
    uint8_t leaves[LINK_LEAVES_BYTES]; /* bitmap */
    struct buf listed;                 /* hashes, as the last answer had them */
    struct buf hashes;                 /* wanted */
    struct leaf_hashes *tree;          /* until leaves are told; NULL: while it is worked on, too */
};

void diff_conn_free(struct conn *c)
{
    if (c->asked == NULL)
        return;
    buf_free(&c->asked->listed);
    buf_free(&c->asked->hashes);
    free(c->asked->tree);
    free(c->asked);
    c->asked = NULL;
}

void scan_job_free(struct scan_job *j)
{
    if (j == NULL)
        return;
    buf_free(&j->after);
    buf_free(&j->last);
    buf_free(&j->nodes);
    buf_free(&j->hashes);
    free(j->leaves);
    free(j->tree);
    free(j);
}

static struct scan_job *scan_job_new(struct conn *c, enum link_msg_type type)
{
    struct scan_job *j = calloc(1, sizeof(*j));

    if (j == NULL)
        return NULL;
    j->type = type;
    j->conn = c->id;
    return j;
}

static void copy_key(struct buf *b, const char *key, size_t len)
{
    buf_add(b, key, len);
    buf_addc(b, '\0'); /* a zero inside ends it early: another key, which does no harm */
}

static void post(struct engine *e, struct conn *c, struct scan_job *j)
{
    if (j->after.failed || j->last.failed || j->nodes.failed || j->hashes.failed) {
        scan_job_free(j);
        conn_close(e, c, "out of memory");
        return;
    }
    c->scan_wanted = true;
    queue_push_always(e->scan_q, &j->node);
}

static bool asked_new(struct conn *c)
{
    if (c->asked == NULL)
        c->asked = calloc(1, sizeof(*c->asked));
    return c->asked != NULL;
}

/* Of the leaves of one moment: those noted at the question about level 0. */
static bool fill_parts(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    if (!asked_new(c))
        return false;
    if (m->parts_request.level > 0) {
        j->tree = c->asked->tree;
        c->asked->tree = NULL;
    }
    j->level = m->parts_request.level;
    j->below = m->parts_request.below;
    j->salt = m->parts_request.salt;
    buf_add(&j->nodes, m->parts_request.parts, m->parts_request.parts_len);
    return j->level == 0 || j->tree != NULL;
}

static bool fill_list(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    size_t n, len = m->list_request.leaves_len;
    struct err err;

    if ((c->asked == NULL && len == 0) || !asked_new(c))
        return false;
    if (len > 0) {
        j->tree = c->asked->tree;
        c->asked->tree = NULL;
        if (parts_get(PARTS_DEPTH, m->list_request.leaves, len, c->asked->leaves, &n, &err) != 0)
            return false;
    }
    copy_key(&j->after, m->list_request.after, m->list_request.after_len);
    return true;
}

void diff_pick(const struct buf *hashes, const uint8_t *set, size_t set_len, struct buf *out)
{
    for (size_t i = 0; i < 8 * set_len && i < hashes->len / LINK_HASH_BYTES; i++)
        if ((set[i / 8] >> (i % 8) & 1) != 0)
            buf_add(out, hashes->data + i * LINK_HASH_BYTES, LINK_HASH_BYTES);
}

/* What is wanted of the last list. */
static bool take_wanted(struct asked *a, const uint8_t *set, size_t len)
{
    if (len == 0)
        return true; /* as before */
    buf_clear(&a->hashes);
    diff_pick(&a->listed, set, len, &a->hashes);
    return len == (a->listed.len / LINK_HASH_BYTES + 7) / 8;
}

/* Both say the same of a range, and name the entries in two ways. */
static bool fill_fetch(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    struct asked *a = c->asked;

    if (a == NULL)
        return false;
    if (m->type == MSG_WANT) {
        if (!take_wanted(a, m->want.wanted, m->want.wanted_len))
            return false;
        copy_key(&j->after, m->want.after, m->want.after_len);
        copy_key(&j->last, m->want.last, m->want.last_len);
        j->to_end = m->want.to_end;
    } else {
        if (m->fetch.n > 0) {
            buf_clear(&a->hashes);
            buf_add(&a->hashes, m->fetch.hashes, m->fetch.n * LINK_HASH_BYTES);
        }
        copy_key(&j->after, m->fetch.after, m->fetch.after_len);
        copy_key(&j->last, m->fetch.last, m->fetch.last_len);
        j->to_end = m->fetch.to_end;
    }
    j->hashes.failed = a->hashes.failed;
    buf_add(&j->hashes, a->hashes.data, a->hashes.len);
    return a->hashes.len > 0 || a->hashes.failed;
}

/* false: it does not fit what was asked before. */
static bool fill(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    switch (m->type) {
    case MSG_PAGE_REQUEST:
        copy_key(&j->after, m->page_request.after, m->page_request.after_len);
        j->bytes_max = m->page_request.bytes_max > 0 ? m->page_request.bytes_max : 1;
        return true;
    case MSG_TREE_REQUEST:
        j->level = m->tree_request.level;
        buf_add(&j->nodes, m->tree_request.nodes, m->tree_request.n * 2);
        return m->tree_request.n > 0;
    case MSG_LIST_REQUEST:
        return fill_list(c, m, j);
    case MSG_PARTS_REQUEST:
        return fill_parts(c, m, j);
    case MSG_FETCH:
    case MSG_WANT:
        return fill_fetch(c, m, j);
    default:
        return false;
    }
}

void diff_question(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct scan_job *j;

    if (c->scan_wanted) {
        conn_close(e, c, "a second question before the answer");
        return;
    }
    j = scan_job_new(c, m->type);
    if (j == NULL) {
        conn_close(e, c, "out of memory");
        return;
    }
    if (!fill(c, m, j)) {
        scan_job_free(j);
        conn_close(e, c, "a question that lacks what it goes by");
        return;
    }
    if (m->type == MSG_LIST_REQUEST || m->type == MSG_FETCH || m->type == MSG_WANT) {
        j->leaves = malloc(sizeof(c->asked->leaves));
        if (j->leaves == NULL) {
            scan_job_free(j);
            conn_close(e, c, "out of memory");
            return;
        }
        memcpy(j->leaves, c->asked->leaves, sizeof(c->asked->leaves));
    }
    post(e, c, j);
}

/* What the next question goes by. */
static void keep_found(struct asked *a, struct scan_job *j)
{
    if (j->type == MSG_PARTS_REQUEST) {
        free(a->tree);
        a->tree = j->tree;
        j->tree = NULL;
    } else if (j->type == MSG_LIST_REQUEST) {
        buf_free(&a->listed);
        a->listed = j->hashes;
        j->hashes = (struct buf){0};
    }
}

void diff_found(struct engine *e, struct event *ev)
{
    struct conn *c = conn_find(e, ev->conn);

    if (c == NULL)
        return;
    c->scan_wanted = false;
    if (ev->text[0] != '\0') {
        conn_close(e, c, ev->text);
        return;
    }
    if (c->asked != NULL)
        keep_found(c->asked, ev->scan);
    conn_send_bytes(e, c, ev->buf.data, ev->buf.len);
    /* The copy of an older program is whole once a segment beyond the last answer is folded: do not
     * let it wait for a write. */
    if (ev->flag)
        e->mark_ns = 0;
}
