/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * flip_row.c - usage: flip_row DATA_DIR PREFIX: flip the last bit of the first row with the prefix,
 * in the store of a server that does not run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bad_row.h"

#include <dirent.h>

/* The newest generation: there is one when nothing is being copied. */
static int find_store(const char *data, char *out, size_t size)
{
    DIR *d = opendir(data);
    unsigned best = 0;

    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        unsigned n;

        if (sscanf(e->d_name, "gen-%u", &n) == 1 && n > best)
            best = n;
    }
    if (d != NULL)
        closedir(d);
    snprintf(out, size, "%s/gen-%u/store", data, best);
    return best > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    char dir[4096];
    struct store_config cfg = {.dir = dir};
    struct store *s = NULL;
    struct err err = {0};
    int rc;

    if (argc != 3 || find_store(argv[1], dir, sizeof(dir)) != 0) {
        fprintf(stderr, "usage: flip_row DATA_DIR PREFIX\n");
        return 2;
    }
    if (store_open(&cfg, &s, &err) != 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    rc = bad_row_flip(s, argv[2], &err);
    if (rc != 0)
        fprintf(stderr, "%s\n", err.msg);
    store_close(s); /* with a checkpoint */
    return rc != 0;
}
