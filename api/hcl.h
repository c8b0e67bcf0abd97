/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * hcl.h - HCL 1 and JSON configuration text to a tree with positions. Used for the server's files
 * and for policies.
 *
 * Covers HCL1: `key = value`, `key "label" "label" { ... }`, `key { ... }`, strings with escapes,
 * heredocs (<<E, <<-E), numbers (decimal, hex, float), booleans, lists, objects, comments (#, //,
 * block). Depth is bounded. Errors read "At LINE:COL: text" in the style of Vault's policy errors
 * (VAULT-API: `At 1:10: object expected closing RBRACE got: EOF`).
 */
#ifndef LOCKSTEP_HCL_H
#define LOCKSTEP_HCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "errors.h"

enum hcl_kind { HCL_STRING, HCL_NUMBER, HCL_BOOL, HCL_LIST, HCL_OBJECT };
struct hcl_value;
struct hcl_item { /* one `key labels... = value` or block, in source order; repeated keys stay */
    const char *key;
    const char *const *labels;
    size_t n_labels;
    bool block; /* written without '=' */
    int line, col;
    struct hcl_value *value;
    struct hcl_item *next;
};
struct hcl_value {
    enum hcl_kind kind;
    const char *text; /* STRING: the string; NUMBER: as written; BOOL: "true"/"false" */
    bool boolean;
    struct hcl_item *items;  /* OBJECT */
    struct hcl_value *elems; /* LIST: linked by next */
    struct hcl_value *next;
    int line, col;
};
struct hcl; /* owns everything */
/** Text beginning with '{' (after space) is JSON; in JSON, nested objects under a key of a block
 * type become labels as in HCL1's JSON form. */
CHECKED int hcl_parse(const char *text, size_t len, struct hcl **hp, struct err *err);
const struct hcl_value *hcl_root(const struct hcl *h); /* an OBJECT */
void hcl_free(struct hcl *h);

#endif
