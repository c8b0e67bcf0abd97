/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_generic.c - status, login, read, write, patch, list, delete, unwrap, path-help, version.
 */
#include "cli.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef LOCKSTEP_VERSION_TEXT
#define LOCKSTEP_VERSION_TEXT "1.0.0"
#endif

int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("Lockstep v" LOCKSTEP_VERSION_TEXT "\n");
    return 0;
}

/* Flags, then exactly the wanted number of words (max < 0: any). Returns index of the first word or
 * -1 with *rcp. */
static int start(const char *usage, const struct flag *flags, size_t n, struct client *c, int argc,
                 char **argv, int min, int max, int *rcp)
{
    int i;

    client_init(c);
    i = flags_parse(usage, flags, n, c, argc, argv);
    *rcp = i == -2 ? 0 : EXIT_LOCAL;
    if (i >= 0 && (argc - i < min || (max >= 0 && argc - i > max))) {
        fprintf(stderr,
                argc - i < min ? "Not enough arguments (expected %d, got %d)\nUsage: lockstep %s\n"
                               : "Too many arguments (expected %d, got %d)\nUsage: lockstep %s\n",
                argc - i < min ? min : max, argc - i, usage);
        i = -1;
    }
    if (i < 0)
        client_free(c);
    return i < 0 ? -1 : i;
}

static const char *trim_path(const char *path)
{
    return *path == '/' ? path + 1 : path;
}

static void status_row(struct table *t, const char *name, const json_t *v)
{
    struct buf text = {0};

    go_value(&text, v);
    table_add(t, name);
    table_add(t, buf_str(&text));
    buf_free(&text);
}

int cmd_status(int argc, char **argv)
{
    struct client c;
    struct reply seal = {0}, leader = {0};
    struct err err = {0};
    int rc, i = start("status [options]", NULL, 0, &c, argc, argv, 0, 0, &rc);
    struct table t = {.cols = 2};
    bool sealed;

    if (i < 0)
        return rc;
    c.max_retries = 0;
    rc = 1;
    if (client_call(&c, "GET", "sys/seal-status", NULL, &seal, &err) != 0 || !reply_ok(&seal)) {
        reply_fail(&c, &seal, &err, "Error checking seal status");
        goto out;
    }
    sealed = json_is_true(json_object_get(seal.json, "sealed"));
    rc = sealed ? 2 : 0;
    if (c.format != OUT_TABLE || c.field != NULL) {
        int out = c.field ? output_field(json_object_get(seal.json, c.field), c.field)
                          : output_data(&c, seal.json);
        rc = out != 0 ? out : rc;
        goto out;
    }
    table_add(&t, "Key");
    table_add(&t, "Value");
    status_row(&t, "Seal Type", json_object_get(seal.json, "type"));
    status_row(&t, "Initialized", json_object_get(seal.json, "initialized"));
    status_row(&t, "Sealed", json_object_get(seal.json, "sealed"));
    status_row(&t, "Total Shares", json_object_get(seal.json, "n"));
    status_row(&t, "Threshold", json_object_get(seal.json, "t"));
    if (sealed) {
        table_add(&t, "Unseal Progress");
        table_addf(&t, "%lld/%lld",
                   (long long)json_integer_value(json_object_get(seal.json, "progress")),
                   (long long)json_integer_value(json_object_get(seal.json, "t")));
        status_row(&t, "Unseal Nonce", json_object_get(seal.json, "nonce"));
    }
    status_row(&t, "Version", json_object_get(seal.json, "version"));
    status_row(&t, "Build Date", json_object_get(seal.json, "build_date"));
    status_row(&t, "Storage Type", json_object_get(seal.json, "storage_type"));
    if (json_string_length(json_object_get(seal.json, "cluster_name")) > 0)
        status_row(&t, "Cluster Name", json_object_get(seal.json, "cluster_name"));
    if (json_string_length(json_object_get(seal.json, "cluster_id")) > 0)
        status_row(&t, "Cluster ID", json_object_get(seal.json, "cluster_id"));
    if (client_call(&c, "GET", "sys/leader", NULL, &leader, &err) == 0 && reply_ok(&leader))
        status_row(&t, "HA Enabled", json_object_get(leader.json, "ha_enabled"));
    table_print(&t, true);
out:
    reply_free(&seal);
    reply_free(&leader);
    client_free(&c);
    return rc;
}

