/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim.c - run scenarios of the simulated clusters.
 *
 * usage: sim SEED [--scenario NAME|all] [--rounds N] [--hours H] [--plant NAME] [--canary]
 *            [--every-fault] [--events] [--trace]
 *
 * Round i runs with seed SEED + i and prints it; the same seed and scenario replay exactly.
 * --hours runs on until so many hours have been simulated by the clocks of all runs. The last lines
 * say how many seeds and hours were whole, after a failure too, and what was done to the nodes.
 * --every-fault fails when a kind of fault did not happen in any seed: it would test nothing.
 * --events prints the event log; a failure prints its end in any case. --trace: and all log lines.
 * --plant plants a bug: the run succeeds when the check that is meant sees it.
 * SIGINT or SIGTERM ends it after the seed that is under way, with the last lines and status 128 +
 * n.
 * --canary lets a crash lose what was flushed: the checks must find that, so the run must fail.
 */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct scenario *const tables[] = {
    scenarios_basic, scenarios_many,      scenarios_modes,  scenarios_know,     scenarios_fed,
    scenarios_diff,  scenarios_verify,    scenarios_fence,  scenarios_roles,    scenarios_act,
    scenarios_cut,   scenarios_sequences, scenarios_bounds, scenarios_snapshot, scenarios_storm,
    scenarios_fork,  scenarios_quorum,    scenarios_starts, scenarios_news,     scenarios_stranger};

struct options {
    const char *name;
    uint64_t seed, rounds;
    double hours;
    const struct plant *plant;
    bool canary, full, trace, every_fault;
};

struct sums {
    uint64_t runs, writes, acked, bulk, promised, steps, events, states, crashes;
    int64_t ns;
    uint64_t faults[SIM_FAULTS];
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int n)
{
    stop_signal = n;
}

static void run(const struct scenario *s, uint64_t seed, const struct options *o, struct sums *sums)
{
    struct world *w = calloc(1, sizeof(*w));
    unsigned crashes = 0;

    if (w == NULL)
        abort();
    printf("seed %llu scenario %s\n", (unsigned long long)seed, s->name);
    fflush(stdout);
    w->canary = o->canary;
    w->full = o->full;
    w->trace = o->trace;
    w->plant = o->plant;
    world_init(w, seed, s->name, s->nodes == 0 ? 2 : s->nodes);
    s->run(w);
    for (unsigned i = 0; i < w->n_nodes; i++) {
        crashes += w->n[i].crashes;
        sums->states += w->n[i].watch.states;
    }
    printf("  %s: %u nodes, %u writes, %u acknowledged, %llu steps, %.3f simulated s, %u crashes, "
           "trace %016llx\n",
           s->promise, w->n_nodes, w->n_ops, w->n_acked, (unsigned long long)w->steps,
           (double)w->now_ns / 1e9, crashes, (unsigned long long)(w->rng ^ (uint64_t)w->now_ns));
    sums->runs++;
    sums->writes += w->n_ops;
    sums->acked += w->n_acked;
    sums->bulk += w->n_bulk;
    sums->promised += w->n_promised;
    sums->steps += w->steps;
    sums->events += w->events;
    sums->crashes += crashes;
    sums->ns += w->now_ns;
    for (int f = 0; f < SIM_FAULTS; f++)
        sums->faults[f] += w->faults[f];
    world_fini(w);
    free(w);
    if (o->plant != NULL) {
        printf("the planted bug %s was not seen\n", o->plant->name);
        fflush(stdout);
        _exit(1);
    }
}

static void say_sums(const struct sums *s, uint64_t seed, uint64_t rounds)
{
    printf(
        "%llu seeds from %llu on: %llu runs, %.4f simulated hours (%.6f s), %llu steps, %llu "
        "events, %llu writes, %llu acknowledged, %llu of many keys, %llu promised to a secondary, "
        "%llu states compared, %llu crashes\n",
        (unsigned long long)rounds, (unsigned long long)seed, (unsigned long long)s->runs,
        (double)s->ns / 3600e9, (double)s->ns / 1e9, (unsigned long long)s->steps,
        (unsigned long long)s->events, (unsigned long long)s->writes, (unsigned long long)s->acked,
        (unsigned long long)s->bulk, (unsigned long long)s->promised, (unsigned long long)s->states,
        (unsigned long long)s->crashes);
    for (int f = 0; f < SIM_FAULTS; f++) {
        if (s->faults[f] > 0)
            printf("  %8llu  %s\n", (unsigned long long)s->faults[f],
                   sim_fault_name((enum sim_fault)f));
    }
}

