/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * router.c - from an HTTP request to a handler, and from its response to Vault's envelope.
 *
 * The order is Vault's: path, sealed, method, raw endpoints, role, slash rule, body, token, policy,
 * mount, handler, wrapping. Nothing behind the seal or the role gate runs when they are shut;
 * nothing behind the token check without a token, but the open paths.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "audit.h"
#include "core.h"
#include "core_private.h"
#include "mounts.h"
#include "policy.h"
#include "replication_private.h"
#include "router.h"
#include "sys.h"
#include "token.h"

#define HEADERS_FIRST_BYTES 400 /* most answers need no more */

/* One exchange: what the steps below share. */
struct exchange {
    struct core *core;
    struct http_request *http;
    struct http_response *out;
    struct request rq;
    struct response rs;
    int role; /* read once: the gate and what runs behind it must not see two */
    struct ack ack;
    bool head;
    bool help; /* ?help=1: of the path, not its content */
    struct audit_facts facts;
    bool told; /* the audit devices have the request: they get the answer, too */
};

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* ---- endpoints outside the envelope ---- */

struct raw_endpoint {
    const char *path;
    handler_fn *handle;
    bool sealed;    /* answers while sealed */
    bool need_body; /* an empty body is an error */
};
static const struct raw_endpoint raw_endpoints[] = {
    {"sys/init", seal_handle, true, true},
    {"sys/seal-status", seal_handle, true, false},
    {"sys/unseal", seal_handle, true, true},
    {"sys/health", health_handle, true, false},
    {"sys/leader", leader_handle, true, false},
    {"sys/generate-root/attempt", generate_root_handle, false, false},
    {"sys/generate-root/update", generate_root_handle, false, true},
    {"sys/replication/dr/secondary/generate-operation-token/attempt", generate_root_handle, false,
     false},
    {"sys/replication/dr/secondary/generate-operation-token/update", generate_root_handle, false,
     true},
    {"sys/rekey/init", rekey_handle, false, true},
    {"sys/rekey/update", rekey_handle, false, true},
    {"sys/rekey/verify", rekey_handle, false, true},
};

const char *router_raw_at(size_t i)
{
    return i < sizeof(raw_endpoints) / sizeof(raw_endpoints[0]) ? raw_endpoints[i].path : NULL;
}

static const struct raw_endpoint *raw_find(const char *path)
{
    if (!starts(path, "sys/"))
        return NULL;
    for (size_t i = 0; i < sizeof(raw_endpoints) / sizeof(raw_endpoints[0]); i++)
        if (strcmp(raw_endpoints[i].path, path) == 0)
            return &raw_endpoints[i];
    return NULL;
}

/* What a DR secondary answers besides the raw endpoints that work sealed; its own ceremony and the
 * rest are by prefix. What asks for a token is none of it: the kv commands, which ask for their
 * mount first, are told where they are. */
static bool open_on_secondary(const char *path)
{
    static const char *const exact[] = {
        "sys/replication/status", "sys/replication/dr/status", "sys/replication/performance/status",
        "sys/wrapping/lookup",    "sys/wrapping/pubkey",       "sys/license/status",
        "sys/internal/ui/mounts"};

    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
        if (strcmp(path, exact[i]) == 0)
            return true;
    return starts(path, "sys/replication/dr/secondary/");
}

/* Metrics without a token, where the listener says so. */
static bool open_metrics(const struct exchange *x)
{
    const struct config_listener *l = x->http->listener;

    return strcmp(x->rq.full_path, "sys/metrics") == 0 && l != NULL &&
           l->unauthenticated_metrics_access;
}

