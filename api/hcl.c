/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hcl.c - recursive descent over HCL1 and its JSON form.
 *
 * All nodes live in one arena; nesting is bounded, so the text of a stranger can't exhaust the
 * stack.
 */
#include "hcl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "hcl_private.h"

#define HCL_DEPTH_MAX 64
#define HCL_LABELS_MAX 16
#define HCL_TEXT_MAX_BYTES (8u << 20)

struct hcl {
    struct arena *arena;
    struct hcl_value *root;
};

/* ---- nodes ---- */

static struct hcl_value *value_new(struct hcl_parser *p, enum hcl_kind kind)
{
    struct hcl_value *v = arena_alloc(p->arena, sizeof(*v));

    if (v == NULL) {
        hcl_no_memory(p);
        return NULL;
    }
    v->kind = kind;
    v->line = p->tok.line;
    v->col = p->tok.col;
    return v;
}

static int literal(struct hcl_parser *p, struct hcl_value **vp)
{
    enum hcl_kind kind = HCL_STRING;
    struct hcl_value *v;

    if (p->tok.kind == T_NUMBER || p->tok.kind == T_FLOAT)
        kind = HCL_NUMBER;
    else if (p->tok.kind == T_BOOL)
        kind = HCL_BOOL;
    v = value_new(p, kind);
    if (v == NULL)
        return -1;
    v->text = p->tok.text;
    v->boolean = kind == HCL_BOOL && strcmp(v->text, "true") == 0;
    *vp = v;
    return 0;
}

static int enter(struct hcl_parser *p)
{
    if (p->depth >= HCL_DEPTH_MAX)
        return hcl_fail_at(p, p->tok.line, p->tok.col, "nested too deeply (at most %d levels)",
                           HCL_DEPTH_MAX);
    p->depth++;
    return 0;
}

static int parse_object(struct hcl_parser *p, struct hcl_value **vp);
static int parse_items(struct hcl_parser *p, struct hcl_value *object, bool inside);

/* `[` is read. */
static int parse_list(struct hcl_parser *p, struct hcl_value **vp)
{
    struct hcl_value *list = value_new(p, HCL_LIST), **tail;
    bool need_comma = false;

    if (list == NULL || enter(p) != 0)
        return -1;
    tail = &list->elems;
    for (;;) {
        if (hcl_scan(p) != 0)
            return -1;
        if (need_comma && p->tok.kind != T_COMMA && p->tok.kind != T_RBRACK)
            return hcl_fail_at(p, p->tok.line, p->tok.col,
                               "error parsing list, expected comma or list end, got: %s",
                               hcl_token_names[p->tok.kind]);
        switch (p->tok.kind) {
        case T_BOOL:
        case T_NUMBER:
        case T_FLOAT:
        case T_STRING:
        case T_HEREDOC:
            if (literal(p, tail) != 0)
                return -1;
            break;
        case T_LBRACE:
            if (parse_object(p, tail) != 0)
                return -1;
            break;
        case T_LBRACK:
            if (parse_list(p, tail) != 0)
                return -1;
            break;
        case T_COMMA:
            if (!need_comma)
                return hcl_fail_at(p, p->tok.line, p->tok.col,
                                   "unexpected token while parsing list: COMMA");
            need_comma = false;
            continue;
        case T_RBRACK:
            p->depth--;
            *vp = list;
            return 0;
        default:
            return hcl_fail_at(p, p->tok.line, p->tok.col,
                               "unexpected token while parsing list: %s",
                               hcl_token_names[p->tok.kind]);
        }
        tail = &(*tail)->next;
        need_comma = true;
    }
}

/* `{` is read. */
static int parse_object(struct hcl_parser *p, struct hcl_value **vp)
{
    struct hcl_value *object = value_new(p, HCL_OBJECT);

    if (object == NULL || enter(p) != 0 || parse_items(p, object, true) != 0 || hcl_scan(p) != 0)
        return -1;
    if (p->tok.kind != T_RBRACE)
        return hcl_fail_at(p, p->tok.line, p->tok.col, "object expected closing RBRACE got: %s",
                           hcl_token_names[p->tok.kind]);
    p->depth--;
    *vp = object;
    return 0;
}

