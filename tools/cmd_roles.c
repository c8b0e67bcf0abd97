/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_roles.c - lockstep replication demote, disable, update-primary and revoke: who is a primary,
 * and who follows whom.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* No was said. */
static int left(struct client *c)
{
    client_free(c);
    return EXIT_LOCAL;
}

int replication_demote(int argc, char **argv)
{
    bool yes = false, go;
    struct flag flags[] = {YES_FLAGS(yes)};
    struct replication_said said;
    struct client c;
    int rc;

    if (verb_begin("replication demote [options]", flags, COUNT(flags), &c, argc, argv, 0, 0, &rc) <
        0)
        return rc;
    replication_said(&c, yes, &said);
    go = may_lose(yes, "Demote?",
                  "Cluster %s steps down: no cluster serves clients until one is promoted.%s\n"
                  "What a secondary does not have is lost when that one is promoted. switchover "
                  "hands over without a loss.",
                  c.addr, buf_str(&said.secondaries));
    buf_free(&said.secondaries);
    if (!go)
        return left(&c);
    return verb_call(&c, "PUT", "sys/replication/dr/primary/demote", json_object(),
                     "Error demoting",
                     "Success! This cluster is a secondary that follows nobody yet.");
}

int replication_disable(int argc, char **argv)
{
    const char *token = NULL;
    bool yes = false, go;
    struct flag flags[] = {{"dr-token", FLAG_SECRET, &token,
                            "On a secondary: a DR operation token, or - to be asked for it."},
                           YES_FLAGS(yes)};
    struct replication_said said;
    struct client c;
    int rc;

    if (verb_begin("replication disable [options]", flags, COUNT(flags), &c, argc, argv, 0, 0,
                   &rc) < 0)
        return rc;
    replication_said(&c, yes, &said);
    go = may_lose(
        yes, "Leave replication?", "Cluster %s leaves replication.%s\n%s", c.addr,
        buf_str(&said.secondaries),
        strcmp(said.mode, "bootstrapping") == 0
            ? "Its copy of the primary's data is not whole and is removed: what it held before is "
              "served again."
        : strcmp(said.mode, "secondary") == 0
            ? "It serves the data that it has, and gets nothing of the primary's any more: that "
              "has one secondary less."
            : "It goes on alone, unprotected: no secondary follows it any more. One that is to "
              "come "
              "back\nneeds a new secondary token, after replication is enabled again.");
    buf_free(&said.secondaries);
    if (!go)
        return left(&c);
    return verb_call(&c, "PUT",
                     token != NULL ? "sys/replication/dr/secondary/disable"
                                   : "sys/replication/dr/primary/disable",
                     token != NULL ? json_pack("{s:s}", "dr_operation_token", token)
                                   : json_object(),
                     "Error disabling replication",
                     "Success! This cluster stands alone, with the data that it has.");
}

int replication_update_primary(int argc, char **argv)
{
    static const char usage[] =
        "replication update-primary -dr-token=TOKEN [options] [ADDR... | -forget]";
    const char *dr = NULL, *token = NULL, *api_addr = NULL, *ca_file = NULL;
    bool force = false, forget = false, yes = false;
    struct flag flags[] = {
        {"dr-token", FLAG_SECRET, &dr, "A DR operation token, or - to be asked for it."},
        {"token", FLAG_SECRET, &token,
         "A secondary token of the new primary, or -, instead of addresses."},
        {"primary-api-addr", FLAG_STR, &api_addr, "With -token: where to unwrap it."},
        {"ca-file", FLAG_STR, &ca_file, "With -token: the CA of that API address."},
        {"force", FLAG_BOOL, &force, "Give up what is here beyond the primary's history."},
        {"forget", FLAG_BOOL, &forget, "Follow nobody."},
        YES_FLAGS(yes)};
    struct client c;
    json_t *body, *addrs;
    bool empty;
    int rc, i = verb_begin(usage, flags, COUNT(flags), &c, argc, argv, 0, 64, &rc);

    if (i < 0)
        return rc;
    empty = (dr != NULL && dr[0] == '\0') || (token != NULL && token[0] == '\0');
    for (int k = i; k < argc; k++)
        empty = empty || argv[k][0] == '\0';
    /* An empty variable must not read as "follow nobody". */
    if (dr == NULL || empty || (argc - i > 0) + (token != NULL) + forget != 1) {
        fprintf(stderr,
                "Usage: lockstep %s\nGive addresses, -token or -forget; none of them empty.\n",
                usage);
        client_free(&c);
        return EXIT_LOCAL;
    }
    if (forget && !may_lose(yes, "Forget the primary?",
                            "Cluster %s follows nobody: it gets nothing of its primary's any more, "
                            "until it is given one.",
                            c.addr))
        return left(&c);
    if (force && !forget &&
        !may_lose(yes, "Follow it, and give that up?",
                  "Cluster %s gives up what it has beyond the history of the primary that it is to "
                  "follow.\nThat is saved in its data directory first (lockstep replication lost "
                  "list).",
                  c.addr))
        return left(&c);
    body = json_pack("{s:s, s:b}", "dr_operation_token", dr, "force", (int)force);
    if (token != NULL || forget)
        json_object_set_new(body, "token", json_string(forget ? "" : token));
    if (api_addr != NULL)
        json_object_set_new(body, "primary_api_addr", json_string(api_addr));
    if (ca_file != NULL)
        json_object_set_new(body, "ca_file", json_string(ca_file));
    if (i < argc) {
        addrs = json_array();
        for (; i < argc; i++)
            json_array_append_new(addrs, json_string(argv[i]));
        json_object_set_new(body, "update_primary_addrs", addrs);
    }
    return verb_call(
        &c, "PUT", "sys/replication/dr/secondary/update-primary", body,
        "Error updating the primary",
        forget ? "Success! This secondary follows nobody."
               : "Success! This secondary has its new primary noted: lockstep replication status "
                 "says whether it follows.");
}

int replication_revoke(int argc, char **argv)
{
    bool force = false, yes = false, go;
    struct flag flags[] = {{"force", FLAG_BOOL, &force, "End its mode first, without its word."},
                           YES_FLAGS(yes)};
    struct replication_said said;
    struct client c;
    json_t *body;
    int rc, i = verb_begin("replication revoke [options] ID", flags, COUNT(flags), &c, argc, argv,
                           1, 1, &rc);

    if (i < 0)
        return rc;
    replication_said(&c, yes, &said);
    go = may_lose(
        yes, "Revoke it?",
        "Cluster %s cuts %s off%s.%s\nIt follows again with a new secondary token only, and "
        "protects nothing until then.",
        c.addr, argv[i], force ? ", and ends its mode without its word" : "",
        buf_str(&said.secondaries));
    buf_free(&said.secondaries);
    if (!go)
        return left(&c);
    body = json_pack("{s:s, s:b}", "id", argv[i], "force", (int)force);
    return verb_call(&c, "PUT", "sys/replication/dr/primary/revoke-secondary", body,
                     "Error revoking the secondary",
                     "Success! It is cut off: it comes back with a new secondary token only.");
}
