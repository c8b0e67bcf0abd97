/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_doctor.c - lockstep replication doctor: would this cluster become a secondary? A line for
 * each check, made by the server itself; nothing is changed.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DOCTOR_FAILED 3

static void print_checks(const json_t *data)
{
    json_t *c;
    size_t i;

    json_array_foreach(json_object_get(data, "checks"), i, c)
    {
        const char *todo = json_string_value(json_object_get(c, "do"));

        printf("%-5s %-13s %s\n", json_string_value(json_object_get(c, "result")),
               json_string_value(json_object_get(c, "name")),
               json_string_value(json_object_get(c, "what")));
        if (todo != NULL && *todo != '\0')
            printf("%-5s %-13s -> %s\n", "", "", todo);
    }
    printf("%lld failed, %lld warned\n",
           (long long)json_integer_value(json_object_get(data, "failed")),
           (long long)json_integer_value(json_object_get(data, "warned")));
}

int replication_doctor(int argc, char **argv)
{
    bool strict = false;
    struct flag flags[] = {{"strict", FLAG_BOOL, &strict, "Exit with 3 on a warning, too."}};
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;
    json_t *body = NULL;
    struct client c;
    int rc, i;

    client_init(&c);
    i = flags_parse("replication doctor [options] token=... [primary_api_addr=...] [ca_file=...] "
                    "[ca_path=...] [primary_cluster_addr=...]",
                    flags, 1, &c, argc, argv);
    if (i < 0 || kv_args(argc - i, argv + i, &body) != 0) {
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    if (client_call(&c, "PUT", "sys/replication/dr/secondary/doctor", body, &r, &err) != 0 ||
        !reply_ok(&r)) {
        rc = reply_fail(&c, &r, &err, "Error examining the way to the primary");
    } else {
        data = json_object_get(r.json, "data");
        if (c.format != OUT_TABLE || c.field != NULL)
            (void)output_data(&c, data);
        else
            print_checks(data);
        rc = !json_is_true(json_object_get(data, "ok")) ||
                     (strict && json_integer_value(json_object_get(data, "warned")) > 0)
                 ? DOCTOR_FAILED
                 : 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}
