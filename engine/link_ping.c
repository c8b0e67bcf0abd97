/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link_ping.c - the fields of ping and pong: what each side says once a second.
 */
#include "link_msg.h"

#include <string.h>

/* Per stage: LSNs, bytes and microseconds behind, then count, p50, p99 and max of each window. */
#define STAGE_FIELDS (3u + 4u * LAG_WINDOWS)

static double get_ms(struct mp *m)
{
    return (double)mp_uint(m, INT64_MAX) / 1000;
}

static void put_ms(struct buf *b, double ms)
{
    mp_put_uint(b, ms > 0 ? (uint64_t)(ms * 1000 + 0.5) : 0);
}

static bool get_stages(struct mp *m, struct engine_lag_stage stage[LAG_STAGES])
{
    size_t n = mp_array(m, LAG_STAGES * STAGE_FIELDS);

    if (n != LAG_STAGES * STAGE_FIELDS) { /* empty: not measured */
        m->bad |= n != 0;
        return false;
    }
    for (size_t s = 0; s < LAG_STAGES; s++) {
        stage[s].behind_lsns = mp_uint(m, UINT64_MAX);
        stage[s].behind_bytes = mp_uint(m, UINT64_MAX);
        stage[s].behind_ms = get_ms(m);
        for (size_t w = 0; w < LAG_WINDOWS; w++) {
            struct engine_lag *l = &stage[s].window[w];

            l->count = mp_uint(m, UINT64_MAX);
            l->p50 = get_ms(m);
            l->p99 = get_ms(m);
            l->max = get_ms(m);
        }
    }
    return true;
}

static void put_stages(struct buf *b, bool has, const struct engine_lag_stage stage[LAG_STAGES])
{
    mp_put_array(b, has ? LAG_STAGES * STAGE_FIELDS : 0);
    for (size_t s = 0; has && s < LAG_STAGES; s++) {
        mp_put_uint(b, stage[s].behind_lsns);
        mp_put_uint(b, stage[s].behind_bytes);
        put_ms(b, stage[s].behind_ms);
        for (size_t w = 0; w < LAG_WINDOWS; w++) {
            const struct engine_lag *l = &stage[s].window[w];

            mp_put_uint(b, l->count);
            put_ms(b, l->p50);
            put_ms(b, l->p99);
            put_ms(b, l->max);
        }
    }
}

#define FED_FIELDS 3u /* id, durable LSN, applied LSN */

static size_t get_fed(struct mp *m, struct link_fed *fed)
{
    size_t n = mp_array(m, LINK_FED_MAX * FED_FIELDS);

    m->bad |= n % FED_FIELDS != 0;
    for (size_t i = 0; i < n / FED_FIELDS; i++) {
        mp_text(m, fed[i].id, sizeof(fed[i].id));
        fed[i].durable_lsn = mp_uint(m, UINT64_MAX - 1);
        fed[i].applied_lsn = mp_uint(m, UINT64_MAX - 1);
    }
    return n / FED_FIELDS;
}

static void put_fed(struct buf *b, size_t n, const struct link_fed *fed)
{
    mp_put_array(b, n * FED_FIELDS);
    for (size_t i = 0; i < n; i++) {
        mp_put_str(b, fed[i].id, strlen(fed[i].id));
        mp_put_uint(b, fed[i].durable_lsn);
        mp_put_uint(b, fed[i].applied_lsn);
    }
}

void link_ping_get(struct mp *in, struct link_msg *m, size_t n)
{
    m->ping.stamp = mp_uint(in, UINT64_MAX);
    m->ping.wall_ms = mp_int(in);
    if (n > 3)
        m->ping.retain_lsn = mp_uint(in, UINT64_MAX);
    if (n > 4)
        m->ping.has_stages = get_stages(in, m->ping.stage);
    if (n > 5)
        m->ping.n_fed = get_fed(in, m->ping.fed);
}

void link_ping_put(struct buf *out, const struct link_msg *m)
{
    mp_put_uint(out, m->ping.stamp);
    mp_put_int(out, m->ping.wall_ms);
    if (m->type == MSG_PONG)
        return;
    mp_put_uint(out, m->ping.retain_lsn);
    put_stages(out, m->ping.has_stages, m->ping.stage);
    put_fed(out, m->ping.n_fed, m->ping.fed);
}
