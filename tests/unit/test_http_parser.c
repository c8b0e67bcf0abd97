/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_http_parser.c - what is read, what is refused and with which status, whole and byte by byte.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "http_private.h"

TestSuite(http_parser, .timeout = 30);

/* Feeds text in pieces; returns 1 and the parser, or the refusing status. */
static int feed(struct http_parser *p, const char *text, size_t len, size_t piece, size_t *restp)
{
    struct err err = {0};
    size_t at = 0;
    int status, rc = 0;

    while (at < len) {
        size_t n = len - at < piece ? len - at : piece, used;
        rc = http_parser_feed(p, (const uint8_t *)text + at, n, &used, &status, &err);
        if (rc < 0)
            return status;
        at += used;
        if (rc == 1)
            break;
        cr_assert_eq(used, n, "an unfinished request eats all");
    }
    if (restp != NULL)
        *restp = len - at;
    return rc;
}

static const size_t pieces[] = {1, 2, 3, 7, 100000};

/* A request reads the same however it is cut on its way. */
Test(http_parser, any_cut_reads_the_same)
{
    static const char text[] = "PUT /v1/kv/a%2Fb?x=1 HTTP/1.1\r\nHost: h\r\nX-Vault-Token:  s.abc "
                               "\r\nContent-Length: 7\r\n\r\n{\"a\":1}GET ";

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct http_parser *p = http_parser_new();
        struct http_request *rq;
        size_t rest;
        cr_assert_eq(feed(p, text, strlen(text), pieces[i], &rest), 1);
        rq = http_parser_request(p);
        cr_assert_str_eq(rq->method, "PUT");
        cr_assert_str_eq(rq->target, "/v1/kv/a%2Fb?x=1");
        cr_assert_str_eq(http_header(rq, "x-vault-token"), "s.abc");
        cr_assert_null(http_header(rq, "missing"));
        cr_assert_eq(rq->body_len, 7);
        cr_assert_eq(memcmp(rq->body, "{\"a\":1}", 7), 0);
        cr_assert_not(http_parser_wants_close(p));
        if (pieces[i] > 100)
            cr_assert_eq(rest, 4, "the next request is left alone");
        http_parser_free(p);
    }
}

/* Chunks, with extensions and trailers, are joined. */
Test(http_parser, chunks_are_joined)
{
    static const char text[] =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "4\r\nWiki\r\n6;x=y\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nT: v\r\n\r\n";

    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        struct http_parser *p = http_parser_new();
        struct http_request *rq;
        cr_assert_eq(feed(p, text, strlen(text), pieces[i], NULL), 1);
        rq = http_parser_request(p);
        cr_assert_eq(rq->body_len, 24);
        cr_assert_eq(memcmp(rq->body, "Wikipedia in \r\n\r\nchunks.", 24), 0);
        http_parser_free(p);
    }
}

/* What a proxy could read otherwise is refused. */
Test(http_parser, ambiguous_requests_are_refused)
{
    static const struct {
        const char *text;
        int status;
    } bad[] = {
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400},
        {"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\nx", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nContent-Length: 33554433\r\n\r\n", 413},
        {"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
        {"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\r\n c: d\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400},
        {"GET / HTTP/1.1\nA: b\n\r\n\r\n", 400},
        {"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", 400},
        {"GET / HTTP/2.0\r\n\r\n", 400},
        {"GET  / HTTP/1.1\r\n\r\n", 400},
        {"GET /\r\n\r\n", 400},
        {"G@T / HTTP/1.1\r\n\r\n", 400},
        {" / HTTP/1.1\r\n\r\n", 400},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400},
        {"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff1\r\n", 413},
        {"PUT / HTTP/1.1\r\nExpect: tea\r\n\r\n", 417},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (size_t j = 0; j < sizeof(pieces) / sizeof(pieces[0]); j++) {
            struct http_parser *p = http_parser_new();
            int got = feed(p, bad[i].text, strlen(bad[i].text), pieces[j], NULL);
            cr_expect_eq(got, bad[i].status, "case %zu cut at %zu: %d", i, pieces[j], got);
            http_parser_free(p);
        }
    }
    struct http_parser *p = http_parser_new();
    cr_expect_eq(feed(p, "GET / HTTP/1.1\r\nA: \0b\r\n\r\n", 26, 100, NULL), 400);
    http_parser_free(p);
}

/* The header is bounded, in size and in lines. */
Test(http_parser, a_header_without_end_is_refused)
{
    struct http_parser *p = http_parser_new();
    struct buf text = {0};

    buf_adds(&text, "GET / HTTP/1.1\r\nA: ");
    while (text.len < HTTP_HEADER_MAX_BYTES + 10)
        buf_addc(&text, 'x');
    cr_assert_eq(feed(p, buf_str(&text), text.len, 4096, NULL), 431);
    http_parser_reset(p);
    buf_clear(&text);
    buf_adds(&text, "GET / HTTP/1.1\r\n");
    for (int i = 0; i < 101; i++)
        buf_adds(&text, "A: b\r\n");
    buf_adds(&text, "\r\n");
    cr_assert_eq(feed(p, buf_str(&text), text.len, 4096, NULL), 431);
    buf_free(&text);
    http_parser_free(p);
}

/* Keep-alive by version and header, 100-continue once. */
Test(http_parser, connection_and_expect)
{
    static const struct {
        const char *text;
        bool close;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", true},
        {"\r\n\r\nGET / HTTP/1.1\r\n\r\n", false},
    };
    static const char expect[] =
        "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    struct http_parser *p = http_parser_new();

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(feed(p, cases[i].text, strlen(cases[i].text), 1000, NULL), 1);
        cr_assert_eq(http_parser_wants_close(p), cases[i].close);
        http_parser_reset(p);
    }
    cr_assert_eq(feed(p, expect, strlen(expect), 1000, NULL), 0);
    cr_assert(http_parser_wants_continue(p));
    cr_assert_not(http_parser_wants_continue(p));
    cr_assert_eq(feed(p, "ab", 2, 1000, NULL), 1);
    http_parser_free(p);
}
