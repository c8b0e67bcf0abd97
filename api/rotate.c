/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rotate.c - terms of the barrier's keyring: sys/key-status, sys/rotate, and sys/rotate/config,
 * which has a primary rotate by itself.
 */
#include <string.h>

#include "core.h"
#include "core_private.h"
#include "sys.h"

#define ROTATE_ROW "core/rotate-config"
#define OPERATIONS_MIN 1000000LL
#define OPERATIONS_MAX 3865470566LL
#define INTERVAL_MIN_S 86400

void sys_key_status(struct request *rq, struct response *rs)
{
    uint32_t term;
    int64_t installed_ms;
    uint64_t encryptions;

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    barrier_info(rq->core->barrier, &term, &installed_ms, &encryptions);
    reply_data(rs, json_pack("{s:I, s:s, s:I}", "term", (json_int_t)term, "install_time",
                             time_rfc3339(rq->arena, installed_ms), "encryptions",
                             (json_int_t)encryptions));
    rs->double_reply = true;
}

static int rotate_latched(struct core *c, int64_t now_ms, struct err *err)
{
    struct buf keyring = {0};
    struct batch *b = batch_new(c);
    int rc = -1;

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "rotate");
    if (barrier_rotate(c->barrier, now_ms, &keyring, err) == 0 &&
        batch_put_clear(b, BARRIER_KEYRING_PATH, keyring.data, keyring.len, err) == 0) {
        /* The watch on the keyring adopts it when it is applied, before the commit returns. */
        rc = batch_commit(b, err);
        b = NULL;
    }
    batch_free(b);
    buf_free(&keyring);
    return rc;
}

static int rotate(struct core *c, int64_t now_ms, struct err *err)
{
    struct latch_ref latch;
    int rc;

    if (latch_take(c, BARRIER_KEYRING_PATH, &latch, err) != 0)
        return -1;
    rc = rotate_latched(c, now_ms, err);
    latch_release(c, &latch);
    return rc;
}

void sys_rotate(struct request *rq, struct response *rs)
{
    struct err err = {0};

    if (rq->op != OP_WRITE)
        reply_unsupported(rs);
    else if (rotate(rq->core, rq->now_ms, &err) != 0)
        reply_err(rs, &err);
    else
        reply_empty(rs);
}

/* ---- sys/rotate/config ---- */

struct rule {
    bool enabled;
    int64_t interval_s; /* 0: not by time */
    int64_t max_operations;
};

static int rule_get(struct core *c, struct rule *r, struct err *err)
{
    json_t *row;
    int enabled = 1;
    json_int_t interval = 0, max = OPERATIONS_MAX;

    if (setting_get(c, ROTATE_ROW, &row, err) != 0)
        return -1;
    json_unpack(row, "{s?:b, s?:I, s?:I}", "enabled", &enabled, "interval", &interval,
                "max_operations", &max);
    json_decref(row);
    *r = (struct rule){.enabled = enabled, .interval_s = interval, .max_operations = max};
    return 0;
}

static void config_read(struct request *rq, struct response *rs)
{
    struct rule r;
    struct err err = {0};

    if (rule_get(rq->core, &r, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    reply_data(rs,
               json_pack("{s:b, s:o, s:I}", "enabled", r.enabled, "interval",
                         r.interval_s == 0 ? json_integer(0)
                                           : json_string(duration_text(rq->arena, r.interval_s)),
                         "max_operations", (json_int_t)r.max_operations));
    rs->double_reply = true;
}

static int config_fields(struct request *rq, struct response *rs, struct rule *r)
{
    if (field_bool(rq, rs, "enabled", r->enabled, &r->enabled) != 0 ||
        field_seconds(rq, rs, "interval", r->interval_s, &r->interval_s) != 0 ||
        field_int(rq, rs, "max_operations", r->max_operations, &r->max_operations) != 0)
        return -1;
    if (r->max_operations < OPERATIONS_MIN || r->max_operations > OPERATIONS_MAX) {
        reply_error(rs, 400, "max_operations must be in the range [%lld,%lld]", OPERATIONS_MIN,
                    OPERATIONS_MAX);
        return -1;
    }
    if (r->interval_s != 0 && r->interval_s < INTERVAL_MIN_S) {
        reply_error(rs, 400, "interval must be greater or equal to %s",
                    duration_text(rq->arena, INTERVAL_MIN_S));
        return -1;
    }
    return 0;
}

static void config_write(struct request *rq, struct response *rs)
{
    struct latch_ref latch;
    struct rule r;
    struct err err = {0};
    json_t *row;

    latch_acquire(rq->core, ROTATE_ROW, &latch);
    if (rule_get(rq->core, &r, &err) != 0) {
        reply_err(rs, &err);
    } else if (config_fields(rq, rs, &r) == 0) {
        row = json_pack("{s:b, s:I, s:I}", "enabled", r.enabled, "interval",
                        (json_int_t)r.interval_s, "max_operations", (json_int_t)r.max_operations);
        if (row == NULL)
            err_set(&err, ERR_NOMEM, 0, "rotate");
        if (row == NULL || setting_put(rq->core, ROTATE_ROW, row, &err) != 0)
            reply_err(rs, &err);
        else
            reply_empty(rs);
        json_decref(row);
    }
    latch_release(rq->core, &latch);
}

void sys_rotate_config(struct request *rq, struct response *rs)
{
    if (rq->op == OP_READ)
        config_read(rq, rs);
    else if (rq->op == OP_WRITE)
        config_write(rq, rs);
    else
        reply_unsupported(rs);
}

void rotate_if_due(struct core *c)
{
    int64_t installed_ms, now_ms = env_wall_ms(c->env);
    uint64_t encryptions;
    uint32_t term;
    struct rule r;
    struct err err = {0};

    if (rule_get(c, &r, &err) != 0 || !r.enabled)
        return;
    barrier_info(c->barrier, &term, &installed_ms, &encryptions);
    if (encryptions < (uint64_t)r.max_operations &&
        (r.interval_s == 0 || now_ms < installed_ms + r.interval_s * 1000))
        return;
    if (rotate(c, now_ms, &err) != 0)
        log_warn(c->log, "core", "automatic rotation of the barrier key failed: %s", err.msg);
    else
        log_info(c->log, "core", "rotated the barrier key by itself: term=%u", term + 1);
}
