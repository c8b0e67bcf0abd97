/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_faults.c - what a storm does to the nodes beside what an operator does: lines, power, disks,
 * clocks, turns.
 *
 * A fault of a disk is armed here and counted when an operation meets it, so that the counts say
 * what was tested.
 */
#include "sim_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- files of a node that is down ---- */
static enum sim_fault flipped_in(const char *path)
{
    return strstr(path, "/wal/") != NULL     ? F_FLIP_LOG
           : strstr(path, "/store/") != NULL ? F_FLIP_STORE
                                             : F_FLIP_OTHER;
}

struct pick {
    enum sim_fault kind; /* that is wanted */
    char path[200];      /* a list of files, one drawn at random */
    char dir[200];
    struct disk *d;
    struct world *w;
    unsigned seen, depth;
};

static void pick_file(void *arg, const char *name)
{
    struct pick *p = arg, sub = {.kind = p->kind, .d = p->d, .w = p->w, .depth = p->depth + 1};
    struct disk_file *f;
    struct err err;

    snprintf(sub.dir, sizeof(sub.dir), "%.120s/%.70s", p->dir, name);
    if (p->d->ops->open(p->d, sub.dir, DISK_READ, &f, &err) == 0) {
        p->d->ops->close(f);
        if (flipped_in(sub.dir) == p->kind && sim_rand(p->w, ++p->seen) == 0)
            snprintf(p->path, sizeof(p->path), "%s", sub.dir);
        return;
    }
    if (sub.depth < 5 && p->d->ops->list(p->d, sub.dir, pick_file, &sub, &err) == 0 &&
        sub.seen > 0) {
        p->seen += sub.seen;
        if (sim_rand(p->w, p->seen) < sub.seen)
            snprintf(p->path, sizeof(p->path), "%s", sub.path);
    }
}

/* Media decay on a secondary that is down. */
static void flip_bit(struct world *w, int i)
{
    static const enum sim_fault kinds[] = {F_FLIP_LOG, F_FLIP_STORE, F_FLIP_OTHER, F_FLIP_OTHER};
    struct node *n = &w->n[i];
    struct disk *d = disk_sim_new(n->image, &n->env.env);
    struct pick p = {.kind = kinds[sim_rand(w, 4)], .d = d, .w = w};
    struct disk_file *f;
    uint64_t size = 0, bit;
    struct err err;

    sim_check(w, d != NULL, "no simulated disk");
    snprintf(p.dir, sizeof(p.dir), "%s", n->path);
    if (d->ops->list(d, p.dir, pick_file, &p, &err) != 0 || p.path[0] == '\0' ||
        d->ops->open(d, p.path, DISK_READ, &f, &err) != 0) {
        disk_free(d);
        return;
    }
    if (d->ops->size(f, &size, &err) != 0)
        size = 0;
    d->ops->close(f);
    disk_free(d);
    if (size == 0)
        return;
    /* Most of a log file is zeros yet: the beginning is where bytes are. */
    bit = sim_rand(w, 8 * (chance(w, 70) && size > 65536 ? 65536 : size));
    if (disk_image_flip(n->image, p.path, bit, &err) != 0)
        return;
    watch_forget(w, i);
    n->damaged = true;
    fault(w, p.kind, i, "bit %llu of %s", (unsigned long long)bit, p.path);
}

/* ---- when a fault that was armed is met ---- */
static enum sim_fault met(enum disk_fault f, int sys)
{
    switch ((int)f) {
    case DISK_FAULT_WRITE:
        return sys == ENOSPC ? F_NO_SPACE : F_WRITE_ERROR;
    case DISK_FAULT_FLUSH:
        return F_FLUSH_ERROR;
    case DISK_FAULT_READ:
        return F_READ_ERROR;
    case DISK_FAULT_CREATE:
        return F_NO_CREATE;
    case DISK_FAULT_SLOW:
        return F_SLOW_DISK;
    default:
        return F_RESERVE;
    }
}

void fault_met(void *arg, enum disk_fault f, int sys)
{
    struct node *n = arg;

    if (n->cut)
        return; /* the power is off: what it does now is not seen */
    fault(n->w, met(f, sys), n->index, "is met");
    if (f == DISK_FAULT_FLUSH && !n->flush_failed) {
        n->flush_failed = true;
        n->flush_ns = n->w->now_ns;
    }
}

/* A failed flush is final: whoever goes on after it may acknowledge what is not durable. What else
 * is in flight comes to its end before. */
void fault_look(struct world *w, int i)
{
    struct node *n = &w->n[i];

    if (n->flush_failed && !n->cut && ++n->flush_steps > 8 && w->now_ns - n->flush_ns > SEC)
        sim_fail(w, "node %d: flush: it goes on after a flush that failed", i);
}

