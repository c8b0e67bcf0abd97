/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_lost.c - lockstep replication lost: writes that only an old primary has, shown where they are
 * saved and taken in by the primary.
 *
 * With -dr-token the cluster asked is a secondary, else the primary. apply reads from one (-from)
 * and writes to the other; what goes between is ciphertext.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

struct source {
    const char *token, *from, *id;
    bool overwrite, dry_run, yes;
};
#define TOKEN_FLAG(s)                                                                              \
    {                                                                                              \
        "dr-token", FLAG_SECRET, &(s).token,                                                       \
            "DR operation token (- to be asked for it): they are saved on a secondary."            \
    }

static int list(int argc, char **argv)
{
    static const char *const heads[] = {"ID", "Epoch", "LSNs", "Transactions", "Whole", "Saved"};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct table t = {.cols = sizeof(heads) / sizeof(heads[0])};
    const json_t *data, *all, *a;
    json_int_t more;
    size_t n;
    int rc = 0, i;

    client_init(&c);
    i = flags_parse("replication lost list", NULL, 0, &c, argc, argv);
    if (i < 0) {
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    if (replication_fetch(&c, &r, &data, &err) != 0) {
        rc = reply_fail(&c, &r, &err, "Error reading what is saved");
        goto out;
    }
    all = json_object_get(data, "lost_writes");
    more = json_integer_value(json_object_get(data, "lost_writes_unshown"));
    if (c.format != OUT_TABLE) {
        rc = output_data(&c, all);
        goto out;
    }
    if (json_array_size(all) == 0) {
        printf("No lost writes are saved here.\n");
        goto out;
    }
    for (n = 0; n < t.cols; n++)
        table_add(&t, heads[n]);
    json_array_foreach((json_t *)all, n, a)
    {
        table_add(&t, json_string_value(json_object_get(a, "id")));
        table_addf(&t, "%lld", (long long)json_integer_value(json_object_get(a, "epoch")));
        table_addf(&t, "%lld-%lld", (long long)json_integer_value(json_object_get(a, "first_lsn")),
                   (long long)json_integer_value(json_object_get(a, "last_lsn")));
        table_addf(&t, "%lld", (long long)json_integer_value(json_object_get(a, "transactions")));
        table_add(&t, json_is_true(json_object_get(a, "whole")) ? "true" : "false");
        table_add(&t, json_string_value(json_object_get(a, "saved")));
    }
    table_print(&t, true);
    if (more > 0)
        printf("%lld more, older ones, are saved: they are shown as these are removed.\n",
               (long long)more);
out:
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int call(struct client *c, const struct source *s, const char *verb, int64_t from,
                bool values, struct reply *r, struct err *err)
{
    json_t *body =
        json_pack("{s:s, s:I, s:b}", "id", s->id, "from", (json_int_t)from, "values", (int)values);
    char path[128];
    int rc;

    snprintf(path, sizeof(path), "sys/replication/dr/%s/lost/%s",
             s->token != NULL ? "secondary" : "primary", verb);
    if (s->token != NULL)
        json_object_set_new(body, "dr_operation_token", json_string(s->token));
    rc = client_call(c, "PUT", path, body, r, err);
    json_decref(body);
    return rc;
}

static void print_groups(const json_t *groups, const json_t *words)
{
    struct table t = {.cols = words != NULL ? 4u : 3u};
    const json_t *g, *e;
    size_t i, k;

    if (words != NULL)
        table_add(&t, "Outcome");
    table_add(&t, "LSN");
    table_add(&t, "Op");
    table_add(&t, "Entry");
    json_array_foreach((json_t *)groups, i, g)
    {
        json_array_foreach((json_t *)g, k, e)
        {
            if (words != NULL)
                table_add(&t, k > 0 ? " " : json_string_value(json_array_get(words, i)));
            table_addf(&t, "%lld", (long long)json_integer_value(json_object_get(e, "lsn")));
            table_add(&t, json_string_value(json_object_get(e, "op")));
            table_add(&t, json_string_value(json_object_get(e, "path")));
            if (json_object_get(e, "error") != NULL)
                fprintf(stderr, "%s cannot be opened, and is not taken in: %s\n",
                        json_string_value(json_object_get(e, "path")),
                        json_string_value(json_object_get(e, "error")));
        }
    }
    table_print(&t, true);
}

/* One page after the other; to: the primary that takes them in, or NULL. */
static int pages(struct client *c, const struct source *s, struct client *to)
{
    int64_t from = 0;
    int rc = 0, conflicts = 0;

    while (from >= 0 && rc == 0) {
        struct reply r = {0}, done = {0};
        struct err err = {0};
        const json_t *d, *words = NULL;
        json_t *body;

        if (call(c, s, "show", from, to != NULL, &r, &err) != 0 || !reply_ok(&r)) {
            rc = reply_fail(c, &r, &err, "Error reading lost writes");
            reply_free(&r);
            break;
        }
        d = json_object_get(r.json, "data");
        if (to != NULL) {
            body = json_pack("{s:O, s:O, s:b, s:b}", "fork_lsn", json_object_get(d, "fork_lsn"),
                             "groups", json_object_get(d, "groups"), "overwrite", (int)s->overwrite,
                             "dry_run", (int)s->dry_run);
            if (client_call(to, "PUT", "sys/replication/dr/primary/lost/apply", body, &done,
                            &err) != 0 ||
                !reply_ok(&done))
                rc = reply_fail(to, &done, &err, "Error taking lost writes in");
            json_decref(body);
            words = json_object_get(json_object_get(done.json, "data"), "results");
        }
        if (rc == 0 && c->format != OUT_TABLE) {
            if (words != NULL)
                json_object_set((json_t *)d, "results", (json_t *)words);
            rc = output_data(c, d);
        } else if (rc == 0) {
            print_groups(json_object_get(d, "groups"), words);
            if (json_integer_value(json_object_get(d, "other_records")) > 0 && from == 0)
                fprintf(stderr, "%lld records are not of secrets, and are not taken in.\n",
                        (long long)json_integer_value(json_object_get(d, "other_records")));
            if (!json_is_true(json_object_get(d, "whole")) && from == 0)
                fprintf(stderr, "The begin of the log was released before: these are not all.\n");
        }
        for (size_t k = 0; k < json_array_size(words); k++)
            conflicts += strcmp(json_string_value(json_array_get(words, k)), "conflict") == 0;
        from = json_integer_value(json_object_get(d, "next"));
        reply_free(&r);
        reply_free(&done);
    }
    if (conflicts > 0)
        fprintf(stderr,
                "Changed on the primary since, and left as they are there: %d of the groups.%s\n",
                conflicts, s->overwrite ? "" : " -overwrite takes the lost ones.");
    return rc;
}

static int parse(const char *usage, const struct flag *flags, size_t n, struct client *c,
                 struct source *s, int argc, char **argv)
{
    int i;

    client_init(c);
    i = flags_parse(usage, flags, n, c, argc, argv);
    if (i >= 0 && argc - i == 1) {
        s->id = argv[i];
        return 0;
    }
    if (i >= 0)
        fprintf(stderr, "Usage: lockstep %s\n", usage);
    client_free(c);
    return i == -2 ? -2 : -1;
}

static int show(int argc, char **argv)
{
    struct source s = {0};
    struct flag flags[] = {TOKEN_FLAG(s)};
    struct client c;
    int rc = parse("replication lost show [-dr-token=TOKEN] ID", flags, 1, &c, &s, argc, argv);

    if (rc != 0)
        return rc == -2 ? 0 : EXIT_LOCAL;
    rc = pages(&c, &s, NULL);
    client_free(&c);
    return rc;
}

static int delete (int argc, char **argv)
{
    struct source s = {0};
    struct flag flags[] = {TOKEN_FLAG(s), YES_FLAGS(s.yes)};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc = parse("replication lost delete [-dr-token=TOKEN] ID", flags,
                   sizeof(flags) / sizeof(flags[0]), &c, &s, argc, argv);

    if (rc != 0)
        return rc == -2 ? 0 : EXIT_LOCAL;
    if (!may_lose(s.yes, "Remove them?",
                  "The writes that only cluster %s had, saved as %s, are removed: no other cluster "
                  "has what was not taken in.",
                  c.addr, s.id)) {
        client_free(&c);
        return EXIT_LOCAL;
    }
    if (call(&c, &s, "delete", 0, false, &r, &err) != 0 || !reply_ok(&r))
        rc = reply_fail(&c, &r, &err, "Error removing lost writes");
    else
        printf("Success! Removed the lost writes %s.\n", s.id);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int apply(int argc, char **argv)
{
    struct source s = {0};
    struct flag flags[] = {
        TOKEN_FLAG(s),
        {"from", FLAG_STR, &s.from, "Address of the cluster that has saved them."},
        {"overwrite", FLAG_BOOL, &s.overwrite, "Also what the primary has changed since."},
        {"dry-run", FLAG_BOOL, &s.dry_run, "Only say what would be taken in."},
        YES_FLAGS(s.yes),
    };
    struct client to, from;
    int rc =
        parse("replication lost apply [-from=ADDRESS -dr-token=TOKEN] [-overwrite] [-dry-run] ID",
              flags, sizeof(flags) / sizeof(flags[0]), &to, &s, argc, argv);

    if (rc != 0)
        return rc == -2 ? 0 : EXIT_LOCAL;
    if (s.token != NULL && s.from == NULL) {
        fprintf(stderr, "-dr-token is of the secondary that has saved them: give its address, "
                        "-from=ADDRESS; VAULT_ADDR is the primary, which takes them in.\n");
        client_free(&to);
        return EXIT_LOCAL;
    }
    if (s.overwrite && !s.dry_run &&
        !may_lose(s.yes, "Overwrite them?",
                  "What cluster %s has written since is replaced by the lost writes where both are "
                  "of one secret (kv version 2 keeps its versions). -dry-run shows which.",
                  to.addr)) {
        client_free(&to);
        return EXIT_LOCAL;
    }
    from = to; /* the same certificates; only `to` is freed */
    if (s.from != NULL)
        from.addr = s.from;
    rc = pages(&from, &s, &to);
    client_free(&to);
    return rc;
}

int replication_lost(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", list, "What is saved"},
        {"show", show, "The entries of one"},
        {"apply", apply, "Take it in by the primary, where nothing newer stands"},
        {"delete", delete, "Remove it"},
    };

    return verb_run("replication lost", verbs, 4, argc, argv);
}