static int parse_value(struct hcl_parser *p, struct hcl_value **vp)
{
    if (hcl_scan(p) != 0)
        return -1;
    switch (p->tok.kind) {
    case T_NUMBER:
    case T_FLOAT:
    case T_BOOL:
    case T_STRING:
    case T_HEREDOC:
        return literal(p, vp);
    case T_LBRACE:
        return parse_object(p, vp);
    case T_LBRACK:
        return parse_list(p, vp);
    case T_EOF:
        return hcl_fail_at(p, p->tok.line, p->tok.col, "value expected, got: EOF");
    default:
        return hcl_fail_at(p, p->tok.line, p->tok.col, "Unknown token: %d:%d %s %.*s", p->tok.line,
                           p->tok.col, hcl_token_names[p->tok.kind],
                           (int)(p->pos - p->tok.start > 40 ? 40 : p->pos - p->tok.start),
                           p->src + p->tok.start);
    }
}

static int no_value(struct hcl_parser *p, const char *const *keys, size_t n)
{
    char text[120] = "";
    size_t len = 0;

    for (size_t i = 0; i < n && len < sizeof(text); i++) {
        int w = snprintf(text + len, sizeof(text) - len, "%s%s", i > 0 ? " " : "", keys[i]);
        len += w > 0 ? (size_t)w : 0;
    }
    return hcl_fail_at(p, p->tok.line, p->tok.col,
                       "key '%s' expected start of object ('{') or assignment ('=')", text);
}

/* The keys before `=` or `{`. *endp: the text ended before any key. */
static int parse_keys(struct hcl_parser *p, struct hcl_item *item, const char **keys, size_t *np,
                      bool *endp)
{
    *np = 0;
    for (;;) {
        if (hcl_scan(p) != 0)
            return -1;
        switch (p->tok.kind) {
        case T_EOF:
            if (*np > 0)
                return no_value(p, keys, *np);
            *endp = true;
            return 0;
        case T_ASSIGN:
            if (*np > 1)
                return hcl_fail_at(p, p->tok.line, p->tok.col,
                                   "nested object expected: LBRACE got: ASSIGN");
            if (*np == 0)
                return hcl_fail_at(p, p->tok.line, p->tok.col, "no object keys found!");
            return 0;
        case T_LBRACE:
            if (*np == 0)
                return hcl_fail_at(p, p->tok.line, p->tok.col,
                                   "expected: IDENT | STRING got: LBRACE");
            item->block = true;
            return 0;
        case T_IDENT:
        case T_STRING:
            if (*np == HCL_LABELS_MAX)
                return hcl_fail_at(p, p->tok.line, p->tok.col, "too many labels (at most %d)",
                                   HCL_LABELS_MAX - 1);
            if (*np == 0) {
                item->line = p->tok.line;
                item->col = p->tok.col;
            }
            keys[(*np)++] = p->tok.text;
            break;
        case T_RBRACE:
            if (*np > 0)
                return no_value(p, keys, *np);
            /* fall through */
        default:
            return hcl_fail_at(p, p->tok.line, p->tok.col,
                               "expected: IDENT | STRING | ASSIGN | LBRACE got: %s",
                               hcl_token_names[p->tok.kind]);
        }
    }
}

static int set_keys(struct hcl_parser *p, struct hcl_item *item, const char *const *keys, size_t n)
{
    const char **labels;

    item->key = keys[0];
    if (n == 1)
        return 0;
    labels = arena_alloc(p->arena, (n - 1) * sizeof(*labels));
    if (labels == NULL)
        return hcl_no_memory(p);
    memcpy(labels, keys + 1, (n - 1) * sizeof(*labels));
    item->labels = labels;
    item->n_labels = n - 1;
    return 0;
}

static int parse_items(struct hcl_parser *p, struct hcl_value *object, bool inside)
{
    struct hcl_item **tail = &object->items;

    for (;;) {
        const char *keys[HCL_LABELS_MAX];
        struct hcl_item *item;
        bool end = false;
        size_t n;

        if (inside) {
            if (hcl_scan(p) != 0)
                return -1;
            p->held = true;
            if (p->tok.kind == T_RBRACE)
                return 0;
        }
        item = arena_alloc(p->arena, sizeof(*item));
        if (item == NULL)
            return hcl_no_memory(p);
        if (parse_keys(p, item, keys, &n, &end) != 0)
            return -1;
        if (end)
            return 0;
        if (set_keys(p, item, keys, n) != 0)
            return -1;
        if ((item->block ? parse_object(p, &item->value) : parse_value(p, &item->value)) != 0)
            return -1;
        *tail = item;
        tail = &item->next;
        /* Objects written on one line may be parted by commas. */
        if (hcl_scan(p) != 0)
            return -1;
        p->held = p->tok.kind != T_COMMA;
    }
}

