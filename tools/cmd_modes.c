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
    int rc, i = verb_begin(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv, 0,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    if (i == argc)
        return verb_call(&c, "GET", "sys/replication/dr/primary/mode", NULL,
                         "Error reading the modes", NULL);
    if (argc - i != 2)
        return too_few(&c, usage);
    body = body_of(argv[i + 1], &l);
    json_object_set_new(body, "id", json_string(argv[i]));
    return verb_call(&c, "PUT", "sys/replication/dr/primary/mode", body, "Error setting the mode",
                     "Success! The mode counts.");
}

int replication_quorum(int argc, char **argv)
{
    static const char usage[] = "replication quorum [options] [off | K flush|apply ID...]";
    struct limits l = {0};
    struct flag flags[] = {LIMIT_FLAGS(l)};
    struct client c;
    json_t *body, *names;
    int rc, i = verb_begin(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv, 0,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    if (i == argc)
        return verb_call(&c, "GET", "sys/replication/dr/primary/quorum", NULL,
                         "Error reading the quorum", NULL);
    if (argc - i == 1 && strcmp(argv[i], "off") == 0) {
        return verb_call(&c, "DELETE",
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
    return verb_call(&c, "PUT", "sys/replication/dr/primary/quorum", body,
                     "Error setting the quorum", "Success! The quorum counts.");
}