/* Paths that need no token. */
static bool open_path(const char *path)
{
    static const char *const exact[] = {
        "sys/replication/status", "sys/replication/dr/status", "sys/replication/performance/status",
        "sys/wrapping/lookup",    "sys/wrapping/pubkey",       "sys/decode-token",
        "sys/internal/ui/mounts"};

    if (!starts(path, "sys/"))
        return false;
    for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++)
        if (strcmp(path, exact[i]) == 0)
            return true;
    /* On a primary most of these answer that it is no secondary. */
    if (starts(path, "sys/replication/dr/secondary/"))
        return !replication_wants_token(path + strlen("sys/replication/"));
    return starts(path, "sys/internal/ui/mounts/");
}

/* Paths that need the sudo capability besides. A trailing '*' is a prefix. */
static bool sudo_path(const char *path)
{
    static const char *const paths[] = {"sys/seal",
                                        "sys/step-down",
                                        "sys/rotate",
                                        "sys/rotate/*",
                                        "sys/audit",
                                        "sys/audit/*",
                                        "sys/auth/*",
                                        "sys/raw*",
                                        "sys/remount",
                                        "sys/config/cors",
                                        "sys/config/ui/headers*",
                                        "sys/config/auditing/request-headers*",
                                        "sys/leases/lookup/*",
                                        "sys/leases/revoke-prefix/*",
                                        "sys/leases/revoke-force/*",
                                        "sys/plugins/catalog/*",
                                        "auth/token/accessors*",
                                        "auth/token/revoke-orphan",
                                        "sys/internal/inspect/router/*",
                                        "sys/replication/reindex",
                                        "sys/replication/dr/primary/secondary-token",
                                        "sys/replication/dr/primary/lost/*",
                                        "sys/replication/dr/primary/switchover",
                                        "sys/replication/dr/secondary/aside/delete",
                                        "sys/replication/primary/secondary-token"};

    if (!starts(path, "sys/") && !starts(path, "auth/"))
        return false;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        size_t n = strlen(paths[i]);
        if (paths[i][n - 1] == '*' ? strncmp(path, paths[i], n - 1) == 0
                                   : strcmp(path, paths[i]) == 0)
            return true;
    }
    return false;
}

/* ---- reading the request ---- */

/* 0: go on; -1: answered. */
static int find_path(struct exchange *x, const char **queryp)
{
    struct response *rs = &x->rs;
    const char *target = x->http->target, *query = strchr(target, '?'), *clean;
    size_t len = query != NULL ? (size_t)(query - target) : strlen(target);
    char *path;

    *queryp = query != NULL ? query + 1 : "";
    clean = path_clean(x->http->arena, target, len);
    if (clean != NULL) {
        rs->status = 307;
        rs->text = "";
        buf_printf(&x->out->headers, "Location: %s%s\r\n", clean, query != NULL ? query : "");
        return -1;
    }
    path = percent_decode(x->http->arena, target, len, false);
    if (path == NULL || !path_printable(path)) {
        rs->status = 400;
        rs->text = "";
        return -1;
    }
    if (path_relative(path)) {
        reply_error(rs, 400, "relative paths not supported");
        return -1;
    }
    if (ui_path(path)) {
        ui_answer(x->core, x->http->method, path, rs, &x->out->headers);
        return -1;
    }
    if (!starts(path, "/v1/") || path[4] == '\0') {
        reply_no_errors(rs, 404);
        return -1;
    }
    x->rq.full_path = path + 4;
    return 0;
}

static int check_namespace(struct exchange *x)
{
    const char *ns = http_header(x->http, "X-Vault-Namespace");
    size_t len;

    if (ns == NULL)
        return 0;
    buf_printf(&x->out->headers, "X-Vault-Namespace: %s\r\n", ns);
    len = strlen(ns);
    if (len > 0 && ns[len - 1] == '/')
        len--;
    if (len == 0 || (len == 4 && memcmp(ns, "root", 4) == 0))
        return 0;
    reply_error(&x->rs, 404, "namespace not found");
    return -1;
}

