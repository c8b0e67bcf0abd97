/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * meet.c - clusters of one history meet: a primary asks its members for their epochs.
 *
 * A secondary dials its primary, so a promoted one and the old primary would both only listen, and
 * the old one would go on serving. So a primary dials every unrevoked member that is not connected
 * to it, old primaries too, when it starts, when its key comes, after it stood still, and every two
 * seconds: epoch ask, epoch tell, closed. Both carry the sender's history and role, and each side
 * compares: a newer epoch with a good proof fences a primary, an equal number with another id is a
 * split (fence.c). The dialled peer must have the key of the member's row; the one that dials must
 * have that of an unrevoked row. A promoted cluster thus goes on telling the old primary until that
 * has rejoined or been revoked.
 *
 * Before it serves, a primary that has members waits for their word, up to fence_wait_ms after its
 * key came (without it no proof can be checked); then it serves, and says so while one is not
 * heard. While it waits no segment is built, and engine_confirming holds the reads.
 */
#include "engine_private.h"
#include "log_private.h"
#include "roles_private.h"
#include "ship_private.h"
#include "time_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <openssl/crypto.h>

const char *own_member_id(const struct engine *e)
{
    return e->member_id[0] != '\0' ? e->member_id : e->repl.cluster_id;
}

/* ---- who is asked ---- */
static struct met *met_by_conn(struct engine *e, uint64_t conn)
{
    for (size_t i = 0; i < e->meet.n; i++) {
        if (conn != 0 && e->meet.m[i].conn_id == conn)
            return &e->meet.m[i];
    }
    return NULL;
}

/* NULL: it does not follow us over a connection that we know of. */
static const struct conn *follower(const struct engine *e, const uint8_t key_hash[32])
{
    for (const struct conn *c = e->conns; c != NULL; c = c->next) {
        if (!c->dead && c->state == CONN_PEER && memcmp(c->key_hash, key_hash, 32) == 0)
            return c;
    }
    return NULL;
}

struct table {
    struct engine *e;
    struct meet next;
    uint8_t own_key[32]; /* hash of it */
    bool has_own;
};

/* The key that we have, or that our row names. The row alone would not do: a snapshot may be older
 * than it, and name us by the id that we had before. */
static bool own_key(struct engine *e, uint8_t hash[32])
{
    struct member own;
    struct err err;
    bool have;

    pthread_mutex_lock(&e->key_mu);
    have = e->have_link_key;
    memcpy(hash, e->link_key_hash, 32);
    pthread_mutex_unlock(&e->key_mu);
    if (have)
        return true;
    if (!e->repl.primary_enabled || member_read(e, own_member_id(e), &own, &err) != 0)
        return false;
    memcpy(hash, own.key_hash, 32);
    return true;
}

static int each_member(void *arg, const char *key, const uint8_t *value, size_t len, uint64_t lsn,
                       struct err *err)
{
    struct table *t = arg;
    struct met *m = &t->next.m[t->next.n];
    struct err bad;

    (void)key, (void)lsn, (void)err;
    if (t->next.n == MEET_MAX || member_decode(value, len, &m->member, &bad) != 0)
        return 0; /* peers_check says so */
    if (m->member.revoked || revoked_here(t->e, m->member.id) ||
        m->member.cluster_addr[0] == '\0' || strcmp(m->member.id, own_member_id(t->e)) == 0 ||
        (t->has_own && memcmp(m->member.key_hash, t->own_key, 32) == 0))
        return 0;
    /* A member that is taken in later was taken in by us. */
    m->heard = t->e->meet.ready;
    m->next_ns = 0;
    m->conn_id = 0;
    for (size_t i = 0; i < t->e->meet.n; i++) {
        const struct met *was = &t->e->meet.m[i];

        if (memcmp(was->member.key_hash, m->member.key_hash, 32) == 0 &&
            strcmp(was->member.id, m->member.id) == 0) {
            m->heard = was->heard;
            m->next_ns = was->next_ns;
            m->conn_id = was->conn_id;
        }
    }
    t->next.n++;
    return 0;
}

static bool meets(const struct engine *e)
{
    return engine_role(e) == ENGINE_PRIMARY && e->repl.primary_enabled && !e->alone &&
           e->cfg.link_version >= LINK_VERSION_EPOCHS && e->cfg.link != NULL;
}

