/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * catalog.c - what this server has: sys/plugins/catalog, sys/internal/counters, and one table of
 * its paths, for sys/internal/specs/openapi and for GET path?help=1.
 *
 * A route takes a path and all below it to a handler that knows the rest, so it cannot say what a
 * caller may ask: the table does. A path of sys/ is in it if and only if it is routed, and what it
 * says of the other mounts is answered; tests hold both (test_catalog.c, api.py: described).
 */
#include <string.h>

#include "core.h"
#include "mounts.h"
#include "sys.h"
#include "token_private.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- paths ---- */

struct path_doc {
    const char *type; /* of the mount */
    const char
        *pattern;    /* below the mount; {name} stands for one segment, as the last for the rest */
    const char *ops; /* r(ead) w(rite) d(elete) l(ist) p(atch) */
    const char *help;
};
static const struct path_doc docs[] = {
    {"system", "init", "rw", "Initialise the server: make the root key and its shares."},
    {"system", "seal-status", "r", "Whether the server is sealed, and how many shares were given."},
    {"system", "unseal", "w", "Give one key share."},
    {"system", "seal", "w", "Seal the server."},
    {"system", "health", "r", "The server's state, as a status code."},
    {"system", "leader", "r", "The active node."},
    {"system", "step-down", "w", "Give up leadership; one node has nobody to give it to."},
    {"system", "ha-status", "r", "The nodes of the cluster."},
    {"system", "key-status", "r", "The current term of the barrier's keyring."},
    {"system", "rotate", "w", "Start a new term of the barrier's keyring."},
    {"system", "rotate/keyring", "w", "Start a new term of the barrier's keyring."},
    {"system", "rotate/config", "rw", "When the keyring is rotated by itself."},
    {"system", "generate-root/attempt", "rwd", "Start, look at or cancel making a root token."},
    {"system", "generate-root/update", "w", "Give one key share to the making of a root token."},
    {"system", "rekey/init", "rwd", "Start, look at or cancel making new unseal keys."},
    {"system", "rekey/update", "w", "Give one key share to a rekey."},
    {"system", "rekey/verify", "rwd", "Prove that the new unseal keys arrived."},
    {"system", "rekey/backup", "rd", "Backed-up unseal keys; there are none."},
    {"system", "decode-token", "w", "Decode a generated token with its one-time pad."},
    {"system", "mounts", "r", "List the secrets engines."},
    {"system", "mounts/{path}/tune", "rw", "Look at or change a mount's settings."},
    {"system", "mounts/{path}", "rwd", "Look at, enable or disable a secrets engine."},
    {"system", "remount", "w", "Move a mount to another path."},
    {"system", "remount/status/{id}", "r", "How far a move is."},
    {"system", "auth", "r", "List the auth methods."},
    {"system", "auth/{path}/tune", "rw", "Look at or change an auth method's settings."},
    {"system", "auth/{path}", "rwd", "Look at, enable or disable an auth method."},
    {"system", "policies/acl", "l", "List the policies."},
    {"system", "policies/acl/{name}", "rwd", "Look at, write or delete a policy."},
    {"system", "policy", "rl", "List the policies."},
    {"system", "policy/{name}", "rwd", "Look at, write or delete a policy."},
    {"system", "capabilities", "w", "What a token may do on paths."},
    {"system", "capabilities-self", "w", "What the caller's token may do on paths."},
    {"system", "capabilities-accessor", "w", "What the token of an accessor may do on paths."},
    {"system", "wrapping/wrap", "w", "Wrap the given data in a token that opens once."},
    {"system", "wrapping/lookup", "rw", "Look at a wrapping token without opening it."},
    {"system", "wrapping/unwrap", "w", "Open a wrapping token."},
    {"system", "wrapping/rewrap", "w", "Wrap what a wrapping token holds in a new one."},
    {"system", "wrapping/pubkey", "r", "The key that wrapping tokens in JWT form are signed with."},
    {"system", "leases/lookup", "w", "Look at a lease."},
    {"system", "leases/renew", "w", "Renew a lease."},
    {"system", "leases/revoke", "w", "Revoke a lease."},
    {"system", "leases/revoke-prefix/{prefix}", "w", "Revoke all leases under a prefix."},
    {"system", "leases/revoke-force/{prefix}", "w", "Revoke all leases under a prefix, and go on."},
    {"system", "leases/tidy", "w", "Clean up leases."},
    {"system", "audit", "r", "List the audit devices."},
    {"system", "audit/{path}", "wd", "Enable or disable an audit device."},
    {"system", "audit-hash/{path}", "w", "The hash of a value as an audit device writes it."},
    {"system", "config/cors", "rwd", "Which origins' pages may use the API."},
    {"system", "config/ui/headers", "l", "List the headers added to web pages."},
    {"system", "config/ui/headers/{header}", "rwd", "A header added to web pages."},
    {"system", "config/auditing/request-headers", "r",
     "List the request headers that are audited."},
    {"system", "config/auditing/request-headers/{header}", "rwd",
     "A request header that is audited."},
    {"system", "config/state/sanitized", "r", "The configuration, without secrets."},
    {"system", "loggers", "rwd", "The log levels."},
    {"system", "loggers/{name}", "rwd", "The log level of one component."},
    {"system", "metrics", "r", "Telemetry."},
    {"system", "in-flight-req", "r", "The requests under way."},
    {"system", "host-info", "r", "The machine."},
    {"system", "version-history", "l", "The versions that ran on this storage."},
    {"system", "plugins/catalog", "r", "List the engines and methods."},
    {"system", "plugins/catalog/{type}", "l", "List the engines or methods of one type."},
    {"system", "plugins/catalog/{type}/{name}", "r", "One engine or method."},
    {"system", "internal/counters/{kind}", "r", "How many tokens and entities there are."},
    {"system", "internal/specs/openapi", "r", "This document."},
    {"system", "internal/ui/mounts", "r", "The mounts that a user interface may show."},
    {"system", "internal/ui/mounts/{path}", "r", "The mount that holds a path."},
    {"system", "internal/ui/resultant-acl", "r", "What the caller's token may do."},
    {"system", "storage/snapshot", "r", "A snapshot of everything, sealed as it is stored."},
    {"system", "tools/random", "w", "Random bytes."},
    {"system", "tools/random/{bytes}", "w", "Random bytes."},
    {"system", "tools/hash", "w", "Hash the given data."},
    {"system", "tools/hash/{algorithm}", "w", "Hash the given data."},
    {"system", "replication/status", "r", "The state of replication."},
    {"system", "replication/dr/status", "r", "The state of DR replication."},
    {"system", "replication/performance/status", "r", "Performance replication; there is none."},
    {"system", "replication/merkle-check", "w",
     "Read all rows now, and compare them with the Merkle tree."},
    {"system", "replication/recover", "w", "Read the members again."},
    {"system", "replication/reindex", "w", "Make the Merkle tree anew from the stored rows."},
    {"system", "replication/dr/primary/enable", "w", "Make this cluster a DR primary."},
    {"system", "replication/dr/primary/disable", "w", "End DR replication on the primary."},
    {"system", "replication/dr/primary/secondary-token", "w",
     "Make an activation token for a secondary."},
    {"system", "replication/dr/primary/revoke-secondary", "w", "Cut a secondary off for good."},
    {"system", "replication/dr/primary/mode", "rw", "What an answer waits for on each secondary."},
    {"system", "replication/dr/primary/demote", "w",
     "Step down: become a secondary that follows nobody yet."},
    {"system", "replication/dr/primary/quorum", "rwd",
     "How many of the named secondaries must have a write."},
    {"system", "replication/dr/primary/switchover", "w",
     "Hand over to a secondary, and follow it."},
    {"system", "replication/dr/primary/retention", "rw",
     "How much of the log is kept for each secondary."},
    {"system", "replication/dr/primary/lost/show", "w",
     "Writes of a history that ended, as they were saved."},
    {"system", "replication/dr/primary/lost/delete", "w", "Delete saved writes."},
    {"system", "replication/dr/primary/lost/apply", "w",
     "Take saved writes of secrets in, where nothing was changed since."},
    {"system", "replication/dr/secondary/doctor", "w",
     "Would secondary/enable work from here? Changes nothing."},
    {"system", "replication/dr/secondary/generate-public-key", "w",
     "The key that a secondary token can be sealed to."},
    {"system", "replication/dr/secondary/enable", "w",
     "Make this cluster a DR secondary; its data is replaced."},
    {"system", "replication/dr/secondary/disable", "w",
     "Leave replication and stand alone; before the first copy is whole, with the data of before."},
    {"system", "replication/dr/secondary/promote", "rw",
     "What a promotion would lose; make this DR secondary the primary."},
    {"system", "replication/dr/secondary/update-primary", "w",
     "Follow another primary, with the same data."},
    {"system", "replication/dr/secondary/merkle-check", "w",
     "Read all rows now, and compare them with the Merkle tree."},
    {"system", "replication/dr/secondary/recover", "w", "Make the link to the primary anew."},
    {"system", "replication/dr/secondary/reindex", "w", "Take from the primary what differs."},
    {"system", "replication/dr/secondary/lost/show", "w",
     "Writes that only this cluster had, as they were saved."},
    {"system", "replication/dr/secondary/lost/delete", "w", "Delete saved writes."},
    {"system", "replication/dr/secondary/aside/delete", "w",
     "Delete what this cluster held before it became a secondary."},
    {"system", "replication/dr/secondary/drill", "rw",
     "Rehearse a promotion on a fork of the state."},
    {"system", "replication/dr/secondary/drill/stop", "w", "End the drill."},
    {"system", "replication/dr/secondary/generate-operation-token/attempt", "rwd",
     "Start, look at or cancel making a DR operation token."},
    {"system", "replication/dr/secondary/generate-operation-token/update", "w",
     "Give one key share to the making of a DR operation token."},
    {"system", "replication/dr/secondary/operation-token/delete", "w",
     "Delete a DR operation token."},
    {"token", "create", "w", "Create a token."},
    {"token", "create-orphan", "w", "Create a token without parent."},
    {"token", "create/{role}", "w", "Create a token by a role."},
    {"token", "lookup", "rw", "Look at a token."},
    {"token", "lookup-self", "rw", "Look at the caller's token."},
    {"token", "lookup-accessor", "w", "Look at the token of an accessor."},
    {"token", "renew", "w", "Renew a token."},
    {"token", "renew-self", "w", "Renew the caller's token."},
    {"token", "renew-accessor", "w", "Renew the token of an accessor."},
    {"token", "revoke", "w", "Revoke a token and its children."},
    {"token", "revoke-self", "w", "Revoke the caller's token and its children."},
    {"token", "revoke-accessor", "w", "Revoke the token of an accessor and its children."},
    {"token", "revoke-orphan", "w", "Revoke a token; its children become orphans."},
    {"token", "accessors", "l", "List the accessors of all tokens."},
    {"token", "roles", "l", "List the token roles."},
    {"token", "roles/{role}", "rwd", "Look at, write or delete a token role."},
    {"token", "tidy", "w", "Clean up after tokens."},
    {"approle", "role", "l", "List the roles."},
    {"approle", "role/{role_name}", "rwd", "Look at, write or delete a role."},
    {"approle", "role/{role_name}/role-id", "rw", "A role's id."},
    {"approle", "role/{role_name}/policies", "rwd", "The policies of a role's tokens."},
    {"approle", "role/{role_name}/period", "rwd", "The period of a role's tokens."},
    {"approle", "role/{role_name}/bind-secret-id", "rwd", "Whether a login needs a secret id."},
    {"approle", "role/{role_name}/secret-id-num-uses", "rwd", "How often a secret id is used."},
    {"approle", "role/{role_name}/secret-id-ttl", "rwd", "How long a secret id lives."},
    {"approle", "role/{role_name}/secret-id-bound-cidrs", "rwd", "Where logins come from."},
    {"approle", "role/{role_name}/token-bound-cidrs", "rwd", "Where a role's tokens are used."},
    {"approle", "role/{role_name}/token-num-uses", "rwd", "How often a role's token is used."},
    {"approle", "role/{role_name}/token-ttl", "rwd", "How long a role's token lives at first."},
    {"approle", "role/{role_name}/token-max-ttl", "rwd", "How long a role's token can live."},
    {"approle", "role/{role_name}/local-secret-ids", "r",
     "Whether secret ids are kept from other clusters: they never are."},
    {"approle", "role/{role_name}/secret-id", "wl", "Make a secret id; list the accessors of all."},
    {"approle", "role/{role_name}/secret-id/lookup", "w", "Look at a secret id."},
    {"approle", "role/{role_name}/secret-id/destroy", "wd", "Destroy a secret id."},
    {"approle", "role/{role_name}/secret-id-accessor/lookup", "w",
     "Look at a secret id by its accessor."},
    {"approle", "role/{role_name}/secret-id-accessor/destroy", "wd",
     "Destroy a secret id by its accessor."},
    {"approle", "role/{role_name}/custom-secret-id", "w", "Make a secret id of the given text."},
    {"approle", "tidy/secret-id", "w", "Remove the secret ids that have expired."},
    {"approle", "login", "w", "Log in."},
    {"userpass", "users", "l", "List the users."},
    {"userpass", "users/{username}", "rwd", "Look at, write or delete a user."},
    {"userpass", "users/{username}/password", "w", "Set a user's password."},
    {"userpass", "users/{username}/policies", "w", "Set a user's policies."},
    {"userpass", "login/{username}", "w", "Log in."},
    {"cubbyhole", "{path}", "rwdl", "A secret that only the caller's token can read."},
    {"kv", "{path}", "rwdl", "A secret."},
    {"kv2", "data/{path}", "rwdp", "A version of a secret."},
    {"kv2", "metadata/{path}", "rwdlp", "A secret's versions and settings."},
    {"kv2", "delete/{path}", "w", "Mark versions as deleted."},
    {"kv2", "undelete/{path}", "w", "Take back a deletion."},
    {"kv2", "destroy/{path}", "w", "Destroy versions for good."},
    {"kv2", "subkeys/{path}", "r", "A secret's keys without their values."},
    {"kv2", "config", "rw", "Settings of all secrets of the mount."},
};

