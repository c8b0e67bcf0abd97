/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * config.c - reads configuration files by the tables of config_keys.c.
 *
 * Nothing is ignored: a key is ours, or Vault's with a note, or an error with its line. Values
 * convert as Vault's do: a boolean may be "true" or 1, a duration "768h" or seconds. What was read
 * stays owned by struct config, also on failure.
 */
#include "config_private.h"

#include <errno.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "engine.h"
#include "handler.h"

#define CONFIG_FILE_MAX_BYTES (4u << 20)
#define STORAGE_EXAMPLE "storage \"wiredtiger\" { path = \"/var/lib/lockstep\" }"

int config_fail(struct config_reader *r, int line, const char *key, const char *fmt, ...)
{
    char text[220];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(r->err, ERR_INVAL, 0, "%s:%d: %s: %s", r->file, line, key, text);
}

void config_init(struct config *c)
{
    memset(c, 0, sizeof(*c));
    c->log_level = LOG_LEVEL_INFO;
    c->best_effort_wait_ms = 2000;
    c->lag_warn_ms = 10000;
    c->scrub_interval_ms = 3600000;
    c->max_loss_ms = -1;
    c->keep_wiped_ms = (int64_t)72 * 3600 * 1000;
}

static void listener_free(struct config_listener *l)
{
    free(l->address);
    free(l->cluster_address);
    free(l->tls_cert_file);
    free(l->tls_key_file);
    memset(l, 0, sizeof(*l));
}

void config_free(struct config *c)
{
    free(c->storage_path);
    for (size_t i = 0; i < c->n_listeners; i++)
        listener_free(&c->listeners[i]);
    free(c->api_addr);
    free(c->cluster_addr);
    free(c->cluster_name);
    free(c->pid_file);
    free(c->log_file);
    free(c->default_mode);
    free(c->default_on_limit);
    free(c->force_async);
    for (size_t i = 0; i < c->n_secondaries; i++)
        config_secondary_free(&c->secondaries[i]);
    memset(c, 0, sizeof(*c));
}

/* ---- one value ---- */

static const char *kind_name(enum hcl_kind kind)
{
    static const char *const names[] = {"a string", "a number", "a boolean", "a list", "a block"};

    return names[kind];
}

static int set_text(struct config_reader *r, const struct hcl_item *it, char **p)
{
    char *copy;

    if (it->value->kind != HCL_STRING && it->value->kind != HCL_NUMBER)
        return config_fail(r, it->line, it->key, "must be a string, such as %s = \"...\", not %s",
                           it->key, kind_name(it->value->kind));
    copy = strdup(it->value->text);
    if (copy == NULL)
        return err_set(r->err, ERR_NOMEM, 0, "configuration");
    free(*p);
    *p = copy;
    return 0;
}

static int set_bool(struct config_reader *r, const struct hcl_item *it, bool *p)
{
    const struct hcl_value *v = it->value;
    char *end;

    if (v->kind == HCL_BOOL) {
        *p = v->boolean;
        return 0;
    }
    if (v->kind == HCL_NUMBER) {
        *p = strtod(v->text, &end) != 0;
        return 0;
    }
    if (v->kind == HCL_STRING && v->text[0] == '\0') {
        *p = false;
        return 0;
    }
    if (v->kind == HCL_STRING && parse_bool(v->text, p) == 0)
        return 0;
    return config_fail(r, it->line, it->key, "must be true or false, not %s%s%s",
                       kind_name(v->kind), v->kind == HCL_STRING ? " " : "",
                       v->kind == HCL_STRING ? v->text : "");
}

static int set_duration(struct config_reader *r, const struct hcl_item *it,
                        int (*parse)(const char *, int64_t *, struct err *), int64_t *p)
{
    const struct hcl_value *v = it->value;
    struct err why = {0};

    if (v->kind != HCL_STRING && v->kind != HCL_NUMBER)
        return config_fail(r, it->line, it->key,
                           "must be a duration, such as \"768h\" or a number of seconds, not %s",
                           kind_name(v->kind));
    if (parse(v->text, p, &why) != 0)
        return config_fail(r, it->line, it->key,
                           "%s: write \"768h\", \"30m\" or a number of seconds", why.msg);
    if (*p < 0)
        return config_fail(r, it->line, it->key, "must not be negative");
    return 0;
}

/* "64MiB", "1GB", "4096": digits and a unit. */
static int parse_bytes(const char *text, uint64_t *p)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {
        {"", 1},
        {"b", 1},
        {"kb", 1000},
        {"mb", 1000000},
        {"gb", 1000000000},
        {"tb", 1000000000000},
        {"kib", 1ull << 10},
        {"mib", 1ull << 20},
        {"gib", 1ull << 30},
        {"tib", 1ull << 40},
    };
    unsigned long long n;
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return -1;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno != 0)
        return -1;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(end, units[i].name) != 0)
            continue;
        return __builtin_mul_overflow((uint64_t)n, units[i].factor, p) ? -1 : 0;
    }
    return -1;
}

