/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * usage.h - the command line of the programs of the benchmark: --help, and what is not understood.
 */
#ifndef LOCKSTEP_BENCH_USAGE_H
#define LOCKSTEP_BENCH_USAGE_H

#include <getopt.h>

/**
 * The next option as getopt_long, -1: that was all of them. For --help ('h', in each table of
 * options) the text is printed, and the program ends with 0; for an unknown option, one without its
 * value, or other than so many words that are no options, it ends as usage_fail.
 */
int usage_option(int argc, char **argv, const struct option *longs, int words, const char *text);
/** Says what is wrong and that there is --help, and ends the program with 2. */
_Noreturn void usage_fail(const char *what);

#endif
