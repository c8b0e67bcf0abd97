/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_metrics.c - sys/metrics and sys/in-flight-req: what this server counts, under Vault's names.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core.h"
#include "core_private.h"
#include "replication_private.h"
#include "sys.h"

/* One line of the list; names with dots, as Vault documents them. */
struct metric {
    const char *name;
    double value;
    bool counter;
    /* Up to three labels: name, value, ...; a NULL name ends them. The values are borrowed. */
    const char *labels[6];
    /* A summary: its value is a count. */
    const struct engine_lag *quantiles;
    double sum;
    size_t order; /* in which it was added */
};
struct metrics {
    struct metric *list; /* in the request's arena */
    size_t n, cap;
    struct arena *arena;
    bool failed;
};

static struct metric *add(struct metrics *m, const char *name, double value, bool counter)
{
    static struct metric none; /* where what has no memory goes */

    if (m->n == m->cap) {
        size_t cap = m->cap > 0 ? 2 * m->cap : 128;
        struct metric *list = arena_alloc(m->arena, cap * sizeof(*list));

        if (list == NULL) {
            m->failed = true;
            return &none;
        }
        if (m->n > 0)
            memcpy(list, m->list, m->n * sizeof(*list));
        m->list = list;
        m->cap = cap;
    }
    m->list[m->n] =
        (struct metric){.name = name, .value = value, .counter = counter, .order = m->n};
    return &m->list[m->n++];
}

static void gauge(struct metrics *m, const char *name, double value)
{
    add(m, name, value, false);
}

static void counter(struct metrics *m, const char *name, double value)
{
    add(m, name, value, true);
}

static void labelled(struct metrics *m, const char *name, double value, const char *l1,
                     const char *v1, const char *l2, const char *v2)
{
    struct metric *x = add(m, name, value, false);

    x->labels[0] = l1;
    x->labels[1] = v1;
    x->labels[2] = l2;
    x->labels[3] = v2;
}

static void of_lag(struct metrics *m, const char *id, const struct engine_lag_stage stage[])
{
    for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
        const char *name = lag_stage_name(s);

        labelled(m, "lockstep.lag.seconds", stage[s].behind_ms / 1000, "peer", id, "stage", name);
        labelled(m, "lockstep.lag.lsns", (double)stage[s].behind_lsns, "peer", id, "stage", name);
        labelled(m, "lockstep.lag.bytes", (double)stage[s].behind_bytes, "peer", id, "stage", name);
        for (enum lag_window w = 0; w < LAG_WINDOWS; w++) {
            const struct engine_lag *l = &stage[s].window[w];
            const struct {
                const char *name;
                double value;
            } figures[] = {{"lockstep.lag.p50_seconds", l->p50 / 1000},
                           {"lockstep.lag.p99_seconds", l->p99 / 1000},
                           {"lockstep.lag.max_seconds", l->max / 1000},
                           {"lockstep.lag.samples", (double)l->count}};

            for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++) {
                struct metric *x = add(m, figures[i].name, figures[i].value, false);

                x->labels[0] = "peer";
                x->labels[1] = id;
                x->labels[2] = "stage";
                x->labels[3] = name;
                x->labels[4] = "window";
                x->labels[5] = lag_window_name(w);
            }
        }
    }
}

