/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_server.c - lockstep server: reads its flags and hands over to api/.
 */
#include "cli.h"
#include "core.h"

#include <stdio.h>

int cmd_server(int argc, char **argv)
{
    struct flag_list paths = {0};
    int64_t drill_fd = -1;
    struct flag flags[] = {
        {"config", FLAG_LIST, &paths,
         "Configuration file or folder (HCL or JSON); may be repeated."},
        {"drill-fd", FLAG_INT, &drill_fd, "Set by a secondary for the server of its drill."}};
    int i = flags_parse("server -config=PATH", flags, 2, NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (paths.n == 0 || i != argc) {
        fprintf(stderr, "Must specify at least one config path using -config\n");
        return EXIT_LOCAL;
    }
    return server_run(paths.values, paths.n, (int)drill_fd);
}