int cmd_login(int argc, char **argv)
{
    const char *method = "token", *path = NULL;
    bool no_store = false, no_print = false, token_only = false;
    struct flag flags[] = {
        {"method", FLAG_STR, &method, "Auth method: token (default) or userpass."},
        {"path", FLAG_STR, &path, "Where the auth method is mounted."},
        {"no-store", FLAG_BOOL, &no_store, "Do not keep the token in ~/.vault-token."},
        {"no-print", FLAG_BOOL, &no_print, "Print nothing."},
        {"token-only", FLAG_BOOL, &token_only, "Print the token alone and keep nothing."},
    };
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct buf secret = {.secret = true};
    const char *token;
    int rc, i = start("login [options] [TOKEN | K=V ...]", flags, 5, &c, argc, argv, 0, -1, &rc);
    char url[512];

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (strcmp(method, "token") == 0) {
        if (i < argc && strcmp(argv[i], "-") != 0)
            buf_adds(&secret, strncmp(argv[i], "token=", 6) == 0 ? argv[i] + 6 : argv[i]);
        else if (read_hidden("Token (will be hidden): ", &secret) != 0)
            secret.len = 0;
        if (secret.len == 0) {
            fprintf(stderr, "Error authenticating: missing token\n");
            rc = EXIT_LOCAL;
            goto out;
        }
        c.token = buf_str(&secret);
        if (client_call(&c, "GET", "auth/token/lookup-self", NULL, &r, &err) != 0 ||
            !reply_ok(&r)) {
            reply_fail(&c, &r, &err, "Error authenticating: error looking up token");
            goto out;
        }
        if (json_is_object(json_object_get(
                r.json, "data"))) { /* as if the login had answered with an auth block */
            json_t *d = json_object_get(r.json, "data");
            json_object_set_new(
                r.json, "auth",
                json_pack("{s:s, s:O?, s:O?, s:b, s:O?, s:O?, s:[]}", "client_token", c.token,
                          "accessor", json_object_get(d, "accessor"), "lease_duration",
                          json_object_get(d, "ttl"), "renewable",
                          json_is_true(json_object_get(d, "renewable")), "token_policies",
                          json_object_get(d, "policies"), "policies",
                          json_object_get(d, "policies"), "identity_policies"));
            json_object_set_new(r.json, "data", json_null());
        }
    } else if (strcmp(method, "userpass") == 0) {
        json_t *body = NULL;
        const char *user;
        if (kv_args(argc - i, argv + i, &body) != 0) {
            rc = EXIT_LOCAL;
            goto out;
        }
        user = json_string_value(json_object_get(body, "username"));
        if (user == NULL) {
            fprintf(stderr, "Error authenticating: 'username' must be specified\n");
            json_decref(body);
            rc = EXIT_LOCAL;
            goto out;
        }
        if (json_object_get(body, "password") == NULL) {
            if (read_hidden("Password (will be hidden): ", &secret) == 0)
                json_object_set_new(body, "password", json_string(buf_str(&secret)));
        }
        snprintf(url, sizeof(url), "auth/%s/login/%s", path ? path : "userpass", user);
        json_object_del(body, "username");
        c.no_token = true;
        i = client_call(&c, "PUT", url, body, &r, &err);
        json_decref(body);
        if (i != 0 || !reply_ok(&r)) {
            reply_fail(&c, &r, &err, "Error authenticating");
            goto out;
        }
    } else {
        fprintf(stderr, "Unknown auth method: %s (use token or userpass)\n", method);
        rc = EXIT_LOCAL;
        goto out;
    }
    token = json_string_value(json_object_get(json_object_get(r.json, "auth"), "client_token"));
    rc = 0;
    if (token_only) {
        printf("%s\n", token ? token : "");
        goto out;
    }
    if (!no_store && token != NULL && token_file_write(token, &err) != 0) {
        fprintf(stderr, "Error storing token: %s\n", err.msg);
        rc = EXIT_LOCAL;
        goto out;
    }
    if (no_print)
        goto out;
    if (c.format == OUT_TABLE && c.field == NULL)
        printf(
            no_store
                ? "Success! You are now authenticated. The token was not stored in token helper.\n"
                  "Set the VAULT_TOKEN environment variable or pass the token below with each\n"
                  "request to Vault.\n\n"
                : "Success! You are now authenticated. The token information displayed below\n"
                  "is already stored in the token helper. You do NOT need to run \"vault login\"\n"
                  "again. Future Vault requests will automatically use this token.\n\n");
    rc = output_secret(&c, &r);
out:
    buf_free(&secret);
    reply_free(&r);
    client_free(&c);
    return rc;
}

/* Path and K=V words of a read as a query. */
static int with_query(const char *path, const char *list, int argc, char **argv, struct buf *out)
{
    size_t len = strlen(path);

    while (list != NULL && len > 0 && path[len - 1] == '/')
        len--;
    buf_add(out, path, len);
    if (list != NULL)
        buf_adds(out, list);
    for (int i = 0; i < argc; i++) {
        if (strchr(argv[i], '=') == NULL) {
            fprintf(stderr,
                    "Failed to parse K=V data: invalid key/value pair \"%s\": format must be "
                    "key=value\n",
                    argv[i]);
            return -1;
        }
        buf_printf(out, "%s%s", strchr(buf_str(out), '?') ? "&" : "?", argv[i]);
    }
    return 0;
}

int cmd_read(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct buf path = {0};
    int rc, i = start("read [options] PATH [K=V ...]", NULL, 0, &c, argc, argv, 1, -1, &rc);
    char doing[1100];

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error reading %s", argv[i]);
    rc = EXIT_LOCAL;
    if (with_query(trim_path(argv[i]), NULL, argc - i - 1, argv + i + 1, &path) != 0)
        goto out;
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", buf_str(&path), NULL, &r, &err) != 0 ||
        (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&c, &r, &err, doing);
    } else if (!json_is_object(r.json) || json_object_get(r.json, "errors") != NULL) {
        fprintf(stderr, "No value found at %s\n", argv[i]);
    } else {
        rc = output_secret(&c, &r);
    }