static void of_peer(struct metrics *m, const struct engine_peer *p, bool of_primary)
{
    labelled(m, "lockstep.peer.connected", p->connected, "peer", p->id, NULL, NULL);
    labelled(m, "lockstep.peer.canary_age_seconds", (double)p->canary_age_ms / 1000, "peer", p->id,
             NULL, NULL);
    labelled(m, "lockstep.peer.clock_skew_seconds", (double)p->clock_skew_ms / 1000, "peer", p->id,
             NULL, NULL);
    labelled(m, "lockstep.peer.last_heartbeat_timestamp_seconds",
             (double)p->last_heartbeat_ms / 1000, "peer", p->id, NULL, NULL);
    labelled(m, "lockstep.peer.last_error_timestamp_seconds", (double)p->last_error_ms / 1000,
             "peer", p->id, NULL, NULL);
    if (of_primary) {
        labelled(m, "lockstep.peer.whole", p->whole, "peer", p->id, NULL, NULL);
        labelled(m, "lockstep.peer.mode_waiting", p->waiting, "peer", p->id, NULL, NULL);
        labelled(m, "lockstep.peer.mode_fallback", p->fallen_back, "peer", p->id, NULL, NULL);
        labelled(m, "lockstep.peer.retention_bytes", (double)p->retain_bytes, "peer", p->id, NULL,
                 NULL);
        labelled(m, "lockstep.peer.retention_used_ratio", p->retain_percent / 100.0, "peer", p->id,
                 NULL, NULL);
        labelled(m, "lockstep.peer.let_go", p->let_go, "peer", p->id, NULL, NULL);
    }
    labelled(m, "lockstep.peer.verified_equal", p->verified == ENGINE_EQUAL, "peer", p->id, NULL,
             NULL);
    labelled(m, "lockstep.peer.verified_equal_lsn", (double)p->verified_lsn, "peer", p->id, NULL,
             NULL);
    labelled(m, "lockstep.peer.verified_equal_age_seconds",
             p->verified_lsn != 0 ? (double)p->verified_age_ms / 1000 : -1, "peer", p->id, NULL,
             NULL);
    of_lag(m, p->id, p->stage);
}

static void of_rpc(struct metrics *m, const struct engine_status *st)
{
    /* Each end may ask: a promoted cluster serves what it asked for before. */
    static const struct {
        const char *name;
        enum engine_rpc rpc;
    } client[] = {{"vault.replication.rpc.client.stream_wals", ENGINE_RPC_STREAM},
                  {"vault.replication.rpc.client.conflicting_pages", ENGINE_RPC_TREE},
                  {"vault.replication.rpc.client.sub_page_hashes", ENGINE_RPC_LIST},
                  {"vault.replication.rpc.client.fetch_keys", ENGINE_RPC_FETCH}},
      server[] = {{"vault.replication.rpc.server.bootstrap_request", ENGINE_RPC_ENROL},
                  {"vault.replication.rpc.server.stream_wals_request", ENGINE_RPC_STREAM},
                  {"vault.replication.rpc.server.conflicting_pages_request", ENGINE_RPC_TREE},
                  {"vault.replication.rpc.server.sub_page_hashes_request", ENGINE_RPC_LIST},
                  {"vault.replication.rpc.dr.server.fetch_keys_request", ENGINE_RPC_FETCH},
                  {"vault.replication.rpc.dr.server.echo", ENGINE_RPC_ECHO}};

    for (size_t i = 0; i < sizeof(client) / sizeof(client[0]); i++)
        counter(m, client[i].name, (double)st->rpc_asked[client[i].rpc]);
    for (size_t i = 0; i < sizeof(server) / sizeof(server[0]); i++)
        counter(m, server[i].name, (double)st->rpc_served[server[i].rpc]);
}

static void of_timings(struct metrics *m, const struct engine_status *st)
{
    static const struct {
        const char *name;
        enum engine_timing timing;
    } names[] = {{"vault.wal.persistWALs", ENGINE_TIMING_FLUSH},
                 {"vault.wal.flushReady", ENGINE_TIMING_READY},
                 {"vault.wal.deleteWALs", ENGINE_TIMING_GC},
                 {"vault.replication.wal.gc", ENGINE_TIMING_GC},
                 {"vault.merkle.flushDirty", ENGINE_TIMING_LEAVES},
                 {"vault.merkle.saveCheckpoint", ENGINE_TIMING_CHECKPOINT},
                 {"vault.replication.fetchRemoteKeys", ENGINE_TIMING_FETCH},
                 {"vault.replication.merkleDiff", ENGINE_TIMING_DIFF},
                 {"vault.replication.merkleSync", ENGINE_TIMING_SYNC}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct engine_timed *t = &st->timed[names[i].timing];
        struct metric *x = add(m, names[i].name, (double)t->count, true);

        x->quantiles = &t->minute;
        x->sum = t->sum_ms;
    }
    gauge(m, "vault.wal.flushReady.queue_len", (double)st->queued);
    gauge(m, "vault.merkle.flushDirty.num_pages", st->leaves_saved);
    gauge(m, "vault.merkle.saveCheckpoint.num_dirty", st->leaves_saved);
}

