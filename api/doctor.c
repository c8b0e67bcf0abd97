/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * doctor.c - sys/replication/dr/secondary/doctor: would secondary/enable with the same parameters
 * work from here? Looks, and changes nothing: the token is not used up, no data is touched.
 *
 * On a secondary, with its DR operation token: would a promotion, and does the way to the primary,
 * hold? The reasons of status, as checks, and that way.
 *
 * The checks run on this server, since its resolver, routes and disk are those that count. What
 * cannot be known for want of the step before is left out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "cluster_private.h"
#include "core_private.h"
#include "doctor_private.h"
#include "replication_private.h"

void doctor_say(struct doctor *d, const char *name, enum doctor_result result, const char *todo,
                const char *fmt, ...)
{
    struct doctor_check *c = &d->list[d->n];
    va_list ap;

    if (d->n == sizeof(d->list) / sizeof(d->list[0]))
        return;
    d->n++;
    c->name = name;
    c->result = result;
    c->todo = todo;
    va_start(ap, fmt);
    vsnprintf(c->what, sizeof(c->what), fmt, ap);
    va_end(ap);
}

/* ---- here ---- */
static void check_role(struct doctor *d)
{
    if (d->st.role != ENGINE_PRIMARY)
        doctor_say(d, "role", DOCTOR_FAIL, "Disable this secondary first, or use update-primary.",
                   "this cluster is a DR secondary already");
    else if (d->st.replicating)
        doctor_say(d, "role", DOCTOR_FAIL, "sys/replication/dr/primary/disable first.",
                   "this cluster is a DR primary");
    else
        doctor_say(d, "role", DOCTOR_OK, "", "this cluster does not replicate yet");
}

/* The primary's word on a sealed token is heard when it is used, and not before. */
static void check_sealed(struct doctor *d)
{
    struct link_identity me = {0};
    struct err err = {0};
    int64_t now_s = d->now_ms / 1000;

    if (identity_load(d->core, &me, &err) != 0 ||
        bundle_open(d->token, &me, &d->sealed, &err) != 0) {
        doctor_say(d, "token", DOCTOR_FAIL,
                   "Make one for the key that secondary/generate-public-key answers here.",
                   "%.200s", err.code == ERR_NOTFOUND ? "no public key was made here" : err.msg);
        json_decref(d->sealed.json);
        d->sealed.json = NULL;
    } else if (d->sealed.expires_s <= now_s) {
        doctor_say(d, "token", DOCTOR_FAIL, "Make a new one on the primary.",
                   "it expired %" PRId64 " s ago", now_s - d->sealed.expires_s);
    } else {
        doctor_say(d, "token", DOCTOR_OK, "",
                   "it is sealed to this cluster, and good for %" PRId64
                   " s more if it was not used or revoked",
                   d->sealed.expires_s - now_s);
    }
    identity_free(&me);
    if (d->sealed.json != NULL && d->cluster_addr[0] == '\0')
        d->cluster_addr = d->sealed.cluster_addr;
}

static void check_token(struct doctor *d)
{
    int64_t now_s = d->now_ms / 1000;
    struct err err = {0};

    if (d->token[0] == '\0') {
        doctor_say(d, "token", DOCTOR_WARN, "Give token= to check it, too.",
                   "no secondary token given");
        return;
    }
    if (bundle_is_sealed(d->token))
        check_sealed(d);
    else if (jwt_parse(d->token, &d->claims, &err) != 0)
        doctor_say(d, "token", DOCTOR_FAIL,
                   "Give the wrapping token that secondary-token answered.", "%.200s", err.msg);
    else if (d->claims.exp <= now_s)
        doctor_say(d, "token", DOCTOR_FAIL, "Make a new one on the primary.",
                   "it expired %" PRId64 " s ago", now_s - d->claims.exp);
    else if (d->claims.nbf > now_s)
        doctor_say(d, "token", DOCTOR_FAIL, "Set the clocks right.",
                   "it is valid from %" PRId64 " s from now on", d->claims.nbf - now_s);
}

