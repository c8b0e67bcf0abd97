/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_status.c - sys/replication/status, dr/status, performance/status: Vault's fields and
 * types, ours beside.
 *
 * Vault writes *_ms and epochs of checks as strings, WAL indexes as numbers; clients parse them so.
 * Ours are numbers. Times that never were are "" for times and 0 for ages.
 */
#include <math.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

#define NEVER_CHECKED "-62135596800" /* Go's zero time in Unix seconds */

static json_t *milliseconds(int64_t ms)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld", (long long)ms);
    return json_string(text);
}

static void set(json_t *o, const char *name, json_t *v)
{
    json_object_set_new(o, name,
                        v); /* without memory the field is missing; the answer stays well formed */
}

/* To the microsecond: more is noise. */
static json_t *fraction(double ms)
{
    return json_real(isfinite(ms) ? round(ms * 1000) / 1000 : 0);
}

/* The short form: how long writes of the last hour were on one side only. */
static void set_lag(json_t *o, const struct engine_lag *lag)
{
    set(o, "lag_ms_p50", fraction(lag->p50));
    set(o, "lag_ms_p99", fraction(lag->p99));
    set(o, "lag_ms_max", fraction(lag->max));
    set(o, "lag_samples", json_integer((json_int_t)lag->count));
}

static json_t *stages_json(const struct engine_lag_stage stage[LAG_STAGES])
{
    json_t *all = json_object();

    for (enum lag_stage s = 0; s < LAG_STAGES; s++) {
        json_t *o = json_object();

        set(o, "lsn", json_integer((json_int_t)stage[s].lsn));
        set(o, "lsns", json_integer((json_int_t)stage[s].behind_lsns));
        set(o, "bytes", json_integer((json_int_t)stage[s].behind_bytes));
        set(o, "ms", fraction(stage[s].behind_ms));
        for (enum lag_window w = 0; w < LAG_WINDOWS; w++) {
            const struct engine_lag *l = &stage[s].window[w];
            json_t *win = json_object();

            set(win, "p50_ms", fraction(l->p50));
            set(win, "p99_ms", fraction(l->p99));
            set(win, "max_ms", fraction(l->max));
            set(win, "samples", json_integer((json_int_t)l->count));
            set(o, lag_window_name(w), win);
        }
        set(all, lag_stage_name(s), o);
    }
    return all;
}

static void set_time(struct request *rq, json_t *o, const char *name, int64_t ms)
{
    const char *text = ms > 0 ? time_rfc3339(rq->arena, ms) : "";

    set(o, name, json_string(text != NULL ? text : ""));
}

/* Vault's form; the link itself knows HOST:PORT. */
static json_t *address(const char *addr)
{
    char url[300];

    if (addr[0] == '\0' || strstr(addr, "://") != NULL)
        return json_string(addr);
    snprintf(url, sizeof(url), "https://%s", addr);
    return json_string(url);
}

static const char *const verified_words[] = {[ENGINE_UNVERIFIED] = "unknown",
                                             [ENGINE_EQUAL] = "equal",
                                             [ENGINE_DIFFERENT] = "different",
                                             [ENGINE_DAMAGED] = "damaged"};

