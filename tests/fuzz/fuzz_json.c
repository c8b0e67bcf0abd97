/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Any bytes: refused, or read to a value whose text reads back to the same text. Queries and paths
 * besides. */
#include <assert.h>
#include <string.h>

#include "handler.h"
#include "router.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_json(const uint8_t *data, size_t size)
{
    struct buf once = {0}, twice = {0};
    struct err err;
    json_t *v = json_read(data, size, &err), *again;

    if (v == NULL)
        return;
    json_write(&once, v);
    json_decref(v);
    again = json_read(once.data, once.len, &err);
    assert(again != NULL);
    json_write(&twice, again);
    json_decref(again);
    assert(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
    buf_free(&once);
    buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new(1024);

    try_json(data, size);
    if (a != NULL) {
        const char *text = (const char *)data;
        size_t len = strnlen(text, size); /* a request target holds no NUL */
        const char *clean = path_clean(a, text, len);
        assert(clean == NULL || path_clean(a, clean, strlen(clean)) == NULL);
        json_decref(query_parse(a, text, len));
        arena_free(a);
    }
    return 0;
}
