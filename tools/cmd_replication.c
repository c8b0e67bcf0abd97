/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_replication.c - lockstep replication status: both sides' view in one table, with exit codes
 * for scripts.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static int status(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;
    int rc, i;

    client_init(&c);
    i = flags_parse("replication status [options]", NULL, 0, &c, argc, argv);
    if (i < 0) {
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", "sys/replication/dr/status", NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error reading replication status");
    } else {
        data = json_object_get(r.json, "data");
        if (json_is_object(json_object_get(data, "dr")))
            data = json_object_get(data, "dr");
        rc = output_data(&c, data);
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_replication(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"status", status, "Show mode, state, LSNs, lag and the other side"},
        {"mode", replication_mode, "Show or set where a write must be before it counts"},
        {"quorum", replication_quorum, "The same for any k of n secondaries"},
    };

    return verb_run("replication", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
