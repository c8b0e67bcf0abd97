/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hcl_scan.c - tokens of HCL1 and of JSON.
 *
 * Positions are 1-based and counted in characters. As HCL1 does, each scan at the end of the text
 * moves the column one further, so that messages name the same place as Vault's.
 */
#include "hcl_private.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

const char *const hcl_token_names[] = {
    [T_EOF] = "EOF",       [T_COMMENT] = "COMMENT", [T_IDENT] = "IDENT",   [T_NUMBER] = "NUMBER",
    [T_FLOAT] = "FLOAT",   [T_BOOL] = "BOOL",       [T_STRING] = "STRING", [T_HEREDOC] = "HEREDOC",
    [T_LBRACK] = "LBRACK", [T_LBRACE] = "LBRACE",   [T_COMMA] = "COMMA",   [T_PERIOD] = "PERIOD",
    [T_RBRACK] = "RBRACK", [T_RBRACE] = "RBRACE",   [T_ASSIGN] = "ASSIGN", [T_ADD] = "ADD",
    [T_SUB] = "SUB",       [T_COLON] = "COLON",     [T_NULL] = "NULL",
};

int hcl_fail_at(struct hcl_parser *p, int line, int col, const char *fmt, ...)
{
    char text[200];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(p->err, ERR_INVAL, 0, "At %d:%d: %s", line, col, text);
}

int hcl_no_memory(struct hcl_parser *p)
{
    return err_set(p->err, ERR_NOMEM, 0, "out of memory");
}

