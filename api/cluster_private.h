/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cluster_private.h - what stands behind the endpoints of replication: cluster.c (link and its
 * credentials), enrol.c (the rows; the primary takes a secondary in), join.c (the secondary's side
 * of that), bundle.c (what a secondary token holds), dr_token.c. The endpoints themselves:
 * replication_private.h.
 */
#ifndef LOCKSTEP_CLUSTER_PRIVATE_H
#define LOCKSTEP_CLUSTER_PRIVATE_H

#include "core.h"
#include "token.h"

#define REPL_LATCH "core/replication"      /* of configuration, members, activations, CA */
#define REPL_CA_PATH "core/replication/ca" /* sealed: {certificate, private_key} */
#define REPL_ACTIVATION "core/replication/activation/" /* + id, sealed: struct activation */
#define CERT_DAYS 3650
#define ROOT_SEAL_INFO                                                                             \
    "lockstep root key to a DR secondary" /* binds cert_seal_to to its one use                     \
                                           */
#define ENROL_BODY_MAX (64u << 10)

/* ---- cluster.c ---- */
/* Who we are on the link: one small file, replaced as a whole, readable while sealed. */
struct link_identity {
    struct buf key, cert, ca; /* PEM; cert and ca are empty until a CA has signed */
};
void identity_free(struct link_identity *id);
CHECKED int identity_load(struct core *c, struct link_identity *id,
                          struct err *err); /* ERR_NOTFOUND */
CHECKED int identity_save(struct core *c, const struct link_identity *id,
                          struct err *err); /* durable */
/** Load it, or make a key and save that. */
CHECKED int identity_key(struct core *c, struct link_identity *id, struct err *err);
CHECKED int identity_remove(struct core *c, struct err *err); /* durable; none: fine */
/** From now on connections use it; NULL: all are refused. */
CHECKED int cluster_credentials(struct core *c, const struct link_identity *id, struct err *err);
/** The key of promotion records: of the barrier and the cluster's id, which a copy of the data that
 * is a cluster of its own does not share. Again when the id changes. */
void cluster_epoch_key(struct core *c);
/** The primary's root key, used when its copy is in place. Copied to secure memory; NULL: forget.
 */
CHECKED int cluster_expect_root(struct core *c, const uint8_t *root, struct err *err);
/** Run fn(arg) where it may block: on a helper thread when called from a coroutine. */
void run_blocking(void (*fn)(void *), void *arg);
/** The next engine_status has the root of its applied LSN, while little is written. Coroutine. */
void replication_settle_root(struct core *c);
/** "https://host:port" or "host:port" to "host:port" (8201 without one). ERR_INVAL. */
CHECKED int addr_of_url(const char *url, char out[256], struct err *err);

/* ---- rows (enrol.c) ---- */
struct activation {
    uint8_t key_hash[32]; /* of the bootstrap certificate's key */
    int64_t expires_ms;
    bool used;
    uint8_t used_by[32]; /* the link key that was taken in */
    char token[65];      /* HMAC of the wrapping token, which a revocation ends; "": an old row */
};
CHECKED int repl_config_get(struct core *c, struct repl_config *rc, struct err *err);
CHECKED int repl_config_put(struct batch *b, const struct repl_config *rc, struct err *err);
CHECKED int member_get(struct core *c, const char *id, struct member *m,
                       struct err *err); /* ERR_NOTFOUND */
CHECKED int member_put(struct batch *b, const struct member *m, struct err *err);
/** fn for each member row. */
CHECKED int members_each(struct core *c,
                         int (*fn)(void *arg, const struct member *m, struct err *err), void *arg,
                         struct err *err);
CHECKED int activation_get(struct core *c, const char *id, struct activation *a,
                           struct err *err); /* ERR_NOTFOUND */
CHECKED int activation_put(struct batch *b, const char *id, const struct activation *a,
                           struct err *err);
CHECKED int activation_delete(struct batch *b, const char *id, struct err *err);
CHECKED int activations_delete_all(struct core *c, struct batch *b, struct err *err);
struct link_ca {
    struct buf cert, key; /* PEM */
};
void link_ca_free(struct link_ca *ca);
CHECKED int link_ca_get(struct core *c, struct link_ca *ca, struct err *err); /* ERR_NOTFOUND */
CHECKED int link_ca_put(struct batch *b, const struct link_ca *ca, struct err *err);
/** Are there as many secondaries and open tokens as can be (ENGINE_PEERS_MAX)? */
CHECKED int secondaries_full(struct core *c, int64_t now_ms, bool *fullp, struct err *err);
/** Names of members: 1 to 63 printable characters without '/'. */
bool member_id_good(const char *id);
bool hex_to(const char *text, uint8_t *out, size_t len);

/* ---- bundle.c ---- */
/* What a secondary token holds. Strings point into json, which is the owner's to release. */
struct bundle {
    json_t *json;
    const char *id, *ca_cert, *client_cert, *client_key, *cluster_id, *cluster_addr;
    uint8_t primary_key_hash[32];
    int64_t expires_s; /* of a sealed one */
};
/** ERR_PROTO: data is no bundle. */
CHECKED int bundle_read(const json_t *data, struct bundle *b, struct err *err);
/** The public half of our link key, in one line: what a token is sealed to. */
CHECKED int bundle_public_text(const struct link_identity *me, struct buf *out, struct err *err);
/** A token for whoever has the private half of public_text. ERR_INVAL: that is no public key. */
CHECKED int bundle_seal(const json_t *bundle, const char *public_text, struct buf *out,
                        struct err *err);
bool bundle_is_sealed(const char *token);
/** A sealed token, with our link key; sets b->json. ERR_INVAL: it is for another, or not whole. */
CHECKED int bundle_open(const char *token, const struct link_identity *me, struct bundle *b,
                        struct err *err);

/* ---- join.c ---- */
struct join {
    struct request *rq;
    struct response *rs; /* where a wipe that is not accepted is answered; not with keep */
    const char *confirm; /* confirm_wipe, "" when it is not given */
    const char *token, *api_addr, *ca_file, *ca_path, *seed_file; /* as given; "" when not */
    bool keep;    /* the data: update-primary, not enable */
    bool give_up; /* with keep: what is here beyond the primary's history */
};
/** All of secondary/enable: 0 when the engine follows durably. ERR_INVAL, ERR_ROLE, ... with what
 * was tried; when rs has errors, those tell it. */
CHECKED int join_primary(const struct join *j, struct err *err);

/* ---- dr_token.c ---- */
CHECKED int dr_token_delete(struct core *c, const char *token, struct err *err);
/** All of them end, those of a first copy too. */
CHECKED int dr_token_clear(struct core *c, struct err *err);

#endif
