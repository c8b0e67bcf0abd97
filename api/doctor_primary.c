/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * doctor_primary.c - the doctor's questions to the primary's API: does it answer, are its clock,
 * version and role right, and is the token good there?
 *
 * Each is one the primary answers to anybody, and none uses the token up.
 */
#include <curl/curl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_private.h"
#include "core_private.h"
#include "doctor_private.h"

#define ANSWER_MAX_BYTES (4u << 20)
#define SKEW_WARN_MS 2000
#define SKEW_FAIL_MS 60000

struct answer {
    struct buf body;
    long status;
    double seconds; /* from the request to the first byte */
    CURLcode code;
    char why[CURL_ERROR_SIZE];
};

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct answer *a = arg;

    if (a->body.len + size * n > ANSWER_MAX_BYTES)
        return 0;
    buf_add(&a->body, data, size * n);
    return a->body.failed ? 0 : size * n;
}

/* body NULL: GET. Redirects are not followed: enabling does not, either. */
static void ask(const struct doctor *d, const char *path, const char *body, struct answer *a)
{
    CURL *h = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "X-Vault-Request: true");
    char url[700];

    *a = (struct answer){.code = CURLE_OUT_OF_MEMORY};
    snprintf(url, sizeof(url), "%s/v1/%s", d->api_url, path);
    if (h != NULL && headers != NULL) {
        curl_easy_setopt(h, CURLOPT_URL, url);
        curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
        curl_easy_setopt(h, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
        curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)DOCTOR_STEP_S);
        curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)DOCTOR_STEP_S * 2);
        curl_easy_setopt(h, CURLOPT_PROXY, "");
        curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_body);
        curl_easy_setopt(h, CURLOPT_WRITEDATA, a);
        curl_easy_setopt(h, CURLOPT_ERRORBUFFER, a->why);
        if (body != NULL)
            curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
        if (d->ca_file[0] != '\0')
            curl_easy_setopt(h, CURLOPT_CAINFO, d->ca_file);
        if (d->ca_path[0] != '\0')
            curl_easy_setopt(h, CURLOPT_CAPATH, d->ca_path);
        a->code = curl_easy_perform(h);
        curl_easy_getinfo(h, CURLINFO_RESPONSE_CODE, &a->status);
        curl_easy_getinfo(h, CURLINFO_STARTTRANSFER_TIME, &a->seconds);
    }
    if (a->code != CURLE_OK && a->why[0] == '\0')
        snprintf(a->why, sizeof(a->why), "%s", curl_easy_strerror(a->code));
    curl_slist_free_all(headers);
    if (h != NULL)
        curl_easy_cleanup(h);
}

static json_t *answer_json(struct answer *a)
{
    json_t *v = a->code == CURLE_OK ? json_loadb(buf_str(&a->body), a->body.len, 0, NULL) : NULL;

    buf_free(&a->body);
    return v;
}

void doctor_check_api(struct doctor *d)
{
    struct answer a;
    int64_t before = env_wall_ms(d->core->env), after;

    ask(d, "sys/health?standbyok=true", NULL, &a);
    after = env_wall_ms(d->core->env);
    d->health = answer_json(&a);
    if (a.code == CURLE_PEER_FAILED_VERIFICATION || a.code == CURLE_SSL_CACERT_BADFILE)
        doctor_say(
            d, "api", DOCTOR_FAIL,
            "Give ca_file (or ca_path), on this server's disk, of the CA of the primary's API "
            "certificate; the name in primary_api_addr must stand in that certificate.",
            "%.150s: %.120s", d->api_url, a.why);
    else if (a.code != CURLE_OK)
        doctor_say(d, "api", DOCTOR_FAIL, "Check address, firewall and the primary's listener.",
                   "%.150s: %.120s", d->api_url, a.why);
    else if (!json_is_boolean(json_object_get(d->health, "sealed")))
        doctor_say(d, "api", DOCTOR_FAIL,
                   "primary_api_addr must be the address of its API, not another's.",
                   "%.150s answers %ld, and not as this API does", d->api_url, a.status);
    else if (a.status == 503)
        doctor_say(d, "api", DOCTOR_FAIL, "Unseal the primary.", "%.150s is sealed", d->api_url);
    else if (a.status == 472)
        doctor_say(d, "api", DOCTOR_FAIL, "Give the address of the primary.",
                   "%.150s is a DR secondary", d->api_url);
    else if (a.status != 200)
        doctor_say(d, "api", DOCTOR_FAIL, "See the primary's log.", "%.150s answers %ld",
                   d->api_url, a.status);
    else
        doctor_say(d, "api", DOCTOR_OK, "", "%.150s answers in %.1f ms", d->api_url,
                   a.seconds * 1000);
    if (json_is_integer(json_object_get(d->health, "server_time_utc"))) {
        /* Whole seconds, cut off: the middle of that second against the middle of the question. */
        int64_t there = json_integer_value(json_object_get(d->health, "server_time_utc")) * 1000;

        d->skew_ms = there + 500 - (before + after) / 2;
    }
}