/* Vault's names, as far as there is such a thing here. */
static void of_vault(struct core *c, struct metrics *m, const struct engine_status *st)
{
    uint64_t now, total, encryptions;
    uint32_t term;
    int64_t installed_ms;

    inflight_count(c, &now, &total);
    barrier_info(c->barrier, &term, &installed_ms, &encryptions);
    gauge(m, "vault.core.active", c->role == ENGINE_PRIMARY);
    gauge(m, "vault.core.unsealed", !core_sealed(c));
    gauge(m, "vault.core.in_flight_requests", (double)now);
    counter(m, "vault.core.handle_request", (double)total);
    gauge(m, "vault.core.replication.dr.primary", st->replicating && st->role == ENGINE_PRIMARY);
    gauge(m, "vault.core.replication.dr.secondary",
          st->role == ENGINE_SECONDARY || st->role == ENGINE_BOOTSTRAPPING);
    counter(m, "vault.barrier.estimated_encryptions", (double)encryptions);
    gauge(m, "vault.replication.wal.last_wal", (double)st->committed_lsn);
    gauge(m, "vault.replication.wal.last_dr_wal", (double)st->committed_lsn);
    gauge(m, "vault.replication.wal.last_performance_wal", 0);
    gauge(m, "vault.replication.fsm.last_remote_wal", (double)st->last_remote_lsn);
    gauge(m, "vault.replication.merkle.commit_index", (double)st->applied_lsn);
    of_timings(m, st);
    of_rpc(m, st);
    gauge(m, "vault.wal.gc.total",
          (double)(st->appended_lsn + 1 > st->log_first_lsn
                       ? st->appended_lsn + 1 - st->log_first_lsn
                       : 0));
    counter(m, "vault.wal.gc.deleted", st->log_first_lsn > 0 ? (double)st->log_first_lsn - 1 : 0);
    gauge(m, "vault.logshipper.buffer.length", (double)st->ring_segments);
    gauge(m, "vault.logshipper.buffer.size", (double)st->ring_bytes);
    gauge(m, "vault.logshipper.buffer.max_size", (double)st->ring_bytes_max);
    counter(m, "vault.logshipper.streamWALs.guard_found", (double)st->streams_resumed);
    counter(m, "vault.logshipper.streamWALs.missing_guard", (double)st->copies_begun);
}

/* Vault's older builds have no prefix before these, nor have dashboards that were made for them. */
static void without_prefix(struct metrics *m)
{
    static const char *const families[] = {"vault.wal.", "vault.merkle.", "vault.logshipper.",
                                           "vault.replication."};
    size_t n = m->n;

    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < sizeof(families) / sizeof(families[0]); k++) {
            struct metric x = m->list[i], *y;

            if (strncmp(x.name, families[k], strlen(families[k])) != 0)
                continue;
            y = add(m, x.name + strlen("vault."), x.value, x.counter);
            y->quantiles = x.quantiles;
            y->sum = x.sum;
        }
    }
}

/* The proof of the data, and the last catching up. */
static void of_data(struct metrics *m, const struct engine_status *st)
{
    gauge(m, "lockstep.scrub.corrupted_leaves", st->scrub_bad_leaves);
    gauge(m, "lockstep.scrub.keys", (double)st->scrub_keys);
    gauge(m, "lockstep.scrub.lsn", (double)st->scrub_lsn);
    counter(m, "lockstep.scrub.rounds", (double)st->scrubs);
    counter(m, "lockstep.repairs", (double)st->repairs);
    if (st->role == ENGINE_PRIMARY)
        return;
    gauge(m, "lockstep.catch_up.active", st->sync_phase[0] != '\0');
    gauge(m, "lockstep.catch_up.done", (double)st->sync_done);
    gauge(m, "lockstep.catch_up.total", (double)st->sync_total);
    gauge(m, "lockstep.catch_up.left_seconds",
          st->sync_left_ms >= 0 ? (double)st->sync_left_ms / 1000 : -1);
    gauge(m, "lockstep.catch_up.keys_taken", (double)st->copy_keys);
    gauge(m, "lockstep.catch_up.keys_deleted", (double)st->copy_deleted);
    gauge(m, "lockstep.catch_up.bytes_moved", (double)st->sync_moved_bytes);
}

