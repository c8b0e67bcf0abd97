/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * snapshot_file.c - the bytes of a snapshot: written chunk by chunk, read from any cut of them.
 *
 * Valid is: the head first, then the files with exactly the bytes that they announce, the end of
 * the files, segments that continue each other, and an end whose counts, LSN, running hash and
 * digest are those of what came before. A file that was cut anywhere lacks the end; a flipped bit
 * is found by the chunk's checksum, a chunk that is missing, doubled or moved by the digest.
 * Nothing is allocated for a length before the bytes are there.
 */
#include "snapshot_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

static const uint8_t chunk_magic[4] = {'L', 'S', 'C', '1'};

/* ---- small parts ---- */
static uint64_t get_le(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;

    while (n-- > 0)
        v = v << 8 | p[n];
    return v;
}

static void put_le(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t chunk_sum(const uint8_t *chunk, size_t body_len)
{
    XXH3_state_t state;

    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, chunk, 8);
    XXH3_64bits_update(&state, chunk + SNAPSHOT_CHUNK_HEAD, body_len);
    return XXH3_64bits_digest(&state);
}

static int digest_new(EVP_MD_CTX **mdp, struct err *err)
{
    *mdp = EVP_MD_CTX_new();
    if (*mdp != NULL && EVP_DigestInit_ex(*mdp, EVP_sha256(), NULL) == 1)
        return 0;
    EVP_MD_CTX_free(*mdp);
    *mdp = NULL;
    return err_set(err, ERR_NOMEM, 0, "digest of the snapshot");
}

static int digest_add(EVP_MD_CTX *md, const void *data, size_t len, struct err *err)
{
    if (EVP_DigestUpdate(md, data, len) != 1)
        return err_set(err, ERR_NOMEM, 0, "digest of the snapshot");
    return 0;
}

static int digest_now(const EVP_MD_CTX *md, uint8_t out[32], struct err *err)
{
    EVP_MD_CTX *copy = EVP_MD_CTX_new();
    unsigned n = 0;
    bool good = copy != NULL && EVP_MD_CTX_copy_ex(copy, md) == 1 &&
                EVP_DigestFinal_ex(copy, out, &n) == 1 && n == 32;

    EVP_MD_CTX_free(copy);
    return good ? 0 : err_set(err, ERR_NOMEM, 0, "digest of the snapshot");
}

/* ---- writing ---- */
int snapshot_writer_init(struct snapshot_writer *w, struct err *err)
{
    memset(w, 0, sizeof(*w));
    return digest_new(&w->md, err);
}

void snapshot_writer_fini(struct snapshot_writer *w)
{
    EVP_MD_CTX_free(w->md);
    w->md = NULL;
}

static size_t chunk_begin(struct buf *out, size_t fields, enum snapshot_chunk kind)
{
    static const uint8_t head[SNAPSHOT_CHUNK_HEAD];
    size_t at = out->len;

    buf_add(out, head, sizeof(head));
    mp_put_array(out, fields);
    mp_put_uint(out, kind);
    return at;
}

static int chunk_end(struct snapshot_writer *w, struct buf *out, size_t at, struct err *err)
{
    uint8_t *chunk;
    size_t body;

    if (buf_check(out, err) != 0)
        return -1;
    chunk = out->data + at;
    body = out->len - at - SNAPSHOT_CHUNK_HEAD;
    memcpy(chunk, chunk_magic, sizeof(chunk_magic));
    put_le(chunk + 4, body, 4);
    put_le(chunk + 8, chunk_sum(chunk, body), 8);
    w->info.bytes += out->len - at;
    return digest_add(w->md, chunk, out->len - at, err);
}

int snapshot_write_head(struct snapshot_writer *w, struct buf *out, struct err *err)
{
    size_t at;

    buf_add(out, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_BYTES);
    w->info.bytes = SNAPSHOT_MAGIC_BYTES;
    if (digest_add(w->md, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_BYTES, err) != 0)
        return -1;
    at = chunk_begin(out, 4, CHUNK_HEAD);
    mp_put_uint(out, SNAPSHOT_VERSION);
    mp_put_str(out, w->info.cluster_id, strlen(w->info.cluster_id));
    mp_put_int(out, w->info.created_ms);
    return chunk_end(w, out, at, err);
}

int snapshot_write_file(struct snapshot_writer *w, const char *name, uint64_t size, struct buf *out,
                        struct err *err)
{
    size_t at = chunk_begin(out, 3, CHUNK_FILE);