const char *catalog_path_at(size_t i, const char **typep, const char **opsp)
{
    if (i >= COUNT(docs))
        return NULL;
    *typep = docs[i].type;
    *opsp = docs[i].ops;
    return docs[i].pattern;
}

static const char *doc_type(const struct mount *m)
{
    return m->kv_version == 2 ? "kv2" : m->type;
}

static bool pattern_matches(const char *pattern, const char *path)
{
    for (;;) {
        size_t pn = strcspn(pattern, "/"), sn = strcspn(path, "/");

        if (*pattern == '{' && pattern[pn] == '\0')
            return *path != '\0'; /* the rest */
        if (*pattern == '{' ? sn == 0 : pn != sn || memcmp(pattern, path, pn) != 0)
            return false;
        if (pattern[pn] == '\0' || path[sn] == '\0')
            return pattern[pn] == '\0' && (path[sn] == '\0' || path[sn + 1] == '\0');
        pattern += pn + 1;
        path += sn + 1;
    }
}

/* Of those that fit, the longest says most. */
static const struct path_doc *doc_find(const char *type, const char *path)
{
    const struct path_doc *best = NULL;

    for (size_t i = 0; i < COUNT(docs); i++)
        if (strcmp(docs[i].type, type) == 0 && pattern_matches(docs[i].pattern, path) &&
            (best == NULL || strlen(docs[i].pattern) > strlen(best->pattern)))
            best = &docs[i];
    return best;
}

