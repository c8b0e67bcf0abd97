/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * memory.c - keeps the process's memory off swap and out of core files and debuggers.
 */
#include "barrier.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool may_lock_any_amount(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};
    struct rlimit limit;

    if (syscall(SYS_capget, &head, data) == 0 && (data[0].effective & (1u << CAP_IPC_LOCK)) != 0)
        return true;
    return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

int memory_protect(bool lock, struct err *err)
{
    struct rlimit none = {0};

    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return err_set(err, ERR_IO, errno, "turn core files off");
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return err_set(err, ERR_IO, errno, "make the process undumpable");
    if (!lock)
        return 0;
    /* Below a limit the call may succeed now and allocations fail later: refuse at the start. */
    if (!may_lock_any_amount() || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "memory can't be locked: give the program CAP_IPC_LOCK (setcap "
                       "cap_ipc_lock=+ep), or set "
                       "LimitMEMLOCK=infinity, or write disable_mlock = true and turn swap off");
    return 0;
}
