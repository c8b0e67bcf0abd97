/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys_state.c - what sys/ tells of the server, its log levels, and what this version has none of
 * (leases of secrets), told so.
 */
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

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

/* One object a CPU, of the lines "cpuN user nice system idle iowait irq softirq steal ..." of
 * /proc/stat. */
static json_t *cpu_times(void)
{
    double hz = (double)sysconf(_SC_CLK_TCK);
    json_t *list = json_array();
    FILE *f = fopen("/proc/stat", "re");
    char line[512];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        unsigned long long t[8];
        unsigned n;

        if (line[3] == ' ' || /* the sum */
            sscanf(line, "cpu%u %llu %llu %llu %llu %llu %llu %llu %llu", &n, &t[0], &t[1], &t[2],
                   &t[3], &t[4], &t[5], &t[6], &t[7]) != 9)
            continue;
        json_array_append_new(list,
                              json_pack("{s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "cpu",
                                        json_sprintf("cpu%u", n), "user", (double)t[0] / hz, "nice",
                                        (double)t[1] / hz, "system", (double)t[2] / hz, "idle",
                                        (double)t[3] / hz, "iowait", (double)t[4] / hz, "irq",
                                        (double)t[5] / hz, "softirq", (double)t[6] / hz, "steal",
                                        (double)t[7] / hz));
    }
    if (f != NULL)
        fclose(f);
    return list;
}

static json_t *cpus(void)
{
    json_t *list = json_array();
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512];
    int n = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        const char *value = strchr(line, ':');

        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "processor", 9) == 0)
            json_array_append_new(list, json_pack("{s:i, s:s}", "cpu", n++, "modelName", ""));
        else if (strncmp(line, "model name", 10) == 0 && value != NULL && n > 0)
            json_object_set_new(json_array_get(list, (size_t)n - 1), "modelName",
                                json_string(value + 1 + strspn(value + 1, " ")));
    }
    if (f != NULL)
        fclose(f);
    return list;
}

/* The file system that the storage lies on. */
static json_t *disks(const char *path)
{
    struct statvfs v;
    json_int_t unit;

    if (path == NULL || statvfs(path, &v) != 0)
        return json_array();
    unit = (json_int_t)v.f_frsize;
    return json_pack("[{s:s, s:I, s:I, s:I, s:I, s:I}]", "path", path, "total",
                     (json_int_t)v.f_blocks * unit, "free", (json_int_t)v.f_bavail * unit, "used",
                     (json_int_t)(v.f_blocks - v.f_bfree) * unit, "inodesTotal",
                     (json_int_t)v.f_files, "inodesFree", (json_int_t)v.f_ffree);
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
    reply_data(
        rs, json_pack("{s:o, s:o, s:o, s:{s:s, s:s, s:s, s:s, s:I, s:I}, s:{s:I, s:I, s:I}, s:s}",
                      "cpu", cpus(), "cpu_times", cpu_times(), "disk",
                      disks(rq->core->config->storage_path), "host", "hostname", u.nodename, "os",
                      u.sysname, "kernelVersion", u.release, "kernelArch", u.machine, "uptime",
                      (json_int_t)s.uptime, "procs", (json_int_t)s.procs, "memory", "total",
                      (json_int_t)(s.totalram * s.mem_unit), "free",
                      (json_int_t)(s.freeram * s.mem_unit), "buffers",
                      (json_int_t)(s.bufferram * s.mem_unit), "timestamp",
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
    reply_data(
        rs,
        json_pack(
            "{s:s, s:s, s:s, s:b, s:b, s:b, s:s, s:I, s:I, s:o, s:{s:s, s:s}, s:[{s:s, s:b}]}",
            "api_addr", or_empty(cfg->api_addr), "cluster_addr", or_empty(cfg->cluster_addr),
            "cluster_name", or_empty(cfg->cluster_name), "enable_ui", cfg->ui, "disable_mlock",
            cfg->disable_mlock, "disable_cache", 0, "log_level", logger_level_name(cfg->log_level),
            "default_lease_ttl", (json_int_t)cfg->default_lease_ttl_s, "max_lease_ttl",
            (json_int_t)cfg->max_lease_ttl_s, "listeners", listeners, "storage", "type",
            "wiredtiger", "cluster_addr", or_empty(cfg->cluster_addr), "seals", "type", "shamir",
            "disabled", 0));
}

/* No engine of this version gives leases; tokens are not leases here. So each id is unknown, in
 * Vault's words. */
void sys_leases(struct request *rq, struct response *rs)
{
    const char *what = rq->path + strlen("leases/"), *id;
    bool revoke = strncmp(what, "revoke", 6) == 0, by_path = revoke && what[6] != '\0', sync = true;

    if (rq->op == OP_LIST && strncmp(what, "lookup", 6) == 0) {
        reply_no_errors(rs, 404);
        return;
    }
    if (!only(rq, rs, OP_WRITE) || field_str(rq, rs, "lease_id", "", &id) != 0 ||
        field_bool(rq, rs, "sync", true, &sync) != 0)
        return;
    if (strncmp(what, "renew/", 6) == 0)
        id = what + 6;
    if (strcmp(what, "tidy") == 0) {
        rs->status = 202;
        reply_warning(rs, "Tidy operation successfully started. Any information from the operation "
                          "will be printed to the server's logs.");
    } else if (id[0] == '\0' && !by_path) {
        reply_error(rs, 400, "lease_id must be specified");
    } else if (revoke) {
        rs->status = sync ? 204 : 202;
    } else {
        reply_error(rs, 400, strncmp(what, "renew", 5) == 0 ? "lease not found" : "invalid lease");
    }
}

/* ---- sys/loggers: levels until the next start ---- */

static void loggers_read(struct request *rq, struct response *rs, const char *name)
{
    json_t *levels = json_object();
    const char *each;

    for (size_t i = 0; (each = logger_component(i)) != NULL; i++)
        if (name == NULL || strcmp(name, each) == 0)
            json_object_set_new(
                levels, each,
                json_string(logger_level_name(logger_component_level(rq->core->log, i))));
    reply_data(rs, levels);
}

static void loggers_set(struct request *rq, struct response *rs, const char *name,
                        enum log_level level)
{
    const char *each;

    if (name == NULL) {
        logger_level(rq->core->log, level);
        reply_empty(rs);
        return;
    }
    for (size_t i = 0; (each = logger_component(i)) != NULL; i++)
        if (strcmp(name, each) == 0) {
            logger_set_component_level(rq->core->log, i, level);
            reply_empty(rs);
            return;
        }
    reply_error(rs, 400, "logger \"%s\" not found", name);
}

void sys_loggers(struct request *rq, struct response *rs)
{
    const char *name = rq->path[strlen("loggers")] == '/' ? rq->path + strlen("loggers/") : NULL;
    const char *level;
    enum log_level wanted;
    struct err err = {0};

    if (rq->op == OP_READ) {
        loggers_read(rq, rs, name);
    } else if (rq->op == OP_DELETE) {
        loggers_set(rq, rs, name, rq->core->config->log_level);
    } else if (!only(rq, rs, OP_WRITE) || field_str(rq, rs, "level", "", &level) != 0) {
        return;
    } else if (level[0] == '\0') {
        reply_error(rs, 400, "level is required");
    } else if (logger_parse_level(level, &wanted, &err) != 0) {
        reply_error(rs, 400, "invalid level provided: unknown log level: %s", level);
    } else {
        loggers_set(rq, rs, name, wanted);
    }
}
