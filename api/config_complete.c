/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config_complete.c - what follows from the rest of a configuration, and what must be there.
 */
#include "config.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEASE_TTL_S (768 * 3600)
#define RANGE ", with a port from 1 to 65535"

/* "host:port", "[v6]:port", ":port". host keeps its brackets. */
static bool split_address(const char *address, char *host, size_t cap, unsigned *portp)
{
    const char *colon = strrchr(address, ':');
    char *end;
    unsigned long port;
    size_t n;

    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return false;
    n = (size_t)(colon - address);
    if (n >= cap ||
        (memchr(address, ':', n) != NULL && (address[0] != '[' || address[n - 1] != ']')))
        return false;
    port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || port < 1 || port > 65535) /* others dial it, over restarts */
        return false;
    memcpy(host, address, n);
    host[n] = '\0';
    *portp = (unsigned)port;
    return true;
}

/* To listen on all addresses; it is none to dial. host as split_address gives it. */
static bool is_any(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    char inner[64];

    if (host[0] == '\0' || (inet_pton(AF_INET, host, &v4) == 1 && v4.s_addr == INADDR_ANY))
        return true;
    return sscanf(host, "[%63[^]]]", inner) == 1 && inet_pton(AF_INET6, inner, &v6) == 1 &&
           IN6_IS_ADDR_UNSPECIFIED(&v6);
}

/* The machine's first address that others can reach; loopback when it has none. */
static void own_address(char *out, size_t cap)
{
    struct ifaddrs *all = NULL;

    snprintf(out, cap, "127.0.0.1");
    if (getifaddrs(&all) != 0)
        return;
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        if (a->ifa_addr == NULL || a->ifa_addr->sa_family != AF_INET ||
            (a->ifa_flags & IFF_LOOPBACK) != 0 || (a->ifa_flags & IFF_UP) == 0)
            continue;
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr, out,
                  (socklen_t)cap);
        break;
    }
    freeifaddrs(all);
}

static int set_printf(char **p, struct err *err, const char *fmt, ...) PRINTF_LIKE(3, 4);

static int set_printf(char **p, struct err *err, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_set(err, ERR_NOMEM, 0, "configuration");
    free(*p);
    *p = text;
    return 0;
}

static int complete_listener(struct config_listener *l, struct err *err)
{
    char host[256];
    unsigned port;

    if (l->address == NULL && set_printf(&l->address, err, "127.0.0.1:8200") != 0)
        return -1;
    if (strchr(l->address, ':') == NULL && set_printf(&l->address, err, "%s:8200", l->address) != 0)
        return -1;
    if (!split_address(l->address, host, sizeof(host), &port))
        return err_set(err, ERR_INVAL, 0,
                       "listener: address: \"%s\" is not HOST:PORT" RANGE
                       ", such as 127.0.0.1:8200",
                       l->address);
    if (l->cluster_address == NULL) {
        if (port == 65535)
            return err_set(err, ERR_INVAL, 0,
                           "listener: cluster_address: port 65535 has no next one: write it");
        return set_printf(&l->cluster_address, err, "%s:%u", host, port + 1);
    }
    if (!split_address(l->cluster_address, host, sizeof(host), &port))
        return err_set(err, ERR_INVAL, 0,
                       "listener: cluster_address: \"%s\" is not HOST:PORT" RANGE
                       ", such as 127.0.0.1:8201",
                       l->cluster_address);
    return 0;
}

/* Where others reach a listener that is bound to `address`. */
static bool reachable(const char *address, char *host, size_t cap, unsigned *portp)
{
    if (!split_address(address, host, cap, portp))
        return false;
    if (is_any(host))
        own_address(host, cap);
    return true;
}

