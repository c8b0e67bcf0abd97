/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_http_server.c - a real server on loopback, spoken to byte by byte.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http.h"

static struct reactor *reactors[2];
static struct http_server *server;
static struct err err;
static char bound[64];

/* "one", "two" and the end; or "one" and no more. */
static struct stream {
    _Atomic int asked, ended;
    _Atomic bool broken;
} stream;

static int stream_next(void *arg, struct buf *out)
{
    struct stream *s = arg;

    s->asked++;
    if (s->asked == 2 && s->broken)
        return -1;
    if (s->asked < 3)
        buf_adds(out, s->asked == 1 ? "one" : "two");
    return s->asked < 3;
}

static void stream_end(void *arg)
{
    ((struct stream *)arg)->ended++;
}

static void echo(void *arg, struct http_request *rq, struct http_response *rs)
{
    (void)arg;
    if (strncmp(rq->target, "/stream", 7) == 0) {
        stream.asked = stream.ended = 0;
        stream.broken = strcmp(rq->target, "/stream-broken") == 0;
        rs->status = 200;
        rs->stream = (struct http_stream){stream_next, stream_end, &stream};
        return;
    }
    rs->status = strcmp(rq->target, "/none") == 0 ? 204 : 200;
    buf_adds(&rs->headers, "Content-Type: text/plain\r\n");
    if (strcmp(rq->target, "/big") == 0) {
        uint8_t *at = buf_reserve(&rs->body, 4u << 20);
        memset(at, 'b', 4u << 20);
        rs->body.len = 4u << 20;
    } else if (rs->status == 200) {
        buf_printf(&rs->body, "%s %s %zu", rq->method, rq->target, rq->body_len);
    }
}

