/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * member.c - the replicated rows that the engine reads (configuration, members) and the local
 * follow row.
 *
 * Each is one msgpack array that starts with a version, decoded strictly: a row that cannot be read
 * is an error, never a default. Fields that a newer program put at its end are passed over, so that
 * an older secondary goes on following.
 */
#include "follow_private.h"

#include <string.h>

#define ROW_VERSION 1u
#define ROW_FIELDS_MAX 64u

static void put_text(struct buf *b, const char *s)
{
    mp_put_str(b, s, strlen(s));
}

/* *morep: values behind the known ones. */
static struct mp row_begin(const uint8_t *data, size_t len, size_t fields, size_t *morep)
{
    struct mp m = {.p = data, .end = data + len};
    size_t n = mp_array(&m, ROW_FIELDS_MAX);

    *morep = n - fields;
    if (n < fields || mp_uint(&m, ROW_VERSION) != ROW_VERSION)
        m.bad = true;
    return m;
}

static int row_end(struct mp *m, size_t more, const char *what, struct err *err)
{
    mp_skip(m, more);
    if (m->bad || m->p != m->end)
        return err_set(err, ERR_CORRUPT, 0, "%s row is not readable", what);
    return 0;
}

int repl_config_encode(const struct repl_config *c, struct buf *out, struct err *err)
{
    mp_put_array(out, 4);
    mp_put_uint(out, ROW_VERSION);
    mp_put_bool(out, c->primary_enabled);
    put_text(out, c->cluster_id);
    put_text(out, c->primary_cluster_addr);
    return buf_check(out, err);
}

int repl_config_decode(const uint8_t *data, size_t len, struct repl_config *c, struct err *err)
{
    size_t more;
    struct mp m = row_begin(data, len, 4, &more);

    memset(c, 0, sizeof(*c));
    c->primary_enabled = mp_bool(&m);
    mp_text(&m, c->cluster_id, sizeof(c->cluster_id));
    mp_text(&m, c->primary_cluster_addr, sizeof(c->primary_cluster_addr));
    return row_end(&m, more, "replication configuration", err);
}

int member_encode(const struct member *mb, struct buf *out, struct err *err)
{
    mp_put_array(out, 9);
    mp_put_uint(out, ROW_VERSION);
    put_text(out, mb->id);
    mp_put_bin(out, mb->key_hash, sizeof(mb->key_hash));
    put_text(out, mb->cluster_addr);
    put_text(out, mb->api_addr);
    mp_put_bool(out, mb->revoked);
    mp_put_bool(out, mb->primary);
    mp_put_uint(out, mb->retain_bytes);
    mp_put_uint(out, mb->retain_ms);
    return buf_check(out, err);
}

int member_decode(const uint8_t *data, size_t len, struct member *mb, struct err *err)
{
    size_t more;
    struct mp m = row_begin(data, len, 7, &more);

    memset(mb, 0, sizeof(*mb));
    mp_text(&m, mb->id, sizeof(mb->id));
    mp_fixed(&m, mb->key_hash, sizeof(mb->key_hash));
    mp_text(&m, mb->cluster_addr, sizeof(mb->cluster_addr));
    mp_text(&m, mb->api_addr, sizeof(mb->api_addr));
    mb->revoked = mp_bool(&m);
    mb->primary = mp_bool(&m);
    if (more >= 2) { /* an older program's row has no limits */
        mb->retain_bytes = mp_uint(&m, UINT64_MAX);
        mb->retain_ms = mp_uint(&m, UINT64_MAX);
        more -= 2;
    }
    return row_end(&m, more, "member", err);
}

static const char *const levels[] = {"async", "flush", "apply"};
static const char *const on_limits[] = {"strict", "fallback"};

const char *repl_level_name(enum repl_level l)
{
    return levels[l];
}

const char *repl_on_limit_name(enum repl_on_limit l)
{
    return on_limits[l];
}

int repl_level_parse(const char *word, enum repl_level *lp)
{
    for (unsigned i = 0; i <= REPL_APPLY; i++) {
        if (strcmp(levels[i], word) != 0)
            continue;
        *lp = (enum repl_level)i;
        return 0;
    }
    return -1;
}

int repl_on_limit_parse(const char *word, enum repl_on_limit *lp)
{
    for (unsigned i = 0; i <= REPL_FALLBACK; i++) {
        if (strcmp(on_limits[i], word) != 0)
            continue;
        *lp = (enum repl_on_limit)i;
        return 0;
    }
    return -1;
}

int repl_mode_encode(const struct repl_mode *md, struct buf *out, struct err *err)
{
    mp_put_array(out, 6);
    mp_put_uint(out, ROW_VERSION);
    mp_put_uint(out, md->level);
    mp_put_uint(out, md->on_limit);
    mp_put_uint(out, md->wait_ms);
    mp_put_uint(out, md->k);
    mp_put_array(out, md->n);
    for (uint32_t i = 0; i < md->n; i++)
        put_text(out, md->name[i]);
    return buf_check(out, err);
}

int repl_mode_decode(const uint8_t *data, size_t len, struct repl_mode *md, struct err *err)
{
    size_t more;
    struct mp m = row_begin(data, len, 6, &more);

    memset(md, 0, sizeof(*md));
    md->level = (enum repl_level)mp_uint(&m, REPL_APPLY);
    md->on_limit = (enum repl_on_limit)mp_uint(&m, REPL_FALLBACK);
    md->wait_ms = (uint32_t)mp_uint(&m, REPL_WAIT_MS_MAX);
    md->k = (uint32_t)mp_uint(&m, REPL_NAMES_MAX);
    md->n = (uint32_t)mp_array(&m, REPL_NAMES_MAX);
    for (uint32_t i = 0; !m.bad && i < md->n; i++)
        mp_text(&m, md->name[i], sizeof(md->name[i]));
    if (md->n > 0 && (md->k == 0 || md->k > md->n))
        m.bad = true;
    return row_end(&m, more, "mode", err);
}

int follow_encode(const struct follow_config *f, struct buf *out, struct err *err)
{
    mp_put_array(out, 9);
    mp_put_uint(out, ROW_VERSION);
    put_text(out, f->member_id);
    put_text(out, f->cluster_id);
    put_text(out, f->primary_addr);
    mp_put_bin(out, f->primary_key_hash, sizeof(f->primary_key_hash));
    put_text(out, f->cluster_addr);
    mp_put_int(out, f->keep_old_ms);
    put_text(out, f->old_name);
    put_text(out, f->addrs);
    return buf_check(out, err);
}

int follow_decode(const uint8_t *data, size_t len, struct follow_config *f, struct err *err)
{
    size_t more;
    struct mp m = row_begin(data, len, 6, &more);

    memset(f, 0, sizeof(*f));
    mp_text(&m, f->member_id, sizeof(f->member_id));
    mp_text(&m, f->cluster_id, sizeof(f->cluster_id));
    mp_text(&m, f->primary_addr, sizeof(f->primary_addr));
    mp_fixed(&m, f->primary_key_hash, sizeof(f->primary_key_hash));
    mp_text(&m, f->cluster_addr, sizeof(f->cluster_addr));
    if (more >= 2 && !m.bad) {
        f->keep_old_ms = mp_int(&m);
        mp_text(&m, f->old_name, sizeof(f->old_name));
        more -= 2;
    }
    if (more > 0 && !m.bad) {
        mp_text(&m, f->addrs, sizeof(f->addrs));
        more--;
    }
    return row_end(&m, more, "follow", err);
}
