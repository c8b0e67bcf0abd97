/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * criterion_fork.c - runs the Criterion tests of a program without Criterion's own runner.
 *
 * For builds with ThreadSanitizer only. Criterion starts each test in a new image of the program
 * that shares an arena at a fixed address with its parent, which ThreadSanitizer has no place for.
 * Here a test is a plain fork of a process with one thread. The test sources are the same; what
 * they use of Criterion is defined again here, and the program's definitions come before the
 * library's. The closing line is Criterion's, so that it is counted alike.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Under ThreadSanitizer a test takes longer than its own limit was made for. */
#define SLOWER 10
#define FAILED 99 /* exit code of a test with a wrong assertion: none that a test asks for */

/* The linker's names for the first and one past the last entry that Test() and TestSuite() leave.
 */
extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak)),
    *__stop_cr_sts[] __attribute__((weak));

static const struct criterion_test *test;           /* the one this process runs */
static const struct criterion_test_extra_data *own; /* of its suite; NULL when that has none */
static void *parameter;
static int failed;

void criterion_internal_test_setup(void)
{
    if (own != NULL && own->init != NULL)
        own->init();
    if (test->data->init != NULL)
        test->data->init();
}

void criterion_internal_test_main(void (*fn)(void))
{
    if (test->data->kind_ == CR_TEST_PARAMETERIZED)
        ((void (*)(void *))fn)(parameter);
    else
        fn();
}

void criterion_internal_test_teardown(void)
{
    if (test->data->fini != NULL)
        test->data->fini();
    if (own != NULL && own->fini != NULL)
        own->fini();
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    if (stats->passed)
        return;
    failed = 1;
    printf("%s:%u: %s/%s: %s\n", stats->file, stats->line, test->category, test->name,
           stats->message);
}

void criterion_abort_test(void)
{
    exit(FAILED);
}

void criterion_continue_test(void)
{
}

void cri_asserts_passed_incr(void)
{
}

int cr_asprintf(char **strp, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vasprintf(strp, format, args);
    va_end(args);
    return n;
}

void cr_asprintf_free(char *str)
{
    free(str);
}

char *cr_translate_assert_msg(int msg_index, ...)
{
    va_list args;
    char *text;

    (void)msg_index;
    va_start(args, msg_index);
    text = strdup(va_arg(args, const char *));
    va_end(args);
    return text;
}

static const struct criterion_test_extra_data *suite_data(const char *name)
{
    for (struct criterion_suite **s = __start_cr_sts; s < __stop_cr_sts; s++)
        if (*s != NULL && strcmp((*s)->name, name) == 0)
            return (*s)->data;
    return NULL;
}

/* Returns whether it passed. */
static bool run(const struct criterion_test *t, void *param, size_t index)
{
    double limit;
    int status = 0;
    pid_t pid;

    own = suite_data(t->category);
    limit = t->data->timeout > 0              ? t->data->timeout
            : own != NULL && own->timeout > 0 ? own->timeout
                                              : 60;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm((unsigned)(limit * SLOWER));
        test = t;
        parameter = param;
        t->test();
        exit(failed ? FAILED : 0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
        WEXITSTATUS(status) != t->data->exit_code) {
        printf("%s/%s (%zu): failed, wait status %#x\n", t->category, t->name, index,
               (unsigned)status);
        return false;
    }
    return true;
}

int main(void)
{
    int tested = 0, passing = 0;

    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
        struct criterion_test_params params = {.length = 1};

        if (*t == NULL)
            continue;
        /* Kept out of the test sources so far; say so rather than pass what was not run as it says.
         */
        if ((*t)->data->signal != 0 || (*t)->data->disabled) {
            printf("%s/%s: this runner knows no signal or disabled\n", (*t)->category, (*t)->name);
            return 1;
        }
        if ((*t)->data->kind_ == CR_TEST_PARAMETERIZED)
            params = (*t)->data->param_();
        for (size_t i = 0; i < params.length; i++, tested++)
            passing += run(*t, (char *)params.params + i * params.size, i);
    }
    printf("Synthesis: Tested: %d | Passing: %d | Failing: %d | Crashing: 0\n", tested, passing,
           tested - passing);
    return tested > 0 && passing == tested ? 0 : 1;
}