/* raw: an endpoint outside the envelope; those know no lists. */
static int find_op(struct exchange *x, bool raw)
{
    static const struct {
        const char *method;
        enum op op;
    } methods[] = {{"GET", OP_READ},      {"POST", OP_WRITE}, {"PUT", OP_WRITE},
                   {"DELETE", OP_DELETE}, {"LIST", OP_LIST},  {"PATCH", OP_PATCH}};
    const char *method = x->http->method, *list, *help;
    bool yes = false;

    if (x->head) {
        x->rq.op = OP_READ;
        if (strcmp(x->rq.full_path, "sys/health") == 0)
            return 0;
        reply_no_errors(&x->rs, 405);
        return -1;
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(method, methods[i].method) != 0)
            continue;
        x->rq.op = methods[i].op;
        if (x->rq.op != OP_READ || json_object_size(x->rq.query) == 0)
            return 0;
        list = raw ? NULL : json_string_value(json_object_get(x->rq.query, "list"));
        help = json_string_value(json_object_get(x->rq.query, "help"));
        x->help = help != NULL && parse_bool(help, &yes) == 0 && yes;
        yes = false;
        if (list != NULL && list[0] != '\0' && parse_bool(list, &yes) != 0) {
            reply_no_errors(&x->rs, 400);
            return -1;
        }
        if (yes)
            x->rq.op = OP_LIST;
        return 0;
    }
    reply_no_errors(&x->rs, 405);
    return -1;
}

static bool has_type(const char *content_type, const char *want)
{
    size_t n = strlen(want);

    return content_type != NULL && strncasecmp(content_type, want, n) == 0 &&
           (content_type[n] == '\0' || content_type[n] == ';' || content_type[n] == ' ');
}

static int patch_type(struct exchange *x, const char *type)
{
    if (x->rq.op != OP_PATCH || has_type(type, "application/merge-patch+json"))
        return 0;
    if (type == NULL || type[0] == '\0')
        reply_error(&x->rs, 400, "mime: no media type");
    else
        reply_error(&x->rs, 415,
                    "PATCH requires Content-Type of application/merge-patch+json, provided %s",
                    type);
    return -1;
}

/* A form only when it says so and does not look like JSON: `curl -d '{...}'` says so, too. */
static bool is_form(const struct http_request *http, const char *type)
{
    size_t i = 0;

    while (i < http->body_len && strchr(" \t\r\n", http->body[i]) != NULL)
        i++;
    return has_type(type, "application/x-www-form-urlencoded") &&
           (i == http->body_len || (http->body[i] != '{' && http->body[i] != '['));
}

/* The fields into rq.data: those of the body where the operation has one, else those of the query.
 * raw: the texts of the endpoints outside the envelope. */
static int read_body(struct exchange *x, const struct raw_endpoint *raw)
{
    const char *type = http_header(x->http, "Content-Type");
    struct request *rq = &x->rq;
    json_t *body = NULL;
    struct err err = {0};

    rq->body_absent = true;
    if (rq->op != OP_WRITE && rq->op != OP_PATCH && !(raw != NULL && rq->op == OP_DELETE)) {
        rq->data = json_copy(rq->query);
        if (json_object_size(rq->data) > 0) {
            json_object_del(rq->data, "list");
            json_object_del(rq->data, "help");
        }
        return 0;
    }
    rq->data = json_object();
    if (raw == NULL && patch_type(x, type) != 0)
        return -1;
    if (x->http->body_len == 0) {
        if (raw == NULL || !raw->need_body || rq->op != OP_WRITE)
            return 0;
        reply_error(&x->rs, 400, "EOF");
        return -1;
    }
    if (raw == NULL && is_form(x->http, type))
        body = form_parse(x->http->arena, (const char *)x->http->body, x->http->body_len);
    else
        body = json_read(x->http->body, x->http->body_len, &err);
    if (body == NULL && err.code == ERR_NOMEM) {
        reply_err(&x->rs, &err);
        return -1;
    }
    if (body == NULL || (!json_is_object(body) && !json_is_null(body))) {
        if (raw == NULL || !raw->need_body)
            reply_error(&x->rs, 400, "error parsing JSON");
        else
            reply_error(&x->rs, 400, "failed to parse JSON input: %s",
                        body == NULL ? err.msg : "it is not an object");
        json_decref(body);
        return -1;
    }
    if (!json_is_object(body)) {
        json_decref(body);
        return 0;
    }
    rq->body_absent = false;
    json_decref(rq->data);
    rq->data = body;
    return 0;
}

