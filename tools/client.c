/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * client.c - one HTTP request to a Vault-compatible server, as the official clients make it.
 *
 * Environment: VAULT_ADDR, VAULT_TOKEN, VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT,
 * VAULT_CLIENT_KEY, VAULT_SKIP_VERIFY, VAULT_TLS_SERVER_NAME, VAULT_NAMESPACE,
 * VAULT_CLIENT_TIMEOUT, VAULT_MAX_RETRIES, VAULT_FORMAT, VAULT_WRAP_TTL. Answers 412 and 5xx but
 * 501 are asked again, VAULT_MAX_RETRIES times (2). One redirect is followed.
 */
#include "cli.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *env_or(const char *name, const char *dflt)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : dflt;
}

static int token_path(char *out, size_t len, struct err *err)
{
    const char *home = getenv("HOME");

    if (home == NULL || *home == '\0')
        return err_set(err, ERR_INVAL, 0, "HOME is not set: no place for the token file");
    if ((size_t)snprintf(out, len, "%s/.vault-token", home) >= len)
        return err_set(err, ERR_INVAL, 0, "HOME is too long");
    return 0;
}

void client_init(struct client *c)
{
    char path[4096];
    struct err err = {0};

    *c = (struct client){
        .addr = env_or("VAULT_ADDR", "https://127.0.0.1:8200"),
        .token = env_or("VAULT_TOKEN", NULL),
        .ns = env_or("VAULT_NAMESPACE", NULL),
        .cacert = env_or("VAULT_CACERT", NULL),
        .capath = env_or("VAULT_CAPATH", NULL),
        .client_cert = env_or("VAULT_CLIENT_CERT", NULL),
        .client_key = env_or("VAULT_CLIENT_KEY", NULL),
        .tls_server_name = env_or("VAULT_TLS_SERVER_NAME", NULL),
        .wrap_ttl = env_or("VAULT_WRAP_TTL", NULL),
        .format_name = env_or("VAULT_FORMAT", NULL),
        .skip_verify = strchr("1tT", env_or("VAULT_SKIP_VERIFY", "0")[0]) != NULL,
        .timeout_s = 60,
        .max_retries = atoi(env_or("VAULT_MAX_RETRIES", "2")),
        .token_file = {.secret = true},
        .asked = {{.secret = true}, {.secret = true}},
    };
    if (duration_parse(env_or("VAULT_CLIENT_TIMEOUT", "60"), &c->timeout_s) != 0 ||
        c->timeout_s <= 0)
        c->timeout_s = 60;
    if (c->token == NULL && token_path(path, sizeof(path), &err) == 0 && access(path, R_OK) == 0 &&
        read_file(path, &c->token_file, &err) == 0) {
        while (c->token_file.len > 0 &&
               strchr(" \t\r\n", c->token_file.data[c->token_file.len - 1]) != NULL)
            c->token_file.data[--c->token_file.len] = '\0';
        if (c->token_file.len > 0)
            c->token = buf_str(&c->token_file);
    }
}

void client_free(struct client *c)
{
    buf_free(&c->token_file);
    buf_free(&c->asked[0]);
    buf_free(&c->asked[1]);
}

int token_file_write(const char *token, struct err *err)
{
    char path[4096], aside[4200];
    size_t len = strlen(token);
    int fd;

    if (token_path(path, sizeof(path), err) != 0)
        return -1;
    snprintf(aside, sizeof(aside), "%s.%ld", path, (long)getpid());
    fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(err, ERR_IO, errno, "create %s", aside);
    if (write(fd, token, len) != (ssize_t)len || fsync(fd) != 0) {
        err_set(err, ERR_IO, errno, "write %s", aside);
        close(fd);
        unlink(aside);
        return -1;
    }
    close(fd);
    if (rename(aside, path) != 0) {
        err_set(err, ERR_IO, errno, "rename to %s", path);
        unlink(aside);
        return -1;
    }
    return 0;
}

int token_file_erase(struct err *err)
{
    char path[4096];

    if (token_path(path, sizeof(path), err) != 0)
        return -1;
    if (unlink(path) != 0 && errno != ENOENT)
        return err_set(err, ERR_IO, errno, "remove %s", path);
    return 0;
}

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct buf *b = arg;

    buf_add(b, data, size * n);
    return b->failed ? 0 : size * n;
}