/* ---- OpenAPI ---- */

static json_t *parameters_of(const char *path)
{
    json_t *list = json_array();

    for (const char *p = strchr(path, '{'); p != NULL; p = strchr(p + 1, '{'))
        json_array_append_new(list, json_pack("{s:s#, s:s, s:b, s:{s:s}}", "name", p + 1,
                                              (int)strcspn(p + 1, "}"), "in", "path", "required", 1,
                                              "schema", "type", "string"));
    return list;
}

static json_t *operation(const struct path_doc *d, const char *status, bool list)
{
    json_t *o =
        json_pack("{s:s, s:{s:{s:s}}}", "summary", d->help, "responses", status, "description",
                  status[1] == '0' && status[2] == '4' ? "empty body" : "OK");

    if (list)
        json_object_set_new(o, "parameters",
                            json_pack("[{s:s, s:s, s:s, s:{s:s, s:[s]}}]", "name", "list", "in",
                                      "query", "description", "Must be set to `true` to list.",
                                      "schema", "type", "string", "enum", "true"));
    return o;
}

static json_t *path_item(const struct path_doc *d, const char *path)
{
    json_t *item =
        json_pack("{s:s, s:o}", "description", d->help, "parameters", parameters_of(path));
    bool read = strchr(d->ops, 'r') != NULL;

    if (read || strchr(d->ops, 'l') != NULL)
        json_object_set_new(item, "get", operation(d, "200", !read));
    if (strchr(d->ops, 'w') != NULL)
        json_object_set_new(item, "post", operation(d, "200", false));
    if (strchr(d->ops, 'd') != NULL)
        json_object_set_new(item, "delete", operation(d, "204", false));
    if (strchr(d->ops, 'p') != NULL)
        json_object_set_new(item, "patch", operation(d, "200", false));
    return item;
}