static int set_bytes(struct config_reader *r, const struct hcl_item *it, uint64_t *p)
{
    const struct hcl_value *v = it->value;

    if ((v->kind != HCL_STRING && v->kind != HCL_NUMBER) || parse_bytes(v->text, p) != 0)
        return config_fail(r, it->line, it->key,
                           "must be a size, such as \"256MiB\" or a number of bytes");
    return 0;
}

static int set_count(struct config_reader *r, const struct hcl_item *it, unsigned *p)
{
    const struct hcl_value *v = it->value;
    uint64_t n;

    if ((v->kind != HCL_STRING && v->kind != HCL_NUMBER) || parse_bytes(v->text, &n) != 0 || n > 16)
        return config_fail(r, it->line, it->key,
                           "must be a number from 1 to 16 (0: one for each core, at most 4)");
    *p = (unsigned)n;
    return 0;
}

static int set_level(struct config_reader *r, const struct hcl_item *it, enum log_level *p)
{
    const struct hcl_value *v = it->value;
    struct err why = {0};

    if (v->kind != HCL_STRING)
        return config_fail(r, it->line, it->key, "must be a string, not %s", kind_name(v->kind));
    if (logger_parse_level(v->text, p, &why) != 0)
        return config_fail(r, it->line, it->key,
                           "unknown level \"%s\": write trace, debug, info, warn or error",
                           v->text);
    return 0;
}

static int set_value(struct config_reader *r, const struct hcl_item *it, enum config_type type,
                     void *field)
{
    if (it->block || it->n_labels > 0)
        return config_fail(r, it->line, it->key, "is a value, not a block: write %s = ...",
                           it->key);
    switch (type) {
    case CONFIG_TEXT:
        return set_text(r, it, field);
    case CONFIG_BOOL:
        return set_bool(r, it, field);
    case CONFIG_SECONDS:
        return set_duration(r, it, parse_seconds, field);
    case CONFIG_MILLIS:
        return set_duration(r, it, parse_millis, field);
    case CONFIG_BYTES:
        return set_bytes(r, it, field);
    case CONFIG_COUNT:
        return set_count(r, it, field);
    case CONFIG_LEVEL:
        return set_level(r, it, field);
    }
    return -1;
}

/* ---- keys of one block ---- */

/* The key stood in this block before. Blocks that may repeat don't come here. */
int config_check_once(struct config_reader *r, const struct hcl_value *object,
                      const struct hcl_item *it)
{
    for (const struct hcl_item *o = object->items; o != NULL && o != it; o = o->next)
        if (strcmp(o->key, it->key) == 0)
            return config_fail(r, it->line, it->key,
                               "stands twice; the first is on line %d: keep one", o->line);
    return 0;
}

static const struct config_key *find_key(const struct config_key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0)
            return keys;
    return NULL;
}

static const struct config_known *find_known(const struct config_known *known, const char *name)
{
    for (; known->name != NULL; known++)
        if (strcmp(known->name, name) == 0)
            return known;
    return NULL;
}

/* A boolean in any of its forms against "true" or "false", else the text itself. */
static bool means(const struct hcl_item *it, const char *value)
{
    bool want, have;

    if (it->value->text == NULL)
        return false;
    if (parse_bool(value, &want) == 0 && parse_bool(it->value->text, &have) == 0)
        return want == have;
    return strcmp(it->value->text, value) == 0;
}

static int other_key(struct config_reader *r, const struct hcl_item *it,
                     const struct config_known *known)
{
    const struct config_known *k = find_known(known, it->key);

    if (k == NULL)
        return config_fail(r, it->line, it->key, "unknown key");
    if (k->same_as != NULL && means(it, k->same_as))
        return 0;
    return config_fail(r, it->line, it->key, "%s", k->advice);
}

int config_read_key(struct config_reader *r, const struct hcl_item *it,
                    const struct config_key *keys, const struct config_known *known, void *base)
{
    const struct config_key *k = find_key(keys, it->key);

    if (k == NULL)
        return other_key(r, it, known);
    return set_value(r, it, k->type, (char *)base + k->offset);
}

/* ---- blocks ---- */

static bool is_block(const struct hcl_item *it)
{
    return it->value->kind == HCL_OBJECT && it->n_labels == 1;
}