/* lockstep_reason is 1 for each reason that there is. */
static void of_health(struct request *rq, const struct engine_status *st, struct metrics *m)
{
    json_t *o = json_object(), *r;
    size_t i;

    gauge(m, "lockstep.healthy", replication_health_json(rq, o, st));
    json_array_foreach(json_object_get(o, "reasons"), i, r)
    {
        const char *code = json_string_value(json_object_get(r, "code"));
        const char *who = json_string_value(json_object_get(r, "secondary"));

        labelled(m, "lockstep.reason", 1, "code", arena_strdup(m->arena, code), "peer",
                 arena_strdup(m->arena, who != NULL ? who : ""));
    }
    json_decref(o);
}

static void collect(struct request *rq, struct metrics *m, struct engine_status *st)
{
    struct core *c = rq->core;

    engine_status(c->engine, st);
    of_vault(c, m, st);
    without_prefix(m);
    counter(m, "lockstep.transactions", (double)st->transactions);
    counter(m, "lockstep.segments", (double)st->segments);
    gauge(m, "lockstep.epoch", st->epoch);
    gauge(m, "lockstep.appended_lsn", (double)st->appended_lsn);
    gauge(m, "lockstep.durable_lsn", (double)st->durable_lsn);
    gauge(m, "lockstep.committed_lsn", (double)st->committed_lsn);
    gauge(m, "lockstep.applied_lsn", (double)st->applied_lsn);
    gauge(m, "lockstep.checkpoint_lsn", (double)st->checkpoint_lsn);
    gauge(m, "lockstep.log.first_lsn", (double)st->log_first_lsn);
    gauge(m, "lockstep.log.bytes", (double)st->log_bytes);
    gauge(m, "lockstep.disk.free_bytes", (double)st->free_bytes);
    gauge(m, "lockstep.disk.reserve_bytes", (double)st->reserve_bytes);
    gauge(m, "lockstep.disk_reserve", st->disk_reserve);
    gauge(m, "lockstep.unsettled", st->unsettled);
    gauge(m, "lockstep.lag_guard_pause_seconds", (double)st->lag_guard_pause_ms / 1000);
    of_data(m, st);
    if (!st->replicating && st->role != ENGINE_FENCED)
        return;
    for (size_t i = 0; i < st->n_peers; i++)
        of_peer(m, &st->peers[i], st->role == ENGINE_PRIMARY);
    of_health(rq, st, m);
}

static json_t *labels_json(const struct metric *x)
{
    json_t *o = json_object();

    for (size_t i = 0; i < 6 && x->labels[i] != NULL; i += 2)
        json_object_set_new(o, x->labels[i], json_string(x->labels[i + 1]));
    return o;
}

static json_t *as_json(const struct metrics *m, int64_t now_ms)
{
    json_t *gauges = json_array(), *counters = json_array(), *samples = json_array();
    time_t now = (time_t)(now_ms / 1000);
    char stamp[40] = "";
    struct tm tm;

    if (gmtime_r(&now, &tm) != NULL)
        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S +0000 UTC", &tm);
    for (size_t i = 0; i < m->n; i++) {
        const struct metric *x = &m->list[i];

        if (x->quantiles != NULL)
            json_array_append_new(
                samples, json_pack("{s:s, s:f, s:f, s:f, s:f, s:o}", "Name", x->name, "Count",
                                   x->value, "Sum", x->sum, "Max", x->quantiles->max, "Mean",
                                   x->value > 0 ? x->sum / x->value : 0, "Labels", labels_json(x)));
        else if (x->counter)
            json_array_append_new(counters,
                                  json_pack("{s:s, s:f, s:f, s:o}", "Name", x->name, "Count",
                                            x->value, "Sum", x->value, "Labels", labels_json(x)));
        else
            json_array_append_new(gauges, json_pack("{s:s, s:f, s:o}", "Name", x->name, "Value",
                                                    x->value, "Labels", labels_json(x)));
    }
    return json_pack("{s:s, s:o, s:[], s:o, s:o}", "Timestamp", stamp, "Gauges", gauges, "Points",
                     "Counters", counters, "Samples", samples);
}