static int read_wrap(struct exchange *x)
{
    const char *ttl = http_header(x->http, "X-Vault-Wrap-TTL"),
               *format = http_header(x->http, "X-Vault-Wrap-Format");
    struct err err = {0};

    if (ttl == NULL)
        return 0;
    if (parse_seconds(ttl, &x->rq.wrap_ttl_s, &err) != 0) {
        reply_error(&x->rs, 400, "error parsing X-Vault-Wrap-TTL header: %s", err.msg);
        return -1;
    }
    if (x->rq.wrap_ttl_s < 0) {
        reply_error(&x->rs, 400,
                    "error parsing X-Vault-Wrap-TTL header: requested wrap ttl cannot be negative");
        return -1;
    }
    x->rq.wrap_jwt = format != NULL && strcmp(format, "jwt") == 0;
    return 0;
}

static const char *find_token(const struct http_request *http)
{
    const char *token = http_header(http, "X-Vault-Token"), *bearer;

    if (token != NULL && token[0] != '\0')
        return token;
    bearer = http_header(http, "Authorization");
    return bearer != NULL && starts(bearer, "Bearer ") && bearer[7] != '\0' ? bearer + 7 : NULL;
}

/* ---- gates ---- */

/* Before all that may be wrong with the request itself: a client that waits for the unseal must not
 * take that for its own mistake. */
static int check_seal(struct exchange *x, const struct raw_endpoint *raw)
{
    const char *method = x->http->method;

    if ((raw != NULL && raw->sealed) || !core_sealed(x->core))
        return 0;
    if (strcmp(x->rq.full_path, "sys/seal") == 0 &&
        (strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0))
        reply_empty(&x->rs);
    else
        reply_error(&x->rs, 503, "Vault is sealed");
    return -1;
}

#define CONFIRM_LOOK_NS (5 * 1000000LL)
#define CONFIRM_LOOKS 6000 /* 30 s: the engine ends it within fence_wait */

/* Somebody may have been promoted while this cluster was away: nothing is read before that is
 * known. Looked at again and again, since it comes once in a process's life as a rule. */
static int await_epoch(struct exchange *x)
{
    for (int i = 0; i < CONFIRM_LOOKS; i++) {
        if (x->core->role != ENGINE_PRIMARY || !engine_confirming(x->core->engine)) {
            x->role = x->core->role;
            return 0;
        }
        (void)co_wait_for(CONFIRM_LOOK_NS);
    }
    reply_error(&x->rs, 503, "epoch_unconfirmed: the members are still being asked");
    return -1;
}

static int check_role(struct exchange *x, bool raw_sealed)
{
    int role = x->role;
    struct engine_status *st;

    if (raw_sealed)
        return 0;
    if (role == ENGINE_PRIMARY) {
        char names[160];

        /* Writes that were answered may be missing yet. What cures that goes on. */
        if (!engine_unsettled(x->core->engine) || starts(x->rq.full_path, "sys/replication/") ||
            open_metrics(x))
            return 0;
        engine_unconfirmed(x->core->engine, 0, names, sizeof(names));
        reply_error(&x->rs, 503,
                    "unsettled: the end of the log waits for %s to confirm it since the restart",
                    names[0] != '\0' ? names : "a secondary");
        return -1;
    }
    if (role == ENGINE_FENCED) {
        if (starts(x->rq.full_path, "sys/replication/") || open_metrics(x))
            return 0;
        st = arena_alloc(x->http->arena, sizeof(*st)); /* large: not on a coroutine's stack */
        if (st != NULL)
            engine_status(x->core->engine, st);
        if (st != NULL && st->reason[0] != '\0' && strcmp(st->reason, "fenced") != 0)
            reply_error(&x->rs, 503, "%s", st->reason);
        else
            reply_error(&x->rs, 503, "superseded by epoch %u", st != NULL ? st->epoch : 0);
        return -1;
    }
    if (open_on_secondary(x->rq.full_path) || open_metrics(x))
        return 0;
    reply_error(&x->rs, 400, "path disabled in replication DR secondary mode");
    return -1;
}

