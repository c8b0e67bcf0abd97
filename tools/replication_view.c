/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_view.c - the answer of sys/replication/dr/status for people and for scripts: tables,
 * one line, and checks.
 */
#include "cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const stages[] = {"sent", "received", "flushed", "applied"};
#define STAGES (sizeof(stages) / sizeof(stages[0]))

int replication_fetch(struct client *c, struct reply *r, const json_t **datap, struct err *err)
{
    const json_t *data;

    *datap = NULL;
    if (client_call(c, "GET", "sys/replication/dr/status", NULL, r, err) != 0)
        return -1;
    if (!reply_ok(r))
        return -1; /* err is untouched: reply_fail prints the answer */
    data = json_object_get(r->json, "data");
    if (json_is_object(json_object_get(data, "dr")))
        data = json_object_get(data, "dr");
    if (!json_is_object(data))
        return err_set(err, ERR_PROTO, 0, "%s did not answer with a status", r->url);
    *datap = data;
    return 0;
}

static const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s != NULL ? s : "";
}

static double number_of(const json_t *o, const char *name)
{
    return json_number_value(json_object_get(o, name));
}

/* The other side's entries. */
static const json_t *peers_of(const json_t *data)
{
    const json_t *list = json_object_get(data, "primaries"); /* a secondary may feed others, too */

    return list != NULL ? list : json_object_get(data, "secondaries");
}

static const char *name_of(const json_t *peer)
{
    const char *id = text_of(peer, "node_id");

    return *id != '\0' ? id : "primary";
}

/* ---- for people ---- */
static void print_lag(const json_t *peer)
{
    struct table t = {.cols = 9};
    static const char *const head[] = {"Lag",    "LSNs",   "Bytes",   "Now ms", "p50 1m",
                                       "p99 1m", "max 1m", "p99 60m", "max 60m"};
    const json_t *lag = json_object_get(peer, "lag");

    for (size_t i = 0; i < t.cols; i++)
        table_add(&t, head[i]);
    for (size_t i = 0; i < STAGES; i++) {
        const json_t *s = json_object_get(lag, stages[i]), *m = json_object_get(s, "1m"),
                     *h = json_object_get(s, "60m");

        table_add(&t, stages[i]);
        table_addf(&t, "%.0f", number_of(s, "lsns"));
        table_addf(&t, "%.0f", number_of(s, "bytes"));
        table_addf(&t, "%.3f", number_of(s, "ms"));
        table_addf(&t, "%.3f", number_of(m, "p50_ms"));
        table_addf(&t, "%.3f", number_of(m, "p99_ms"));
        table_addf(&t, "%.3f", number_of(m, "max_ms"));
        table_addf(&t, "%.3f", number_of(h, "p99_ms"));
        table_addf(&t, "%.3f", number_of(h, "max_ms"));
    }
    table_print(&t, true);
}

/* "ranges: 1200 of 5000 (24 %), 12 s left" of what is caught up; nothing when nothing is. */
static void progress_words(struct buf *out, const json_t *progress)
{
    double done = number_of(progress, "sync_progress");
    double total = number_of(progress, "sync_total_keys");
    double left_ms = number_of(progress, "time_left_ms");

    buf_printf(out, "%s: %.0f of ", text_of(progress, "phase"), done);
    if (total > 0)
        buf_printf(out, "%.0f (%.0f %%)", total, 100 * done / total);
    else
        buf_adds(out, "an unknown number");
    if (left_ms >= 0)
        buf_printf(out, ", %.0f s left", left_ms / 1000);
}

static void print_progress(const json_t *data)
{
    const json_t *progress = json_object_get(data, "progress");
    struct buf words = {0};

    if (progress == NULL)
        return;
    progress_words(&words, progress);
    printf("\nCatching up: %s; %.0f keys taken, %.0f deleted, %.0f bytes moved\n", buf_str(&words),
           number_of(progress, "keys_taken"), number_of(progress, "keys_deleted"),
           number_of(progress, "bytes_moved"));
    buf_free(&words);
}