/* ---- lines, power, disks ---- */
static void disturb_line(struct world *w)
{
    int a = any_node(w), b = any_node(w);
    struct sim_line *l = &w->line[a][b];

    if (a == b)
        return;
    switch (sim_rand(w, 6)) {
    case 0:
        fault(w, F_CUT, a, "from node %d", b);
        net_cut_pair(w, a, b);
        break;
    case 1:
        fault(w, F_HALF_OPEN, a, "node %d does not know", b);
        net_half_open(w, a, b);
        break;
    case 2:
        fault(w, F_PARTITION, a, "from node %d", b);
        net_partition(w, a, b, true);
        break;
    case 3:
        fault(w, F_PARTITION, a, "to node %d, one way", b);
        l->down = true;
        break;
    case 4:
        l->delay_ns = some_ms(w, chance(w, 20) ? 9000 : 300);
        fault(w, F_DELAY, a, "to node %d: %lld ms", b, (long long)(l->delay_ns / MS));
        break;
    default:
        l->byte_ns_x1000 = (int64_t)sim_rand(w, 20000000);
        fault(w, F_SLOW, a, "to node %d: %lld ns a KB", b, (long long)l->byte_ns_x1000);
        break;
    }
}

static void disturb_power(struct world *w, int i)
{
    uint64_t changes;

    switch (sim_rand(w, 4)) {
    case 0:
        fault(w, F_CRASH, i, "now");
        node_crash(w, i);
        break;
    case 1:
        fault(w, F_STOP, i, "now");
        node_stop(w, i);
        break;
    default:
        changes = 1 + sim_rand(w, 60);
        node_crash_in(w, i, changes);
        w->n[i].cut_as = F_CRASH_IO;
        note(w, i, "will lose its power in %llu changes of the disk", (unsigned long long)changes);
        break;
    }
}

void storm_disk_fails(struct world *w, int i, uint64_t within)
{
    static const struct {
        enum disk_fault f;
        int sys;
        uint64_t times; /* 0: until it is opened again */
        const char *text;
    } kinds[] = {
        {DISK_FAULT_WRITE, EIO, 0, "refuse writes"},
        {DISK_FAULT_WRITE, ENOSPC, 0, "be full for a write"},
        {DISK_FAULT_FLUSH, EIO, 1, "fail a flush"},
        {DISK_FAULT_READ, EIO, 2, "fail reads"},
        {DISK_FAULT_CREATE, ENOSPC, 0, "be full for a new file"},
    };
    size_t k = sim_rand(w, sizeof(kinds) / sizeof(kinds[0]));
    /* Reads and new files are rare while it runs. */
    uint64_t after =
        sim_rand(w, kinds[k].f == DISK_FAULT_CREATE || kinds[k].f == DISK_FAULT_READ ? 3 : within);

    w->n[i].fails = true;
    disk_image_fail(w->n[i].image, kinds[k].f, after, kinds[k].times, kinds[k].sys);
    note(w, i, "its disk will %s, after %llu more", kinds[k].text, (unsigned long long)after);
}

static void disturb_disk(struct world *w, int i)
{
    struct node *n = &w->n[i];
    unsigned times;

    switch (sim_rand(w, 6)) {
    case 0:
        disk_image_free_bytes(n->image, 1000);
        note(w, i, "its disk has little space until it is opened again, or in the end");
        break;
    case 1:
        times = 10 + (unsigned)sim_rand(w, 90);
        n->slow_until_ns = w->now_ns + some_ms(w, 20000);
        disk_image_slow(n->image, times);
        note(w, i, "its disk is %u times as slow until %.3f s", times,
             (double)n->slow_until_ns / 1e9);
        break;
    default:
        storm_disk_fails(w, i, 40);
        break;
    }
}

/* A paused machine: what is sent to it waits, its clocks go on, it finds out afterwards. */
static void stand_still(struct world *w, int i)
{
    int64_t ns = some_ms(w, chance(w, 50) ? 3000 : 25000);

    w->n[i].still_until_ns = w->now_ns + ns;
    note(w, i, "gets no turn for %lld ms", (long long)(ns / MS));
}

void storm_fault(struct world *w)
{
    int i = any_node(w);
    struct node *n = &w->n[i];

    switch (sim_rand(w, 15)) {
    case 0:
    case 1:
    case 2:
    case 3:
        disturb_line(w);
        break;
    case 4:
    case 5:
    case 6:
        if (n->e != NULL)
            disturb_power(w, i);
        break;
    case 7:
    case 8:
        if (n->e != NULL)
            disturb_disk(w, i);
        break;
    case 9:
        if (n->e != NULL)
            stand_still(w, i);
        break;
    case 10:
        n->env.wall_offset_ms += (int64_t)sim_rand(w, 1200000) - 600000;
        fault(w, F_CLOCK, i, "%lld ms off", (long long)n->env.wall_offset_ms);
        break;
    case 11:
        n->stalled = (unsigned)sim_rand(w, 300);
        fault(w, F_STALL, i, "%u steps", n->stalled);
        break;
    case 12:
    case 13:
        if (n->e == NULL && i != w->primary)
            flip_bit(w, i);
        break;
    default:
        fault(w, F_CHECKPOINT, i, "when it is due anyway");
        n->checkpoint = true;
        break;
    }
}
