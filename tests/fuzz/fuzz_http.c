/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fuzz_http.c - the HTTP parser: two ways to cut the same bytes must read the same.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(struct http_parser *p, const uint8_t *data, size_t size, size_t piece)
{
    int rc = 0, status = 0;
    size_t at = 0;

    while (at < size) {
        size_t n = size - at < piece ? size - at : piece, used;
        rc = http_parser_feed(p, data + at, n, &used, &status, NULL);
        assert(used <= n);
        at += used;
        if (rc < 0)
            return status;
        if (rc == 1)
            return 1;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_parser *a = http_parser_new(), *b = http_parser_new();
    int x, y;

    if (a == NULL || b == NULL)
        abort();
    x = run(a, data, size, size > 0 ? size : 1);
    y = run(b, data, size, 3);
    assert((x == 1) == (y == 1));
    if (x == 1) {
        struct http_request *ra = http_parser_request(a), *rb = http_parser_request(b);
        assert(strcmp(ra->method, rb->method) == 0 && strcmp(ra->target, rb->target) == 0);
        assert(ra->body_len == rb->body_len && ra->n_headers == rb->n_headers);
    }
    http_parser_free(a);
    http_parser_free(b);
    return 0;
}