static bool worth_retrying(long status)
{
    return status == 412 || (status >= 500 && status != 501);
}

static void curl_string(const struct client *c, const char *method, const char *url,
                        const char *text)
{
    printf("curl");
    if (strcmp(method, "GET") != 0)
        printf(" -X %s", method);
    if (c->cacert != NULL)
        printf(" --cacert %s", c->cacert);
    if (c->skip_verify)
        printf(" --insecure");
    if (c->token != NULL && !c->no_token)
        printf(" -H \"X-Vault-Token: $(lockstep print token)\"");
    printf(" -H \"X-Vault-Request: true\"");
    if (c->wrap_ttl != NULL)
        printf(" -H \"X-Vault-Wrap-Ttl: %s\"", c->wrap_ttl);
    if (text != NULL)
        printf(" -d '%s'", text);
    printf(" %s\n", url);
}

static struct curl_slist *headers(const struct client *c, const char *method)
{
    struct curl_slist *h = NULL;
    char line[8192];

    h = curl_slist_append(h, "X-Vault-Request: true");
    h = curl_slist_append(h, strcmp(method, "PATCH") == 0
                                 ? "Content-Type: application/merge-patch+json"
                                 : "Content-Type: application/json");
    h = curl_slist_append(h, "Expect:");
    if (c->token != NULL && !c->no_token) {
        snprintf(line, sizeof(line), "X-Vault-Token: %s", c->token);
        h = curl_slist_append(h, line);
        OPENSSL_cleanse(line, sizeof(line));
    }
    if (c->ns != NULL) {
        snprintf(line, sizeof(line), "X-Vault-Namespace: %s", c->ns);
        h = curl_slist_append(h, line);
    }
    if (c->wrap_ttl != NULL) {
        snprintf(line, sizeof(line), "X-Vault-Wrap-Ttl: %s", c->wrap_ttl);
        h = curl_slist_append(h, line);
    }
    return h;
}

/* The path as the Go clients send it: each byte that is not allowed in a path is escaped, '/' and
 * the query stay. */
static void url_of(const struct client *c, const char *path, char *out, size_t len)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = (size_t)snprintf(out, len, "%s", c->addr);
    bool query = false;

    while (n > 0 && out[n - 1] == '/')
        n--;
    n += (size_t)snprintf(out + n, len - n, "/v1/");
    for (; *path != '\0' && n + 4 < len; path++) {
        unsigned char b = (unsigned char)*path;
        query = query || b == '?';
        if (b <= ' ' || b >= 127 || strchr("\"<>\\^`{|}%#", b) != NULL || (b == '+' && !query)) {
            out[n++] = '%';
            out[n++] = hex[b >> 4];
            out[n++] = hex[b & 15];
        } else {
            out[n++] = (char)b;
        }
    }
    out[n] = '\0';
}

/* VAULT_TLS_SERVER_NAME: the name is in the handshake and in the check of the certificate; the
 * connection goes to the address. */
static int name_server(CURL *curl, const struct client *c, const char *url,
                       struct curl_slist **connect_to, struct curl_slist **h, struct err *err)
{
    const char *host = strstr(url, "://"), *rest, *port;
    char text[1400];

    if (c->tls_server_name == NULL || strncmp(url, "https://", 8) != 0)
        return 0;
    host += 3;
    rest = host + strcspn(host, "/");
    port = *host == '[' ? host + strcspn(host, "]") : host;
    port = memchr(port, ':', (size_t)(rest - port));
    if (port == NULL)
        port = rest;
    snprintf(text, sizeof(text), "::%.*s:%.*s", (int)(port - host), host,
             port < rest ? (int)(rest - port - 1) : 3, port < rest ? port + 1 : "443");
    *connect_to = curl_slist_append(NULL, text);
    snprintf(text, sizeof(text), "Host: %.*s", (int)(rest - host), host);
    *h = curl_slist_append(*h, text);
    snprintf(text, sizeof(text), "https://%s%s", c->tls_server_name, port);
    if (*connect_to == NULL || curl_easy_setopt(curl, CURLOPT_URL, text) != CURLE_OK ||
        curl_easy_setopt(curl, CURLOPT_CONNECT_TO, *connect_to) != CURLE_OK)
        return err_set(err, ERR_NOMEM, 0, "HTTP client");
    return 0;
}

