/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_replication.c - lockstep replication: the group, and status with its checks.
 */
#include "cli.h"

static int status(int argc, char **argv)
{
    struct flag_list checks = {0};
    struct flag flags[] = {{"check", FLAG_LIST, &checks,
                            "healthy, max-lag=2s, max-lag-bytes=16MiB or max-lag-lsns=1000; may be "
                            "repeated. Exit code 3: lag, 4: not healthy, 5: disabled."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;
    int rc;

    if (verb_begin("replication status [options]", flags, 1, &c, argc, argv, 0, 0, &rc) < 0)
        return rc;
    if (replication_check(NULL, &checks) != 0) {
        client_free(&c);
        return EXIT_LOCAL;
    }
    if (replication_fetch(&c, &r, &data, &err) != 0)
        rc = reply_fail(&c, &r, &err, "Error reading replication status");
    else if (checks.n > 0)
        rc = replication_check(data, &checks);
    else
        rc = replication_print(&c, data);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_replication(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"status", status, "Show mode, state, LSNs, lag and the other side"},
        {"watch", replication_watch, "Show it again and again, in place or in lines"},
        {"doctor", replication_doctor, "Would this cluster become a secondary? Changes nothing"},
        {"retention", replication_retention, "Show or set how much log is kept for a secondary"},
        {"promote", replication_promote,
         "Make this secondary the primary; shows first what is lost"},
        {"switchover", replication_switchover, "Hand over to a secondary, and follow it"},
        {"lost", replication_lost, "Writes that only an old primary has: show them, take them in"},
        {"aside", replication_aside, "What this cluster held before it became a secondary"},
        {"drill", replication_drill, "Rehearse a promotion on a fork of the secondary's state"},
        {"mode", replication_mode, "Show or set where a write must be before it counts"},
        {"quorum", replication_quorum, "The same for any k of n secondaries"},
        {"demote", replication_demote, "Step down: a secondary that follows nobody yet"},
        {"update-primary", replication_update_primary,
         "Follow another primary, with the same data"},
        {"revoke", replication_revoke, "Cut a secondary off for good"},
        {"disable", replication_disable, "Leave: a cluster of its own, with its data"},
    };

    return verb_run("replication", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