/* A write of a secret that would only join a queue is refused before any work is done for it, so
 * that those in the queue are answered in time. What operates the cluster, and what takes tokens
 * away, is not held up. */
static int check_load(struct exchange *x)
{
    const struct request *rq = &x->rq;

    if (rq->op == OP_READ || rq->op == OP_LIST ||
        atomic_load(&x->core->commits_waiting) < COMMITS_WAITING_MAX ||
        starts(rq->full_path, "sys/") || starts(rq->full_path, "auth/"))
        return 0;
    reply_error(&x->rs, 503, "overloaded: %u writes wait for the disk or a secondary; try again",
                COMMITS_WAITING_MAX);
    x->rs.retry_after_s = 1;
    return -1;
}

/* Whose token the client sent; -1: answered. */
static int client_token(struct exchange *x, struct token **tokenp)
{
    struct err err = {0};

    if (token_lookup(&x->rq, x->rq.client_token, tokenp, &err) != 0) {
        reply_err(&x->rs, &err);
        return -1;
    }
    if (!token_from_here(&x->rq, *tokenp)) {
        reply_error(&x->rs, 403, "permission denied");
        return -1;
    }
    return 0;
}

/* Token and its use. 0: rq.token is set. */
static int check_token(struct exchange *x, struct token **tokenp, bool *lastp)
{
    struct err err = {0};

    if (x->rq.client_token == NULL) {
        reply_error(&x->rs, 403, "permission denied");
        return -1;
    }
    if (client_token(x, tokenp) != 0)
        return -1;
    if (token_use(&x->rq, *tokenp, lastp, &err) != 0) {
        reply_err(&x->rs, &err);
        return -1;
    }
    x->rq.token = *tokenp;
    return 0;
}

static bool is_root(const struct token *t)
{
    return json_array_size(t->policies) > 0 &&
           strcmp(json_string_value(json_array_get(t->policies, 0)), "root") == 0;
}

static void not_audited(struct exchange *x)
{
    if (strcmp(x->rq.full_path, "sys/seal") == 0)
        reply_error(&x->rs, 500, "failed to audit request, cannot continue");
    else
        reply_error(&x->rs, 500,
                    "internal error: no audit device took the line of the request (reasons in "
                    "sys/replication/dr/status; its file is tried again every ten seconds)");
}

/* Open to all, without a secret, and where an operator finds out why nothing else is answered. */
static bool tells_status(const struct request *rq)
{
    const char *last = strrchr(rq->full_path, '/');

    return rq->op == OP_READ && starts(rq->full_path, "sys/replication/") &&
           strcmp(last, "/status") == 0;
}

/* The request's line. Nothing is executed without it, but on a fenced cluster: that serves only
 * what ends its being one, and its files may be gone with what made it fall. */
static int audit_it(struct exchange *x, bool allowed)
{
    const char *error = json_string_value(json_array_get(x->rs.errors, 0));

    x->facts.allowed = allowed;
    x->facts.error = error != NULL ? arena_strdup(x->rq.arena, error) : NULL;
    x->told = audit_request(&x->rq, &x->facts) == 0;
    if (x->told || x->role == ENGINE_FENCED || tells_status(&x->rq))
        return 0;
    not_audited(x);
    return -1;
}