/* ---- space and what is here ---- */
static void check_space(struct doctor *d)
{
    const char *path = d->core->config->storage_path;
    uint64_t need = d->primary_bytes + d->st.reserve_bytes, free_bytes;
    struct statvfs disk; /* the engine looks only when it writes */

    if (statvfs(path, &disk) != 0) {
        doctor_say(d, "space", DOCTOR_FAIL, "Look at the disk of this server's data.",
                   "free space of %.200s: %s", path, strerror(errno));
        return;
    }
    free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (d->primary_bytes == 0)
        doctor_say(d, "space", DOCTOR_WARN, "Compare the disks yourself.",
                   "%" PRIu64 " MiB are free here; the primary does not tell its size",
                   free_bytes >> 20);
    else
        doctor_say(
            d, "space",
            free_bytes < need                      ? DOCTOR_FAIL
            : free_bytes < need + d->primary_bytes ? DOCTOR_WARN
                                                   : DOCTOR_OK,
            free_bytes < need + d->primary_bytes
                ? "The copy is built beside the old data, and log is added to it: give the disk "
                  "room."
                : "",
            "%" PRIu64 " MiB are free here; the primary has %" PRIu64
            " MiB, the reserve is %" PRIu64 " MiB",
            free_bytes >> 20, d->primary_bytes >> 20, d->st.reserve_bytes >> 20);
}

/* Where the other site will dial after a change of roles. */
static void check_own(struct doctor *d)
{
    char addr[256], *colon;
    struct err err = {0};

    if (d->core->config->cluster_addr == NULL ||
        addr_of_url(d->core->config->cluster_addr, addr, &err) != 0 ||
        (colon = strrchr(addr, ':')) == NULL) {
        doctor_say(d, "own address", DOCTOR_WARN,
                   "Set cluster_addr in this server's configuration.",
                   "the other site cannot dial this one after a change of roles");
        return;
    }
    *colon = '\0';
    (void)doctor_check_port(
        d, "own address", addr, colon + 1, DOCTOR_WARN,
        "Set cluster_addr to an address that reaches this server: the other site dials "
        "it after a change of roles.");
}

/* ---- in order ---- */
static bool reach_api(struct doctor *d)
{
    const char *url = d->api_addr[0] != '\0' ? d->api_addr : d->claims.addr;
    size_t n = strlen(url);

    while (n > 0 && url[n - 1] == '/')
        n--;
    snprintf(d->api_url, sizeof(d->api_url), "%.*s", (int)(n < 512 ? n : 512), url);
    if ((strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0) ||
        !doctor_split_url(d->api_url, url[4] == 's' ? "443" : "80", d->api_host, d->api_port)) {
        doctor_say(d, "api", DOCTOR_FAIL, "Write primary_api_addr=https://HOST:PORT.",
                   "\"%.100s\" is no API address", url);
        return false;
    }
    doctor_check_name(d, "the primary's API", d->api_host, d->api_port);
    if (!doctor_check_port(d, "api port", d->api_host, d->api_port, DOCTOR_FAIL,
                           "Open the way from this server to the primary's API port."))
        return false;
    doctor_check_api(d);
    return json_is_false(json_object_get(d->health, "sealed"));
}

static void reach_cluster(struct doctor *d)
{
    char addr[256];
    struct err err = {0};

    if (d->cluster_addr[0] == '\0' || addr_of_url(d->cluster_addr, addr, &err) != 0 ||
        !doctor_split_url(addr, "8201", d->cluster_host, d->cluster_port))
        return; /* check_primary said so */
    doctor_check_name(d, "the primary's cluster address", d->cluster_host, d->cluster_port);
    if (doctor_check_port(d, "cluster port", d->cluster_host, d->cluster_port, DOCTOR_FAIL,
                          "Open the way from this server to the primary's cluster port."))
        doctor_check_tls(d);
}

