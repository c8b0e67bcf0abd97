/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * doctor_network.c - the doctor's checks of the way: names, ports, and TLS at the cluster address.
 *
 * The certificate that is shown at the cluster address must have the key that the primary told over
 * its API, or something in between ends TLS, which the link never survives.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/sha.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core_private.h"
#include "doctor_private.h"

bool doctor_split_url(const char *url, const char *dflt_port, char host[256], char port[8])
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

/* ---- names and ports ---- */
static int resolve(const char *host, const char *port, struct addrinfo **listp)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    int rc = getaddrinfo(host, port, &hints, listp);

    if (rc != 0) /* a host without any address but loopback's */
        hints.ai_flags = 0, rc = getaddrinfo(host, port, &hints, listp);
    return rc;
}

void doctor_check_name(struct doctor *d, const char *what, const char *host, const char *port)
{
    struct addrinfo *list = NULL;
    char text[200] = "", one[NI_MAXHOST];
    int rc = resolve(host, port, &list);

    if (rc != 0) {
        doctor_say(d, "name", DOCTOR_FAIL, "Mend the name in DNS or in /etc/hosts of this server.",
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
    doctor_say(d, "name", DOCTOR_OK, "", "%s %.100s is at%s", what, host, text);
}

/* A connected socket with time limits, or -1 and why. */
static int tcp_connect(const char *host, const char *port, char *why, size_t size)
{
    struct addrinfo *list = NULL;
    struct timeval limit = {.tv_sec = DOCTOR_STEP_S};
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
            if (poll(&p, 1, DOCTOR_STEP_S * 1000) == 1)
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

bool doctor_check_port(struct doctor *d, const char *name, const char *host, const char *port,
                       enum doctor_result bad, const char *todo)
{
    char why[160];
    int fd = tcp_connect(host, port, why, sizeof(why));

    if (fd < 0) {
        doctor_say(d, name, bad, todo, "cannot connect to %.100s port %s: %s", host, port, why);
        return false;
    }
    close(fd);
    doctor_say(d, name, DOCTOR_OK, "", "%.100s port %s is open", host, port);
    return true;
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
        doctor_say(
            d, "alpn", DOCTOR_FAIL,
            "Let the load balancer pass TCP through, or give the cluster address of the primary "
            "itself.",
            "what answers there does not speak replication_dr_v1 but %.*s",
            alpn_len > 0 ? (int)alpn_len : 4, alpn_len > 0 ? (const char *)alpn : "HTTP");
    else
        doctor_say(d, "alpn", DOCTOR_OK, "", "replication_dr_v1 is spoken");
    if (d->own != NULL)
        doctor_say(d, "tls", DOCTOR_OK, "", "%s; the link itself checks the primary's key",
                   SSL_get_version(ssl));
    else if (want == NULL)
        doctor_say(
            d, "tls", DOCTOR_WARN, "Bring the primary to this version to have this checked.",
            "the primary does not tell its link key: whether TLS is ended in between is not known");
    else if (strcmp(hex, want) != 0)
        doctor_say(
            d, "tls", DOCTOR_FAIL,
            "TLS must reach the primary unbroken: let the proxy or load balancer pass TCP through.",
            "TLS is ended in between: the certificate there, issued by %.120s, is not the "
            "primary's",
            issuer);
    else
        doctor_say(d, "tls", DOCTOR_OK, "", "%s to the primary itself: its key is the one it told",
                   SSL_get_version(ssl));
    X509_free(x);
}

void doctor_check_tls(struct doctor *d)
{
    static const unsigned char alpn[] = "\x11replication_dr_v1";
    const char *want =
        json_string_value(json_object_get(json_object_get(d->status, "data"), "link_key_hash"));
    char sealed[65];
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    char why[160];
    int fd = tcp_connect(d->cluster_host, d->cluster_port, why, sizeof(why)), rc;

    if (d->sealed.json != NULL) {
        hex_of(d->sealed.primary_key_hash, sizeof(d->sealed.primary_key_hash), sealed);
        want = sealed;
    }
    ERR_clear_error();
    if (fd >= 0 && ssl != NULL && SSL_set_fd(ssl, fd) == 1 &&
        SSL_set_alpn_protos(ssl, alpn, sizeof(alpn) - 1) == 0) {
        SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL); /* the key is what is compared */
        (void)SSL_set_tlsext_host_name(ssl, d->cluster_host);
        /* We have no certificate: the primary hangs up after this, and not before. */
        rc = SSL_connect(ssl);
        if (rc == 1) {
            judge_tls(d, ssl, want);
            if (SSL_version(ssl) < TLS1_3_VERSION)
                doctor_say(d, "tls", DOCTOR_FAIL, "The link speaks TLS 1.3 only.",
                           "what answers there speaks %s", SSL_get_version(ssl));
        } else {
            if (ERR_peek_last_error() != 0)
                ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
            else if (SSL_get_error(ssl, rc) == SSL_ERROR_WANT_READ) /* the time limit */
                snprintf(why, sizeof(why), "it did not answer within %d s", DOCTOR_STEP_S);
            else
                snprintf(why, sizeof(why), "the connection is closed");
            doctor_say(d, "tls", DOCTOR_FAIL,
                       "Look at the primary's log; something else may listen there, or cut the "
                       "connection.",
                       "the TLS handshake with %.100s port %s fails: %.120s", d->cluster_host,
                       d->cluster_port, why);
        }
    } else
        doctor_say(d, "tls", DOCTOR_FAIL, "See above.", "no connection: %.120s", why);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    if (fd >= 0)
        close(fd);
    ERR_clear_error();
}
