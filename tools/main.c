/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * main.c - lockstep, the one program: the server, and the operator's verbs.
 */
#include "cli.h"
#include "pgp.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int cmd_print(int argc, char **argv)
{
    struct client c;

    static const char usage[] = "print token";
    int i = flags_parse(usage, NULL, 0, NULL, argc, argv);

    if (i < 0)
        return i == -2 ? 0 : EXIT_LOCAL;
    if (argc - i != 1 || strcmp(argv[i], "token") != 0) {
        fprintf(stderr, "Usage: lockstep %s\n", usage);
        return EXIT_LOCAL;
    }
    client_init(&c);
    printf("%s\n", c.token ? c.token : "");
    client_free(&c);
    return 0;
}

/* Keys and tokens are shown once: who does not get them must know. The server has its log. */
static int output_end(int rc)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    fprintf(stderr, "Error: not all of the output was written%s%s\n", errno != 0 ? ": " : "",
            errno != 0 ? strerror(errno) : "");
    return rc != 0 ? rc : EXIT_LOCAL;
}

int main(int argc, char **argv)
{
    static const struct verb verbs[] = {
        {"server", cmd_server, "Run the server"},
        {"status", cmd_status, "Show seal and cluster state"},
        {"login", cmd_login, "Log in and keep the token"},
        {"read", cmd_read, "Read data"},
        {"write", cmd_write, "Write data"},
        {"patch", cmd_patch, "Change some fields of data"},
        {"list", cmd_list, "List keys"},
        {"delete", cmd_delete, "Delete data"},
        {"unwrap", cmd_unwrap, "Unwrap a wrapped answer"},
        {"path-help", cmd_path_help, "Say what a path does"},
        {"kv", cmd_kv, "Work with key/value secrets"},
        {"secrets", cmd_secrets, "Work with secrets engines"},
        {"auth", cmd_auth, "Work with auth methods"},
        {"audit", cmd_audit, "Work with audit devices"},
        {"policy", cmd_policy, "Work with policies"},
        {"token", cmd_token, "Work with tokens"},
        {"operator", cmd_operator, "Init, unseal, seal, generate-root, rekey, ..."},
        {"replication", cmd_replication, "Disaster-recovery replication"},
        {"wal", cmd_wal, "Read a log offline"},
        {"cert", cmd_cert, "Make a CA and server certificates"},
        {"print", cmd_print, "Print the token in use"},
        {"version", cmd_version, "Print the version"},
    };
    int rc;

    if (argc == 2 && (strcmp(argv[1], "-version") == 0 || strcmp(argv[1], "--version") == 0 ||
                      strcmp(argv[1], "-v") == 0))
        return cmd_version(0, NULL);
    if (argc == 2 && strcmp(argv[1], PGP_VERB) == 0)
        return pgp_main();
    signal(SIGPIPE, SIG_IGN);
    rc = verb_run("", verbs, sizeof(verbs) / sizeof(verbs[0]), argc - 1, argv + 1);
    return argc > 1 && strcmp(argv[1], "server") == 0 ? rc : output_end(rc);
}
