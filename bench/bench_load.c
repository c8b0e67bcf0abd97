/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_load.c - load on a server by many clients at once, in one thread: closed or open loop.
 *
 * Prints one JSON object; --help lists the options. A token comes from the environment,
 * BENCH_TOKEN, so that no list of processes shows it. An answer that refuses is counted, and the
 * first one is shown; a connection that breaks ends the run.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "env.h"
#include "hist.h"
#include "load.h"
#include "pace.h"
#include "usage.h"

#define POOL_BYTES (1u << 20)
#define READ_BYTES (64u << 10)

struct load {
    const struct protocol *protocol;
    struct load_request rq;
    const char *addr, *ca;
    unsigned connections;
    size_t value;
    uint64_t keys; /* 0: the path alone */
    bool in_order; /* each key once, then it ends */
    double seconds, warmup, rate;
    struct client *clients;
    struct client **idle;
    unsigned n_idle, n_ready;
    int epoll;
    SSL_CTX *tls;
    char *pool;
    uint64_t seed, next_key;
    struct pace pace;
    int64_t begin_ns, end_ns;
    double cpu_s; /* at begin */
    struct hist answer;
    uint64_t done, refused;
    char refusal[300];
};

_Noreturn static void fail(const char *what, const char *why)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, why);
    exit(1);
}

static int64_t now_ns(void)
{
    return env_mono_ns(env_real());
}

/* ---- connections ---- */
static int dial_unix(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0)
        fail(path, strerror(errno));
    return fd;
}

static int dial_tcp(const char *addr)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
    const char *colon = strrchr(addr, ':');
    char host[256];
    int fd, on = 1;

    if (colon == NULL)
        fail(addr, "not HOST:PORT");
    snprintf(host, sizeof(host), "%.*s", (int)(colon - addr), addr);
    if (getaddrinfo(host, colon + 1, &hints, &ai) != 0)
        fail(addr, "no such address");
    fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, ai->ai_addr, ai->ai_addrlen) != 0)
        fail(addr, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    freeaddrinfo(ai);
    return fd;
}

static void start_tls(struct load *l, struct client *c)
{
    c->ssl = SSL_new(l->tls);
    if (c->ssl == NULL || SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1)
        fail("TLS", ERR_reason_error_string(ERR_peek_last_error()));
}

static void dial(struct load *l, struct client *c)
{
    struct epoll_event ev = {.events = EPOLLIN, .data = {.ptr = c}};

    c->rq = &l->rq;
    c->fd = l->addr[0] == '/' ? dial_unix(l->addr) : dial_tcp(l->addr);
    if (l->tls != NULL)
        start_tls(l, c); /* blocking: not measured */
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev) != 0)
        fail("connection", strerror(errno));
}