static json_t *document(json_t *paths) /* steals */
{
    return json_pack("{s:s, s:{s:s, s:s, s:s}, s:o}", "openapi", "3.0.2", "info", "title",
                     "Lockstep API", "description", "HTTP API under /v1", "version",
                     LOCKSTEP_VERSION_TEXT, "paths", paths);
}

static void add_mount(struct request *rq, const struct mount *m, json_t *paths)
{
    const char *type = doc_type(m);

    for (size_t i = 0; i < COUNT(docs); i++) {
        const char *path;

        if (strcmp(docs[i].type, type) != 0)
            continue;
        path = arena_printf(rq->arena, "/%s%s", m->path, docs[i].pattern);
        if (path != NULL)
            json_object_set_new(paths, path, path_item(&docs[i], path));
    }
}

void sys_openapi(struct request *rq, struct response *rs)
{
    struct mount_table *t = NULL;
    json_t *paths;
    struct err err = {0};

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    paths = json_object();
    for (size_t i = 0; mount_at(t, i) != NULL; i++)
        add_mount(rq, mount_at(t, i), paths);
    mount_table_unref(t);
    rs->raw = document(paths);
    if (rs->raw == NULL)
        reply_router_error(rs, 500, "out of memory");
}

void help_handle(struct request *rq, struct response *rs)
{
    const struct path_doc *d = rq->mount != NULL ? doc_find(doc_type(rq->mount), rq->path) : NULL;
    const char *path;
    json_t *paths;

    if (d == NULL) {
        reply_router_error(rs, 404, "unsupported path");
        return;
    }
    path = arena_printf(rq->arena, "/%s%s", rq->mount->path, d->pattern);
    paths = json_object();
    if (path != NULL)
        json_object_set_new(paths, path, path_item(d, path));
    rs->raw = json_pack("{s:s, s:n, s:o}", "help", d->help, "see_also", "openapi", document(paths));
    if (rs->raw == NULL)
        reply_router_error(rs, 500, "out of memory");
}

