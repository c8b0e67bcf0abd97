/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * scan_step.c - one step of the scan thread: what secondaries that catch up ask of the store, each
 * in one short snapshot; and the scrub when there is nothing to answer. It takes nothing from the
 * apply thread but a lock for the moment in which part of the tree is summed.
 */
#include "engine_private.h"
#include "parts.h"
#include "threads_private.h"
#include "verify_private.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_PAGES 4u /* a list looks at so many pages of entries */

static int read_page(struct engine *e, struct scan_job *j, struct event *ev, struct err *err)
{
    struct link_msg m = {.type = MSG_PAGE};
    struct store_page p = {0};
    struct buf page = {0};
    int rc = store_page_read(e->store, buf_str(&j->after), j->bytes_max, &page, err);

    if (rc == 0)
        rc = store_page_parse(page.data, page.len, &p, err);
    if (rc == 0) {
        ev->flag = p.done;
        m.body.data = page.data;
        m.body.len = page.len;
        rc = link_msg_encode(&m, &ev->buf, err);
    }
    buf_free(&page);
    return rc;
}

static int read_tree(struct engine *e, struct scan_job *j, struct event *ev, struct err *err)
{
    struct link_msg m = {.type = MSG_TREE};
    uint16_t nodes[LINK_TREE_NODES_MAX];
    struct buf sums = {0};
    int rc;

    m.tree.level = j->level;
    m.tree.keys = store_keys(e->store);
    m.tree.n = j->nodes.len / 2;
    for (size_t i = 0; i < m.tree.n; i++) {
        memcpy(&nodes[i], j->nodes.data + 2 * i, 2);
        nodes[i] = be16toh(nodes[i]);
    }
    rc = store_tree_read(e->store, j->level, nodes, m.tree.n, &sums, &m.tree.lsn, err);
    m.tree.sums = sums.data;
    if (rc == 0)
        rc = link_msg_encode(&m, &ev->buf, err);
    buf_free(&sums);
    ev->flag = true; /* when nothing differs, it is the last answer */
    return rc;
}

/* The first question finds no leaves with it. */
static int read_parts(struct engine *e, struct scan_job *j, struct event *ev, struct err *err)
{
    struct link_msg m = {.type = MSG_PARTS};
    struct buf sums = {0};
    uint64_t lsn;
    int rc;

    if (j->tree == NULL) {
        j->tree = malloc(sizeof(*j->tree));
        if (j->tree == NULL)
            return err_set(err, ERR_NOMEM, 0, "hashes of leaves");
        store_leaf_hashes(e->store, j->salt, j->tree->leaf, &lsn);
        m.parts.lsn = lsn;
        m.parts.keys = store_keys(e->store);
    }
    rc = parts_answer(j->tree->leaf, j->level, j->below, j->nodes.data, j->nodes.len, &sums, err);
    m.parts.sums = sums.data;
    m.parts.len = sums.len;
    if (rc == 0)
        rc = link_msg_encode(&m, &ev->buf, err);
    buf_free(&sums);
    ev->flag = true; /* when nothing differs, it is the last answer */
    return rc;
}

static int read_list(struct engine *e, struct scan_job *j, struct event *ev, struct err *err)
{
    struct link_msg m = {.type = MSG_LIST};
    struct store_digest d;
    int rc = store_digest_read(e->store, buf_str(&j->after), j->leaves,
                               LIST_PAGES * e->cfg.copy_page_bytes, &d, err);

    if (rc != 0)
        return rc;
    m.list.lsn = d.lsn;
    m.list.done = d.done;
    m.list.last = buf_str(&d.last);
    m.list.last_len = d.last.len;
    m.list.hashes = d.hashes.data;
    m.list.n = d.hashes.len / STORE_HASH_BYTES;
    m.list.looked = d.looked;
    m.list.has_rest = j->tree != NULL;
    if (j->tree != NULL)
        m.list.rest = parts_rest(j->tree->leaf, j->leaves);
    rc = link_msg_encode(&m, &ev->buf, err);
    ev->flag = d.done;
    j->hashes = d.hashes; /* for what is wanted of them */
    d.hashes = (struct buf){0};
    store_digest_free(&d);
    return rc;
}

static int read_entries(struct engine *e, struct scan_job *j, struct event *ev, struct err *err)
{
    struct link_msg m = {.type = MSG_ENTRIES};
    struct buf page = {0};
    int rc = store_fetch_read(e->store, buf_str(&j->after), buf_str(&j->last), j->to_end, j->leaves,
                              j->hashes.data, j->hashes.len / STORE_HASH_BYTES,
                              e->cfg.copy_page_bytes, &page, err);

    m.body.data = page.data;
    m.body.len = page.len;
    if (rc == 0)
        rc = link_msg_encode(&m, &ev->buf, err);
    ev->flag = j->to_end;
    buf_free(&page);
    return rc;
}

static void answer(struct engine *e, struct scan_job *j)
{
    struct event *ev = event_new(e, EV_FOUND, NULL, 0);
    struct err err = {0};
    int rc;

    pthread_rwlock_rdlock(&e->store_lock);
    switch (j->type) {
    case MSG_PAGE_REQUEST:
        rc = read_page(e, j, ev, &err);
        break;
    case MSG_TREE_REQUEST:
        rc = read_tree(e, j, ev, &err);
        break;
    case MSG_PARTS_REQUEST:
        rc = read_parts(e, j, ev, &err);
        break;
    case MSG_LIST_REQUEST:
        rc = read_list(e, j, ev, &err);
        break;
    default:
        rc = read_entries(e, j, ev, &err);
        break;
    }
    pthread_rwlock_unlock(&e->store_lock);
    ev->conn = j->conn;
    ev->scan = j;
    if (rc != 0)
        snprintf(ev->text, sizeof(ev->text), "%s", err.msg);
    event_post(e, ev);
}

size_t engine_scan_step(struct engine *e)
{
    struct queue_node *n = queue_take_all(e->scan_q), *next;
    size_t did = 0;

    for (; n != NULL; n = next, did++) {
        struct scan_job *j = (struct scan_job *)n;

        next = n->next;
        if (!atomic_load(&e->scan_stop))
            answer(e, j);
        else
            scan_job_free(j);
    }
    if (did == 0 && !atomic_load(&e->scan_stop))
        did = scrub_step(e);
    return did;
}