/* The mount's handler, after the policy has decided. */
static void run_mount(struct exchange *x, const struct mount *m, bool checked)
{
    struct request *rq = &x->rq;
    bool exists = true;

    if (rq->op == OP_READ && x->help) {
        help_handle(rq, &x->rs);
        return;
    }
    if (checked) {
        /* Root may do both: it is asked only where somebody is told which it was. */
        if (rq->op == OP_WRITE && m != NULL && m->exists != NULL &&
            (!is_root(rq->token) || audit_on(rq)))
            exists = m->exists(rq);
        x->facts.create = !exists;
        if (policy_check(rq, &x->rs, exists, sudo_path(rq->full_path)) != 0) {
            (void)!audit_it(x, false);
            return;
        }
    }
    if (audit_it(x, true) != 0)
        return;
    if (m == NULL)
        reply_error(&x->rs, 404, "no handler for route \"%s\". route entry not found.",
                    rq->full_path);
    else
        m->handle(rq, &x->rs);
}

/* The answer's line goes before the answer; what a primary did not write down it does not tell. */
static void audit_answer(struct exchange *x)
{
    x->facts.error = NULL;
    if (x->told && audit_response(&x->rq, &x->rs, &x->facts) != 0 && x->role == ENGINE_PRIMARY &&
        !tells_status(&x->rq))
        not_audited(x);
}

/* A login is open, as far as its mount's type says that it is one. */
static bool login_path(const struct mount *m, const char *rest)
{
    return m != NULL && m->auth && strcmp(m->type, "token") != 0 &&
           (strcmp(rest, "login") == 0 || starts(rest, "login/"));
}

static void run_wrapped(struct exchange *x)
{
    struct response *rs = &x->rs;
    struct err err = {0};

    if (x->rq.wrap_ttl_s == 0 || rs->no_wrap || rs->errors != NULL || rs->wrap != NULL ||
        rs->raw != NULL || rs->text != NULL ||
        (rs->data == NULL && rs->data_text == NULL && rs->auth == NULL) || rs->status >= 300)
        return;
    if (response_data(rs, &err) != 0 ||
        wrapping_wrap(&x->rq, rs, x->rq.wrap_ttl_s, x->rq.wrap_jwt, &err) != 0)
        reply_err(rs, &err);
}

static void run_logical(struct exchange *x)
{
    struct request *rq = &x->rq;
    struct mount_table *table = NULL;
    struct token *token = NULL;
    const struct mount *m;
    const char *rest = "";
    bool last = false, open = open_path(rq->full_path) || open_metrics(x);
    struct err err = {0};

    /* A fenced cluster has no DR tokens, but its own. */
    if (x->role == ENGINE_FENCED &&
        strcmp(rq->full_path, "sys/replication/dr/secondary/promote") == 0)
        open = false;

    if (starts(rq->full_path, "sys/wrapping/") &&
        (strcmp(rq->full_path, "sys/wrapping/lookup") == 0 ||
         strcmp(rq->full_path, "sys/wrapping/unwrap") == 0 ||
         strcmp(rq->full_path, "sys/wrapping/rewrap") == 0) &&
        wrapping_precheck(rq, &x->rs) != 0) {
        (void)!audit_it(x, false);
        audit_answer(x);
        return;
    }
    if (x->role != ENGINE_PRIMARY && x->role != ENGINE_FENCED) {
        /* Only sys paths pass the role gate; their table may be another cluster's in the making. */
        rq->path = rq->full_path + strlen("sys/");
        /* The devices are the primary's, the files may not be there yet: nothing is refused for it,
         * least of all a promotion. */
        x->facts.allowed = true;
        x->told = audit_request(rq, &x->facts) == 0;
        sys_handle(rq, &x->rs);
        audit_answer(x);
        return;
    }
    if (mount_table_get(x->core, &table, &err) != 0) {
        reply_err(&x->rs, &err);
        return;
    }
    m = mount_find(table, rq->full_path, &rest);
    rq->path = m != NULL ? rest : rq->full_path;
    rq->mount = m;
    open = open || login_path(m, rest);
    if (!open) {
        if (check_token(x, &token, &last) != 0) {
            (void)!audit_it(x, false);
            goto out;
        }
    } else if (rq->client_token != NULL && starts(rq->full_path, "sys/internal/ui/")) {
        if (client_token(x, &token) != 0) {
            (void)!audit_it(x, false);
            goto out;
        }
        rq->token = token;
    }
    run_mount(x, m, !open);
    if (open && !starts(rq->full_path, "sys/replication/"))
        reply_unwrap_error(&x->rs);
    run_wrapped(x);
    if (last && token_revoke(x->core, token->hmac, &err) != 0)
        log_error(x->core->log, "core", "failed to revoke token after its last use: %s", err.msg);
out:
    audit_answer(x); /* while there is the mount that it speaks of */
    mount_table_unref(table);
}

