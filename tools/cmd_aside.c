/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_aside.c - lockstep replication aside: what a cluster held before it became a secondary.
 *
 * list and delete ask the server; restore works on the data directory, while a server runs or not.
 */
#include "cli.h"
#include "disk.h"
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int list(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct table t = {.cols = 5};
    const json_t *data, *all, *a;
    size_t n;
    int rc = EXIT_LOCAL, i;

    client_init(&c);
    i = flags_parse("replication aside list", NULL, 0, &c, argc, argv);
    if (i < 0) {
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    if (replication_fetch(&c, &r, &data, &err) != 0) {
        rc = reply_fail(&c, &r, &err, "Error reading what is set aside");
        goto out;
    }
    all = json_object_get(data, "set_aside");
    rc = 0;
    if (c.format != OUT_TABLE) {
        rc = output_data(&c, all);
        goto out;
    }
    if (json_array_size(all) == 0) {
        printf("Nothing is set aside.\n");
        goto out;
    }
    table_add(&t, "Generation");
    table_add(&t, "Cluster");
    table_add(&t, "End LSN");
    table_add(&t, "Since");
    table_add(&t, "Until");
    json_array_foreach((json_t *)all, n, a)
    {
        table_addf(&t, "%lld", (long long)json_integer_value(json_object_get(a, "generation")));
        table_add(&t, json_string_value(json_object_get(a, "cluster_name")));
        table_addf(&t, "%lld", (long long)json_integer_value(json_object_get(a, "end_lsn")));
        table_add(&t, json_string_value(json_object_get(a, "since")));
        table_add(&t, json_string_value(json_object_get(a, "until")));
    }
    table_print(&t, true);
out:
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int usage_error(const char *usage)
{
    fprintf(stderr, "Usage: lockstep %s\n", usage);
    return EXIT_LOCAL;
}

static int delete (int argc, char **argv)
{
    static const char usage[] = "replication aside delete [-dr-token=TOKEN] GENERATION";
    const char *token = NULL;
    bool yes = false;
    struct flag flags[] = {{"dr-token", FLAG_SECRET, &token,
                            "On a secondary: DR operation token, or - to be asked for it."},
                           YES_FLAGS(yes)};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body;
    int rc = 0, i;

    client_init(&c);
    i = flags_parse(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv);
    if (i < 0 || argc - i != 1) {
        client_free(&c);
        return i == -2 ? 0 : i == -1 ? EXIT_LOCAL : usage_error(usage);
    }
    if (!may_lose(
            yes, "Remove it?",
            "What cluster %s held before it became a secondary (generation %s) is removed for "
            "good.",
            c.addr, argv[i])) {
        client_free(&c);
        return EXIT_LOCAL;
    }
    body = json_pack("{s:s, s:s*}", "generation", argv[i], "dr_operation_token", token);
    if (client_call(&c, "PUT", "sys/replication/dr/secondary/aside/delete", body, &r, &err) != 0 ||
        !reply_ok(&r))
        rc = reply_fail(&c, &r, &err, "Error removing what is set aside");
    else
        printf("Success! Removed what was set aside.\n");
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int restore(int argc, char **argv)
{
    static const char usage[] = "replication aside restore DATA_DIRECTORY GENERATION NEW_DIRECTORY";
    struct disk *disk = NULL;
    struct err err = {0};
    unsigned long generation;
    char *end;
    int rc, i = flags_parse(usage, NULL, 0, NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (argc - i != 3)
        return usage_error(usage);
    generation = strtoul(argv[i + 1], &end, 10);
    if (*end != '\0' || generation == 0 || generation > UINT32_MAX)
        return usage_error(usage);
    if (disk_uring_open(8, &disk, &err) != 0) {
        fprintf(stderr, "Error: %s\n", err.msg);
        return EXIT_LOCAL;
    }
    rc = engine_aside_restore(disk, argv[i], (uint32_t)generation, argv[i + 2], &err);
    disk_free(disk);
    if (rc != 0) {
        fprintf(stderr, "Error restoring: %s\n", err.msg);
        return EXIT_REMOTE;
    }
    printf("Success! Start a server with storage \"wiredtiger\" { path = \"%s\" }, and unseal it "
           "with the keys that the cluster had then.\n",
           argv[i + 2]);
    return 0;
}

int replication_aside(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", list, "What is set aside, and until when"},
        {"delete", delete, "Remove it before its time"},
        {"restore", restore, "Make a data directory of it"},
    };

    return verb_run("replication aside", verbs, 3, argc, argv);
}
