/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * audit_api.c - sys/audit: list, enable and disable audit devices; sys/audit-hash.
 *
 * A device is tried before its row is written: what cannot be opened here is refused. Its salt is
 * made here and never shown.
 */
#include <string.h>
#include <unistd.h>

#include "audit_private.h"

#define AUDIT_LATCH "core/audit"

/* "file/" for "file" and "file/". NULL: out of memory. */
static const char *shown(struct request *rq, const char *name)
{
    size_t n = strlen(name);

    return n > 0 && name[n - 1] == '/' ? arena_strdup(rq->arena, name)
                                       : arena_printf(rq->arena, "%s/", name);
}

static const char *key_of(struct request *rq, const char *path)
{
    return arena_printf(rq->arena, AUDIT_FOLDER "%.*s", (int)strlen(path) - 1, path);
}

static void list_devices(struct request *rq, struct response *rs)
{
    json_t *names = NULL, *all = json_object(), *v, *row;
    struct err err = {0};
    size_t i;
    int rc = storage_list(rq->core, AUDIT_FOLDER, &names, &err);

    json_array_foreach(names, i, v)
    {
        const char *path = shown(rq, json_string_value(v));

        if (rc != 0 || path == NULL ||
            (rc = storage_get(rq->core, key_of(rq, path), &row, &err)) != 0)
            continue;
        json_object_del(row, "salt");
        json_object_set_new(row, "path", json_string(path));
        json_object_set_new(all, path, row);
    }
    json_decref(names);
    if (rc != 0) {
        json_decref(all);
        reply_err(rs, &err);
        return;
    }
    rs->double_reply = json_object_size(all) > 0;
    reply_data(rs, all);
}

static const char *text_of(const json_t *options, const char *name)
{
    const char *s = json_string_value(json_object_get(options, name));

    return s != NULL ? s : "";
}

/* 0: the options are good. */
static int check_options(struct request *rq, struct response *rs, const char *name,
                         const json_t *options)
{
    const char *format = text_of(options, "format"), *path = text_of(options, "file_path"),
               *why = "";
    static const char *const bools[] = {"log_raw", "hmac_accessor"};
    bool discard, yes;
    int fd;

    if (path[0] == '\0')
        path = text_of(options, "path");
    if (path[0] == '\0') {
        reply_error(rs, 400, "file_path is required");
        return -1;
    }
    if (format[0] != '\0' && strcmp(format, "json") != 0) {
        reply_error(rs, 400, "unknown format type \"%s\"", format);
        return -1;
    }
    for (size_t i = 0; i < sizeof(bools) / sizeof(bools[0]); i++)
        if (text_of(options, bools[i])[0] != '\0' &&
            parse_bool(text_of(options, bools[i]), &yes) != 0) {
            reply_error(rs, 400, "strconv.ParseBool: parsing \"%s\": invalid syntax",
                        text_of(options, bools[i]));
            return -1;
        }
    if (audit_open(rq, name, options, &discard, &fd, &why) != 0) {
        reply_error(rs, 400, "sanity check failed; unable to open \"%s\" for writing: %s", path,
                    why);
        return -1;
    }
    if (fd > STDERR_FILENO)
        close(fd);
    return 0;
}

static int path_free(struct request *rq, struct response *rs, const char *path)
{
    json_t *names = NULL, *v;
    struct err err = {0};
    size_t i;
    bool taken = false;

    if (storage_list(rq->core, AUDIT_FOLDER, &names, &err) != 0) {
        reply_err(rs, &err);
        return -1;
    }
    json_array_foreach(names, i, v) taken =
        taken || strncmp(path, json_string_value(v), strlen(path) - 1) == 0;
    json_decref(names);
    if (taken)
        reply_error(rs, 400, "path already in use");
    return taken ? -1 : 0;
}

