/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Configuration and policy text of strangers: parsed or refused with a position, and the tree can
 * be walked. */
#include <stdlib.h>
#include <string.h>

#include "hcl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk(const struct hcl_value *v)
{
    size_t n = v->text != NULL ? strlen(v->text) : 0;

    for (const struct hcl_item *it = v->items; it != NULL; it = it->next) {
        n += strlen(it->key);
        for (size_t i = 0; i < it->n_labels; i++)
            n += strlen(it->labels[i]);
        if (it->value == NULL || it->line < 1)
            abort();
        n += walk(it->value);
    }
    for (const struct hcl_value *e = v->elems; e != NULL; e = e->next)
        n += walk(e);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = {0};
    struct hcl *h;

    if (hcl_parse((const char *)data, size, &h, &err) == 0)
        walk(hcl_root(h));
    else if (h != NULL || err.code == ERR_OK ||
             (err.code == ERR_INVAL && strncmp(err.msg, "At ", 3) != 0))
        abort();
    hcl_free(h);
    return 0;
}
