/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * http_parser.c - HTTP/1.1 requests from bytes, strictly (RFC 9112).
 *
 * What two parsers could read in two ways is refused, because a proxy in front of us is such a
 * second parser: both Content-Length and Transfer-Encoding, repeated or signed lengths, bare CR or
 * LF, folded header lines, spaces before the colon, NUL, chunk sizes that are not plain hex. Memory
 * is bounded by HTTP_HEADER_MAX_BYTES (head, and trailers) and HTTP_BODY_MAX_BYTES.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_private.h"

#define HEADERS_MAX 100
#define CHUNK_LINE_MAX_BYTES 256
#define KEPT_MAX_BYTES 16384 /* of a buffer, for the next request of the connection */

enum state { HEAD, BODY, CHUNK_LINE, CHUNK_DATA, CHUNK_END, TRAILER, COMPLETE, BROKEN };

struct http_parser {
    enum state state;
    struct buf head; /* the head, or the current chunk or trailer line */
    struct buf body;
    size_t left; /* bytes of the body or chunk still to come */
    size_t trailer_bytes;
    bool wants_continue, wants_close;
    struct http_request rq;
    struct http_header *headers;
};

struct http_parser *http_parser_new(void)
{
    struct http_parser *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->head.secret = p->body.secret = true;
    return p;
}

static void empty(struct buf *b)
{
    if (b->cap > KEPT_MAX_BYTES)
        buf_free(b);
    else
        buf_clear(b);
    b->secret = true;
}

void http_parser_reset(struct http_parser *p)
{
    struct buf head = p->head, body = p->body;
    struct arena *arena = p->rq.arena;

    empty(&head);
    empty(&body);
    if (arena != NULL)
        arena_reset(arena);
    *p = (struct http_parser){.head = head, .body = body, .rq.arena = arena};
}

void http_parser_free(struct http_parser *p)
{
    if (p == NULL)
        return;
    buf_free(&p->head);
    buf_free(&p->body);
    arena_free(p->rq.arena);
    free(p);
}

bool http_parser_wants_continue(struct http_parser *p)
{
    bool wants =
        p->wants_continue && p->state != COMPLETE && p->state != BROKEN && p->state != HEAD;

    if (wants)
        p->wants_continue = false;
    return wants;
}

bool http_parser_wants_close(const struct http_parser *p)
{
    return p->wants_close;
}

bool http_parser_idle(const struct http_parser *p)
{
    return p->state == HEAD && p->head.len == 0;
}

struct http_request *http_parser_request(struct http_parser *p)
{
    return p->state == COMPLETE ? &p->rq : NULL;
}

const char *http_header(const struct http_request *rq, const char *name)
{
    for (size_t i = 0; i < rq->n_headers; i++)
        if (((rq->headers[i].name[0] ^ name[0]) & ~0x20) == 0 && /* most differ in it */
            strcasecmp(rq->headers[i].name, name) == 0)
            return rq->headers[i].value;
    return NULL;
}

static int fail(struct http_parser *p, int *statusp, int status, struct err *err, const char *why)
{
    p->state = BROKEN;
    *statusp = status;
    return err_set(err, ERR_PROTO, 0, "%s", why);
}

enum { TOKEN = 1, TARGET = 2, VALUE = 4, TEXT = TARGET | VALUE, ANY = TOKEN | TEXT };

/* What a byte may stand in: a token (RFC 9110 5.6.2), a request target, a header's value. */
static const uint8_t classes[256] = {
    ['\t'] = VALUE,       [' '] = VALUE,        ['!'] = ANY,         ['"'] = TEXT,
    ['#' ... '\''] = ANY, ['(' ... ')'] = TEXT, ['*' ... '+'] = ANY, [','] = TEXT,
    ['-' ... '.'] = ANY,  ['/'] = TEXT,         ['0' ... '9'] = ANY, [':' ... '@'] = TEXT,
    ['A' ... 'Z'] = ANY,  ['[' ... ']'] = TEXT, ['^' ... 'z'] = ANY, ['{'] = TEXT,
    ['|'] = ANY,          ['}'] = TEXT,         ['~'] = ANY,         [128 ... 255] = TEXT,
};

