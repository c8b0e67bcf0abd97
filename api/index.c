/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * index.c - X-Vault-Index: an answer names the state that it made, a request demands to see one.
 *
 *     base64 of v1:CLUSTER:EPOCH:LSN:MAC, where Vault has two indexes in place of epoch and LSN
 *
 * MAC is HMAC-SHA-256 in hex over the text before it and the id of the epoch, so that an index of
 * the other side of a split is not taken for one of ours. Vault's clients compare two of them by
 * both numbers, which is right for these, too.
 */
#include <inttypes.h>
#include <openssl/crypto.h>
#include <string.h>

#include "core_private.h"

#define INDEX_HEADER "X-Vault-Index"

static int mac_of(struct core *c, const char *text, size_t len, const struct engine_index *x,
                  char out[65], struct err *err)
{
    uint8_t mac[32];
    struct buf b = {0};
    int rc = -1;

    buf_add(&b, text, len);
    buf_add(&b, x->epoch_id, sizeof(x->epoch_id));
    if (buf_check(&b, err) == 0)
        rc = barrier_mac(c->barrier, BARRIER_MAC_INDEX, b.data, b.len, mac, err);
    buf_free(&b);
    if (rc == 0)
        hex_of(mac, sizeof(mac), out);
    return rc;
}

void index_tell(struct core *c, uint64_t lsn, struct buf *headers)
{
    struct engine_index x;
    char text[192], mac[65];
    struct err err = {0};
    int n;

    if (lsn == 0 || !engine_index_now(c->engine, &x))
        return;
    n = snprintf(text, sizeof(text), "v1:%s:%" PRIu32 ":%" PRIu64, x.cluster_id, x.epoch, lsn);
    if (mac_of(c, text, (size_t)n, &x, mac, &err) != 0)
        return; /* sealed meanwhile: the answer does without */
    n += snprintf(text + n, sizeof(text) - (size_t)n, ":%s", mac);
    buf_adds(headers, INDEX_HEADER ": ");
    base64_write(headers, (const uint8_t *)text, (size_t)n, true);
    buf_adds(headers, "\r\n");
}

/* text is cut at its last colon. */
static int parse(const char *header, char text[256], struct engine_index *x, const char **macp)
{
    size_t n = 0, bad;
    char *mac;
    int end = 0;

    if (base64_read(header, true, (uint8_t *)text, 255, &n, &bad) != 0)
        return -1;
    text[n] = '\0';
    mac = strrchr(text, ':');
    if (mac == NULL || strlen(mac + 1) != 64 || strlen(text) != n)
        return -1;
    *mac = '\0';
    *macp = mac + 1;
    return sscanf(text, "v1:%39[0-9a-f-]:%" SCNu32 ":%" SCNu64 "%n", x->cluster_id, &x->epoch,
                  &x->lsn, &end) == 3 &&
                   text[end] == '\0'
               ? 0
               : -1;
}

static int check_one(struct core *c, const char *header, struct response *rs)
{
    struct engine_index x = {0}, now;
    char text[256], mac[65];
    const char *given;
    enum engine_index_state state;
    struct err err = {0};

    if (!engine_index_now(c->engine, &now))
        return 0; /* without replication there is one history, and all of it is here */
    if (parse(header, text, &x, &given) != 0) {
        reply_error(rs, 400, "error parsing " INDEX_HEADER " header: not one of an answer");
        return -1;
    }
    state = engine_index_state(c->engine, &x);
    if (mac_of(c, text, strlen(text), &x, mac, &err) != 0) {
        reply_err(rs, &err);
        return -1;
    }
    if (strcmp(x.cluster_id, now.cluster_id) != 0 || CRYPTO_memcmp(mac, given, 64) != 0)
        reply_error(rs, 412, "required index state not present: it is not of this history");
    else if (state == INDEX_LOST)
        reply_error(rs, 412,
                    "required index state not present: the write was lost when epoch %" PRIu32
                    " ended before its LSN %" PRIu64,
                    x.epoch, x.lsn);
    else if (state == INDEX_MISSING)
        reply_error(rs, 412, "required index state not present");
    else
        return 0;
    return -1;
}

int index_demanded(struct core *c, const struct http_request *http, struct response *rs)
{
    for (size_t i = 0; i < http->n_headers; i++) {
        if (strcasecmp(http->headers[i].name, INDEX_HEADER) == 0 &&
            check_one(c, http->headers[i].value, rs) != 0)
            return -1;
    }
    return 0;
}
