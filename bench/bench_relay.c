/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_relay.c - carries TCP connections on with a delay each way, and cuts them when told.
 *
 * --help says how it is called. Bytes wait in a queue with the time at which they came; they are
 * sent when they are DELAY_MS old, in order, so the delay does not bound the rate. SIGUSR1 cuts all
 * connections and refuses new ones until SIGUSR2. Prints "ready" when it listens. One thread.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "env.h"
#include "usage.h"

#define PIECE_BYTES (256u << 10)
#define QUEUED_MAX (64u << 20) /* of one direction; then its sender waits */

struct piece {
    struct piece *next;
    int64_t due_ns;
    size_t len, at;
    uint8_t data[];
};
struct way { /* one direction */
    int from, to;
    struct piece *first, **last;
    size_t queued;
    bool ended; /* `from` sends no more */
};
struct pipe {
    struct pipe *next;
    struct way way[2];
    bool dead;
};
struct relay {
    int listener, signals, epoll, target_port;
    int64_t delay_ns;
    struct pipe *pipes;
    bool cut;
};

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "bench_relay: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in local(int port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)}};
    return sa;
}

static void watch(struct relay *r, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN, .data = {.fd = fd}};

    if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &ev) != 0)
        fail("epoll");
}

static void accept_one(struct relay *r)
{
    int a = accept4(r->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), b, on = 1;
    struct sockaddr_in sa = local(r->target_port);
    struct pipe *p;

    if (a < 0)
        return;
    b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (r->cut || b < 0 || connect(b, (struct sockaddr *)&sa, sizeof(sa)) != 0) {
        close(a);
        if (b >= 0)
            close(b);
        return;
    }
    setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(b, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    p = calloc(1, sizeof(*p));
    if (p == NULL)
        fail("memory");
    for (int i = 0; i < 2; i++) {
        p->way[i].from = i == 0 ? a : b;
        p->way[i].to = i == 0 ? b : a;
        p->way[i].last = &p->way[i].first;
    }
    p->next = r->pipes;
    r->pipes = p;
}

static bool receive(struct way *w, int64_t due_ns)
{
    struct piece *p;
    ssize_t n;

    if (w->ended || w->queued >= QUEUED_MAX)
        return true;
    p = malloc(sizeof(*p) + PIECE_BYTES);
    if (p == NULL)
        fail("memory");
    n = recv(w->from, p->data, PIECE_BYTES, MSG_DONTWAIT);
    if (n <= 0) {
        free(p);
        w->ended = n == 0;
        return n == 0 || errno == EAGAIN;
    }
    *p = (struct piece){.due_ns = due_ns, .len = (size_t)n};
    *w->last = p;
    w->last = &p->next;
    w->queued += (size_t)n;
    return true;
}

/* *nextp: when there is more to send. */
static bool deliver(struct way *w, int64_t now_ns, int64_t *nextp)
{
    struct piece *p;

    while ((p = w->first) != NULL && p->due_ns <= now_ns) {
        ssize_t n = send(w->to, p->data + p->at, p->len - p->at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return false;
        if (n < 0) {
            *nextp = now_ns + 1000000; /* the receiver is full */
            return true;
        }
        p->at += (size_t)n;
        w->queued -= (size_t)n;
        if (p->at < p->len)
            continue;
        w->first = p->next;
        if (w->first == NULL)
            w->last = &w->first;
        free(p);
    }
    if (p != NULL && p->due_ns < *nextp)
        *nextp = p->due_ns;
    if (p == NULL && w->ended)
        shutdown(w->to, SHUT_WR);
    return true;
}

static void drop(struct pipe *p)
{
    for (int i = 0; i < 2; i++) {
        struct piece *next;

        for (struct piece *q = p->way[i].first; q != NULL; q = next) {
            next = q->next;
            free(q);
        }
        close(p->way[i].from);
    }
    free(p);
}

/* Move what can be moved; returns when something is due again. */
static int64_t move_all(struct relay *r)
{
    int64_t now = env_mono_ns(env_real()), next = INT64_MAX;

    for (struct pipe **at = &r->pipes; *at != NULL;) {
        struct pipe *p = *at;
        bool good = !r->cut;

        for (int i = 0; i < 2 && good; i++)
            good = receive(&p->way[i], now + r->delay_ns) && deliver(&p->way[i], now, &next);
        if (good && p->way[0].ended && p->way[1].ended && p->way[0].first == NULL &&
            p->way[1].first == NULL)
            good = false;
        if (good) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        drop(p);
    }
    return next;
}

static void take_signal(struct relay *r)
{
    struct signalfd_siginfo si;

    if (read(r->signals, &si, sizeof(si)) == sizeof(si))
        r->cut = si.ssi_signo == SIGUSR1;
}

static void rearm(struct relay *r)
{
    for (struct pipe *p = r->pipes; p != NULL; p = p->next)
        for (int i = 0; i < 2; i++) {
            struct epoll_event ev = {.data = {.fd = p->way[i].from}};
            bool listen = !p->way[i].ended && p->way[i].queued < QUEUED_MAX;

            ev.events = listen ? EPOLLIN : 0;
            if (epoll_ctl(r->epoll, EPOLL_CTL_MOD, p->way[i].from, &ev) != 0)
                epoll_ctl(r->epoll, EPOLL_CTL_ADD, p->way[i].from, &ev);
        }
}

static void serve(struct relay *r)
{
    for (;;) {
        int64_t next = move_all(r), wait = next - env_mono_ns(env_real());
        struct timespec ts = {wait / 1000000000, wait % 1000000000};
        struct epoll_event ev[16];
        int n;

        if (wait < 0)
            ts = (struct timespec){0, 0};
        rearm(r);
        n = epoll_pwait2(r->epoll, ev, 16, next == INT64_MAX ? NULL : &ts, NULL);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.fd == r->listener)
                accept_one(r);
            else if (ev[i].data.fd == r->signals)
                take_signal(r);
        }
    }
}

static const char usage[] =
    "Usage: bench_relay LISTEN_PORT TARGET_PORT DELAY_MS\n"
    "\n"
    "Carries TCP connections from one port of 127.0.0.1 to another, DELAY_MS late each way.\n"
    "SIGUSR1 cuts all and refuses new ones until SIGUSR2. Prints \"ready\" when it listens.\n"
    "\n"
    "  --help                 this text\n";
static const struct option longs[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

int main(int argc, char **argv)
{
    struct relay r = {0};
    struct sockaddr_in sa;
    sigset_t set;
    int on = 1;

    (void)usage_option(argc, argv, longs, 3, usage);
    argv += optind;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sa = local(atoi(argv[0]));
    r.target_port = atoi(argv[1]);
    r.delay_ns = (int64_t)(atof(argv[2]) * 1e6);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    r.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    r.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (r.epoll < 0 || r.signals < 0 || r.listener < 0 ||
        setsockopt(r.listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(r.listener, (struct sockaddr *)&sa, sizeof(sa)) != 0 || listen(r.listener, 64) != 0)
        fail("listen");
    watch(&r, r.listener);
    watch(&r, r.signals);
    puts("ready");
    fflush(stdout);
    serve(&r);
}
