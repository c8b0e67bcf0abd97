/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * bench_engine.c - the engine under load: alone, or with a secondary in another process over TLS.
 *
 * Prints one JSON object; --help lists the options.
 * The secondary is forked before any thread is there, and ends when its pipe closes: with its
 * parent, however that ends. docs/PERFORMANCE.md says what the figures mean.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "dummy.h"
#include "lag.h"
#include "node.h"
#include "producers.h"
#include "stages.h"
#include "usage.h"

enum mode { ALONE, ASYNC, FLUSH, DUMMY, REOPEN };
static const char *const mode_names[] = {"alone", "async", "flush", "dummy", "reopen", NULL};

struct options {
    const char *dir, *listen, *via;
    enum mode mode;
    double seconds, warmup, rate, preload_seconds;
    size_t value;
    unsigned outstanding;
    uint64_t keys, preload, cache_mib, window_mib, checkpoint_mib;
    bool die; /* at the end, as by SIGKILL: for a reopen */
    bool stages;
};

struct bench {
    struct options o;
    struct node_identity id[2]; /* primary, secondary */
    struct lag *lag;
    struct stages *stages; /* NULL: not asked for */
    struct node node;
    struct dummy_sender *dummy;
    pid_t child; /* 0: none */
    int to_child;
    uint64_t preloaded; /* keys */
    struct {
        double self_s, child_s;
        uint64_t bytes, segments;
    } at_begin;
};

/* ---- the secondary's process ---- */
static void child_durable(void *arg, uint64_t first, uint64_t last, int64_t now_ns)
{
    struct lag *l = arg;

    lag_secondary(l, &l->durable, first, last, now_ns);
}

static void child_applied(void *arg, const char *key, uint64_t lsn)
{
    struct lag *l = arg;

    (void)key;
    lag_secondary(l, &l->applied, lsn, lsn, env_mono_ns(env_real()));
}

/* A line from the parent; false: it is gone. */
static bool read_line(int fd, char *line, size_t size)
{
    size_t n = 0;

    while (n + 1 < size && read(fd, line + n, 1) == 1) {
        if (line[n] == '\n') {
            line[n] = '\0';
            return true;
        }
        n++;
    }
    return false;
}

_Noreturn static void run_child(struct bench *b, int from_parent)
{
    struct tap_events tap = {.arg = b->lag, .durable = child_durable};
    char dir[400], addr[256];
    struct node n;
    struct node_config cfg = {.path = dir,
                              .identity = &b->id[1],
                              .cache_bytes = b->o.cache_mib << 20,
                              .tap = &tap,
                              .applied = child_applied,
                              .applied_arg = b->lag};

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(dir, sizeof(dir), "%s/secondary", b->o.dir);
    if (mkdir(dir, 0700) != 0 || !read_line(from_parent, addr, sizeof(addr)))
        _exit(1);
    if (b->o.mode == DUMMY) {
        dummy_receive(&b->id[1], addr, dir);
        _exit(0);
    }
    if (b->stages != NULL)
        stages_install(b->stages, true);
    node_open(&n, &cfg);
    node_follow(&n, &b->id[0], addr);
    read_line(from_parent, addr, sizeof(addr)); /* until it closes */
    node_close(&n);
    _exit(0);
}

static void fork_child(struct bench *b)
{
    int fds[2];

    if (pipe(fds) != 0)
        node_fail("pipe", "cannot make one");
    b->child = fork();
    if (b->child < 0)
        node_fail("fork", "failed");
    if (b->child == 0) {
        close(fds[1]);
        run_child(b, fds[0]);
    }
    close(fds[0]);
    b->to_child = fds[1];
}

static void tell_child(struct bench *b, const char *addr)
{
    if (dprintf(b->to_child, "%s\n", addr) < 0)
        node_fail("secondary", "it is gone");
}

/* ---- the primary's ---- */
static void own_durable(void *arg, uint64_t first, uint64_t last, int64_t now_ns)
{
    lag_primary(((struct bench *)arg)->lag, first, last, now_ns);
}

static void own_written(void *arg, const void *seg, size_t len)
{
    struct bench *b = arg;

    if (b->dummy != NULL)
        dummy_send(b->dummy, seg, len);
}

