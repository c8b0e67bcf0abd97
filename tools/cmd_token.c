/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_token.c - token create, lookup, renew, revoke, capabilities; and policy list, read, write,
 * delete.
 */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* One call whose answer is printed as a secret, or whose success is told by done. Frees body and c.
 */
static int call_and_print(struct client *c, const char *method, const char *path, json_t *body,
                          const char *doing, const char *done)
{
    struct reply r = {0};
    struct err err = {0};
    int rc = EXIT_REMOTE;

    if (client_call(c, method, path, body, &r, &err) != 0 || !reply_ok(&r)) {
        reply_fail(c, &r, &err, doing);
    } else if (done != NULL) {
        output_warnings(r.json);
        printf("%s\n", done);
        rc = 0;
    } else {
        rc = output_secret(c, &r);
    }
    json_decref(body);
    reply_free(&r);
    client_free(c);
    return rc;
}

static int token_create(int argc, char **argv)
{
    const char *id = NULL, *ttl = NULL, *max = NULL, *period = NULL, *name = "", *role = NULL,
               *type = "service";
    bool orphan = false, no_default = false, renewable = true;
    int64_t uses = 0;
    struct flag_list policies = {0}, meta = {0};
    struct flag flags[] = {
        {"policy", FLAG_LIST, &policies, "A policy of the token; may be repeated."},
        {"ttl", FLAG_STR, &ttl, "First lifetime."},
        {"explicit-max-ttl", FLAG_STR, &max, "Hard limit of the lifetime."},
        {"period", FLAG_STR, &period, "Make it periodic."},
        {"display-name", FLAG_STR, &name, "Name shown in look-ups and audit."},
        {"use-limit", FLAG_INT, &uses, "How often it may be used (0: no limit)."},
        {"orphan", FLAG_BOOL, &orphan, "No parent."},
        {"no-default-policy", FLAG_BOOL, &no_default, "Without the policy default."},
        {"renewable", FLAG_BOOL, &renewable, "May be renewed (true)."},
        {"metadata", FLAG_LIST, &meta, "key=value; may be repeated."},
        {"role", FLAG_STR, &role, "Token role."},
        {"type", FLAG_STR, &type, "service or batch."},
        {"id", FLAG_STR, &id, "Use this value (needs root)."},
    };
    struct client c;
    json_t *body, *list = json_array(), *m = json_object();
    int rc, i = verb_begin("token create [options]", flags, sizeof(flags) / sizeof(flags[0]), &c,
                           argc, argv, 0, WORDS_ANY, &rc);
    char path[300];

    if (i < 0) {
        json_decref(list);
        json_decref(m);
        return rc;
    }
    for (size_t j = 0; j < policies.n; j++)
        json_array_append_new(list, json_string(policies.values[j]));
    for (size_t j = 0; j < meta.n; j++) {
        const char *eq = strchr(meta.values[j], '=');
        char key[256];
        snprintf(key, sizeof(key), "%.*s", (int)(eq ? eq - meta.values[j] : 0), meta.values[j]);
        json_object_set_new(m, key, json_string(eq ? eq + 1 : ""));
    }
    body = json_pack("{s:o, s:o, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:b, s:s}", "policies", list,
                     "meta", m, "ttl", ttl ? ttl : "0s", "explicit_max_ttl", max ? max : "0s",
                     "period", period ? period : "0s", "display_name", name, "num_uses",
                     (json_int_t)uses, "renewable", renewable, "no_parent", orphan,
                     "no_default_policy", no_default, "type", type);
    if (policies.n == 0)
        json_object_del(body, "policies");
    if (id != NULL)
        json_object_set_new(body, "id", json_string(id));
    snprintf(path, sizeof(path), "auth/token/create%s%s", role ? "/" : "", role ? role : "");
    return call_and_print(&c, "POST", path, body, "Error creating token", NULL);
}

