/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_secrets.c - secrets and auth: list, enable, disable, tune, move. Both are mounts; only paths
 * and words differ.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mounts_of {
    const char *list,
        *one; /* API paths: "sys/mounts" for both, "sys/mounts/auth" to tune an auth mount */
    const char *tune;
    const char *noun; /* in messages */
};
static const struct mounts_of SECRETS = {"sys/mounts", "sys/mounts", "sys/mounts",
                                         "secrets engine"};
static const struct mounts_of AUTH = {"sys/auth", "sys/auth", "sys/mounts/auth", "auth method"};

static int cmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int list(const struct mounts_of *m, const char *usage, int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct table t = {.cols = 4};
    int rc, i = verb_begin(usage, NULL, 0, &c, argc, argv, 0, WORDS_ANY, &rc);
    const char *name, **names = NULL;
    json_t *data, *v;
    size_t n = 0;

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", m->list, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error listing mounts");
        goto out;
    }
    data = json_object_get(r.json, "data");
    if (c.format != OUT_TABLE) {
        rc = output_data(&c, data);
        goto out;
    }
    names = calloc(json_object_size(data) + 1, sizeof(*names));
    if (names == NULL)
        goto out;
    json_object_foreach(data, name, v) names[n++] = name;
    qsort(names, n, sizeof(*names), cmp);
    table_add(&t, "Path");
    table_add(&t, "Type");
    table_add(&t, "Accessor");
    table_add(&t, "Description");
    for (size_t j = 0; j < n; j++) {
        const char *d;
        v = json_object_get(data, names[j]);
        d = json_string_value(json_object_get(v, "description"));
        table_add(&t, names[j]);
        table_addf(&t, "%s", json_string_value(json_object_get(v, "type")));
        table_addf(&t, "%s", json_string_value(json_object_get(v, "accessor")));
        table_add(&t, d ? d : "");
    }
    table_print(&t, true);
    rc = 0;
