/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * queue.c - the bounded queue: a short critical section around a list, and a wakeup on the edge
 * from empty.
 *
 * The lock is held for a few instructions and never while anything else is done.
 */
#include "queue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct queue {
    pthread_mutex_t lock;
    struct queue_node *head, **tail;
    size_t count, weight, weight_max;
    bool closed, woken; /* woken: since the reader took what was there */
    void (*wake)(void *);
    void *arg;
};

struct queue *queue_new(size_t weight_max, void (*wake)(void *), void *arg)
{
    struct queue *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return NULL;
    if (pthread_mutex_init(&q->lock, NULL) != 0) {
        free(q);
        return NULL;
    }
    q->tail = &q->head;
    q->weight_max = weight_max;
    q->wake = wake;
    q->arg = arg;
    return q;
}

void queue_free(struct queue *q)
{
    if (q == NULL)
        return;
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static void add(struct queue *q, struct queue_node *n)
{
    n->next = NULL;
    *q->tail = n;
    q->tail = &n->next;
    q->weight += n->weight;
    q->count++;
}

int queue_push(struct queue *q, struct queue_node *n, struct err *err)
{
    bool wake = false, closed, full;

    pthread_mutex_lock(&q->lock);
    closed = q->closed;
    full = q->head != NULL && (q->weight >= q->weight_max || n->weight > q->weight_max - q->weight);
    if (!closed && !full) {
        add(q, n);
        wake = !q->woken;
        q->woken = true;
    }
    pthread_mutex_unlock(&q->lock);
    if (closed)
        return err_set(err, ERR_CLOSED, 0, "shutting down");
    if (full)
        return err_set(err, ERR_AGAIN, 0, "queue full");
    if (wake && q->wake != NULL)
        q->wake(q->arg);
    return 0;
}

void queue_push_always(struct queue *q, struct queue_node *n)
{
    bool wake;

    pthread_mutex_lock(&q->lock);
    add(q, n);
    wake = !q->woken;
    q->woken = true;
    pthread_mutex_unlock(&q->lock);
    if (wake && q->wake != NULL)
        q->wake(q->arg);
}

void queue_push_quiet(struct queue *q, struct queue_node *n)
{
    pthread_mutex_lock(&q->lock);
    add(q, n);
    pthread_mutex_unlock(&q->lock);
}

struct queue_node *queue_take_all(struct queue *q)
{
    struct queue_node *list;

    pthread_mutex_lock(&q->lock);
    list = q->head;
    q->head = NULL;
    q->tail = &q->head;
    q->weight = q->count = 0;
    q->woken = false;
    pthread_mutex_unlock(&q->lock);
    return list;
}

size_t queue_weight(struct queue *q)
{
    size_t w;

    pthread_mutex_lock(&q->lock);
    w = q->weight;
    pthread_mutex_unlock(&q->lock);
    return w;
}

size_t queue_count(struct queue *q)
{
    size_t n;

    pthread_mutex_lock(&q->lock);
    n = q->count;
    pthread_mutex_unlock(&q->lock);
    return n;
}

void queue_close(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_mutex_unlock(&q->lock);
}
