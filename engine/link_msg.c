/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * link_msg.c - the messages of the replication link, encoded and decoded.
 *
 * The reader walks the frame in place. A library's unpacker takes memory for the count that an
 * array claims before it has seen the elements; this one takes none.
 */
#include "link_msg.h"

#include <string.h>

#include "engine.h"

#define MP_DEPTH_MAX 8u
#define MSG_FIELDS_MAX 64u
#define HELD_US_MAX ((int64_t)3600 * 1000000)

/* ---- reader ---- */
static uint8_t take(struct mp *m)
{
    if (m->bad || m->p == m->end) {
        m->bad = true;
        return 0;
    }
    return *m->p++;
}

static uint64_t take_be(struct mp *m, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | take(m);
    return v;
}

uint64_t mp_uint(struct mp *m, uint64_t max)
{
    uint8_t t = take(m);
    uint64_t v = 0;

    if (t < 0x80)
        v = t;
    else if (t >= 0xcc && t <= 0xcf)
        v = take_be(m, 1u << (t - 0xcc));
    else
        m->bad = true;
    if (v > max)
        m->bad = true;
    return m->bad ? 0 : v;
}

int64_t mp_int(struct mp *m)
{
    uint8_t t = m->p < m->end ? *m->p : 0;

    if (t >= 0xe0 || (t >= 0xd0 && t <= 0xd3)) {
        (void)take(m);
        if (t >= 0xe0)
            return (int8_t)t;
        switch (t) {
        case 0xd0:
            return (int8_t)take_be(m, 1);
        case 0xd1:
            return (int16_t)take_be(m, 2);
        case 0xd2:
            return (int32_t)take_be(m, 4);
        default:
            return (int64_t)take_be(m, 8);
        }
    }
    return (int64_t)mp_uint(m, INT64_MAX);
}

bool mp_bool(struct mp *m)
{
    uint8_t t = take(m);

    if (t != 0xc2 && t != 0xc3)
        m->bad = true;
    return t == 0xc3;
}

const uint8_t *mp_bytes(struct mp *m, size_t max, size_t *lenp)
{
    uint8_t t = take(m);
    const uint8_t *at;
    size_t len = 0;

    *lenp = 0;
    if ((t & 0xe0) == 0xa0)
        len = t & 0x1f;
    else if (t >= 0xc4 && t <= 0xc6)
        len = (size_t)take_be(m, 1u << (t - 0xc4));
    else if (t >= 0xd9 && t <= 0xdb)
        len = (size_t)take_be(m, 1u << (t - 0xd9));
    else
        m->bad = true;
    if (m->bad || len > max || len > (size_t)(m->end - m->p)) {
        m->bad = true;
        return NULL;
    }
    at = m->p;
    m->p += len;
    *lenp = len;
    return at;
}

void mp_fixed(struct mp *m, void *out, size_t len)
{
    size_t got;
    const uint8_t *at = mp_bytes(m, len, &got);

    if (at == NULL || got != len) {
        m->bad = true;
        memset(out, 0, len);
        return;
    }
    memcpy(out, at, len);
}

void mp_text(struct mp *m, char *out, size_t size)
{
    size_t len;
    const uint8_t *at = mp_bytes(m, size - 1, &len);

    out[0] = '\0';
    if (at == NULL)
        return;
    if (memchr(at, 0, len) != NULL) {
        m->bad = true;
        return;
    }
    memcpy(out, at, len);
    out[len] = '\0';
}

size_t mp_array(struct mp *m, size_t max)
{
    uint8_t t = take(m);
    size_t n = 0;

    if ((t & 0xf0) == 0x90)
        n = t & 0x0f;
    else if (t == 0xdc)
        n = (size_t)take_be(m, 2);
    else if (t == 0xdd)
        n = (size_t)take_be(m, 4);
    else
        m->bad = true;
    if (n > max)
        m->bad = true;
    return m->bad ? 0 : n;
}

