/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cluster.c - this node on the replication link: listener, credentials, and the root key that a
 * primary sent.
 *
 * PATH/link/identity.json (0600) holds our key, our certificate and the CA that signed it. It must
 * be readable while sealed, so that a sealed secondary goes on receiving; docs/SECURITY.md says
 * what a stolen disk gives. It is written aside, synced, renamed, and its folder synced. A
 * certificate alone opens nothing: the engine admits a peer by the hash of its key in the member
 * table.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"
#include "tls.h"

#define IDENTITY_MAX_BYTES (64u << 10)
#define DEFAULT_CLUSTER_PORT "8201"
#define HOST_CHARS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"

struct cluster {
    struct core *core;
    pthread_mutex_t mutex;
    struct link_net *net; /* NULL: stopped */
    /* Secure memory, BARRIER_KEY_BYTES; NULL: none. */
    uint8_t *root;     /* that a primary sent */
    uint8_t *own_root; /* of the barrier, while the store is replaced */
};

/* ---- link events, to the engine ---- */

static void on_opened(void *arg, uint64_t conn, bool inbound, const char *peer_addr,
                      const uint8_t key_hash[32])
{
    struct core *c = arg;

    engine_link_opened(c->engine, conn, inbound, peer_addr, key_hash);
}

static void on_frame(void *arg, uint64_t conn, const void *data, size_t len)
{
    struct core *c = arg;

    engine_link_frame(c->engine, conn, data, len);
}

static void on_sent(void *arg, uint64_t conn, size_t bytes)
{
    struct core *c = arg;

    engine_link_sent(c->engine, conn, bytes);
}

static void on_closed(void *arg, uint64_t conn, const char *reason)
{
    struct core *c = arg;

    engine_link_closed(c->engine, conn, reason);
}

/* ---- the engine's calls. It may make them until it is closed, so after the link is down ---- */

/* Member rows hold addresses as they were configured: URLs. */
static uint64_t op_dial(void *arg, const char *addr)
{
    struct cluster *cl = arg;
    uint64_t id = 0;
    char host_port[256];
    struct err err;

    if (addr_of_url(addr, host_port, &err) != 0) {
        log_error(cl->core->log, "replication", "cannot dial: %s", err.msg);
        return 0;
    }
    pthread_mutex_lock(&cl->mutex);
    if (cl->net != NULL)
        id = link_net_dial(cl->net, host_port, NULL);
    pthread_mutex_unlock(&cl->mutex);
    return id;
}

static void release_seg(void *seg)
{
    seg_unref(seg);
}

static void op_send(void *arg, uint64_t conn, const void *msg, size_t len, struct seg *seg)
{
    struct cluster *cl = arg;

    pthread_mutex_lock(&cl->mutex);
    if (cl->net != NULL && seg != NULL)
        link_net_send(cl->net, conn, msg, len, seg->bytes, seg->len, release_seg, seg_ref(seg));
    else if (cl->net != NULL)
        link_net_send(cl->net, conn, msg, len, NULL, 0, NULL, NULL);
    pthread_mutex_unlock(&cl->mutex);
}

static void op_close(void *arg, uint64_t conn, const char *reason)
{
    struct cluster *cl = arg;

    pthread_mutex_lock(&cl->mutex);
    if (cl->net != NULL)
        link_net_close(cl->net, conn, reason);
    pthread_mutex_unlock(&cl->mutex);
}

const struct link_ops *cluster_link_ops(struct core *c, void **netp)
{
    static const struct link_ops ops = {.dial = op_dial, .send = op_send, .close = op_close};

    *netp = c->cluster;
    return &ops;
}

/* ---- addresses ---- */

int addr_of_url(const char *url, char out[256], struct err *err)
{
    const char *host = strstr(url, "://"), *rest;
    struct in6_addr in6;
    char port[8] = DEFAULT_CLUSTER_PORT, ipv6[64] = "";
    int end = 0;
    bool good;

    host = host != NULL ? host + 3 : url;
    if (sscanf(host, "[%63[0-9A-Fa-f:.]]%n", ipv6, &end) == 1 && end > 0)
        good = inet_pton(AF_INET6, ipv6, &in6) == 1;
    else
        good = (end = (int)strspn(host, HOST_CHARS)) > 0 && end <= 240;
    rest = host + end;
    if (good && *rest == ':') {
        size_t n = strspn(rest + 1, "0123456789");

        snprintf(port, sizeof(port), "%.*s", n < sizeof(port) ? (int)n : 0, rest + 1);
        good = atoi(port) >= 1 && atoi(port) <= 65535;
        rest += 1 + n;
    }
    if (!good || (*rest != '\0' && strcmp(rest, "/") != 0))
        return err_set(err, ERR_INVAL, 0,
                       "\"%.80s\" is no cluster address: write https://HOST:PORT, IPv6 in brackets",
                       url);
    snprintf(out, 256, "%.*s:%s", end, host, port);
    return 0;
}

