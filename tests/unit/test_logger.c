/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "logger.h"

static int ends[2];
static struct logger *log_;

static void setup(void)
{
    cr_assert_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    log_ = logger_new(ends[1], LOG_LEVEL_INFO);
    cr_assert_not_null(log_);
}

static void teardown(void)
{
    logger_free(log_);
    close(ends[0]);
    close(ends[1]);
}

/* What was written since; "" when nothing. */
static const char *written(void)
{
    static char text[4096];
    ssize_t n = read(ends[0], text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static size_t component(const char *name)
{
    const char *each;

    for (size_t i = 0; (each = logger_component(i)) != NULL; i++)
        if (strcmp(each, name) == 0)
            return i;
    cr_assert_fail("no component %s", name);
    return 0;
}

TestSuite(logger, .init = setup, .fini = teardown, .timeout = 10);

Test(logger, a_line_below_the_level_is_not_written)
{
    log_debug(log_, "core", "hidden");
    cr_assert_str_eq(written(), "");
    log_info(log_, "core", "shown");
    cr_assert_not_null(strstr(written(), "[INFO]  core: shown\n"));
}

Test(logger, one_component_has_a_level_of_its_own_until_all_are_set)
{
    size_t core = component("core"), replication = component("replication");

    logger_set_component_level(log_, replication, LOG_LEVEL_DEBUG);
    logger_set_component_level(log_, core, LOG_LEVEL_ERROR);
    log_debug(log_, "replication", "a");
    cr_assert_not_null(strstr(written(), "[DEBUG] replication: a\n"));
    log_debug(log_, "storage", "b");
    log_warn(log_, "core", "c");
    log_debug(log_, "no.such.component", "d");
    cr_assert_str_eq(written(), "");
    log_info(log_, "no.such.component", "e");
    cr_assert_not_null(strstr(written(), "e\n"));
    cr_assert_eq(logger_component_level(log_, core), LOG_LEVEL_ERROR);
    logger_level(log_, LOG_LEVEL_WARN);
    cr_assert_eq(logger_component_level(log_, core), LOG_LEVEL_WARN);
    log_info(log_, "replication", "f");
    cr_assert_str_eq(written(), "");
    log_warn(log_, "core", "g");
    cr_assert_not_null(strstr(written(), "g\n"));
}

Test(logger, off_writes_nothing_and_a_text_cannot_forge_a_line)
{
    log_error(log_, "core", "one\n2019-05-28T16:04:29.868+0900 [INFO]  core: two");
    cr_assert_eq(strchr(written(), '\n')[1], '\0', "one line");
    logger_level(log_, LOG_LEVEL_OFF);
    log_error(log_, "core", "x");
    cr_assert_str_eq(written(), "");
}
