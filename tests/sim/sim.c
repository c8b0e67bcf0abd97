/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sim.c - run scenarios of the simulated clusters.
 *
 * usage: sim SEED [--scenario NAME] [--rounds N] [--canary] [--log]
 *
 * Round i runs with seed SEED + i and prints it; the same seed and scenario replay exactly.
 * --canary lets a crash lose what was flushed: the checks must find that, so the run must fail.
 */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct scenario *const tables[] = {
    scenarios_basic, scenarios_many,   scenarios_modes, scenarios_cut, scenarios_know,
    scenarios_diff,  scenarios_verify, scenarios_roles, scenarios_act,
};

static int run(const struct scenario *s, uint64_t seed, bool canary, bool verbose)
{
    struct world *w = calloc(1, sizeof(*w));
    unsigned crashes = 0;

    if (w == NULL)
        return 1;
    printf("seed %llu scenario %s\n", (unsigned long long)seed, s->name);
    fflush(stdout);
    w->canary = canary;
    w->log = verbose ? logger_new(2, LOG_LEVEL_TRACE) : NULL;
    world_init(w, seed, s->name, s->nodes == 0 ? 2 : s->nodes);
    s->run(w);
    for (unsigned i = 0; i < w->n_nodes; i++)
        crashes += w->n[i].crashes;
    printf("  %s: %u writes, %u acknowledged, %llu steps, %.3f simulated s, %u crashes, trace "
           "%016llx\n",
           s->promise, w->n_ops, w->n_acked, (unsigned long long)w->steps, (double)w->now_ns / 1e9,
           crashes, (unsigned long long)(w->rng ^ (uint64_t)w->now_ns));
    world_fini(w);
    logger_free(w->log);
    free(w);
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = "random";
    uint64_t seed, rounds = 1;
    bool canary = false, verbose = false;

    if (argc < 2) {
        fprintf(stderr, "usage: sim SEED [--scenario NAME|all] [--rounds N] [--canary] [--log]\n");
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--scenario") == 0 && i + 1 < argc)
            name = argv[++i];
        else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
            rounds = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--canary") == 0)
            canary = true;
        else if (strcmp(argv[i], "--log") == 0)
            verbose = true;
        else {
            fprintf(stderr, "unknown argument %s\n", argv[i]);
            return 2;
        }
    }
    for (uint64_t r = 0; r < rounds; r++) {
        bool any = false;

        for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++) {
            for (const struct scenario *s = tables[t]; s->name != NULL; s++) {
                if (strcmp(name, "all") != 0 && strcmp(name, s->name) != 0)
                    continue;
                any = true;
                if (run(s, seed + r, canary, verbose) != 0)
                    return 1;
            }
        }
        if (!any) {
            fprintf(stderr, "no scenario %s\n", name);
            return 2;
        }
    }
    return 0;
}
