/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * confirm.c - what is asked before something is lost. A script, which has no terminal, is not asked
 * but where the answer was always read from its input (promote, switchover).
 */
#include "cli.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool at_terminal(void)
{
    return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
}

bool confirm(const char *question)
{
    char line[16] = "";

    fprintf(stderr, "%s Type yes: ", question);
    if (fgets(line, sizeof(line), stdin) == NULL)
        line[0] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    if (strcmp(line, "yes") == 0)
        return true;
    fprintf(stderr, "Nothing was changed.\n");
    return false;
}

bool may_lose(bool yes, const char *question, const char *fmt, ...)
{
    va_list ap;

    if (yes || !at_terminal())
        return true;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return confirm(question);
}

/* "Its secondaries: site-b (connected, 3 transactions behind)." Empty when that cannot be read:
 * what is asked for fails then, and says why. */
static void say_secondaries(struct buf *out, const json_t *data)
{
    const json_t *all = json_object_get(data, "secondaries"), *flushed;
    json_t *s;
    size_t i;

    if (json_object_get(data, "primaries") == NULL && json_array_size(all) == 0)
        buf_adds(out, " It has no secondary.");
    json_array_foreach((json_t *)all, i, s)
    {
        flushed = json_object_get(json_object_get(s, "lag"), "flushed");
        buf_printf(out, "%s%s (%s, %.0f transactions behind)", i == 0 ? " Its secondaries: " : ", ",
                   json_string_value(json_object_get(s, "node_id")),
                   json_string_value(json_object_get(s, "connection_status")),
                   json_number_value(json_object_get(flushed, "lsns")));
    }
    if (i > 0)
        buf_addc(out, '.');
}

void replication_said(struct client *c, bool yes, struct replication_said *out)
{
    struct reply r = {0};
    struct err err = {0};
    const json_t *data;

    *out = (struct replication_said){0};
    if (yes || !at_terminal())
        return;
    c->max_retries = 0; /* who cannot tell it now, as one that is sealed, is not waited for */
    if (replication_fetch(c, &r, &data, &err) == 0) {
        snprintf(out->mode, sizeof(out->mode), "%s",
                 json_string_value(json_object_get(data, "mode")));
        say_secondaries(&out->secondaries, data);
    }
    reply_free(&r);
}