/* Length of the UTF-8 character at the position, 0 when it is not one. */
static size_t rune_len(const uint8_t *s, size_t left)
{
    size_t n;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        n = 2;
    else if (s[0] >= 0xe0 && s[0] <= 0xef)
        n = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        n = 4;
    else
        return 0;
    if (left < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static int peek_byte(const struct hcl_parser *p)
{
    return p->pos < p->len ? (uint8_t)p->src[p->pos] : -1;
}

/* Where the last character read stands; a newline belongs to the line that it ends. */
static int fail_here(struct hcl_parser *p, const char *text)
{
    if (p->col > 0)
        return hcl_fail_at(p, p->line, p->col, "%s", text);
    return hcl_fail_at(p, p->line > 1 ? p->line - 1 : 1, p->last_line_len, "%s", text);
}

/* Reads one character; *cp is its first byte, or -1 at the end. */
static int next_char(struct hcl_parser *p, int *cp)
{
    size_t n;

    p->col++;
    if (p->pos >= p->len) {
        *cp = -1;
        return 0;
    }
    n = rune_len((const uint8_t *)p->src + p->pos, p->len - p->pos);
    if (n == 0)
        return fail_here(p, "illegal UTF-8 encoding");
    *cp = (uint8_t)p->src[p->pos];
    if (*cp == 0)
        return fail_here(p, "unexpected null character (0x00)");
    p->pos += n;
    if (*cp == '\n') {
        p->line++;
        p->last_line_len = p->col;
        p->col = 0;
    }
    return 0;
}

static bool is_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80;
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int scan_comment(struct hcl_parser *p, int c)
{
    if (c == '#' || peek_byte(p) == '/') {
        while (peek_byte(p) >= 0 && peek_byte(p) != '\n')
            if (next_char(p, &c) != 0)
                return -1;
        return 0;
    }
    if (peek_byte(p) != '*')
        return fail_here(p, "expected '/' for comment");
    if (next_char(p, &c) != 0)
        return -1;
    for (int before = 0;; before = c) {
        if (next_char(p, &c) != 0)
            return -1;
        if (c < 0)
            return fail_here(p, "comment not terminated");
        if (before == '*' && c == '/')
            return 0;
    }
}

static int skip_digits(struct hcl_parser *p)
{
    int c;

    while (is_digit(peek_byte(p)))
        if (next_char(p, &c) != 0)
            return -1;
    return 0;
}

static int scan_number(struct hcl_parser *p, int c)
{
    bool illegal_octal = false;
    size_t start = p->pos - 1;

    p->tok.kind = T_NUMBER;
    if (c == '0' && (peek_byte(p) == 'x' || peek_byte(p) == 'X')) {
        if (next_char(p, &c) != 0)
            return -1;
        if (hex_value(peek_byte(p)) < 0)
            return fail_here(p, "illegal hexadecimal number");
        while (hex_value(peek_byte(p)) >= 0)
            if (next_char(p, &c) != 0)
                return -1;
        return 0;
    }
    if (skip_digits(p) != 0)
        return -1;
    for (size_t i = start; c == '0' && i < p->pos; i++)
        illegal_octal |= p->src[i] == '8' || p->src[i] == '9';
    if (peek_byte(p) == '.') {
        p->tok.kind = T_FLOAT;
        if (next_char(p, &c) != 0 || skip_digits(p) != 0)
            return -1;
    }
    if (peek_byte(p) == 'e' || peek_byte(p) == 'E') {
        p->tok.kind = T_FLOAT;
        if (next_char(p, &c) != 0)
            return -1;
        if ((peek_byte(p) == '-' || peek_byte(p) == '+') && next_char(p, &c) != 0)
            return -1;
        if (!is_digit(peek_byte(p)))
            return fail_here(p, "illegal number: digits expected in the exponent");
        if (skip_digits(p) != 0)
            return -1;
    }
    if (illegal_octal && p->tok.kind == T_NUMBER)
        return fail_here(p, "illegal octal number");
    return 0;
}

static void add_rune(struct buf *out, uint32_t r)
{
    if (r < 0x80) {
        buf_addc(out, (char)r);
    } else if (r < 0x800) {
        buf_addc(out, (char)(0xc0 | (r >> 6)));
        buf_addc(out, (char)(0x80 | (r & 0x3f)));
    } else if (r < 0x10000) {
        buf_addc(out, (char)(0xe0 | (r >> 12)));
        buf_addc(out, (char)(0x80 | ((r >> 6) & 0x3f)));
        buf_addc(out, (char)(0x80 | (r & 0x3f)));
    } else {
        buf_addc(out, (char)(0xf0 | (r >> 18)));
        buf_addc(out, (char)(0x80 | ((r >> 12) & 0x3f)));
        buf_addc(out, (char)(0x80 | ((r >> 6) & 0x3f)));
        buf_addc(out, (char)(0x80 | (r & 0x3f)));
    }
}

/* n digits of a base; the first is c when it is given (>= 0). */
static int scan_digits(struct hcl_parser *p, int first, int base, int n, uint32_t *valuep)
{
    uint32_t v = 0;
    int c = first;

    for (int i = 0; i < n; i++) {
        if (i > 0 || first < 0) {
            if (hex_value(peek_byte(p)) < 0 || hex_value(peek_byte(p)) >= base)
                return fail_here(p, "illegal char escape");
            if (next_char(p, &c) != 0)
                return -1;
        }
        v = v * (uint32_t)base + (uint32_t)hex_value(c);
    }
    *valuep = v;
    return 0;
}

static int scan_json_unicode(struct hcl_parser *p, uint32_t *valuep)
{
    uint32_t low;
    int c;

    if (scan_digits(p, -1, 16, 4, valuep) != 0)
        return -1;
    if (*valuep < 0xd800 || *valuep > 0xdbff)
        return 0;
    if (peek_byte(p) != '\\' || next_char(p, &c) != 0 || peek_byte(p) != 'u' ||
        next_char(p, &c) != 0)
        return p->err != NULL && p->err->code != ERR_OK ? -1 : fail_here(p, "illegal char escape");
    if (scan_digits(p, -1, 16, 4, &low) != 0)
        return -1;
    if (low < 0xdc00 || low > 0xdfff)
        return fail_here(p, "illegal char escape");
    *valuep = 0x10000 + ((*valuep - 0xd800) << 10) + (low - 0xdc00);
    return 0;
}

static int scan_escape(struct hcl_parser *p, struct buf *out)
{
    static const char from[] = "abfnrtv\\\"", to[] = "\a\b\f\n\r\t\v\\\"";
    const char *at;
    uint32_t r = 0;
    int c, rc;

    if (next_char(p, &c) != 0)
        return -1;
    at = c > 0 && c < 0x80 ? strchr(from, c) : NULL;
    if (at != NULL && !(p->json && (c == 'a' || c == 'v'))) {
        buf_addc(out, to[at - from]);
        return 0;
    }
    if (c == '/' && p->json) {
        buf_addc(out, '/');
        return 0;
    }
    if (c == 'u') {
        rc = p->json ? scan_json_unicode(p, &r) : scan_digits(p, -1, 16, 4, &r);
    } else if (p->json) {
        return fail_here(p, "illegal char escape");
    } else if (c >= '0' && c <= '7') {
        rc = scan_digits(p, c, 8, 3, &r);
    } else if (c == 'x' || c == 'U') {
        rc = scan_digits(p, -1, 16, c == 'x' ? 2 : 8, &r);
    } else {
        return fail_here(p, "illegal char escape");
    }
    if (rc != 0)
        return -1;
    if (r == 0 || r > 0x10ffff || (r >= 0xd800 && r <= 0xdfff))
        return fail_here(p, "illegal char escape");
    add_rune(out, r);
    return 0;
}

/* The opening quote is read. Inside ${...} all is kept as written, quotes and newlines too. */
static int scan_string(struct hcl_parser *p, struct buf *out)
{
    unsigned braces = 0;

    for (;;) {
        size_t before = p->pos;
        int c;
        if (next_char(p, &c) != 0)
            return -1;
        if (c < 0 || (c == '\n' && braces == 0))
            return fail_here(p, "literal not terminated");
        if (c == '"' && braces == 0)
            return 0;
        if (p->json && c < 0x20)
            return fail_here(p, "control character in a string: write it as an escape");
        if (c == '\\' && braces == 0) {
            if (scan_escape(p, out) != 0)
                return -1;
            continue;
        }
        if (!p->json && braces == 0 && c == '$' && peek_byte(p) == '{') {
            braces = 1;
            if (next_char(p, &c) != 0)
                return -1;
        } else if (braces > 0 && c == '{') {
            braces++;
        } else if (braces > 0 && c == '}') {
            braces--;
        }
        buf_add(out, p->src + before, p->pos - before);
    }
}

static bool is_heredoc_end(const char *line, size_t len, const char *name, size_t name_len)
{
    while (len > 0 && (*line == ' ' || *line == '\t')) {
        line++;
        len--;
    }
    while (len > 0 && line[len - 1] == '\r')
        len--;
    return len == name_len && memcmp(line, name, len) == 0;
}

/* <<-E: when every line is indented at least as the end mark, that indent goes from each. */
static void add_unindented(struct buf *out, const char *body, size_t len, const char *indent,
                           size_t n)
{
    const char *end = body + len;
    bool all = n > 0;

    for (const char *s = body; s < end && all;
         s = (const char *)memchr(s, '\n', (size_t)(end - s)) + 1)
        all = (size_t)(end - s) >= n && memcmp(s, indent, n) == 0;
    if (!all) {
        buf_add(out, body, len);
        return;
    }
    for (const char *s = body; s < end;) {
        const char *nl = (const char *)memchr(s, '\n', (size_t)(end - s)) + 1;
        buf_add(out, s + n, (size_t)(nl - s) - n);
        s = nl;
    }
}

static int scan_heredoc(struct hcl_parser *p, struct buf *out)
{
    size_t name, name_len, body, line;
    bool indented = false;
    int c;

    if (next_char(p, &c) != 0)
        return -1;
    if (c != '<')
        return fail_here(p, "heredoc expected second '<', didn't see it");
    if (peek_byte(p) == '-') {
        indented = true;
        if (next_char(p, &c) != 0)
            return -1;
    }
    name = p->pos;
    while (is_letter(peek_byte(p)) || is_digit(peek_byte(p)))
        if (next_char(p, &c) != 0)
            return -1;
    name_len = p->pos - name;
    if (peek_byte(p) == '\r' && next_char(p, &c) != 0)
        return -1;
    if (next_char(p, &c) != 0)
        return -1;
    if (c < 0)
        return fail_here(p, "heredoc not terminated");
    if (c != '\n')
        return fail_here(p, "invalid characters in heredoc anchor");
    if (name_len == 0)
        return fail_here(p, "zero-length heredoc anchor");
    body = line = p->pos;
    for (;;) {
        if (peek_byte(p) < 0 || peek_byte(p) == '\n') {
            if (is_heredoc_end(p->src + line, p->pos - line, p->src + name, name_len))
                break; /* the newline stays for the scanner */
            if (next_char(p, &c) != 0)
                return -1;
            if (c < 0)
                return fail_here(p, "heredoc not terminated");
            line = p->pos;
        } else if (next_char(p, &c) != 0) {
            return -1;
        }
    }
    if (indented) {
        size_t n = 0;
        while (p->src[line + n] == ' ' || p->src[line + n] == '\t')
            n++;
        add_unindented(out, p->src + body, line - body, p->src + line, n);
    } else {
        buf_add(out, p->src + body, line - body);
    }
    return 0;
}

static int keep_text(struct hcl_parser *p, const struct buf *b)
{
    if (b->failed)
        return hcl_no_memory(p);
    p->tok.text = arena_strndup(p->arena, buf_str(b), b->len);
    return p->tok.text != NULL ? 0 : hcl_no_memory(p);
}

static int keep_raw(struct hcl_parser *p)
{
    p->tok.text = arena_strndup(p->arena, p->src + p->tok.start, p->pos - p->tok.start);
    return p->tok.text != NULL ? 0 : hcl_no_memory(p);
}

static int scan_word(struct hcl_parser *p)
{
    const char *s;
    int c;

    while (is_letter(peek_byte(p)) || is_digit(peek_byte(p)) || peek_byte(p) == '-' ||
           peek_byte(p) == '.')
        if (next_char(p, &c) != 0)
            return -1;
    p->tok.kind = T_IDENT;
    if (keep_raw(p) != 0)
        return -1;
    s = p->tok.text;
    if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
        p->tok.kind = T_BOOL;
    else if (p->json && strcmp(s, "null") == 0)
        p->tok.kind = T_NULL;
    return 0;
}

static int scan_quoted(struct hcl_parser *p, enum token_kind kind)
{
    struct buf text = {0};
    int rc = -1;

    p->tok.kind = kind;
    if ((kind == T_STRING ? scan_string(p, &text) : scan_heredoc(p, &text)) == 0)
        rc = keep_text(p, &text);
    buf_free(&text);
    return rc;
}

static int scan_token(struct hcl_parser *p)
{
    int c;

    do {
        if (next_char(p, &c) != 0)
            return -1;
    } while (c == ' ' || c == '\t' || c == '\n' || c == '\r');
    p->tok = (struct token_at){
        .kind = T_EOF, .line = p->line, .col = p->col, .start = p->pos - (c < 0 ? 0 : 1)};
    if (c >= 0x80) /* back to the first byte of the character */
        while (p->tok.start > 0 && ((uint8_t)p->src[p->tok.start] & 0xc0) == 0x80)
            p->tok.start--;
    if (c < 0)
        return 0;
    if (is_letter(c))
        return scan_word(p);
    if (is_digit(c))
        return scan_number(p, c) != 0 ? -1 : keep_raw(p);
    switch (c) {
    case '"':
        return scan_quoted(p, T_STRING);
    case '-':
        p->tok.kind = T_SUB;
        if (!is_digit(peek_byte(p)))
            return 0;
        if (next_char(p, &c) != 0 || scan_number(p, c) != 0)
            return -1;
        return keep_raw(p);
    case '[':
        p->tok.kind = T_LBRACK;
        return 0;
    case ']':
        p->tok.kind = T_RBRACK;
        return 0;
    case '{':
        p->tok.kind = T_LBRACE;
        return 0;
    case '}':
        p->tok.kind = T_RBRACE;
        return 0;
    case ',':
        p->tok.kind = T_COMMA;
        return 0;
    default:
        break;
    }
    if (p->json) {
        if (c != ':')
            return fail_here(p, "illegal char");
        p->tok.kind = T_COLON;
        return 0;
    }
    switch (c) {
    case '#':
    case '/':
        p->tok.kind = T_COMMENT;
        return scan_comment(p, c);
    case '<':
        return scan_quoted(p, T_HEREDOC);
    case '=':
        p->tok.kind = T_ASSIGN;
        return 0;
    case '+':
        p->tok.kind = T_ADD;
        return 0;
    case '.':
        p->tok.kind = T_PERIOD;
        return 0;
    default:
        return fail_here(p, "illegal char");
    }
}

int hcl_scan(struct hcl_parser *p)
{
    if (p->held) {
        p->held = false;
        return 0;
    }
    do {
        if (scan_token(p) != 0)
            return -1;
    } while (p->tok.kind == T_COMMENT);
    return 0;
}
