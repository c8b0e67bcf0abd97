/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * load_etcd.c - etcd's KV.Put and KV.Range: gRPC over HTTP/2, one stream at a time on a connection.
 *
 * Our header blocks use no dynamic table and no Huffman code, so nothing is kept between requests.
 * Theirs are not decoded: a call that worked has a message, one that failed has only trailers.
 * Windows: ours is opened wide at the start; a request is far below theirs.
 */
#include <arpa/inet.h>
#include <string.h>

#include "load.h"

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW = 8 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
#define FRAME_HEAD 9u
#define GRPC_HEAD 5u

static void add_frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t stream, const void *body,
                      size_t len)
{
    uint8_t head[FRAME_HEAD] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, type,
                                flags};

    stream = htonl(stream);
    memcpy(head + 5, &stream, sizeof(stream));
    buf_add(b, head, sizeof(head));
    buf_add(b, body, len);
}

static void greet(struct client *c)
{
    const uint32_t open = htonl(1u << 30);

    buf_adds(&c->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    add_frame(&c->out, SETTINGS, 0, 0, "", 0);
    add_frame(&c->out, WINDOW, 0, 0, &open, sizeof(open));
    c->stream = 1;
}

static void add_short(struct buf *b, const char *s) /* a string of less than 127 bytes */
{
    buf_addc(b, (char)strlen(s));
    buf_adds(b, s);
}

static void add_headers(struct client *c)
{
    struct buf h = {0};

    buf_addc(&h, (char)0x83);                       /* :method POST */
    buf_addc(&h, (char)(c->rq->tls ? 0x87 : 0x86)); /* :scheme */
    buf_addc(&h, 0x04);                             /* :path */
    add_short(&h, c->rq->get ? "/etcdserverpb.KV/Range" : "/etcdserverpb.KV/Put");
    buf_addc(&h, 0x01); /* :authority */
    add_short(&h, c->rq->host);
    buf_addc(&h, 0x0f); /* content-type: 31 of the static table */
    buf_addc(&h, 0x10);
    add_short(&h, "application/grpc");
    buf_addc(&h, 0x00); /* a new name */
    add_short(&h, "te");
    add_short(&h, "trailers");
    add_frame(&c->out, HEADERS, END_HEADERS, c->stream, h.data, h.len);
    buf_free(&h);
}

/* A protobuf field of bytes. */
static void add_field(struct buf *b, unsigned number, const void *data, size_t len)
{
    buf_addc(b, (char)(number << 3 | 2));
    for (size_t n = len;; n >>= 7) {
        buf_addc(b, (char)((n & 0x7f) | (n > 0x7f ? 0x80 : 0)));
        if (n <= 0x7f)
            break;
    }
    buf_add(b, data, len);
}

static void request(struct client *c, const char *key, const char *value, size_t len)
{
    struct buf m = {0};
    uint32_t size;

    buf_add(&m, "\0\0\0\0\0", GRPC_HEAD); /* not compressed; its length */
    add_field(&m, 1, key, strlen(key));
    if (!c->rq->get)
        add_field(&m, 2, value, len);
    size = htonl((uint32_t)(m.len - GRPC_HEAD));
    if (!m.failed)
        memcpy(m.data + 1, &size, sizeof(size));
    add_headers(c);
    add_frame(&c->out, DATA, END_STREAM, c->stream, m.data, m.len);
    buf_free(&m);
    c->got = 0;
}

static enum feed on_frame(struct client *c, const uint8_t *f, size_t body)
{
    uint8_t type = f[3], flags = f[4];
    uint32_t stream;

    memcpy(&stream, f + 5, sizeof(stream));
    stream = ntohl(stream) & 0x7fffffff;
    if (type == SETTINGS && (flags & ACK) == 0) {
        add_frame(&c->out, SETTINGS, ACK, 0, "", 0);
        return c->ready ? FEED_MORE : FEED_ANSWER;
    }
    if (type == PING && (flags & ACK) == 0)
        add_frame(&c->out, PING, ACK, 0, f + FRAME_HEAD, body);
    if (type == GOAWAY || type == RST_STREAM)
        return FEED_REFUSED;
    if (stream != c->stream)
        return FEED_MORE;
    if (type == DATA)
        c->got += body;
    if ((type != DATA && type != HEADERS) || (flags & END_STREAM) == 0)
        return FEED_MORE;
    c->stream += 2;
    return c->got >= GRPC_HEAD ? FEED_ANSWER : FEED_REFUSED;
}

static enum feed feed(struct client *c, const uint8_t *in, size_t len, size_t *usedp)
{
    size_t body;

    *usedp = 0;
    if (len < FRAME_HEAD)
        return FEED_MORE;
    body = (size_t)in[0] << 16 | (size_t)in[1] << 8 | in[2];
    if (len < FRAME_HEAD + body)
        return FEED_MORE;
    *usedp = FRAME_HEAD + body;
    return on_frame(c, in, body);
}

const struct protocol protocol_etcd = {.name = "etcd",
                                       .alpn = "\x02h2",
                                       .greets = true,
                                       .greet = greet,
                                       .request = request,
                                       .feed = feed};
