/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cidr.h - lists of address blocks that a login or a token is bound to.
 *
 * A list is a JSON array of texts. A block of IPv6 never holds an address of IPv4, also where a
 * socket of both shows that as ::ffff:a.b.c.d.
 */
#ifndef LOCKSTEP_CIDR_H
#define LOCKSTEP_CIDR_H

#include <jansson.h>
#include <stdbool.h>

#include "errors.h"

/** Addresses and blocks as Vault shows them: a block of one address is the address. *outp: new
 * array. */
CHECKED int cidrs_parse(const json_t *list, json_t **outp, struct err *err);
/** Whether all are blocks, as in "10.0.0.1/32". */
CHECKED int cidrs_check(const json_t *list, struct err *err);
/** Whether a block of the list holds the address; an empty list (or NULL) bounds nothing. */
bool cidrs_hold(const json_t *list, const char *address);
/** Whether each block of the list lies in one of outer, when both have any. */
bool cidrs_within(const json_t *list, const json_t *outer);

#endif