/* The first byte of the text that is none of them; NUL is of no class. */
static char *skip(char *text, unsigned class)
{
    while (classes[(unsigned char)*text] & class)
        text++;
    return text;
}

static bool parse_request_line(struct http_parser *p, char *line)
{
    char *target = strchr(line, ' '), *version;

    if (target == NULL || target == line || target - line > 32)
        return false;
    *target++ = '\0';
    if (*skip(line, TOKEN) != '\0')
        return false;
    version = strchr(target, ' ');
    if (version == NULL || version == target)
        return false;
    *version++ = '\0';
    if (*skip(target, TARGET) != '\0')
        return false;
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return false;
    p->rq.method = line;
    p->rq.target = target;
    p->rq.minor = version[7] - '0';
    return true;
}

static bool parse_header_line(char *line, struct http_header *h)
{
    char *colon = skip(line, TOKEN), *end;

    if (colon == line || *colon != ':')
        return false; /* also a folded line, and a space before the colon */
    *colon++ = '\0';
    while (*colon == ' ' || *colon == '\t')
        colon++;
    end = skip(colon, VALUE);
    if (*end != '\0')
        return false;
    while (end > colon && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = '\0';
    h->name = line;
    h->value = colon;
    return true;
}

/* True when the comma-separated value holds the word. */
static bool lists(const char *value, const char *word)
{
    size_t len = strlen(word);

    for (const char *v = value; v != NULL && *v != '\0'; v = strchr(v, ',')) {
        while (*v == ',' || *v == ' ' || *v == '\t')
            v++;
        if (strncasecmp(v, word, len) == 0 &&
            (v[len] == '\0' || v[len] == ',' || v[len] == ' ' || v[len] == '\t'))
            return true;
    }
    return false;
}

static bool parse_length(const char *text, size_t *outp)
{
    size_t n = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text) || n > SIZE_MAX / 16)
            return false;
        n = n * 10 + (size_t)(*text - '0');
    }
    *outp = n;
    return true;
}

/* Decides how the body is framed. */
static int start_body(struct http_parser *p, int *statusp, struct err *err)
{
    const char *length = NULL, *coding = NULL;
    size_t n = 0;

    for (size_t i = 0; i < p->rq.n_headers; i++) {
        const struct http_header *h = &p->headers[i];
        if (strcasecmp(h->name, "Content-Length") == 0) {
            if (length != NULL)
                return fail(p, statusp, 400, err, "repeated Content-Length");
            length = h->value;
        } else if (strcasecmp(h->name, "Transfer-Encoding") == 0) {
            if (coding != NULL)
                return fail(p, statusp, 400, err, "repeated Transfer-Encoding");
            coding = h->value;
        } else if (strcasecmp(h->name, "Connection") == 0) {
            p->wants_close = p->wants_close || lists(h->value, "close");
            if (p->rq.minor == 0 && lists(h->value, "keep-alive"))
                p->wants_close = false;
        } else if (strcasecmp(h->name, "Expect") == 0) {
            if (strcasecmp(h->value, "100-continue") != 0)
                return fail(p, statusp, 417, err, "unknown expectation");
            p->wants_continue = p->rq.minor == 1;
        }
    }
    if (coding != NULL && (length != NULL || p->rq.minor == 0))
        return fail(p, statusp, 400, err, "Content-Length with Transfer-Encoding, or in HTTP/1.0");
    if (coding != NULL && strcasecmp(coding, "chunked") != 0)
        return fail(p, statusp, 501, err, "unsupported transfer encoding");
    if (length != NULL && !parse_length(length, &n))
        return fail(p, statusp, 400, err, "bad Content-Length");
    if (n > HTTP_BODY_MAX_BYTES)
        return fail(p, statusp, 413, err, "http: request body too large");
    p->left = n;
    p->state = coding != NULL ? CHUNK_LINE : n > 0 ? BODY : COMPLETE;
    buf_clear(&p->head);
    if (n > 0 && buf_reserve(&p->body, n) == NULL)
        return fail(p, statusp, 503, err, "out of memory for a request body");
    return 0;
}