/* ---- JSON ---- */

static int json_value(struct hcl_parser *p, struct hcl_value **vp);

static int json_list(struct hcl_parser *p, struct hcl_value **vp)
{
    struct hcl_value *list = value_new(p, HCL_LIST), **tail;

    if (list == NULL || enter(p) != 0 || hcl_scan(p) != 0)
        return -1;
    tail = &list->elems;
    for (bool first = true; p->tok.kind != T_RBRACK; first = false) {
        if (!first) {
            if (p->tok.kind != T_COMMA)
                return hcl_fail_at(p, p->tok.line, p->tok.col,
                                   "error parsing list, expected comma or list end, got: %s",
                                   hcl_token_names[p->tok.kind]);
            if (hcl_scan(p) != 0)
                return -1;
        }
        if (json_value(p, tail) != 0)
            return -1;
        if (*tail == NULL)
            return hcl_fail_at(p, p->tok.line, p->tok.col,
                               "unexpected token while parsing list: NULL");
        tail = &(*tail)->next;
        if (hcl_scan(p) != 0)
            return -1;
    }
    p->depth--;
    *vp = list;
    return 0;
}

static int json_object(struct hcl_parser *p, struct hcl_value **vp)
{
    struct hcl_value *object = value_new(p, HCL_OBJECT);
    struct hcl_item **tail;

    if (object == NULL || enter(p) != 0 || hcl_scan(p) != 0)
        return -1;
    tail = &object->items;
    for (bool first = true; p->tok.kind != T_RBRACE; first = false) {
        struct hcl_item *item = arena_alloc(p->arena, sizeof(*item));
        if (item == NULL)
            return hcl_no_memory(p);
        if (!first) {
            if (p->tok.kind != T_COMMA)
                return hcl_fail_at(p, p->tok.line, p->tok.col,
                                   "object expected closing RBRACE got: %s",
                                   hcl_token_names[p->tok.kind]);
            if (hcl_scan(p) != 0)
                return -1;
        }
        if (p->tok.kind != T_STRING)
            return hcl_fail_at(p, p->tok.line, p->tok.col, "expected: STRING got: %s",
                               hcl_token_names[p->tok.kind]);
        item->key = p->tok.text;
        item->line = p->tok.line;
        item->col = p->tok.col;
        if (hcl_scan(p) != 0)
            return -1;
        if (p->tok.kind != T_COLON)
            return hcl_fail_at(p, p->tok.line, p->tok.col, "expected: COLON got: %s",
                               hcl_token_names[p->tok.kind]);
        if (hcl_scan(p) != 0 || json_value(p, &item->value) != 0)
            return -1;
        if (item->value != NULL) { /* null: as if not written */
            *tail = item;
            tail = &item->next;
        }
        if (hcl_scan(p) != 0)
            return -1;
    }
    p->depth--;
    *vp = object;
    return 0;
}

/* The value's first token is read. *vp NULL: null. */
static int json_value(struct hcl_parser *p, struct hcl_value **vp)
{
    *vp = NULL;
    switch (p->tok.kind) {
    case T_NUMBER:
    case T_FLOAT:
    case T_BOOL:
    case T_STRING:
        return literal(p, vp);
    case T_LBRACE:
        return json_object(p, vp);
    case T_LBRACK:
        return json_list(p, vp);
    case T_NULL:
        return 0;
    default:
        return hcl_fail_at(p, p->tok.line, p->tok.col, "value expected, got: %s",
                           hcl_token_names[p->tok.kind]);
    }
}

static bool all_objects(const struct hcl_value *list)
{
    const struct hcl_value *v = list->elems;

    for (; v != NULL && v->kind == HCL_OBJECT; v = v->next)
        ;
    return list->elems != NULL && v == NULL;
}

