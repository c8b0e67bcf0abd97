/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_metrics.c - sys/metrics and sys/in-flight-req: what this server counts, under Vault's names.
 */
#include <string.h>
#include <time.h>

#include "core.h"
#include "core_private.h"
#include "sys.h"

#define METRICS_MAX 32

struct metric {
    const char *name;
    double value;
    bool counter;
};
struct metrics {
    struct metric list[METRICS_MAX];
    size_t n;
};

static void add(struct metrics *m, const char *name, double value, bool counter)
{
    if (m->n < METRICS_MAX)
        m->list[m->n++] = (struct metric){name, value, counter};
}

static void collect(struct core *c, struct metrics *m, struct engine_status *st)
{
    uint64_t now, total, encryptions;
    uint32_t term;
    int64_t installed_ms;

    engine_status(c->engine, st);
    inflight_count(c, &now, &total);
    barrier_info(c->barrier, &term, &installed_ms, &encryptions);
    add(m, "vault.core.active", c->role == ENGINE_PRIMARY, false);
    add(m, "vault.core.unsealed", !core_sealed(c), false);
    add(m, "vault.core.in_flight_requests", (double)now, false);
    add(m, "vault.core.handle_request", (double)total, true);
    add(m, "vault.barrier.estimated_encryptions", (double)encryptions, true);
    add(m, "vault.replication.wal.last_wal", (double)st->committed_lsn, false);
    add(m, "vault.replication.wal.last_dr_wal", (double)st->committed_lsn, false);
    add(m, "vault.replication.fsm.last_remote_wal", (double)st->last_remote_lsn, false);
    add(m, "vault.replication.merkle.commit_index", (double)st->applied_lsn, false);
    add(m, "vault.wal.persistWALs", (double)st->segments, true);
    add(m, "lockstep.transactions", (double)st->transactions, true);
    add(m, "lockstep.epoch", st->epoch, false);
    add(m, "lockstep.appended_lsn", (double)st->appended_lsn, false);
    add(m, "lockstep.durable_lsn", (double)st->durable_lsn, false);
    add(m, "lockstep.checkpoint_lsn", (double)st->checkpoint_lsn, false);
    add(m, "lockstep.disk_reserve", st->disk_reserve, false);
    if (st->n_peers > 0) {
        const struct engine_lag *lag = &st->peers[0].stage[LAG_FLUSHED].window[LAG_1M];

        add(m, "lockstep.lag.p50_ms", lag->p50, false);
        add(m, "lockstep.lag.p99_ms", lag->p99, false);
    }
}

static json_t *as_json(const struct metrics *m, int64_t now_ms)
{
    json_t *gauges = json_array(), *counters = json_array();
    time_t now = (time_t)(now_ms / 1000);
    char stamp[40] = "";
    struct tm tm;

    if (gmtime_r(&now, &tm) != NULL)
        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S +0000 UTC", &tm);
    for (size_t i = 0; i < m->n; i++) {
        const struct metric *x = &m->list[i];
        if (x->counter)
            json_array_append_new(counters,
                                  json_pack("{s:s, s:f, s:f, s:{}}", "Name", x->name, "Count",
                                            x->value, "Sum", x->value, "Labels"));
        else
            json_array_append_new(gauges, json_pack("{s:s, s:f, s:{}}", "Name", x->name, "Value",
                                                    x->value, "Labels"));
    }
    return json_pack("{s:s, s:o, s:[], s:o, s:[]}", "Timestamp", stamp, "Gauges", gauges, "Points",
                     "Counters", counters, "Samples");
}

static const char *as_text(struct arena *a, const struct metrics *m)
{
    struct buf b = {0};
    const char *text;

    for (size_t i = 0; i < m->n; i++) {
        char name[96];
        snprintf(name, sizeof(name), "%s", m->list[i].name);
        for (char *p = name; *p != '\0'; p++)
            if (*p == '.' || *p == '-')
                *p = '_';
        buf_printf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, m->list[i].name, name,
                   m->list[i].counter ? "counter" : "gauge", name, m->list[i].value);
    }
    text = arena_strdup(a, buf_str(&b));
    buf_free(&b);
    return text;
}

void sys_metrics(struct request *rq, struct response *rs)
{
    struct metrics *m = arena_alloc(rq->arena, sizeof(*m));
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st));
    const char *accept = http_header(rq->http, "Accept"), *format;

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (m == NULL || st == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    if (field_str(rq, rs, "format", "", &format) != 0)
        return;
    collect(rq->core, m, st);
    if (strcmp(format, "prometheus") == 0 ||
        (format[0] == '\0' && accept != NULL && strstr(accept, "openmetrics-text") != NULL)) {
        rs->text = as_text(rq->arena, m);
        rs->content_type = "text/plain; version=0.0.4";
    } else if (format[0] == '\0') {
        rs->raw = as_json(m, rq->now_ms);
    } else {
        rs->status = 400;
        rs->text = arena_printf(rq->arena, "metric response format \"%s\" unknown", format);
        rs->content_type = "text/plain";
    }
    if (rs->text == NULL && rs->raw == NULL)
        reply_router_error(rs, 500, "out of memory");
}

void sys_in_flight(struct request *rq, struct response *rs)
{
    if (rq->op != OP_READ)
        reply_unsupported(rs);
    else
        rs->raw = inflight_json(rq->core, rq->arena);
}
