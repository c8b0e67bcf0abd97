/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_modes.c - lockstep replication mode and quorum: the loss that is accepted, for each secondary
 * and for any k of n.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct limits {
    const char *wait, *on_limit;
    bool force;
};
#define LIMIT_FLAGS(l)                                                                             \
    {"wait-limit", FLAG_STR, &(l).wait, "How long a write waits (10s)."},                          \
        {"on-limit", FLAG_STR, &(l).on_limit, "Then: strict (keep waiting) or fallback."},         \
    {                                                                                              \
        "force", FLAG_BOOL, &(l).force,                                                            \
            "End the mode so far at once, without the secondary's word."                           \
    }

static int parse(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
                 char **argv, int *rcp)
{
    int i;

    client_init(c);
    i = flags_parse(usage, flags, n, c, argc, argv);
    *rcp = i == -2 ? 0 : EXIT_LOCAL;
    if (i < 0)
        client_free(c);
    return i;
}

/* Frees body and c. done NULL: the answer's data is printed. */
static int call(struct client *c, const char *method, const char *path, json_t *body,
                const char *doing, const char *done)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (client_call(c, method, path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, doing);
    } else if (done == NULL) {
        rc = output_data(c, json_object_get(r.json, "data"));
    } else {
        output_warnings(r.json);
        printf("%s\n", done);
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(c);
    return rc;
}

static json_t *body_of(const char *mode, const struct limits *l)
{
    json_t *body = json_pack("{s:s, s:b}", "mode", mode, "force", (int)l->force);

    if (l->wait != NULL)
        json_object_set_new(body, "wait_limit", json_string(l->wait));
    if (l->on_limit != NULL)
        json_object_set_new(body, "on_limit", json_string(l->on_limit));
    return body;
}

static int too_few(struct client *c, const char *usage)
{
    fprintf(stderr, "Usage: lockstep %s\n", usage);
    client_free(c);
    return EXIT_LOCAL;
}

int replication_mode(int argc, char **argv)
{
    static const char usage[] = "replication mode [options] [ID async|flush|apply]";
    struct limits l = {0};
    struct flag flags[] = {LIMIT_FLAGS(l)};
    struct client c;
    json_t *body;
    int rc, i = parse(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv, &rc);

    if (i < 0)
        return rc;
    if (i == argc)
        return call(&c, "GET", "sys/replication/dr/primary/mode", NULL, "Error reading the modes",
                    NULL);
    if (argc - i != 2)
        return too_few(&c, usage);
    body = body_of(argv[i + 1], &l);
    json_object_set_new(body, "id", json_string(argv[i]));
    return call(&c, "PUT", "sys/replication/dr/primary/mode", body, "Error setting the mode",
                "Success! The mode counts.");
}

int replication_quorum(int argc, char **argv)
{
    static const char usage[] = "replication quorum [options] [off | K flush|apply ID...]";
    struct limits l = {0};
    struct flag flags[] = {LIMIT_FLAGS(l)};
    struct client c;
    json_t *body, *names;
    int rc, i = parse(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv, &rc);

    if (i < 0)
        return rc;
    if (i == argc)
        return call(&c, "GET", "sys/replication/dr/primary/quorum", NULL,
                    "Error reading the quorum", NULL);
    if (argc - i == 1 && strcmp(argv[i], "off") == 0) {
        return call(&c, "DELETE",
                    l.force ? "sys/replication/dr/primary/quorum?force=true"
                            : "sys/replication/dr/primary/quorum",
                    NULL, "Error ending the quorum", "Success! There is no quorum any more.");
    }
    if (argc - i < 3)
        return too_few(&c, usage);
    body = body_of(argv[i + 1], &l);
    names = json_array();
    json_object_set_new(body, "quorum", json_string(argv[i]));
    for (int k = i + 2; k < argc; k++)
        json_array_append_new(names, json_string(argv[k]));
    json_object_set_new(body, "members", names);
    return call(&c, "PUT", "sys/replication/dr/primary/quorum", body, "Error setting the quorum",
                "Success! The quorum counts.");
}
