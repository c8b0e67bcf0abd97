/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_kv.c - kv put, get, list, delete, undelete, destroy, patch, rollback, metadata,
 * enable-versioning: for version 1 and 2 mounts.
 *
 * As the official client does, each verb first asks sys/internal/ui/mounts/PATH which mount holds
 * the path and its version.
 */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kv {
    struct client c;
    const char *mount_flag;
    char mount[512]; /* without trailing slash */
    char key[1024];  /* below the mount */
    bool v2;
};

/* Where the secret lies: "s2" + part + "/key" for version 2, "s1/key" for 1. */
static void kv_path(const struct kv *k, const char *part, char *out, size_t len)
{
    if (k->v2)
        snprintf(out, len, "%s/%s%s%s", k->mount, part, *k->key ? "/" : "", k->key);
    else
        snprintf(out, len, "%s%s%s", k->mount, *k->key ? "/" : "", k->key);
}

static int kv_find(struct kv *k, const char *arg, const char *doing)
{
    char ask[1200], path[1024];
    struct reply r = {0};
    struct err err = {0};
    const json_t *data, *options;
    const char *mount, *wrap_ttl = k->c.wrap_ttl;
    size_t len;
    int rc = EXIT_REMOTE, asked;

    while (*arg == '/')
        arg++;
    snprintf(path, sizeof(path), "%s", k->mount_flag ? k->mount_flag : arg);
    for (len = strlen(path); len > 0 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
    snprintf(ask, sizeof(ask), "sys/internal/ui/mounts/%s", path);
    k->c.wrap_ttl = NULL; /* what is asked for is to be wrapped, not this */
    asked = client_call(&k->c, "GET", ask, NULL, &r, &err);
    k->c.wrap_ttl = wrap_ttl;
    if (asked != 0 || !reply_ok(&r)) {
        reply_fail(&k->c, &r, &err, doing);
        goto out;
    }
    data = json_object_get(r.json, "data");
    mount = json_string_value(json_object_get(data, "path"));
    options = json_object_get(data, "options");
    if (mount == NULL) {
        fprintf(stderr, "%s: the server named no mount for %s\n", doing, path);
        goto out;
    }
    snprintf(k->mount, sizeof(k->mount), "%s", mount);
    len = strlen(k->mount);
    if (len > 0 && k->mount[len - 1] == '/')
        k->mount[--len] = '\0';
    k->v2 = json_string_value(json_object_get(options, "version")) != NULL &&
            strcmp(json_string_value(json_object_get(options, "version")), "2") == 0;
    if (k->mount_flag == NULL)
        arg += strncmp(arg, k->mount, len) == 0 ? len : 0;
    while (*arg == '/')
        arg++;
    snprintf(k->key, sizeof(k->key), "%s", arg);
    rc = 0;
out:
    reply_free(&r);
    return rc;
}

static int kv_begin(struct kv *k, const char *usage, const struct flag *flags, size_t n, int argc,
                    char **argv, int *rcp)
{
    struct flag all[10];
    int i;

    all[0] =
        (struct flag){"mount", FLAG_STR, &k->mount_flag, "The mount; the path is then below it."};
    memcpy(all + 1, flags, n * sizeof(*flags));
    client_init(&k->c);
    i = flags_parse(usage, all, n + 1, &k->c, argc, argv);
    *rcp = i == -2 ? 0 : EXIT_LOCAL;
    if (i >= 0 && i >= argc) {
        fprintf(stderr, "Not enough arguments (expected a path)\nUsage: lockstep %s\n", usage);
        i = -1;
    }
    if (i < 0)
        client_free(&k->c);
    return i;
}

static void secret_path(const struct kv *k, const char *path)
{
    if (k->c.format == OUT_TABLE && k->c.field == NULL && k->v2) {
        size_t len = strlen(path), signs = len > 13 ? len - 13 : 4;
        signs += signs % 2;
        for (size_t i = 0; i < signs / 2; i++)
            putchar('=');
        printf(" Secret Path ");
        for (size_t i = 0; i < signs / 2; i++)
            putchar('=');
        printf("\n%s\n\n", path);
    }
}

static int kv_write(int argc, char **argv, bool patch)
{
    int64_t cas = -1;
    struct flag flags[] = {{"cas", FLAG_INT, &cas,
                            "Write only when the current version is this one (0: when absent)."}};
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    json_t *data = NULL, *body = NULL;
    char path[2048], doing[2200];
    int rc, i = kv_begin(
                &k, patch ? "kv patch [options] PATH K=V ..." : "kv put [options] PATH K=V ...",
                flags, 1, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_LOCAL;
    if (argc - i < 2) {
        fprintf(stderr, "Must supply data\n");
        goto out;
    }
    if (kv_args(argc - i - 1, argv + i + 1, &data) != 0)
        goto out;
    snprintf(doing, sizeof(doing), "Error writing data to %s", argv[i]);
    rc = kv_find(&k, argv[i], doing);
    if (rc != 0)
        goto out;
    kv_path(&k, "data", path, sizeof(path));
    snprintf(doing, sizeof(doing), "Error writing data to %s", path);
    rc = EXIT_REMOTE;
    if (k.v2) {
        body = json_pack("{s:O, s:{}}", "data", data, "options");
        if (cas >= 0)
            json_object_set_new(json_object_get(body, "options"), "cas", json_integer(cas));
    } else {
        body = json_incref(data);
    }
    if (patch && !k.v2) {
        fprintf(stderr, "KV engine mount must be version 2 for patch support\n");
    } else if (patch) {
        /* read, merge, write with check-and-set: works on every server version */
        struct reply cur = {0};
        const json_t *old;
        const char *name;
        json_t *v, *merged;

        if (client_call(&k.c, "GET", path, NULL, &cur, &err) != 0 || !reply_ok(&cur)) {
            if (cur.status == 404)
                fprintf(stderr, "No value found at %s\n", path);
            else
                reply_fail(&k.c, &cur, &err, "Error doing pre-read");
            reply_free(&cur);
            goto out;
        }
        old = json_object_get(json_object_get(cur.json, "data"), "data");
        merged = json_deep_copy(old);
        json_object_foreach(data, name, v) json_object_set(merged, name, v);
        json_object_set_new(body, "data", merged);
        json_object_set(
            json_object_get(body, "options"), "cas",
            json_object_get(json_object_get(json_object_get(cur.json, "data"), "metadata"),
                            "version"));
        reply_free(&cur);
    }
    if (patch && !k.v2)
        goto out;
    if (client_call(&k.c, "PUT", path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&k.c, &r, &err, doing);
    } else if (!json_is_object(r.json)) {
        if (k.c.format == OUT_TABLE)
            printf("Success! Data written to: %s\n", path);
        rc = 0;
    } else if (k.c.format != OUT_TABLE || k.c.field != NULL) {
        rc = output_secret(&k.c, &r);
    } else {
        const json_t *meta = json_object_get(r.json, "data");
        output_warnings(r.json);
        secret_path(&k, path);
        output_header("Metadata", meta);
        rc = output_data(&k.c, meta);
    }
out:
    json_decref(data);
    json_decref(body);
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int kv_put(int argc, char **argv)
{
    return kv_write(argc, argv, false);
}

static int kv_patch(int argc, char **argv)
{
    return kv_write(argc, argv, true);
}

static int kv_get(int argc, char **argv)
{
    int64_t version = 0;
    struct flag flags[] = {
        {"version", FLAG_INT, &version, "Read this version (version 2 mounts)."}};
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    char path[2048], ask[2100], doing[2200];
    const json_t *data, *secret, *meta;
    int rc, i = kv_begin(&k, "kv get [options] PATH", flags, 1, argc, argv, &rc);

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error reading %s", argv[i]);
    rc = kv_find(&k, argv[i], doing);
    if (rc != 0)
        goto out;
    kv_path(&k, "data", path, sizeof(path));
    snprintf(doing, sizeof(doing), "Error reading %s", path);
    if (k.v2 && version > 0)
        snprintf(ask, sizeof(ask), "%s?version=%lld", path, (long long)version);
    else
        snprintf(ask, sizeof(ask), "%s", path);
    rc = EXIT_REMOTE;
    if (client_call(&k.c, "GET", ask, NULL, &r, &err) != 0 || (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&k.c, &r, &err, doing);
        goto out;
    }
    if (json_is_object(json_object_get(r.json, "wrap_info"))) {
        rc = output_secret(&k.c, &r);
        goto out;
    }
    data = json_object_get(r.json, "data");
    if (!json_is_object(data)) {
        fprintf(stderr, "No value found at %s\n", path);
        goto out;
    }
    secret = k.v2 ? json_object_get(data, "data") : data;
    meta = k.v2 ? json_object_get(data, "metadata") : NULL;
    if (k.c.field != NULL) {
        rc = output_field(json_object_get(secret, k.c.field), k.c.field);
        goto out;
    }
    if (k.c.format != OUT_TABLE) {
        rc = output_secret(&k.c, &r);
        goto out;
    }
    rc = 0;
    secret_path(&k, path);
    if (json_is_object(meta)) {
        output_header("Metadata", meta);
        output_data(&k.c, meta);
        printf("\n");
    }
    if (json_is_object(secret)) {
        output_header("Data", secret);
        rc = output_data(&k.c, secret);
    }
out:
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int kv_list(int argc, char **argv)
{
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    char path[2048], ask[2100];
    const json_t *keys;
    size_t len;
    int rc, i = kv_begin(&k, "kv list [options] PATH", NULL, 0, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = kv_find(&k, argv[i], "Error listing");
    if (rc != 0)
        goto out;
    kv_path(&k, "metadata", path, sizeof(path));
    for (len = strlen(path); len > 0 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
    snprintf(ask, sizeof(ask), "%s?list=true", path);
    rc = EXIT_REMOTE;
    if (client_call(&k.c, "GET", ask, NULL, &r, &err) != 0 || (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&k.c, &r, &err, "Error listing");
    } else {
        keys = json_object_get(json_object_get(r.json, "data"), "keys");
        if (json_array_size(keys) == 0)
            fprintf(stderr, "No value found at %s\n", path);
        else
            rc = output_list(&k.c, keys);
    }
out:
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

/* delete -versions, undelete, destroy: PUT with the versions; delete without: DELETE. */
static int kv_versions(const char *verb, const char *usage, bool needed, int argc, char **argv)
{
    const char *versions = NULL;
    struct flag flags[] = {{"versions", FLAG_STR, &versions, "Versions, separated by commas."}};
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    char path[2048], doing[2200];
    int rc, i = kv_begin(&k, usage, flags, 1, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_LOCAL;
    if (needed && versions == NULL) {
        fprintf(stderr,
                "No versions provided, use the \"-versions\" flag to specify the version to %s.\n",
                verb);
        goto out;
    }
    snprintf(doing, sizeof(doing), "Error deleting %s", argv[i]);
    rc = kv_find(&k, argv[i], doing);
    if (rc != 0)
        goto out;
    kv_path(&k, versions ? verb : "data", path, sizeof(path));
    snprintf(doing, sizeof(doing), "Error %s %s", versions ? "writing data to" : "deleting", path);
    if (versions != NULL) {
        char list[1024], *save = NULL;
        snprintf(list, sizeof(list), "%s", versions);
        body = json_pack("{s:[]}", "versions");
        for (char *v = strtok_r(list, ",", &save); v != NULL; v = strtok_r(NULL, ",", &save))
            json_array_append_new(json_object_get(body, "versions"), json_string(v));
    }
    rc = EXIT_REMOTE;
    if (versions != NULL && !k.v2) {
        fprintf(stderr, "%s not supported on KV Version 1\n", verb);
    } else if (client_call(&k.c, versions ? "PUT" : "DELETE", path, body, &r, &err) != 0 ||
               !reply_ok(&r)) {
        reply_fail(&k.c, &r, &err, doing);
    } else {
        if (strcmp(verb, "delete") == 0)
            printf("Success! Data deleted (if it existed) at: %s\n", path);
        else
            printf("Success! Data written to: %s\n", path);
        rc = 0;
    }
out:
    json_decref(body);
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int kv_delete(int argc, char **argv)
{
    return kv_versions("delete", "kv delete [options] PATH", false, argc, argv);
}

static int kv_undelete(int argc, char **argv)
{
    return kv_versions("undelete", "kv undelete -versions=N[,N] PATH", true, argc, argv);
}

static int kv_destroy(int argc, char **argv)
{
    return kv_versions("destroy", "kv destroy -versions=N[,N] PATH", true, argc, argv);
}

/* The data of an old version as a new one, unless somebody writes meanwhile. */
static int kv_rollback(int argc, char **argv)
{
    int64_t version = 0;
    struct flag flags[] = {{"version", FLAG_INT, &version, "The version to go back to."}};
    struct kv k = {0};
    struct reply latest = {0}, old = {0}, r = {0};
    struct err err = {0};
    json_t *body = NULL;
    const json_t *data;
    char path[2048], ask[2100];
    int rc, i = kv_begin(&k, "kv rollback -version=N PATH", flags, 1, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_LOCAL;
    if (version <= 0) {
        fprintf(stderr, "Version flag must be specified\n");
        goto out;
    }
    rc = kv_find(&k, argv[i], "Error rolling back");
    if (rc != 0)
        goto out;
    rc = EXIT_LOCAL;
    if (!k.v2) {
        fprintf(stderr, "K/V engine mount must be version 2 for rollback support\n");
        goto out;
    }
    rc = EXIT_REMOTE;
    kv_path(&k, "data", path, sizeof(path));
    snprintf(ask, sizeof(ask), "%s?version=%lld", path, (long long)version);
    if (client_call(&k.c, "GET", path, NULL, &latest, &err) != 0 ||
        !json_is_object(json_object_get(latest.json, "data"))) {
        reply_fail(&k.c, &latest, &err, "Error doing pre-read");
        goto out;
    }
    if (client_call(&k.c, "GET", ask, NULL, &old, &err) != 0 ||
        (!reply_ok(&old) && old.status != 404)) {
        reply_fail(&k.c, &old, &err, "Error reading");
        goto out;
    }
    data = json_object_get(json_object_get(old.json, "data"), "data");
    if (!json_is_object(data)) {
        fprintf(stderr, "Cannot roll back to a version that has been deleted or does not exist\n");
        goto out;
    }
    body =
        json_pack("{s:O, s:{s:O?}}", "data", data, "options", "cas",
                  json_object_get(json_object_get(json_object_get(latest.json, "data"), "metadata"),
                                  "version"));
    if (client_call(&k.c, "PUT", path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&k.c, &r, &err, "Error writing data");
        goto out;
    }
    rc = output_secret(&k.c, &r);
out:
    json_decref(body);
    reply_free(&latest);
    reply_free(&old);
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int kv_enable_versioning(int argc, char **argv)
{
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    json_t *body;
    char path[1100];
    int rc, i = kv_begin(&k, "kv enable-versioning PATH", NULL, 0, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    snprintf(path, sizeof(path), "%s", argv[i]);
    for (size_t len = strlen(path); len > 0 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
    snprintf(k.mount, sizeof(k.mount), "%s", path);
    snprintf(path, sizeof(path), "sys/mounts/%s/tune", k.mount);
    body = json_pack("{s:{s:s}}", "options", "version", "2");
    if (client_call(&k.c, "POST", path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&k.c, &r, &err, "Error tuning secrets engine");
    } else {
        output_warnings(r.json);
        printf("Success! Tuned the secrets engine at: %s/\n", k.mount);
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int meta_call(const char *usage, const char *method, int argc, char **argv)
{
    int64_t max_versions = -1;
    bool cas_required = false;
    const char *delete_after = NULL;
    struct flag_list custom = {0};
    struct flag flags[] = {
        {"max-versions", FLAG_INT, &max_versions, "Versions to keep."},
        {"cas-required", FLAG_BOOL, &cas_required, "Every write must give the current version."},
        {"delete-version-after", FLAG_STR, &delete_after, "Delete new versions after this time."},
        {"custom-metadata", FLAG_LIST, &custom, "key=value, may be repeated."},
    };
    size_t n = strcmp(method, "PUT") == 0 ? 4 : 0;
    struct kv k = {0};
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    char path[2048];
    int rc, i = kv_begin(&k, usage, flags, n, argc, argv, &rc);

    if (i < 0)
        return rc;
    rc = kv_find(&k, argv[i], "Error");
    if (rc != 0)
        goto out;
    rc = EXIT_REMOTE;
    if (!k.v2) {
        fprintf(stderr, "Metadata not supported on KV Version 1\n");
        goto out;
    }
    kv_path(&k, "metadata", path, sizeof(path));
    if (n > 0) {
        body = json_object();
        if (max_versions >= 0)
            json_object_set_new(body, "max_versions", json_integer(max_versions));
        if (cas_required)
            json_object_set_new(body, "cas_required", json_true());
        if (delete_after != NULL)
            json_object_set_new(body, "delete_version_after", json_string(delete_after));
        if (custom.n > 0) {
            json_t *m = json_object();
            for (size_t j = 0; j < custom.n; j++) {
                const char *eq = strchr(custom.values[j], '=');
                char name[256];
                snprintf(name, sizeof(name), "%.*s", (int)(eq ? eq - custom.values[j] : 0),
                         custom.values[j]);
                json_object_set_new(m, name, json_string(eq ? eq + 1 : ""));
            }
            json_object_set_new(body, "custom_metadata", m);
        }
    }
    if (client_call(&k.c, method, path, body, &r, &err) != 0 ||
        (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&k.c, &r, &err, "Error");
    } else if (r.status == 404) {
        fprintf(stderr, "No value found at %s\n", path);
    } else if (strcmp(method, "GET") == 0) {
        json_t *data = json_object_get(r.json, "data"), *versions, *v;
        const char *name;
        if (k.c.format != OUT_TABLE || k.c.field != NULL) {
            rc = output_secret(&k.c, &r);
            goto out;
        }
        versions = json_incref(json_object_get(data, "versions"));
        json_object_del(data, "versions");
        output_header("Metadata", data);
        rc = output_data(&k.c, data);
        json_object_foreach(versions, name, v)
        {
            char title[64];
            snprintf(title, sizeof(title), "Version %s", name);
            printf("\n");
            output_header(title, v);
            output_data(&k.c, v);
        }
        json_decref(versions);
    } else {
        printf("Success! Data %s: %s\n", n > 0 ? "written to" : "deleted (if it existed) at", path);
        rc = 0;
    }
out:
    json_decref(body);
    reply_free(&r);
    client_free(&k.c);
    return rc;
}

static int meta_get(int argc, char **argv)
{
    return meta_call("kv metadata get [options] PATH", "GET", argc, argv);
}

static int meta_put(int argc, char **argv)
{
    return meta_call("kv metadata put [options] PATH", "PUT", argc, argv);
}

static int meta_delete(int argc, char **argv)
{
    return meta_call("kv metadata delete [options] PATH", "DELETE", argc, argv);
}

static int kv_metadata(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"get", meta_get, "Show a key's versions and settings"},
        {"put", meta_put, "Change a key's settings"},
        {"delete", meta_delete, "Remove a key with all its versions"},
    };

    return verb_run("kv metadata", verbs, 3, argc, argv);
}

int cmd_kv(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"put", kv_put, "Write a secret"},
        {"get", kv_get, "Read a secret"},
        {"list", kv_list, "List keys"},
        {"patch", kv_patch, "Change some fields of a secret"},
        {"delete", kv_delete, "Delete a secret, or versions of it"},
        {"undelete", kv_undelete, "Bring deleted versions back"},
        {"destroy", kv_destroy, "Remove versions for good"},
        {"rollback", kv_rollback, "Write an old version's data as a new version"},
        {"metadata", kv_metadata, "A key's versions and settings"},
        {"enable-versioning", kv_enable_versioning, "Turn a version 1 mount into version 2"},
    };

    return verb_run("kv", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
