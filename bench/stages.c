/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * stages.c - see stages.h.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "env.h"
#include "hist.h"
#include "stages.h"
#include "trace.h"

#define THERE TRACE_POINTS /* added to a point: on the secondary */

struct note {
    _Atomic uint64_t lsn;
    _Atomic int64_t ns;
};
struct stages {
    struct note note[2 * TRACE_POINTS][STAGES_NOTES]; /* each has one writer */
};
static struct {
    struct stages *stages;
    unsigned base;
} mine;

/* Each leads from the end of one before it. */
static const struct stage {
    const char *name;
    unsigned from, to;
    bool pair;
} way[] = {
    {"a place in the log", trace_submit, trace_sequence, false},
    {"handed to the disk", trace_sequence, trace_write, false},
    {"written and flushed", trace_write, trace_flush, false},
    {"handed to the link", trace_sequence, trace_ship, true},
    {"on the wire", trace_ship, THERE + trace_receive, true},
    {"there: handed to the disk", THERE + trace_receive, THERE + trace_write, true},
    {"there: written and flushed", THERE + trace_write, THERE + trace_flush, true},
    {"there: acknowledged", THERE + trace_flush, THERE + trace_ack, true},
    {"back on the wire", THERE + trace_ack, trace_heard, true},
    {"there: applied", THERE + trace_flush, THERE + trace_apply, true},
    {"committed", trace_flush, trace_commit, false},
    {"applied", trace_commit, trace_apply, false},
    {"answered", trace_apply, trace_answer, false},
    {"all", trace_submit, trace_answer, false},
};

static void put(struct stages *s, unsigned point, uint64_t lsn, int64_t ns)
{
    struct note *n = &s->note[point][lsn / STAGES_EACH % STAGES_NOTES];

    atomic_store_explicit(&n->ns, ns, memory_order_relaxed);
    atomic_store_explicit(&n->lsn, lsn, memory_order_release);
}

static void on_point(enum trace_point p, uint64_t first, uint64_t last)
{
    uint64_t lsn = (first + STAGES_EACH - 1) / STAGES_EACH * STAGES_EACH;
    int64_t now;

    if (p == trace_submit || lsn > last)
        return;
    now = env_mono_ns(env_real());
    for (; lsn <= last; lsn += STAGES_EACH)
        put(mine.stages, mine.base + p, lsn, now);
}

struct stages *stages_new(void)
{
    void *p = mmap(NULL, sizeof(struct stages), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void stages_install(struct stages *s, bool secondary)
{
    mine.stages = s;
    mine.base = secondary ? THERE : 0;
    trace_hook = on_point;
}

void stages_submitted(struct stages *s, uint64_t lsn, int64_t ns)
{
    if (lsn % STAGES_EACH == 0)
        put(s, trace_submit, lsn, ns);
}

static bool look(const struct stages *s, unsigned point, size_t i, uint64_t lsn, int64_t *nsp)
{
    const struct note *n = &s->note[point][i];

    if (lsn == 0 || atomic_load_explicit(&n->lsn, memory_order_acquire) != lsn)
        return false;
    *nsp = atomic_load_explicit(&n->ns, memory_order_relaxed);
    return true;
}

static void stage_json(const struct stages *s, const struct stage *g, FILE *out)
{
    struct hist *h = calloc(1, sizeof(*h));

    if (h == NULL)
        abort();
    for (size_t i = 0; i < STAGES_NOTES; i++) {
        uint64_t lsn = atomic_load(&s->note[trace_answer][i].lsn); /* its way is over */
        int64_t from, to;

        if (look(s, g->from, i, lsn, &from) && look(s, g->to, i, lsn, &to))
            hist_add(h, to - from);
    }
    fprintf(out, "{\"stage\": \"%s\", \"hist\": ", g->name);
    hist_json(h, out);
    fprintf(out, "}");
    free(h);
}

void stages_json(const struct stages *s, bool pair, FILE *out)
{
    const char *comma = "";

    fprintf(out, "[");
    for (size_t i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
        if (way[i].pair && !pair)
            continue;
        fprintf(out, "%s", comma);
        stage_json(s, &way[i], out);
        comma = ", ";
    }
    fprintf(out, "]");
}
