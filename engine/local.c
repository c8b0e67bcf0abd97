/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * local.c - the local space in one file.
 *
 * Happy path of a commit: write dir/local.new whole, sync it, rename it over dir/local, sync dir. A
 * crash before the rename is durable leaves the old file (a half-written local.new is overwritten
 * by the next commit and never read); after it the new one. The file was synced before its rename,
 * so the new name never holds half of it. A process killed between rename and sync leaves
 * a file that is read and not durable: opening syncs dir first. Invariant: items are sorted by
 * name, and each name is there once.
 */
#include "local.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>
#include <openssl/crypto.h>
#include <xxhash.h>

#include "mp_read.h"

#define HEADER_BYTES 16u
#define BODY_MAX_BYTES (16u << 20) /* it is small; anything larger is not ours */
#define NAME_MAX_BYTES 255u

static const uint8_t magic[4] = {'L', 'L', 'F', '1'};

struct item {
    char *name;
    uint8_t *data;
    size_t len;
};

struct local {
    struct disk *disk;
    char *dir, *path, *path_new;
    struct item *items;
    size_t count, cap;
    bool failed; /* a commit failed: what is durable is unknown */
};

/* The place of name, or where it would go. */
static size_t find(const struct local *l, const char *name, bool *foundp)
{
    size_t lo = 0, hi = l->count;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(l->items[mid].name, name);
        if (c == 0) {
            *foundp = true;
            return mid;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *foundp = false;
    return lo;
}

static void data_free(uint8_t *data, size_t len)
{
    if (data == NULL)
        return;
    OPENSSL_cleanse(data, len); /* the link key is among them */
    free(data);
}

static int insert(struct local *l, size_t at, const char *name, uint8_t *data, size_t len,
                  struct err *err)
{
    char *copy = strdup(name);

    if (copy != NULL && l->count == l->cap) {
        size_t cap = l->cap == 0 ? 16 : l->cap * 2;
        struct item *items = reallocarray(l->items, cap, sizeof(*items));
        if (items == NULL) {
            free(copy);
            copy = NULL;
        } else {
            l->items = items;
            l->cap = cap;
        }
    }
    if (copy == NULL)
        return err_set(err, ERR_NOMEM, 0, "local space");
    memmove(&l->items[at + 1], &l->items[at], (l->count - at) * sizeof(*l->items));
    l->items[at] = (struct item){copy, data, len};
    l->count++;
    return 0;
}

static void remove_at(struct local *l, size_t at)
{
    free(l->items[at].name);
    data_free(l->items[at].data, l->items[at].len);
    memmove(&l->items[at], &l->items[at + 1], (l->count - at - 1) * sizeof(*l->items));
    l->count--;
}

int local_set(struct local *l, const char *name, const void *data, size_t len, struct err *err)
{
    uint8_t *copy;
    bool found;
    size_t at = find(l, name, &found);

    if (name[0] == '\0' || strlen(name) > NAME_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "local space: a name has 1 to %u bytes", NAME_MAX_BYTES);
    if (len > BODY_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "local space: a value is too long");
    if (data == NULL && len == 0) {
        if (found)
            remove_at(l, at);
        return 0;
    }
    copy = malloc(len > 0 ? len : 1);
    if (copy == NULL)
        return err_set(err, ERR_NOMEM, 0, "local space");
    memcpy(copy, data, len);
    if (!found) {
        if (insert(l, at, name, copy, len, err) == 0)
            return 0;
        data_free(copy, len);
        return -1;
    }
    data_free(l->items[at].data, l->items[at].len);
    l->items[at].data = copy;
    l->items[at].len = len;
    return 0;
}

int local_get(struct local *l, const char *name, struct buf *out, struct err *err)
{
    bool found;
    size_t at = find(l, name, &found);

    if (!found)
        return err_set(err, ERR_NOTFOUND, 0, "local space: no %s", name);
    buf_add(out, l->items[at].data, l->items[at].len);
    return buf_check(out, err);
}

/* ---- the file ---- */
static int body_parse(struct local *l, const uint8_t *body, size_t len, struct err *err)
{
    struct mp_cursor c = {body, body + len};
    uint64_t count;

    if (!mp_map(&c, &count))
        return err_set(err, ERR_CORRUPT, 0, "local space: not a map");
    for (uint64_t i = 0; i < count; i++) {
        char name[NAME_MAX_BYTES + 1];
        const char *key;
        const uint8_t *data;
        size_t key_len, data_len;
        bool found;
        if (!mp_str(&c, &key, &key_len) || !mp_bin(&c, &data, &data_len) || key_len == 0 ||
            key_len > NAME_MAX_BYTES || memchr(key, '\0', key_len) != NULL)
            return err_set(err, ERR_CORRUPT, 0, "local space: malformed entry");
        memcpy(name, key, key_len);
        name[key_len] = '\0';
        (void)find(l, name, &found);
        if (found)
            return err_set(err, ERR_CORRUPT, 0, "local space: an entry is there twice");
        if (local_set(l, name, data, data_len, err) != 0)
            return -1;
    }
    if (c.at != c.end)
        return err_set(err, ERR_CORRUPT, 0, "local space: bytes after the end");
    return 0;
}

static int file_parse(struct local *l, const uint8_t *data, size_t len, struct err *err)
{
    uint32_t body_len;
    uint64_t sum;

    if (len < HEADER_BYTES || memcmp(data, magic, sizeof(magic)) != 0)
        return err_set(err, ERR_CORRUPT, 0, "local space: no header");
    memcpy(&body_len, data + 4, sizeof(body_len));
    memcpy(&sum, data + 8, sizeof(sum));
    if (le32toh(body_len) != len - HEADER_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "local space: the file has the wrong length");
    if (XXH3_64bits(data + HEADER_BYTES, len - HEADER_BYTES) != le64toh(sum))
        return err_set(err, ERR_CORRUPT, 0, "local space: the checksum does not match");
    return body_parse(l, data + HEADER_BYTES, len - HEADER_BYTES, err);
}

static int file_read(struct local *l, struct disk_file *file, struct err *err)
{
    const struct disk_ops *ops = l->disk->ops;
    uint64_t size = 0;
    uint8_t *data;
    size_t got = 0;
    int rc = -1;

    if (ops->size(file, &size, err) != 0)
        return -1;
    if (size < HEADER_BYTES || size > BODY_MAX_BYTES + HEADER_BYTES)
        return err_set(err, ERR_CORRUPT, 0, "local space: the file has the wrong length");
    data = malloc((size_t)size);
    if (data == NULL)
        return err_set(err, ERR_NOMEM, 0, "local space");
    if (ops->pread(file, data, (size_t)size, 0, &got, err) != 0)
        goto out;
    if (got != size) {
        err_set(err, ERR_CORRUPT, 0, "local space: the file got shorter while it was read");
        goto out;
    }
    rc = file_parse(l, data, (size_t)size, err);
out:
    data_free(data, (size_t)size);
    return rc;
}

static int pack_add(void *out, const char *data, size_t len)
{
    buf_add(out, data, len);
    return 0; /* a failure sticks to the buf */
}

static int file_build(const struct local *l, struct buf *out, struct err *err)
{
    uint8_t header[HEADER_BYTES] = {0};
    uint32_t body_len;
    uint64_t sum;
    msgpack_packer pk;

    buf_add(out, header, sizeof(header));
    msgpack_packer_init(&pk, out, pack_add);
    msgpack_pack_map(&pk, l->count);
    for (size_t i = 0; i < l->count; i++) {
        const struct item *item = &l->items[i];
        msgpack_pack_str(&pk, strlen(item->name));
        msgpack_pack_str_body(&pk, item->name, strlen(item->name));
        msgpack_pack_bin(&pk, item->len);
        msgpack_pack_bin_body(&pk, item->data, item->len);
    }
    if (buf_check(out, err) != 0)
        return -1;
    if (out->len - HEADER_BYTES > BODY_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "local space: more than %u bytes", BODY_MAX_BYTES);
    memcpy(out->data, magic, sizeof(magic));
    body_len = htole32((uint32_t)(out->len - HEADER_BYTES));
    sum = htole64(XXH3_64bits(out->data + HEADER_BYTES, out->len - HEADER_BYTES));
    memcpy(out->data + 4, &body_len, sizeof(body_len));
    memcpy(out->data + 8, &sum, sizeof(sum));
    return 0;
}

static int file_replace(struct local *l, const struct buf *content, struct err *err)
{
    const struct disk_ops *ops = l->disk->ops;
    struct disk_file *file = NULL;
    int rc;

    if (ops->open(l->disk, l->path_new, DISK_WRITE | DISK_CREATE, &file, err) != 0)
        return -1;
    rc = ops->truncate(file, 0, err);
    if (rc == 0)
        rc = ops->pwrite(file, content->data, content->len, 0, err);
    if (rc == 0)
        rc = ops->sync(file, err);
    ops->close(file);
    if (rc == 0)
        rc = ops->rename(l->disk, l->path_new, l->path, err);
    if (rc == 0)
        rc = ops->sync_dir(l->disk, l->dir, err);
    return rc;
}

int local_commit(struct local *l, struct err *err)
{
    struct buf content = {.secret = true};
    int rc = -1;

    if (l->failed)
        return err_set(err, ERR_IO, 0, "%s: an earlier commit failed", l->path);
    if (file_build(l, &content, err) == 0) { /* nothing touched the disk before this: not final */
        rc = file_replace(l, &content, err);
        l->failed = rc != 0;
    }
    if (rc != 0)
        err_wrap(err, "commit %s", l->path);
    buf_free(&content);
    return rc;
}

static char *join(const char *dir, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

int local_open(struct disk *disk, const char *dir, struct local **lp, struct err *err)
{
    struct local *l = calloc(1, sizeof(*l));
    struct disk_file *file = NULL;
    struct err e = {0};

    *lp = NULL;
    if (l == NULL)
        return err_set(err, ERR_NOMEM, 0, "local space");
    l->disk = disk;
    if ((l->dir = strdup(dir)) == NULL || (l->path = join(dir, "local")) == NULL ||
        (l->path_new = join(dir, "local.new")) == NULL) {
        err_set(&e, ERR_NOMEM, 0, "local space");
        goto fail;
    }
    /* A killed process may have renamed and not synced: what is read here is acted on. */
    if (disk->ops->sync_dir(disk, dir, &e) != 0)
        goto fail;
    if (disk->ops->open(disk, l->path, DISK_READ, &file, &e) == 0) {
        int rc = file_read(l, file, &e);
        disk->ops->close(file);
        if (rc != 0)
            goto fail;
    } else if (e.code != ERR_NOTFOUND) {
        goto fail;
    }
    *lp = l;
    return 0;
fail:
    if (err != NULL)
        *err = e;
    err_wrap(err, "%s/local", dir);
    local_close(l);
    return -1;
}

void local_close(struct local *l)
{
    if (l == NULL)
        return;
    while (l->count > 0)
        remove_at(l, l->count - 1);
    free(l->items);
    free(l->dir);
    free(l->path);
    free(l->path_new);
    free(l);
}
