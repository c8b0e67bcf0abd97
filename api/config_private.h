/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config_private.h - what config.c (reading) and config_keys.c (the tables of keys) share.
 */
#ifndef LOCKSTEP_CONFIG_PRIVATE_H
#define LOCKSTEP_CONFIG_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>

#include "config.h"
#include "hcl.h"

enum config_type {
    CONFIG_TEXT,
    CONFIG_BOOL,
    CONFIG_SECONDS,
    CONFIG_MILLIS,
    CONFIG_BYTES,
    CONFIG_COUNT,
    CONFIG_LEVEL
};

struct config_key { /* sets one field of a struct */
    const char *name;
    enum config_type type;
    size_t offset;
};
/* A key that Vault's users have and that sets nothing here. */
struct config_known {
    const char *name;
    const char *same_as; /* a value that means what we do anyway and is taken; NULL: none is */
    const char *advice;  /* for every other value */
};

struct config_reader {
    const char *file;
    struct config *c;
    struct err *err;
};

/* All tables end in a NULL name. */
extern const struct config_key config_top_keys[], config_listener_keys[],
    config_listener_telemetry_keys[], config_storage_keys[], config_replication_keys[],
    config_secondary_keys[];
extern const struct config_known config_top_known[], config_listener_known[],
    config_storage_known[], config_replication_known[], config_other_storage[];

/* ---- config.c ---- */
/** Fills r->err with file, line and key; -1. */
int config_fail(struct config_reader *r, int line, const char *key, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/** -1: the key of it stands in the object before it, too. */
CHECKED int config_check_once(struct config_reader *r, const struct hcl_value *object,
                              const struct hcl_item *it);
/** Sets the field of base that keys name, or says why not. */
CHECKED int config_read_key(struct config_reader *r, const struct hcl_item *it,
                            const struct config_key *keys, const struct config_known *known,
                            void *base);

/* ---- config_replication.c ---- */
CHECKED int config_read_replication(struct config_reader *r, const struct hcl_item *it);
void config_secondary_free(struct config_secondary *s);

#endif
