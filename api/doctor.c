/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * doctor.c - sys/replication/dr/secondary/doctor: would secondary/enable with the same parameters
 * work from here? Looks, and changes nothing: the token is not used up, no data is touched.
 *
 * On a secondary, with its DR operation token: would a promotion, and does the way to the primary,
 * hold? The reasons of status, as checks, and that way.
 *
 * The checks run on this server, since its resolver, routes and disk are those that count. The
 * primary says over its API which key its replication link has; the certificate that is shown at
 * its cluster address must have that key, or something in between ends TLS, which the link never
 * survives.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster_private.h"
#include "core_private.h"
#include "jwt.h"
#include "replication_private.h"

#define STEP_S 5 /* longest wait of one step of a check */
#define ANSWER_MAX_BYTES (4u << 20)
#define SKEW_WARN_MS 2000
#define SKEW_FAIL_MS 60000

enum result { RESULT_OK, RESULT_WARN, RESULT_FAIL };
struct check {
    const char *name;
    enum result result;
    char what[320];
    const char *todo;
};
struct doctor {
    struct core *core;
    const char *token, *api_addr, *ca_file, *ca_path, *cluster_addr;
    int64_t now_ms;
    struct jwt_claims claims;
    struct engine_status st; /* of this node */
    char api_url[600];       /* without a slash at its end */
    char api_host[256], cluster_host[256];
    char api_port[8], cluster_port[8];
    json_t *health, *status; /* the primary's answers; NULL: none */
    json_t *own;             /* of a secondary: its health */
    uint64_t primary_bytes;
    int64_t skew_ms;
    struct check list[24];
    size_t n;
};

PRINTF_LIKE(5, 6)
static void say(struct doctor *d, const char *name, enum result result, const char *todo,
                const char *fmt, ...)
{
    struct check *c = &d->list[d->n];
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
        say(d, "role", RESULT_FAIL, "Disable this secondary first, or use update-primary.",
            "this cluster is a DR secondary already");
    else if (d->st.replicating)
        say(d, "role", RESULT_FAIL, "sys/replication/dr/primary/disable first.",
            "this cluster is a DR primary");
    else
        say(d, "role", RESULT_OK, "", "this cluster does not replicate yet");
}

static void check_token(struct doctor *d)
{
    int64_t now_s = d->now_ms / 1000;
    struct err err = {0};

    if (d->token[0] == '\0') {
        say(d, "token", RESULT_WARN, "Give token= to check it, too.", "no secondary token given");
        return;
    }
    if (jwt_parse(d->token, &d->claims, &err) != 0)
        say(d, "token", RESULT_FAIL, "Give the wrapping token that secondary-token answered.",
            "%.200s", err.msg);
    else if (d->claims.exp <= now_s)
        say(d, "token", RESULT_FAIL, "Make a new one on the primary.",
            "it expired %" PRId64 " s ago", now_s - d->claims.exp);
    else if (d->claims.nbf > now_s)
        say(d, "token", RESULT_FAIL, "Set the clocks right.",
            "it is valid from %" PRId64 " s from now on", d->claims.nbf - now_s);
}

/* ---- names and ports ---- */
static int resolve(const char *host, const char *port, struct addrinfo **listp)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    int rc = getaddrinfo(host, port, &hints, listp);

    if (rc != 0) /* a host without any address but loopback's */
        hints.ai_flags = 0, rc = getaddrinfo(host, port, &hints, listp);
    return rc;
}

static void check_name(struct doctor *d, const char *what, const char *host, const char *port)
{
    struct addrinfo *list = NULL;
    char text[200] = "", one[NI_MAXHOST];
    int rc = resolve(host, port, &list);

    if (rc != 0) {
        say(d, "name", RESULT_FAIL, "Mend the name in DNS or in /etc/hosts of this server.",
            "%s %.100s: %s", what, host, gai_strerror(rc));
        return;
    }
    for (const struct addrinfo *a = list; a != NULL; a = a->ai_next) {
        if (getnameinfo(a->ai_addr, a->ai_addrlen, one, sizeof(one), NULL, 0, NI_NUMERICHOST) ==
                0 &&
            strlen(text) + strlen(one) + 2 < sizeof(text)) {
            strncat(text, " ", sizeof(text) - strlen(text) - 1);
            strncat(text, one, sizeof(text) - strlen(text) - 1);
        }
    }
    freeaddrinfo(list);
    say(d, "name", RESULT_OK, "", "%s %.100s is at%s", what, host, text);
}

