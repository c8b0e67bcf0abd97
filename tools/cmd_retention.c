/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_retention.c - lockstep replication retention: how much of the log is kept for each secondary.
 */
#include "cli.h"

#include <math.h>
#include <stdio.h>

static void print_all(const struct client *c, const json_t *data)
{
    struct table t = {.cols = 6};
    static const char *const head[] = {"Secondary", "Used %", "Bytes", "Limit", "Age s", "Limit s"};
    const char *id;
    json_t *o;

    if (c->format != OUT_TABLE || c->field != NULL) {
        (void)output_data(c, data);
        return;
    }
    for (size_t i = 0; i < t.cols; i++)
        table_add(&t, head[i]);
    json_object_foreach(json_object_get(data, "secondaries"), id, o)
    {
        table_add(&t, id);
        if (json_is_true(json_object_get(o, "let_go")))
            table_add(&t, "let go");
        else
            table_addf(&t, "%.0f", json_number_value(json_object_get(o, "used_percent")));
        table_addf(&t, "%.0f", json_number_value(json_object_get(o, "bytes")));
        table_addf(&t, "%.0f", json_number_value(json_object_get(o, "max_bytes")));
        table_addf(&t, "%.0f", json_number_value(json_object_get(o, "age_ms")) / 1000);
        table_addf(&t, "%.0f", json_number_value(json_object_get(o, "max_age_ms")) / 1000);
    }
    table_print(&t, true);
}

/* flag: NULL: the words are wrong. */
static int wrong(const char *flag, const char *value, const char *right)
{
    if (flag != NULL)
        fprintf(stderr, "invalid value for flag -%s: \"%s\": give %s; 0: as configured\n", flag,
                value, right);
    else
        fprintf(stderr, "Usage: lockstep replication retention [-max-bytes=512MiB] [-max-age=24h] "
                        "[ID]\n");
    return EXIT_LOCAL;
}

int replication_retention(int argc, char **argv)
{
    const char *bytes = NULL, *age = NULL;
    struct flag flags[] = {
        {"max-bytes", FLAG_STR, &bytes, "Bytes of log kept for it (512MiB); 0: as configured."},
        {"max-age", FLAG_STR, &age, "Age of the log kept for it (24h); 0: as configured."}};
    const char *path = "sys/replication/dr/primary/retention";
    double n_bytes = 0, ms = 0;
    struct reply r = {0};
    struct err err = {0};
    struct client c;
    json_t *body = NULL;
    int rc = 0, i;

    client_init(&c);
    i = flags_parse("replication retention [options] [ID]", flags, 2, &c, argc, argv);
    if (i < 0) {
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    if (bytes != NULL && (replication_bytes(bytes, &n_bytes) != 0 || fmod(n_bytes, 1) != 0))
        rc = wrong("max-bytes", bytes, "bytes, or KiB, MiB or GiB");
    else if (age != NULL && (replication_duration(age, &ms) != 0 || fmod(ms, 1000) != 0))
        rc = wrong("max-age", age, "whole seconds (s, m, h)");
    else if (argc - i > 1 || (argc > i) != (bytes != NULL || age != NULL))
        rc = wrong(NULL, NULL, NULL);
    if (rc != 0) {
        client_free(&c);
        return rc;
    }
    if (argc > i) {
        body = json_pack("{s:s}", "id", argv[i]);
        if (bytes != NULL)
            json_object_set_new(body, "max_bytes", json_integer((json_int_t)n_bytes));
        if (age != NULL)
            json_object_set_new(body, "max_age", json_integer((json_int_t)(ms / 1000)));
    }
    if (client_call(&c, body != NULL ? "PUT" : "GET", path, body, &r, &err) != 0 || !reply_ok(&r))
        rc = reply_fail(&c, &r, &err, "Error with the retention of the log");
    else if (body != NULL)
        printf("Success! The limits count.\n");
    else
        print_all(&c, json_object_get(r.json, "data"));
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}
