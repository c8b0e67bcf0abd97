/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config.h - the server's configuration, in the form that Vault's users have.
 *
 * Errors stop the start and read "FILE:LINE: KEY: what is wrong and what to write instead".
 */
#ifndef LOCKSTEP_CONFIG_H
#define LOCKSTEP_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "errors.h"
#include "logger.h"

struct engine_config; /* engine.h */

#define CONFIG_LISTENERS_MAX 8
struct config_listener {
    char *address, *cluster_address, *tls_cert_file, *tls_key_file;
    bool tls_disable;
    bool unauthenticated_metrics_access;
};
#define CONFIG_SECONDARIES_MAX 16
struct config_secondary { /* replication { secondary "ID" { ... } } */
    char *id, *mode, *on_limit;
    int64_t wait_ms; /* 0: default_wait_limit */
};
struct config {
    char *storage_path;
    struct config_listener listeners[CONFIG_LISTENERS_MAX];
    size_t n_listeners;
    char *api_addr, *cluster_addr, *cluster_name, *pid_file, *log_file;
    bool ui, disable_mlock;
    enum log_level log_level;
    int64_t default_lease_ttl_s, max_lease_ttl_s; /* 768h each unless set */
    uint64_t cache_bytes, reserve_bytes, wal_file_bytes,
        retain_bytes;     /* storage "wiredtiger" cache_size, disk_reserve, ...; 0: the engine's
                             defaults */
    int64_t retain_age_s; /* storage "wiredtiger" log_retain_age; 0: no limit */
    unsigned reactors;    /* 0: one a core, at most 4 */
    /* replication { ... }: what a new secondary's mode is, and what protects the other site */
    char *default_mode, *default_on_limit;                       /* NULL: async, strict */
    int64_t default_wait_ms;                                     /* 0: the engine's default */
    struct config_secondary secondaries[CONFIG_SECONDARIES_MAX]; /* modes of their own */
    size_t n_secondaries;
    int64_t best_effort_wait_ms; /* best_effort_wal_wait_duration; 2 s unless set */
    char *force_async;           /* ids with commas, or NULL */
    int64_t scrub_interval_ms;   /* from one scrub to the next; an hour unless set */
    int64_t lag_warn_ms;         /* beyond it status is not healthy; 10 s unless set */
    int64_t sealed_wait_ms;      /* 0: the engine's default */
    int64_t fence_wait_ms;       /* 0: the engine's default */
    int64_t lag_guard_ms;        /* 0: off */
    uint64_t lag_guard_bytes;    /* 0: off */
    int64_t max_loss_ms;         /* a promotion that may lose more is refused; -1: none is */
    int64_t keep_wiped_ms; /* what a secondary held before is set aside so long; 72 h; 0: not */
};
/** Empty, with the defaults that are not zero; before config_parse. config_load does it itself. */
void config_init(struct config *c);
/** Read files and directories (their .hcl and .json, sorted), later ones win. */
CHECKED int config_load(const char *const *paths, size_t n, struct config *c, struct err *err);
/** Adds to c, which the caller frees in every case. In one text a key stands once; a later text
 * replaces it. */
CHECKED int config_parse(const char *text, size_t len, const char *file, struct config *c,
                         struct err *err);
/** A URL, or HOST:PORT, that others dial: it must name a host, not all addresses of this one. */
CHECKED int config_check_dialled(const char *key, const char *url, struct err *err);
/** Fill what follows from others (cluster_address = API port + 1, api_addr, cluster_addr), check
 * that all needed is there. */
CHECKED int config_complete(struct config *c, struct err *err);
void config_free(struct config *c);
/** default_mode and the modes of secondaries, as the engine takes them. */
CHECKED int config_modes(const struct config *c, struct engine_config *ec, struct err *err);

#endif
