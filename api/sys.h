/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys.h - handlers of sys/ that need no file of their own (sys_tools.c, sys_state.c). VAULT-API
 * section 2.
 */
#ifndef LOCKSTEP_SYS_H
#define LOCKSTEP_SYS_H

#include "handler.h"

/* sys_tools.c */
handler_fn sys_random, sys_hash, sys_decode_token;
/* sys_metrics.c */
handler_fn sys_metrics, sys_in_flight;
/* sys_state.c */
handler_fn sys_key_status, sys_rotate, sys_host_info, sys_ha_status, sys_step_down,
    sys_version_history, sys_config_state, sys_config_cors, sys_leases, sys_audit,
    sys_resultant_acl;

#endif