out:
    buf_free(&path);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_list(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct buf path = {0};
    int rc, i = start("list [options] PATH", NULL, 0, &c, argc, argv, 1, 1, &rc);
    const json_t *keys;
    char doing[1100];

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error listing %s", argv[i]);
    rc = EXIT_REMOTE;
    if (with_query(trim_path(argv[i]), "?list=true", 0, NULL, &path) != 0 ||
        client_call(&c, "GET", buf_str(&path), NULL, &r, &err) != 0 ||
        (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&c, &r, &err, doing);
    } else {
        keys = json_object_get(json_object_get(r.json, "data"), "keys");
        if (json_array_size(keys) == 0)
            fprintf(stderr, "No value found at %s\n", argv[i]);
        else
            rc = output_list(&c, keys);
    }
    buf_free(&path);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_write(int argc, char **argv)
{
    bool force = false;
    struct flag flags[] = {{"f", FLAG_BOOL, &force, "Allow a write without K=V words."},
                           {"force", FLAG_BOOL, &force, "Allow a write without K=V words."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int rc, i = start("write [options] PATH [K=V ...]", flags, 2, &c, argc, argv, 1, -1, &rc);
    char doing[1100];

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error writing data to %s", argv[i]);
    rc = EXIT_LOCAL;
    if (argc - i < 2 && !force) {
        fprintf(stderr, "Must supply data or use -force\n");
        goto out;
    }
    if (argc - i >= 2 && kv_args(argc - i - 1, argv + i + 1, &body) != 0)
        goto out;
    if (body == NULL)
        body = json_null();
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", trim_path(argv[i]), body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, doing);
    } else if (!json_is_object(r.json)) {
        if (c.format == OUT_TABLE)
            printf("Success! Data written to: %s\n", argv[i]);
        rc = 0;
    } else {
        rc = output_secret(&c, &r);
        if (rc == 0 && c.format == OUT_TABLE && c.field == NULL &&
            json_is_null(json_object_get(r.json, "data")) &&
            json_is_null(json_object_get(r.json, "auth")) &&
            json_is_null(json_object_get(r.json, "wrap_info")))
            printf("Success! Data written to: %s\n", argv[i]);
    }
out:
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_patch(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int rc, i = start("patch [options] PATH K=V ...", NULL, 0, &c, argc, argv, 2, -1, &rc);
    char doing[1100];

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error writing data to %s", argv[i]);
    rc = EXIT_LOCAL;
    if (kv_args(argc - i - 1, argv + i + 1, &body) != 0)
        goto out;
    rc = EXIT_REMOTE;
    if (client_call(&c, "PATCH", trim_path(argv[i]), body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, doing);
    } else if (json_is_object(json_object_get(r.json, "data"))) {
        rc = output_secret(&c, &r);
    } else {
        output_warnings(r.json);
        printf("Success! Data written to: %s\n", argv[i]);
        rc = 0;
    }
out:
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_path_help(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    struct buf path = {0};
    int rc, i = start("path-help [options] PATH", NULL, 0, &c, argc, argv, 1, 1, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (with_query(trim_path(argv[i]), "?help=1", 0, NULL, &path) != 0 ||
        client_call(&c, "GET", buf_str(&path), NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error retrieving help");
    } else if (c.format != OUT_TABLE) {
        rc = output_data(&c, r.json);
    } else {
        const char *text = json_string_value(json_object_get(r.json, "help"));
        printf("%s\n", text != NULL ? text : "");
        rc = 0;
    }
    buf_free(&path);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_delete(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = start("delete [options] PATH", NULL, 0, &c, argc, argv, 1, 1, &rc);
    char doing[1100];

    if (i < 0)
        return rc;
    snprintf(doing, sizeof(doing), "Error deleting %s", argv[i]);
    rc = EXIT_REMOTE;
    if (client_call(&c, "DELETE", trim_path(argv[i]), NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, doing);
    } else if (json_is_object(json_object_get(r.json, "data"))) {
        rc = output_secret(&c, &r);
    } else {
        output_warnings(r.json);
        printf("Success! Data deleted (if it existed) at: %s\n", argv[i]);
        rc = 0;
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_unwrap(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *body = NULL;
    int rc, i = start("unwrap [options] [TOKEN]", NULL, 0, &c, argc, argv, 0, 1, &rc);

    if (i < 0)
        return rc;
    if (i < argc && c.token == NULL)
        c.token = argv[i];
    else if (i < argc)
        body = json_pack("{s:s}", "token", argv[i]);
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", "sys/wrapping/unwrap", body, &r, &err) != 0 || !reply_ok(&r))
        reply_fail(&c, &r, &err, "Error unwrapping");
    else
        rc = output_secret(&c, &r);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}