/* Replication is off: there is nobody of this cluster left that could be met, and the id under
 * which it was known there means nothing any more. */
static void forget_cluster(struct engine *e)
{
    struct err err;

    if (engine_role(e) != ENGINE_PRIMARY || e->promote.on || e->repl.primary_enabled ||
        e->repl.cluster_id[0] == '\0' || (!e->alone && e->member_id[0] == '\0'))
        return;
    e->alone = false;
    e->member_id[0] = '\0';
    local_begin(e);
    if (local_set_text(e, "alone", NULL, &err) != 0 ||
        local_set_text(e, "member", NULL, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
    local_end(e);
}

static void settle(struct engine *e)
{
    size_t missing = 0;

    for (size_t i = 0; i < e->meet.n; i++)
        missing += !e->meet.m[i].heard;
    if (missing == 0 && atomic_load(&e->confirming)) {
        atomic_store(&e->confirming, false);
        log_info(e->cfg.log, LOG_REPLICATION, "no member knows of a newer epoch: serving");
    }
    if (e->meet.unconfirmed != (missing > 0))
        e->dirty = true;
    e->meet.unconfirmed = missing > 0;
}

static void close_asks(struct engine *e, const struct meet *keep)
{
    for (size_t i = 0; i < e->meet.n; i++) {
        uint64_t id = e->meet.m[i].conn_id;
        struct conn *c = id != 0 ? conn_find(e, id) : NULL;
        bool kept = false;

        for (size_t k = 0; k < keep->n; k++)
            kept = kept || keep->m[k].conn_id == id;
        if (id == 0 || kept)
            continue;
        e->meet.m[i].conn_id = 0;
        if (c != NULL)
            conn_drop(e, c, "not asked any more");
        else
            e->cfg.link->close(e->cfg.net, id, "not asked any more");
    }
}

void meet_rows(struct engine *e)
{
    struct table *t = calloc(1, sizeof(*t));
    struct err err;

    if (t == NULL) {
        err_set(&err, ERR_NOMEM, 0, "members");
        engine_fatal(e, &err);
    }
    forget_cluster(e);
    t->e = e;
    t->next = e->meet;
    t->next.n = 0;
    t->has_own = own_key(e, t->own_key);
    if (meets(e) && engine_scan(e, ENGINE_KEY_MEMBERS, NULL, 0, false, each_member, t, &err) != 0)
        log_error(e->cfg.log, LOG_REPLICATION, "read the members: %s", err.msg);
    close_asks(e, &t->next);
    e->meet = t->next;
    atomic_store(&e->meeting, e->meet.n > 0);
    free(t);
    settle(e);
}

/* At open: what the members know is not known here. */
void meet_opened_engine(struct engine *e)
{
    e->meet.ready = true;
    atomic_store(&e->confirming, e->meet.unconfirmed);
}

/* The key came, or this process stood still for longer than it takes to be promoted past. */
void meet_again(struct engine *e, int64_t now)
{
    for (size_t i = 0; i < e->meet.n; i++) {
        const struct conn *c = follower(e, e->meet.m[i].member.key_hash);

        /* The connection of one that follows may be dead without our knowing: it is asked, too,
         * unless it is of an older program, which could not answer. */
        e->meet.m[i].heard = c != NULL && c->version < LINK_VERSION_EPOCHS;
        if (e->meet.m[i].conn_id == 0)
            e->meet.m[i].next_ns = now;
    }
    e->meet.until_ns = now + e->cfg.fence_wait_ms * NS_PER_MS;
    atomic_store(&e->confirming, e->meet.n > 0);
    settle(e);
    e->dirty = true;
}

bool engine_confirming(struct engine *e)
{
    return atomic_load(&e->confirming) ||
           (atomic_load(&e->meeting) && !atomic_load(&e->stopping) && e->started &&
            env_mono_ns(e->cfg.env) - atomic_load(&e->stepped_ns) > STILL_NS);
}

/* ---- comparing ---- */
void meet_seen(struct engine *e, uint32_t number)
{
    struct err err;

    if (number <= e->seen_epoch)
        return;
    e->seen_epoch = number;
    if (local_set_number(e, "epoch_seen", number, &err) != 0 || local_save(e, &err) != 0)
        engine_fatal(e, &err);
}

/* The caller's next local_save makes it durable. */
void meet_forget(struct engine *e)
{
    struct err err;

    e->seen_epoch = 0;
    if (local_set_text(e, "epoch_seen", NULL, &err) != 0)
        engine_fatal(e, &err);
}

/* One epoch has one primary: another one that says it is of ours was brought back from an old
 * image, or we were. */
bool meet_epochs(struct engine *e, const struct epochs *history, enum engine_role role,
                 const uint8_t *sig, const char *who)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(history);
    bool same;

    if (ours == NULL || theirs == NULL || theirs->number < ours->number)
        return false;
    same = memcmp(theirs->id, ours->id, sizeof(ours->id)) == 0;
    if (same && (role != ENGINE_PRIMARY || engine_role(e) != ENGINE_PRIMARY))
        return false;
    if (!same && !epoch_proof_good(e, theirs) &&
        (sig == NULL || epoch_has_key(e) || !epoch_signature_good(e, theirs, sig)))
        return false;
    meet_seen(e, theirs->number);
    if (engine_role(e) == ENGINE_SECONDARY && theirs->number > ours->number &&
        role == ENGINE_PRIMARY && (e->reason[0] == '\0' || yield_said(e))) {
        snprintf(e->reason, sizeof(e->reason), "newer_primary: %.20s, epoch %" PRIu32, who,
                 theirs->number);
        e->fence.newer = *theirs;
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "%s was promoted to epoch %" PRIu32
                 ": point this secondary to it with update-primary",
                 who, theirs->number);
        e->dirty = true;
    }
    /* Who began an epoch of the same number and follows or waits now leaves it to us. */
    if (engine_role(e) != ENGINE_PRIMARY ||
        (theirs->number == ours->number && role != ENGINE_PRIMARY && role != ENGINE_FENCED))
        return false;
    engine_fence(e, theirs, who);
    return true;
}

