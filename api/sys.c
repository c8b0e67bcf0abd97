/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys.c - sys/health and sys/leader, and who answers the rest of sys/.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "core.h"
#include "core_private.h"
#include "mounts.h"
#include "policy.h"
#include "sys.h"
#include "token.h"

/* ---- health ---- */

/* A status code given in the query; 0: not given; -1: not a number. */
static int code_of(struct request *rq, const char *name)
{
    const json_t *v = json_object_get(rq->query, name);
    const char *s = json_string_value(v);
    char *end;
    long n;

    if (v == NULL || (s != NULL && s[0] == '\0'))
        return 0;
    if (s == NULL || strspn(s, "0123456789") != strlen(s))
        return -1;
    n = strtol(s, &end, 10);
    return n >= 100 && n <= 999 ? (int)n : -1;
}

static int health_codes(struct request *rq, int codes[], const char *const *names, size_t n)
{
    const char *ok = json_string_value(json_object_get(rq->query, "standbyok"));
    bool yes;

    for (size_t i = 0; i < n; i++) {
        int given = code_of(rq, names[i]);
        if (given < 0)
            return -1;
        if (given > 0)
            codes[i] = given;
    }
    return ok != NULL && ok[0] != '\0' ? parse_bool(ok, &yes) : 0;
}

/* last_wal is the active node's; the rest are a secondary's, of the way to its primary (0 on a
 * primary, as on Vault, and before it is measured). */
static void health_figures(json_t *o, const struct engine_status *st)
{
    const struct engine_peer *p = st->role == ENGINE_SECONDARY ? &st->peers[0] : NULL;

    if (st->role == ENGINE_PRIMARY)
        json_object_set_new(o, "last_wal", json_integer((json_int_t)st->committed_lsn));
    json_object_set_new(o, "echo_duration_ms",
                        json_integer(p != NULL && p->echo_ms > 0 ? p->echo_ms : 0));
    json_object_set_new(o, "clock_skew_ms", json_integer(p != NULL ? p->clock_skew_ms : 0));
    json_object_set_new(o, "replication_primary_canary_age_ms",
                        json_integer(p != NULL ? p->canary_age_ms : 0));
}

void health_handle(struct request *rq, struct response *rs)
{
    static const char *const names[] = {"activecode",
                                        "uninitcode",
                                        "sealedcode",
                                        "drsecondarycode",
                                        "haunhealthycode",
                                        "standbycode",
                                        "performancestandbycode",
                                        "removedcode"};
    int codes[] = {200, 501, 503, 472, 503, 429, 473, 530}, role = rq->core->role;
    struct core *c = rq->core;
    bool initialized = core_initialized(c), sealed = core_sealed(c), down = !initialized || sealed;
    char id[40], name[128];
    struct engine_status *st = NULL;
    struct err err = {0};

    if (rq->op != OP_READ) {
        reply_no_errors(rs, 405);
        return;
    }
    if (!down && role != ENGINE_FENCED &&
        (st = arena_alloc(rq->arena, sizeof(*st))) != NULL) /* large: not on this stack */
        engine_status(c->engine, st);
    if (health_codes(rq, codes, names, sizeof(names) / sizeof(names[0])) != 0) {
        reply_no_errors(rs, 400);
        return;
    }
    rs->status = !initialized             ? codes[1]
                 : sealed                 ? codes[2]
                 : role == ENGINE_FENCED  ? codes[4]
                 : role != ENGINE_PRIMARY ? codes[3]
                                          : codes[0];
    rs->raw = json_pack(
        "{s:b, s:b, s:b, s:b, s:s, s:s, s:I, s:s, s:b}", "initialized", initialized, "sealed",
        sealed, "standby", down || role == ENGINE_FENCED, "performance_standby", 0,
        "replication_performance_mode", down ? "unknown" : "disabled", "replication_dr_mode",
        down ? "unknown" : core_dr_mode(c), "server_time_utc", (json_int_t)(rq->now_ms / 1000),
        "version", LOCKSTEP_VERSION_TEXT, "enterprise", 0);
    if (st != NULL)
        health_figures(rs->raw, st);
    if (!down && core_cluster(c, id, name, &err) == 0) {
        json_object_set_new(rs->raw, "cluster_id", json_string(id));
        json_object_set_new(rs->raw, "cluster_name", json_string(name));
    }
}

void leader_handle(struct request *rq, struct response *rs)
{
    if (rq->op != OP_READ)
        reply_no_errors(rs, 405);
    else
        rs->raw = json_pack("{s:b, s:b, s:s, s:s, s:s, s:b, s:i}", "ha_enabled", 0, "is_self", 0,
                            "active_time", "0001-01-01T00:00:00Z", "leader_address", "",
                            "leader_cluster_address", "", "performance_standby", 0,
                            "performance_standby_last_remote_wal", 0);
}

