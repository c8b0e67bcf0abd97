/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_plant_store.c - planted bugs within a store.
 */
#include "sim.h"

#include <string.h>

#include "store_private.h"

void plant_row(struct world *w, struct store *s, bool gone)
{
    uint8_t value[KV_LSN_BYTES + 16];
    WT_ITEM item = {.data = value, .size = sizeof(value)};
    struct store_session *ss = NULL;
    struct store_page_entry row;
    struct err err = {0};
    int rc = -1;

    if (store_session_get(s, &ss, &err) == 0 && store_seek(s, ss, "k/", false, &err) == 1 &&
        store_entry_here(s, ss, &row, &err) == 0) {
        memcpy(value, &row.lsn, KV_LSN_BYTES); /* little endian, as this machine */
        memset(value + KV_LSN_BYTES, 'x', 16);
        if (!gone)
            ss->kv->set_value(ss->kv, &item);
        rc = gone ? ss->kv->remove(ss->kv) : ss->kv->update(ss->kv);
    }
    sim_check(w, rc == 0, "the row cannot be changed: %d %s", rc, err.msg);
    store_session_put(s, ss);
}

void plant_unfolded(struct store *s)
{
    atomic_fetch_add(&s->mem_bytes, (size_t)1 << 30);
}

void plant_leaf(struct store *s)
{
    static const uint8_t other[MERKLE_HASH_BYTES] = {1};

    merkle_load(s->tree, merkle_leaf_of("k/001", 5), other);
}