/* A newer epoch that we cannot believe: no word that there is none. */
static bool unproven(const struct engine *e, const struct epochs *history)
{
    const struct epoch_rec *ours = epochs_last(&e->cur->epochs), *theirs = epochs_last(history);

    return ours != NULL && theirs != NULL && theirs->number > ours->number;
}

void meet_heard(struct engine *e, const uint8_t key_hash[32])
{
    for (size_t i = 0; i < e->meet.n; i++) {
        if (memcmp(e->meet.m[i].member.key_hash, key_hash, 32) == 0)
            e->meet.m[i].heard = true;
    }
    settle(e);
}

/* ---- messages ---- */
void meet_fill(struct engine *e, struct link_msg *m, enum link_msg_type type)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->epoch.version = e->cfg.link_version;
    m->epoch.role = (uint32_t)engine_role(e);
    m->epoch.durable_lsn = wal_durable_lsn(e->cur->wal);
    m->epoch.wall_ms = env_wall_ms(e->cfg.env);
    snprintf(m->epoch.cluster_id, sizeof(m->epoch.cluster_id), "%s", e->repl.cluster_id);
    snprintf(m->epoch.member_id, sizeof(m->epoch.member_id), "%s",
             engine_role(e) == ENGINE_SECONDARY ? e->follow.cfg.member_id : own_member_id(e));
    m->epoch.epochs = e->cur->epochs;
    m->epoch.minor = wal_end_minor(e->cur->wal);
    if (engine_role(e) == ENGINE_PRIMARY && e->cur->epochs.n > 0)
        m->epoch.has_signature = epoch_sign(e, epochs_last(&e->cur->epochs), m->epoch.signature);
}

static const uint8_t *signature(const struct link_msg *m)
{
    return m->epoch.has_signature ? m->epoch.signature : NULL;
}

/* The peer has asked; its connection is closed by it. */
void meet_asked(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct link_msg tell;
    struct member who;
    struct err err = {0};

    if (e->cfg.link_version < LINK_VERSION_EPOCHS || engine_role(e) == ENGINE_BOOTSTRAPPING ||
        e->alone || strcmp(m->epoch.cluster_id, e->repl.cluster_id) != 0)
        err_set(&err, ERR_DENIED, 0, "not of this cluster now");
    if (err.code != ERR_OK || member_by_key(e, c->key_hash, &who, &err) != 0) {
        conn_goodbye(e, c, err.msg);
        conn_drop(e, c, err.msg);
        return;
    }
    meet_fill(e, &tell, MSG_EPOCH_TELL); /* as it is now: of a split both must hear */
    gather_asked(e, &m->epoch, &who, &tell.epoch);
    conn_send(e, c, &tell, NULL);
    if (!meet_epochs(e, &m->epoch.epochs, (enum engine_role)m->epoch.role, signature(m), who.id) &&
        !unproven(e, &m->epoch.epochs))
        meet_heard(e, c->key_hash);
}