static int read_storage(struct config_reader *r, const struct hcl_item *it)
{
    const struct hcl_value *o = it->value;
    const struct config_known *other;

    if (!is_block(it))
        return config_fail(r, it->line, it->key, "write " STORAGE_EXAMPLE);
    if (strcmp(it->labels[0], "wiredtiger") != 0) {
        other = find_known(config_other_storage, it->labels[0]);
        return config_fail(r, it->line, it->key, "\"%s\" %s", it->labels[0],
                           other != NULL ? other->advice
                                         : "is unknown; write " STORAGE_EXAMPLE " instead");
    }
    for (const struct hcl_item *in = o->items; in != NULL; in = in->next) {
        if (config_check_once(r, o, in) != 0 ||
            config_read_key(r, in, config_storage_keys, config_storage_known, r->c) != 0)
            return -1;
        /* WiredTiger refuses others as it does a damaged store, which a secondary gives up. */
        if (strcmp(in->key, "cache_size") == 0 && r->c->cache_bytes != 0 &&
            (r->c->cache_bytes < 16u << 20 || r->c->cache_bytes > 1ull << 40))
            return config_fail(r, in->line, in->key, "must be from 16MiB to 1TiB (0: by itself)");
    }
    if (r->c->storage_path == NULL || r->c->storage_path[0] == '\0')
        return config_fail(r, it->line, "path", "is missing: write " STORAGE_EXAMPLE);
    return 0;
}

static int check_file(struct config_reader *r, const struct hcl_value *object, const char *key,
                      const char *path)
{
    const struct hcl_item *it = object->items;

    if (access(path, R_OK) == 0)
        return 0;
    while (it != NULL && strcmp(it->key, key) != 0)
        it = it->next;
    return config_fail(r, it != NULL ? it->line : object->line, key, "open %s: %s", path,
                       strerror(errno));
}

static int check_tls(struct config_reader *r, const struct hcl_item *it,
                     const struct config_listener *l)
{
    if (l->tls_disable)
        return 0;
    if (l->tls_cert_file == NULL)
        return config_fail(
            r, it->line, "tls_cert_file",
            "is missing: write tls_cert_file = \"...\" and tls_key_file = \"...\", or "
            "tls_disable = true");
    if (l->tls_key_file == NULL)
        return config_fail(
            r, it->line, "tls_key_file",
            "is missing: write tls_key_file = \"...\", the private key of tls_cert_file");
    if (check_file(r, it->value, "tls_cert_file", l->tls_cert_file) != 0)
        return -1;
    return check_file(r, it->value, "tls_key_file", l->tls_key_file);
}

static int read_listener_telemetry(struct config_reader *r, const struct hcl_item *it,
                                   struct config_listener *l)
{
    static const struct config_known none[] = {{0}};
    const struct hcl_value *o = it->value;

    if (o->kind != HCL_OBJECT)
        return config_fail(r, it->line, it->key,
                           "write telemetry { unauthenticated_metrics_access = true }");
    for (const struct hcl_item *in = o->items; in != NULL; in = in->next)
        if (config_check_once(r, o, in) != 0 ||
            config_read_key(r, in, config_listener_telemetry_keys, none, l) != 0)
            return -1;
    return 0;
}

static int read_listener(struct config_reader *r, const struct hcl_item *it)
{
    const struct hcl_value *o = it->value;
    struct config_listener *l;

    if (!is_block(it))
        return config_fail(r, it->line, it->key,
                           "write listener \"tcp\" { address = \"127.0.0.1:8200\" ... }");
    if (strcmp(it->labels[0], "tcp") != 0)
        return config_fail(r, it->line, it->key,
                           "\"%s\" is not supported: write listener \"tcp\" { ... }",
                           it->labels[0]);
    if (r->c->n_listeners == CONFIG_LISTENERS_MAX)
        return config_fail(r, it->line, it->key, "more than %d listeners", CONFIG_LISTENERS_MAX);
    l = &r->c->listeners[r->c->n_listeners++];
    for (const struct hcl_item *in = o->items; in != NULL; in = in->next) {
        if (config_check_once(r, o, in) != 0)
            return -1;
        if (strcmp(in->key, "telemetry") == 0
                ? read_listener_telemetry(r, in, l) != 0
                : config_read_key(r, in, config_listener_keys, config_listener_known, l) != 0)
            return -1;
    }
    return check_tls(r, it, l);
}

static int read_seal(struct config_reader *r, const struct hcl_item *it)
{
    if (it->n_labels == 1 && strcmp(it->labels[0], "shamir") == 0 && it->value->items == NULL)
        return 0;
    return config_fail(r, it->line, it->key,
                       "not supported: remove the block; the server is unsealed with key shares");
}