static int token_lookup(int argc, char **argv)
{
    bool accessor = false;
    struct flag flags[] = {{"accessor", FLAG_BOOL, &accessor, "The argument is an accessor."}};
    struct client c;
    int rc, i = verb_begin("token lookup [options] [TOKEN | ACCESSOR]", flags, 1, &c, argc, argv, 0,
                           WORDS_ANY, &rc);

    if (i < 0)
        return rc;
    if (i >= argc)
        return call_and_print(&c, "GET", "auth/token/lookup-self", NULL, "Error looking up token",
                              NULL);
    return call_and_print(&c, "POST", accessor ? "auth/token/lookup-accessor" : "auth/token/lookup",
                          json_pack("{s:s}", accessor ? "accessor" : "token", argv[i]),
                          "Error looking up token", NULL);
}

static int token_renew(int argc, char **argv)
{
    bool accessor = false;
    int64_t increment = 0;
    struct flag flags[] = {{"accessor", FLAG_BOOL, &accessor, "The argument is an accessor."},
                           {"increment", FLAG_DURATION, &increment, "Wished lifetime."}};
    struct client c;
    int rc, i = verb_begin("token renew [options] [TOKEN]", flags, 2, &c, argc, argv, 0, WORDS_ANY,
                           &rc);
    json_t *body;

    if (i < 0)
        return rc;
    body = json_pack("{s:I}", "increment", (json_int_t)increment);
    if (i < argc)
        json_object_set_new(body, accessor ? "accessor" : "token", json_string(argv[i]));
    return call_and_print(&c, "PUT",
                          i >= argc  ? "auth/token/renew-self"
                          : accessor ? "auth/token/renew-accessor"
                                     : "auth/token/renew",
                          body, "Error renewing token", NULL);
}

static int token_revoke(int argc, char **argv)
{
    bool accessor = false, self = false;
    const char *mode = NULL;
    struct flag flags[] = {{"accessor", FLAG_BOOL, &accessor, "The argument is an accessor."},
                           {"self", FLAG_BOOL, &self, "Revoke the token in use."},
                           {"mode", FLAG_STR, &mode, "orphan: leave the children alive."}};
    struct client c;
    int rc, i = verb_begin("token revoke [options] [TOKEN | ACCESSOR]", flags, 3, &c, argc, argv, 0,
                           WORDS_ANY, &rc);
    const char *path;

    if (i < 0)
        return rc;
    if (self)
        return call_and_print(&c, "PUT", "auth/token/revoke-self", NULL, "Error revoking token",
                              "Success! Revoked token (if it existed)");
    if (i >= argc) {
        fprintf(stderr, "Not enough arguments (expected a token, or -self)\n");
        client_free(&c);
        return EXIT_LOCAL;
    }
    path = accessor                              ? "auth/token/revoke-accessor"
           : mode && strcmp(mode, "orphan") == 0 ? "auth/token/revoke-orphan"
                                                 : "auth/token/revoke";
    return call_and_print(&c, accessor ? "POST" : "PUT", path,
                          json_pack("{s:s}", accessor ? "accessor" : "token", argv[i]),
                          "Error revoking token", "Success! Revoked token (if it existed)");
}

static int token_capabilities(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = verb_begin("token capabilities [options] [TOKEN] PATH", NULL, 0, &c, argc, argv, 1,
                           WORDS_ANY, &rc);
    bool other;
    json_t *body, *cap;
    size_t j;

    if (i < 0)
        return rc;
    other = argc - i > 1;
    body = other ? json_pack("{s:s, s:s}", "token", argv[i], "path", argv[i + 1])
                 : json_pack("{s:s}", "path", argv[i]);
    rc = EXIT_REMOTE;
    if (client_call(&c, "POST", other ? "sys/capabilities" : "sys/capabilities-self", body, &r,
                    &err) != 0 ||
        !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error listing capabilities");
    } else if (c.format != OUT_TABLE) {
        rc = output_secret(&c, &r);
    } else {
        json_array_foreach(json_object_get(json_object_get(r.json, "data"), "capabilities"), j, cap)
            printf("%s%s", j > 0 ? ", " : "", json_string_value(cap));
        printf("\n");
        rc = 0;
    }
    json_decref(body);
    reply_free(&r);
    client_free(&c);
    return rc;
}

