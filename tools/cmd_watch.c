/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cmd_watch.c - lockstep replication watch: the status again and again, in place on a terminal, a
 * line each time elsewhere. SIGINT or SIGTERM ends it at whatever moment, with exit code 0.
 * What the signal cuts of a look is not lost output.
 */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t ended;

static void on_signal(int sig)
{
    (void)sig;
    ended = 1;
}

static void stamp(struct buf *out)
{
    time_t now = time(NULL);
    struct tm tm;
    char text[32] = "";

    if (gmtime_r(&now, &tm) != NULL)
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    buf_adds(out, text);
}

/* The whole status; what is on the screen is cleared first, line by line would leave rests. */
static void show_screen(const struct client *c, const json_t *data, const char *failed,
                        int64_t interval_ms)
{
    struct buf head = {0};

    stamp(&head);
    printf("\x1b[H\x1b[2J%s  %s  every %.1f s, end with Ctrl-C\n\n", buf_str(&head), c->addr,
           (double)interval_ms / 1000);
    buf_free(&head);
    if (data != NULL)
        replication_print(c, data);
    else
        printf("%s\n", failed);
}

static void show_line(const json_t *data, const char *failed)
{
    struct buf line = {0};

    stamp(&line);
    buf_addc(&line, ' ');
    if (data != NULL)
        replication_line(&line, data);
    else
        buf_printf(&line, "error: %s", failed);
    printf("%s\n", buf_str(&line));
    buf_free(&line);
}

static void show(struct client *c, bool screen, int64_t interval_ms)
{
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;
    char failed[1400] = "";

    if (replication_fetch(c, &r, &data, &err) != 0) {
        if (err.code != ERR_OK)
            snprintf(failed, sizeof(failed), "%s", err.msg);
        else
            snprintf(failed, sizeof(failed), "%s answers %d: %.150s", r.url, r.status,
                     buf_str(&r.body));
        failed[strcspn(failed, "\n")] = '\0';
    }
    if (screen)
        show_screen(c, data, failed, interval_ms);
    else
        show_line(data, failed);
    reply_free(&r);
}

/* Not by stdio, which goes on with what the signal cut and waits for who does not read. */
static int put(const char *text, size_t len)
{
    while (len > 0 && !ended) {
        ssize_t n = write(STDOUT_FILENO, text, len);

        if (n < 0 && errno != EINTR)
            return -1;
        text += n > 0 ? n : 0;
        len -= n > 0 ? (size_t)n : 0;
    }
    return len > 0;
}

/* A look, in one write. Returns 1 when the signal cut it, and -1 when its reader is gone. */
static int look(struct client *c, bool screen, int64_t interval_ms)
{
    FILE *out = stdout;
    char *text = NULL;
    size_t len = 0;
    int rc;

    stdout = open_memstream(&text, &len);
    if (stdout != NULL)
        show(c, screen, interval_ms);
    if (stdout == NULL || fclose(stdout) != 0) {
        fprintf(stderr, "out of memory\n");
        exit(EXIT_LOCAL);
    }
    stdout = out;
    rc = put(text, len);
    free(text);
    return rc;
}

/* The signals are let in only here and during a request, so none is missed before the wait. */
static void wait_ms(int64_t ms, const sigset_t *open)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    if (!ended)
        (void)ppoll(NULL, 0, &t, open);
}

int replication_watch(int argc, char **argv)
{
    const char *interval = "1s";
    int64_t count = 0, shown = 0;
    struct flag flags[] = {{"interval", FLAG_STR, &interval, "Time between two looks (1s)."},
                           {"count", FLAG_INT, &count, "End after so many; 0: never."}};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    bool screen = isatty(STDOUT_FILENO);
    int out = 0;
    sigset_t ours, open;
    struct client c;
    double ms;
    int i;

    client_init(&c);
    i = flags_parse("replication watch [options]", flags, 2, &c, argc, argv);
    if (i < 0 || replication_duration(interval, &ms) != 0 || ms < 50 || i < argc) {
        if (i >= 0)
            fprintf(stderr, "Usage: lockstep replication watch [-interval=1s] [-count=N]\n");
        client_free(&c);
        return i == -2 ? 0 : EXIT_LOCAL;
    }
    c.max_retries = 0; /* the next look is the retry */
    c.quiet = true;    /* and what is on the screen stays as it is */
    if (c.timeout_s > 5)
        c.timeout_s = 5;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigprocmask(SIG_BLOCK, &ours, &open);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    while (!ended && out == 0) {
        sigprocmask(SIG_UNBLOCK, &ours, NULL);
        out = look(&c, screen, (int64_t)ms);
        sigprocmask(SIG_BLOCK, &ours, NULL);
        if (count > 0 && ++shown >= count)
            break;
        if (out == 0)
            wait_ms((int64_t)ms, &open);
    }
    if (out < 0)
        fprintf(stderr, "Error: not all of the output was written: %s\n", strerror(errno));
    else if (screen && out == 0)
        printf("\n");
    client_free(&c);
    return out < 0 ? EXIT_LOCAL : 0;
}
