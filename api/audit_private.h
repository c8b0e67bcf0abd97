/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * audit_private.h - the devices, for audit.c (which there are), audit_line.c (what they are told)
 * and audit_api.c (how they come and go).
 */
#ifndef LOCKSTEP_AUDIT_PRIVATE_H
#define LOCKSTEP_AUDIT_PRIVATE_H

#include "audit.h"
#include "core.h"
#include "hmac.h"

#define AUDIT_FOLDER "core/audit/" /* + path without its final slash */
#define AUDIT_HEADERS_ROW "sys/config/audited-headers"
#define AUDIT_SALT_CHARS 32
#define AUDIT_HMAC_CHARS (12 + 64) /* hmac-sha256: and hex */

struct audit_device {
    char *path, *prefix;
    struct hmac hash; /* under the device's salt */
    bool log_raw, hmac_accessor;
    bool discard; /* everything is well, and nothing is kept */
    int fd;       /* -1: it could not be opened */
};
struct audit_set { /* immutable, but for refs */
    unsigned refs; /* under the owner's lock */
    uint64_t changes;
    struct audit_device *devices;
    size_t n;
    json_t *headers; /* lower-case name -> {"hmac": bool} */
};

/** What file_path and mode of the options of device `name` (a final slash does not count) open. -1:
 * *why is set to Go's text (arena). A primary makes the folders of the path, as Vault does;
 * elsewhere they must be there, so that a volume that is not mounted is seen before it counts. */
CHECKED int audit_open(struct request *rq, const char *name, const json_t *options, bool *discardp,
                       int *fdp, const char **whyp);
/** "hmac-sha256:..." of a text. */
CHECKED int audit_hash(const struct hmac *salted, const char *text, size_t len,
                       char out[AUDIT_HMAC_CHARS + 1]);
/** The line with its prefix and its end. */
CHECKED int audit_line(const struct audit_set *set, const struct audit_device *d,
                       struct request *rq, const struct response *rs, const struct audit_facts *f,
                       struct buf *out);

#endif