/* ---- Prometheus' text ---- */
static void put_name(struct buf *b, const char *name)
{
    for (; *name != '\0'; name++)
        buf_addc(b, *name == '.' || *name == '-' ? '_' : *name);
}

static void put_labels(struct buf *b, const struct metric *x, const char *quantile)
{
    bool first = true;

    for (size_t i = 0; i < 6 && x->labels[i] != NULL; i += 2) {
        buf_printf(b, "%s%s=\"", first ? "{" : ",", x->labels[i]);
        first = false;
        for (const char *p = x->labels[i + 1]; *p != '\0'; p++) {
            if (*p == '\\' || *p == '"')
                buf_addc(b, '\\');
            if (*p == '\n')
                buf_adds(b, "\\n");
            else
                buf_addc(b, *p);
        }
        buf_addc(b, '"');
    }
    if (quantile != NULL) {
        buf_printf(b, "%squantile=\"%s\"", first ? "{" : ",", quantile);
        first = false;
    }
    if (!first)
        buf_addc(b, '}');
}

static void put_line(struct buf *b, const struct metric *x, const char *suffix,
                     const char *quantile, double value)
{
    put_name(b, x->name);
    buf_adds(b, suffix);
    put_labels(b, x, quantile);
    buf_printf(b, " %.15g\n", value);
}

static int by_name(const void *a, const void *b)
{
    const struct metric *x = a, *y = b;
    int rc = strcmp(x->name, y->name);

    return rc != 0 ? rc : (x->order > y->order) - (x->order < y->order);
}

/* All lines of a name together, after one HELP and TYPE: the format demands it. */
static const char *as_text(struct arena *a, struct metrics *m)
{
    struct buf b = {0};
    const char *text;

    qsort(m->list, m->n, sizeof(*m->list), by_name);
    for (size_t i = 0; i < m->n; i++) {
        const struct metric *x = &m->list[i];

        if (i == 0 || strcmp(x->name, m->list[i - 1].name) != 0) {
            buf_adds(&b, "# HELP ");
            put_name(&b, x->name);
            buf_printf(&b, " %s\n# TYPE ", x->name);
            put_name(&b, x->name);
            buf_printf(&b, " %s\n",
                       x->quantiles != NULL ? "summary"
                       : x->counter         ? "counter"
                                            : "gauge");
        }
        if (x->quantiles == NULL) {
            put_line(&b, x, "", NULL, x->value);
            continue;
        }
        put_line(&b, x, "", "0.5", x->quantiles->count > 0 ? x->quantiles->p50 : (double)NAN);
        put_line(&b, x, "", "0.99", x->quantiles->count > 0 ? x->quantiles->p99 : (double)NAN);
        put_line(&b, x, "_sum", NULL, x->sum);
        put_line(&b, x, "_count", NULL, x->value);
    }
    text = b.failed ? NULL : arena_strdup(a, buf_str(&b));
    buf_free(&b);
    return text;
}

void sys_metrics(struct request *rq, struct response *rs)
{
    struct metrics m = {.arena = rq->arena};
    struct engine_status *st = arena_alloc(rq->arena, sizeof(*st));
    const char *accept = http_header(rq->http, "Accept"), *format;

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (st == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    if (field_str(rq, rs, "format", "", &format) != 0)
        return;
    collect(rq, &m, st);
    if (strcmp(format, "prometheus") == 0 ||
        (format[0] == '\0' && accept != NULL &&
         (strstr(accept, "openmetrics-text") != NULL || strstr(accept, "prometheus/") != NULL))) {
        rs->text = m.failed ? NULL : as_text(rq->arena, &m);
        rs->content_type = "text/plain; version=0.0.4";
    } else if (format[0] == '\0') {
        rs->raw = m.failed ? NULL : as_json(&m, rq->now_ms);
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
