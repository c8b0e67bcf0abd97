/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hcl_private.h - what the scanner (hcl_scan.c) and the parser (hcl.c) share.
 */
#ifndef LOCKSTEP_HCL_PRIVATE_H
#define LOCKSTEP_HCL_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "buf.h"
#include "errors.h"

enum token_kind {
    T_EOF,
    T_COMMENT,
    T_IDENT,
    T_NUMBER,
    T_FLOAT,
    T_BOOL,
    T_STRING,
    T_HEREDOC,
    T_LBRACK,
    T_LBRACE,
    T_COMMA,
    T_PERIOD,
    T_RBRACK,
    T_RBRACE,
    T_ASSIGN,
    T_ADD,
    T_SUB,
    T_COLON,
    T_NULL,
};

extern const char *const hcl_token_names[];

struct token_at {
    enum token_kind kind;
    int line, col;
    size_t start, end; /* the raw text in the source */
    const char *text;  /* decoded: strings, heredocs, identifiers, numbers */
};

struct hcl_parser {
    const char *src;
    size_t len, pos;
    int line, col;     /* of the character before pos */
    int last_line_len; /* columns of the line before */
    bool json;
    bool held; /* tok was given back */
    unsigned depth;
    struct token_at tok;
    struct arena *arena;
    struct err *err;
};

/** Fill the parser's error: "At LINE:COL: text". Returns -1. */
int hcl_fail_at(struct hcl_parser *p, int line, int col, const char *fmt, ...) PRINTF_LIKE(4, 5);
int hcl_no_memory(struct hcl_parser *p);
/** The next token that is no comment, in p->tok. */
CHECKED int hcl_scan(struct hcl_parser *p);

#endif