    mp_put_str(out, name, strlen(name));
    mp_put_uint(out, size);
    w->info.files++;
    w->info.file_bytes += size;
    return chunk_end(w, out, at, err);
}

int snapshot_write_data(struct snapshot_writer *w, const void *data, size_t len, struct buf *out,
                        struct err *err)
{
    size_t at = chunk_begin(out, 2, CHUNK_DATA);

    mp_put_bin(out, data, len);
    return chunk_end(w, out, at, err);
}

int snapshot_write_files_end(struct snapshot_writer *w, struct buf *out, struct err *err)
{
    size_t at = chunk_begin(out, 2, CHUNK_FILES_END);

    mp_put_int(out, w->info.store_ms);
    return chunk_end(w, out, at, err);
}

int snapshot_write_seg(struct snapshot_writer *w, const struct seg *s, struct buf *out,
                       struct err *err)
{
    size_t at = chunk_begin(out, 2, CHUNK_SEG);

    mp_put_bin(out, s->bytes, s->len);
    w->info.segments++;
    w->info.transactions += s->count;
    return chunk_end(w, out, at, err);
}

int snapshot_write_end(struct snapshot_writer *w, struct buf *out, struct err *err)
{
    struct buf epochs = {0};
    size_t at;
    int rc = -1;

    if (epochs_encode(&w->info.epochs, &epochs, err) != 0 ||
        digest_now(w->md, w->info.digest, err) != 0)
        goto out;
    at = chunk_begin(out, 10, CHUNK_END);
    mp_put_uint(out, w->info.lsn);
    mp_put_uint(out, w->info.epoch);
    mp_put_bin(out, w->info.hash, sizeof(w->info.hash));
    mp_put_bin(out, w->info.root, sizeof(w->info.root));
    mp_put_bin(out, epochs.data, epochs.len);
    mp_put_uint(out, w->info.files);
    mp_put_uint(out, w->info.file_bytes);
    mp_put_uint(out, w->info.segments);
    mp_put_bin(out, w->info.digest, sizeof(w->info.digest));
    rc = chunk_end(w, out, at, err);
out:
    buf_free(&epochs);
    return rc;
}

/* ---- reading ---- */
enum place { AT_MAGIC, AT_HEAD, AT_FILES, AT_SEGS, AT_END };

struct snapshot_reader {
    struct snapshot_visitor v;
    EVP_MD_CTX *md;
    struct buf in; /* what is not read yet */
    uint64_t off;  /* of in in the file */
    enum place at;
    uint64_t file_left; /* bytes of the present file that are still to come */
    bool any_seg;
    struct snapshot_info info;
};

int snapshot_reader_new(const struct snapshot_visitor *v, struct snapshot_reader **rp,
                        struct err *err)
{
    struct snapshot_reader *r = calloc(1, sizeof(*r));

    *rp = NULL;
    if (r == NULL)
        return err_set(err, ERR_NOMEM, 0, "reader of the snapshot");
    r->v = *v;
    if (digest_new(&r->md, err) != 0) {
        free(r);
        return -1;
    }
    *rp = r;
    return 0;
}

void snapshot_reader_free(struct snapshot_reader *r)
{
    if (r == NULL)
        return;
    EVP_MD_CTX_free(r->md);
    buf_free(&r->in);
    free(r);
}

static int bad(const struct snapshot_reader *r, struct err *err, const char *what)
{
    return err_set(err, ERR_CORRUPT, 0, "snapshot: offset %" PRIu64 ": %s", r->off, what);
}

static bool name_good(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL;
}

static int on_head(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    uint64_t version = mp_uint(m, UINT32_MAX);

    if (!m->bad && version != SNAPSHOT_VERSION)
        return err_set(err, ERR_UNSUPPORTED, 0,
                       "snapshot: version %" PRIu64 " is of a newer program", version);
    mp_text(m, r->info.cluster_id, sizeof(r->info.cluster_id));
    r->info.created_ms = mp_int(m);
    r->at = AT_FILES;
    return 0;
}

static int on_file(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    char name[SNAPSHOT_NAME_MAX];
    uint64_t size;

    mp_text(m, name, sizeof(name));
    size = mp_uint(m, INT64_MAX);
    if (m->bad || r->at != AT_FILES || r->file_left > 0 || !name_good(name) ||
        size > INT64_MAX - r->info.file_bytes)
        return bad(r, err, "a file begins where none may, or its name is not plain");
    r->file_left = size;
    r->info.files++;
    r->info.file_bytes += size;
    return r->v.file != NULL ? r->v.file(r->v.arg, name, size, err) : 0;
}