/* A connected socket with time limits, or -1 and why. */
static int tcp_connect(const char *host, const char *port, char *why, size_t size)
{
    struct addrinfo *list = NULL;
    struct timeval limit = {.tv_sec = STEP_S};
    int fd = -1, rc = resolve(host, port, &list), bad = 0;

    if (rc != 0) {
        snprintf(why, size, "%s", gai_strerror(rc));
        return -1;
    }
    for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        socklen_t len = sizeof(bad);
        struct pollfd p;

        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            bad = errno;
            continue;
        }
        bad = 0;
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0)
            bad = errno;
        p = (struct pollfd){.fd = fd, .events = POLLOUT};
        if (bad == EINPROGRESS) {
            bad = ETIMEDOUT;
            if (poll(&p, 1, STEP_S * 1000) == 1)
                (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &bad, &len);
        }
        if (bad != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        snprintf(why, size, "%s", strerror(bad));
        return -1;
    }
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    return fd;
}

/* false: it cannot be reached. */
static bool check_port(struct doctor *d, const char *name, const char *host, const char *port,
                       enum result bad, const char *todo)
{
    char why[160];
    int fd = tcp_connect(host, port, why, sizeof(why));

    if (fd < 0) {
        say(d, name, bad, todo, "cannot connect to %.100s port %s: %s", host, port, why);
        return false;
    }
    close(fd);
    say(d, name, RESULT_OK, "", "%.100s port %s is open", host, port);
    return true;
}

/* ---- the primary's API ---- */
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
        curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, (long)STEP_S);
        curl_easy_setopt(h, CURLOPT_TIMEOUT, (long)STEP_S * 2);
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

static void check_api(struct doctor *d)
{
    struct answer a;
    int64_t before = env_wall_ms(d->core->env), after;

    ask(d, "sys/health?standbyok=true", NULL, &a);
    after = env_wall_ms(d->core->env);
    d->health = answer_json(&a);
    if (a.code == CURLE_PEER_FAILED_VERIFICATION || a.code == CURLE_SSL_CACERT_BADFILE)
        say(d, "api", RESULT_FAIL,
            "Give ca_file (or ca_path), on this server's disk, of the CA of the primary's API "
            "certificate; the name in primary_api_addr must stand in that certificate.",
            "%.150s: %.120s", d->api_url, a.why);
    else if (a.code != CURLE_OK)
        say(d, "api", RESULT_FAIL, "Check address, firewall and the primary's listener.",
            "%.150s: %.120s", d->api_url, a.why);
    else if (!json_is_boolean(json_object_get(d->health, "sealed")))
        say(d, "api", RESULT_FAIL,
            "primary_api_addr must be the address of its API, not another's.",
            "%.150s answers %ld, and not as this API does", d->api_url, a.status);
    else if (a.status == 503)
        say(d, "api", RESULT_FAIL, "Unseal the primary.", "%.150s is sealed", d->api_url);
    else if (a.status == 472)
        say(d, "api", RESULT_FAIL, "Give the address of the primary.", "%.150s is a DR secondary",
            d->api_url);
    else if (a.status != 200)
        say(d, "api", RESULT_FAIL, "See the primary's log.", "%.150s answers %ld", d->api_url,
            a.status);
    else
        say(d, "api", RESULT_OK, "", "%.150s answers in %.1f ms", d->api_url, a.seconds * 1000);
    if (json_is_integer(json_object_get(d->health, "server_time_utc"))) {
        /* Whole seconds, cut off: the middle of that second against the middle of the question. */
        int64_t there = json_integer_value(json_object_get(d->health, "server_time_utc")) * 1000;

        d->skew_ms = there + 500 - (before + after) / 2;
    }
}

