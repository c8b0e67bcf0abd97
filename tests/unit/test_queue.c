/* SPDX-License-Identifier: GPL-3.0-or-later */
/* test_queue.c - order, the bound, the wakeup, and many pushers at once. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "queue.h"

struct item {
    struct queue_node node; /* first member */
    int who, number;
};

static void wake(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

Test(queue, what_goes_in_comes_out_in_order)
{
    struct queue *q = queue_new(100, NULL, NULL);
    struct item items[5] = {0};
    struct queue_node *n;
    int i = 0;

    for (i = 0; i < 5; i++) {
        items[i].node.weight = 1;
        items[i].number = i;
        cr_assert_eq(queue_push(q, &items[i].node, NULL), 0);
    }
    cr_assert_eq(queue_weight(q), 5);
    for (i = 0, n = queue_take_all(q); n != NULL; n = n->next)
        cr_assert_eq(((struct item *)n)->number, i++);
    cr_assert_eq(i, 5);
    cr_assert_null(queue_take_all(q));
    cr_assert_eq(queue_weight(q), 0);
    queue_free(q);
}

static void count_wake(void *arg)
{
    ++*(int *)arg;
}

Test(queue, a_quiet_node_wakes_nobody_and_hides_no_later_wakeup)
{
    int woken = 0;
    struct queue *q = queue_new(10, count_wake, &woken);
    struct queue_node quiet = {.weight = 1}, loud = {.weight = 1}, more = {.weight = 1};

    queue_push_quiet(q, &quiet);
    cr_assert_eq(woken, 0);
    queue_push_always(q, &loud);
    cr_assert_eq(woken, 1);
    cr_assert_eq(queue_push(q, &more, NULL), 0);
    cr_assert_eq(woken, 1, "the reader has been woken and took nothing yet");
    cr_assert_eq(queue_take_all(q), &quiet);
    queue_push_always(q, &loud);
    cr_assert_eq(woken, 2);
    queue_free(q);
}

Test(queue, beyond_the_bound_it_says_again_but_one_of_any_weight_fits_an_empty_one)
{
    struct queue *q = queue_new(10, NULL, NULL);
    struct queue_node big = {.weight = 1000}, small = {.weight = 1}, done = {.weight = 5};
    struct err err;

    cr_assert_eq(queue_push(q, &big, &err), 0);
    cr_assert_eq(queue_push(q, &small, &err), -1);
    cr_assert_eq(err.code, ERR_AGAIN);
    queue_push_always(q, &done);
    cr_assert_eq(queue_take_all(q), &big);
    cr_assert_eq(queue_push(q, &small, &err), 0);
    cr_assert_eq(queue_take_all(q), &small);
    queue_free(q);
}

Test(queue, a_closed_one_keeps_what_it_has_and_takes_no_more)
{
    struct queue *q = queue_new(10, NULL, NULL);
    struct queue_node a = {.weight = 1}, b = {.weight = 1};
    struct err err;

    cr_assert_eq(queue_push(q, &a, &err), 0);
    queue_close(q);
    cr_assert_eq(queue_push(q, &b, &err), -1);
    cr_assert_eq(err.code, ERR_CLOSED);
    cr_assert_eq(queue_take_all(q), &a);
    queue_free(q);
}

Test(queue, the_reader_is_woken_once_for_each_time_it_was_empty)
{
    atomic_int wakes = 0;
    struct queue *q = queue_new(10, wake, &wakes);
    struct queue_node a = {.weight = 1}, b = {.weight = 1};

    cr_assert_eq(queue_push(q, &a, NULL), 0);
    cr_assert_eq(queue_push(q, &b, NULL), 0);
    cr_assert_eq(atomic_load(&wakes), 1);
    (void)queue_take_all(q);
    queue_push_always(q, &a);
    cr_assert_eq(atomic_load(&wakes), 2);
    (void)queue_take_all(q);
    queue_free(q);
}

#define PUSHERS 4
#define EACH 20000

struct pusher {
    struct queue *q;
    int who;
};

static void *push_all(void *arg)
{
    struct pusher *p = arg;

    for (int i = 0; i < EACH;) {
        struct item *it = calloc(1, sizeof(*it));
        it->node.weight = 1;
        it->who = p->who;
        it->number = i;
        while (queue_push(p->q, &it->node, NULL) != 0)
            ; /* full: the reader drains it */
        i++;
    }
    return NULL;
}

Test(queue, many_pushers_lose_nothing_and_keep_their_order, .timeout = 60)
{
    struct queue *q = queue_new(1000, NULL, NULL);
    struct pusher p[PUSHERS];
    pthread_t t[PUSHERS];
    int next[PUSHERS] = {0}, total = 0;

    for (int i = 0; i < PUSHERS; i++) {
        p[i] = (struct pusher){q, i};
        cr_assert_eq(pthread_create(&t[i], NULL, push_all, &p[i]), 0);
    }
    while (total < PUSHERS * EACH) {
        struct queue_node *n = queue_take_all(q);
        while (n != NULL) {
            struct item *it = (struct item *)n;
            n = n->next;
            cr_assert_eq(it->number, next[it->who]);
            next[it->who]++;
            total++;
            free(it);
        }
    }
    for (int i = 0; i < PUSHERS; i++)
        pthread_join(t[i], NULL);
    queue_free(q);
}