/* ---- dispatch ---- */

static known_fields no_fields = {NULL}, list_fields = {"after", "limit", NULL},
                    remount_fields = {"from", "to", NULL},
                    policy_fields = {"name", "policy", "rules", "after", "limit", NULL},
                    capability_fields = {"paths", "path", "token", "accessor", NULL},
                    random_fields = {"bytes", "urlbytes", "format", "source", NULL},
                    hash_fields = {"input", "algorithm", "urlalgorithm", "format", NULL},
                    decode_fields = {"encoded_token", "otp", NULL},
                    rotate_fields = {"enabled", "interval", "max_operations", NULL},
                    audit_hash_fields = {"path", "input", NULL};

static const struct {
    const char *path; /* with a trailing '*': this and what is below it */
    handler_fn *handle;
    const char *const *fields; /* a warning names all others; NULL: the handler's own matter */
} routes[] = {
    {"seal", seal_handle, NULL},
    {"mounts", mounts_handle, NULL},
    {"mounts/*", mounts_handle, NULL},
    {"auth", mounts_handle, NULL},
    {"auth/*", mounts_handle, NULL},
    {"remount*", mounts_handle, remount_fields},
    {"policies/acl*", policy_handle, policy_fields},
    {"policy*", policy_handle, policy_fields},
    {"wrapping/*", wrapping_handle, NULL},
    {"capabilities", capabilities_handle, capability_fields},
    {"capabilities-self", capabilities_handle, capability_fields},
    {"capabilities-accessor", capabilities_handle, capability_fields},
    {"internal/ui/mounts*", ui_mounts_handle, NULL},
    {"internal/ui/resultant-acl", sys_resultant_acl, no_fields},
    {"replication/*", replication_handle, NULL},
    {"rekey/backup", rekey_handle, NULL},
    {"key-status", sys_key_status, no_fields},
    {"rotate", sys_rotate, NULL},
    {"rotate/keyring", sys_rotate, NULL},
    {"tools/random*", sys_random, random_fields},
    {"tools/hash*", sys_hash, hash_fields},
    {"decode-token", sys_decode_token, decode_fields},
    {"storage/snapshot", sys_snapshot, NULL},
    {"metrics", sys_metrics, NULL},
    {"in-flight-req", sys_in_flight, NULL},
    {"host-info", sys_host_info, no_fields},
    {"ha-status", sys_ha_status, no_fields},
    {"step-down", sys_step_down, NULL},
    {"version-history", sys_version_history, no_fields},
    {"version-history/", sys_version_history, list_fields},
    {"config/state/sanitized", sys_config_state, NULL},
    {"rotate/config", sys_rotate_config, rotate_fields},
    {"config/cors", sys_config_cors, NULL},
    {"config/ui/headers*", sys_config_ui, NULL},
    {"config/auditing/request-headers*", sys_config_audited, NULL},
    {"loggers", sys_loggers, NULL},
    {"loggers/*", sys_loggers, NULL},
    {"plugins/catalog*", sys_plugins, NULL},
    {"internal/counters/*", sys_counters, NULL},
    {"internal/specs/openapi", sys_openapi, NULL},
    {"leases/lookup*", sys_leases, NULL},
    {"leases/renew*", sys_leases, NULL},
    {"leases/revoke*", sys_leases, NULL},
    {"leases/revoke-prefix/*", sys_leases, NULL},
    {"leases/revoke-force/*", sys_leases, NULL},
    {"leases/tidy", sys_leases, NULL},
    {"audit", audit_handle, NULL},
    {"audit/*", audit_handle, NULL},
    {"audit-hash/*", audit_handle, audit_hash_fields},
};

const char *sys_route_at(size_t i)
{
    return i < sizeof(routes) / sizeof(routes[0]) ? routes[i].path : NULL;
}

static bool goes_to(const char *path, const char *route)
{
    size_t n = strlen(route) - 1;

    if (route[n] != '*')
        return strcmp(path, route) == 0;
    return strncmp(path, route, n) == 0 &&
           (route[n - 1] == '/' || path[n] == '/' || path[n] == '\0');
}

void sys_handle(struct request *rq, struct response *rs)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (goes_to(rq->path, routes[i].path)) {
            routes[i].handle(rq, rs);
            if (routes[i].fields != NULL)
                warn_unknown(rq, rs, false, routes[i].fields);
            return;
        }
    if (rq->op == OP_LIST && strcmp(rq->path, "namespaces/") == 0)
        reply_no_errors(rs, 404); /* there is the root namespace, and it is not listed */
    else
        reply_unsupported_path(rs);
}