static void check_clock(struct doctor *d)
{
    int64_t off = d->skew_ms < 0 ? -d->skew_ms : d->skew_ms;

    if (!json_is_integer(json_object_get(d->health, "server_time_utc")))
        return;
    if (off < SKEW_WARN_MS)
        say(d, "clock", RESULT_OK, "", "the clocks agree within %" PRId64 " ms", off + 500);
    else
        say(d, "clock", off < SKEW_FAIL_MS ? RESULT_WARN : RESULT_FAIL,
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

static void check_version(struct doctor *d)
{
    const char *theirs = json_string_value(json_object_get(d->health, "version"));

    if (theirs == NULL)
        return;
    if (version_number(theirs) > version_number(LOCKSTEP_VERSION_TEXT))
        say(d, "version", RESULT_WARN, "Bring this cluster to the primary's version first.",
            "the primary has %.40s, which is newer than %s here", theirs, LOCKSTEP_VERSION_TEXT);
    else
        say(d, "version", RESULT_OK, "", "the primary has %.40s, this cluster %s", theirs,
            LOCKSTEP_VERSION_TEXT);
}

static void check_primary(struct doctor *d)
{
    const char *mode, *addr;
    struct answer a;
    struct err err = {0};
    char host_port[256];

    ask(d, "sys/replication/dr/status", NULL, &a);
    d->status = answer_json(&a);
    mode = json_string_value(json_object_get(json_object_get(d->status, "data"), "mode"));
    if (mode == NULL || strcmp(mode, "primary") != 0) {
        say(d, "primary", RESULT_FAIL, "sys/replication/dr/primary/enable on the primary.",
            "%.150s is no DR primary: mode %.20s", d->api_url, mode != NULL ? mode : "unknown");
        return;
    }
    addr = json_string_value(
        json_object_get(json_object_get(d->status, "data"), "primary_cluster_addr"));
    if (d->cluster_addr[0] == '\0' && addr != NULL)
        d->cluster_addr = addr;
    d->primary_bytes = (uint64_t)json_integer_value(
        json_object_get(json_object_get(d->status, "data"), "data_bytes"));
    if (addr_of_url(d->cluster_addr, host_port, &err) != 0) {
        say(d, "primary", RESULT_FAIL,
            "Set cluster_addr in the primary's configuration, or primary_cluster_addr at enable.",
            "its cluster address is not usable: %.120s", err.msg);
        return;
    }
    say(d, "primary", RESULT_OK, "", "it is a DR primary; secondaries dial %.200s", host_port);
}

static void check_lookup(struct doctor *d)
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
            say(d, "token", RESULT_OK, "", "it is good for %" PRId64 " s more, and not used yet",
                d->claims.exp - d->now_ms / 1000);
        else
            say(d, "token", RESULT_FAIL, "Make a new one on the primary.",
                "the primary does not take it: it was used, revoked, or made by another cluster "
                "(%.120s)",
                why != NULL ? why : a.why);
        json_decref(got);
        explicit_bzero(text, strlen(text));
    }
    free(text);
    json_decref(v);
}

/* ---- the cluster address ---- */
static void key_hash_of(X509 *x, char hex[65])
{
    unsigned char *der = NULL;
    int len = x != NULL ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der) : -1;
    uint8_t hash[32];

    hex[0] = '\0';
    if (len > 0) {
        SHA256(der, (size_t)len, hash);
        hex_of(hash, sizeof(hash), hex);
    }
    OPENSSL_free(der);
}

static void judge_tls(struct doctor *d, SSL *ssl, const char *want)
{
    X509 *x = SSL_get1_peer_certificate(ssl);
    const unsigned char *alpn = NULL;
    unsigned alpn_len = 0;
    char hex[65], issuer[160] = "nobody";

    key_hash_of(x, hex);
    if (x != NULL)
        X509_NAME_oneline(X509_get_issuer_name(x), issuer, sizeof(issuer));
    SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
    if (alpn_len != 17 || memcmp(alpn, "replication_dr_v1", 17) != 0)
        say(d, "alpn", RESULT_FAIL,
            "Let the load balancer pass TCP through, or give the cluster address of the primary "
            "itself.",
            "what answers there does not speak replication_dr_v1 but %.*s",
            alpn_len > 0 ? (int)alpn_len : 4, alpn_len > 0 ? (const char *)alpn : "HTTP");
    else
        say(d, "alpn", RESULT_OK, "", "replication_dr_v1 is spoken");
    if (d->own != NULL)
        say(d, "tls", RESULT_OK, "", "%s; the link itself checks the primary's key",
            SSL_get_version(ssl));
    else if (want == NULL)
        say(d, "tls", RESULT_WARN, "Bring the primary to this version to have this checked.",
            "the primary does not tell its link key: whether TLS is ended in between is not known");
    else if (strcmp(hex, want) != 0)
        say(d, "tls", RESULT_FAIL,
            "TLS must reach the primary unbroken: let the proxy or load balancer pass TCP through.",
            "TLS is ended in between: the certificate there, issued by %.120s, is not the "
            "primary's",
            issuer);
    else
        say(d, "tls", RESULT_OK, "", "%s to the primary itself: its key is the one it told",
            SSL_get_version(ssl));
    X509_free(x);
}