static int on_data(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    size_t len;
    const uint8_t *data = mp_bytes(m, SNAPSHOT_BODY_MAX, &len);

    if (m->bad || r->at != AT_FILES || len == 0 || len > r->file_left)
        return bad(r, err, "bytes that belong to no file");
    r->file_left -= len;
    return r->v.data != NULL ? r->v.data(r->v.arg, data, len, err) : 0;
}

static int on_files_end(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    r->info.store_ms = mp_int(m);
    if (m->bad || r->at != AT_FILES || r->file_left > 0 || r->info.files == 0)
        return bad(r, err, "the files end too early");
    r->at = AT_SEGS;
    return r->v.files_end != NULL ? r->v.files_end(r->v.arg, &r->info, err) : 0;
}

static int on_seg(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    size_t len, used = 0;
    const uint8_t *data = mp_bytes(m, SNAPSHOT_BODY_MAX, &len);
    struct seg *s = NULL;
    int rc = -1;

    if (m->bad || r->at != AT_SEGS)
        return bad(r, err, "a segment where none may be");
    if (seg_decode(data, len, &s, &used, err) != 0)
        return err->code == ERR_NOMEM ? -1 : bad(r, err, "a segment is damaged");
    if (used != len ||
        (r->any_seg && (s->first_lsn != r->info.lsn + 1 ||
                        memcmp(s->prev_hash, r->info.hash, sizeof(r->info.hash)) != 0))) {
        bad(r, err, "a segment does not continue the one before");
        goto out;
    }
    r->any_seg = true;
    r->info.lsn = seg_last_lsn(s);
    r->info.epoch = s->epoch;
    memcpy(r->info.hash, s->hash, sizeof(r->info.hash));
    r->info.segments++;
    r->info.transactions += s->count;
    rc = r->v.seg != NULL ? r->v.seg(r->v.arg, s, err) : 0;
out:
    seg_unref(s);
    return rc;
}

static int on_end(struct snapshot_reader *r, struct mp *m, struct err *err)
{
    const struct snapshot_info seen = r->info;
    const uint8_t *epochs;
    uint8_t digest[32], said[32];
    size_t len;
    bool same;

    r->info.lsn = mp_uint(m, UINT64_MAX);
    r->info.epoch = (uint32_t)mp_uint(m, UINT32_MAX);
    mp_fixed(m, r->info.hash, sizeof(r->info.hash));
    mp_fixed(m, r->info.root, sizeof(r->info.root));
    epochs = mp_bytes(m, SNAPSHOT_BODY_MAX, &len);
    same = mp_uint(m, UINT64_MAX) == seen.files && mp_uint(m, UINT64_MAX) == seen.file_bytes &&
           mp_uint(m, UINT64_MAX) == seen.segments;
    mp_fixed(m, said, sizeof(said));
    if (m->bad || r->at != AT_SEGS)
        return bad(r, err, "the end is malformed or too early");
    if (digest_now(r->md, digest, err) != 0)
        return -1;
    if (!same || memcmp(digest, said, sizeof(said)) != 0 || r->info.lsn == 0 ||
        (r->any_seg && (r->info.lsn != seen.lsn || r->info.epoch != seen.epoch ||
                        memcmp(r->info.hash, seen.hash, sizeof(seen.hash)) != 0)))
        return bad(r, err, "the end does not fit what is before it: parts are missing or moved");
    if (epochs_decode(epochs, len, &r->info.epochs, err) != 0)
        return bad(r, err, "the history of epochs is damaged");
    memcpy(r->info.digest, digest, sizeof(digest));
    r->at = AT_END;
    return 0;
}

static int on_chunk(struct snapshot_reader *r, const uint8_t *body, size_t len, struct err *err)
{
    static const struct {
        size_t fields;
        int (*read)(struct snapshot_reader *r, struct mp *m, struct err *err);
    } kinds[] = {[CHUNK_HEAD] = {4, on_head}, [CHUNK_FILE] = {3, on_file},
                 [CHUNK_DATA] = {2, on_data}, [CHUNK_FILES_END] = {2, on_files_end},
                 [CHUNK_SEG] = {2, on_seg},   [CHUNK_END] = {10, on_end}};
    struct mp m = {.p = body, .end = body + len};
    size_t fields = mp_array(&m, 16);
    uint64_t kind = mp_uint(&m, CHUNK_END);

    if (m.bad || kind < CHUNK_HEAD || fields != kinds[kind].fields ||
        (r->at == AT_HEAD) != (kind == CHUNK_HEAD))
        return bad(r, err, "a chunk of an unknown kind, or out of place");
    if (kinds[kind].read(r, &m, err) != 0)
        return -1;
    if (m.bad || m.p != m.end)
        return bad(r, err, "a chunk is malformed");
    return 0;
}