void doctor_check_clock(struct doctor *d)
{
    int64_t off = d->skew_ms < 0 ? -d->skew_ms : d->skew_ms;

    if (!json_is_integer(json_object_get(d->health, "server_time_utc")))
        return;
    if (off < SKEW_WARN_MS)
        doctor_say(d, "clock", DOCTOR_OK, "", "the clocks agree within %" PRId64 " ms", off + 500);
    else
        doctor_say(d, "clock", off < SKEW_FAIL_MS ? DOCTOR_WARN : DOCTOR_FAIL,
                   "Set both clocks by NTP: tokens and leases expire by them.",
                   "the primary's clock is %.1f s %s this one", (double)off / 1000,
                   d->skew_ms > 0 ? "ahead of" : "behind");
}

/* a.b.c as one number; what follows does not count. */
static long version_number(const char *text)
{
    long part[3] = {0};

    for (size_t i = 0; i < 3 && text != NULL; i++) {
        char *end;

        part[i] = strtol(text, &end, 10);
        text = *end == '.' ? end + 1 : NULL;
    }
    return (part[0] * 1000 + part[1]) * 1000 + part[2];
}

void doctor_check_version(struct doctor *d)
{
    const char *theirs = json_string_value(json_object_get(d->health, "version"));

    if (theirs == NULL)
        return;
    if (version_number(theirs) > version_number(LOCKSTEP_VERSION_TEXT))
        doctor_say(d, "version", DOCTOR_WARN, "Bring this cluster to the primary's version first.",
                   "the primary has %.40s, which is newer than %s here", theirs,
                   LOCKSTEP_VERSION_TEXT);
    else
        doctor_say(d, "version", DOCTOR_OK, "", "the primary has %.40s, this cluster %s", theirs,
                   LOCKSTEP_VERSION_TEXT);
}

void doctor_check_primary(struct doctor *d)
{
    const char *mode, *addr;
    struct answer a;
    struct err err = {0};
    char host_port[256];

    ask(d, "sys/replication/dr/status", NULL, &a);
    d->status = answer_json(&a);
    mode = json_string_value(json_object_get(json_object_get(d->status, "data"), "mode"));
    if (mode == NULL || strcmp(mode, "primary") != 0) {
        doctor_say(d, "primary", DOCTOR_FAIL, "sys/replication/dr/primary/enable on the primary.",
                   "%.150s is no DR primary: mode %.20s", d->api_url,
                   mode != NULL ? mode : "unknown");
        return;
    }
    addr = json_string_value(
        json_object_get(json_object_get(d->status, "data"), "primary_cluster_addr"));
    if (d->cluster_addr[0] == '\0' && addr != NULL)
        d->cluster_addr = addr;
    d->primary_bytes = (uint64_t)json_integer_value(
        json_object_get(json_object_get(d->status, "data"), "data_bytes"));
    if (addr_of_url(d->cluster_addr, host_port, &err) != 0) {
        doctor_say(
            d, "primary", DOCTOR_FAIL,
            "Set cluster_addr in the primary's configuration, or primary_cluster_addr at enable.",
            "its cluster address is not usable: %.120s", err.msg);
        return;
    }
    doctor_say(d, "primary", DOCTOR_OK, "", "it is a DR primary; secondaries dial %.200s",
               host_port);
}

void doctor_check_lookup(struct doctor *d)
{
    struct answer a;
    json_t *v = json_pack("{s:s}", "token", d->token), *got;
    char *text = v != NULL ? json_dumps(v, JSON_COMPACT) : NULL;
    const char *why;

    if (text != NULL) {
        ask(d, "sys/wrapping/lookup", text, &a);
        got = answer_json(&a);
        why = json_string_value(json_array_get(json_object_get(got, "errors"), 0));
        if (a.code == CURLE_OK && a.status == 200)
            doctor_say(d, "token", DOCTOR_OK, "",
                       "it is good for %" PRId64 " s more, and not used yet",
                       d->claims.exp - d->now_ms / 1000);
        else
            doctor_say(
                d, "token", DOCTOR_FAIL, "Make a new one on the primary.",
                "the primary does not take it: it was used, revoked, or made by another cluster "
                "(%.120s)",
                why != NULL ? why : a.why);
        json_decref(got);
        explicit_bzero(text, strlen(text));
    }
    free(text);
    json_decref(v);
}