int config_check_dialled(const char *key, const char *url, struct err *err)
{
    const char *scheme = strstr(url, "://"), *rest = scheme != NULL ? scheme + 3 : url;
    char host[256];
    unsigned port;

    if (!split_address(rest, host, sizeof(host), &port))
        snprintf(host, sizeof(host), "%s", rest); /* without a port */
    if (!is_any(host))
        return 0;
    return err_set(err, ERR_INVAL, 0,
                   "%s: \"%.60s\" listens on all addresses, and cannot be dialled: write this "
                   "machine's name or address in its place",
                   key, url);
}

static int check_url(const char *key, const char *url, bool scheme_needed, struct err *err)
{
    const char *rest = url;
    char host[256];
    unsigned port;
    size_t n;

    if (strncmp(url, "https://", 8) == 0)
        rest = url + 8;
    else if (strncmp(url, "http://", 7) == 0)
        rest = url + 7;
    n = strlen(rest);
    if ((scheme_needed && rest == url) || n == 0 || strchr(rest, '/') != NULL)
        return err_set(err, ERR_INVAL, 0, "%s: \"%s\" is not https://HOST:PORT" RANGE, key, url);
    if (strrchr(rest, ':') != NULL && rest[n - 1] != ']' &&
        !split_address(rest, host, sizeof(host), &port))
        return err_set(err, ERR_INVAL, 0, "%s: \"%s\" is not https://HOST:PORT" RANGE, key, url);
    return config_check_dialled(key, url, err);
}

static int complete_addresses(struct config *c, struct err *err)
{
    const struct config_listener *l = &c->listeners[0];
    char host[256];
    unsigned port;

    if (c->api_addr == NULL) {
        if (!reachable(l->address, host, sizeof(host), &port))
            return err_set(err, ERR_INVAL, 0, "listener: address: \"%s\" is not HOST:PORT" RANGE,
                           l->address);
        if (set_printf(&c->api_addr, err, "%s://%s:%u", l->tls_disable ? "http" : "https", host,
                       port) != 0)
            return -1;
    }
    if (c->cluster_addr == NULL) {
        if (!reachable(l->cluster_address, host, sizeof(host), &port))
            return err_set(err, ERR_INVAL, 0,
                           "listener: cluster_address: \"%s\" is not HOST:PORT" RANGE,
                           l->cluster_address);
        if (set_printf(&c->cluster_addr, err, "https://%s:%u", host, port) != 0)
            return -1;
    }
    if (check_url("api_addr", c->api_addr, true, err) != 0)
        return -1;
    return check_url("cluster_addr", c->cluster_addr, false, err);
}

static int complete_ttls(struct config *c, struct err *err)
{
    bool dflt_given = c->default_lease_ttl_s != 0, max_given = c->max_lease_ttl_s != 0;

    if (!max_given)
        c->max_lease_ttl_s =
            c->default_lease_ttl_s > LEASE_TTL_S ? c->default_lease_ttl_s : LEASE_TTL_S;
    if (!dflt_given)
        c->default_lease_ttl_s =
            c->max_lease_ttl_s < LEASE_TTL_S ? c->max_lease_ttl_s : LEASE_TTL_S;
    if (c->default_lease_ttl_s > c->max_lease_ttl_s)
        return err_set(err, ERR_INVAL, 0,
                       "default_lease_ttl: must not be larger than max_lease_ttl (%lld s)",
                       (long long)c->max_lease_ttl_s);
    return 0;
}

int config_complete(struct config *c, struct err *err)
{
    if (c->storage_path == NULL)
        return err_set(
            err, ERR_INVAL, 0,
            "storage: is missing: write storage \"wiredtiger\" { path = \"/var/lib/lockstep\" }");
    if (c->n_listeners == 0)
        return err_set(err, ERR_INVAL, 0,
                       "listener: is missing: write listener \"tcp\" { address = "
                       "\"127.0.0.1:8200\", tls_cert_file = "
                       "\"...\", tls_key_file = \"...\" }");
    for (size_t i = 0; i < c->n_listeners; i++)
        if (complete_listener(&c->listeners[i], err) != 0)
            return -1;
    if (complete_addresses(c, err) != 0)
        return -1;
    return complete_ttls(c, err);
}
