/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * operator_private.h - what the operator commands that deal with key shares have in common.
 */
#ifndef LOCKSTEP_OPERATOR_PRIVATE_H
#define LOCKSTEP_OPERATOR_PRIVATE_H

#include "cli.h"

#define PGP_KEYS_HELP                                                                              \
    "Files with PGP public keys, separated by commas, one for each share, which is encrypted to "  \
    "it."

int operator_rekey(int argc, char **argv); /* cmd_rekey.c */

/** Each of the answer's keys_base64, in a line. */
void operator_print_keys(const json_t *answer, const char *label);
/** The files' keys as the API takes them; files NULL: *outp stays NULL. -1: said why. */
CHECKED int operator_pgp_keys(const char *files, json_t **outp);
CHECKED int operator_pgp_key(const char *file, json_t **outp); /* of one file */

static inline const char *str(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

static inline long long num(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

static inline bool yes(const json_t *o, const char *key)
{
    return json_is_true(json_object_get(o, key));
}

#endif
