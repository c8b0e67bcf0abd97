/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * diff_serve.c - the primary's side of catching up by difference: questions become jobs of the scan
 * thread, which never holds up apply; what it found goes out as it is. One question of a connection
 * is worked on at a time.
 */
#include "engine_private.h"
#include "ship_private.h"
#include "threads_private.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

/* What a secondary need not send twice on one connection. */
struct asked {
    uint8_t leaves[LINK_LEAVES_BYTES]; /* bitmap */
    struct buf hashes;
};

void diff_conn_free(struct conn *c)
{
    if (c->asked == NULL)
        return;
    buf_free(&c->asked->hashes);
    free(c->asked);
    c->asked = NULL;
}

void scan_job_free(struct scan_job *j)
{
    buf_free(&j->after);
    buf_free(&j->last);
    buf_free(&j->nodes);
    buf_free(&j->hashes);
    free(j->leaves);
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

static bool take_leaves(struct asked *a, const uint8_t *leaves, size_t len)
{
    if (len == LINK_LEAVES_BYTES) {
        memcpy(a->leaves, leaves, len);
        return true;
    }
    if (len > 0)
        memset(a->leaves, 0, sizeof(a->leaves));
    for (size_t i = 0; i < len; i += 2) {
        uint32_t leaf = (uint32_t)leaves[i] << 8 | leaves[i + 1];

        a->leaves[leaf / 8] |= (uint8_t)(1u << (leaf % 8));
    }
    return true;
}

static bool fill_list(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    if (c->asked == NULL && m->list_request.leaves_len > 0)
        c->asked = calloc(1, sizeof(*c->asked));
    if (c->asked == NULL)
        return false;
    take_leaves(c->asked, m->list_request.leaves, m->list_request.leaves_len);
    copy_key(&j->after, m->list_request.after, m->list_request.after_len);
    return true;
}

static bool fill_fetch(struct conn *c, const struct link_msg *m, struct scan_job *j)
{
    struct asked *a = c->asked;

    if (a == NULL || (m->fetch.n == 0 && a->hashes.len == 0))
        return false;
    if (m->fetch.n > 0) {
        buf_clear(&a->hashes);
        buf_add(&a->hashes, m->fetch.hashes, m->fetch.n * LINK_HASH_BYTES);
        j->hashes.failed = a->hashes.failed;
    }
    buf_add(&j->hashes, a->hashes.data, a->hashes.len);
    copy_key(&j->after, m->fetch.after, m->fetch.after_len);
    copy_key(&j->last, m->fetch.last, m->fetch.last_len);
    j->to_end = m->fetch.to_end;
    return true;
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
    case MSG_FETCH:
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
    if (m->type == MSG_LIST_REQUEST || m->type == MSG_FETCH) {
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
    conn_send_bytes(e, c, ev->buf.data, ev->buf.len);
    /* The copy is whole once a segment beyond the last answer is folded: do not let it wait for a
     * write. */
    if (ev->flag)
        e->mark_ns = 0;
}