static json_t *peer_json(struct request *rq, const struct engine_peer *p, bool of_primary)
{
    json_t *o = json_object();

    set(o, "api_address", json_string(p->api_addr));
    set(o, "cluster_address", address(p->cluster_addr));
    set(o, "connection_status", json_string(p->connected ? "connected" : "disconnected"));
    set_time(rq, o, "last_heartbeat", p->last_heartbeat_ms);
    set(o, "last_heartbeat_duration_ms",
        milliseconds(p->last_heartbeat_ms > 0 ? rq->now_ms - p->last_heartbeat_ms : 0));
    set(o, "clock_skew_ms", milliseconds(p->clock_skew_ms));
    set(o, "replication_primary_canary_age_ms", milliseconds(p->canary_age_ms));
    set(o, "lag", stages_json(p->stage));
    if (of_primary) {
        set(o, "node_id", json_string(p->id));
        set(o, "fed_by", json_string(p->fed_by));
        set(o, "sent_lsn", json_integer((json_int_t)p->sent_lsn));
        set(o, "durable_lsn", json_integer((json_int_t)p->durable_lsn));
        set(o, "applied_lsn", json_integer((json_int_t)p->applied_lsn));
        set_lag(o, &p->stage[LAG_FLUSHED].window[LAG_60M]);
        replication_mode_json(o, p);
        set(o, "retention", replication_retention_json(p));
    }
    set(o, "verified", json_string(verified_words[p->verified]));
    set(o, "verified_equal_lsn", json_integer((json_int_t)p->verified_lsn));
    set_time(rq, o, "verified_equal_time", p->verified_ms);
    set(o, "verified_equal_age_ms",
        json_integer(p->verified_lsn != 0 ? (json_int_t)p->verified_age_ms : -1));
    set(o, "last_error", json_string(p->last_error));
    set_time(rq, o, "last_error_time", p->last_error_ms);
    return o;
}

/* Every id that was given a token and is not revoked, taken in or not. */
static int add_member(void *arg, const struct member *m, struct err *err)
{
    (void)err;
    if (!m->revoked && !m->primary)
        json_array_append_new(arg, json_string(m->id));
    return 0;
}

static bool holds(const json_t *list, const char *text)
{
    const json_t *v;
    size_t i;

    json_array_foreach(list, i, v)
    {
        if (strcmp(json_string_value(v), text) == 0)
            return true;
    }
    return false;
}

static json_t *known_secondaries(struct core *c)
{
    json_t *list = json_array(), *open = NULL, *id;
    struct err err = {0};
    size_t i;

    if (members_each(c, add_member, list, &err) != 0 ||
        storage_list(c, REPL_ACTIVATION, &open, &err) != 0)
        log_error(c->log, "replication", "cannot list the secondaries: %s", err.msg);
    json_array_foreach(open, i, id)
    {
        if (!holds(list, json_string_value(id)))
            json_array_append(list, id);
    }
    json_decref(open);
    return list;
}

/* The last look at all rows, against the Merkle tree. */
static json_t *scrub_json(struct request *rq, const struct engine_status *st)
{
    json_t *o = json_object();

    set(o, "lsn", json_integer((json_int_t)st->scrub_lsn));
    set_time(rq, o, "time", st->scrub_ms);
    set(o, "keys", json_integer((json_int_t)st->scrub_keys));
    set(o, "bytes", json_integer((json_int_t)st->scrub_bytes));
    set(o, "corrupted_leaves", json_integer((json_int_t)st->scrub_bad_leaves));
    set(o, "rounds", json_integer((json_int_t)st->scrubs));
    set(o, "repairs", json_integer((json_int_t)st->repairs));
    return o;
}

static void settle_root(void *engine)
{
    engine_settle_root(engine);
}

void replication_settle_root(struct core *c)
{
    run_blocking(settle_root, c->engine);
}

