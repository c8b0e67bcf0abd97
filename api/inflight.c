/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * inflight.c - the requests under way, for sys/in-flight-req and the metrics.
 *
 * A list for each reactor under a lock of its own, which only a reader of the lists ever contends
 * for.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core_private.h"

struct list {
    pthread_mutex_t mutex;
    struct inflight *first;
    uint64_t total; /* since the start */
};
struct inflights {
    struct list lists[REACTORS_MAX];
};

struct inflights *inflights_new(void)
{
    struct inflights *all = calloc(1, sizeof(*all));

    for (size_t i = 0; all != NULL && i < REACTORS_MAX; i++)
        pthread_mutex_init(&all->lists[i].mutex, NULL);
    return all;
}

void inflights_free(struct inflights *all)
{
    if (all == NULL)
        return;
    for (size_t i = 0; i < REACTORS_MAX; i++)
        pthread_mutex_destroy(&all->lists[i].mutex);
    free(all);
}

void inflight_begin(struct core *c, struct inflight *f)
{
    struct reactor *r = reactor_current();
    struct list *l;

    for (f->list = 0; f->list + 1 < c->n_reactors && c->reactors[f->list] != r;)
        f->list++;
    l = &c->inflights->lists[f->list];
    f->prev = NULL;
    pthread_mutex_lock(&l->mutex);
    f->next = l->first;
    if (l->first != NULL)
        l->first->prev = f;
    l->first = f;
    l->total++;
    pthread_mutex_unlock(&l->mutex);
}

void inflight_end(struct core *c, struct inflight *f)
{
    struct list *l = &c->inflights->lists[f->list];

    pthread_mutex_lock(&l->mutex);
    if (f->prev != NULL)
        f->prev->next = f->next;
    else
        l->first = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    pthread_mutex_unlock(&l->mutex);
}

void inflight_count(struct core *c, uint64_t *nowp, uint64_t *totalp)
{
    *nowp = *totalp = 0;
    for (size_t i = 0; i < REACTORS_MAX; i++) {
        struct list *l = &c->inflights->lists[i];
        pthread_mutex_lock(&l->mutex);
        for (const struct inflight *f = l->first; f != NULL; f = f->next)
            ++*nowp;
        *totalp += l->total;
        pthread_mutex_unlock(&l->mutex);
    }
}

json_t *inflight_json(struct core *c, struct arena *a)
{
    json_t *all = json_object();

    for (size_t i = 0; i < REACTORS_MAX; i++) {
        struct list *l = &c->inflights->lists[i];
        pthread_mutex_lock(&l->mutex);
        for (const struct inflight *f = l->first; f != NULL; f = f->next) {
            const struct http_request *http = f->http;
            char peer[96];
            snprintf(peer, sizeof(peer), "%s:%u", http->peer_ip, (unsigned)http->peer_port);
            /* The path without its query: that may hold what should not be shown. */
            json_object_set_new(
                all, f->id,
                json_pack("{s:s, s:s, s:s%, s:s}", "start_time", time_rfc3339(a, f->start_ms),
                          "client_remote_address", peer, "request_path", http->target,
                          strcspn(http->target, "?"), "request_method", http->method));
        }
        pthread_mutex_unlock(&l->mutex);
    }
    return all;
}
