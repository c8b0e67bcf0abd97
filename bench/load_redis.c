/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load_redis.c - RESP: SET and GET; with replicas, each SET is followed by a WAIT in the same
 * write.
 */
#include <stdlib.h>
#include <string.h>

#include "load.h"

static void request(struct client *c, const char *key, const char *value, size_t len)
{
    if (c->rq->get) {
        buf_printf(&c->out, "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n", strlen(key), key);
        return;
    }
    buf_printf(&c->out, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(key), key, len);
    buf_add(&c->out, value, len);
    buf_adds(&c->out, "\r\n");
    if (c->rq->replicas > 0)
        buf_printf(&c->out, "*3\r\n$4\r\nWAIT\r\n$1\r\n%u\r\n$5\r\n10000\r\n", c->rq->replicas);
    c->step = c->rq->replicas > 0 ? 2 : 1; /* replies to come */
}

static enum feed feed(struct client *c, const uint8_t *in, size_t len, size_t *usedp)
{
    const uint8_t *end = memmem(in, len, "\r\n", 2);
    size_t line;

    *usedp = 0;
    if (end == NULL)
        return FEED_MORE;
    line = (size_t)(end - in) + 2;
    *usedp = line;
    if (in[0] == '$' && in[1] != '-') { /* the answer of a GET */
        line += strtoul((const char *)in + 1, NULL, 10) + 2;
        *usedp = line <= len ? line : 0;
        return line <= len ? FEED_ANSWER : FEED_MORE;
    }
    if (in[0] == ':' && strtoul((const char *)in + 1, NULL, 10) < c->rq->replicas)
        return FEED_REFUSED; /* the replica did not have it in time */
    if (in[0] != '+' && in[0] != ':')
        return FEED_REFUSED;
    return --c->step == 0 ? FEED_ANSWER : FEED_MORE;
}

const struct protocol protocol_redis = {.name = "redis", .request = request, .feed = feed};
