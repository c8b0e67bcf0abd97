/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is in the process's memory stays out of core files, debuggers and swap. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "barrier.h"

/* Each test is a process of its own: what is taken away there is missed by nobody. */
Test(memory, a_protected_process_leaves_no_core_and_no_debugger_in)
{
    struct rlimit limit;
    struct err err = {0};

    cr_assert_eq(memory_protect(false, &err), 0, "%s", err.msg);
    cr_assert_eq(prctl(PR_GET_DUMPABLE), 0);
    cr_assert_eq(getrlimit(RLIMIT_CORE, &limit), 0);
    cr_assert(limit.rlim_cur == 0 && limit.rlim_max == 0);
}

/* Asked to lock, it locks all that is and comes, or says that it cannot: never neither. A sanitizer
 * answers mlockall itself, with yes, and locks nothing. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static long locked_kb(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kb = 0;

    cr_assert_not_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, "VmLck:", 6) == 0)
            kb = strtol(line + 6, NULL, 10);
    }
    fclose(f);
    return kb;
}

Test(memory, what_is_to_be_locked_is_locked_or_refused)
{
    struct err err = {0};
    long before = locked_kb();

    if (memory_protect(true, &err) == 0)
        cr_assert_gt(locked_kb(), before);
    else
        cr_assert(err.code == ERR_UNSUPPORTED && strstr(err.msg, "disable_mlock") != NULL, "%s",
                  err.msg);
}
#endif