static void check_tls(struct doctor *d)
{
    static const unsigned char alpn[] = "\x11replication_dr_v1";
    const char *want =
        json_string_value(json_object_get(json_object_get(d->status, "data"), "link_key_hash"));
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    char why[160];
    int fd = tcp_connect(d->cluster_host, d->cluster_port, why, sizeof(why));

    ERR_clear_error();
    if (fd >= 0 && ssl != NULL && SSL_set_fd(ssl, fd) == 1 &&
        SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1) == 0) {
        SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL); /* the key is what is compared */
        (void)SSL_set_tlsext_host_name(ssl, d->cluster_host);
        /* We have no certificate: the primary hangs up after this, and not before. */
        if (SSL_connect(ssl) == 1) {
            judge_tls(d, ssl, want);
            if (SSL_version(ssl) < TLS1_3_VERSION)
                say(d, "tls", RESULT_FAIL, "The link speaks TLS 1.3 only.",
                    "what answers there speaks %s", SSL_get_version(ssl));
        } else {
            ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
            say(d, "tls", RESULT_FAIL,
                "Look at the primary's log; something else may listen there, or cut the "
                "connection.",
                "the TLS handshake with %.100s port %s fails: %.120s", d->cluster_host,
                d->cluster_port, ERR_peek_last_error() != 0 ? why : "the connection is closed");
        }
    } else
        say(d, "tls", RESULT_FAIL, "See above.", "no connection: %.120s", why);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    if (fd >= 0)
        close(fd);
    ERR_clear_error();
}

/* ---- space and what is here ---- */
static void check_space(struct doctor *d)
{
    uint64_t need = d->primary_bytes + d->st.reserve_bytes;

    if (d->primary_bytes == 0)
        say(d, "space", RESULT_WARN, "Compare the disks yourself.",
            "%" PRIu64 " MiB are free here; the primary does not tell its size",
            d->st.free_bytes >> 20);
    else
        say(d, "space",
            d->st.free_bytes < need                      ? RESULT_FAIL
            : d->st.free_bytes < need + d->primary_bytes ? RESULT_WARN
                                                         : RESULT_OK,
            d->st.free_bytes < need + d->primary_bytes
                ? "The copy is built beside the old data, and log is added to it: give the disk "
                  "room."
                : "",
            "%" PRIu64 " MiB are free here; the primary has %" PRIu64
            " MiB, the reserve is %" PRIu64 " MiB",
            d->st.free_bytes >> 20, d->primary_bytes >> 20, d->st.reserve_bytes >> 20);
}

/* Where the other site will dial after a change of roles. */
static void check_own(struct doctor *d)
{
    char addr[256], *colon;
    struct err err = {0};

    if (d->core->config->cluster_addr == NULL ||
        addr_of_url(d->core->config->cluster_addr, addr, &err) != 0 ||
        (colon = strrchr(addr, ':')) == NULL) {
        say(d, "own address", RESULT_WARN, "Set cluster_addr in this server's configuration.",
            "the other site cannot dial this one after a change of roles");
        return;
    }
    *colon = '\0';
    (void)check_port(
        d, "own address", addr, colon + 1, RESULT_WARN,
        "Set cluster_addr to an address that reaches this server: the other site dials "
        "it after a change of roles.");
}