/* ---- sys/plugins/catalog ---- */

static const struct {
    const char *type, *name;
} builtins[] = {{"auth", "approle"}, {"auth", "userpass"}, {"secret", "kv"}};

static json_t *plugin_names(const char *type)
{
    json_t *list = json_array();

    for (size_t i = 0; i < COUNT(builtins); i++)
        if (strcmp(builtins[i].type, type) == 0)
            json_array_append_new(list, json_string(builtins[i].name));
    return list;
}

static void plugin_all(struct response *rs)
{
    json_t *detailed = json_array();

    for (size_t i = 0; i < COUNT(builtins); i++)
        json_array_append_new(detailed,
                              json_pack("{s:s, s:s, s:b, s:s, s:s}", "name", builtins[i].name,
                                        "type", builtins[i].type, "builtin", 1, "version",
                                        "v" LOCKSTEP_VERSION_TEXT "+builtin", "deprecation_status",
                                        "supported"));
    reply_data(rs, json_pack("{s:o, s:o, s:o, s:o}", "auth", plugin_names("auth"), "database",
                             plugin_names("database"), "secret", plugin_names("secret"), "detailed",
                             detailed));
}

static void plugin_one(struct request *rq, struct response *rs, const char *rest)
{
    size_t n = strcspn(rest, "/");

    for (size_t i = 0; i < COUNT(builtins); i++)
        if (strncmp(rest, builtins[i].type, n) == 0 && builtins[i].type[n] == '\0' &&
            strcmp(rest + n + 1, builtins[i].name) == 0) {
            if (rq->op != OP_READ)
                reply_error(rs, 400, "plugins come with the program and cannot be changed");
            else
                reply_data(rs, json_pack("{s:n, s:b, s:s, s:s, s:s, s:s, s:s}", "args", "builtin",
                                         1, "command", "", "name", builtins[i].name, "sha256", "",
                                         "version", "v" LOCKSTEP_VERSION_TEXT "+builtin",
                                         "deprecation_status", "supported"));
            return;
        }
    if (rq->op == OP_READ)
        reply_no_errors(rs, 404);
    else if (rq->op == OP_DELETE)
        reply_empty(rs);
    else
        reply_error(rs, 400, "plugins of others are not supported");
}

