/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_load.c - the benchmark's protocols find the end of an answer, however it is cut, and a
 * refusal.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "load.h"

static struct load_request rq = {.host = "h:1", .path = "/v1/kv/", .user = "u", .database = "d"};
static struct client c;

/* Feed it byte by byte: no answer may be seen before the last byte. */
static enum feed feed(const struct protocol *p, const void *bytes, size_t len)
{
    const uint8_t *in = bytes;
    size_t at = 0, used;
    enum feed f = FEED_MORE;

    for (size_t end = 1; end <= len; end++) {
        do {
            cr_assert_eq(f, FEED_MORE, "an answer before byte %zu of %zu", end, len);
            f = p->feed(&c, in + at, end - at, &used);
            at += used;
        } while (f == FEED_MORE && used > 0 && at < end);
    }
    return f;
}
#define FEED(p, text) feed(&(p), text, sizeof(text) - 1)

static void begin(const struct protocol *p, const char *key, const char *value)
{
    c.rq = &rq;
    c.ready = true;
    p->request(&c, key, value, strlen(value));
}

Test(load, http_waits_for_the_whole_body_and_tells_a_refusal)
{
    begin(&protocol_http, "k", "");
    cr_assert_eq(FEED(protocol_http, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhello"),
                 FEED_ANSWER);
    cr_assert_eq(FEED(protocol_http, "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"), FEED_ANSWER);
    cr_assert_eq(FEED(protocol_http, "HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}"),
                 FEED_REFUSED);
}

Test(load, http_body_has_the_size_that_was_asked_for)
{
    const char *value = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"; /* 64 */
    const char *body;

    begin(&protocol_http, "k", value);
    cr_assert_not_null(strstr(buf_str(&c.out), "PUT /v1/kv/k HTTP/1.1\r\n"));
    cr_assert_not_null(strstr(buf_str(&c.out), "Content-Length: 64\r\n"));
    body = strstr(buf_str(&c.out), "\r\n\r\n") + 4;
    cr_assert_eq(strlen(body), 64, "%s", body);
}

Test(load, redis_with_replicas_waits_for_both_answers)
{
    rq.replicas = 1;
    begin(&protocol_redis, "k", "v");
    cr_assert_eq(FEED(protocol_redis, "+OK\r\n:1\r\n"), FEED_ANSWER);
    begin(&protocol_redis, "k", "v");
    cr_assert_eq(FEED(protocol_redis, "+OK\r\n:0\r\n"), FEED_REFUSED);
}

Test(load, redis_error_is_a_refusal)
{
    begin(&protocol_redis, "k", "v");
    cr_assert_eq(FEED(protocol_redis, "-MISCONF no disk\r\n"), FEED_REFUSED);
}

Test(load, postgres_answers_end_when_it_is_ready_again)
{
    begin(&protocol_postgres, "k", "v");
    c.step = 2; /* greeted */
    cr_assert_eq(FEED(protocol_postgres, "2\0\0\0\x04"
                                         "C\0\0\0\x0fINSERT 0 1\0"
                                         "Z\0\0\0\x05I"),
                 FEED_ANSWER);
    cr_assert_eq(FEED(protocol_postgres, "E\0\0\0\x05\0"), FEED_REFUSED);
}

Test(load, postgres_that_wants_a_password_is_a_refusal)
{
    c.rq = &rq;
    protocol_postgres.greet(&c);
    cr_assert_eq(FEED(protocol_postgres, "R\0\0\0\x08\0\0\0\x03"), FEED_REFUSED);
}

Test(load, etcd_message_and_trailers_are_an_answer_and_trailers_alone_a_refusal)
{
    c.stream = 1;
    begin(&protocol_etcd, "k", "v");
    cr_assert_eq(FEED(protocol_etcd, "\0\0\x01\x01\x04\0\0\0\x01\x88"   /* headers */
                                     "\0\0\x05\0\0\0\0\0\x01\0\0\0\0\0" /* an empty message */
                                     "\0\0\x01\x01\x05\0\0\0\x01\x88"), /* trailers */
                 FEED_ANSWER);
    begin(&protocol_etcd, "k", "v");
    cr_assert_eq(FEED(protocol_etcd, "\0\0\x01\x01\x05\0\0\0\x03\x88"), FEED_REFUSED);
}

Test(load, etcd_ping_is_answered)
{
    c.rq = &rq;
    c.ready = true;
    cr_assert_eq(FEED(protocol_etcd, "\0\0\x08\x06\0\0\0\0\0"
                                     "12345678"),
                 FEED_MORE);
    cr_assert_eq(c.out.len, 17);
    cr_assert_eq(memcmp(c.out.data,
                        "\0\0\x08\x06\x01\0\0\0\0"
                        "12345678",
                        17),
                 0);
}
