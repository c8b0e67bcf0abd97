/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_act.c - lockstep replication promote (the expected loss, a question, the promotion) and
 * switchover.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#define PROMOTE "sys/replication/dr/secondary/promote"

/* alone: as data. Else to stderr, so that a script's output is the answer of the promotion. */
static int show_preview(struct client *c, bool alone)
{
    struct reply r = {0};
    struct err err = {0};
    const json_t *d, *reason;
    const char *force;
    size_t i;

    if (client_call(c, "GET", PROMOTE, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        int rc = reply_fail(c, &r, &err, "Error reading what a promotion would lose");
        reply_free(&r);
        return rc;
    }
    d = json_object_get(r.json, "data");
    if (alone) {
        int rc = output_data(c, d);
        reply_free(&r);
        return rc;
    }
    force = json_string_value(json_object_get(d, "needs_force"));
    fprintf(
        stderr,
        "Cluster %s becomes the primary, in epoch %lld.\n"
        "It keeps all up to LSN %lld. The primary was last heard %.1f s ago, at LSN %lld%s.\n%s\n",
        c->addr, (long long)json_integer_value(json_object_get(d, "epoch")),
        (long long)json_integer_value(json_object_get(d, "keeps_lsn")),
        (double)json_integer_value(json_object_get(d, "last_heard_age_ms")) / 1000,
        (long long)json_integer_value(json_object_get(d, "last_heard_lsn")),
        json_is_true(json_object_get(d, "connected")) ? ", and is still connected" : "",
        json_string_value(json_object_get(d, "summary")));
    json_array_foreach(json_object_get(d, "reasons"), i, reason)
    {
        if (strcmp(json_string_value(json_object_get(reason, "severity")), "error") == 0)
            fprintf(stderr, "%s: %s. %s\n", json_string_value(json_object_get(reason, "code")),
                    json_string_value(json_object_get(reason, "what")),
                    json_string_value(json_object_get(reason, "do")));
    }
    if (force != NULL && force[0] != '\0')
        fprintf(stderr, "It needs -force: %s\n", force);
    reply_free(&r);
    return 0;
}

static int promote(struct client *c, const char *token, const char *addr, const char *max_loss,
                   bool force)
{
    json_t *body = json_pack("{s:s, s:b}", "dr_operation_token", token, "force", (int)force);
    struct reply r = {0};
    struct err err = {0};
    int rc = 0;

    if (addr != NULL)
        json_object_set_new(body, "primary_cluster_addr", json_string(addr));
    if (max_loss != NULL)
        json_object_set_new(body, "max_loss", json_string(max_loss));
    if (client_call(c, "PUT", PROMOTE, body, &r, &err) != 0 || !reply_ok(&r)) {
        rc = reply_fail(c, &r, &err, "Error promoting");
    } else {
        output_warnings(r.json);
        printf("Success! This cluster is the primary.\n");
    }
    json_decref(body);
    reply_free(&r);
    return rc;
}

int replication_promote(int argc, char **argv)
{
    static const char usage[] = "replication promote [options]";
    const char *token = NULL, *addr = NULL, *max_loss = NULL;
    bool force = false, yes = false, preview = false;
    struct flag flags[] = {
        {"dr-token", FLAG_SECRET, &token, "DR operation token, or - to be asked for it."},
        {"max-loss", FLAG_STR, &max_loss,
         "Refuse when writes of more than this time (30s) may be lost."},
        {"force", FLAG_BOOL, &force, "Accept any loss."},
        {"primary-cluster-addr", FLAG_STR, &addr, "Where secondaries dial (cluster_addr)."},
        {"preview", FLAG_BOOL, &preview, "Only show what would be lost."},
        YES_FLAGS(yes),
    };
    struct client c;
    int rc, i;

    client_init(&c);
    i = flags_parse(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv);
    rc = i == -2 ? 0 : EXIT_LOCAL;
    if (i < 0)
        goto out;
    if (i != argc || (token == NULL && !preview)) {
        fprintf(stderr, "Usage: lockstep %s -dr-token=TOKEN\n", usage);
        goto out;
    }
    rc = show_preview(&c, preview);
    if (rc != 0 || preview)
        goto out;
    rc = EXIT_LOCAL;
    if (!yes && !confirm("Be sure that the old primary serves nobody. Promote?"))
        goto out;
    c.max_retries = 0; /* a second try would meet the outcome of the first */
    rc = promote(&c, token, addr, max_loss, force);
out:
    client_free(&c);
    return rc;
}

int replication_switchover(int argc, char **argv)
{
    static const char usage[] = "replication switchover [options] ID";
    const char *limit = NULL;
    bool yes = false;
    struct flag flags[] = {
        {"limit", FLAG_STR, &limit, "How long writes may pause before it goes back (10s)."},
        YES_FLAGS(yes),
    };
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int64_t limit_s;
    int rc, i;

    client_init(&c);
    i = flags_parse(usage, flags, sizeof(flags) / sizeof(flags[0]), &c, argc, argv);
    rc = i == -2 ? 0 : EXIT_LOCAL;
    if (i < 0)
        goto out;
    if (argc - i != 1) {
        fprintf(stderr, "Usage: lockstep %s\n", usage);
        goto out;
    }
    fprintf(stderr, "Cluster %s hands over to its secondary %s, and follows it then.\n", c.addr,
            argv[i]);
    if (!yes && !confirm("Writes pause meanwhile. Hand over?"))
        goto out;
    body = json_pack("{s:s}", "id", argv[i]);
    if (limit != NULL)
        json_object_set_new(body, "limit", json_string(limit));
    c.max_retries = 0; /* a second try would meet the outcome of the first */
    if (limit != NULL && duration_parse(limit, &limit_s) == 0 && c.timeout_s < limit_s + 40)
        c.timeout_s = limit_s + 40; /* and the handover itself */
    if (client_call(&c, "PUT", "sys/replication/dr/primary/switchover", body, &r, &err) != 0 ||
        !reply_ok(&r)) {
        rc = reply_fail(&c, &r, &err, "Error handing over");
        goto out;
    }
    output_warnings(r.json);
    rc = output_data(&c, json_object_get(r.json, "data"));
out:
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}