/* "https://host:port/..." or host:port into its parts. */
static bool split(const char *url, const char *dflt_port, char host[256], char port[8])
{
    const char *p = strstr(url, "://"), *end, *colon;

    p = p != NULL ? p + 3 : url;
    end = p + strcspn(p, "/");
    colon = *p == '[' ? memchr(p, ']', (size_t)(end - p)) : memchr(p, ':', (size_t)(end - p));
    if (*p == '[') {
        if (colon == NULL || colon - p - 1 <= 0 || colon - p > 255)
            return false;
        snprintf(host, 256, "%.*s", (int)(colon - p - 1), p + 1);
        colon = colon + 1 < end && colon[1] == ':' ? colon + 1 : NULL;
    } else {
        const char *host_end = colon != NULL ? colon : end;

        if (host_end == p || host_end - p > 255)
            return false;
        snprintf(host, 256, "%.*s", (int)(host_end - p), p);
    }
    if (colon != NULL && end - colon - 1 > 5)
        return false;
    snprintf(port, 8, "%.*s", colon != NULL ? (int)(end - colon - 1) : (int)strlen(dflt_port),
             colon != NULL ? colon + 1 : dflt_port);
    return port[0] != '\0' && strspn(port, "0123456789") == strlen(port);
}

/* ---- in order; what cannot be known for want of the step before is left out ---- */
static bool reach_api(struct doctor *d)
{
    const char *url = d->api_addr[0] != '\0' ? d->api_addr : d->claims.addr;
    size_t n = strlen(url);

    while (n > 0 && url[n - 1] == '/')
        n--;
    snprintf(d->api_url, sizeof(d->api_url), "%.*s", (int)(n < 512 ? n : 512), url);
    if ((strncmp(url, "https://", 8) != 0 && strncmp(url, "http://", 7) != 0) ||
        !split(d->api_url, url[4] == 's' ? "443" : "80", d->api_host, d->api_port)) {
        say(d, "api", RESULT_FAIL, "Write primary_api_addr=https://HOST:PORT.",
            "\"%.100s\" is no API address", url);
        return false;
    }
    check_name(d, "the primary's API", d->api_host, d->api_port);
    if (!check_port(d, "api port", d->api_host, d->api_port, RESULT_FAIL,
                    "Open the way from this server to the primary's API port."))
        return false;
    check_api(d);
    return json_is_false(json_object_get(d->health, "sealed"));
}

static void reach_cluster(struct doctor *d)
{
    char addr[256];
    struct err err = {0};

    if (d->cluster_addr[0] == '\0' || addr_of_url(d->cluster_addr, addr, &err) != 0 ||
        !split(addr, "8201", d->cluster_host, d->cluster_port))
        return; /* check_primary said so */
    check_name(d, "the primary's cluster address", d->cluster_host, d->cluster_port);
    if (check_port(d, "cluster port", d->cluster_host, d->cluster_port, RESULT_FAIL,
                   "Open the way from this server to the primary's cluster port."))
        check_tls(d);
}

/* A secondary of before the disaster: what it knows of itself, and the way to its primary. */
static void examine_secondary(struct doctor *d)
{
    json_t *r;
    size_t i;

    say(d, "role", RESULT_OK, "", "this cluster is a DR secondary: %s", d->st.state);
    json_array_foreach(json_object_get(d->own, "reasons"), i, r)
    {
        bool error = strcmp(json_string_value(json_object_get(r, "severity")), "error") == 0;

        say(d, json_string_value(json_object_get(r, "code")), error ? RESULT_FAIL : RESULT_WARN,
            json_string_value(json_object_get(r, "do")), "%.300s",
            json_string_value(json_object_get(r, "what")));
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
    if (reach_api(d)) {
        check_clock(d);
        check_version(d);
        check_primary(d);
        if (d->claims.exp > d->now_ms / 1000)
            check_lookup(d);
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
        const struct check *c = &d->list[i];

        count[c->result]++;
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", c->name, "result",
                                              words[c->result], "what", c->what, "do", c->todo));
    }
    return json_pack("{s:o, s:b, s:i, s:i}", "checks", list, "ok", count[RESULT_FAIL] == 0,
                     "warned", (int)count[RESULT_WARN], "failed", (int)count[RESULT_FAIL]);
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
    explicit_bzero(&d->claims, sizeof(d->claims));
    free(d);
}
