/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * logger.c - one line, one write(2), so that lines of several threads never mix.
 */
#include "logger.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

/* A line under another name follows the level of all. */
static const char *const components[] = {
    "audit",   "core",        "core.cluster-listener", "http", "replication", "rollback",
    "storage", "storage.wal", "storage.wiredtiger",    "token"};

#define COMPONENTS (sizeof(components) / sizeof(components[0]))

struct logger {
    int fd;
    _Atomic int level;          /* of all that are not components */
    _Atomic int of[COMPONENTS]; /* theirs */
    _Atomic int least;          /* of all these: what is below is not looked at further */
};

struct logger *logger_new(int fd, enum log_level level)
{
    struct logger *l = calloc(1, sizeof(*l));

    if (l != NULL) {
        l->fd = fd;
        logger_level(l, level);
    }
    return l;
}

void logger_free(struct logger *l)
{
    free(l);
}

static void set_least(struct logger *l)
{
    int least = atomic_load(&l->level);

    for (size_t i = 0; i < COMPONENTS; i++)
        if (atomic_load(&l->of[i]) < least)
            least = atomic_load(&l->of[i]);
    atomic_store(&l->least, least);
}

void logger_level(struct logger *l, enum log_level level)
{
    atomic_store(&l->level, level);
    for (size_t i = 0; i < COMPONENTS; i++)
        atomic_store(&l->of[i], level);
    set_least(l);
}

const char *logger_component(size_t i)
{
    return i < COMPONENTS ? components[i] : NULL;
}

enum log_level logger_component_level(const struct logger *l, size_t i)
{
    return (enum log_level)atomic_load(&l->of[i]);
}

void logger_set_component_level(struct logger *l, size_t i, enum log_level level)
{
    atomic_store(&l->of[i], level);
    set_least(l);
}

const char *logger_level_name(enum log_level level)
{
    static const char *const names[] = {"trace", "debug", "info", "warn", "error", "off"};

    return names[level];
}

int logger_parse_level(const char *name, enum log_level *levelp, struct err *err)
{
    static const struct {
        const char *name;
        enum log_level level;
    } known[] = {
        {"trace", LOG_LEVEL_TRACE}, {"debug", LOG_LEVEL_DEBUG}, {"info", LOG_LEVEL_INFO},
        {"notice", LOG_LEVEL_INFO}, {"warn", LOG_LEVEL_WARN},   {"warning", LOG_LEVEL_WARN},
        {"err", LOG_LEVEL_ERROR},   {"error", LOG_LEVEL_ERROR}, {"off", LOG_LEVEL_OFF},
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcasecmp(name, known[i].name) == 0) {
            *levelp = known[i].level;
            return 0;
        }
    }
    return err_set(err, ERR_INVAL, 0, "unknown log level: %s (trace, debug, info, warn or error)",
                   name);
}

bool logger_enabled(const struct logger *l, enum log_level level)
{
    return l != NULL && (int)level >= atomic_load_explicit(&l->least, memory_order_relaxed);
}

static int level_of(const struct logger *l, const char *component)
{
    for (size_t i = 0; i < COMPONENTS; i++)
        if (strcmp(components[i], component) == 0)
            return atomic_load_explicit(&l->of[i], memory_order_relaxed);
    return atomic_load_explicit(&l->level, memory_order_relaxed);
}

void logger_write(struct logger *l, enum log_level level, const char *component, const char *fmt,
                  ...)
{
    static const char *const names[] = {"[TRACE]", "[DEBUG]", "[INFO] ", "[WARN] ", "[ERROR]"};
    char line[LINE_MAX_BYTES], at[32], zone[8];
    struct timespec now;
    struct tm tm;
    size_t len, sent = 0;
    va_list ap;
    int n;

    if (!logger_enabled(l, level) || level >= LOG_LEVEL_OFF || (int)level < level_of(l, component))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &tm);
    strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%S", &tm);
    strftime(zone, sizeof(zone), "%z", &tm);
    n = snprintf(line, sizeof(line), "%s.%03ld%s %s %s: ", at, now.tv_nsec / 1000000, zone,
                 names[level], component);
    len = n < 0 ? 0 : (size_t)n;
    if (len < sizeof(line) - 1) {
        va_start(ap, fmt);
        n = vsnprintf(line + len, sizeof(line) - len, fmt, ap);
        va_end(ap);
        len += n < 0 ? 0 : (size_t)n;
    }
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    /* A text from a peer must not forge a line. */
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = ' ';
    line[len++] = '\n';
    while (sent < len) {
        ssize_t w = write(l->fd, line + sent, len - sent);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return; /* a log that cannot be written must not stop the store */
        sent += (size_t)w;
    }
}
