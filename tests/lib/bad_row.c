/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bad_row.h"

#include <endian.h>
#include <string.h>

#include "store_private.h"

static int flip_here(struct store *s, struct store_session *ss, struct err *err)
{
    struct store_page_entry e;
    struct buf row = {0};
    char key[TXN_KEY_MAX_BYTES + 1];
    uint64_t lsn;
    WT_ITEM v;
    int rc = -1;

    if (store_entry_here(s, ss, &e, err) != 0)
        return -1;
    lsn = htole64(e.lsn);
    buf_add(&row, &lsn, sizeof(lsn));
    buf_add(&row, e.value, e.len);
    memcpy(key, e.key, e.key_len + 1);
    if (buf_check(&row, err) == 0) {
        row.data[row.len - 1] ^= 1;
        v = (WT_ITEM){.data = row.data, .size = row.len};
        ss->kv->set_key(ss->kv, key);
        ss->kv->set_value(ss->kv, &v);
        rc = store_wt(s, ss, ss->kv->insert(ss->kv), "flip", err);
    }
    buf_free(&row);
    return rc;
}

int bad_row_flip(struct store *s, const char *prefix, struct err *err)
{
    struct store_session *ss;
    int rc = -1;

    if (store_session_get(s, &ss, err) != 0)
        return -1;
    if (store_begin_snapshot(s, ss, err) == 0) {
        int found = store_seek(s, ss, prefix, false, err);

        if (found == 0)
            err_set(err, ERR_NOTFOUND, 0, "no row %s", prefix);
        if (found == 1 && flip_here(s, ss, err) == 0) {
            ss->in_txn = false;
            rc = store_wt(s, ss, ss->wt->commit_transaction(ss->wt, NULL), "flip", err);
        }
    }
    store_session_put(s, ss);
    return rc;
}

static int add_work(struct store *s, void *arg, struct store_point *next, struct err *err)
{
    const char *key = arg;
    const struct store_page_entry e = {key, (const uint8_t *)"other", strlen(key), 5, 1};

    (void)next;
    return store_put(s, &e, err);
}

int bad_row_add(struct store *s, const char *key, struct err *err)
{
    return store_write(s, add_work, (void *)key, err);
}
