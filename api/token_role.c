/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_role.c - token roles (auth/token/roles), and the rules for lists of policy names.
 *
 * A role is one row "sys/token/role/<name>" with the fields that its GET shows; what is missing in
 * it has its default.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "auth_login.h"
#include "mounts.h"
#include "token_private.h"

/* ---- lists of names ---- */

bool list_has(const json_t *list, const char *s)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)list, i, v) if (json_is_string(v) &&
                                                 strcmp(json_string_value(v), s) == 0) return true;
    return false;
}

bool glob_match(const char *pattern, const char *s)
{
    size_t n = strlen(pattern), len = strlen(s);
    bool head = n > 0 && pattern[0] == '*', tail = n > 0 && pattern[n - 1] == '*';

    if (n < 2)
        return strcmp(pattern, s) == 0 || head;
    if (head && tail)
        return n == 2 || memmem(s, len, pattern + 1, n - 2) != NULL;
    if (head)
        return len >= n - 1 && strcmp(s + len - (n - 1), pattern + 1) == 0;
    if (tail)
        return strncmp(s, pattern, n - 1) == 0;
    return strcmp(pattern, s) == 0;
}

bool list_has_glob(const json_t *list, const char *s)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)list, i,
                       v) if (json_is_string(v) && glob_match(json_string_value(v), s)) return true;
    return false;
}

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *name_clean(const char *s)
{
    size_t len = strlen(s);
    char *out;

    while (len > 0 && isspace((unsigned char)s[len - 1]))
        len--;
    while (len > 0 && isspace((unsigned char)*s)) {
        s++;
        len--;
    }
    out = strndup(s, len);
    for (size_t i = 0; out != NULL && out[i] != '\0'; i++)
        out[i] = (char)tolower((unsigned char)out[i]);
    return out;
}

json_t *policies_sanitize(const json_t *names, bool add_default)
{
    size_t size = json_array_size(names), n = 0;
    char **list = calloc(size + 2, sizeof(*list));
    json_t *out = json_array();
    bool ok = list != NULL && out != NULL;

    for (size_t i = 0; ok && i < size; i++) {
        const char *s = json_string_value(json_array_get(names, i));

        list[n] = name_clean(s != NULL ? s : "");
        ok = list[n] != NULL;
        if (ok && strcmp(list[n], "root") == 0) { /* all others mean nothing beside it */
            ok = json_array_append_new(out, json_string("root")) == 0;
            n++;
            goto out;
        }
        if (ok && list[n][0] == '\0')
            free(list[n]);
        else if (ok)
            n++;
    }
    if (ok && add_default) {
        list[n] = strdup("default");
        ok = list[n] != NULL;
        n += ok;
    }
    if (ok)
        qsort(list, n, sizeof(*list), name_cmp);
    for (size_t i = 0; ok && i < n; i++)
        if (i == 0 || strcmp(list[i], list[i - 1]) != 0)
            ok = json_array_append_new(out, json_string(list[i])) == 0;
out:
    for (size_t i = 0; list != NULL && i < n; i++)
        free(list[i]);
    free(list);
    if (!ok) {
        json_decref(out);
        out = NULL;
    }
    return out;
}

/* ---- roles ---- */

static const char *const role_lists[] = {"allowed_policies", "allowed_policies_glob",
                                         "disallowed_policies", "disallowed_policies_glob",
                                         "allowed_entity_aliases"};
static const char *const role_seconds[] = {"explicit_max_ttl", "period", "token_explicit_max_ttl",
                                           "token_period"};
static const char *const role_bools[] = {"orphan", "renewable", "token_no_default_policy"};

static const char *const known_role[] = {"role_name",
                                         "allowed_policies",
                                         "allowed_policies_glob",
                                         "disallowed_policies",
                                         "disallowed_policies_glob",
                                         "allowed_entity_aliases",
                                         "explicit_max_ttl",
                                         "period",
                                         "token_explicit_max_ttl",
                                         "token_period",
                                         "orphan",
                                         "renewable",
                                         "token_no_default_policy",
                                         "token_num_uses",
                                         "token_bound_cidrs",
                                         "bound_cidrs",
                                         "path_suffix",
                                         "token_type",
                                         NULL};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static json_t *role_defaults(const char *name)
{
    return json_pack(
        "{s:s, s:s, s:s, s:[], s:[], s:[], s:[], s:n, s:i, s:i, s:i, s:i, s:b, s:b, s:b}", "name",
        name, "path_suffix", "", "token_type", "default-service", "allowed_policies",
        "allowed_policies_glob", "disallowed_policies", "disallowed_policies_glob",
        "allowed_entity_aliases", "explicit_max_ttl", 0, "period", 0, "token_explicit_max_ttl", 0,
        "token_period", 0, "orphan", 0, "renewable", 1, "token_no_default_policy", 0);
}

static char *role_path(struct request *rq, const char *name)
{
    return arena_printf(rq->arena, TOKEN_ROLE_PREFIX "%s", name);
}

static int64_t first_int(const json_t *row, const char *a, const char *b)
{
    int64_t v = json_integer_value(json_object_get(row, a));

    return v != 0 ? v : json_integer_value(json_object_get(row, b));
}