bool meet_opened(struct engine *e, struct conn *c)
{
    struct met *t = met_by_conn(e, c->id);
    struct link_msg ask;

    if (t == NULL)
        return gather_opened(e, c) || fence_opened(e, c);
    c->state = CONN_ASK;
    if (CRYPTO_memcmp(c->key_hash, t->member.key_hash, 32) != 0) {
        conn_drop(e, c, "it answered with another key than that of the member");
        return true;
    }
    meet_fill(e, &ask, MSG_EPOCH_ASK);
    conn_send(e, c, &ask, NULL);
    return true;
}

void meet_told(struct engine *e, struct conn *c, const struct link_msg *m)
{
    struct met *t = met_by_conn(e, c->id);

    if (gather_told(e, c, m) || fence_told(e, c, m))
        return;
    if (t == NULL || m->type != MSG_EPOCH_TELL ||
        strcmp(m->epoch.cluster_id, e->repl.cluster_id) != 0) {
        conn_drop(e, c, "no answer to what was asked");
        return;
    }
    if (meet_epochs(e, &m->epoch.epochs, (enum engine_role)m->epoch.role, signature(m),
                    t->member.id))
        return; /* all connections are closed */
    conn_drop(e, c, "asked");
    if (!unproven(e, &m->epoch.epochs))
        meet_heard(e, c->key_hash);
}

bool meet_closed(struct engine *e, uint64_t conn)
{
    struct met *t = met_by_conn(e, conn);

    if (t == NULL)
        return gather_closed(e, conn) || fence_closed(e, conn);
    t->conn_id = 0;
    t->next_ns = env_mono_ns(e->cfg.env) + ASK_NS;
    return true;
}

/* ---- the step ---- */
static size_t ask(struct engine *e, struct met *t, int64_t now)
{
    struct conn *c;

    if (t->conn_id == 0 && t->heard && follower(e, t->member.key_hash) != NULL) {
        t->next_ns = now + ASK_NS;
        return 0;
    }
    if (now < t->next_ns) {
        log_deadline(e, t->next_ns);
        return 0;
    }
    if (t->conn_id != 0) { /* no answer */
        c = conn_find(e, t->conn_id);
        if (c != NULL)
            conn_drop(e, c, "no answer to what was asked");
        else
            e->cfg.link->close(e->cfg.net, t->conn_id, "no answer to the dial");
        (void)meet_closed(e, t->conn_id);
        return 1;
    }
    t->conn_id = e->cfg.link->dial(e->cfg.net, t->member.cluster_addr);
    t->next_ns = now + (t->conn_id != 0 ? ASK_LIMIT_NS : ASK_NS);
    log_deadline(e, t->next_ns);
    return 1;
}

size_t meet_step(struct engine *e, int64_t now)
{
    int64_t still = now - atomic_exchange(&e->stepped_ns, now);
    size_t n = 0;

    if (!meets(e) || atomic_load(&e->stopping))
        return 0;
    if (still > STILL_NS && e->meet.n > 0 && e->meet.stepped) {
        log_warn(e->cfg.log, LOG_REPLICATION,
                 "this process stood still for %" PRId64
                 " ms: asking the members for a newer epoch before anything is served",
                 still / NS_PER_MS);
        meet_again(e, now);
    }
    e->meet.stepped = true;
    for (size_t i = 0; i < e->meet.n && engine_role(e) == ENGINE_PRIMARY; i++)
        n += ask(e, &e->meet.m[i], now);
    if (!atomic_load(&e->confirming) || e->meet.until_ns == 0)
        return n;
    if (now < e->meet.until_ns) {
        log_deadline(e, e->meet.until_ns);
        return n;
    }
    atomic_store(&e->confirming, false);
    log_warn(e->cfg.log, LOG_REPLICATION,
             "epoch_unconfirmed: not every member told its epoch within %" PRIu32 " ms: serving",
             e->cfg.fence_wait_ms);
    e->dirty = true;
    return n + 1;
}
