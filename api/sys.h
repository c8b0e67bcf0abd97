/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sys.h - handlers of sys/ that have no header of their own, and what they share. VAULT-API section
 * 2.
 */
#ifndef LOCKSTEP_SYS_H
#define LOCKSTEP_SYS_H

#include "handler.h"
#include "http.h"

/* sys_tools.c */
handler_fn sys_random, sys_hash, sys_decode_token;
/* sys_metrics.c */
handler_fn sys_metrics, sys_in_flight;
/* sys_snapshot.c */
handler_fn sys_snapshot;
/* sys_state.c */
handler_fn sys_host_info, sys_ha_status, sys_step_down, sys_version_history, sys_config_state,
    sys_leases, sys_loggers;
/* sys_config.c */
handler_fn sys_config_ui, sys_config_audited;
/* cors.c */
handler_fn sys_config_cors;
/* rotate.c */
handler_fn sys_key_status, sys_rotate, sys_rotate_config;
/* acl_list.c */
handler_fn sys_resultant_acl;
/* catalog.c */
handler_fn sys_plugins, sys_counters, sys_openapi;

/** A setting that is one row: new reference, an empty object when nothing is stored. Coroutine. */
CHECKED int setting_get(struct core *c, const char *row, json_t **valuep, struct err *err);
CHECKED int setting_put(struct core *c, const char *row, const json_t *value, struct err *err);
/** The header lines of sys/config/ui/headers, for a web page. Coroutine. */
void ui_headers_add(struct core *c, struct buf *headers);
/**
 * What sys/config/cors says to a request with an Origin: header lines for its answer, or (-1) the
 * answer itself: of a preflight, or 403. Coroutine.
 */
CHECKED int cors_check(struct core *c, const struct http_request *http, struct response *rs,
                       struct buf *headers);
/** "/", "/ui" or below: not the API's. */
bool ui_path(const char *path);
/** The page, a redirect to it, or 404 when `ui` is off. Coroutine. */
void ui_answer(struct core *c, const char *method, const char *path, struct response *rs,
               struct buf *headers);
/** A primary's periodic look at sys/rotate/config. Coroutine. */
void rotate_if_due(struct core *c);
/* Tables that a test holds against each other; NULL behind the last. */
/** sys.c: a path below sys/, a prefix when it ends with '*'. */
const char *sys_route_at(size_t i);
/** router.c: a path outside the envelope. */
const char *router_raw_at(size_t i);
/** catalog.c: a pattern, the type of its mount, its operations. */
const char *catalog_path_at(size_t i, const char **typep, const char **opsp);
/** The answer to GET path?help=1. */
void help_handle(struct request *rq, struct response *rs);

#endif