static int set_common(CURL *curl, const struct client *c, const char *url, const char *method,
                      struct curl_slist **connect_to, struct curl_slist **h, char *why,
                      struct err *err)
{
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(curl, CURLOPT_MAXREDIRS, 1L);
    /* The token goes along: never from TLS to plain. */
    curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR,
                     strncmp(c->addr, "https", 5) == 0 ? "https" : "http,https");
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    if (c->cacert != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, c->cacert);
    else if (c->capath != NULL)
        curl_easy_setopt(curl, CURLOPT_CAPATH, c->capath);
    if (c->client_cert != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLCERT, c->client_cert);
    if (c->client_key != NULL)
        curl_easy_setopt(curl, CURLOPT_SSLKEY, c->client_key);
    if (c->skip_verify) {
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (name_server(curl, c, url, connect_to, h, err) != 0)
        return -1;
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, *h);
    return 0;
}

static int call_failed(const struct client *c, const char *method, const char *url, const char *why,
                       CURLcode code, struct err *err)
{
    const char *hint = strncmp(c->addr, "https", 5) == 0 && strstr(why, "certificate") != NULL
                           ? " (set VAULT_CACERT to the CA that signed the server's certificate)"
                           : "";

    return err_set(err, ERR_IO, 0, "%s \"%s\": %s%s", method, url,
                   *why ? why : curl_easy_strerror(code), hint);
}

/* About once a second. */
static int on_wait(void *arg, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t e)
{
    struct show_progress *p = arg;

    (void)a, (void)b, (void)d, (void)e;
    if (show_due(p)) {
        fprintf(stderr, "waiting for %s: %.0f s\n", p->doing, p->shown_s);
        p->shown_s += 1.5;
    }
    return 0;
}

int client_call(struct client *c, const char *method, const char *path, const json_t *body,
                struct reply *r, struct err *err)
{
    char why[CURL_ERROR_SIZE] = "";
    struct curl_slist *h = NULL, *connect_to = NULL;
    struct show_progress p;
    char *text = NULL;
    CURLcode code = CURLE_OK;
    long status = 0;
    CURL *curl = NULL;
    int rc = -1;

    *r = (struct reply){.body = {.secret = true}};
    snprintf(r->method, sizeof(r->method), "%s", method);
    url_of(c, path, r->url, sizeof(r->url));
    if (body != NULL && (text = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY)) == NULL)
        return err_set(err, ERR_NOMEM, 0, "request body");
    if (c->output_curl) {
        curl_string(c, method, r->url, text);
        free(text);
        exit(0);
    }
    curl = curl_easy_init();
    h = headers(c, method);
    if (curl == NULL || h == NULL) {
        err_set(err, ERR_NOMEM, 0, "HTTP client");
        goto out;
    }
    if (set_common(curl, c, r->url, method, &connect_to, &h, why, err) != 0)
        goto out;
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)c->timeout_s);
    show_begin(&p, c->addr);
    if (!c->quiet && isatty(STDERR_FILENO)) {
        curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_wait);
        curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &p);
    }
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &r->body);
    if (text != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, text);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(text));
    }
    for (int64_t attempt = 0;; attempt++) {
        buf_clear(&r->body);
        code = curl_easy_perform(curl);
        if (code != CURLE_OK)
            break;
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
        if (!worth_retrying(status) || attempt >= c->max_retries)
            break;
        poll(NULL, 0, 1000); /* the official clients' pause before they ask again */
    }
    if (code != CURLE_OK) {
        call_failed(c, method, r->url, why, code, err);
        goto out;
    }
    r->status = (int)status;
    if (r->body.len > 0)
        r->json = json_loadb((const char *)r->body.data, r->body.len, JSON_DECODE_ANY, NULL);
    rc = buf_check(&r->body, err);
out:
    if (text != NULL) {
        OPENSSL_cleanse(text, strlen(text));
        free(text);
    }
    curl_slist_free_all(h);
    curl_slist_free_all(connect_to);
    if (curl != NULL)
        curl_easy_cleanup(curl);
    return rc;
}

struct download {
    CURL *curl;
    int fd;
    int sys; /* errno of a write that failed */
    uint64_t bytes;
    struct reply *r;
    void (*progress)(void *arg, uint64_t bytes);
    void *arg;
};