static void enable(struct request *rq, struct response *rs, const char *path)
{
    const char *type, *description;
    json_t *options = NULL, *row = NULL;
    struct batch *b = NULL;
    struct err err = {0};
    char salt[AUDIT_SALT_CHARS + 1];
    bool local;

    if (field_str(rq, rs, "type", "", &type) != 0 ||
        field_str(rq, rs, "description", "", &description) != 0 ||
        field_bool(rq, rs, "local", false, &local) != 0 ||
        field_string_map(rq, rs, "options", &options) != 0)
        return;
    if (path_free(rq, rs, path) != 0)
        goto out;
    if (strcmp(type, "file") != 0) {
        reply_error(rs, 400, "unknown backend type: \"%s\"", type);
        goto out;
    }
    if (options == NULL)
        options = json_object();
    if (check_options(rq, rs, path, options) != 0)
        goto out;
    row =
        json_pack("{s:s, s:s, s:O, s:b, s:s}", "type", type, "description", description, "options",
                  options, "local", local, "salt", base62(rq->core, salt, AUDIT_SALT_CHARS));
    b = batch_new(rq->core);
    if (row == NULL || b == NULL)
        err_set(&err, ERR_NOMEM, 0, "audit");
    else if (batch_put(b, key_of(rq, path), row, &err) == 0) {
        struct batch *whole = b;

        b = NULL;
        if (batch_commit(whole, &err) == 0) {
            log_info(rq->core->log, "core", "enabled audit backend: path=%s type=%s", path, type);
            reply_empty(rs);
            goto out;
        }
    }
    reply_err(rs, &err);
out:
    batch_free(b);
    json_decref(row);
    json_decref(options);
}

static void disable(struct request *rq, struct response *rs, const char *path)
{
    struct batch *b = batch_new(rq->core);
    struct err err = {0};

    if (b == NULL)
        err_set(&err, ERR_NOMEM, 0, "audit");
    else if (batch_delete(b, key_of(rq, path), &err) != 0)
        batch_free(b);
    else if (batch_commit(b, &err) == 0) {
        log_info(rq->core->log, "core", "disabled audit backend: path=%s", path);
        reply_empty(rs);
        return;
    }
    reply_err(rs, &err);
}

static void hash(struct request *rq, struct response *rs, const char *path)
{
    char out[AUDIT_HMAC_CHARS + 1];
    const char *input, *salt;
    struct hmac salted;
    json_t *row;
    struct err err = {0};

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (field_str(rq, rs, "input", "", &input) != 0)
        return;
    if (input[0] == '\0') {
        reply_error(rs, 400, "the \"input\" parameter is empty");
        return;
    }
    if (storage_get(rq->core, key_of(rq, path), &row, &err) != 0) {
        if (err.code == ERR_NOTFOUND)
            reply_error(rs, 400, "unknown audit backend \"%s\"", path);
        else
            reply_err(rs, &err);
        return;
    }
    salt = text_of(row, "salt");
    if (hmac_init(&salted, salt, strlen(salt), &err) != 0 ||
        audit_hash(&salted, input, strlen(input), out) != 0)
        reply_router_error(rs, 500, "out of memory");
    else
        reply_data(rs, json_pack("{s:s}", "hash", out));
    rs->double_reply = rs->data != NULL;
    hmac_fini(&salted);
    json_decref(row);
}

void audit_handle(struct request *rq, struct response *rs)
{
    bool hashing = strncmp(rq->path, "audit-hash/", 11) == 0;
    const char *name = strchr(rq->path, '/'), *path;
    struct latch_ref latch;

    if (!hashing && (name == NULL || name[1] == '\0')) {
        if (rq->op == OP_READ)
            list_devices(rq, rs);
        else
            reply_unsupported(rs);
        return;
    }
    path = shown(rq, name + 1);
    if (path == NULL || strlen(path) > 256 || strchr(path, '/') != path + strlen(path) - 1) {
        reply_error(rs, 400,
                    "an audit device's path is a name without slashes, of at most 255 bytes");
        return;
    }
    if (hashing) {
        hash(rq, rs, path);
        return;
    }
    if (rq->op != OP_WRITE && rq->op != OP_DELETE) {
        reply_unsupported(rs);
        return;
    }
    if (!latch_for(rq, rs, AUDIT_LATCH, &latch))
        return;
    if (rq->op == OP_WRITE)
        enable(rq, rs, path);
    else
        disable(rq, rs, path);
    latch_release(rq->core, &latch);
}