static void set_common(struct request *rq, json_t *o, const struct engine_status *st,
                       const char *mode)
{
    const struct engine_peer *failed = NULL;
    char root[41];

    hex_of(st->merkle_root, 20, root);
    set(o, "mode", json_string(mode));
    set(o, "state", json_string(st->state));
    set(o, "cluster_id", json_string(st->cluster_id));
    set(o, "merkle_root", json_string(root));
    set(o, "merkle_root_lsn", json_integer((json_int_t)st->merkle_root_lsn));
    set(o, "primary_cluster_addr", address(st->primary_cluster_addr));
    set(o, "corrupted_merkle_tree", json_boolean(st->damaged));
    set(o, "last_corruption_check_epoch",
        st->scrub_ms > 0 ? milliseconds(st->scrub_ms / 1000) : json_string(NEVER_CHECKED));
    set(o, "last_reindex_epoch", milliseconds(st->reindex_ms / 1000));
    set(o, "scrub", scrub_json(rq, st));
    set(o, "ssct_generation_counter", json_integer(0));
    set(o, "epoch", json_integer(st->epoch));
    set(o, "durable_lsn", json_integer((json_int_t)st->durable_lsn));
    set(o, "committed_lsn", json_integer((json_int_t)st->committed_lsn));
    set(o, "applied_lsn", json_integer((json_int_t)st->applied_lsn));
    set(o, "disk_reserve", json_boolean(st->disk_reserve));
    if (st->handover[0] != '\0') {
        set(o, "switchover", json_string(st->handover));
        set(o, "switchover_to", json_string(st->handover_to));
    }
    if (st->n_lost > 0)
        set(o, "lost_writes", replication_lost_json(rq, st));
    if (st->lost_unshown > 0)
        set(o, "lost_writes_unshown", json_integer((json_int_t)st->lost_unshown));
    if (st->n_aside > 0)
        set(o, "set_aside", replication_aside_json(rq, st));
    if (st->reason[0] != '\0')
        set(o, "reason", json_string(st->reason));
    replication_health_json(rq, o, st);
    for (size_t i = 0; i < st->n_peers; i++)
        if (failed == NULL || st->peers[i].last_error_ms > failed->last_error_ms)
            failed = &st->peers[i];
    set(o, "last_error", json_string(failed != NULL ? failed->last_error : ""));
    set_time(rq, o, "last_error_time", failed != NULL ? failed->last_error_ms : 0);
}

/* Vault's progress of a sync, in keys; ours beside. */
static json_t *sync_json(struct request *rq, const struct engine_status *st)
{
    json_t *o = json_object();

    set(o, "sync_progress", json_integer((json_int_t)st->sync_done));
    set(o, "sync_total_keys", json_integer((json_int_t)st->sync_total));
    set(o, "phase", json_string(st->sync_phase));
    set(o, "time_left_ms", json_integer(st->sync_left_ms));
    set(o, "keys_taken", json_integer((json_int_t)st->copy_keys));
    set(o, "keys_deleted", json_integer((json_int_t)st->copy_deleted));
    set(o, "bytes_moved", json_integer((json_int_t)st->sync_moved_bytes));
    set_time(rq, o, "started", st->sync_started_ms);
    return o;
}

static json_t *primary_json(struct request *rq, const struct engine_status *st)
{
    json_t *o = json_object(), *list = json_array();
    struct engine_lag worst = {0};
    uint64_t data_bytes;
    char key_hash[65];

    set_common(rq, o, st, "primary");
    set(o, "state", json_string("running"));
    set(o, "last_wal", json_integer((json_int_t)st->committed_lsn));
    set(o, "last_dr_wal", json_integer((json_int_t)st->committed_lsn));
    set(o, "known_secondaries", known_secondaries(rq->core));
    probes_facts(rq->core, key_hash, &data_bytes);
    set(o, "link_key_hash", json_string(key_hash));
    set(o, "data_bytes", json_integer((json_int_t)data_bytes));
    for (size_t i = 0; i < st->n_peers; i++) {
        json_array_append_new(list, peer_json(rq, &st->peers[i], true));
        const struct engine_lag *lag = &st->peers[i].stage[LAG_FLUSHED].window[LAG_60M];

        if (lag->count > 0 && lag->p99 >= worst.p99)
            worst = *lag;
    }
    set(o, "secondaries", list);
    set(o, "quorum", replication_quorum_json(st));
    set(o, "unsettled", json_boolean(st->unsettled));
    set(o, "lag_guard_pause_ms", json_integer(st->lag_guard_pause_ms));
    set_lag(o, &worst);
    return o;
}

/* The primary's API address is in its member row, if it is reached at the cluster address that it
 * gave there. */
static int find_api_addr(void *arg, const struct member *m, struct err *err)
{
    struct engine_peer *p = arg;
    char addr[256];

    err_clear(err);
    if (m->primary && addr_of_url(m->cluster_addr, addr, err) == 0 &&
        strcmp(addr, p->cluster_addr) == 0)
        memcpy(p->api_addr, m->api_addr, sizeof(p->api_addr));
    return 0;
}