/* `backend` is the old name of storage. */
static int check_storage_once(struct config_reader *r, const struct hcl_value *root,
                              const struct hcl_item *it)
{
    for (const struct hcl_item *o = root->items; o != it; o = o->next)
        if (strcmp(o->key, "storage") == 0 || strcmp(o->key, "backend") == 0)
            return config_fail(r, it->line, it->key,
                               "stands twice; the first is on line %d: keep one", o->line);
    return 0;
}

static int read_top(struct config_reader *r, const struct hcl_value *root,
                    const struct hcl_item *it)
{
    if (strcmp(it->key, "storage") == 0 || strcmp(it->key, "backend") == 0)
        return check_storage_once(r, root, it) != 0 ? -1 : read_storage(r, it);
    if (strcmp(it->key, "listener") == 0)
        return read_listener(r, it);
    if (config_check_once(r, root, it) != 0)
        return -1;
    if (strcmp(it->key, "seal") == 0)
        return read_seal(r, it);
    if (strcmp(it->key, "replication") == 0)
        return config_read_replication(r, it);
    return config_read_key(r, it, config_top_keys, config_top_known, r->c);
}

/* "At 3:4: text" becomes "FILE:3:4: text". */
static int syntax_error(const char *file, const struct err *why, struct err *err)
{
    int line, col, n = 0;

    if (sscanf(why->msg, "At %d:%d: %n", &line, &col, &n) == 2 && n > 0)
        return err_set(err, why->code, 0, "%s:%d:%d: %s", file, line, col, why->msg + n);
    return err_set(err, why->code, 0, "%s: %s", file, why->msg);
}

int config_parse(const char *text, size_t len, const char *file, struct config *c, struct err *err)
{
    struct config_reader r = {.file = file, .c = c, .err = err};
    struct err why = {0};
    struct hcl *h;
    int rc = 0;

    if (hcl_parse(text, len, &h, &why) != 0)
        return syntax_error(file, &why, err);
    for (const struct hcl_item *it = hcl_root(h)->items; it != NULL && rc == 0; it = it->next)
        rc = read_top(&r, hcl_root(h), it);
    hcl_free(h);
    return rc;
}

/* ---- files ---- */

static int read_file(const char *path, struct buf *out, struct err *err)
{
    FILE *f = fopen(path, "re");
    size_t n;

    if (f == NULL)
        return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno,
                       "configuration: open %s", path);
    do {
        uint8_t *p = buf_reserve(out, 65536);
        if (p == NULL)
            break;
        n = fread(p, 1, 65536, f);
        buf_filled(out, n);
    } while (n > 0 && out->len <= CONFIG_FILE_MAX_BYTES);
    if (ferror(f)) {
        err_set(err, ERR_IO, errno, "configuration: read %s", path);
        fclose(f);
        return -1;
    }
    fclose(f);
    if (out->len > CONFIG_FILE_MAX_BYTES)
        return err_set(err, ERR_INVAL, 0, "configuration: %s is larger than 4 MiB", path);
    return buf_check(out, err);
}

static int load_file(const char *path, struct config *c, struct err *err)
{
    struct buf text = {0};
    int rc = read_file(path, &text, err);

    if (rc == 0)
        rc = config_parse(buf_str(&text), text.len, path, c, err);
    buf_free(&text);
    return rc;
}

static int is_config_name(const struct dirent *e)
{
    size_t n = strlen(e->d_name);

    return e->d_name[0] != '.' && ((n > 4 && strcmp(e->d_name + n - 4, ".hcl") == 0) ||
                                   (n > 5 && strcmp(e->d_name + n - 5, ".json") == 0));
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int load_dir(const char *dir, struct config *c, struct err *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, is_config_name, by_bytes), rc = 0;

    if (n < 0)
        return err_set(err, ERR_IO, errno, "configuration: read the directory %s", dir);
    if (n == 0)
        rc = err_set(err, ERR_NOTFOUND, 0, "configuration: no .hcl or .json file in %s", dir);
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (rc == 0) {
            if (snprintf(path, sizeof(path), "%s/%s", dir, names[i]->d_name) >= (int)sizeof(path))
                rc = err_set(err, ERR_INVAL, 0, "configuration: path too long in %s", dir);
            else
                rc = load_file(path, c, err);
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

int config_load(const char *const *paths, size_t n, struct config *c, struct err *err)
{
    config_init(c);
    if (n == 0)
        return err_set(err, ERR_INVAL, 0, "configuration: no file given: use -config=FILE");
    for (size_t i = 0; i < n; i++) {
        struct stat st;
        if (stat(paths[i], &st) != 0)
            return err_set(err, errno == ENOENT ? ERR_NOTFOUND : ERR_IO, errno,
                           "configuration: open %s", paths[i]);
        if ((S_ISDIR(st.st_mode) ? load_dir(paths[i], c, err) : load_file(paths[i], c, err)) != 0)
            return -1;
    }
    return 0;
}