int cmd_token(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"create", token_create, "Create a token"},
        {"lookup", token_lookup, "Show a token's properties"},
        {"renew", token_renew, "Renew a token"},
        {"revoke", token_revoke, "Revoke a token and its children"},
        {"capabilities", token_capabilities, "Show what a token may do on a path"},
    };

    return verb_run("token", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}

/* ---- policy ---- */

static int policy_list(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc, i = verb_begin("policy list [options]", NULL, 0, &c, argc, argv, 0, WORDS_ANY, &rc);
    json_t *k;
    size_t j;

    if (i < 0)
        return rc;
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", "sys/policies/acl?list=true", NULL, &r, &err) != 0 ||
        !reply_ok(&r)) {
        reply_fail(&c, &r, &err, "Error listing policies");
    } else if (c.format != OUT_TABLE) {
        rc = output_list(&c, json_object_get(json_object_get(r.json, "data"), "keys"));
    } else {
        json_array_foreach(json_object_get(json_object_get(r.json, "data"), "keys"), j, k)
            printf("%s\n", json_string_value(k));
        rc = 0;
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int policy_read(int argc, char **argv)
{
    struct client c;
    struct reply r = {0};
    struct err err = {0};
    int rc,
        i = verb_begin("policy read [options] NAME", NULL, 0, &c, argc, argv, 1, WORDS_ANY, &rc);
    char path[512];

    if (i < 0)
        return rc;
    snprintf(path, sizeof(path), "sys/policies/acl/%s", argv[i]);
    rc = EXIT_REMOTE;
    if (client_call(&c, "GET", path, NULL, &r, &err) != 0 || (!reply_ok(&r) && r.status != 404)) {
        reply_fail(&c, &r, &err, "Error reading policy");
    } else if (r.status == 404) {
        fprintf(stderr, "No policy named: %s\n", argv[i]);
    } else if (c.format != OUT_TABLE) {
        rc = output_secret(&c, &r);
    } else {
        const char *text =
            json_string_value(json_object_get(json_object_get(r.json, "data"), "policy"));
        printf("%s\n", text ? text : "");
        rc = 0;
    }
    reply_free(&r);
    client_free(&c);
    return rc;
}

static int policy_write(int argc, char **argv)
{
    struct client c;
    struct err err = {0};
    struct buf text = {0};
    int rc, i = verb_begin("policy write [options] NAME FILE|-", NULL, 0, &c, argc, argv, 2,
                           WORDS_ANY, &rc);
    char path[512], done[600];
    json_t *body;

    if (i < 0)
        return rc;
    if (read_file(argv[i + 1], &text, &err) != 0) {
        fprintf(stderr, "Error opening policy file: %s\n", err.msg);
        client_free(&c);
        buf_free(&text);
        return EXIT_LOCAL;
    }
    body = json_pack("{s:s%}", "policy", buf_str(&text), text.len);
    snprintf(path, sizeof(path), "sys/policies/acl/%s", argv[i]);
    snprintf(done, sizeof(done), "Success! Uploaded policy: %s", argv[i]);
    buf_free(&text);
    return call_and_print(&c, "PUT", path, body, "Error uploading policy", done);
}

static int policy_delete(int argc, char **argv)
{
    struct client c;
    int rc,
        i = verb_begin("policy delete [options] NAME", NULL, 0, &c, argc, argv, 1, WORDS_ANY, &rc);
    char path[512], done[600];

    if (i < 0)
        return rc;
    snprintf(path, sizeof(path), "sys/policies/acl/%s", argv[i]);
    snprintf(done, sizeof(done), "Success! Deleted policy: %s", argv[i]);
    return call_and_print(&c, "DELETE", path, NULL, "Error deleting policy", done);
}

int cmd_policy(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"list", policy_list, "List policies"},
        {"read", policy_read, "Print a policy"},
        {"write", policy_write, "Upload a policy"},
        {"delete", policy_delete, "Delete a policy"},
    };

    return verb_run("policy", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