/* A secondary of before the disaster: what it knows of itself, and the way to its primary. */
static void examine_secondary(struct doctor *d)
{
    json_t *r;
    size_t i;

    doctor_say(d, "role", DOCTOR_OK, "", "this cluster is a DR secondary: %s", d->st.state);
    json_array_foreach(json_object_get(d->own, "reasons"), i, r)
    {
        bool error = strcmp(json_string_value(json_object_get(r, "severity")), "error") == 0;

        doctor_say(d, json_string_value(json_object_get(r, "code")),
                   error ? DOCTOR_FAIL : DOCTOR_WARN, json_string_value(json_object_get(r, "do")),
                   "%.300s", json_string_value(json_object_get(r, "what")));
    }
    d->cluster_addr = d->st.primary_cluster_addr;
    reach_cluster(d);
    check_own(d);
}

/* Helper thread. */
static void doctor_run(void *arg)
{
    struct doctor *d = arg;

    if (d->own != NULL) {
        examine_secondary(d);
        return;
    }
    check_role(d);
    check_token(d);
    if (bundle_is_sealed(d->token) && d->api_addr[0] == '\0') {
        if (d->sealed.json != NULL)
            reach_cluster(d); /* nothing else is needed, nor known */
    } else if (reach_api(d)) {
        doctor_check_clock(d);
        doctor_check_version(d);
        doctor_check_primary(d);
        if (d->claims.exp > d->now_ms / 1000)
            doctor_check_lookup(d);
        reach_cluster(d);
    }
    check_space(d);
    check_own(d);
}

static json_t *doctor_json(const struct doctor *d)
{
    static const char *const words[] = {"ok", "warn", "fail"};
    json_t *list = json_array();
    unsigned count[3] = {0};

    for (size_t i = 0; i < d->n; i++) {
        const struct doctor_check *c = &d->list[i];

        count[c->result]++;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", c->name, "result",
                                              words[c->result], "what", c->what, "do", c->todo));
    }
    return json_pack("{s:o, s:b, s:i, s:i}", "checks", list, "ok", count[DOCTOR_FAIL] == 0,
                     "warned", (int)count[DOCTOR_WARN], "failed", (int)count[DOCTOR_FAIL]);
}

void doctor_handle(struct request *rq, struct response *rs)
{
    struct doctor *d = calloc(1, sizeof(*d)); /* large: not in the arena, not on this stack */

    if (d == NULL) {
        reply_error(rs, 500, "out of memory");
        return;
    }
    d->core = rq->core;
    d->now_ms = rq->now_ms;
    if (field_str(rq, rs, "token", "", &d->token) == 0 &&
        field_str(rq, rs, "primary_api_addr", "", &d->api_addr) == 0 &&
        field_str(rq, rs, "primary_cluster_addr", "", &d->cluster_addr) == 0 &&
        field_str(rq, rs, "ca_file", "", &d->ca_file) == 0 &&
        field_str(rq, rs, "ca_path", "", &d->ca_path) == 0) {
        bool following =
            rq->core->role == ENGINE_SECONDARY || rq->core->role == ENGINE_BOOTSTRAPPING;

        if (!following && d->token[0] == '\0' && d->api_addr[0] == '\0') {
            reply_error(rs, 400, "give token, primary_api_addr or both, as for secondary/enable");
        } else {
            engine_status(rq->core->engine, &d->st);
            d->own = following ? json_object() : NULL;
            if (d->own != NULL)
                (void)replication_health_json(rq, d->own, &d->st);
            run_blocking(doctor_run, d);
            reply_data(rs, doctor_json(d));
        }
    }
    json_decref(d->health);
    json_decref(d->status);
    json_decref(d->own);
    json_decref(d->sealed.json);
    explicit_bzero(&d->claims, sizeof(d->claims));
    free(d);
}