static void setup(void)
{
    struct http_listener_config cfg = {.address = "127.0.0.1:0"};

    for (int i = 0; i < 2; i++) {
        cr_assert_eq(reactor_new(env_real(), NULL, &reactors[i], &err), 0, "%s", err.msg);
        cr_assert_eq(reactor_start(reactors[i], "http", &err), 0);
    }
    cr_assert_eq(http_server_new(reactors, 2, echo, NULL, NULL, &server, &err), 0);
    cr_assert_eq(http_listen(server, &cfg, bound, sizeof(bound), &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    http_server_shutdown(server);
    for (int i = 0; i < 2; i++)
        reactor_stop(reactors[i], 2000);
    http_server_free(server);
    for (int i = 0; i < 2; i++)
        reactor_free(reactors[i]);
}

TestSuite(http_server, .init = setup, .fini = teardown, .timeout = 60);

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_port = htons((uint16_t)atoi(strrchr(bound, ':') + 1));
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return fd;
}

static void put(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until `ends` occurrences of the text were seen, or the end. */
static const char *get(int fd, const char *until, int times)
{
    static char text[1 << 16];
    size_t n = 0;

    for (;;) {
        int seen = 0;
        ssize_t got;
        text[n] = '\0';
        for (const char *p = text; (p = strstr(p, until)) != NULL; p++)
            seen++;
        if (seen >= times)
            return text;
        got = recv(fd, text + n, sizeof(text) - 1 - n, 0);
        cr_assert_geq(got, 0, "timed out; so far: %s", text);
        if (got == 0)
            return text;
        n += (size_t)got;
    }
}

/* One connection serves many requests, pipelined ones in order. */
Test(http_server, keep_alive_and_pipelining_in_order)
{
    int fd = dial();
    const char *text, *one, *two, *three;

    put(fd, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPUT /2 HTTP/1.1\r\nHost: x\r\nContent-Length: "
            "3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: x\r\n\r\n");
    text = get(fd, "GET /3 0", 1);
    one = strstr(text, "GET /1 0");
    two = strstr(text, "PUT /2 3");
    three = strstr(text, "GET /3 0");
    cr_assert(one != NULL && two > one && three > two, "%s", text);
    cr_assert_not_null(strstr(text, "Content-Length: 8\r\n"));
    cr_assert_not_null(strstr(text, "\r\nDate: "));
    put(fd, "GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    text = get(fd, "no such text", 1);
    cr_assert_not_null(strstr(text, "Connection: close\r\n"));
    cr_assert_not_null(strstr(text, "GET /4 0"));
    close(fd);
}

/* A client that sends half a request and no more is not waited for. */
Test(http_server, half_a_request_is_ended_after_its_time)
{
    struct http_listener_config cfg = {.address = "127.0.0.1:0", .read_timeout_ms = 200};
    const char *text;
    int fd;

    cr_assert_eq(http_listen(server, &cfg, bound, sizeof(bound), &err), 0, "%s", err.msg);
    fd = dial();
    put(fd, "PUT /half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf of it");
    text = get(fd, "no such text", 1); /* until the server ends it; 20 s at most */
    cr_assert_null(strstr(text, "PUT /half"), "it was taken for a whole one: %s", text);
    close(fd);
}

/* No body on HEAD and 204. */
Test(http_server, head_and_204_have_no_body)
{
    int fd = dial();
    const char *text;

    put(fd, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n");
    text = get(fd, "\r\n\r\n", 1);
    cr_assert_not_null(strstr(text, "Content-Length: 9\r\n"));
    cr_assert_null(strstr(text, "HEAD /x 0"));
    put(fd, "GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
    text = get(fd, "\r\n\r\n", 1);
    cr_assert_eq(strncmp(text, "HTTP/1.1 204 ", 13), 0);
    cr_assert_null(strstr(text, "Content-Length"));
    close(fd);
}

/* A body of unknown length comes in chunks, and the connection serves on. */
Test(http_server, a_stream_comes_in_chunks)
{
    int fd = dial();
    const char *text;

    put(fd, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
    text = get(fd, "GET /next 0", 1);
    cr_assert_not_null(strstr(text, "Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n"
                                    "0\r\n\r\nHTTP/1.1 200 "),
                       "%s", text);
    cr_assert_eq(stream.ended, 1);
    close(fd);
    fd = dial();
    put(fd, "GET /stream HTTP/1.0\r\nHost: x\r\n\r\n");
    text = get(fd, "no such text", 1);
    cr_assert_not_null(strstr(text, "Connection: close\r\n\r\nonetwo"), "%s", text);
    close(fd);
}

/* One that cannot go on is cut, so that nobody takes a part for the whole. */
Test(http_server, a_broken_stream_is_cut_without_its_last_chunk)
{
    int fd = dial();
    const char *text;

    put(fd, "GET /stream-broken HTTP/1.1\r\nHost: x\r\n\r\n");
    text = get(fd, "no such text", 1);
    cr_assert_not_null(strstr(text, "\r\n\r\n3\r\none\r\n"), "%s", text);
    cr_assert_null(strstr(text, "\r\n0\r\n"));
    cr_assert_eq(stream.ended, 1);
    close(fd);
}

/* A refused request is answered and ends the connection, not the server. */
Test(http_server, bad_requests_end_their_connection_only)
{
    int fd = dial(), other = dial();

    put(fd, "NONSENSE\r\n\r\n");
    cr_assert_not_null(strstr(get(fd, "no such text", 1), "HTTP/1.1 400"));
    close(fd);
    fd = dial();
    put(fd, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 40000000\r\n\r\n");
    cr_assert_not_null(
        strstr(get(fd, "no such text", 1), "{\"errors\":[\"http: request body too large\"]}"));
    close(fd);
    fd = dial();
    put(fd, "PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf");
    close(fd);
    put(other, "GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert_not_null(strstr(get(other, "GET /alive 0", 1), "GET /alive 0"));
    close(other);
}

/* The client that waits for it is told to go on. */
Test(http_server, expect_continue)
{
    int fd = dial();

    put(fd, "PUT /c HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    cr_assert_not_null(strstr(get(fd, "\r\n\r\n", 1), "100 Continue"));
    put(fd, "ab");
    cr_assert_not_null(strstr(get(fd, "PUT /c 2", 1), "PUT /c 2"));
    close(fd);
}

/* Eight clients that ask for much and read nothing do not stop others; when they read, all is
 * there. */
Test(http_server, a_client_that_does_not_read_is_slowed_alone)
{
    int lazy[8], fd;
    static char sink[1 << 20];
    size_t want = 10 * (size_t)(4u << 20), got = 0;

    for (int i = 0; i < 8; i++) {
        lazy[i] = dial();
        for (int j = 0; j < 10; j++)
            put(lazy[i], "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    fd = dial();
    put(fd, "GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_assert_not_null(strstr(get(fd, "GET /alive 0", 1), "GET /alive 0"));
    close(fd);
    while (got < want) {
        ssize_t n = recv(lazy[0], sink, sizeof(sink), 0);
        cr_assert_gt(n, 0);
        for (ssize_t i = 0; i < n; i++)
            got += sink[i] == 'b';
    }
    for (int i = 0; i < 8; i++)
        close(lazy[i]);
}

/* A port that is taken is an error that names it. */
Test(http_server, port_in_use_is_said)
{
    struct http_listener_config cfg = {.address = bound};

    cr_assert_eq(http_listen(server, &cfg, NULL, 0, &err), -1);
    cr_assert_eq(err.code, ERR_BUSY);
    cr_assert_not_null(strstr(err.msg, bound));
}
