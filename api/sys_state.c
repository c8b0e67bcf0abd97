/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_state.c - what sys/ tells of the server, and what this version has none of (leases of
 * secrets, audit devices, CORS), told so.
 */
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "core.h"
#include "core_private.h"
#include "sys.h"
#include "token.h"

static bool only(struct request *rq, struct response *rs, enum op op)
{
    if (rq->op != op)
        reply_unsupported(rs);
    return rq->op == op;
}

void sys_key_status(struct request *rq, struct response *rs)
{
    uint32_t term;
    int64_t installed_ms;
    uint64_t encryptions;

    if (!only(rq, rs, OP_READ))
        return;
    barrier_info(rq->core->barrier, &term, &installed_ms, &encryptions);
    reply_data(rs, json_pack("{s:I, s:s, s:I}", "term", (json_int_t)term, "install_time",
                             time_rfc3339(rq->arena, installed_ms), "encryptions",
                             (json_int_t)encryptions));
    rs->double_reply = true;
}

static int rotate(struct core *c, int64_t now_ms, struct err *err)
{
    struct buf keyring = {0};
    struct batch *b = batch_new(c);
    int rc = -1;

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "rotate");
    if (barrier_rotate(c->barrier, now_ms, &keyring, err) == 0 &&
        batch_put_clear(b, BARRIER_KEYRING_PATH, keyring.data, keyring.len, err) == 0) {
        /* The watch on the keyring adopts it when it is applied, before the commit returns. */
        rc = batch_commit(b, err);
        b = NULL;
    }
    batch_free(b);
    buf_free(&keyring);
    return rc;
}

void sys_rotate(struct request *rq, struct response *rs)
{
    struct latch_ref latch;
    struct err err = {0};
    int rc;

    if (!only(rq, rs, OP_WRITE))
        return;
    latch_acquire(rq->core, BARRIER_KEYRING_PATH, &latch);
    rc = rotate(rq->core, rq->now_ms, &err);
    latch_release(rq->core, &latch);
    if (rc != 0)
        reply_err(rs, &err);
    else
        reply_empty(rs);
}

void sys_host_info(struct request *rq, struct response *rs)
{
    struct utsname u;
    struct sysinfo s;

    if (!only(rq, rs, OP_READ))
        return;
    if (uname(&u) != 0 || sysinfo(&s) != 0) {
        reply_router_error(rs, 500, "cannot read host information");
        return;
    }
    reply_data(rs, json_pack("{s:{s:s, s:s, s:s, s:s, s:I}, s:{s:I, s:I}, s:s}", "host", "hostname",
                             u.nodename, "os", u.sysname, "kernelVersion", u.release, "kernelArch",
                             u.machine, "uptime", (json_int_t)s.uptime, "memory", "total",
                             (json_int_t)(s.totalram * s.mem_unit), "free",
                             (json_int_t)(s.freeram * s.mem_unit), "timestamp",
                             time_rfc3339(rq->arena, rq->now_ms)));
}

void sys_ha_status(struct request *rq, struct response *rs)
{
    const struct config *cfg = rq->core->config;
    struct utsname u;

    if (!only(rq, rs, OP_READ))
        return;
    if (uname(&u) != 0)
        u.nodename[0] = '\0';
    reply_data(rs, json_pack("{s:[{s:s, s:s, s:s, s:b, s:n, s:s}]}", "nodes", "hostname",
                             u.nodename, "api_address", cfg->api_addr != NULL ? cfg->api_addr : "",
                             "cluster_address", cfg->cluster_addr != NULL ? cfg->cluster_addr : "",
                             "active_node", 1, "last_echo", "version", LOCKSTEP_VERSION_TEXT));
    rs->double_reply = true;
}

void sys_step_down(struct request *rq, struct response *rs)
{
    /* One node a cluster: nobody to hand over to, as on Vault without HA. */
    if (only(rq, rs, OP_WRITE))
        reply_empty(rs);
}

