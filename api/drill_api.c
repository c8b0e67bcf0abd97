/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * drill_api.c - sys/replication/dr/secondary/drill and drill/stop: begin and end a drill, and tell
 * of the present or the last one.
 *
 * No request waits for a drill: what is told is what its thread has noted so far, under the mutex.
 */
#include <string.h>
#include <unistd.h>

#include "cluster_private.h"
#include "core_private.h"
#include "drill_private.h"
#include "replication_private.h"

#define TTL_S 3600
#define TTL_MAX_S 86400

static const char *const state_names[] = {"none", "copying", "starting", "running", "ending"};

static json_t *time_json(struct request *rq, int64_t ms)
{
    return ms != 0 ? json_string(time_rfc3339(rq->arena, ms)) : json_null();
}

static double number(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* What a promotion does: apply what is durable and not applied, log the epoch, note the new
 * address. The barrier is open already. */
static json_t *estimate_json(const struct drill_outcome *o)
{
    double write_ms = number(o->child, "write_ms");

    return json_pack("{s:I, s:f, s:f, s:f}", "tail_transactions", (json_int_t)o->tail,
                     "tail_apply_ms", o->tail_ms, "write_ms", write_ms, "total_ms",
                     o->tail_ms + 2 * write_ms);
}

static json_t *checks_json(const struct drill_outcome *o)
{
    static const char *const counts[] = {"mounts",  "auth_methods",  "tokens",           "policies",
                                         "secrets", "values_opened", "values_not_opened"};
    json_t *v = json_object();

    json_object_set_new(v, "root_equal", json_boolean(o->fork.root_equal));
    json_object_set_new(v, "barrier_opens",
                        json_boolean(number(o->child, "values_not_opened") == 0));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        json_object_set(v, counts[i], json_object_get(o->child, counts[i]));
    return v;
}

static json_t *drill_json(struct request *rq, struct drill *d)
{
    const struct drill_outcome *o = &d->out;
    json_t *v = json_object();
    char root[41];

    json_object_set_new(v, "state", json_string(state_names[d->state]));
    if (o->id[0] == '\0')
        return v;
    json_object_set_new(v, "id", json_string(o->id));
    json_object_set_new(v, "address", json_string(o->address));
    json_object_set_new(v, "directory", json_string(o->dir));
    json_object_set_new(v, "started", time_json(rq, o->started_ms));
    json_object_set_new(v, "ends", time_json(rq, o->ends_ms));
    json_object_set_new(v, "ended", time_json(rq, o->ended_ms));
    json_object_set_new(v, "error", o->error[0] != '\0' ? json_string(o->error) : json_null());
    if (!o->forked)
        return v;
    hex_of(o->fork.root, sizeof(o->fork.root), root);
    json_object_set_new(v, "lsn", json_integer((json_int_t)o->fork.lsn));
    json_object_set_new(v, "merkle_root", json_string(root));
    json_object_set_new(v, "cluster_id", json_string(o->fork.cluster_id));
    json_object_set_new(v, "copy_ms", json_real(o->copy_ms));
    if (o->child != NULL && json_object_get(o->child, "error") == NULL) {
        json_object_set_new(v, "checks", checks_json(o));
        json_object_set_new(v, "promotion_estimate", estimate_json(o));
        json_object_set(v, "unseal_ms", json_object_get(o->child, "unseal_ms"));
    }
    return v;
}

static void reply_state(struct request *rq, struct response *rs)
{
    struct drill *d = rq->core->drill;
    json_t *v;

    pthread_mutex_lock(&d->mutex);
    v = drill_json(rq, d);
    pthread_mutex_unlock(&d->mutex);
    reply_data(rs, v);
}

/* It goes into a configuration file, and into a log: HOST:PORT, as it is. */
static bool address_good(const char *s)
{
    char host_port[256];
    struct err err;

    return addr_of_url(s, host_port, &err) == 0 && strcmp(s, host_port) == 0 && strlen(s) < 200;
}

static void start_drill(struct request *rq, struct response *rs)
{
    struct drill *d = rq->core->drill;
    const char *address, *dir, *dflt;
    struct err err = {0};
    int64_t ttl_s;
    bool busy, taken;

    dflt = arena_printf(rq->arena, "%s/drill", rq->core->config->storage_path);
    if (field_str(rq, rs, "address", "", &address) != 0 ||
        field_str(rq, rs, "directory", dflt != NULL ? dflt : "", &dir) != 0 ||
        field_seconds(rq, rs, "ttl", TTL_S, &ttl_s) != 0)
        return;
    if (!address_good(address)) {
        reply_error(
            rs, 400,
            "address must be given: HOST:PORT, on which the drill is served, with a port from 1 to "
            "65535");
    } else if (dir[0] != '/' || strlen(dir) > 1000) {
        reply_error(rs, 400, "directory must be an absolute path, which does not exist yet");
    } else if (ttl_s <= 0 || ttl_s > TTL_MAX_S) {
        reply_error(rs, 400, "ttl must be from one second to 24 hours");
    } else {
        pthread_mutex_lock(&d->mutex);
        busy = d->state != DRILL_NONE;
        taken = !busy && access(dir, F_OK) == 0;
        if (!busy && !taken && drill_begin(d, rq->now_ms, address, dir, ttl_s, &err) != 0)
            reply_err(rs, &err);
        pthread_mutex_unlock(&d->mutex);
        if (busy)
            reply_error(rs, 400,
                        "a drill is under way: end it first with "
                        "sys/replication/dr/secondary/drill/stop");
        else if (taken)
            reply_error(rs, 400, "directory %s exists already, and is left as it is", dir);
        else if (rs->errors == NULL)
            reply_state(rq, rs);
    }
}

void drill_handle(struct request *rq, struct response *rs)
{
    bool stop = strcmp(rq->path, "replication/dr/secondary/drill/stop") == 0;
    const char *token;

    if (!replication_dr_token(rq, rs, &token))
        return;
    if (rq->op == OP_READ && !stop) {
        reply_state(rq, rs);
    } else if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
    } else if (stop) {
        drill_end_soon(rq->core);
        reply_state(rq, rs);
    } else if (rq->core->role != ENGINE_SECONDARY) {
        reply_error(rs, 400, "the first copy of the primary's data is not complete");
    } else {
        start_drill(rq, rs);
    }
}