static void print_reasons(const json_t *data)
{
    json_t *r;
    size_t i;

    if (json_array_size(json_object_get(data, "reasons")) == 0)
        return;
    printf("\nReasons:\n");
    json_array_foreach(json_object_get(data, "reasons"), i, r)
        printf("* %s %s: %s\n    %s\n", text_of(r, "severity"), text_of(r, "code"),
               text_of(r, "what"), text_of(r, "do"));
}

int replication_print(const struct client *c, const json_t *data)
{
    json_t *peer, *flat;
    const char *key;
    json_t *v;
    size_t i;
    int rc;

    if (c->format != OUT_TABLE || c->field != NULL)
        return output_data(c, data);
    flat = json_object();
    json_object_foreach((json_t *)data, key, v)
    {
        if (json_is_object(v) || (json_is_array(v) && json_is_object(json_array_get(v, 0))) ||
            strcmp(key, "reasons") == 0 || json_object_set(flat, key, v) != 0)
            continue;
    }
    rc = output_data(c, flat);
    json_decref(flat);
    print_progress(data);
    json_array_foreach(peers_of(data), i, peer)
    {
        printf("\n%s: %s, %s", name_of(peer), text_of(peer, "connection_status"),
               text_of(peer, "cluster_address"));
        if (text_of(peer, "fed_by")[0] != '\0')
            printf(", follows %s", text_of(peer, "fed_by"));
        if (json_object_get(peer, "mode") != NULL)
            printf(", mode %s", text_of(peer, "mode"));
        if (number_of(peer, "verified_equal_lsn") > 0)
            printf(", verified equal at LSN %.0f, %.0f s ago",
                   number_of(peer, "verified_equal_lsn"),
                   number_of(peer, "verified_equal_age_ms") / 1000);
        if (strcmp(text_of(peer, "verified"), "different") == 0 ||
            strcmp(text_of(peer, "verified"), "damaged") == 0)
            printf(", %s", text_of(peer, "verified"));
        printf("\n");
        print_lag(peer);
    }
    print_reasons(data);
    return rc;
}

void replication_line(struct buf *out, const json_t *data)
{
    json_t *peer, *r;
    size_t i, k;

    buf_printf(out, "%s %s", text_of(data, "mode"), text_of(data, "state"));
    if (strcmp(text_of(data, "mode"), "disabled") == 0)
        return;
    buf_printf(out, " committed=%.0f applied=%.0f", number_of(data, "committed_lsn"),
               number_of(data, "applied_lsn"));
    if (json_object_get(data, "progress") != NULL) {
        buf_adds(out, " catching-up=\"");
        progress_words(out, json_object_get(data, "progress"));
        buf_addc(out, '"');
    }
    json_array_foreach(peers_of(data), i, peer)
    {
        const json_t *lag = json_object_get(peer, "lag");

        buf_printf(out, " %s=%s", name_of(peer), text_of(peer, "connection_status"));
        for (k = 0; k < STAGES; k++) {
            const json_t *s = json_object_get(lag, stages[k]);

            buf_printf(out, " %s=%.0f/%.3fms", stages[k], number_of(s, "lsns"), number_of(s, "ms"));
        }
        buf_printf(out, " p99=%.3fms",
                   number_of(json_object_get(json_object_get(lag, "flushed"), "1m"), "p99_ms"));
    }
    buf_printf(out, " healthy=%s", json_is_true(json_object_get(data, "healthy")) ? "yes" : "no");
    json_array_foreach(json_object_get(data, "reasons"), i, r)
        buf_printf(out, "%s%s", i == 0 ? " reasons=" : ",", text_of(r, "code"));
}

/* ---- for scripts ---- */
struct check {
    double max_ms, max_bytes, max_lsns; /* -1: not asked */
    bool healthy;
};

/* A number with one of the units (name, factor; the first for none). */
static int quantity(const char *text, const char *const *units, const double *factors, double *out)
{
    char *end;

    errno = 0;
    *out = strtod(text, &end);
    if (end == text || errno != 0 || !(*out >= 0) || *out > 1e18)
        return -1;
    for (size_t i = 0; units[i] != NULL; i++)
        if (strcmp(end, units[i]) == 0) {
            *out *= factors[i];
            return 0;
        }
    return -1;
}