static bool every_fault(const struct sums *s)
{
    bool all = true;

    for (int f = 0; f < SIM_FAULTS; f++) {
        if (s->faults[f] == 0)
            printf("FAILED: in no seed there was a fault of the kind: %s\n",
                   sim_fault_name((enum sim_fault)f));
        all = all && s->faults[f] > 0;
    }
    return all;
}

/* In a process of its own: an engine that ended itself leaves its memory behind. */
static void run_apart(const struct scenario *s, uint64_t seed, const struct options *o,
                      struct sums *sums)
{
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        (void)setpgid(0, 0); /* Ctrl-C is for the parent, which lets it come to its end */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(s, seed, o, sums);
        fflush(stdout);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("run");
        exit(1);
    }
    if (WIFSIGNALED(status))
        printf("FAILED seed %llu scenario %s: signal %d\n", (unsigned long long)seed, s->name,
               WTERMSIG(status));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        say_sums(sums, o->seed, seed - o->seed);
        exit(1);
    }
}

static bool run_named(const struct options *o, uint64_t seed, struct sums *sums)
{
    bool any = false;

    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
        for (const struct scenario *s = tables[t]; s->name != NULL; s++) {
            if (strcmp(o->name, "all") != 0 && strcmp(o->name, s->name) != 0)
                continue;
            any = true;
            run_apart(s, seed, o, sums);
        }
    }
    return any;
}

static const struct plant *find_plant(const char *name)
{
    for (const struct plant *p = sim_plants; p->name != NULL; p++) {
        if (strcmp(p->name, name) == 0)
            return p;
    }
    fprintf(stderr, "no planted bug %s\n", name);
    exit(2);
}

static void parse(int argc, char **argv, struct options *o)
{
    char *end = NULL;

    if (argc >= 2)
        o->seed = strtoull(argv[1], &end, 10);
    if (end == NULL || end == argv[1] || *end != '\0') {
        fprintf(stderr, "usage: sim SEED [--scenario NAME|all] [--rounds N] [--hours H] "
                        "[--plant NAME] [--canary] [--every-fault] [--events] [--trace]\n");
        exit(2);
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--scenario") == 0 && i + 1 < argc)
            o->name = argv[++i];
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            o->rounds = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--hours") == 0 && i + 1 < argc)
            o->hours = strtod(argv[++i], NULL);
        else if (strcmp(argv[i], "--plant") == 0 && i + 1 < argc)
            o->plant = find_plant(argv[++i]);
        else if (strcmp(argv[i], "--canary") == 0)
            o->canary = true;
        else if (strcmp(argv[i], "--every-fault") == 0)
            o->every_fault = true;
        else if (strcmp(argv[i], "--events") == 0)
            o->full = true;
        else if (strcmp(argv[i], "--trace") == 0)
            o->full = o->trace = true;
        else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            exit(2);
        }
    }
    if (o->plant != NULL)
        o->name = o->plant->scenario;
}

int main(int argc, char **argv)
{
    struct options o = {.name = "random", .rounds = 1};
    struct sums *sums = mmap(NULL, sizeof(*sums), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* of all the processes */
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    uint64_t r = 0;

    if (sums == MAP_FAILED) {
        perror("sums");
        return 1;
    }
    parse(argc, argv, &o);
    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
    for (; stop_signal == 0 && (o.hours > 0 ? (double)sums->ns < o.hours * 3600e9 : r < o.rounds);
         r++) {
        if (!run_named(&o, o.seed + r, sums)) {
            fprintf(stderr, "no scenario %s\n", o.name);
            return 2;
        }
    }
    say_sums(sums, o.seed, r);
    if (stop_signal != 0)
        return 128 + stop_signal;
    return o.every_fault && !every_fault(sums) ? 1 : 0;
}