static bool holds_blocks(const struct hcl_value *object)
{
    const struct hcl_item *it = object->items;

    for (; it != NULL; it = it->next)
        if (it->value->kind != HCL_OBJECT &&
            !(it->value->kind == HCL_LIST && all_objects(it->value)))
            return false;
    return object->items != NULL;
}

static int push_block(struct hcl_parser *p, struct hcl_item ***tailp, const struct hcl_item *from,
                      const char *label, struct hcl_value *value)
{
    struct hcl_item *item = arena_alloc(p->arena, sizeof(*item));
    const char *keys[2] = {from->key, label};

    if (item == NULL)
        return hcl_no_memory(p);
    if (set_keys(p, item, keys, label != NULL ? 2 : 1) != 0)
        return -1;
    item->line = from->line;
    item->col = from->col;
    item->block = value->kind == HCL_OBJECT;
    item->value = value;
    **tailp = item;
    *tailp = &item->next;
    return 0;
}

/* {"listener": [{"tcp": {...}}]} is listener "tcp" {...}: a list of objects is a repeated key, and
 * an object that holds nothing but objects gives one label. */
static int flatten_object(struct hcl_parser *p, struct hcl_item ***tailp,
                          const struct hcl_item *from, struct hcl_value *value)
{
    if (!holds_blocks(value))
        return push_block(p, tailp, from, NULL, value);
    for (struct hcl_item *in = value->items; in != NULL; in = in->next) {
        if (in->value->kind == HCL_OBJECT) {
            if (push_block(p, tailp, from, in->key, in->value) != 0)
                return -1;
            continue;
        }
        for (struct hcl_value *v = in->value->elems; v != NULL; v = v->next)
            if (push_block(p, tailp, from, in->key, v) != 0)
                return -1;
    }
    return 0;
}

static int flatten_root(struct hcl_parser *p, struct hcl_value *root)
{
    struct hcl_item *items = root->items, **tail = &root->items;

    root->items = NULL;
    for (struct hcl_item *it = items; it != NULL; it = it->next) {
        if (it->value->kind == HCL_OBJECT) {
            if (flatten_object(p, &tail, it, it->value) != 0)
                return -1;
        } else if (it->value->kind == HCL_LIST && all_objects(it->value)) {
            for (struct hcl_value *v = it->value->elems; v != NULL; v = v->next)
                if (flatten_object(p, &tail, it, v) != 0)
                    return -1;
        } else if (push_block(p, &tail, it, NULL, it->value) != 0) {
            return -1;
        }
    }
    return 0;
}

static int parse_json(struct hcl_parser *p, struct hcl_value **rootp)
{
    if (hcl_scan(p) != 0 || json_value(p, rootp) != 0 || hcl_scan(p) != 0)
        return -1;
    if (p->tok.kind != T_EOF)
        return hcl_fail_at(p, p->tok.line, p->tok.col, "text after the end of the object: %s",
                           hcl_token_names[p->tok.kind]);
    return flatten_root(p, *rootp);
}

/* ---- the door ---- */

int hcl_parse(const char *text, size_t len, struct hcl **hp, struct err *err)
{
    struct hcl_parser p = {.src = text, .len = len, .line = 1, .err = err};
    struct hcl *h;
    size_t i = 0;
    int rc;

    *hp = NULL;
    err_clear(err);
    if (len > HCL_TEXT_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "At 1:1: text is longer than %u bytes",
                       HCL_TEXT_MAX_BYTES);
    h = calloc(1, sizeof(*h));
    if (h == NULL || (h->arena = arena_new(4096)) == NULL) {
        free(h);
        return err_set(err, ERR_NOMEM, 0, "configuration text");
    }
    p.arena = h->arena;
    while (i < len && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n'))
        i++;
    p.json = i < len && text[i] == '{';
    if (p.json) {
        rc = parse_json(&p, &h->root);
    } else {
        h->root = value_new(&p, HCL_OBJECT);
        rc = h->root == NULL ? -1 : parse_items(&p, h->root, false);
    }
    if (rc != 0) {
        hcl_free(h);
        return -1;
    }
    *hp = h;
    return 0;
}

const struct hcl_value *hcl_root(const struct hcl *h)
{
    return h->root;
}

void hcl_free(struct hcl *h)
{
    if (h == NULL)
        return;
    arena_free(h->arena);
    free(h);
}
