/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * replication_health.c - healthy and reasons: what is wrong with replication, or will be, and what
 * to do.
 *
 * A reason has a stable code (docs/OPERATIONS.md lists them), what is the case, and what to do. One
 * that is an error makes healthy false; a warning is about what comes. They are worked out of the
 * engine's picture when asked, and every ten seconds for the log, which says when one comes and
 * goes. Certificates are looked at then, too, since that reads files.
 */
#include <fts.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "audit.h"
#include "cluster_private.h"
#include "core_private.h"
#include "replication_private.h"

#define CERT_WARN_MS ((int64_t)30 * 24 * 3600 * 1000)
#define SKEW_WARN_MS 1000

static const struct {
    const char *code;
    bool error;
    bool logged; /* by the engine itself, with its code, when it happens */
    const char *todo;
} kinds[] = {
    {"superseded", true, true,
     "Another cluster was promoted. Clients belong there; make this one its secondary: demote, "
     "then "
     "update-primary with that one's cluster address."},
    {"split", true, true,
     "Two clusters began one epoch, and both stopped. Choose one and promote it with force; demote "
     "the other, then point it to the first with update-primary."},
    {"primary_lost_history", true, true,
     "The primary lacks what this secondary knows as committed. Look at the primary's disk; "
     "promote the secondary, or restore the primary. If the primary shall go on all the same, "
     "give that up with update-primary -force; it is saved first."},
    {"lost_writes_sealed", true, true,
     "Unseal this cluster with the keys that it had when it was the primary: what only it has is "
     "saved then, and it follows on."},
    {"not_connected", true, false,
     "See last_error and the primary's log; check the network to its cluster address, which is not "
     "the API's. If it has another address, or another cluster is the primary, give that with "
     "update-primary. If the primary is lost, and no other cluster was promoted, promote this "
     "secondary."},
    {"revoked", true, false,
     "It follows again with a secondary token that the primary makes for it (update-primary "
     "-token), or stands alone with its data (disable)."},
    {"primary_disabled", true, false,
     "It follows again with a secondary token, once the primary is enabled again (update-primary "
     "-token), or stands alone with its data (disable)."},
    {"no_primary", true, false,
     "Point this secondary to the primary with update-primary, or promote it."},
    {"first_copy", true, false,
     "Wait until the copy is whole: until then this cluster cannot be promoted."},
    {"secondary_disconnected", true, false,
     "Look at the secondary and the network between the sites; revoke the secondary if it is gone "
     "for good."},
    {"secondary_copying", true, false,
     "Wait until it has a whole copy: until then it cannot be promoted."},
    {"no_secondary", false, false,
     "This site alone has the data. The primary of before comes back with demote and "
     "update-primary, another cluster with a secondary token. If this one shall stay alone, "
     "disable "
     "replication."},
    {"canary_late", true, false,
     "Nothing of the primary's comes, though the link is up: look at the status of the cluster "
     "that this one follows, and at the primary's."},
    {"lag_high", true, false,
     "Compare the disks and the network of both sites with the rate of writes; lag tells the stage "
     "that is slow."},
    {"mode_waiting", true, false,
     "Writes wait for this secondary. Bring it back, or set its mode to async with force."},
    {"mode_fallback", true, true,
     "Writes go on without this secondary and can be lost with this site. Bring it back."},
    {"quorum_waiting", true, false,
     "Writes wait for the quorum. Bring its secondaries back, or end it (lockstep replication "
     "quorum -force off)."},
    {"quorum_fallback", true, false,
     "Writes go on without the quorum and can be lost with this site. Bring its secondaries back."},
    {"unsettled", true, false,
     "Writes of before the start wait for a secondary. Bring it back, or set its mode to async "
     "with force, or revoke it with force."},
    {"disk_reserve", true, true, "Writes are refused. Free space on this disk."},
    {"audit_unwritable", true, false,
     "A primary serves nothing while no audit device takes its lines. Make the file and its folder "
     "writable for the server on this machine."},
    {"audit_device_unwritable", false, false,
     "The other devices take its lines. Make the file and its folder writable for the server on "
     "this machine."},
    {"certificate_expired", true, false, "Renew it, then send SIGHUP to the server."},
    {"data_damaged", true, false,
     "Rows are not what the Merkle tree says, or cannot be read. A secondary takes what differs "
     "from its primary, or all, by itself. On a primary: promote a secondary that is whole, or, if "
     "its rows are right, reindex. Look at the disk and the memory."},
    {"data_differs", true, false,
     "The secondary takes what differs from the primary. If it comes back: reindex, and look at "
     "the disks and the memory of both."},
    {"secondary_let_go", true, true,
     "The log is no longer kept for it: it takes a copy when it comes. Raise its limits with "
     "sys/replication/dr/primary/retention if that is too soon."},
    {"log_retention", false, true,
     "Bring the secondary back, raise its limits with sys/replication/dr/primary/retention, or "
     "revoke it: at 100 % it is let go."},
    {"epoch_unconfirmed", false, true,
     "A member that could know of a newer epoch has not been heard since the start. Bring it back, "
     "or revoke it."},
    {"newer_primary", true, false,
     "Another cluster was promoted. Point this secondary to it with update-primary."},
    {"promotion_elsewhere", true, true,
     "Another secondary asked this one to follow no primary while it is promoted. When it tells "
     "that this has ended, this one follows again by itself. If it does not answer (it is gone), "
     "or was promoted, use update-primary: that ends the wait."},
    {"catching_up", false, false,
     "Wait until it streams again; progress tells how far it is. Until then a promotion has the "
     "state of before."},
    {"lag_guard", false, false, "Writers are slowed while a secondary catches up; see lag."},
    {"disk_low", false, false, "Free space on this disk before writes are refused."},
    {"clock_skew", false, false,
     "Set both clocks by NTP: expiry after a promotion goes by this one."},
    {"certificate_expires", false, false, "Renew it, then send SIGHUP to the server."},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

struct reason {
    size_t kind;
    char who[64]; /* the secondary; empty: none */
    char code[64], what[256];
};
struct health {
    struct reason r[64];
    size_t n;
};

struct cert_probe {
    char what[128];
    int64_t expires_ms;
};
struct probes {
    pthread_mutex_t mu;
    struct cert_probe certs[CONFIG_LISTENERS_MAX + 2];
    size_t n_certs;
    char link_key_hash[65];
    char audit[128]; /* devices that cannot be written; empty: all is well */
    bool audit_all;  /* there is no other */
    uint64_t data_bytes;
    bool looked;        /* once: a start is over. The coroutine's, like all below */
    struct health told; /* what the log knows */
};

static bool is_error(const struct reason *r)
{
    return r->kind >= KINDS || kinds[r->kind].error;
}

PRINTF_LIKE(4, 5)
static void add(struct health *h, const char *code, const char *who, const char *fmt, ...)
{
    struct reason *r = &h->r[h->n];
    va_list ap;

    if (h->n == sizeof(h->r) / sizeof(h->r[0]))
        return;
    h->n++;
    *r = (struct reason){0};
    while (r->kind < KINDS && strcmp(kinds[r->kind].code, code) != 0)
        r->kind++;
    snprintf(r->code, sizeof(r->code), "%s", code);
    snprintf(r->who, sizeof(r->who), "%s", who);
    va_start(ap, fmt);
    vsnprintf(r->what, sizeof(r->what), fmt, ap);
    va_end(ap);
}

/* ---- what the engine knows ---- */
static void of_skew(struct health *h, const struct engine_peer *p, const char *who)
{
    if (p->connected && llabs(p->clock_skew_ms) > SKEW_WARN_MS)
        add(h, "clock_skew", who, "the clock of %s is %" PRId64 " ms %s this one", p->id,
            (int64_t)llabs(p->clock_skew_ms), p->clock_skew_ms > 0 ? "ahead of" : "behind");
}

static void of_lag(struct core *c, struct health *h, const struct engine_peer *p, const char *who)
{
    const struct engine_lag_stage *s = &p->stage[LAG_FLUSHED];

    if (s->behind_lsns > 0 && s->behind_ms > (double)c->config->lag_warn_ms)
        add(h, "lag_high", who,
            "%" PRIu64 " transactions (%" PRIu64
            " bytes), the oldest %.1f s old, are not durable %s",
            s->behind_lsns, s->behind_bytes, s->behind_ms / 1000,
            who[0] != '\0' ? "there" : "here");
}

static void of_secondary(struct core *c, struct health *h, const struct engine_peer *p)
{
    if (strcmp(p->last_error, "primary_lost_history") == 0 && !p->connected)
        add(h, "primary_lost_history", p->id,
            "%s was refused: it knows as committed what this log lacks", p->id);
    else if (p->fed_by[0] != '\0')
        ; /* it follows another secondary, and is well as far as that one says */
    else if (!p->connected)
        add(h, "secondary_disconnected", p->id, "%s is not connected%s%s", p->id,
            p->last_error[0] != '\0' ? ": " : "", p->last_error);
    else if (!p->whole)
        add(h, "secondary_copying", p->id, "%s has no whole copy yet", p->id);
    if (p->let_go)
        add(h, "secondary_let_go", p->id, "%s was away or behind for too long", p->id);
    else if (p->retain_percent >= 50)
        add(h, "log_retention", p->id,
            "%u %% of what is kept of the log for %s is used: %" PRIu64 " of %" PRIu64
            " MiB, %" PRIu64 " of %" PRIu64 " s (0: no limit)",
            p->retain_percent, p->id, p->retain_bytes >> 20, p->retain_bytes_max >> 20,
            p->retain_age_ms / 1000, p->retain_age_ms_max / 1000);
    if (p->waiting)
        add(h, "mode_waiting", p->id, "writes wait for %s, which is in mode %s", p->id,
            repl_level_name(p->level));
    if (p->fallen_back)
        add(h, "mode_fallback", p->id, "%s did not confirm in time: its mode %s is off", p->id,
            repl_level_name(p->level));
    if (p->confirmed_lsn > 0)
        of_lag(c, h, p, p->id);
    of_skew(h, p, p->id);
}

/* The other cluster; this one is of_damage. */
static void of_proof(struct health *h, const struct engine_status *st, const struct engine_peer *p,
                     const char *who)
{
    if (p->verified == ENGINE_DAMAGED && !st->damaged)
        add(h, "data_damaged", who, "%s says that its rows are not what its Merkle tree says",
            p->id);
    if (p->verified == ENGINE_DIFFERENT)
        add(h, "data_differs", who, "%s holds other data than this cluster at an equal LSN", p->id);
}

static void of_damage(const struct engine_status *st, struct health *h)
{
    if (st->unreadable)
        add(h, "data_damaged", "", "a block of the data here cannot be read%s",
            st->applies ? ""
                        : ": nothing is applied, and nothing can be promoted, before it is anew");
    else if (st->damaged)
        add(h, "data_damaged", "", "the rows of %u Merkle leaves here are not what the tree says",
            st->scrub_bad_leaves);
}

static void of_primary_role(struct core *c, const struct engine_status *st, struct health *h)
{
    for (size_t i = 0; i < st->n_peers; i++) {
        of_secondary(c, h, &st->peers[i]);
        of_proof(h, st, &st->peers[i], st->peers[i].id);
    }
    if (st->replicating && st->n_peers == 0)
        add(h, "no_secondary", "", "there is no secondary: nothing protects what is written here");
    of_damage(st, h);
    if (st->quorum_waiting)
        add(h, "quorum_waiting", "", "writes wait for %u of the %u named secondaries", st->quorum.k,
            st->quorum.n);
    if (st->quorum_fallen_back)
        add(h, "quorum_fallback", "", "fewer than %u of the %u named secondaries confirmed in time",
            st->quorum.k, st->quorum.n);
    if (st->unsettled)
        add(h, "unsettled", "", "the log's tail of before the start is not confirmed");
    if (st->lag_guard_pause_ms > 0)
        add(h, "lag_guard", "", "writers wait %u ms between segments", st->lag_guard_pause_ms);
}

/* The last that it said was that. Not known while sealed. */
static bool primary_left(struct core *c)
{
    struct repl_config conf;
    struct err err = {0};

    return c->role == ENGINE_SECONDARY && repl_config_get(c, &conf, &err) == 0 &&
           !conf.primary_enabled;
}

static void of_secondary_role(struct core *c, const struct engine_status *st, struct health *h)
{
    const struct engine_peer *p = &st->peers[0];

    if (st->role == ENGINE_BOOTSTRAPPING)
        add(h, "first_copy", "", "the first copy is not whole: %" PRIu64 " keys so far",
            st->copy_keys);
    else if (st->copying && !st->unreadable)
        add(h, "catching_up", "",
            "what differs is taken from the primary (%s); a promotion now has the state at LSN "
            "%" PRIu64 ", %.1f s old",
            st->sync_phase, st->keeps_lsn, (double)p->canary_age_ms / 1000);
    if (strcmp(st->connection_state, "idle") == 0)
        add(h, "no_primary", "", "this secondary follows nobody");
    else if (!p->connected && strcmp(p->last_error, "revoked") == 0)
        add(h, "revoked", "", "the primary at %s has cut this cluster off", p->cluster_addr);
    else if (!p->connected && primary_left(c))
        add(h, "primary_disabled", "", "the primary has disabled replication");
    else if (!p->connected)
        add(h, "not_connected", "", "no connection to the primary at %s%s%s", p->cluster_addr,
            p->last_error[0] != '\0' ? ": " : "", p->last_error);
    if (st->role == ENGINE_SECONDARY)
        of_lag(c, h, p, "");
    if (st->role == ENGINE_SECONDARY && p->connected && !st->copying &&
        p->canary_age_ms > c->config->lag_warn_ms)
        add(h, "canary_late", "", "the last canary of the primary that came is %.1f s old",
            (double)p->canary_age_ms / 1000);
    of_proof(h, st, p, "");
    of_damage(st, h);
    of_skew(h, p, "");
}

/* The engine's own word is a code, or a sentence that begins like one. Of another primary it is
 * told where that one is. */
static void of_reason(struct core *c, const struct engine_status *st, struct health *h)
{
    char code[64], what[160];
    struct member m = {0};
    struct err err = {0};
    size_t n = strspn(st->reason, "abcdefghijklmnopqrstuvwxyz_");

    if (n == 0)
        return;
    snprintf(code, sizeof(code), "%.*s", (int)n, st->reason);
    if (strcmp(code, "newer_primary") == 0)
        snprintf(what, sizeof(what), "%s was promoted to epoch %" PRIu32, st->newer_member,
                 st->newer_epoch);
    else if (strcmp(code, "superseded") == 0)
        snprintf(what, sizeof(what), "%s, of %s", st->reason, st->newer_member);
    else if (strcmp(code, "split") == 0)
        snprintf(what, sizeof(what), "%s, the other is %s", st->reason, st->newer_member);
    else
        what[0] = '\0';
    if (what[0] != '\0' && member_get(c, st->newer_member, &m, &err) == 0)
        add(h, code, "", "%s: its API is at %s, its cluster address %s", what, m.api_addr,
            m.cluster_addr);
    else
        add(h, code, "", "%s", what[0] != '\0' ? what : st->reason);
}

static void of_disk(const struct engine_status *st, struct health *h)
{
    if (st->disk_reserve)
        add(h, "disk_reserve", "", "%" PRIu64 " MiB are free, the reserve is %" PRIu64 " MiB",
            st->free_bytes >> 20, st->reserve_bytes >> 20);
    else if (st->free_bytes > 0 && st->free_bytes < 2 * st->reserve_bytes)
        add(h, "disk_low", "", "%" PRIu64 " MiB are free; below %" PRIu64 " MiB writes are refused",
            st->free_bytes >> 20, st->reserve_bytes >> 20);
}

static void of_certs(struct core *c, int64_t now_ms, struct health *h)
{
    struct probes *p = c->probes;

    pthread_mutex_lock(&p->mu);
    for (size_t i = 0; i < p->n_certs; i++) {
        int64_t left = p->certs[i].expires_ms - now_ms;

        if (left <= 0)
            add(h, "certificate_expired", "", "%s has expired", p->certs[i].what);
        else if (left < CERT_WARN_MS)
            add(h, "certificate_expires", "", "%s expires in %" PRId64 " h", p->certs[i].what,
                left / 3600000);
    }
    pthread_mutex_unlock(&p->mu);
}

static void of_audit(struct core *c, struct health *h)
{
    struct probes *p = c->probes;

    pthread_mutex_lock(&p->mu);
    if (p->audit_all)
        add(h, "audit_unwritable", "", "the files of all audit devices cannot be written here: %s",
            p->audit);
    else if (p->audit[0] != '\0')
        add(h, "audit_device_unwritable", "",
            "the files of these audit devices cannot be written here: %s", p->audit);
    pthread_mutex_unlock(&p->mu);
}

static void collect(struct core *c, const struct engine_status *st, int64_t now_ms,
                    struct health *h)
{
    h->n = 0;
    of_reason(c, st, h);
    if (st->role == ENGINE_PRIMARY)
        of_primary_role(c, st, h);
    else if (st->role != ENGINE_FENCED)
        of_secondary_role(c, st, h);
    of_disk(st, h);
    if (c->probes != NULL) {
        of_audit(c, h);
        of_certs(c, now_ms, h);
    }
}

/* ---- status ---- */
static json_t *reason_json(const struct reason *r)
{
    json_t *o = json_pack("{s:s, s:s, s:s, s:s}", "code", r->code, "severity",
                          is_error(r) ? "error" : "warning", "what", r->what, "do",
                          r->kind < KINDS ? kinds[r->kind].todo : "See docs/OPERATIONS.md.");

    if (r->who[0] != '\0')
        json_object_set_new(o, "secondary", json_string(r->who));
    return o;
}

bool replication_health_json(struct request *rq, json_t *o, const struct engine_status *st)
{
    struct health *h = arena_alloc(rq->arena, sizeof(*h));
    json_t *list = json_array();
    bool healthy = true;

    if (h == NULL || list == NULL)
        return false;
    collect(rq->core, st, rq->now_ms, h);
    for (size_t i = 0; i < h->n; i++) {
        healthy = healthy && !is_error(&h->r[i]);
        json_array_append_new(list, reason_json(&h->r[i]));
    }
    json_object_set_new(o, "healthy", json_boolean(healthy));
    json_object_set_new(o, "reasons", list);
    return healthy;
}

/* ---- probes and the log ---- */
static void probe(struct probes *p, int64_t expires_ms, const char *what, const char *which)
{
    struct cert_probe *cp = &p->certs[p->n_certs];

    if (expires_ms == 0)
        return;
    snprintf(cp->what, sizeof(cp->what), "%s%s", what, which);
    cp->expires_ms = expires_ms;
    p->n_certs++;
}

/* Helper thread: it reads directories. What vanishes meanwhile does not count. */
static void measure(void *arg)
{
    struct core *c = arg;
    char *paths[] = {c->config->storage_path, NULL};
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    uint64_t bytes = 0;
    FTSENT *f;

    while (fts != NULL && (f = fts_read(fts)) != NULL)
        if (f->fts_info == FTS_F && strstr(f->fts_path, "/store/") != NULL)
            bytes += (uint64_t)f->fts_statp->st_blocks * 512;
    if (fts != NULL)
        fts_close(fts);
    pthread_mutex_lock(&c->probes->mu);
    c->probes->data_bytes = bytes;
    pthread_mutex_unlock(&c->probes->mu);
}

void probes_facts(struct core *c, char link_key_hash[65], uint64_t *data_bytesp)
{
    link_key_hash[0] = '\0';
    *data_bytesp = 0;
    if (c->probes == NULL)
        return;
    pthread_mutex_lock(&c->probes->mu);
    memcpy(link_key_hash, c->probes->link_key_hash, 65);
    *data_bytesp = c->probes->data_bytes;
    pthread_mutex_unlock(&c->probes->mu);
}

static void probe_certs(struct core *c, struct probes *p)
{
    struct link_identity id = {0};
    int64_t link_ms = 0, ca_ms = 0;
    char key_hash[65] = "";
    uint8_t hash[32];
    struct err err = {0};

    if (identity_load(c, &id, &err) == 0 &&
        (id.cert.len == 0 || cert_expires_ms(buf_str(&id.cert), &link_ms, &err) == 0) &&
        id.ca.len > 0 && cert_expires_ms(buf_str(&id.ca), &ca_ms, &err) != 0)
        log_error(c->log, "replication", "cannot read the link's certificates: %s", err.msg);
    if (id.cert.len > 0 && cert_key_hash(buf_str(&id.cert), hash, &err) == 0)
        hex_of(hash, sizeof(hash), key_hash);
    identity_free(&id);
    pthread_mutex_lock(&p->mu);
    memcpy(p->link_key_hash, key_hash, sizeof(key_hash));
    p->n_certs = 0;
    for (size_t i = 0; c->listening && i < c->config->n_listeners; i++)
        probe(p, http_tls_expires_ms(c->http, &c->config->listeners[i]),
              "the certificate of listener ", c->config->listeners[i].address);
    probe(p, link_ms, "the certificate of the replication link", "");
    probe(p, ca_ms, "the CA certificate of the replication link", "");
    pthread_mutex_unlock(&p->mu);
}

static void probe_audit(struct core *c, struct probes *p)
{
    char names[sizeof(p->audit)];
    bool all = audit_unwritable(c, names, sizeof(names));

    engine_fit(c->engine, !all);
    pthread_mutex_lock(&p->mu);
    memcpy(p->audit, names, sizeof(names));
    p->audit_all = all;
    pthread_mutex_unlock(&p->mu);
}

static bool has(const struct health *h, const struct reason *r)
{
    for (size_t i = 0; i < h->n; i++)
        if (strcmp(h->r[i].code, r->code) == 0 && strcmp(h->r[i].who, r->who) == 0)
            return true;
    return false;
}

static void say_changes(struct core *c, const struct health *was, const struct health *now)
{
    for (size_t i = 0; i < now->n; i++) {
        const struct reason *r = &now->r[i];

        if (has(was, r) || (r->kind < KINDS && kinds[r->kind].logged))
            continue;
        if (is_error(r))
            log_error(c->log, "replication", "%s: %s", r->code, r->what);
        else
            log_warn(c->log, "replication", "%s: %s", r->code, r->what);
    }
    for (size_t i = 0; i < was->n; i++)
        if (!has(now, &was->r[i]))
            log_info(c->log, "replication", "%s%s%s is over", was->r[i].code,
                     was->r[i].who[0] != '\0' ? " of " : "", was->r[i].who);
}

void probes_run(struct core *c)
{
    struct engine_status *st = calloc(1, sizeof(*st));
    struct health *now = calloc(1, sizeof(*now));

    if (st != NULL && now != NULL) {
        engine_status(c->engine, st);
        probe_certs(c, c->probes);
        probe_audit(c, c->probes);
        run_blocking(measure, c);
        /* At a start nobody is connected yet. */
        if (c->probes->looked && (st->replicating || st->role == ENGINE_FENCED))
            collect(c, st, env_wall_ms(c->env), now);
        say_changes(c, &c->probes->told, now);
        c->probes->told = *now;
        c->probes->looked = true;
    }
    free(st);
    free(now);
}

struct probes *probes_new(void)
{
    struct probes *p = calloc(1, sizeof(*p));

    if (p != NULL)
        pthread_mutex_init(&p->mu, NULL);
    return p;
}

void probes_free(struct probes *p)
{
    if (p != NULL)
        pthread_mutex_destroy(&p->mu);
    free(p);
}
