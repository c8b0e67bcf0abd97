/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link_msg.h - the messages of the replication link. docs/WIRE.md has each field.
 *
 * A frame is one msgpack array [type, ...]; a segment frame is [3] and then the raw segment without
 * padding. Decoding allocates nothing: pointers go into the frame, so no length field in it can
 * make us take memory. Every bound is checked here; what a message means is checked by its user.
 *
 * Programs of different age: fields are only ever added at the end of a message or a row, and what
 * lies behind the known ones is passed over; a message of a new type, or one whose meaning changes,
 * needs a new protocol version, which hello and welcome settle.
 */
#ifndef LOCKSTEP_LINK_MSG_H
#define LOCKSTEP_LINK_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "engine.h"
#include "errors.h"
#include "txn.h"
#include "wal.h"

#define LINK_PROTOCOL_VERSION 3u /* the newest that this program speaks */
#define LINK_PROTOCOL_OLDEST 1u  /* the oldest */
#define LINK_VERSION_DIFF 2u     /* from here on: messages 13 to 19 */
#define LINK_VERSION_PARTS 3u    /* from here on: messages 22 to 24 */
#define LINK_VERSION_EPOCHS 2u   /* from here on: messages 20 and 21 */
#define EPOCHS_MAX 64u           /* history kept: the newest promotions */
#define LINK_PAGE_BYTES_MAX (4u << 20)
#define LINK_BODY_MAX (1u << 20) /* enrol bodies */
#define LINK_SIGNATURE_BYTES 64u /* Ed25519 */
#define LINK_HASH_BYTES 16u      /* of an entry */
#define LINK_HASHES_MAX 16384u   /* in one message */
#define LINK_SUM_BYTES 8u        /* of a part of the Merkle tree */
#define LINK_TREE_LEVELS 4u
#define LINK_TREE_NODES_MAX 4096u   /* of one level */
#define LINK_LEAVES_BYTES 8192u     /* bitmap */
#define LINK_PARTS_DEPTH 16u        /* parts.h: level of the leaves */
#define LINK_PARTS_MAX (8u * 65536) /* bytes of sums of parts */

enum link_msg_type {
    MSG_HELLO = 1,
    MSG_WELCOME,
    MSG_SEGMENT,
    MSG_COMMIT,
    MSG_ACK,
    MSG_PING,
    MSG_PONG,
    MSG_PAGE_REQUEST,
    MSG_PAGE,
    MSG_ENROL,
    MSG_ENROL_ANSWER,
    MSG_GOODBYE,
    MSG_TREE_REQUEST,
    MSG_TREE,
    MSG_LIST_REQUEST,
    MSG_LIST,
    MSG_FETCH,
    MSG_ENTRIES,
    MSG_ROOT,
    MSG_EPOCH_ASK,
    MSG_EPOCH_TELL,
    MSG_PARTS_REQUEST,
    MSG_PARTS,
    MSG_WANT,
    MSG_TYPE_END /* one beyond the last */
};

/* The history of epochs, oldest first: an epoch with its number, id, and where the one before it
 * ended. */
struct epochs {
    size_t n;
    struct epoch_rec e[EPOCHS_MAX];
};

enum link_decision { LINK_STREAM = 1, LINK_COPY = 2, LINK_REFUSE = 3 };