out:
    free(names);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int enable(const struct mounts_of *m, const char *usage, int argc, char **argv)
{
    const char *path = NULL, *description = "", *ttl = "0s", *max = "0s";
    int64_t version = 0;
    bool local = false;
    struct flag flags[] = {
        {"path", FLAG_STR, &path, "Where to mount it (the type, unless given)."},
        {"description", FLAG_STR, &description, "For people."},
        {"version", FLAG_INT, &version, "kv: 1 or 2."},
        {"default-lease-ttl", FLAG_STR, &ttl, "Default lease lifetime."},
        {"max-lease-ttl", FLAG_STR, &max, "Longest lease lifetime."},
        {"local", FLAG_BOOL, &local, "Mark the mount local."},
    };
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body;
    int rc, i = verb_begin(usage, flags, 6, &c, argc, argv, 1, WORDS_ANY, &rc);
    char where[300], api[400], *end;

    if (i < 0)
        return rc;
    snprintf(where, sizeof(where), "%s",
             path                                                             ? path
             : strcmp(argv[i], "kv-v2") == 0 || strcmp(argv[i], "kv-v1") == 0 ? "kv"
                                                                              : argv[i]);
    for (end = where + strlen(where); end > where && end[-1] == '/'; end--)
        end[-1] = '\0';
    snprintf(api, sizeof(api), "%s/%s", m->one, where);
    body = json_pack("{s:s, s:s, s:{s:s, s:s}, s:b}", "type", argv[i], "description", description,
                     "config", "default_lease_ttl", ttl, "max_lease_ttl", max, "local", local);
    if (version > 0) {
        char text[24];
        snprintf(text, sizeof(text), "%lld", (long long)version);
        json_object_set_new(body, "options", json_pack("{s:s}", "version", text));
    }
    rc = EXIT_REMOTE;
    if (client_call(&c, "POST", api, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, m == &AUTH ? "Error enabling auth method" : "Error enabling");
    } else {
        if (m == &AUTH)
            printf("Success! Enabled %s auth method at: %s/\n", argv[i], where);
        else
            printf("Success! Enabled the %s %s at: %s/\n", argv[i], m->noun, where);
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int disable(const struct mounts_of *m, const char *usage, int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = verb_begin(usage, NULL, 0, &c, argc, argv, 1, WORDS_ANY, &rc);
    char where[300], api[400], *end;

    if (i < 0)
        return rc;
    snprintf(where, sizeof(where), "%s", argv[i]);
    for (end = where + strlen(where); end > where && end[-1] == '/'; end--)
        end[-1] = '\0';
    snprintf(api, sizeof(api), "%s/%s", m->one, where);
    rc = EXIT_REMOTE;
    if (client_call(&c, "DELETE", api, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error disabling");
    } else {
        printf("Success! Disabled the %s (if it existed) at: %s/\n", m->noun, where);
        rc = 0;
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int tune(const struct mounts_of *m, const char *usage, int argc, char **argv)
{
    const char *ttl = NULL, *max = NULL, *description = NULL, *visibility = NULL;
    int64_t version = 0;
    struct flag flags[] = {
        {"default-lease-ttl", FLAG_STR, &ttl, "Default lease lifetime."},
        {"max-lease-ttl", FLAG_STR, &max, "Longest lease lifetime."},
        {"description", FLAG_STR, &description, "For people."},
        {"listing-visibility", FLAG_STR, &visibility, "unauth or hidden."},
        {"version", FLAG_INT, &version, "kv: 2."},
    };
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body;
    int rc, i = verb_begin(usage, flags, 5, &c, argc, argv, 1, WORDS_ANY, &rc);
    char where[300], api[400], *end;

    if (i < 0)
        return rc;
    snprintf(where, sizeof(where), "%s", argv[i]);
    for (end = where + strlen(where); end > where && end[-1] == '/'; end--)
        end[-1] = '\0';
    snprintf(api, sizeof(api), "%s/%s/tune", m->tune, where);
    body = json_object();
    if (ttl != NULL)
        json_object_set_new(body, "default_lease_ttl", json_string(ttl));
    if (max != NULL)
        json_object_set_new(body, "max_lease_ttl", json_string(max));
    if (description != NULL)
        json_object_set_new(body, "description", json_string(description));
    if (visibility != NULL)
        json_object_set_new(body, "listing_visibility", json_string(visibility));
    if (version > 0) {
        char text[24];
        snprintf(text, sizeof(text), "%lld", (long long)version);
        json_object_set_new(body, "options", json_pack("{s:s}", "version", text));
    }
    rc = EXIT_REMOTE;
    if (client_call(&c, "POST", api, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error tuning");
    } else {
        output_warnings(r.json);
        printf("Success! Tuned the %s at: %s/\n", m->noun, where);
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int secrets_list(int argc, char **argv)
{
    return list(&SECRETS, "secrets list [options]", argc, argv);
}
static int secrets_enable(int argc, char **argv)
{
    return enable(&SECRETS, "secrets enable [options] TYPE", argc, argv);
}
static int secrets_disable(int argc, char **argv)
{
    return disable(&SECRETS, "secrets disable [options] PATH", argc, argv);
}
static int secrets_tune(int argc, char **argv)
{
    return tune(&SECRETS, "secrets tune [options] PATH", argc, argv);
}
static int auth_list(int argc, char **argv)
{
    return list(&AUTH, "auth list [options]", argc, argv);
}
static int auth_enable(int argc, char **argv)
{
    return enable(&AUTH, "auth enable [options] TYPE", argc, argv);
}
static int auth_disable(int argc, char **argv)
{
    return disable(&AUTH, "auth disable [options] PATH", argc, argv);
}
static int auth_tune(int argc, char **argv)
{
    return tune(&AUTH, "auth tune [options] PATH", argc, argv);
}

int cmd_secrets(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", secrets_list, "List secrets engines"},
        {"enable", secrets_enable, "Mount a secrets engine"},
        {"disable", secrets_disable, "Unmount a secrets engine and delete its data"},
        {"tune", secrets_tune, "Change a mount's settings"},
    };

    return verb_run("secrets", verbs, 4, argc, argv);
}

int cmd_auth(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", auth_list, "List auth methods"},
        {"enable", auth_enable, "Enable an auth method"},
        {"disable", auth_disable, "Disable an auth method"},
        {"tune", auth_tune, "Change a mount's settings"},
    };

    return verb_run("auth", verbs, 4, argc, argv);
}