static void run(struct exchange *x)
{
    struct request *rq = &x->rq;
    const struct raw_endpoint *raw;
    const char *query;
    size_t len;

    if (cors_check(x->core, x->http, &x->rs, &x->out->headers) != 0 || find_path(x, &query) != 0)
        return;
    raw = raw_find(rq->full_path);
    if (check_seal(x, raw) != 0 || check_namespace(x) != 0)
        return;
    rq->query = query_parse(x->http->arena, query, strlen(query));
    if (rq->query == NULL) {
        reply_error(&x->rs, 400, "invalid query");
        return;
    }
    if (find_op(x, raw != NULL) != 0)
        return;
    if ((raw == NULL || !raw->sealed) && await_epoch(x) != 0)
        return;
    if (check_role(x, raw != NULL && raw->sealed) != 0)
        return;
    if (x->role == ENGINE_PRIMARY && (raw == NULL || !raw->sealed) &&
        index_demanded(x->core, x->http, &x->rs) != 0)
        return;
    len = strlen(rq->full_path);
    if ((rq->op == OP_WRITE || rq->op == OP_PATCH) && rq->full_path[len - 1] == '/') {
        reply_error(&x->rs, 400, "cannot write to a path ending in '/'");
        return;
    }
    if (check_load(x) != 0 || read_body(x, raw) != 0)
        return;
    rq->client_token = find_token(x->http);
    if (raw != NULL) {
        rq->path = rq->full_path + strlen("sys/");
        raw->handle(rq, &x->rs);
        return;
    }
    if (read_wrap(x) != 0 || ack_read(&x->ack, x->http, &x->rs) != 0)
        return;
    if (rq->op == OP_LIST && rq->full_path[len - 1] != '/')
        rq->full_path = arena_printf(rq->arena, "%s/", rq->full_path);
    if (rq->full_path == NULL)
        reply_router_error(&x->rs, 500, "out of memory");
    else
        run_logical(x);
}

void router_handle(void *arg, struct http_request *http, struct http_response *out)
{
    struct exchange x = {
        .core = arg, .http = http, .out = out, .head = strcmp(http->method, "HEAD") == 0};
    struct inflight under_way = {.id = x.rq.id, .http = http};

    x.rq.core = x.core;
    x.role = x.core->role;
    x.rq.arena = http->arena;
    x.rq.http = http;
    x.rq.now_ms = env_wall_ms(x.core->env);
    uuid_new(x.core, x.rq.id);
    (void)buf_reserve(&out->headers, HEADERS_FIRST_BYTES);
    buf_adds(&out->headers, "Cache-Control: no-store\r\n"
                            "Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n");
    under_way.start_ms = x.rq.now_ms;
    inflight_begin(x.core, &under_way);
    co_local_set(&x.ack);
    run(&x);
    co_local_set(NULL);
    ack_tell(x.core, &x.ack, &out->headers);
    index_tell(x.core, x.ack.lsn, &out->headers);
    inflight_end(x.core, &under_way);
    envelope_write(&x.rq, &x.rs, out);
    if (x.head)
        buf_clear(&out->body);
    response_free(&x.rs);
    json_decref(x.rq.data);
    json_decref(x.rq.query);
    json_decref(x.rq.keep);
}