struct link_hello {
    uint32_t version; /* the newest that the secondary speaks */
    char member_id[64];
    char cluster_id[40];
    bool want_copy; /* nothing here to continue from; the end may be told all the same */
    uint64_t end_lsn;
    uint8_t end_hash[WAL_HASH_BYTES];
    uint64_t commit_lsn; /* largest LSN known here as committed */
    uint8_t commit_hash[WAL_HASH_BYTES];
    uint64_t applied_lsn;
    int64_t wall_ms;
    char cluster_addr[256];
    struct epochs epochs;
    struct wal_points points; /* of the log at hand; none: from an older program */
};
/* Is the end that hello names in the log of who answers? */
enum link_end {
    LINK_END_UNKNOWN, /* that LSN is not kept any more; or from an older program */
    LINK_END_HERE,
    LINK_END_ELSEWHERE /* something else is at that LSN, or nothing yet */
};
struct link_welcome {
    uint32_t version;     /* spoken from here on: the newest that both know */
    uint32_t decision;    /* enum link_decision */
    uint64_t from_lsn;    /* STREAM: first LSN that will be sent */
    struct wal_base base; /* COPY: where the new log begins */
    uint64_t commit_lsn;
    int64_t wall_ms;
    char reason[128]; /* REFUSE: a short code */
    struct epochs epochs;
    uint32_t end; /* enum link_end */
    /* For one whose end is not here, to find what both have; none: from an older program. */
    uint64_t common_lsn;      /* the newest of hello's points that is in our log; 0: none */
    struct wal_points points; /* of our log */
};
/* The asker is being promoted under a quorum (gather.c). */
enum link_gather {
    GATHER_NO,
    GATHER_YIELD,     /* ask: acknowledge nothing to an older epoch any more; tell: so it is */
    GATHER_RELEASE,   /* ask: the promotion was given up */
    GATHER_PROMOTING, /* tell: who was asked is being promoted itself */
};
struct link_epoch { /* ask and tell; the first message of its connection */
    uint32_t version;
    char cluster_id[40], member_id[64];
    uint32_t role; /* enum engine_role */
    uint64_t durable_lsn;
    int64_t wall_ms;
    struct epochs epochs;
    uint32_t gather; /* enum link_gather */
    uint32_t minor;  /* of the last segment that is durable here; 0: from an older program */
    bool has_signature;
    uint8_t signature[LINK_SIGNATURE_BYTES]; /* of the newest epoch, for one that has no key */
};
#define LINK_FED_MAX ENGINE_PEERS_MAX
struct link_fed { /* one that follows the sender, itself or through others */
    char id[64];
    uint64_t durable_lsn, applied_lsn; /* applied 0: no whole copy yet */
};
struct link_msg {
    enum link_msg_type type;
    union {
        struct link_hello hello;
        struct link_welcome welcome;
        struct link_epoch epoch;
        struct {
            uint64_t lsn;
            int64_t wall_ms;
        } commit;
        struct {
            uint64_t durable_lsn, applied_lsn;
            int64_t echo_ms;       /* newest wall clock of the primary that was seen */
            uint64_t received_lsn; /* 0: from an older program */
            int64_t held_us;       /* since it was received, when this was sent */
            bool ready;            /* the sender can be promoted; false: from an older program */
        } ack;
        struct {
            uint64_t stamp; /* comes back unchanged */
            int64_t wall_ms;
            uint64_t retain_lsn; /* members may need what follows it; 0: not said */
            bool has_stages;     /* how far this secondary is, as the primary measures it */
            struct engine_lag_stage stage[LAG_STAGES];
            size_t n_fed; /* who follows the sender, a secondary */
            struct link_fed fed[LINK_FED_MAX];
        } ping; /* and pong */
        struct {
            const char *after; /* not NUL-terminated; empty: from the start */
            size_t after_len;
            uint32_t bytes_max;
        } page_request;
        struct {
            const uint8_t *data;
            size_t len;
        } body; /* page, enrol, entries (a page of them) */
        struct {
            bool ok;
            const uint8_t *data;
            size_t len;
            char reason[128];
        } enrol_answer;
        char reason[128]; /* goodbye */
        struct {
            uint32_t level;       /* store.h: store_tree_read */
            const uint8_t *nodes; /* numbers of 2 bytes, big endian */
            size_t n;
        } tree_request;
        struct {
            uint32_t level;
            uint64_t lsn;        /* what it was read at */
            uint64_t keys;       /* at the source, as last counted; 0: not known */
            const uint8_t *sums; /* LINK_SUM_BYTES for each of the 16 children of the n nodes */
            size_t n;
        } tree;
        struct {
            const char *after; /* empty: from the start */
            size_t after_len;
            /* Bitmap, or numbers of 2 bytes, big endian; empty: those of the request before. */
            const uint8_t *leaves;
            size_t leaves_len;
        } list_request;
        struct {
            uint64_t lsn;
            bool done;        /* nothing lies behind last */
            const char *last; /* last key looked at */
            size_t last_len;
            const uint8_t *hashes; /* of the entries of these leaves, in key order */
            size_t n;
            uint64_t looked; /* keys */
            /* Of the leaves that the request told not to differ, by what was asked of parts before;
             * absent: leaves were not told, or none asked. */
            bool has_rest;
            uint64_t rest; /* parts_rest */
        } list;
        struct {
            const char *after; /* the range (after, last]; to_end: from after on */
            size_t after_len;
            const char *last;
            size_t last_len;
            bool to_end;
            const uint8_t *hashes; /* wanted; none: those of the request before */
            size_t n;
        } fetch;
        struct {
            uint32_t level, below; /* parts.h: parts_answer */
            uint64_t salt; /* of level 0, which begins; the answers that follow keep to it */
            const uint8_t *parts;
            size_t parts_len;
        } parts_request;
        struct {
            /* Of the answer about level 0, and 0 in those that follow: what all of them were read
             * at, and keys as in tree. */
            uint64_t lsn, keys;
            const uint8_t *sums;
            size_t len;
        } parts;
        struct { /* as fetch, of the hashes that the list before had */
            const char *after;
            size_t after_len;
            const char *last;
            size_t last_len;
            bool to_end;
            const uint8_t *wanted; /* bitmap; none: those of the request before */
            size_t wanted_len;
        } want;
        struct {
            uint64_t lsn; /* of a mark */
            uint8_t root[20];
            bool damaged; /* the sender's rows are not what its tree says */
        } root;
    };
    const uint8_t *tail; /* segment: its raw bytes */
    size_t tail_len;
    size_t frame_len; /* decoded: bytes of the frame */
};

