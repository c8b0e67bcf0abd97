/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * show_progress.c - what long verbs show: on stderr, after two seconds and then twice a second.
 */
#include "cli.h"

#include <stdio.h>

void show_begin(struct show_progress *p, const char *doing)
{
    p->doing = doing;
    p->shown_s = 1.5;
    clock_gettime(CLOCK_MONOTONIC, &p->start);
}

bool show_due(struct show_progress *p)
{
    struct timespec now;
    double s;

    clock_gettime(CLOCK_MONOTONIC, &now);
    s = (double)(now.tv_sec - p->start.tv_sec) + (double)(now.tv_nsec - p->start.tv_nsec) / 1e9;
    if (s < p->shown_s + 0.5)
        return false;
    p->shown_s = s;
    return true;
}

void show_bytes(void *arg, uint64_t bytes)
{
    struct show_progress *p = arg;

    if (show_due(p))
        fprintf(stderr, "%s: %.1f MiB, %.1f MiB/s\n", p->doing, (double)bytes / 1048576.0,
                (double)bytes / 1048576.0 / p->shown_s);
}

void show_part(void *arg, uint64_t done, uint64_t all)
{
    struct show_progress *p = arg;

    if (all > 0 && done > 0 && show_due(p))
        fprintf(stderr, "%s: %.1f of %.1f MiB, about %.0f s left\n", p->doing,
                (double)done / 1048576.0, (double)all / 1048576.0,
                p->shown_s * (double)(all - done) / (double)done);
}

/* ---- values ---- */
void json_add_hex(json_t *o, const char *name, const uint8_t *data, size_t len)
{
    char text[65];

    for (size_t i = 0; i < len && i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", data[i]);
    json_object_set_new(o, name, json_string(text));
}

void json_add_time(json_t *o, const char *name, int64_t ms)
{
    time_t at = (time_t)(ms / 1000);
    char text[64], whole[80];
    struct tm tm;

    gmtime_r(&at, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(whole, sizeof(whole), "%s.%03dZ", text, (int)(ms % 1000));
    json_object_set_new(o, name, json_string(whole));
}
