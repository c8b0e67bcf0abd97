/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * logger.h - log lines in the form that Vault's operators grep:
 *
 *     2019-05-28T16:04:29.868+0900 [INFO]  core: successful mount: namespace= path=kv/ type=kv
 *
 * Local time with milliseconds; the level in brackets padded to 7; the component; the text. Any
 * thread. A line is written with one write(2). Secrets never reach it: callers pass none.
 */
#ifndef LOCKSTEP_LOGGER_H
#define LOCKSTEP_LOGGER_H

#include <stdbool.h>
#include <stddef.h>

#include "errors.h"

enum log_level {
    LOG_LEVEL_TRACE,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_INFO,
    LOG_LEVEL_WARN,
    LOG_LEVEL_ERROR,
    LOG_LEVEL_OFF
};

struct logger;

/** A logger that writes to fd (not owned). NULL: out of memory. */
struct logger *logger_new(int fd, enum log_level level);
void logger_free(struct logger *l);
/** The level of all components; those that were set apart follow again. Any thread. */
void logger_level(struct logger *l, enum log_level level);
/** The name of the i-th component that lines are written under, or NULL past the last. */
const char *logger_component(size_t i);
enum log_level logger_component_level(const struct logger *l, size_t i);
/** One component's level alone, until the next logger_level. Any thread. */
void logger_set_component_level(struct logger *l, size_t i, enum log_level level);
const char *logger_level_name(enum log_level level);
/** "trace", "debug", "info", "warn"/"warning", "err"/"error"; ERR_INVAL otherwise. */
CHECKED int logger_parse_level(const char *name, enum log_level *levelp, struct err *err);
/** Whether some component writes lines of this level. */
bool logger_enabled(const struct logger *l, enum log_level level);
/** component without colon: "core", "replication", "storage.wal". l may be NULL: nothing is
 * written. */
void logger_write(struct logger *l, enum log_level level, const char *component, const char *fmt,
                  ...) PRINTF_LIKE(4, 5);

#define log_trace(l, c, ...) logger_write((l), LOG_LEVEL_TRACE, (c), __VA_ARGS__)
#define log_debug(l, c, ...) logger_write((l), LOG_LEVEL_DEBUG, (c), __VA_ARGS__)
#define log_info(l, c, ...) logger_write((l), LOG_LEVEL_INFO, (c), __VA_ARGS__)
#define log_warn(l, c, ...) logger_write((l), LOG_LEVEL_WARN, (c), __VA_ARGS__)
#define log_error(l, c, ...) logger_write((l), LOG_LEVEL_ERROR, (c), __VA_ARGS__)

#endif