CHECKED int link_msg_decode(const void *frame, size_t len, struct link_msg *m, struct err *err);
/** Appends to out; the tail of a segment is not copied. */
CHECKED int link_msg_encode(const struct link_msg *m, struct buf *out, struct err *err);

/** The history for the local file. */
CHECKED int epochs_encode(const struct epochs *ep, struct buf *out, struct err *err);
CHECKED int epochs_decode(const uint8_t *data, size_t len, struct epochs *ep, struct err *err);
void epochs_add(struct epochs *ep, const struct epoch_rec *r); /* drops the oldest at the bound */

/* ---- a small msgpack reader and writer over memory, shared by the engine's encodings ---- */
struct mp {
    const uint8_t *p, *end;
    bool bad; /* sticky */
};
uint64_t mp_uint(struct mp *m, uint64_t max);
int64_t mp_int(struct mp *m);
bool mp_bool(struct mp *m);
const uint8_t *mp_bytes(struct mp *m, size_t max, size_t *lenp); /* str or bin */
void mp_fixed(struct mp *m, void *out, size_t len);              /* exactly len bytes */
void mp_text(struct mp *m, char *out, size_t size);              /* NUL-terminated, no NUL inside */
size_t mp_array(struct mp *m, size_t max);
void mp_skip(struct mp *m, size_t n); /* n values of any type */
void mp_put_uint(struct buf *b, uint64_t v);
void mp_put_int(struct buf *b, int64_t v);
void mp_put_bool(struct buf *b, bool v);
void mp_put_bin(struct buf *b, const void *data, size_t len);
void mp_put_str(struct buf *b, const char *s, size_t len);
void mp_put_array(struct buf *b, size_t n);

void link_points_get(struct mp *in, struct wal_points *t);
void link_points_put(struct buf *out, const struct wal_points *t);
/* Messages 6 and 7 (link_ping.c); n: fields that are there, with the type. */
void link_ping_get(struct mp *in, struct link_msg *m, size_t n);
void link_ping_put(struct buf *out, const struct link_msg *m);
/* Messages 13 to 19 and 22 to 24: their fields (link_diff.c). */
void link_diff_get(struct mp *in, struct link_msg *m, size_t n); /* n: fields that are there */
void link_diff_put(struct buf *out, const struct link_msg *m);

#endif