/* ---- files ---- */

void run_blocking(void (*fn)(void *), void *arg)
{
    if (co_current() != NULL)
        co_blocking(fn, arg);
    else
        fn(arg);
}

struct file_job {
    const char *dir, *text;
    size_t len;
    bool remove;
    struct err *err;
    int rc;
};

static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static int file_replace(int dirfd, const struct file_job *j, struct err *err)
{
    int fd = openat(dirfd, "identity.tmp", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600), rc;

    if (fd < 0)
        return err_set(err, ERR_IO, errno, "create %s/identity.tmp", j->dir);
    rc = write_all(fd, j->text, j->len) == 0 && fsync(fd) == 0
             ? 0
             : err_set(err, ERR_IO, errno, "write %s/identity.tmp", j->dir);
    close(fd);
    if (rc == 0 && renameat(dirfd, "identity.tmp", dirfd, "identity.json") != 0)
        rc = err_set(err, ERR_IO, errno, "rename %s/identity.tmp", j->dir);
    return rc;
}

/* The folder's own name was synced when it was made; a crash before that leaves no identity, as
 * before the call. */
static int sync_parent(const char *dir, struct err *err)
{
    char parent[4096];
    char *slash;
    int fd, rc = 0;

    snprintf(parent, sizeof(parent), "%s", dir);
    slash = strrchr(parent, '/');
    if (slash == NULL)
        return 0;
    *slash = '\0';
    fd = open(parent[0] != '\0' ? parent : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        rc = err_set(err, ERR_IO, errno, "sync %s", parent);
    if (fd >= 0)
        close(fd);
    return rc;
}

static void file_run(void *arg)
{
    struct file_job *j = arg;
    int dirfd;

    j->rc = -1;
    if (mkdir(j->dir, 0700) == 0 ? sync_parent(j->dir, j->err) != 0 : errno != EEXIST) {
        if (j->err->code == ERR_OK)
            err_set(j->err, ERR_IO, errno, "create %s", j->dir);
        return;
    }
    dirfd = open(j->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0) {
        err_set(j->err, ERR_IO, errno, "open %s", j->dir);
        return;
    }
    if (!j->remove)
        j->rc = file_replace(dirfd, j, j->err);
    else if (unlinkat(dirfd, "identity.json", 0) != 0 && errno != ENOENT)
        err_set(j->err, ERR_IO, errno, "remove %s/identity.json", j->dir);
    else
        j->rc = 0;
    if (j->rc == 0 && fsync(dirfd) != 0)
        j->rc = err_set(j->err, ERR_IO, errno, "sync %s", j->dir);
    close(dirfd);
}

static int file_do(struct core *c, struct file_job *j, struct err *err)
{
    struct err own = {0};
    char dir[4096];

    if (snprintf(dir, sizeof(dir), "%s/link", c->config->storage_path) >= (int)sizeof(dir))
        return err_set(err, ERR_INVAL, 0, "the storage path is too long");
    j->dir = dir;
    j->err = &own;
    run_blocking(file_run, j);
    if (j->rc != 0 && err != NULL)
        *err = own;
    return j->rc;
}

/* ---- identity ---- */

void identity_free(struct link_identity *id)
{
    buf_free(&id->key);
    buf_free(&id->cert);
    buf_free(&id->ca);
}

static int take(const json_t *v, const char *name, struct buf *out)
{
    const char *text = json_string_value(json_object_get(v, name));

    out->secret = true;
    buf_adds(out, text != NULL ? text : "");
    return text != NULL && !out->failed ? 0 : -1;
}

int identity_load(struct core *c, struct link_identity *id, struct err *err)
{
    char path[4096], *text;
    json_t *v = NULL;
    ssize_t n;
    int fd, rc;

    memset(id, 0, sizeof(*id));
    snprintf(path, sizeof(path), "%s/link/identity.json", c->config->storage_path);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOTFOUND : ERR_IO, errno,
                       "open %s", path);
    text = malloc(IDENTITY_MAX_BYTES);
    n = text != NULL ? read(fd, text, IDENTITY_MAX_BYTES) : -1;
    close(fd);
    if (n > 0)
        v = json_loadb(text, (size_t)n, 0, NULL);
    if (text != NULL)
        OPENSSL_cleanse(text, IDENTITY_MAX_BYTES);
    free(text);
    rc = take(v, "key", &id->key) | take(v, "certificate", &id->cert) | take(v, "ca", &id->ca);
    json_decref(v);
    if (rc == 0)
        return 0;
    identity_free(id);
    return err_set(err, ERR_CORRUPT, 0, "%s is damaged: remove it, then enable replication again",
                   path);
}

