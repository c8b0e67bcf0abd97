/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load_http.c - HTTP/1.1 with keep-alive: the kv engines of Vault's API, and static files.
 */
#include <stdlib.h>
#include <string.h>

#include "load.h"

static void request(struct client *c, const char *key, const char *value, size_t len)
{
    const struct load_request *rq = c->rq;
    const char *head = rq->kv2 ? "{\"data\":{\"value\":\"" : "{\"value\":\"";
    const char *tail = rq->kv2 ? "\"}}" : "\"}";
    size_t around = strlen(head) + strlen(tail);

    len = len > around ? len - around : 0; /* the body has the size that was asked for */
    buf_printf(&c->out, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", rq->get ? "GET" : "PUT", rq->path, key,
               rq->host);
    if (rq->token != NULL)
        buf_printf(&c->out, "X-Vault-Token: %s\r\n", rq->token);
    if (rq->get) {
        buf_adds(&c->out, "\r\n");
        return;
    }
    buf_printf(&c->out, "Content-Length: %zu\r\n\r\n%s", len + around, head);
    buf_add(&c->out, value, len);
    buf_adds(&c->out, tail);
}

/* The value of a header in [at, end), or NULL. */
static const char *header(const char *at, const char *end, const char *name)
{
    size_t n = strlen(name);

    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));

        if (line_end == NULL)
            return NULL;
        if ((size_t)(line_end - at) > n && at[n] == ':' && strncasecmp(at, name, n) == 0)
            return at + n + 1;
        at = line_end + 1;
    }
    return NULL;
}

static enum feed feed(struct client *c, const uint8_t *in, size_t len, size_t *usedp)
{
    const char *text = (const char *)in, *end = memmem(text, len, "\r\n\r\n", 4), *length;
    size_t body = 0;
    int status;

    (void)c;
    *usedp = 0;
    if (end == NULL)
        return FEED_MORE;
    if (len < 12 || memcmp(text, "HTTP/1.1 ", 9) != 0 ||
        header(text, end + 2, "Transfer-Encoding") != NULL)
        return FEED_BROKEN;
    status = atoi(text + 9);
    length = header(text, end + 2, "Content-Length");
    if (length != NULL)
        body = strtoul(length, NULL, 10);
    if ((size_t)(end + 4 - text) + body > len)
        return FEED_MORE;
    *usedp = (size_t)(end + 4 - text) + body;
    return status / 100 == 2 ? FEED_ANSWER : FEED_REFUSED;
}

const struct protocol protocol_http = {
    .name = "http", .alpn = "\x08http/1.1", .request = request, .feed = feed};