void sys_version_history(struct request *rq, struct response *rs)
{
    if (!only(rq, rs, OP_LIST))
        return;
    reply_data(rs, json_pack("{s:[s], s:{s:{s:s, s:n}}}", "keys", LOCKSTEP_VERSION_TEXT, "key_info",
                             LOCKSTEP_VERSION_TEXT, "build_date", "", "previous_version"));
}

static const char *or_empty(const char *s)
{
    return s != NULL ? s : "";
}

void sys_config_state(struct request *rq, struct response *rs)
{
    const struct config *cfg = rq->core->config;
    json_t *listeners = json_array();

    if (!only(rq, rs, OP_READ)) {
        json_decref(listeners);
        return;
    }
    for (size_t i = 0; i < cfg->n_listeners; i++) {
        const struct config_listener *l = &cfg->listeners[i];
        json_array_append_new(listeners, json_pack("{s:s, s:{s:s, s:s, s:b}}", "type", "tcp",
                                                   "config", "address", or_empty(l->address),
                                                   "cluster_address", or_empty(l->cluster_address),
                                                   "tls_disable", l->tls_disable));
    }
    reply_data(rs,
               json_pack("{s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:o, s:{s:s, s:s}, s:[{s:s, s:b}]}",
                         "api_addr", or_empty(cfg->api_addr), "cluster_addr",
                         or_empty(cfg->cluster_addr), "cluster_name", or_empty(cfg->cluster_name),
                         "enable_ui", cfg->ui, "disable_mlock", cfg->disable_mlock,
                         "default_lease_ttl", (json_int_t)cfg->default_lease_ttl_s, "max_lease_ttl",
                         (json_int_t)cfg->max_lease_ttl_s, "listeners", listeners, "storage",
                         "type", "wiredtiger", "cluster_addr", or_empty(cfg->cluster_addr), "seals",
                         "type", "shamir", "disabled", 0));
}

void sys_config_cors(struct request *rq, struct response *rs)
{
    if (rq->op == OP_READ) {
        reply_data(rs, json_pack("{s:b}", "enabled", 0));
        rs->double_reply = true;
    } else if (rq->op == OP_DELETE) {
        reply_empty(rs);
    } else {
        reply_error(rs, 400, "CORS is not supported by this version");
    }
}

/* No engine of this version gives leases; tokens are not leases here. So each id is unknown, in
 * Vault's words. */
void sys_leases(struct request *rq, struct response *rs)
{
    bool revoke = strncmp(rq->path, "leases/revoke", 13) == 0;
    bool by_path = revoke && (rq->path[13] == '/' || rq->path[13] == '-');
    const char *id;

    if (!only(rq, rs, OP_WRITE) || field_str(rq, rs, "lease_id", "", &id) != 0)
        return;
    if (id[0] == '\0' && !(revoke && by_path))
        reply_error(rs, 400, "lease_id must be specified");
    else if (revoke)
        reply_empty(rs);
    else
        reply_error(rs, 400,
                    strcmp(rq->path, "leases/renew") == 0 ? "lease not found" : "invalid lease");
}

void sys_audit(struct request *rq, struct response *rs)
{
    const char *name = strchr(rq->path, '/');

    if (strncmp(rq->path, "audit-hash/", 11) == 0) {
        if (only(rq, rs, OP_WRITE))
            reply_error(rs, 400, "unknown audit backend \"%s/\"", name + 1);
    } else if (name == NULL || name[1] == '\0') {
        if (only(rq, rs, OP_READ))
            reply_data(rs, json_object());
    } else if (rq->op == OP_DELETE) {
        reply_empty(rs);
    } else if (rq->op == OP_WRITE) {
        reply_error(rs, 400, "audit devices are not supported by this version");
    } else {
        reply_unsupported(rs);
    }
}

void sys_resultant_acl(struct request *rq, struct response *rs)
{
    bool root = rq->token != NULL && json_array_size(rq->token->policies) > 0 &&
                strcmp(json_string_value(json_array_get(rq->token->policies, 0)), "root") == 0;

    if (!only(rq, rs, OP_READ))
        return;
    if (root)
        reply_data(rs, json_pack("{s:b}", "root", 1));
    else
        reply_error(rs, 400,
                    "the paths of a token that is not root are not listed by this version");
}
