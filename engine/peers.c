/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * peers.c - the members of the cluster, as their rows say it, and a slot for each that is or may be
 * served from here.
 *
 * A slot outlives its connections: what was confirmed in it, and what the log is kept for, counts
 * until the member is revoked or nobody is served from here any more.
 */
#include "engine_private.h"
#include "log_private.h"
#include "retain_private.h"
#include "roles_private.h"
#include "ship_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

/* ---- rows ---- */
int member_read(struct engine *e, const char *id, struct member *m, struct err *err)
{
    char key[sizeof(ENGINE_KEY_MEMBERS) + sizeof(m->id)];
    struct buf b = {0};
    int rc = -1;

    snprintf(key, sizeof(key), "%s%s", ENGINE_KEY_MEMBERS, id);
    if (engine_get(e, key, &b, err) == 0)
        rc = member_decode(b.data, b.len, m, err);
    buf_free(&b);
    return rc;
}

struct by_key {
    const struct engine *e;
    const uint8_t *key_hash;
    struct member *m;
    bool found;
};

static int match_key(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                     struct err *err)
{
    struct by_key *k = arg;
    struct member m;
    struct err bad;

    (void)key, (void)lsn, (void)err;
    if (!k->found && member_decode(value, len, &m, &bad) == 0 && !m.revoked &&
        !revoked_here(k->e, m.id) &&
        CRYPTO_memcmp(m.key_hash, k->key_hash, sizeof(m.key_hash)) == 0) {
        *k->m = m;
        k->found = true;
    }
    return 0;
}

int member_by_key(struct engine *e, const uint8_t key_hash[32], struct member *m, struct err *err)
{
    struct by_key k = {.e = e, .key_hash = key_hash, .m = m};

    if (engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, match_key, &k, err) != 0)
        return -1;
    return k.found ? 0 : err_set(err, ERR_DENIED, 0, "not a member of this cluster");
}

int member_check(struct engine *e, const struct conn *c, const char *id, struct member *m,
                 struct err *err)
{
    if (id[0] == '\0' || strchr(id, '/') != NULL || member_read(e, id, m, err) != 0)
        return err_set(err, ERR_DENIED, 0, "not a member of this cluster");
    if (CRYPTO_memcmp(m->key_hash, c->key_hash, sizeof(m->key_hash)) != 0)
        return err_set(err, ERR_DENIED, 0, "the key is not this member's");
    if (m->revoked || revoked_here(e, m->id))
        return err_set(err, ERR_DENIED, 0, "revoked");
    return 0;
}

/* ---- slots ---- */
void peer_lost(struct engine *e, struct peer *p, const char *reason)
{
    log_info(e->cfg.log, LOG_REPLICATION, "secondary %s: connection closed: %s", p->member.id,
             reason);
    snprintf(p->last_error, sizeof(p->last_error), "%.159s", reason);
    p->last_error_ms = env_wall_ms(e->cfg.env);
    p->conn = NULL;
    p->n_fed = 0;
    cursor_set(&p->cur, 0);
    p->shipped_n = p->shipped_out = 0;
    p->window_used = 0;
}

void peer_free(struct peer *p)
{
    free(p->shipped);
    free(p->lag);
    cursor_set(&p->cur, 0);
    memset(p, 0, sizeof(*p));
}

void peers_free(struct engine *e)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++)
        peer_free(&e->peers[i]);
}

bool peers_known(const struct engine *e)
{
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        if (e->peers[i].used)
            return true;
    }
    return false;
}

struct peer *peer_slot(struct engine *e, const char *id)
{
    struct peer *spare = NULL;

    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used && strcmp(p->member.id, id) == 0)
            return p;
        if (!p->used && spare == NULL)
            spare = p;
    }
    if (spare != NULL) {
        memset(spare, 0, sizeof(*spare));
        spare->used = true;
        spare->lag =
            calloc(LAG_STAGES, sizeof(*spare->lag)); /* without memory it is not measured */
        snprintf(spare->member.id, sizeof(spare->member.id), "%s", id);
        retain_member(e, spare);
    }
    return spare;
}

static int list_member(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct engine *e = arg;
    struct member m;
    struct peer *p;
    struct err bad;

    (void)lsn, (void)err;
    if (member_decode(value, len, &m, &bad) != 0) {
        log_error(e->cfg.log, LOG_REPLICATION, "%s: %s", key, bad.msg);
        return 0;
    }
    if (m.revoked || revoked_here(e, m.id) || strcmp(m.id, own_member_id(e)) == 0)
        return 0;
    if (m.primary) { /* until it has come back */
        retain_fallen(e, &m);
        return 0;
    }
    p = peer_slot(e, m.id);
    if (p != NULL)
        p->member = m;
    return 0;
}

/* Look at every connection and slot again: the member table may have changed. */
void peers_check(struct engine *e)
{
    struct member m;
    struct err err;

    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (c->dead || c->state != CONN_PEER || c->peer == NULL)
            continue;
        if (!e->repl.primary_enabled)
            conn_close(e, c, "replication is not enabled");
        else if (member_check(e, c, c->peer->member.id, &m, &err) != 0)
            conn_close(e, c, err.msg);
    }
    for (size_t i = 0; i < ENGINE_PEERS_MAX; i++) {
        struct peer *p = &e->peers[i];

        if (p->used &&
            (member_read(e, p->member.id, &m, &err) != 0 || m.revoked || revoked_here(e, m.id)))
            peer_free(p); /* the log is no longer kept for it */
    }
    retain_fallen_begin(e);
    if (engine_role(e) != ENGINE_PRIMARY || !e->repl.primary_enabled)
        return;
    if (engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, list_member, e, &err) != 0)
        log_error(e->cfg.log, LOG_REPLICATION, "read the members: %s", err.msg);
    else {
        retain_fallen_end(e);
        if (e->retain_unknown)
            retain_members_known(e);
    }
}

void peers_clear_followers(struct engine *e, const char *reason)
{
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead && c->state == CONN_PEER)
            conn_close(e, c, reason);
    }
    peers_free(e);
}

void peers_clear(struct engine *e, const char *reason)
{
    for (struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead)
            conn_goodbye(e, c, reason);
        conn_drop(e, c, reason);
    }
    peers_free(e);
}
