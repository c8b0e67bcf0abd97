/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim_events.c - the event log: what the world did to the nodes and what they said, in order, with
 * the simulated time. The newest are kept and printed when a check fails; --events prints all.
 *
 * The engines log into a file in memory; after each step of a node its new lines are taken over
 * with the node's number, so that events and log lines are in one order.
 */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define KEPT 4096u
#define SHOWN 80u
#define LINE 220u
#define FILE_BYTES_MAX ((off_t)8 << 20)

struct events {
    char line[KEPT][LINE];
    uint64_t n;
    int fd;
    off_t at;
};

static const char *const fault_names[SIM_FAULTS] = {"cut",
                                                    "half-open",
                                                    "partition",
                                                    "delay",
                                                    "slow line",
                                                    "power cut",
                                                    "power cut at an I/O",
                                                    "power cut in recovery",
                                                    "orderly stop",
                                                    "write error",
                                                    "no space",
                                                    "flush error",
                                                    "read error",
                                                    "no space for a new file",
                                                    "slow disk",
                                                    "below the reserve",
                                                    "bit flip in the log",
                                                    "bit flip in the store",
                                                    "bit flip elsewhere",
                                                    "clock jump",
                                                    "stalled apply",
                                                    "stood still",
                                                    "checkpoint",
                                                    "promotion",
                                                    "rejoin",
                                                    "first copy",
                                                    "mode",
                                                    "demotion",
                                                    "switchover",
                                                    "update-primary",
                                                    "cascade",
                                                    "snapshot",
                                                    "seed",
                                                    "revocation",
                                                    "revocation taken back",
                                                    "first copy given up",
                                                    "secession",
                                                    "older image",
                                                    "older image of a primary",
                                                    "sealed start",
                                                    "sealing as it runs",
                                                    "unsealing",
                                                    "stepping down while sealed",
                                                    "sealed to the end",
                                                    "reordered across connections"};

const char *sim_fault_name(enum sim_fault f)
{
    return fault_names[f];
}

void events_init(struct world *w)
{
    w->ev = calloc(1, sizeof(*w->ev));
    sim_check(w, w->ev != NULL, "out of memory");
    w->ev->fd = memfd_create("sim-log", MFD_CLOEXEC);
    sim_check(w, w->ev->fd >= 0, "no file for log lines");
    w->log = logger_new(w->ev->fd, w->trace ? LOG_LEVEL_TRACE : LOG_LEVEL_INFO);
    sim_check(w, w->log != NULL, "out of memory");
}

void events_fini(struct world *w)
{
    logger_free(w->log);
    w->log = NULL;
    close(w->ev->fd);
    free(w->ev);
    w->ev = NULL;
}

static void add_line(struct world *w, int node, const char *text, size_t len)
{
    struct events *ev = w->ev;
    char *line = ev->line[ev->n++ % KEPT];
    char who[12] = "-";

    if (node >= 0)
        snprintf(who, sizeof(who), "%d", node);
    snprintf(line, LINE, "%12.6f %s %.*s", (double)w->now_ns / 1e9, who, (int)len, text);
    if (w->full) {
        fputs(line, stdout);
        fputc('\n', stdout);
    }
}

void note(struct world *w, int node, const char *fmt, ...)
{
    char text[LINE];
    va_list ap;

    if (w->ev == NULL)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    w->events++;
    add_line(w, node, text, strlen(text));
}

void fault(struct world *w, enum sim_fault f, int node, const char *fmt, ...)
{
    char text[LINE];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    w->faults[f]++;
    note(w, node, "FAULT %s: %s", fault_names[f], text);
}

/* A line of the logger without its time, which is not the simulation's. */
static void add_log(struct world *w, int node, const char *p, size_t len)
{
    const char *space = memchr(p, ' ', len);

    if (space != NULL) {
        len -= (size_t)(space + 1 - p);
        p = space + 1;
    }
    add_line(w, node, p, len);
}

void events_drain(struct world *w, int node)
{
    struct events *ev = w->ev;
    off_t end = lseek(ev->fd, 0, SEEK_CUR);
    char *text, *p;
    ssize_t got;

    if (end <= ev->at)
        return;
    text = malloc((size_t)(end - ev->at) + 1);
    sim_check(w, text != NULL, "out of memory");
    got = pread(ev->fd, text, (size_t)(end - ev->at), ev->at);
    text[got > 0 ? got : 0] = '\0';
    for (p = text; *p != '\0';) {
        size_t len = strcspn(p, "\n");

        add_log(w, node, p, len);
        p += len + (p[len] == '\n');
    }
    free(text);
    ev->at = end;
    if (end > FILE_BYTES_MAX && ftruncate(ev->fd, 0) == 0) {
        (void)lseek(ev->fd, 0, SEEK_SET);
        ev->at = 0;
    }
}

void events_show(struct world *w)
{
    struct events *ev = w->ev;
    uint64_t n = ev != NULL && !w->full ? ev->n : 0, from = n > SHOWN ? n - SHOWN : 0;

    if (n > 0)
        printf("the last %llu of %llu events (all: --events):\n", (unsigned long long)(n - from),
               (unsigned long long)n);
    for (uint64_t i = from; i < n; i++)
        printf("%s\n", ev->line[i % KEPT]);
}
