/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load_postgres.c - PostgreSQL's protocol 3: one prepared INSERT, bound and executed for each row.
 *
 * A message is a letter, a length that counts itself (big endian), and a body; 'Z' ends an answer.
 */
#include <arpa/inet.h>
#include <string.h>

#include "load.h"

#define INSERT "insert into kv (k, v) values ($1, $2)"

static void add16(struct buf *b, uint16_t v)
{
    v = htons(v);
    buf_add(b, &v, sizeof(v));
}

static void add32(struct buf *b, uint32_t v)
{
    v = htonl(v);
    buf_add(b, &v, sizeof(v));
}

static void add_text(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s) + 1);
}

/* Begin a message whose length is filled in by end_message. */
static size_t begin_message(struct buf *b, char letter)
{
    if (letter != '\0')
        buf_addc(b, letter);
    add32(b, 0);
    return b->len - 4;
}

static void end_message(struct buf *b, size_t at)
{
    uint32_t len = htonl((uint32_t)(b->len - at));

    if (!b->failed)
        memcpy(b->data + at, &len, sizeof(len));
}

static void add_sync(struct buf *b)
{
    end_message(b, begin_message(b, 'S'));
}

static void greet(struct client *c)
{
    size_t at = begin_message(&c->out, '\0');

    add32(&c->out, 3u << 16);
    add_text(&c->out, "user");
    add_text(&c->out, c->rq->user);
    add_text(&c->out, "database");
    add_text(&c->out, c->rq->database);
    buf_addc(&c->out, '\0');
    end_message(&c->out, at);
    c->step = 0;
}

static void prepare(struct client *c)
{
    size_t at = begin_message(&c->out, 'P');

    add_text(&c->out, "i");
    add_text(&c->out, INSERT);
    add16(&c->out, 0);
    end_message(&c->out, at);
    add_sync(&c->out);
}

static void request(struct client *c, const char *key, const char *value, size_t len)
{
    struct buf *b = &c->out;
    size_t at = begin_message(b, 'B');

    add_text(b, ""); /* portal */
    add_text(b, "i");
    add16(b, 0); /* formats: text */
    add16(b, 2);
    add32(b, (uint32_t)strlen(key));
    buf_adds(b, key);
    add32(b, (uint32_t)len);
    buf_add(b, value, len);
    add16(b, 0);
    end_message(b, at);
    at = begin_message(b, 'E');
    add_text(b, "");
    add32(b, 0);
    end_message(b, at);
    add_sync(b);
}

static enum feed feed(struct client *c, const uint8_t *in, size_t len, size_t *usedp)
{
    uint32_t body;

    *usedp = 0;
    if (len < 5)
        return FEED_MORE;
    memcpy(&body, in + 1, sizeof(body));
    body = ntohl(body);
    if (len < body + 1)
        return FEED_MORE;
    *usedp = body + 1;
    if (in[0] == 'E' || (in[0] == 'R' && (body != 8 || memcmp(in + 5, "\0\0\0", 4) != 0)))
        return FEED_REFUSED; /* or it wants a password */
    if (in[0] != 'Z')
        return FEED_MORE;
    if (c->step++ == 0) {
        prepare(c);
        return FEED_MORE;
    }
    return FEED_ANSWER;
}

const struct protocol protocol_postgres = {
    .name = "postgres", .greets = true, .greet = greet, .request = request, .feed = feed};