int token_role_get(struct request *rq, const char *name, struct token_role **rp, struct err *err)
{
    const char *path = role_path(rq, name);
    struct token_role *r = arena_alloc(rq->arena, sizeof(*r));
    json_t *row = NULL;

    *rp = NULL;
    if (path == NULL || r == NULL)
        return err_set(err, ERR_NOMEM, 0, "role");
    if (storage_get(rq->core, path, &row, err) != 0)
        return -1;
    r->row = row = request_keep(rq, row);
    if (row == NULL)
        return err_set(err, ERR_NOMEM, 0, "role");
    r->name = json_string_value(json_object_get(row, "name"));
    r->path_suffix = json_string_value(json_object_get(row, "path_suffix"));
    r->type = json_string_value(json_object_get(row, "token_type"));
    r->allowed = json_object_get(row, "allowed_policies");
    r->allowed_glob = json_object_get(row, "allowed_policies_glob");
    r->disallowed = json_object_get(row, "disallowed_policies");
    r->disallowed_glob = json_object_get(row, "disallowed_policies_glob");
    r->cidrs = json_object_get(row, "token_bound_cidrs");
    if (r->name == NULL || r->path_suffix == NULL || r->type == NULL)
        return err_set(err, ERR_CORRUPT, 0, "role row");
    r->orphan = json_is_true(json_object_get(row, "orphan"));
    r->renewable = json_is_true(json_object_get(row, "renewable"));
    r->no_default_policy = json_is_true(json_object_get(row, "token_no_default_policy"));
    r->explicit_max_ttl_s = first_int(row, "token_explicit_max_ttl", "explicit_max_ttl");
    r->period_s = first_int(row, "token_period", "period");
    r->num_uses = json_integer_value(json_object_get(row, "token_num_uses"));
    *rp = r;
    return 0;
}

/* An old name sets the new one, too; the new one alone, or beside it, is what counts. */
static int one_of_two(struct request *rq, json_t *row, const char *old, const char *new)
{
    if (field_given(rq, new))
        return json_object_set_new(row, old, json_integer(0));
    return field_given(rq, old) ? json_object_set(row, new, json_object_get(row, old)) : 0;
}

static int role_uses(struct request *rq, struct response *rs, json_t *row)
{
    int64_t uses;

    if (!field_given(rq, "token_num_uses"))
        return 0;
    if (field_int(rq, rs, "token_num_uses", 0, &uses) != 0)
        return -1;
    if (uses < 0) {
        reply_error(rs, 400, "error parsing role fields: 'token_num_uses' cannot be negative");
        return -1;
    }
    if (uses == 0)
        json_object_del(row, "token_num_uses");
    else if (json_object_set_new(row, "token_num_uses", json_integer(uses)) != 0) {
        reply_error(rs, 500, "out of memory");
        return -1;
    }
    return 0;
}

/* The old name is shown only where it was the one that was given. A row has them only when they
 * bound something, as Vault shows a role. */
static int role_cidrs(struct request *rq, struct response *rs, json_t *row)
{
    bool old = !field_given(rq, "token_bound_cidrs");
    json_t *list;
    int bad = 0;

    if (auth_cidrs(rq, rs, old ? "bound_cidrs" : "token_bound_cidrs", &list) != 0)
        return -1;
    if (list == NULL)
        return 0;
    json_object_del(row, "token_bound_cidrs");
    json_object_del(row, "bound_cidrs");
    if (json_array_size(list) > 0) {
        bad |= json_object_set(row, "token_bound_cidrs", list);
        if (old)
            bad |= json_object_set(row, "bound_cidrs", list);
    }
    json_decref(list);
    if (bad != 0)
        reply_error(rs, 500, "out of memory");
    return bad;
}

/* A batch token is all in its id: nothing counts its uses, and nothing renews or revokes it. */
static int role_batch(struct response *rs, const json_t *row)
{
    const char *what;

    if (strcmp(token_row_str(row, "token_type"), "batch") != 0)
        return 0;
    if (!json_is_true(json_object_get(row, "orphan")))
        what = "non-orphan tokens";
    else if (first_int(row, "token_period", "period") != 0)
        what = "periodic tokens";
    else if (json_is_true(json_object_get(row, "renewable")))
        what = "renewable tokens";
    else if (first_int(row, "token_explicit_max_ttl", "explicit_max_ttl") != 0)
        what = "tokens with an explicit max TTL";
    else if (json_integer_value(json_object_get(row, "token_num_uses")) != 0)
        what = "tokens with limited use count";
    else
        return 0;
    reply_error(rs, 400, "'token_type' cannot be 'batch' when role is set to generate %s", what);
    return -1;
}

