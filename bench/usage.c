/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "usage.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void usage_fail(const char *what)
{
    fprintf(stderr, "%s: %s (try --help)\n", program_invocation_short_name, what);
    exit(2);
}

int usage_option(int argc, char **argv, const struct option *longs, int words, const char *text)
{
    int c = getopt_long(argc, argv, "h", longs, NULL);

    if (c == 'h') {
        fputs(text, stdout);
        exit(0);
    }
    if (c == '?') /* getopt has said which */
        usage_fail("the command line is not understood");
    if (c == -1 && argc - optind != words)
        usage_fail(words == 0 ? "there is a word that is no option"
                              : "words are missing, or too many");
    return c;
}
