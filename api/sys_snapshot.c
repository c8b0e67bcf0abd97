/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_snapshot.c - sys/storage/snapshot: the data in one file, sent while writing goes on.
 *
 * Who may read the path gets it, as for Vault's sys/storage/raft/snapshot. Values are ciphertext;
 * names of keys are not. The engine's calls block, so they run on a helper thread.
 */
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "snapshot.h"
#include "sys.h"

struct sending {
    struct core *core;
    struct engine_snapshot *snapshot;
    uint64_t bytes;
    int64_t started_ms;
    /* of the call that runs */
    struct buf *out;
    struct err err;
    int rc;
};

static void begin_blocking(void *arg)
{
    struct sending *s = arg;

    s->rc = engine_snapshot_begin(s->core->engine, &s->snapshot, &s->err);
}

static void next_blocking(void *arg)
{
    struct sending *s = arg;

    s->rc = engine_snapshot_next(s->snapshot, s->out, &s->err);
}

static void end_blocking(void *arg)
{
    struct sending *s = arg;

    engine_snapshot_end(s->snapshot);
}

static int next(void *arg, struct buf *out)
{
    struct sending *s = arg;
    const struct snapshot_info *i;

    s->out = out;
    co_blocking(next_blocking, s);
    s->bytes += out->len;
    if (s->rc < 0) {
        log_error(s->core->log, "storage", "snapshot given up after %llu bytes: %s",
                  (unsigned long long)s->bytes, s->err.msg);
    } else if (s->rc == 0) {
        i = engine_snapshot_info(s->snapshot);
        log_info(s->core->log, "storage",
                 "snapshot sent: lsn=%llu bytes=%llu segments=%llu ms=%lld",
                 (unsigned long long)i->lsn, (unsigned long long)i->bytes,
                 (unsigned long long)i->segments,
                 (long long)(env_wall_ms(s->core->env) - s->started_ms));
    }
    return s->rc;
}

static void end(void *arg)
{
    co_blocking(end_blocking, arg);
    free(arg);
}

void sys_snapshot(struct request *rq, struct response *rs)
{
    struct sending *s;

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return;
    }
    s->core = rq->core;
    s->started_ms = rq->now_ms;
    co_blocking(begin_blocking, s);
    if (s->rc != 0) {
        if (s->err.code == ERR_BUSY)
            reply_error(rs, 503, "%s", s->err.msg);
        else
            reply_err(rs, &s->err);
        free(s);
        return;
    }
    log_info(rq->core->log, "storage", "snapshot begun");
    rs->stream = (struct http_stream){.next = next, .end = end, .arg = s};
    rs->content_type = "application/octet-stream";
    rs->no_wrap = true;
}
