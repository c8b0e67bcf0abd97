/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * core_private.h - what the files that make up the core share among themselves.
 */
#ifndef LOCKSTEP_CORE_PRIVATE_H
#define LOCKSTEP_CORE_PRIVATE_H

#include "core.h"
#include "pgp.h"

/* ---- latch.c ---- */
#define LATCH_WAIT_MS_MAX 60000u              /* with no limit of the request or of a mode */
struct latches *latches_new(struct env *env); /* NULL: out of memory */
void latches_free(struct latches *l);         /* takes NULL; nobody holds or waits */

/* What the calling coroutine holds becomes the caller's, for longer than the coroutine lives; its
 * own releases do nothing then. false: out of memory, nothing was moved. */
struct latch_kept {
    struct latch_ref *refs;
    size_t n;
};
CHECKED bool latches_keep(struct core *c, struct latch_kept *kept);
void latches_drop(struct core *c, struct latch_kept *kept); /* any thread */

/* ---- ack.c ---- */
/* What the writes of one request wait for; the router's, found by co_local. Work in the background
 * has none, and waits without limit. */
struct ack {
    bool asked;            /* X-Lockstep-Ack was sent: the answer says what was reached */
    enum repl_level level; /* ask for at least this, */
    uint32_t limit_ms;     /* within this; 0: the mode's limit */
    uint64_t lsn;          /* of the last write; 0: none yet */
    bool late;             /* a latch was not had in time: nothing may be written */
};
CHECKED int ack_read(struct ack *a, const struct http_request *http,
                     struct response *rs); /* -1: answered */
void ack_tell(struct core *c, const struct ack *a, struct buf *headers);

/* ---- storage.c ---- */
/* More would make every answer late; the next ones are refused before any work is done for them. */
#define COMMITS_WAITING_MAX 4096u
/* A change that the engine was given, and its waiter. */
struct commit;
struct commit *commit_new(struct core *c); /* NULL: out of memory */
engine_done_fn commit_done;                /* with the commit as arg */
/** Wait until it is applied; after limit_ms (0: none) ERR_UNKNOWN_OUTCOME. Takes w in every case;
 * started is false when the engine did not take the change (err is filled). */
CHECKED int commit_wait(struct commit *w, bool started, uint32_t limit_ms, struct err *err);

/* What the keyring of a file of lost writes is bound to; no row lies there. */
#define LOST_KEYRING_PATH "local/lost/" /* + its id */

/* ---- seal.c ---- */
#define SEAL_LATCH "core/seal"   /* init, unseal, seal and a new seal exclude each other */
#define REKEY_LATCH "core/rekey" /* of struct rekey; taken before SEAL_LATCH */
#define SHARE_MIN_BYTES 16
#define SHARE_MAX_BYTES (BARRIER_KEY_BYTES + 1)

/* Key shares collected for one purpose, in secure memory. One thread at a time. */
struct shares {
    uint8_t *part[SHAMIR_SHARES_MAX];
    size_t len[SHAMIR_SHARES_MAX];
    unsigned n;
};
/** 1: taken; 0: it was there already; -1: no memory or no room. */
CHECKED int shares_add(struct shares *s, const uint8_t *part, size_t len);
void shares_clear(struct shares *s); /* wipes */

struct seal *seal_new(void); /* NULL: out of memory */
void seal_free(struct seal *s);
/** The texts of sys/init for numbers that cannot be; ERR_INVAL, without prefix. */
CHECKED int seal_check_numbers(int64_t shares, int64_t threshold, struct err *err);
/** What a seal with these numbers and this root key stores; adds to b. Fills keys, an array of
 * `shares` secret buffers. */
CHECKED int seal_make(struct core *c, unsigned shares, unsigned threshold,
                      const uint8_t root[BARRIER_KEY_BYTES], struct batch *b, struct buf *keys,
                      struct err *err);
/** Coroutine. {"keys": [hex], "keys_base64": [...]} added to out. pgp_keys: one for each, to which
 * the hex text of the share is encrypted; NULL: none. */
CHECKED int seal_keys_json(const struct buf *keys, unsigned n, const json_t *pgp_keys, json_t *out,
                           struct err *err);