static int parse_head(struct http_parser *p, int *statusp, struct err *err)
{
    size_t len = p->head.len - 4; /* without the empty line */
    char *text, *line;
    size_t n = 0, room = 1;

    if (memchr(p->head.data, '\0', p->head.len) != NULL)
        return fail(p, statusp, 400, err, "NUL in the header");
    if (p->rq.arena == NULL)
        p->rq.arena = arena_new(4096);
    text = p->rq.arena == NULL ? NULL : arena_strndup(p->rq.arena, (char *)p->head.data, len);
    for (const char *at = text; at != NULL && (at = strchr(at, '\n')) != NULL; at++)
        room++;
    if (room > HEADERS_MAX)
        room = HEADERS_MAX;
    p->headers = text == NULL ? NULL : arena_alloc(p->rq.arena, room * sizeof(*p->headers));
    if (p->headers == NULL)
        return fail(p, statusp, 503, err, "out of memory for a request");
    for (line = text; line != NULL;) {
        char *next = strstr(line, "\r\n");
        if (next != NULL) {
            *next = '\0';
            next += 2;
        }
        if (strpbrk(line, "\r\n") != NULL)
            return fail(p, statusp, 400, err, "bare CR or LF in the header");
        if (line == text) {
            if (!parse_request_line(p, line))
                return fail(p, statusp, 400, err, "malformed request line");
        } else if (n == HEADERS_MAX) {
            return fail(p, statusp, 431, err, "too many header lines");
        } else if (!parse_header_line(line, &p->headers[n++])) {
            return fail(p, statusp, 400, err, "malformed header line");
        }
        line = next;
    }
    p->rq.headers = p->headers;
    p->rq.n_headers = n;
    p->wants_close = p->rq.minor == 0;
    return start_body(p, statusp, err);
}

/* Adds bytes to the line buffer up to and with the terminator. 1 when it is there. */
static int take_line(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                     size_t max, const char *end)
{
    size_t end_len = strlen(end), old = p->head.len, from = old >= end_len ? old - end_len + 1 : 0;
    size_t take = len < max + 1 - old ? len : max + 1 - old;
    uint8_t *at;

    buf_add(&p->head, data, take);
    if (p->head.failed)
        return -1;
    at = memmem(p->head.data + from, p->head.len - from, end, end_len);
    if (at == NULL) {
        *usedp = take;
        return p->head.len > max ? -2 : 0;
    }
    *usedp = (size_t)(at - p->head.data) + end_len - old;
    p->head.len = (size_t)(at - p->head.data) + end_len;
    p->head.data[p->head.len] = '\0';
    return 1;
}

static int take_head(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                     int *statusp, struct err *err)
{
    size_t skipped = 0;
    int got;

    /* An empty line before a request is allowed (RFC 9112 2.2). */
    while (p->head.len == 0 && len >= 2 && data[0] == '\r' && data[1] == '\n' && skipped < 8) {
        data += 2;
        len -= 2;
        skipped += 2;
    }
    got = take_line(p, data, len, usedp, HTTP_HEADER_MAX_BYTES, "\r\n\r\n");
    *usedp += skipped;
    if (got == -1)
        return fail(p, statusp, 503, err, "out of memory for a request");
    if (got == -2)
        return fail(p, statusp, 431, err, "request header too large");
    return got == 1 ? parse_head(p, statusp, err) : 0;
}