static void flush(struct load *l, struct client *c)
{
    struct epoll_event ev = {.data = {.ptr = c}};
    bool blocked = false;

    while (c->out_at < c->out.len && !blocked) {
        const uint8_t *at = c->out.data + c->out_at;
        size_t len = c->out.len - c->out_at;
        ssize_t n =
            c->ssl != NULL ? SSL_write(c->ssl, at, (int)len) : send(c->fd, at, len, MSG_NOSIGNAL);

        blocked = n <= 0;
        if (blocked && (c->ssl != NULL ? SSL_get_error(c->ssl, (int)n) != SSL_ERROR_WANT_WRITE
                                       : errno != EAGAIN))
            fail("send", "the connection broke");
        c->out_at += blocked ? 0 : (size_t)n;
    }
    if (!blocked) {
        buf_clear(&c->out);
        c->out_at = 0;
    }
    if (blocked == c->want_write)
        return;
    c->want_write = blocked;
    ev.events = EPOLLIN | (blocked ? (unsigned)EPOLLOUT : 0);
    epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

/* ---- requests ---- */
static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* 24 characters; the order of keys is not that of their numbers. */
static void key_of(uint64_t i, char key[32])
{
    uint64_t a = i * 0x9e3779b97f4a7c15u;

    snprintf(key, 32, "%016llx%08llx", (unsigned long long)(a ^ a >> 29),
             (unsigned long long)(i & 0xffffffff));
}

/* False: there is nothing to send any more. */
static bool send_request(struct load *l, struct client *c, int64_t due_ns)
{
    uint64_t r = next_random(&l->seed);
    char key[32] = "";

    if (l->in_order && l->next_key == l->keys)
        return false;
    if (l->keys > 0)
        key_of(l->in_order ? l->next_key++ : r % l->keys, key);
    c->due_ns = due_ns;
    c->busy = true;
    l->protocol->request(c, key, l->pool + (r >> 32) % (POOL_BYTES - l->value), l->value);
    flush(l, c);
    return true;
}

/* Give idle clients what is due. */
static void send_due(struct load *l)
{
    int64_t now = now_ns(), due;

    while (l->n_idle > 0 && now < l->end_ns && pace_take(&l->pace, now, &due))
        if (!send_request(l, l->idle[--l->n_idle], due)) {
            l->n_idle++;
            return;
        }
}

/* ---- answers ---- */
static void count(struct load *l, struct client *c, enum feed f)
{
    int64_t now = now_ns();

    c->busy = false;
    l->idle[l->n_idle++] = c;
    if (now < l->begin_ns || now > l->end_ns)
        return;
    if (f == FEED_REFUSED) {
        l->refused++;
        return;
    }
    l->done++;
    if (c->due_ns >= l->begin_ns)
        hist_add(&l->answer, now - c->due_ns);
}

static void take_answers(struct load *l, struct client *c)
{
    size_t at = 0, used;

    while (at < c->in.len) {
        enum feed f = l->protocol->feed(c, c->in.data + at, c->in.len - at, &used);

        if (f == FEED_BROKEN || (f == FEED_REFUSED && !c->ready))
            fail(l->protocol->name, buf_str(&c->in));
        if (f == FEED_REFUSED && l->refusal[0] == '\0')
            snprintf(l->refusal, sizeof(l->refusal), "%.*s", (int)(c->in.len - at),
                     (const char *)c->in.data + at);
        at += used;
        if (f == FEED_MORE && used == 0)
            break;
        if (f == FEED_MORE)
            continue;
        if (!c->ready) {
            c->ready = true;
            l->n_ready++;
            l->idle[l->n_idle++] = c;
        } else if (c->busy) {
            count(l, c, f);
        }
    }
    memmove(c->in.data, c->in.data + at, c->in.len - at);
    c->in.len -= at;
    if (c->out.len > 0)
        flush(l, c);
}

static void on_readable(struct load *l, struct client *c)
{
    for (;;) {
        uint8_t *to = buf_reserve(&c->in, READ_BYTES);
        ssize_t n;

        if (to == NULL)
            fail("memory", "none left");
        n = c->ssl != NULL ? SSL_read(c->ssl, to, (int)READ_BYTES) : recv(c->fd, to, READ_BYTES, 0);
        if (n > 0) {
            buf_filled(&c->in, (size_t)n);
            if (c->ssl == NULL && n < (ssize_t)READ_BYTES)
                break;
            if (c->ssl != NULL && SSL_pending(c->ssl) == 0)
                break;
            continue;
        }
        if (c->ssl != NULL ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ
                           : n < 0 && errno == EAGAIN)
            break;
        if (c->in.len > 0)
            fprintf(stderr, "bench_load: %s\n", buf_str(&c->in));
        fail("receive", "the server closed the connection");
    }
    if (c->in.len > 0)
        take_answers(l, c);
}

static void poll_once(struct load *l, int64_t wait_ns)
{
    struct timespec ts = {wait_ns / 1000000000, wait_ns % 1000000000};
    struct epoll_event ev[256];
    int n = epoll_pwait2(l->epoll, ev, 256, &ts, NULL);

    for (int i = 0; i < n; i++) {
        if (ev[i].events & EPOLLOUT)
            flush(l, ev[i].data.ptr);
        if (ev[i].events & ~(unsigned)EPOLLOUT)
            on_readable(l, ev[i].data.ptr);
    }
}

/* ---- a run ---- */
static void connect_all(struct load *l)
{
    int64_t limit = now_ns() + 30000000000;

    for (unsigned i = 0; i < l->connections; i++) {
        struct client *c = &l->clients[i];

        dial(l, c);
        if (l->protocol->greets) {
            l->protocol->greet(c);
            flush(l, c);
        } else {
            c->ready = true;
            l->n_ready++;
            l->idle[l->n_idle++] = c;
        }
    }
    while (l->n_ready < l->connections) {
        poll_once(l, 100000000);
        if (now_ns() > limit)
            fail("greeting", "no answer for 30 s");
    }
}

static void run(struct load *l)
{
    bool begun = false;
    int64_t now;

    l->pace = (struct pace){.start_ns = now_ns(), .per_second = l->rate};
    l->begin_ns = l->pace.start_ns + (int64_t)(l->warmup * 1e9);
    l->end_ns = l->begin_ns + (int64_t)(l->seconds * 1e9);
    while ((now = now_ns()) < l->end_ns) {
        int64_t wait = 10000000;

        if (!begun && now >= l->begin_ns) {
            begun = true;
            l->cpu_s = cpu_self_s();
        }
        send_due(l);
        if (l->n_idle > 0 && l->in_order && l->next_key == l->keys) {
            if (l->n_idle == l->connections)
                break;
        } else if (l->n_idle > 0 && pace_wait_ns(&l->pace, now) < wait) {
            wait = pace_wait_ns(&l->pace, now);
        }
        poll_once(l, wait);
    }
    l->seconds = (double)((now < l->end_ns ? now : l->end_ns) - l->begin_ns) / 1e9;
    l->cpu_s = cpu_self_s() - l->cpu_s;
}

static void print_result(struct load *l)
{
    for (char *p = l->refusal; *p != '\0'; p++)
        if (*p < ' ' || *p > '~' || *p == '"' || *p == '\\')
            *p = ' ';
    printf("{\"protocol\": \"%s\", \"connections\": %u, \"value_bytes\": %zu, \"offered\": %.0f, "
           "\"seconds\": %.3f, \"done\": %llu, \"refused\": %llu, \"refusal\": \"%s\", "
           "\"late\": %llu, \"rate\": %.1f, \"generator_cpu_s\": %.3f, \"answer\": ",
           l->protocol->name, l->connections, l->value, l->rate, l->seconds,
           (unsigned long long)l->done, (unsigned long long)l->refused, l->refusal,
           (unsigned long long)pace_behind(&l->pace, l->end_ns), (double)l->done / l->seconds,
           l->cpu_s);
    hist_json(&l->answer, stdout);
    printf("}\n");
}

static void prepare(struct load *l)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    l->seed = (uint64_t)now_ns() | 1;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->clients = calloc(l->connections, sizeof(*l->clients));
    l->idle = calloc(l->connections, sizeof(struct client *));
    l->pool = malloc(POOL_BYTES);
    if (l->epoll < 0 || l->clients == NULL || l->idle == NULL || l->pool == NULL)
        fail("start", "out of memory");
    for (size_t i = 0; i < POOL_BYTES; i++)
        l->pool[i] = letters[(next_random(&l->seed) >> 20) % 64];
    if (!l->rq.tls)
        return;
    l->tls = SSL_CTX_new(TLS_client_method());
    if (l->tls == NULL || (l->ca != NULL && SSL_CTX_load_verify_file(l->tls, l->ca) != 1))
        fail(l->ca != NULL ? l->ca : "TLS", "cannot be used");
    if (l->ca != NULL)
        SSL_CTX_set_verify(l->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(l->tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (l->protocol->alpn != NULL)
        SSL_CTX_set_alpn_protos(l->tls, (const unsigned char *)l->protocol->alpn,
                                (unsigned)strlen(l->protocol->alpn));
}

/* ---- options ---- */
static const struct option longs[] = {{"protocol", required_argument, NULL, 'p'},
                                      {"addr", required_argument, NULL, 'a'},
                                      {"path", required_argument, NULL, 'P'},
                                      {"user", required_argument, NULL, 'u'},
                                      {"database", required_argument, NULL, 'd'},
                                      {"ca", required_argument, NULL, 'C'},
                                      {"tls", no_argument, NULL, 't'},
                                      {"get", no_argument, NULL, 'g'},
                                      {"kv2", no_argument, NULL, '2'},
                                      {"in-order", no_argument, NULL, 'i'},
                                      {"replicas", required_argument, NULL, 'R'},
                                      {"connections", required_argument, NULL, 'c'},
                                      {"value", required_argument, NULL, 'v'},
                                      {"keys", required_argument, NULL, 'k'},
                                      {"seconds", required_argument, NULL, 's'},
                                      {"warmup", required_argument, NULL, 'w'},
                                      {"rate", required_argument, NULL, 'r'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static const char usage[] =
    "Usage: bench_load --protocol=PROTOCOL --addr=HOST:PORT|/PATH [options]\n"
    "\n"
    "Load on a server by many clients at once. Prints one JSON object. A token for http comes\n"
    "from the environment, BENCH_TOKEN.\n"
    "\n"
    "  --protocol=PROTOCOL    http, redis, etcd or postgres\n"
    "  --addr=ADDRESS         HOST:PORT, or the path of a Unix socket\n"
    "  --path=PATH            http: what stands before the key; with --keys=0 all of it\n"
    "  --user=NAME            postgres (bench)\n"
    "  --database=NAME        postgres (bench)\n"
    "  --tls                  without looking at the certificate\n"
    "  --ca=FILE              the certificate is one of this CA's; with --tls\n"
    "  --get                  read, in place of write\n"
    "  --kv2                  http: bodies of a versioned store\n"
    "  --replicas=N           redis: WAIT for so many (0)\n"
    "  --connections=N        each with one request under way (64, at most 16384)\n"
    "  --value=BYTES          of a value (256, at most 65536)\n"
    "  --keys=N               that keys are drawn from (1000000); 0: the path alone\n"
    "  --in-order             each key once, then it ends\n"
    "  --seconds=S            measured (5)\n"
    "  --warmup=S             before that (0.5)\n"
    "  --rate=N               requests a second; 0 (default): as many as can be\n"
    "  --help                 this text\n";

static const struct protocol *protocol_of(const char *name)
{
    static const struct protocol *const all[] = {&protocol_http, &protocol_redis, &protocol_etcd,
                                                 &protocol_postgres};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    usage_fail("--protocol is http, redis, etcd or postgres");
}

static void take_option(struct load *l, int c, const char *arg)
{
    switch (c) {
    case 'p':
        l->protocol = protocol_of(arg);
        break;
    case 'a':
        l->addr = l->rq.host = arg;
        break;
    case 'P':
        l->rq.path = arg;
        break;
    case 'u':
        l->rq.user = arg;
        break;
    case 'd':
        l->rq.database = arg;
        break;
    case 'C':
        l->ca = arg;
        break;
    case 't':
        l->rq.tls = true;
        break;
    case 'g':
        l->rq.get = true;
        break;
    case '2':
        l->rq.kv2 = true;
        break;
    case 'i':
        l->in_order = true;
        break;
    case 'R':
        l->rq.replicas = (unsigned)strtoul(arg, NULL, 10);
        break;
    case 'c':
        l->connections = (unsigned)strtoul(arg, NULL, 10);
        break;
    case 'v':
        l->value = strtoul(arg, NULL, 10);
        break;
    case 'k':
        l->keys = strtoull(arg, NULL, 10);
        break;
    case 's':
        l->seconds = atof(arg);
        break;
    case 'w':
        l->warmup = atof(arg);
        break;
    case 'r':
        l->rate = atof(arg);
        break;
    default:
        break;
    }
}

int main(int argc, char **argv)
{
    static struct load l = {.rq = {.path = "", .user = "bench", .database = "bench"},
                            .connections = 64,
                            .value = 256,
                            .keys = 1000000,
                            .seconds = 5,
                            .warmup = 0.5};
    int c;

    while ((c = usage_option(argc, argv, longs, 0, usage)) != -1)
        take_option(&l, c, optarg);
    if (l.protocol == NULL || l.addr == NULL || l.connections == 0 || l.connections > 16384 ||
        l.value > 65536 || l.seconds <= 0 || l.warmup < 0 || l.rate < 0)
        usage_fail("--protocol and --addr are needed, and numbers that make sense");
    signal(SIGPIPE, SIG_IGN);
    l.rq.token = getenv("BENCH_TOKEN");
    prepare(&l);
    connect_all(&l);
    run(&l);
    print_result(&l);
    return 0;
}
