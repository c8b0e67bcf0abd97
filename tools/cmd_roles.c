/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_roles.c - lockstep replication demote, disable, update-primary and revoke: who is a primary,
 * and who follows whom.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

static int begin(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
                 char **argv, int words_min, int words_max, int *rcp)
{
    int i;

    client_init(c);
    i = flags_parse(usage, flags, n, c, argc, argv);
    *rcp = i == -2 ? 0 : EXIT_LOCAL;
    if (i >= 0 && (argc - i < words_min || argc - i > words_max)) {
        fprintf(stderr, "Usage: lockstep %s\n", usage);
        i = -1;
    }
    if (i < 0)
        client_free(c);
    return i;
}

/* Frees body and c. */
static int put(struct client *c, const char *path, json_t *body, const char *doing,
               const char *done)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (client_call(c, "PUT", path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, doing);
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

int replication_demote(int argc, char **argv)
{
    struct client c;
    int rc;

    if (begin("replication demote [options]", NULL, 0, &c, argc, argv, 0, 0, &rc) < 0)
        return rc;
    return put(&c, "sys/replication/dr/primary/demote", json_object(), "Error demoting",
               "Success! This cluster is a secondary that follows nobody yet.");
}

int replication_disable(int argc, char **argv)
{
    const char *token = NULL;
    struct flag flags[] = {{"dr-token", FLAG_STR, &token, "On a secondary: a DR operation token."}};
    struct client c;
    int rc;

    if (begin("replication disable [options]", flags, 1, &c, argc, argv, 0, 0, &rc) < 0)
        return rc;
    return put(&c,
               token != NULL ? "sys/replication/dr/secondary/disable"
                             : "sys/replication/dr/primary/disable",
               token != NULL ? json_pack("{s:s}", "dr_operation_token", token) : json_object(),
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
        {"dr-token", FLAG_STR, &dr, "A DR operation token."},
        {"token", FLAG_STR, &token, "A secondary token of the new primary, instead of addresses."},
        {"primary-api-addr", FLAG_STR, &api_addr, "With -token: where to unwrap it."},
        {"ca-file", FLAG_STR, &ca_file, "With -token: the CA of that API address."},
        {"force", FLAG_BOOL, &force, "Give up what is here beyond the primary's history."},
        {"forget", FLAG_BOOL, &forget, "Follow nobody."}};
    struct client c;
    json_t *body, *addrs;
    int rc, i = begin(usage, flags, 6, &c, argc, argv, 0, 64, &rc);

    if (i < 0)
        return rc;
    if (dr == NULL || (argc - i > 0) + (token != NULL) + forget != 1) {
        fprintf(stderr, "Usage: lockstep %s\nGive addresses, -token or -forget.\n", usage);
        client_free(&c);
        return EXIT_LOCAL;
    }
    body = json_pack("{s:s, s:b}", "dr_operation_token", dr, "force", (int)force);
    if (token != NULL)
        json_object_set_new(body, "token", json_string(token));
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
    return put(&c, "sys/replication/dr/secondary/update-primary", body,
               "Error updating the primary",
               forget ? "Success! This secondary follows nobody."
                      : "Success! This secondary follows the new primary.");
}

int replication_revoke(int argc, char **argv)
{
    bool force = false;
    struct flag flags[] = {{"force", FLAG_BOOL, &force, "End its mode first, without its word."}};
    struct client c;
    json_t *body;
    int rc, i = begin("replication revoke [options] ID", flags, 1, &c, argc, argv, 1, 1, &rc);

    if (i < 0)
        return rc;
    body = json_pack("{s:s, s:b}", "id", argv[i], "force", (int)force);
    return put(&c, "sys/replication/dr/primary/revoke-secondary", body,
               "Error revoking the secondary", "Success! It is cut off and can't come back.");
}