/** Fields of a raw endpoint's body, strict as Go's decoder: a wrong type is answered 400. */
CHECKED int raw_str(struct request *rq, struct response *rs, const char *name, const char **outp);
CHECKED int raw_int(struct request *rq, struct response *rs, const char *name, int64_t *outp);
CHECKED int raw_bool(struct request *rq, struct response *rs, const char *name, bool *outp);
/** The PGP keys of the request, NULL when there are none: as many as shares, and each was tried. Of
 * each the fingerprint is added to fingerprints, which may be NULL. -1: answered. */
CHECKED int raw_pgp_keys(struct request *rq, struct response *rs, int64_t shares, bool rekey,
                         const json_t **keysp, json_t *fingerprints);
/** The same for one key; "": none. Its answer begins with prefix. -1: answered. */
CHECKED int raw_pgp_key(struct response *rs, const char *key, const char *prefix,
                        char fingerprint[PGP_FINGERPRINT_BYTES]);
/** Go's base64 (padded, or raw without): -1 and *badp the offset of Go's error text. */
CHECKED int base64_read(const char *text, bool padded, uint8_t *out, size_t cap, size_t *lenp,
                        size_t *badp);
/** index.c: X-Vault-Index of an answer to a write of this LSN (0: none) in a replicating cluster.
 */
void index_tell(struct core *c, uint64_t lsn, struct buf *headers);
/** -1: a state that the request demands is not here; rs says so (412; 400 unreadable). */
CHECKED int index_demanded(struct core *c, const struct http_request *http, struct response *rs);

void base64_write(struct buf *out, const uint8_t *data, size_t len, bool padded);
void hex_write(struct buf *out, const uint8_t *data, size_t len);
void hex_of(const uint8_t *data, size_t len, char *out /* 2 * len + 1 */);

/* ---- inflight.c: requests under way ---- */
struct inflight {
    struct inflight *next, *prev;
    size_t list;
    const char *id; /* of the request */
    const struct http_request *http;
    int64_t start_ms;
};
struct inflights *inflights_new(void); /* NULL: out of memory */
void inflights_free(struct inflights *all);
void inflight_begin(struct core *c,
                    struct inflight *f); /* f stays where it is until inflight_end */
void inflight_end(struct core *c, struct inflight *f);
void inflight_count(struct core *c, uint64_t *nowp,
                    uint64_t *totalp); /* now, and since the start */
json_t *inflight_json(struct core *c, struct arena *a);

/* ---- ceremony.c, rekey.c ---- */
struct ceremonies *ceremonies_new(void); /* NULL: out of memory */
void ceremonies_free(struct ceremonies *cs);
void ceremonies_drop(struct ceremonies *cs); /* all attempts end, wiped: at seal */
struct rekey *rekey_new(void);
void rekey_free(struct rekey *r);
void rekey_drop(struct rekey *r);
void rekey_handle(struct request *rq, struct response *rs); /* sys/rekey/... */

/* ---- replication_health.c ---- */
struct probes *probes_new(void); /* NULL: out of memory */
void probes_free(struct probes *p);
/** Look at certificates; say in the log which reasons came and went. Coroutine. */
void probes_run(struct core *c);

/* ---- sys.c: raw endpoints ---- */
void health_handle(struct request *rq, struct response *rs);
void leader_handle(struct request *rq, struct response *rs);

/* ---- core.c: the life of the caches, events of the engine, background work ---- */
CHECKED int core_new(const struct config *cfg, struct env *env, struct logger *log,
                     struct core **cp, struct err *err);
void core_free(struct core *c); /* takes NULL; engine and reactors are gone */
/** Caches and watches; after engine_open, before engine_start. */
CHECKED int core_prepare(struct core *c, struct err *err);
void core_hooks(struct core *c, struct engine_hooks *h);
/** The reactors run: events are taken, periodic work begins. */
void core_started(struct core *c);
/** Certificates and the like are looked at now, not when it is time. Any thread. */
void core_look(struct core *c);
/** After the barrier opened: caches, cluster, background work. Coroutine. */
void core_post_unseal(struct core *c);
void core_background_stop(struct core *c);

#endif