/* Those that follow this secondary. */
static json_t *fed_json(const struct engine_status *st)
{
    json_t *list = json_array();

    for (size_t i = 0; i < st->n_fed; i++) {
        const struct engine_fed *f = &st->fed[i];

        json_array_append_new(
            list,
            json_pack("{s:s, s:s, s:I, s:I, s:{s:i, s:b}}", "node_id", f->id, "connection_status",
                      f->connected ? "connected" : "disconnected", "durable_lsn",
                      (json_int_t)f->durable_lsn, "applied_lsn", (json_int_t)f->applied_lsn,
                      "retention", "used_percent", (int)f->retain_percent, "let_go", f->let_go));
    }
    return list;
}

static json_t *secondary_json(struct request *rq, struct engine_status *st)
{
    json_t *o = json_object(), *list = json_array(), *addrs = json_array();
    bool copying = st->role == ENGINE_BOOTSTRAPPING;

    set_common(rq, o, st, copying ? "bootstrapping" : "secondary");
    set(o, "connection_state", json_string(st->connection_state));
    set(o, "secondary_id", json_string(st->secondary_id));
    set(o, "last_remote_wal", json_integer((json_int_t)st->last_remote_lsn));
    set_time(rq, o, "last_start", st->last_start_ms);
    set(o, "no_loss", json_boolean(st->no_loss));
    set_time(rq, o, st->no_loss ? "no_loss_unless_forced_after" : "loss_unknown_since",
             st->no_loss_heard_ms);
    for (size_t i = 0; i < st->n_peers; i++) {
        struct err err = {0};
        if (st->peers[i].api_addr[0] == '\0' &&
            members_each(rq->core, find_api_addr, &st->peers[i], &err) != 0)
            log_error(rq->core->log, "replication", "cannot read the members: %s", err.msg);
        json_array_append_new(list, peer_json(rq, &st->peers[i], false));
        json_array_append_new(addrs, address(st->peers[i].cluster_addr));
    }
    set(o, "primaries", list);
    set(o, "secondaries", fed_json(st));
    set(o, "known_primary_cluster_addrs", addrs);
    if (st->sync_phase[0] != '\0')
        set(o, "progress", sync_json(rq, st));
    return o;
}

static json_t *disabled(void)
{
    return json_pack("{s:s}", "mode", "disabled");
}

static json_t *dr_json(struct request *rq)
{
    struct engine_status *st =
        arena_alloc(rq->arena, sizeof(*st)); /* large: not on a coroutine's stack */
    bool primary = rq->core->role == ENGINE_PRIMARY;
    struct repl_config conf;
    struct err err = {0};
    json_t *o;

    if (st == NULL)
        return NULL;
    if (primary && (repl_config_get(rq->core, &conf, &err) != 0 || !conf.primary_enabled))
        return disabled();
    replication_settle_root(rq->core);
    engine_status(rq->core->engine, st);
    if (primary) /* as written: the engine reads the row a moment later */
        memcpy(st->primary_cluster_addr, conf.primary_cluster_addr,
               sizeof(st->primary_cluster_addr));
    if (rq->core->role == ENGINE_SECONDARY || rq->core->role == ENGINE_BOOTSTRAPPING)
        return secondary_json(rq, st);
    if (rq->core->role == ENGINE_FENCED) {
        o = json_object();
        set_common(rq, o, st, "primary");
        set(o, "state", json_string("idle"));
        return o;
    }
    return primary_json(rq, st);
}

void replication_status_handle(struct request *rq, struct response *rs)
{
    if (rq->op != OP_READ)
        reply_unsupported(rs);
    else if (strcmp(rq->path, "replication/dr/status") == 0)
        reply_data(rs, dr_json(rq));
    else if (strcmp(rq->path, "replication/performance/status") == 0)
        reply_data(rs, disabled());
    else
        reply_data(rs, json_pack("{s:o, s:o}", "dr", dr_json(rq), "performance", disabled()));
}
