/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * kv2_lost.c - lost versions of a key that was written here since the fork: each that is not here
 * becomes a new version, behind all that are.
 *
 * Both histories gave out the same numbers, so rows of the one cannot take the place of the other's
 * without removing acknowledged versions. A version that was taken in says of which it is
 * (`lost`: <id>/<version>), so that the same call given again adds nothing.
 */
#include <string.h>

#include "kv2_private.h"

/* The row is here: under its own number, or taken in before. */
static int is_here(struct request *rq, const json_t *meta, const json_t *row, const char *lost_key,
                   const char *mark, bool *yesp, struct err *err)
{
    json_t *versions = json_object_get(meta, "versions"), *v, *here;
    const char *name, *from;
    int rc = 0;

    *yesp = false;
    json_object_foreach(versions, name, v)
    {
        const char *key = arena_printf(rq->arena, "%s2/data/%s/%s", rq->mount->prefix,
                                       json_string_value(json_object_get(meta, "id")), name);

        if (key == NULL)
            return err_set(err, ERR_NOMEM, 0, "lost versions");
        from = json_string_value(json_object_get(v, "lost"));
        if (*yesp || (strcmp(key, lost_key) != 0 && (from == NULL || strcmp(from, mark) != 0)))
            continue;
        rc = storage_get(rq->core, key, &here, err);
        if (rc == 0) {
            *yesp = json_equal(here, row);
            json_decref(here);
        } else if (err->code == ERR_NOTFOUND) { /* destroyed since */
            *yesp = from != NULL;
            err_clear(err);
        } else {
            return -1;
        }
    }
    return 0;
}

static int add(struct request *rq, struct batch *b, json_t *meta, const struct kv2_config *cfg,
               const json_t *row, const char *mark, struct err *err)
{
    const char *key;
    json_t *version;
    int64_t n;

    if (kv2_version_add(meta, cfg, env_wall_ms(rq->core->env), err) != 0)
        return -1;
    n = kv2_int(meta, "current_version");
    version = (json_t *)kv2_version(meta, n);
    key = kv2_data_key(rq->arena, rq->mount->prefix, meta, n);
    if (key == NULL || json_object_set_new(version, "lost", json_string(mark)) != 0)
        return err_set(err, ERR_NOMEM, 0, "lost versions");
    return batch_put(b, key, row, err);
}

static int add_all(struct request *rq, struct batch *b, json_t *meta, const json_t *lost,
                   const json_t *rows, int64_t *np, struct err *err)
{
    int64_t now = env_wall_ms(rq->core->env), last = kv2_int(lost, "current_version"),
            first = kv2_int(lost, "oldest_version");
    const char *prefix = rq->mount->prefix, *id = json_string_value(json_object_get(lost, "id"));
    struct kv2_config cfg;

    if (kv2_config_load(rq, &cfg, err) != 0)
        return -1;
    for (int64_t n = first > 0 ? first : 1; n <= last; n++) {
        const char *key = kv2_data_key(rq->arena, prefix, lost, n),
                   *mark = arena_printf(rq->arena, "%s/%lld", id, (long long)n);
        const json_t *row = key != NULL ? json_object_get(rows, key) : NULL;
        bool here;

        if (key == NULL || mark == NULL)
            return err_set(err, ERR_NOMEM, 0, "lost versions");
        if (row == NULL || kv2_version_gone(kv2_version(lost, n), now))
            continue;
        *np = *np < 0 ? 0 : *np;
        if (is_here(rq, meta, row, key, mark, &here, err) != 0)
            return -1;
        if (here)
            continue;
        if (add(rq, b, meta, &cfg, row, mark, err) != 0)
            return -1;
        *np = kv2_int(meta, "current_version");
    }
    return *np > 0 ? kv2_trim(rq, b, meta, &cfg, err) : 0;
}

int kv2_lost_take(struct request *rq, const struct mount *m, const char *meta_key,
                  const json_t *rows, struct batch *b, int64_t *np, struct err *err)
{
    const json_t *lost = json_object_get(rows, meta_key);
    struct request in_mount = *rq;
    json_t *meta = NULL;
    int rc;

    *np = -1;
    if (!json_is_string(json_object_get(lost, "id")))
        return 0; /* the key was removed there: what is here stays */
    in_mount.mount = m;
    if (kv2_meta_load(&in_mount, meta_key, &meta, err) != 0)
        return -1;
    if (meta == NULL)
        return 0;
    rc = add_all(&in_mount, b, meta, lost, rows, np, err);
    if (rc == 0 && *np > 0)
        rc = batch_put(b, meta_key, meta, err);
    json_decref(meta);
    return rc;
}