/* One chunk at p, when all of it is there. *usedp is 0 when not. */
static int take_chunk(struct snapshot_reader *r, const uint8_t *p, size_t len, size_t *usedp,
                      struct err *err)
{
    uint64_t body;
    bool last;

    *usedp = 0;
    if (r->at == AT_END)
        return bad(r, err, "bytes behind the end");
    if (len < SNAPSHOT_CHUNK_HEAD)
        return 0;
    body = get_le(p + 4, 4);
    if (memcmp(p, chunk_magic, sizeof(chunk_magic)) != 0 || body > SNAPSHOT_BODY_MAX)
        return bad(r, err, "no chunk begins here");
    if (len - SNAPSHOT_CHUNK_HEAD < body)
        return 0;
    if (get_le(p + 8, 8) != chunk_sum(p, (size_t)body))
        return bad(r, err, "the checksum does not match");
    if (on_chunk(r, p + SNAPSHOT_CHUNK_HEAD, (size_t)body, err) != 0)
        return -1;
    last = r->at == AT_END;
    *usedp = SNAPSHOT_CHUNK_HEAD + (size_t)body;
    r->off += *usedp;
    r->info.bytes = r->off;
    return last ? 0 : digest_add(r->md, p, *usedp, err);
}

static int take_magic(struct snapshot_reader *r, const uint8_t *p, size_t len, size_t *usedp,
                      struct err *err)
{
    size_t n = len < SNAPSHOT_MAGIC_BYTES ? len : SNAPSHOT_MAGIC_BYTES;

    *usedp = 0;
    if (memcmp(p, SNAPSHOT_MAGIC, n) != 0)
        return err_set(err, ERR_CORRUPT, 0, "this is no snapshot");
    if (n < SNAPSHOT_MAGIC_BYTES)
        return 0;
    r->at = AT_HEAD;
    r->off = *usedp = n;
    return digest_add(r->md, p, n, err);
}

int snapshot_reader_feed(struct snapshot_reader *r, const void *data, size_t len, struct err *err)
{
    struct err none = {0};
    size_t done = 0, used = 1;

    if (err == NULL)
        err = &none;
    buf_add(&r->in, data, len);
    if (buf_check(&r->in, err) != 0)
        return -1;
    while (used > 0 && done < r->in.len) {
        const uint8_t *p = r->in.data + done;
        size_t left = r->in.len - done;

        if ((r->at == AT_MAGIC ? take_magic(r, p, left, &used, err)
                               : take_chunk(r, p, left, &used, err)) != 0)
            return -1;
        done += used;
    }
    if (done > 0)
        memmove(r->in.data, r->in.data + done, r->in.len - done);
    r->in.len -= done;
    return 0;
}

int snapshot_reader_end(struct snapshot_reader *r, struct snapshot_info *info, struct err *err)
{
    if (r->at != AT_END)
        return bad(r, err, "the snapshot ends here, before its last chunk: it is not whole");
    *info = r->info;
    return 0;
}

/* ---- a file ---- */
int snapshot_read_file(const char *path, const struct snapshot_visitor *v,
                       struct snapshot_info *info,
                       void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg,
                       struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = -1;
    uint8_t *buf = malloc(SNAPSHOT_DATA_BYTES);
    struct snapshot_reader *r = NULL;
    struct stat st;
    uint64_t done = 0;
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) != 0) {
        err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno, "open %s", path);
        goto out;
    }
    if (buf == NULL) {
        err_set(err, ERR_NOMEM, 0, "read %s", path);
        goto out;
    }
    if (snapshot_reader_new(v, &r, err) != 0)
        goto out;
    while ((n = read(fd, buf, SNAPSHOT_DATA_BYTES)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_set(err, ERR_IO, errno, "read %s", path);
            goto out;
        }
        if (snapshot_reader_feed(r, buf, (size_t)n, err) != 0)
            goto out;
        done += (uint64_t)n;
        if (progress != NULL)
            progress(arg, done, (uint64_t)st.st_size);
    }
    rc = snapshot_reader_end(r, info, err);
out:
    if (fd >= 0)
        close(fd);
    free(buf);
    snapshot_reader_free(r);
    return rc;
}