/* Lay the fields that the request gives over the row. */
static int role_merge(struct request *rq, struct response *rs, json_t *row)
{
    const char *s;

    for (size_t i = 0; i < COUNT(role_lists); i++) {
        json_t *list = NULL;

        if (!field_given(rq, role_lists[i]))
            continue;
        if (field_list(rq, rs, role_lists[i], &list) != 0)
            return -1;
        if (i < 4 && i % 2 == 0) { /* names; patterns stay as they are */
            json_t *clean = policies_sanitize(list, false);

            json_decref(list);
            list = clean;
        }
        if (json_object_set_new(row, role_lists[i], list) != 0)
            goto nomem;
    }
    for (size_t i = 0; i < COUNT(role_seconds); i++) {
        int64_t v;

        if (!field_given(rq, role_seconds[i]))
            continue;
        if (field_seconds(rq, rs, role_seconds[i], 0, &v) != 0)
            return -1;
        if (v < 0) {
            reply_error(rs, 400, "'%s' cannot be negative", role_seconds[i]);
            return -1;
        }
        if (json_object_set_new(row, role_seconds[i], json_integer(v)) != 0)
            goto nomem;
    }
    if (one_of_two(rq, row, "period", "token_period") != 0 ||
        one_of_two(rq, row, "explicit_max_ttl", "token_explicit_max_ttl") != 0)
        goto nomem;
    if (role_uses(rq, rs, row) != 0 || role_cidrs(rq, rs, row) != 0)
        return -1;
    for (size_t i = 0; i < COUNT(role_bools); i++) {
        bool v;

        if (!field_given(rq, role_bools[i]))
            continue;
        if (field_bool(rq, rs, role_bools[i], false, &v) != 0)
            return -1;
        if (json_object_set_new(row, role_bools[i], json_boolean(v)) != 0)
            goto nomem;
    }
    if (field_given(rq, "path_suffix")) {
        if (field_str(rq, rs, "path_suffix", "", &s) != 0)
            return -1;
        for (const char *p = s; *p != '\0'; p++)
            if (!isalnum((unsigned char)*p) && strchr("-_.", *p) == NULL) {
                reply_error(rs, 400,
                            "given role path suffix contains invalid characters; must match "
                            "^\\w[\\w-.]+$");
                return -1;
            }
        if (json_object_set_new(row, "path_suffix", json_string(s)) != 0)
            goto nomem;
    }
    if (field_given(rq, "token_type")) {
        if (field_str(rq, rs, "token_type", "default-service", &s) != 0)
            return -1;
        if (strcmp(s, "service") != 0 && strcmp(s, "batch") != 0 &&
            strcmp(s, "default-service") != 0 && strcmp(s, "default-batch") != 0) {
            reply_error(rs, 400, "invalid 'token_type' value \"%s\"", s);
            return -1;
        }
        if (json_object_set_new(row, "token_type", json_string(s)) != 0)
            goto nomem;
    }
    return 0;
nomem:
    reply_error(rs, 500, "out of memory");
    return -1;
}

static void role_write(struct request *rq, struct response *rs, const char *name)
{
    const char *path = role_path(rq, name);
    struct err err = {0};
    struct latch_ref latch;
    struct batch *b = NULL;
    json_t *row = NULL;

    if (path == NULL) {
        reply_error(rs, 500, "out of memory");
        return;
    }
    latch_acquire(rq->core, path, &latch);
    if (storage_get(rq->core, path, &row, &err) != 0) {
        if (err.code != ERR_NOTFOUND)
            goto fail;
        err_clear(&err);
        row = role_defaults(name);
    }
    b = batch_new(rq->core);
    if (row == NULL || b == NULL) {
        err_set(&err, ERR_NOMEM, 0, "role");
        goto fail;
    }
    if (role_merge(rq, rs, row) != 0 || role_batch(rs, row) != 0)
        goto out;
    if (batch_put(b, path, row, &err) != 0)
        goto fail;
    if (batch_commit(b, &err) == 0)
        reply_empty(rs);
    else
        reply_err(rs, &err);
    b = NULL;
    goto out;
fail:
    reply_err(rs, &err);
out:
    latch_release(rq->core, &latch);
    batch_free(b);
    json_decref(row);
}

static void role_delete(struct request *rq, struct response *rs, const char *name)
{
    storage_answer_delete(rq, rs, role_path(rq, name));
}

static void role_read(struct request *rq, struct response *rs, const char *name)
{
    struct token_role *role;
    struct err err = {0};

    if (token_role_get(rq, name, &role, &err) == 0)
        reply_data(rs, json_incref(role->row));
    else if (err.code == ERR_NOTFOUND)
        reply_no_errors(rs, 404);
    else
        reply_err(rs, &err);
}

void token_role_handle(struct request *rq, struct response *rs)
{
    const char *name = rq->path + strlen("roles");

    name += *name == '/';
    if (*name == '\0') {
        if (rq->op == OP_LIST)
            storage_answer_list(rq, rs, TOKEN_ROLE_PREFIX);
        else
            reply_unsupported(rs);
        return;
    }
    if (strchr(name, '/') != NULL) {
        reply_unsupported_path(rs);
        return;
    }
    switch (rq->op) {
    case OP_READ:
        role_read(rq, rs, name);
        break;
    case OP_WRITE:
        role_write(rq, rs, name);
        warn_unknown(rq, rs, false, known_role);
        break;
    case OP_DELETE:
        role_delete(rq, rs, name);
        break;
    default:
        reply_unsupported(rs);
    }
}