static int take_chunk_line(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                           int *statusp, struct err *err)
{
    int got = take_line(p, data, len, usedp, CHUNK_LINE_MAX_BYTES, "\r\n");
    size_t n = 0;
    int digits = 0;

    if (got < 0)
        return fail(p, statusp, 400, err, "chunk line too long");
    if (got == 0)
        return 0;
    for (const char *c = buf_str(&p->head); isxdigit((unsigned char)*c); c++) {
        n = n * 16 +
            (size_t)(isdigit((unsigned char)*c) ? *c - '0' : tolower((unsigned char)*c) - 'a' + 10);
        if (++digits > 8)
            return fail(p, statusp, 413, err, "http: request body too large");
    }
    if (digits == 0 || (p->head.data[digits] != '\r' && p->head.data[digits] != ';'))
        return fail(p, statusp, 400, err, "malformed chunk size");
    for (size_t i = (size_t)digits; i < p->head.len - 2; i++)
        if (p->head.data[i] < ' ' || p->head.data[i] == 127)
            return fail(p, statusp, 400, err, "malformed chunk extension");
    buf_clear(&p->head);
    if (n > HTTP_BODY_MAX_BYTES - p->body.len)
        return fail(p, statusp, 413, err, "http: request body too large");
    p->left = n;
    p->state = n > 0 ? CHUNK_DATA : TRAILER;
    return 0;
}

static int take_trailer(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                        int *statusp, struct err *err)
{
    int got = take_line(p, data, len, usedp, HTTP_HEADER_MAX_BYTES, "\r\n");
    struct http_header ignored;

    p->trailer_bytes += *usedp;
    if (got < 0 || p->trailer_bytes > HTTP_HEADER_MAX_BYTES)
        return fail(p, statusp, 431, err, "trailers too large");
    if (got == 0)
        return 0;
    if (p->head.len == 2) {
        p->state = COMPLETE;
    } else {
        p->head.data[p->head.len - 2] = '\0';
        if (strlen(buf_str(&p->head)) != p->head.len - 2 ||
            !parse_header_line((char *)p->head.data, &ignored))
            return fail(p, statusp, 400, err, "malformed trailer");
    }
    buf_clear(&p->head);
    return 0;
}

static int step(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp, int *statusp,
                struct err *err)
{
    size_t take;

    switch (p->state) {
    case HEAD:
        return take_head(p, data, len, usedp, statusp, err);
    case BODY:
    case CHUNK_DATA:
        take = len < p->left ? len : p->left;
        buf_add(&p->body, data, take);
        if (p->body.failed)
            return fail(p, statusp, 503, err, "out of memory for a request body");
        *usedp = take;
        p->left -= take;
        if (p->left == 0)
            p->state = p->state == BODY ? COMPLETE : CHUNK_END;
        return 0;
    case CHUNK_LINE:
        return take_chunk_line(p, data, len, usedp, statusp, err);
    case CHUNK_END:
        switch (take_line(p, data, len, usedp, 2, "\r\n")) {
        case 0:
            return 0;
        case 1:
            if (p->head.len == 2) {
                buf_clear(&p->head);
                p->state = CHUNK_LINE;
                return 0;
            }
        }
        return fail(p, statusp, 400, err, "malformed chunk end");
    case TRAILER:
        return take_trailer(p, data, len, usedp, statusp, err);
    case COMPLETE:
    case BROKEN:
        break;
    }
    return fail(p, statusp, 400, err, "request is over");
}

int http_parser_feed(struct http_parser *p, const uint8_t *data, size_t len, size_t *usedp,
                     int *statusp, struct err *err)
{
    *usedp = 0;
    *statusp = 0;
    while (*usedp < len && p->state != COMPLETE) {
        size_t used = 0;
        if (step(p, data + *usedp, len - *usedp, &used, statusp, err) != 0)
            return -1;
        *usedp += used;
    }
    if (p->state == BROKEN)
        return fail(p, statusp, 400, err, "request is broken");
    if (p->state != COMPLETE)
        return 0;
    p->rq.body = p->body.data;
    p->rq.body_len = p->body.len;
    return 1;
}
