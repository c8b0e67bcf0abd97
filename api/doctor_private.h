/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * doctor_private.h - what the checks of the doctor share: doctor.c (the order, and what is here),
 * doctor_network.c (names, ports and TLS), doctor_primary.c (what the primary's API says).
 */
#ifndef LOCKSTEP_DOCTOR_PRIVATE_H
#define LOCKSTEP_DOCTOR_PRIVATE_H

#include "cluster_private.h"
#include "core.h"
#include "jwt.h"

#define DOCTOR_STEP_S 5 /* longest wait of one step of a check */

enum doctor_result { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };
struct doctor_check {
    const char *name;
    enum doctor_result result;
    char what[320];
    const char *todo;
};
struct doctor {
    struct core *core;
    const char *token, *api_addr, *ca_file, *ca_path, *cluster_addr;
    int64_t now_ms;
    struct jwt_claims claims; /* of a wrapped token */
    struct bundle sealed;     /* what a sealed token holds; json NULL: it is none, or not for us */
    struct engine_status st;  /* of this node */
    char api_url[600];        /* without a slash at its end */
    char api_host[256], cluster_host[256];
    char api_port[8], cluster_port[8];
    json_t *health, *status; /* the primary's answers; NULL: none */
    json_t *own;             /* of a secondary: its health */
    uint64_t primary_bytes;
    int64_t skew_ms;
    struct doctor_check list[24];
    size_t n;
};

/* All of these run on a helper thread, say what they find, and change nothing. */

/* ---- doctor.c ---- */
PRINTF_LIKE(5, 6)
void doctor_say(struct doctor *d, const char *name, enum doctor_result result, const char *todo,
                const char *fmt, ...);

/* ---- doctor_network.c ---- */
/** "https://host:port/..." or host:port into its parts. */
bool doctor_split_url(const char *url, const char *dflt_port, char host[256], char port[8]);
void doctor_check_name(struct doctor *d, const char *what, const char *host, const char *port);
/** false: it cannot be reached, which is as bad as `bad`. */
bool doctor_check_port(struct doctor *d, const char *name, const char *host, const char *port,
                       enum doctor_result bad, const char *todo);
/** Of cluster_host, cluster_port: does the primary itself end TLS there? */
void doctor_check_tls(struct doctor *d);

/* ---- doctor_primary.c ---- */
void doctor_check_api(struct doctor *d);     /* sets health and skew_ms */
void doctor_check_clock(struct doctor *d);   /* after check_api */
void doctor_check_version(struct doctor *d); /* after check_api */
void doctor_check_primary(struct doctor *d); /* sets status, cluster_addr and primary_bytes */
void doctor_check_lookup(struct doctor *d);  /* the token, without using it up */

#endif
