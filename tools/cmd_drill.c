/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_drill.c - lockstep replication drill: rehearse a promotion on a DR secondary.
 *
 * The DR operation token is -dr-token, or the token in use (VAULT_TOKEN), which keeps it out of the
 * list of processes. It goes to the server as a header.
 */
#include "cli.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define PATH "sys/replication/dr/secondary/drill"

static int parse(const char *usage, const struct flag *flags, size_t n, struct client *c,
                 const char **tokenp, int argc, char **argv, int *rcp)
{
    int i = verb_begin(usage, flags, n, c, argc, argv, 0, 0, rcp);

    if (i >= 0 && *tokenp != NULL)
        c->token = *tokenp;
    return i;
}

static const char *state_of(const struct reply *r)
{
    const char *s = json_string_value(json_object_get(json_object_get(r->json, "data"), "state"));

    return s != NULL ? s : "";
}

/* The state, again and again, until it is not one of those that pass. -1: printed. */
static int await(struct client *c, struct reply *r)
{
    struct err err = {0};
    struct show_progress p;

    show_begin(&p, "");
    for (;;) {
        reply_free(r);
        if (client_call(c, "GET", PATH, NULL, r, &err) != 0 || !reply_ok(r)) {
            reply_fail(c, r, &err, "Error reading the drill");
            return -1;
        }
        if (strcmp(state_of(r), "running") == 0 || strcmp(state_of(r), "none") == 0)
            return 0;
        if (show_due(&p))
            fprintf(stderr, "%s\n", state_of(r));
        poll(NULL, 0, 200); /* the server has no event to give */
    }
}

static int show(const struct client *c, const struct reply *r)
{
    const json_t *data = json_object_get(r->json, "data");
    const char *why = json_string_value(json_object_get(data, "error"));
    int rc = output_data(c, data);

    if (why != NULL)
        fprintf(stderr, "Error: %s\n", why);
    return rc == 0 && why != NULL ? EXIT_REMOTE : rc;
}

static int start(int argc, char **argv)
{
    const char *address = NULL, *dir = NULL, *ttl = NULL, *token = NULL;
    struct flag flags[] = {
        {"listen", FLAG_STR, &address, "HOST:PORT on which the fork is served."},
        {"directory", FLAG_STR, &dir, "Its folder, which must not exist (PATH/drill)."},
        {"ttl", FLAG_STR, &ttl, "Then it ends by itself (1h)."},
        {"dr-token", FLAG_SECRET, &token,
         "DR operation token, or - to be asked for it; else the token in use."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body;
    static const char usage[] = "replication drill start -listen=HOST:PORT [options]";
    int rc, i = parse(usage, flags, 4, &c, &token, argc, argv, &rc);

    if (i < 0)
        return rc;
    if (address == NULL) {
        fprintf(stderr, "Usage: lockstep %s\n", usage);
        client_free(&c);
        return EXIT_LOCAL;
    }
    body = json_pack("{s:s}", "address", address);
    if (dir != NULL)
        json_object_set_new(body, "directory", json_string(dir));
    if (ttl != NULL)
        json_object_set_new(body, "ttl", json_string(ttl));
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", PATH, body, &r, &err) != 0 || !reply_ok(&r))
        reply_fail(&c, &r, &err, "Error starting the drill");
    else if (await(&c, &r) == 0)
        rc = show(&c, &r);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int status(int argc, char **argv)
{
    const char *token = NULL;
    struct flag flags[] = {{"dr-token", FLAG_SECRET, &token,
                            "DR operation token, or - to be asked for it; else the token in use."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = parse("replication drill status [options]", flags, 1, &c, &token, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", PATH, NULL, &r, &err) != 0 || !reply_ok(&r))
        reply_fail(&c, &r, &err, "Error reading the drill");
    else
        rc = show(&c, &r);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int stop(int argc, char **argv)
{
    const char *token = NULL;
    struct flag flags[] = {{"dr-token", FLAG_SECRET, &token,
                            "DR operation token, or - to be asked for it; else the token in use."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = parse("replication drill stop [options]", flags, 1, &c, &token, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", PATH "/stop", NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error ending the drill");
        goto out;
    }
    do {
        if (await(&c, &r) != 0)
            goto out;
        poll(NULL, 0, 50);
    } while (strcmp(state_of(&r), "running") == 0); /* it has not looked yet */
    printf("Success! The drill is over and its data is gone.\n");
    rc = 0;
out:
    reply_free(&r);
    client_free(&c);
    return rc;
}

int replication_drill(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"start", start, "Fork the secondary's state and serve it on an address of its own"},
        {"status", status, "Show what was checked, and how long a promotion would have taken"},
        {"stop", stop, "End the drill and throw its data away"},
    };

    return verb_run("replication drill", verbs, 3, argc, argv);
}
