/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_roles.c - lockstep replication demote, disable, update-primary and revoke: who is a primary,
 * and who follows whom.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

int replication_demote(int argc, char **argv)
{
    struct client c;
    int rc;

    if (verb_begin("replication demote [options]", NULL, 0, &c, argc, argv, 0, 0, &rc) < 0)
        return rc;
    return verb_call(&c, "PUT", "sys/replication/dr/primary/demote", json_object(),
                     "Error demoting",
                     "Success! This cluster is a secondary that follows nobody yet.");
}

int replication_disable(int argc, char **argv)
{
    const char *token = NULL;
    struct flag flags[] = {{"dr-token", FLAG_SECRET, &token,
                            "On a secondary: a DR operation token, or - to be asked for it."}};
    struct client c;
    int rc;

    if (verb_begin("replication disable [options]", flags, 1, &c, argc, argv, 0, 0, &rc) < 0)
        return rc;
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
    bool force = false, forget = false;
    struct flag flags[] = {
        {"dr-token", FLAG_SECRET, &dr, "A DR operation token, or - to be asked for it."},
        {"token", FLAG_SECRET, &token,
         "A secondary token of the new primary, or -, instead of addresses."},
        {"primary-api-addr", FLAG_STR, &api_addr, "With -token: where to unwrap it."},
        {"ca-file", FLAG_STR, &ca_file, "With -token: the CA of that API address."},
        {"force", FLAG_BOOL, &force, "Give up what is here beyond the primary's history."},
        {"forget", FLAG_BOOL, &forget, "Follow nobody."}};
    struct client c;
    json_t *body, *addrs;
    bool empty;
    int rc, i = verb_begin(usage, flags, 6, &c, argc, argv, 0, 64, &rc);

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
               : "Success! This secondary dials the new primary now: lockstep replication status "
                 "says when it follows.");
}

int replication_revoke(int argc, char **argv)
{
    bool force = false;
    struct flag flags[] = {{"force", FLAG_BOOL, &force, "End its mode first, without its word."}};
    struct client c;
    json_t *body;
    int rc, i = verb_begin("replication revoke [options] ID", flags, 1, &c, argc, argv, 1, 1, &rc);

    if (i < 0)
        return rc;
    body = json_pack("{s:s, s:b}", "id", argv[i], "force", (int)force);
    return verb_call(&c, "PUT", "sys/replication/dr/primary/revoke-secondary", body,
                     "Error revoking the secondary", "Success! It is cut off and can't come back.");
}