/* An answer that is no success is kept as text, up to what an error can be long. */
static size_t on_piece(char *data, size_t size, size_t n, void *arg)
{
    struct download *d = arg;
    size_t len = size * n, done = 0;
    long status = 0;

    curl_easy_getinfo(d->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        return d->r->body.len < 65536 ? on_body(data, size, n, &d->r->body) : len;
    while (done < len) {
        ssize_t w = write(d->fd, data + done, len - done);

        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            d->sys = errno;
            return 0;
        }
        done += (size_t)w;
    }
    d->bytes += len;
    if (d->progress != NULL)
        d->progress(d->arg, d->bytes);
    return len;
}

int client_download(struct client *c, const char *path, int fd,
                    void (*progress)(void *arg, uint64_t bytes), void *arg, struct reply *r,
                    struct err *err)
{
    struct download d = {
        .curl = curl_easy_init(), .fd = fd, .r = r, .progress = progress, .arg = arg};
    char why[CURL_ERROR_SIZE] = "";
    struct curl_slist *h = headers(c, "GET"), *connect_to = NULL;
    long status = 0;
    CURLcode code;
    int rc = -1;

    *r = (struct reply){.body = {.secret = true}};
    snprintf(r->method, sizeof(r->method), "GET");
    url_of(c, path, r->url, sizeof(r->url));
    if (d.curl == NULL || h == NULL) {
        err_set(err, ERR_NOMEM, 0, "HTTP client");
        goto out;
    }
    if (set_common(d.curl, c, r->url, "GET", &connect_to, &h, why, err) != 0)
        goto out;
    curl_easy_setopt(d.curl, CURLOPT_CONNECTTIMEOUT, (long)c->timeout_s);
    curl_easy_setopt(d.curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(d.curl, CURLOPT_LOW_SPEED_TIME, 120L);
    curl_easy_setopt(d.curl, CURLOPT_WRITEFUNCTION, on_piece);
    curl_easy_setopt(d.curl, CURLOPT_WRITEDATA, &d);
    code = curl_easy_perform(d.curl);
    if (d.sys != 0)
        err_set(err, ERR_IO, d.sys, "write the file");
    else if (code != CURLE_OK)
        call_failed(c, "GET", r->url, why, code, err);
    else {
        curl_easy_getinfo(d.curl, CURLINFO_RESPONSE_CODE, &status);
        r->status = (int)status;
        if (r->body.len > 0)
            r->json = json_loadb((const char *)r->body.data, r->body.len, JSON_DECODE_ANY, NULL);
        rc = 0;
    }
out:
    curl_slist_free_all(h);
    curl_slist_free_all(connect_to);
    if (d.curl != NULL)
        curl_easy_cleanup(d.curl);
    return rc;
}

void reply_free(struct reply *r)
{
    json_decref(r->json);
    buf_free(&r->body);
    r->json = NULL;
}

int reply_fail(const struct client *c, const struct reply *r, const struct err *err,
               const char *doing)
{
    const json_t *errors = json_object_get(r->json, "errors");
    json_t *e;
    size_t i;

    if (err != NULL && err->code != ERR_OK) {
        fprintf(stderr, "%s: %s\n", doing, err->msg);
        return EXIT_REMOTE;
    }
    fprintf(stderr, "%s: Error making API request.\n\nURL: %s %s\nCode: %d. ", doing, r->method,
            r->url, r->status);
    if (json_is_array(errors)) {
        fprintf(stderr, "Errors:\n\n");
        json_array_foreach(errors, i, e)
            fprintf(stderr, "* %s\n", json_is_string(e) ? json_string_value(e) : "?");
        if (c->takes_dr_token && strstr(buf_str(&r->body), "in replication DR secondary mode"))
            fprintf(
                stderr,
                "\nThis cluster is a DR secondary: it takes a DR operation token for this. Its key "
                "holders make\none (lockstep operator generate-root -dr-token -init), then give "
                "it: -dr-token=-\n");
    } else {
        fprintf(stderr, "Raw Message:\n\n%.*s\n", (int)(r->body.len < 4096 ? r->body.len : 4096),
                buf_str(&r->body));
    }
    return EXIT_REMOTE;
}