void sys_plugins(struct request *rq, struct response *rs)
{
    const char *rest = rq->path + strlen("plugins/catalog");
    size_t n;

    if (*rest == '/')
        rest++;
    n = strcspn(rest, "/");
    if (*rest == '\0' && rq->op == OP_READ)
        plugin_all(rs);
    else if (*rest != '\0' && rest[n] == '/' && rest[n + 1] != '\0')
        plugin_one(rq, rs, rest);
    else if (*rest != '\0' && rq->op == OP_LIST)
        reply_data(rs, json_pack("{s:o}", "keys",
                                 plugin_names(arena_printf(rq->arena, "%.*s", (int)n, rest))));
    else
        reply_unsupported(rs);
}

/* ---- sys/internal/counters ---- */

#define COUNT_AT_ONCE 4096

struct counting { /* for the helper thread: a large store is walked for a while */
    struct engine *engine;
    uint64_t n;
    size_t in_chunk;
    char last[TOKEN_PATH_BYTES];
    struct err err;
};

static int count_each(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                      struct err *err)
{
    struct counting *cn = arg;

    (void)value;
    (void)len;
    (void)lsn;
    (void)err;
    cn->in_chunk++;
    snprintf(cn->last, sizeof(cn->last), "%s", key);
    return 0;
}

static void count_work(void *arg)
{
    struct counting *cn = arg;

    do {
        cn->in_chunk = 0;
        if (engine_scan(cn->engine, TOKEN_ID_PREFIX, cn->n > 0 ? cn->last : NULL, COUNT_AT_ONCE,
                        true, count_each, cn, &cn->err) != 0)
            return;
        cn->n += cn->in_chunk;
    } while (cn->in_chunk == COUNT_AT_ONCE);
}

void sys_counters(struct request *rq, struct response *rs)
{
    const char *kind = rq->path + strlen("internal/counters/");
    struct counting cn = {.engine = rq->core->engine};

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
    } else if (strcmp(kind, "requests") == 0) {
        reply_error(rs, 404, "The functionality has been removed on this path");
    } else if (strcmp(kind, "entities") == 0) {
        reply_data(rs, json_pack("{s:{s:{s:i}}}", "counters", "entities", "total", 0));
    } else if (strcmp(kind, "tokens") == 0) {
        co_blocking(count_work, &cn);
        if (cn.err.code != 0)
            reply_err(rs, &cn.err);
        else
            reply_data(rs, json_pack("{s:{s:{s:I}}}", "counters", "service_tokens", "total",
                                     (json_int_t)cn.n));
    } else {
        reply_unsupported_path(rs);
    }
}