int replication_duration(const char *text, double *msp)
{
    static const char *const units[] = {"s", "", "ms", "us", "m", "h", NULL};
    static const double ms[] = {1000, 1000, 1, 0.001, 60000, 3600000};

    return quantity(text, units, ms, msp);
}

int replication_bytes(const char *text, double *bytesp)
{
    static const char *const units[] = {"", "B", "KiB", "MiB", "GiB", NULL};
    static const double bytes[] = {1, 1, 1024, 1048576, 1073741824};

    return quantity(text, units, bytes, bytesp);
}

static int parse_check(const char *text, struct check *k)
{
    static const char *const counts[] = {"", NULL};
    static const double one[] = {1};

    if (strcmp(text, "healthy") == 0) {
        k->healthy = true;
        return 0;
    }
    if (strncmp(text, "max-lag=", 8) == 0)
        return replication_duration(text + 8, &k->max_ms);
    if (strncmp(text, "max-lag-bytes=", 14) == 0)
        return replication_bytes(text + 14, &k->max_bytes);
    if (strncmp(text, "max-lag-lsns=", 13) == 0)
        return quantity(text + 13, counts, one, &k->max_lsns);
    return -1;
}

static int over(const char *peer, const char *what, double got, double max, const char *unit)
{
    if (max < 0 || got <= max)
        return 0;
    printf("lag: %s: %s is %.10g%s, more than %.10g%s\n", peer, what, got, unit, max, unit);
    return CHECK_LAG;
}

static int check_peer(const json_t *peer, const struct check *k)
{
    const json_t *s = json_object_get(json_object_get(peer, "lag"), "flushed");
    const char *name = name_of(peer);
    int rc = 0;

    if (strcmp(text_of(peer, "connection_status"), "connected") != 0 &&
        text_of(peer, "fed_by")[0] == '\0') {
        printf("lag: %s: not connected, %.3f ms behind or more\n", name, number_of(s, "ms"));
        return CHECK_LAG;
    }
    if (json_object_get(s, "ms") == NULL) {
        printf("lag: %s: the server does not tell it\n", name);
        return CHECK_LAG;
    }
    rc |= over(name, "the oldest transaction that is not durable there", number_of(s, "ms"),
               k->max_ms, " ms");
    rc |= over(name, "what is not durable there", number_of(s, "bytes"), k->max_bytes, " bytes");
    rc |=
        over(name, "what is not durable there", number_of(s, "lsns"), k->max_lsns, " transactions");
    return rc;
}

int replication_check(const json_t *data, const struct flag_list *list)
{
    struct check k = {.max_ms = -1, .max_bytes = -1, .max_lsns = -1};
    const json_t *peers = peers_of(data), *r;
    const char *mode = text_of(data, "mode");
    int rc = 0;
    size_t i;

    for (i = 0; i < list->n; i++)
        if (parse_check(list->values[i], &k) != 0) {
            fprintf(stderr,
                    "invalid check \"%s\": use healthy, max-lag=2s, max-lag-bytes=16MiB or "
                    "max-lag-lsns=1000\n",
                    list->values[i]);
            return EXIT_LOCAL;
        }
    if (data == NULL)
        return 0;
    if (strcmp(mode, "disabled") == 0) {
        printf("replication: disabled\n");
        return CHECK_DISABLED;
    }
    if (k.max_ms >= 0 || k.max_bytes >= 0 || k.max_lsns >= 0) {
        if (json_array_size(peers) == 0) {
            printf("lag: there is no secondary\n");
            rc = CHECK_LAG;
        }
        json_array_foreach((json_t *)peers, i, r) if (check_peer(r, &k) != 0) rc = CHECK_LAG;
    }
    if (k.healthy && !json_is_true(json_object_get(data, "healthy"))) {
        json_array_foreach(json_object_get(data, "reasons"), i, r)
            printf("%s: %s: %s\n", text_of(r, "severity"), text_of(r, "code"), text_of(r, "what"));
        rc = rc == 0 ? CHECK_UNHEALTHY : rc;
    }
    if (rc == 0) {
        struct buf line = {0};

        replication_line(&line, data);
        printf("ok: %s\n", buf_str(&line));
        buf_free(&line);
    }
    return rc;
}