/* One value of any type, with what it contains. Nothing of ours nests deeper than pages do. */
static void skip(struct mp *m, unsigned depth)
{
    uint8_t t = m->p < m->end ? *m->p : 0xc1;
    size_t n;

    if (depth == MP_DEPTH_MAX) {
        m->bad = true;
        return;
    }
    if ((t & 0xf0) == 0x90 || t == 0xdc || t == 0xdd) {
        n = mp_array(m, (size_t)(m->end - m->p));
        while (n-- > 0 && !m->bad)
            skip(m, depth + 1);
    } else if ((t & 0xe0) == 0xa0 || (t >= 0xc4 && t <= 0xc6) || (t >= 0xd9 && t <= 0xdb)) {
        (void)mp_bytes(m, (size_t)(m->end - m->p), &n);
    } else if (t == 0xc0 || t == 0xc2 || t == 0xc3) {
        (void)take(m);
    } else {
        if (t >= 0xe0 || (t >= 0xd0 && t <= 0xd3))
            (void)mp_int(m);
        else
            (void)mp_uint(m, UINT64_MAX); /* any other type is bad */
    }
}

void mp_skip(struct mp *m, size_t n)
{
    while (n-- > 0 && !m->bad)
        skip(m, 0);
}

/* ---- writer ---- */
static void put_be(struct buf *b, uint8_t tag, uint64_t v, unsigned n)
{
    uint8_t raw[9] = {tag};

    for (unsigned i = 0; i < n; i++)
        raw[1 + i] = (uint8_t)(v >> (8 * (n - 1 - i)));
    buf_add(b, raw, 1 + n);
}