int identity_save(struct core *c, const struct link_identity *id, struct err *err)
{
    json_t *v = json_pack("{s:s, s:s, s:s}", "key", buf_str(&id->key), "certificate",
                          buf_str(&id->cert), "ca", buf_str(&id->ca));
    char *text = v != NULL ? json_dumps(v, JSON_INDENT(1)) : NULL;
    struct file_job j = {.text = text};
    int rc;

    json_decref(v);
    if (text == NULL)
        return err_set(err, ERR_NOMEM, 0, "link identity");
    j.len = strlen(text);
    rc = file_do(c, &j, err);
    OPENSSL_cleanse(text, j.len);
    free(text);
    return rc;
}

int identity_remove(struct core *c, struct err *err)
{
    struct file_job j = {.remove = true};

    return file_do(c, &j, err);
}

int identity_key(struct core *c, struct link_identity *id, struct err *err)
{
    struct err why = {0};

    if (identity_load(c, id, &why) == 0)
        return 0;
    if (why.code != ERR_NOTFOUND)
        return err_set(err, why.code, 0, "%s", why.msg);
    if (cert_key_new(&id->key, err) != 0 || identity_save(c, id, err) != 0) {
        identity_free(id);
        return -1;
    }
    return 0;
}

static int tell_engine(struct core *c, const struct link_identity *id, struct err *err)
{
    uint8_t hash[32];

    if (cert_key_hash(buf_str(&id->cert), hash, err) != 0)
        return -1;
    engine_link_key(c->engine, hash);
    return 0;
}

int cluster_credentials(struct core *c, const struct link_identity *id, struct err *err)
{
    struct tls_identity who;
    struct tls_ctx *tls = NULL;

    if (id != NULL) {
        if (c->engine != NULL && tell_engine(c, id, err) != 0)
            return -1;
        who = (struct tls_identity){.cert_pem = buf_str(&id->cert),
                                    .key_pem = buf_str(&id->key),
                                    .ca_pem = buf_str(&id->ca)};
        if (tls_link(&who, &tls, err) != 0)
            return -1;
    }
    pthread_mutex_lock(&c->cluster->mutex);
    if (c->cluster->net != NULL)
        link_net_credentials(c->cluster->net, tls);
    pthread_mutex_unlock(&c->cluster->mutex);
    tls_unref(tls);
    return 0;
}

/* With the identity of this node, when it has one. Works while sealed. */
static int with_identity(struct core *c,
                         int (*fn)(struct core *c, const struct link_identity *id, struct err *err),
                         struct err *err)
{
    struct link_identity id;
    struct err why = {0};
    int rc = 0;

    if (identity_load(c, &id, &why) != 0)
        return why.code == ERR_NOTFOUND ? 0 : err_set(err, why.code, 0, "%s", why.msg);
    if (id.cert.len > 0)
        rc = fn(c, &id, err);
    identity_free(&id);
    return rc;
}

/* ---- life ---- */

int cluster_new(struct core *c, struct err *err)
{
    struct link_events ev = {
        .arg = c, .opened = on_opened, .frame = on_frame, .sent = on_sent, .closed = on_closed};
    struct cluster *cl = calloc(1, sizeof(*cl));

    if (cl == NULL)
        return err_set(err, ERR_NOMEM, 0, "cluster");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0) {
        free(cl);
        return err_set(err, ERR_UNSUPPORTED, 0, "libcurl can't be used on this machine");
    }
    if (link_net_new(c->reactors[0], c->log, &ev, &cl->net, err) != 0) {
        free(cl);
        return -1;
    }
    cl->core = c;
    pthread_mutex_init(&cl->mutex, NULL);
    c->cluster = cl;
    if (with_identity(c, cluster_credentials, err) != 0) { /* before the engine dials */
        cluster_free(c);
        return -1;
    }
    return 0;
}

int cluster_engine_opened(struct core *c, struct err *err)
{
    return with_identity(c, tell_engine, err);
}

int cluster_start(struct core *c, struct err *err)
{
    for (size_t i = 0; i < c->config->n_listeners; i++) {
        const char *address = c->config->listeners[i].cluster_address;
        char bound[128];
        if (address == NULL)
            continue;
        log_info(c->log, "core.cluster-listener", "starting listener: listener_address=%s",
                 address);
        if (link_net_listen(c->cluster->net, address, bound, sizeof(bound), err) != 0)
            return err_wrap(err, "cluster_address %s", address);
        log_info(c->log, "core.cluster-listener",
                 "serving cluster requests: cluster_listen_address=%s", bound);
    }
    return 0;
}

