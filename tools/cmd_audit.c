/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_audit.c - audit list, enable, disable.
 */
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* "file/" for "file" and "file/". */
static void shown(const char *path, char *out, size_t len)
{
    size_t n = strlen(path);

    while (n > 0 && path[n - 1] == '/')
        n--;
    snprintf(out, len, "%.*s/", (int)n, path);
}

static void options_text(struct buf *out, const json_t *options)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)options, key, v)
        buf_printf(out, "%s%s=%s", out->len > 0 ? " " : "", key,
                   json_string_value(v) != NULL ? json_string_value(v) : "");
}

static void print_devices(const json_t *data, bool detailed)
{
    struct table t = {.cols = detailed ? 5 : 3};
    const char *path;
    json_t *v;

    table_add(&t, "Path");
    table_add(&t, "Type");
    table_add(&t, "Description");
    if (detailed) {
        table_add(&t, "Replication");
        table_add(&t, "Options");
    }
    json_object_foreach((json_t *)data, path, v)
    {
        const char *type = json_string_value(json_object_get(v, "type")),
                   *description = json_string_value(json_object_get(v, "description"));
        struct buf options = {0};

        table_add(&t, path);
        table_add(&t, type != NULL ? type : "");
        table_add(&t, description != NULL ? description : "");
        if (detailed) {
            options_text(&options, json_object_get(v, "options"));
            table_add(&t, json_is_true(json_object_get(v, "local")) ? "local" : "replicated");
            table_add(&t, buf_str(&options));
            buf_free(&options);
        }
    }
    table_print(&t, true);
}

static int audit_list(int argc, char **argv)
{
    bool detailed = false;
    struct flag flags[] = {{"detailed", FLAG_BOOL, &detailed, "Show options, too."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;
    int rc, i = verb_begin("audit list [options]", flags, 1, &c, argc, argv, 0, WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", "sys/audit", NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error listing audits");
        goto out;
    }
    data = json_object_get(r.json, "data");
    if (c.format != OUT_TABLE) {
        rc = output_data(&c, data);
    } else if (json_object_size(data) == 0) {
        fprintf(stderr, "No audit devices are enabled.\n");
    } else {
        print_devices(data, detailed);
        rc = 0;
    }
out:
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int audit_enable(int argc, char **argv)
{
    const char *path = NULL, *description = "";
    bool local = false;
    struct flag flags[] = {{"path", FLAG_STR, &path, "Its name (the type, unless given)."},
                           {"description", FLAG_STR, &description, "For people."},
                           {"local", FLAG_BOOL, &local, "Mark the device local."}};
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    json_t *options = NULL, *body = NULL;
    char name[300], api[400];
    int rc, i = verb_begin("audit enable [options] TYPE [K=V ...]", flags, 3, &c, argc, argv, 1,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    rc = EXIT_LOCAL;
    if (argc - i > 1 && kv_args(argc - i - 1, argv + i + 1, &options) != 0)
        goto out;
    shown(path != NULL ? path : argv[i], name, sizeof(name));
    snprintf(api, sizeof(api), "sys/audit/%.*s", (int)strlen(name) - 1, name);
    body = json_pack("{s:s, s:s, s:O*, s:b}", "type", argv[i], "description", description,
                     "options", options, "local", local);
    rc = EXIT_REMOTE;
    if (client_call(&c, "PUT", api, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error enabling audit device");
    } else {
        printf("Success! Enabled the %s audit device at: %s\n", argv[i], name);
        rc = 0;
    }
out:
    json_decref(options);
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int audit_disable(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    char name[300], api[400];
    int rc,
        i = verb_begin("audit disable [options] PATH", NULL, 0, &c, argc, argv, 1, WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    shown(argv[i], name, sizeof(name));
    snprintf(api, sizeof(api), "sys/audit/%.*s", (int)strlen(name) - 1, name);
    rc = EXIT_REMOTE;
    if (client_call(&c, "DELETE", api, NULL, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error disabling audit device");
    } else {
        printf("Success! Disabled audit device (if it was enabled) at: %s\n", name);
        rc = 0;
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_audit(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", audit_list, "List audit devices"},
        {"enable", audit_enable, "Enable an audit device"},
        {"disable", audit_disable, "Disable an audit device"},
    };

    return verb_run("audit", verbs, 3, argc, argv);
}