static double child_cpu_s(const struct bench *b)
{
    struct timespec ts = {0};
    clockid_t clock;

    if (b->child != 0 && clock_getcpuclockid(b->child, &clock) == 0)
        clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void on_begin(void *arg)
{
    struct bench *b = arg;

    b->at_begin.self_s = cpu_self_s();
    b->at_begin.child_s = child_cpu_s(b);
    b->at_begin.bytes = tap_bytes();
    b->at_begin.segments = tap_segments();
    lag_begin(b->lag, env_mono_ns(env_real()));
    fprintf(stderr, "begin\n"); /* for who does something to it meanwhile */
}

static void open_primary(struct bench *b)
{
    struct tap_events tap = {.arg = b, .durable = own_durable, .written = own_written};
    char dir[400];
    struct node_config cfg = {.path = dir,
                              .cache_bytes = b->o.cache_mib << 20,
                              .window_bytes = b->o.window_mib << 20,
                              .checkpoint_log_bytes = b->o.checkpoint_mib << 20,
                              .tap = &tap};

    snprintf(dir, sizeof(dir), "%s/primary", b->o.dir);
    if (mkdir(dir, 0700) != 0 && (errno != EEXIST || b->o.mode != ALONE))
        node_fail(dir, "cannot make it");
    if (b->o.mode == ASYNC || b->o.mode == FLUSH) {
        cfg.identity = &b->id[0];
        cfg.listen = b->o.listen != NULL ? b->o.listen : "127.0.0.1:0";
    }
    if (b->stages != NULL)
        stages_install(b->stages, false);
    node_open(&b->node, &cfg);
}

static void preload(struct bench *b)
{
    struct producers_result *r = calloc(1, sizeof(*r));
    struct producers_config cfg = {.engine = b->node.engine,
                                   .outstanding = 4096,
                                   .value_bytes = b->o.value,
                                   .keys = b->o.preload,
                                   .in_order = true,
                                   .seconds = b->o.preload_seconds};

    if (r == NULL)
        node_fail("preload", "out of memory");
    if (b->o.preload > 0)
        producers_run(&cfg, r);
    b->preloaded = r->done;
    free(r);
    node_await_folded(&b->node); /* what was written before is not part of the load */
}

static void attach(struct bench *b)
{
    if (b->o.mode == DUMMY) {
        b->dummy = dummy_sender_new(&b->id[0]);
        tell_child(b, dummy_sender_addr(b->dummy));
        dummy_sender_await(b->dummy);
        return;
    }
    node_admit(&b->node, &b->id[1]);
    tell_child(b, b->o.via != NULL ? b->o.via : b->node.bound);
    node_await_secondary(&b->node);
    if (b->o.mode == FLUSH)
        node_mode(&b->node, REPL_FLUSH);
}

static void print_result(struct bench *b, const struct producers_result *r)
{
    double cpu = cpu_self_s() - b->at_begin.self_s - r->producer_cpu_s;
    uint64_t segments = tap_segments() - b->at_begin.segments;
    struct rusage u;

    getrusage(RUSAGE_SELF, &u);
    printf("{\"mode\": \"%s\", \"preloaded\": %llu, \"value_bytes\": %zu, \"outstanding\": %u, "
           "\"offered\": %.0f, "
           "\"seconds\": %.3f, \"done\": %llu, \"refused\": %llu, \"late\": %llu, \"rate\": %.1f, ",
           mode_names[b->o.mode], (unsigned long long)b->preloaded, b->o.value, b->o.outstanding,
           b->o.rate, r->seconds, (unsigned long long)r->done, (unsigned long long)r->refused,
           (unsigned long long)r->late, (double)r->done / r->seconds);
    printf("\"log_bytes_per_s\": %.0f, \"segments\": %llu, \"per_segment\": %.2f, "
           "\"generator_cpu_s\": %.3f, \"cpu_s\": %.3f, \"secondary_cpu_s\": %.3f, "
           "\"rss_max_kib\": %ld, ",
           (double)(tap_bytes() - b->at_begin.bytes) / r->seconds, (unsigned long long)segments,
           segments > 0 ? (double)r->done / (double)segments : 0, r->producer_cpu_s, cpu,
           child_cpu_s(b) - b->at_begin.child_s, u.ru_maxrss);
    printf("\"begin_mono_ns\": %lld, \"per_second\": [", (long long)b->lag->since_ns);
    for (unsigned i = 0; i < PRODUCERS_SECONDS_MAX && (double)i + 1 <= r->seconds + 0.01; i++)
        printf("%s%u", i > 0 ? ", " : "", r->per_second[i]);
    printf("], \"answer\": ");
    hist_json(&r->answer, stdout);
    if (b->o.mode == ASYNC || b->o.mode == FLUSH) {
        printf(", \"lag\": {");
        lag_json(b->lag, stdout);
        printf("}");
    }
    if (b->stages != NULL) {
        printf(", \"stages\": ");
        stages_json(b->stages, b->o.mode == ASYNC || b->o.mode == FLUSH, stdout);
    }
    printf("}\n");
}

static void run(struct bench *b)
{
    struct producers_result *r = malloc(sizeof(*r));
    struct producers_config cfg = {.outstanding = b->o.outstanding,
                                   .value_bytes = b->o.value,
                                   .keys = b->o.keys,
                                   .rate = b->o.rate,
                                   .warmup_s = b->o.warmup,
                                   .seconds = b->o.seconds,
                                   .stages = b->stages,
                                   .begin = on_begin,
                                   .begin_arg = b};
    int status = 0;

    if (r == NULL)
        node_fail("run", "out of memory");
    if (b->o.mode != ALONE) {
        node_identities(b->id, 2);
        fork_child(b);
    }
    open_primary(b);
    preload(b);
    if (b->o.mode != ALONE)
        attach(b);
    cfg.engine = b->node.engine;
    producers_run(&cfg, r);
    print_result(b, r);
    if (b->o.die) {
        fflush(stdout);
        kill(getpid(), SIGKILL);
    }
    node_close(&b->node);
    if (b->dummy != NULL)
        dummy_sender_free(b->dummy);
    if (b->child != 0) {
        close(b->to_child);
        waitpid(b->child, &status, 0);
    }
    free(r);
    if (status != 0)
        node_fail("secondary", "it failed");
}

/* ---- recovery ---- */
struct recovery {
    int64_t begin_ns, end_ns;
    uint64_t records;
};

static void on_recovered(void *arg, struct engine *e)
{
    struct engine_status *st = malloc(sizeof(*st));
    struct recovery *r = arg;

    if (st == NULL)
        node_fail("status", "out of memory");
    r->end_ns = env_mono_ns(env_real());
    engine_status(e, st);
    r->records = st->applied_lsn - st->checkpoint_lsn;
    free(st);
}

static void reopen(struct bench *b)
{
    struct recovery r = {.begin_ns = env_mono_ns(env_real())};
    char dir[400];
    struct node_config cfg = {.path = dir,
                              .cache_bytes = b->o.cache_mib << 20,
                              .recovered = on_recovered,
                              .recovered_arg = &r};
    double seconds;

    snprintf(dir, sizeof(dir), "%s/primary", b->o.dir);
    node_open(&b->node, &cfg);
    seconds = (double)(r.end_ns - r.begin_ns) / 1e9;
    printf("{\"records\": %llu, \"seconds\": %.4f, \"records_per_s\": %.1f}\n",
           (unsigned long long)r.records, seconds, (double)r.records / seconds);
    node_close(&b->node);
}

/* ---- options ---- */
static const struct option longs[] = {{"dir", required_argument, NULL, 'd'},
                                      {"mode", required_argument, NULL, 'm'},
                                      {"seconds", required_argument, NULL, 's'},
                                      {"warmup", required_argument, NULL, 'w'},
                                      {"value", required_argument, NULL, 'v'},
                                      {"outstanding", required_argument, NULL, 'o'},
                                      {"rate", required_argument, NULL, 'r'},
                                      {"keys", required_argument, NULL, 'k'},
                                      {"preload", required_argument, NULL, 'p'},
                                      {"preload-seconds", required_argument, NULL, 'P'},
                                      {"cache-mib", required_argument, NULL, 'c'},
                                      {"listen", required_argument, NULL, 'l'},
                                      {"via", required_argument, NULL, 'V'},
                                      {"window-mib", required_argument, NULL, 'W'},
                                      {"checkpoint-mib", required_argument, NULL, 'C'},
                                      {"die", no_argument, NULL, 'D'},
                                      {"stages", no_argument, NULL, 'S'},
                                      {"help", no_argument, NULL, 'h'},
                                      {NULL, 0, NULL, 0}};

static const char usage[] =
    "Usage: bench_engine --dir=DIR [options]\n"
    "\n"
    "The engine under load, in the folder DIR: empty, or of an earlier run alone. Prints one JSON "
    "object.\n"
    "\n"
    "  --mode=MODE            alone (default), async, flush: with a secondary in that mode;\n"
    "                         dummy: with one that only receives and flushes;\n"
    "                         reopen: how long the recovery of DIR takes\n"
    "  --seconds=S            measured (5)\n"
    "  --warmup=S             before that (0.5)\n"
    "  --value=BYTES          of a value (256, at most 65536)\n"
    "  --outstanding=N        transactions at a time (64)\n"
    "  --rate=N               transactions a second; 0 (default): as many as can be\n"
    "  --keys=N               that keys are drawn from (1000000)\n"
    "  --preload=N            keys written before (0), for at most\n"
    "  --preload-seconds=S\n"
    "  --cache-mib=N          of WiredTiger's cache; 0 (default): the engine's choice\n"
    "  --checkpoint-mib=N     of log between checkpoints; 0 (default): the engine's choice\n"
    "  --window-mib=N         sent and not acknowledged; 0 (default): the engine's choice\n"
    "  --listen=HOST:PORT     of the primary (a free port of 127.0.0.1)\n"
    "  --via=HOST:PORT        what the secondary dials, as a relay (the primary itself)\n"
    "  --stages               how long each stage of a write takes (costs a little)\n"
    "  --die                  end as by SIGKILL, for a reopen\n"
    "  --help                 this text\n";

static enum mode mode_of(const char *word)
{
    for (unsigned i = 0; mode_names[i] != NULL; i++)
        if (strcmp(word, mode_names[i]) == 0)
            return (enum mode)i;
    usage_fail("--mode is alone, async, flush, dummy or reopen");
}

static void take_option(struct options *o, int c, const char *arg)
{
    switch (c) {
    case 'd':
        o->dir = arg;
        break;
    case 'm':
        o->mode = mode_of(arg);
        break;
    case 's':
        o->seconds = atof(arg);
        break;
    case 'w':
        o->warmup = atof(arg);
        break;
    case 'r':
        o->rate = atof(arg);
        break;
    case 'v':
        o->value = strtoul(arg, NULL, 10);
        break;
    case 'o':
        o->outstanding = (unsigned)strtoul(arg, NULL, 10);
        break;
    case 'k':
        o->keys = strtoull(arg, NULL, 10);
        break;
    case 'p':
        o->preload = strtoull(arg, NULL, 10);
        break;
    case 'P':
        o->preload_seconds = atof(arg);
        break;
    case 'c':
        o->cache_mib = strtoull(arg, NULL, 10);
        break;
    case 'D':
        o->die = true;
        break;
    case 'S':
        o->stages = true;
        break;
    case 'W':
        o->window_mib = strtoull(arg, NULL, 10);
        break;
    case 'C':
        o->checkpoint_mib = strtoull(arg, NULL, 10);
        break;
    case 'l':
        o->listen = arg;
        break;
    case 'V':
        o->via = arg;
        break;
    default:
        break;
    }
}

int main(int argc, char **argv)
{
    static struct bench b = {.o = {.seconds = 5,
                                   .warmup = 0.5,
                                   .value = 256,
                                   .outstanding = 64,
                                   .preload_seconds = 1e6,
                                   .keys = 1000000}};
    int c;

    while ((c = usage_option(argc, argv, longs, 0, usage)) != -1)
        take_option(&b.o, c, optarg);
    if (b.o.dir == NULL || b.o.seconds <= 0 || b.o.seconds >= PRODUCERS_SECONDS_MAX ||
        b.o.warmup < 0 || b.o.rate < 0 || b.o.value == 0 || b.o.value > 65536 ||
        b.o.outstanding == 0 || b.o.keys == 0)
        usage_fail("--dir is needed, and numbers that make sense");
    signal(SIGPIPE, SIG_IGN);
    b.lag = lag_new();
    if (b.lag == NULL)
        node_fail("lag", "out of memory");
    if (b.o.stages && (b.stages = stages_new()) == NULL)
        node_fail("stages", "out of memory");
    if (b.o.mode == REOPEN)
        reopen(&b);
    else
        run(&b);
    return 0;
}