void cluster_stop(struct core *c)
{
    struct cluster *cl = c->cluster;
    struct link_net *net;

    if (cl == NULL)
        return;
    pthread_mutex_lock(&cl->mutex);
    net = cl->net;
    cl->net = NULL;
    pthread_mutex_unlock(&cl->mutex);
    if (net != NULL)
        link_net_free(net);
}

static void replace_root(struct cluster *cl, uint8_t **at, uint8_t *root);

void cluster_free(struct core *c)
{
    struct cluster *cl = c->cluster;

    if (cl == NULL)
        return;
    cluster_stop(c);
    replace_root(cl, &cl->root, NULL);
    replace_root(cl, &cl->own_root, NULL);
    pthread_mutex_destroy(&cl->mutex);
    free(cl);
    c->cluster = NULL;
}

/* ---- keys ---- */

static void replace_root(struct cluster *cl, uint8_t **at, uint8_t *root)
{
    uint8_t *old;

    pthread_mutex_lock(&cl->mutex);
    old = *at;
    *at = root;
    pthread_mutex_unlock(&cl->mutex);
    if (old != NULL)
        OPENSSL_secure_clear_free(old, BARRIER_KEY_BYTES);
}

static int keep_root(struct cluster *cl, uint8_t **at, const uint8_t *root, struct err *err)
{
    uint8_t *mine = NULL;

    if (root != NULL) {
        mine = OPENSSL_secure_malloc(BARRIER_KEY_BYTES);
        if (mine == NULL)
            return err_set(err, ERR_NOMEM, 0, "no guarded memory for the root key");
        memcpy(mine, root, BARRIER_KEY_BYTES);
    }
    replace_root(cl, at, mine);
    return 0;
}

int cluster_expect_root(struct core *c, const uint8_t *root, struct err *err)
{
    return keep_root(c->cluster, &c->cluster->root, root, err);
}

void cluster_store_replacing(struct core *c)
{
    struct buf root = {.secret = true};
    struct err err = {0};

    if (barrier_is_open(c->barrier) &&
        (barrier_root(c->barrier, &root, &err) != 0 ||
         keep_root(c->cluster, &c->cluster->own_root, root.data, &err) != 0))
        log_warn(c->log, "replication", "this secondary may need its unseal keys: %s", err.msg);
    buf_free(&root);
}

static bool try_root(struct core *c, uint8_t **at, struct err *err)
{
    uint8_t *root;
    bool opened;

    pthread_mutex_lock(&c->cluster->mutex);
    root = *at;
    *at = NULL;
    pthread_mutex_unlock(&c->cluster->mutex);
    if (root == NULL)
        return false;
    opened = core_unseal_with_root(c, root, err) == 0;
    OPENSSL_secure_clear_free(root, BARRIER_KEY_BYTES);
    return opened;
}

/* The key that the primary sent when this secondary was taken in; or, when that was long ago or
 * never, the one that has opened the barrier until now: a first copy that went on after a restart
 * finds the old cluster's here. */
void cluster_store_replaced(struct core *c)
{
    struct err err = {0}, own = {0};

    if (!try_root(c, &c->cluster->root, &err) && !try_root(c, &c->cluster->own_root, &own))
        log_warn(c->log, "replication",
                 "the primary's data is in place: unseal with the primary's unseal keys%s%s",
                 own.code != ERR_OK || err.code != ERR_OK ? ": " : "",
                 own.code != ERR_OK ? own.msg : err.msg);
    replace_root(c->cluster, &c->cluster->own_root, NULL);
}

void cluster_epoch_key(struct core *c)
{
    char id[40], name[128], label[64];
    uint8_t key[32];
    struct err err = {0};

    if (core_cluster(c, id, name, &err) == 0) {
        snprintf(label, sizeof(label), "epoch/%s", id);
        if (barrier_derive(c->barrier, label, key, &err) == 0)
            engine_epoch_key(c->engine, key);
    }
    if (err.code != ERR_OK && err.code != ERR_SEALED)
        log_error(c->log, "replication", "cannot derive the epoch key: %s", err.msg);
    OPENSSL_cleanse(key, sizeof(key));
}

void cluster_unsealed(struct core *c)
{
    struct repl_config rc;
    struct err err = {0};

    cluster_epoch_key(c);
    atomic_store(&c->settle_again, false);
    if (c->role != ENGINE_PRIMARY)
        return;
    if (repl_config_get(c, &rc, &err) != 0 ||
        (rc.primary_enabled && primary_settle(c, NULL, &err) != 0))
        log_error(c->log, "replication", "cannot take up the work of a primary: %s", err.msg);
}

void cluster_sealed(struct core *c)
{
    engine_epoch_key(c->engine, NULL);
}