void mp_put_uint(struct buf *b, uint64_t v)
{
    if (v < 0x80)
        buf_addc(b, (char)v);
    else if (v <= UINT8_MAX)
        put_be(b, 0xcc, v, 1);
    else if (v <= UINT16_MAX)
        put_be(b, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        put_be(b, 0xce, v, 4);
    else
        put_be(b, 0xcf, v, 8);
}

void mp_put_int(struct buf *b, int64_t v)
{
    if (v >= 0)
        mp_put_uint(b, (uint64_t)v);
    else
        put_be(b, 0xd3, (uint64_t)v, 8);
}

void mp_put_bool(struct buf *b, bool v)
{
    buf_addc(b, (char)(v ? 0xc3 : 0xc2));
}

void mp_put_bin(struct buf *b, const void *data, size_t len)
{
    if (len <= UINT8_MAX)
        put_be(b, 0xc4, len, 1);
    else if (len <= UINT16_MAX)
        put_be(b, 0xc5, len, 2);
    else
        put_be(b, 0xc6, len, 4);
    buf_add(b, data, len);
}

void mp_put_str(struct buf *b, const char *s, size_t len)
{
    if (len < 32)
        buf_addc(b, (char)(0xa0 | len));
    else if (len <= UINT8_MAX)
        put_be(b, 0xd9, len, 1);
    else if (len <= UINT16_MAX)
        put_be(b, 0xda, len, 2);
    else
        put_be(b, 0xdb, len, 4);
    buf_add(b, s, len);
}

void mp_put_array(struct buf *b, size_t n)
{
    if (n < 16)
        buf_addc(b, (char)(0x90 | n));
    else
        put_be(b, 0xdc, n, 2);
}

static void put_text(struct buf *b, const char *s)
{
    mp_put_str(b, s, strlen(s));
}

/* ---- the history of epochs ---- */
void epochs_add(struct epochs *ep, const struct epoch_rec *r)
{
    if (ep->n == EPOCHS_MAX) {
        memmove(&ep->e[0], &ep->e[1], sizeof(ep->e[0]) * (EPOCHS_MAX - 1));
        ep->n--;
    }
    ep->e[ep->n++] = *r;
}

static void put_epochs(struct buf *b, const struct epochs *ep)
{
    mp_put_array(b, ep->n);
    for (size_t i = 0; i < ep->n; i++) {
        const struct epoch_rec *r = &ep->e[i];

        mp_put_array(b, 6);
        mp_put_uint(b, r->number);
        mp_put_bin(b, r->id, sizeof(r->id));
        mp_put_uint(b, r->end_lsn);
        mp_put_bin(b, r->hash, sizeof(r->hash));
        put_text(b, r->member);
        mp_put_bin(b, r->proof, sizeof(r->proof));
    }
}

static void get_epochs(struct mp *m, struct epochs *ep)
{
    size_t n = mp_array(m, EPOCHS_MAX);

    ep->n = 0;
    for (size_t i = 0; i < n && !m->bad; i++) {
        struct epoch_rec *r = &ep->e[i];

        memset(r, 0, sizeof(*r));
        if (mp_array(m, 6) != 6)
            m->bad = true;
        r->number = (uint32_t)mp_uint(m, UINT32_MAX);
        mp_fixed(m, r->id, sizeof(r->id));
        r->end_lsn = mp_uint(m, UINT64_MAX - 1);
        mp_fixed(m, r->hash, sizeof(r->hash));
        mp_text(m, r->member, sizeof(r->member));
        mp_fixed(m, r->proof, sizeof(r->proof));
        /* Numbers and ends rise along a history. */
        if (i > 0 && (r->number <= ep->e[i - 1].number || r->end_lsn < ep->e[i - 1].end_lsn))
            m->bad = true;
        if (!m->bad)
            ep->n = i + 1;
    }
}

int epochs_encode(const struct epochs *ep, struct buf *out, struct err *err)
{
    put_epochs(out, ep);
    return buf_check(out, err);
}

int epochs_decode(const uint8_t *data, size_t len, struct epochs *ep, struct err *err)
{
    struct mp m = {.p = data, .end = data + len};

    get_epochs(&m, ep);
    if (m.bad || m.p != m.end)
        return err_set(err, ERR_CORRUPT, 0, "epoch history is not readable");
    return 0;
}

/* ---- messages ---- */
static const struct {
    const char *name;
    size_t fields; /* with the type: every program sends at least these */
    size_t all;    /* that this one sends; what a newer one puts behind them is passed over */
} shapes[] = {
    [MSG_HELLO] = {"hello", 13, 14},
    [MSG_WELCOME] = {"welcome", 11, 14},
    [MSG_SEGMENT] = {"segment", 1, 1},
    [MSG_COMMIT] = {"commit", 3, 3},
    [MSG_ACK] = {"ack", 4, 7},
    [MSG_PING] = {"ping", 3, 6},
    [MSG_PONG] = {"pong", 3, 3},
    [MSG_PAGE_REQUEST] = {"page request", 3, 3},
    [MSG_PAGE] = {"page", 2, 2},
    [MSG_ENROL] = {"enrol", 2, 2},
    [MSG_ENROL_ANSWER] = {"enrol answer", 4, 4},
    [MSG_GOODBYE] = {"goodbye", 2, 2},
    [MSG_TREE_REQUEST] = {"tree request", 3, 3},
    [MSG_TREE] = {"tree", 5, 5},
    [MSG_LIST_REQUEST] = {"list request", 3, 3},
    [MSG_LIST] = {"list", 6, 7},
    [MSG_FETCH] = {"fetch", 5, 5},
    [MSG_ENTRIES] = {"entries", 2, 2},
    [MSG_ROOT] = {"root", 4, 4},
    [MSG_EPOCH_ASK] = {"epoch ask", 8, 11},
    [MSG_EPOCH_TELL] = {"epoch tell", 8, 11},
    [MSG_PARTS_REQUEST] = {"parts request", 5, 5},
    [MSG_PARTS] = {"parts", 4, 4},
    [MSG_WANT] = {"want", 5, 5},
};

/* Flat: LSN and hash of each. */
void link_points_get(struct mp *m, struct wal_points *t)
{
    size_t n = mp_array(m, 2 * WAL_POINTS_MAX);

    if (n % 2 != 0)
        m->bad = true;
    for (t->n = 0; !m->bad && t->n < n / 2; t->n++) {
        t->p[t->n].lsn = mp_uint(m, UINT64_MAX - 1);
        mp_fixed(m, t->p[t->n].hash, sizeof(t->p[0].hash));
    }
}

void link_points_put(struct buf *b, const struct wal_points *t)
{
    mp_put_array(b, 2 * t->n);
    for (size_t i = 0; i < t->n; i++) {
        mp_put_uint(b, t->p[i].lsn);
        mp_put_bin(b, t->p[i].hash, sizeof(t->p[i].hash));
    }
}

static void get_hello(struct mp *m, struct link_hello *h)
{
    h->version = (uint32_t)mp_uint(m, UINT32_MAX);
    mp_text(m, h->member_id, sizeof(h->member_id));
    mp_text(m, h->cluster_id, sizeof(h->cluster_id));
    h->want_copy = mp_bool(m);
    h->end_lsn = mp_uint(m, UINT64_MAX - 1);
    mp_fixed(m, h->end_hash, sizeof(h->end_hash));
    h->commit_lsn = mp_uint(m, UINT64_MAX - 1);
    mp_fixed(m, h->commit_hash, sizeof(h->commit_hash));
    h->applied_lsn = mp_uint(m, UINT64_MAX - 1);
    h->wall_ms = mp_int(m);
    mp_text(m, h->cluster_addr, sizeof(h->cluster_addr));
    get_epochs(m, &h->epochs);
    if (h->commit_lsn > h->end_lsn || h->applied_lsn > h->commit_lsn)
        m->bad = true;
}

static void put_hello(struct buf *b, const struct link_hello *h)
{
    mp_put_uint(b, h->version);
    put_text(b, h->member_id);
    put_text(b, h->cluster_id);
    mp_put_bool(b, h->want_copy);
    mp_put_uint(b, h->end_lsn);
    mp_put_bin(b, h->end_hash, sizeof(h->end_hash));
    mp_put_uint(b, h->commit_lsn);
    mp_put_bin(b, h->commit_hash, sizeof(h->commit_hash));
    mp_put_uint(b, h->applied_lsn);
    mp_put_int(b, h->wall_ms);
    put_text(b, h->cluster_addr);
    put_epochs(b, &h->epochs);
    link_points_put(b, &h->points);
}

static void get_welcome(struct mp *m, struct link_welcome *w)
{
    w->version = (uint32_t)mp_uint(m, UINT32_MAX);
    w->decision = (uint32_t)mp_uint(m, LINK_REFUSE);
    w->from_lsn = mp_uint(m, UINT64_MAX - 1);
    w->base.lsn = mp_uint(m, UINT64_MAX - 1);
    w->base.epoch = (uint32_t)mp_uint(m, UINT32_MAX);
    mp_fixed(m, w->base.hash, sizeof(w->base.hash));
    w->commit_lsn = mp_uint(m, UINT64_MAX - 1);
    w->wall_ms = mp_int(m);
    mp_text(m, w->reason, sizeof(w->reason));
    get_epochs(m, &w->epochs);
    if (w->decision == 0)
        m->bad = true;
}

static void put_welcome(struct buf *b, const struct link_welcome *w)
{
    mp_put_uint(b, w->version);
    mp_put_uint(b, w->decision);
    mp_put_uint(b, w->from_lsn);
    mp_put_uint(b, w->base.lsn);
    mp_put_uint(b, w->base.epoch);
    mp_put_bin(b, w->base.hash, sizeof(w->base.hash));
    mp_put_uint(b, w->commit_lsn);
    mp_put_int(b, w->wall_ms);
    put_text(b, w->reason);
    put_epochs(b, &w->epochs);
    mp_put_uint(b, w->end);
    mp_put_uint(b, w->common_lsn);
    link_points_put(b, &w->points);
}

static void get_epoch(struct mp *m, struct link_epoch *p)
{
    p->version = (uint32_t)mp_uint(m, UINT32_MAX);
    mp_text(m, p->cluster_id, sizeof(p->cluster_id));
    mp_text(m, p->member_id, sizeof(p->member_id));
    p->role = (uint32_t)mp_uint(m, ENGINE_FENCED);
    p->durable_lsn = mp_uint(m, UINT64_MAX - 1);
    p->wall_ms = mp_int(m);
    get_epochs(m, &p->epochs);
}

static void put_epoch(struct buf *b, const struct link_epoch *p)
{
    mp_put_uint(b, p->version);
    put_text(b, p->cluster_id);
    put_text(b, p->member_id);
    mp_put_uint(b, p->role);
    mp_put_uint(b, p->durable_lsn);
    mp_put_int(b, p->wall_ms);
    put_epochs(b, &p->epochs);
    mp_put_uint(b, p->gather);
    mp_put_uint(b, p->minor);
    mp_put_bin(b, p->signature, p->has_signature ? sizeof(p->signature) : 0);
}

static void get_signature(struct mp *m, struct link_epoch *p)
{
    size_t len;
    const uint8_t *sig = mp_bytes(m, sizeof(p->signature), &len);

    if (!m->bad && len == sizeof(p->signature)) {
        memcpy(p->signature, sig, len);
        p->has_signature = true;
    }
}

/* n: the fields that are there. What an older program does not send stays zero. Returns how many
 * were read. */
static size_t get_fields(struct mp *in, struct link_msg *m, size_t n)
{
    size_t all = shapes[m->type].all, read = n < all ? n : all;

    switch (m->type) {
    case MSG_HELLO:
        get_hello(in, &m->hello);
        if (read > 13)
            link_points_get(in, &m->hello.points);
        break;
    case MSG_WELCOME:
        get_welcome(in, &m->welcome);
        if (read > 11)
            m->welcome.end = (uint32_t)mp_uint(in, LINK_END_ELSEWHERE);
        if (read > 12)
            m->welcome.common_lsn = mp_uint(in, UINT64_MAX - 1);
        if (read > 13)
            link_points_get(in, &m->welcome.points);
        break;
    case MSG_SEGMENT:
        m->tail = in->p;
        m->tail_len = (size_t)(in->end - in->p);
        in->p = in->end;
        break;
    case MSG_COMMIT:
        m->commit.lsn = mp_uint(in, UINT64_MAX - 1);
        m->commit.wall_ms = mp_int(in);
        break;
    case MSG_ACK:
        m->ack.durable_lsn = mp_uint(in, UINT64_MAX - 1);
        m->ack.applied_lsn = mp_uint(in, UINT64_MAX - 1);
        m->ack.echo_ms = mp_int(in);
        if (read > 4)
            m->ack.received_lsn = mp_uint(in, UINT64_MAX - 1);
        if (read > 5)
            m->ack.held_us = (int64_t)mp_uint(in, HELD_US_MAX);
        if (read > 6)
            m->ack.ready = mp_bool(in);
        break;
    case MSG_PING:
    case MSG_PONG:
        link_ping_get(in, m, read);
        break;
    case MSG_PAGE_REQUEST:
        m->page_request.after =
            (const char *)mp_bytes(in, TXN_KEY_MAX_BYTES, &m->page_request.after_len);
        m->page_request.bytes_max = (uint32_t)mp_uint(in, LINK_PAGE_BYTES_MAX);
        break;
    case MSG_PAGE:
        m->body.data = mp_bytes(in, SEG_BODY_MAX_BYTES, &m->body.len);
        break;
    case MSG_ENROL:
        m->body.data = mp_bytes(in, LINK_BODY_MAX, &m->body.len);
        break;
    case MSG_ENROL_ANSWER:
        m->enrol_answer.ok = mp_bool(in);
        m->enrol_answer.data = mp_bytes(in, LINK_BODY_MAX, &m->enrol_answer.len);
        mp_text(in, m->enrol_answer.reason, sizeof(m->enrol_answer.reason));
        break;
    case MSG_GOODBYE:
        mp_text(in, m->reason, sizeof(m->reason));
        break;
    case MSG_EPOCH_ASK:
    case MSG_EPOCH_TELL:
        get_epoch(in, &m->epoch);
        if (read > 8)
            m->epoch.gather = (uint32_t)mp_uint(in, UINT32_MAX);
        if (read > 9)
            m->epoch.minor = (uint32_t)mp_uint(in, UINT32_MAX);
        if (read > 10)
            get_signature(in, &m->epoch);
        break;
    default:
        link_diff_get(in, m, read);
        break;
    }
    return read;
}

int link_msg_decode(const void *frame, size_t len, struct link_msg *m, struct err *err)
{
    struct mp in = {.p = frame, .end = (const uint8_t *)frame + len};
    size_t fields = mp_array(&in, MSG_FIELDS_MAX);
    uint64_t type = mp_uint(&in, MSG_TYPE_END - 1);

    if (type == MSG_SEGMENT || type == MSG_COMMIT || type == MSG_ACK) {
        memset(&m->ack, 0, sizeof(m->ack)); /* hello makes m large, and these come all the time */
        m->tail = NULL;
        m->tail_len = 0;
    } else
        memset(m, 0, sizeof(*m));
    if (in.bad || shapes[type].name == NULL)
        return err_set(err, ERR_PROTO, 0, "frame of %zu bytes is no message", len);
    m->type = (enum link_msg_type)type;
    m->frame_len = len;
    if (fields < shapes[type].fields)
        return err_set(err, ERR_PROTO, 0, "%s message has %zu fields, expected %zu",
                       shapes[type].name, fields, shapes[type].fields);
    mp_skip(&in, fields - get_fields(&in, m, fields));
    if (in.bad)
        return err_set(err, ERR_PROTO, 0, "%s message has a bad field", shapes[type].name);
    if (in.p != in.end)
        return err_set(err, ERR_PROTO, 0, "%s message has %zu bytes too many", shapes[type].name,
                       (size_t)(in.end - in.p));
    return 0;
}

int link_msg_encode(const struct link_msg *m, struct buf *out, struct err *err)
{
    mp_put_array(out, shapes[m->type].all);
    mp_put_uint(out, m->type);
    switch (m->type) {
    case MSG_HELLO:
        put_hello(out, &m->hello);
        break;
    case MSG_WELCOME:
        put_welcome(out, &m->welcome);
        break;
    case MSG_SEGMENT:
        break;
    case MSG_COMMIT:
        mp_put_uint(out, m->commit.lsn);
        mp_put_int(out, m->commit.wall_ms);
        break;
    case MSG_ACK:
        mp_put_uint(out, m->ack.durable_lsn);
        mp_put_uint(out, m->ack.applied_lsn);
        mp_put_int(out, m->ack.echo_ms);
        mp_put_uint(out, m->ack.received_lsn);
        mp_put_uint(out, m->ack.held_us < HELD_US_MAX ? (uint64_t)m->ack.held_us : HELD_US_MAX);
        mp_put_bool(out, m->ack.ready);
        break;
    case MSG_PING:
    case MSG_PONG:
        link_ping_put(out, m);
        break;
    case MSG_PAGE_REQUEST:
        mp_put_str(out, m->page_request.after, m->page_request.after_len);
        mp_put_uint(out, m->page_request.bytes_max);
        break;
    case MSG_PAGE:
    case MSG_ENROL:
        mp_put_bin(out, m->body.data, m->body.len);
        break;
    case MSG_ENROL_ANSWER:
        mp_put_bool(out, m->enrol_answer.ok);
        mp_put_bin(out, m->enrol_answer.data, m->enrol_answer.len);
        put_text(out, m->enrol_answer.reason);
        break;
    case MSG_GOODBYE:
        put_text(out, m->reason);
        break;
    case MSG_EPOCH_ASK:
    case MSG_EPOCH_TELL:
        put_epoch(out, &m->epoch);
        break;
    default:
        link_diff_put(out, m);
        break;
    }
    return buf_check(out, err);
}

int link_msg_enrol(const void *body, size_t len, struct buf *out, struct err *err)
{
    struct link_msg m = {.type = MSG_ENROL, .body = {.data = body, .len = len}};

    if (len > LINK_BODY_MAX)
        return err_set(err, ERR_INVAL, 0, "enrol request of %zu bytes is too large", len);
    return link_msg_encode(&m, out, err);
}

int link_msg_enrol_answer(const void *frame, size_t len, const uint8_t **bodyp, size_t *body_lenp,
                          struct err *err)
{
    struct link_msg m;

    *bodyp = NULL;
    *body_lenp = 0;
    if (link_msg_decode(frame, len, &m, err) != 0)
        return -1;
    if (m.type == MSG_GOODBYE)
        return err_set(err, ERR_DENIED, 0, "the primary refused: %s", m.reason);
    if (m.type != MSG_ENROL_ANSWER)
        return err_set(err, ERR_PROTO, 0, "%s message instead of an enrol answer",
                       shapes[m.type].name);
    if (!m.enrol_answer.ok)
        return err_set(err, ERR_DENIED, 0, "the primary refused: %s", m.enrol_answer.reason);
    *bodyp = m.enrol_answer.data;
    *body_lenp = m.enrol_answer.len;
    return 0;
}
