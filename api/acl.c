/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * acl.c - which rule of some policies decides on a path, and whether it lets a request through.
 *
 * One pattern decides. An exact path comes first (for LIST also the path without its final slash);
 * among the patterns that match: the one whose first wildcard comes later, then one that does not
 * end in '*', then fewer '+', then the longer. Rules with the same pattern in several policies are
 * joined: a deny in any of them wins, else capabilities add up. Nothing matches: denied.
 */
#include <string.h>

#include "mounts.h"
#include "policy_private.h"
#include "token_private.h"

/* ---- matching ---- */

static bool matches_segments(const struct policy_rule *r, const char *path)
{
    const char *p = r->path, *s = path;

    for (;;) {
        size_t pn = strcspn(p, "/"), sn = strcspn(s, "/");
        bool p_last = p[pn] == '\0', s_last = s[sn] == '\0';

        if (pn == 1 && *p == '+') {
            /* any segment */
        } else if (pn == sn && memcmp(p, s, pn) == 0) {
            /* the same */
        } else {
            return r->prefix && p_last && pn < sn && memcmp(p, s, pn) == 0;
        }
        if (p_last)
            return s_last || r->prefix;
        if (s_last)
            return false;
        p += pn + 1;
        s += sn + 1;
    }
}

static bool matches(const struct policy_rule *r, const char *path)
{
    if (r->segments)
        return matches_segments(r, path);
    return r->prefix && strncmp(path, r->path, strlen(r->path)) == 0;
}

static bool better(const struct policy_rule *a, const struct policy_rule *b)
{
    size_t an = strlen(a->path), bn = strlen(b->path);

    if (a->wild_at != b->wild_at)
        return a->wild_at > b->wild_at;
    if (a->prefix != b->prefix)
        return !a->prefix;
    if (a->plus != b->plus)
        return a->plus < b->plus;
    if (an != bn)
        return an > bn;
    return strcmp(a->path, b->path) < 0;
}

static bool is_exact(const struct policy_rule *r, const char *path, size_t len)
{
    return !r->prefix && !r->segments && strncmp(r->path, path, len) == 0 && r->path[len] == '\0';
}

static bool same_pattern(const struct policy_rule *a, const struct policy_rule *b)
{
    return a->prefix == b->prefix && a->segments == b->segments && strcmp(a->path, b->path) == 0;
}

/* Every rule of the pattern that decides. Two loops: no break in the body. */
#define EACH_JOINED(r, ps, n, found)                                                               \
    for (size_t i_ = 0; i_ < (n); i_++)                                                            \
        for (const struct policy_rule *r = (ps)[i_]->rules; r != NULL; r = r->next)                \
            if (same_pattern(r, found))

static const struct policy_rule *find_exact(const struct policy *const *ps, size_t n,
                                            const char *path, size_t len)
{
    for (size_t i = 0; i < n; i++)
        for (const struct policy_rule *r = ps[i]->rules; r != NULL; r = r->next)
            if (is_exact(r, path, len))
                return r;
    return NULL;
}

const struct policy_rule *acl_find(const struct policy *const *ps, size_t n, const char *path,
                                   bool list, unsigned *capsp)
{
    size_t len = strlen(path);
    const struct policy_rule *best = find_exact(ps, n, path, len);

    *capsp = 0;
    if (best == NULL && list && len > 0 && path[len - 1] == '/')
        best = find_exact(ps, n, path, len - 1);
    if (best == NULL) {
        for (size_t i = 0; i < n; i++)
            for (const struct policy_rule *r = ps[i]->rules; r != NULL; r = r->next)
                if (matches(r, path) && (best == NULL || better(r, best)))
                    best = r;
    }
    if (best == NULL)
        return NULL;
    EACH_JOINED(r, ps, n, best)
    {
        *capsp |= r->caps;
    }
    if (*capsp & CAP_DENY)
        *capsp = CAP_DENY;
    return best;
}

unsigned acl_capabilities(const struct policy *const *ps, size_t n, const char *path, bool list)
{
    unsigned caps;

    acl_find(ps, n, path, list, &caps);
    return caps == CAP_DENY ? 0 : caps;
}

/* ---- parameters ---- */

static bool value_matches(const json_t *pattern, const json_t *value)
{
    if (json_is_string(pattern) && json_is_string(value))
        return glob_match(json_string_value(pattern), json_string_value(value));
    if (json_is_number(pattern) && json_is_number(value))
        return json_number_value(pattern) == json_number_value(value);
    return json_equal(pattern, value);
}

/* An empty list stands for every value. */
static bool value_listed(const json_t *list, const json_t *value)
{
    size_t i;
    json_t *e;

    if (json_array_size(list) == 0)
        return true;
    json_array_foreach((json_t *)list, i, e) if (value_matches(e, value)) return true;
    return false;
}

static bool wrapping_passes(const struct policy *const *ps, size_t n,
                            const struct policy_rule *found, int64_t ttl_s)
{
    int64_t min = 0, max = 0; /* the lesser of those given */

    EACH_JOINED(r, ps, n, found)
    {
        if (r->min_wrap_s > 0 && (min == 0 || r->min_wrap_s < min))
            min = r->min_wrap_s;
        if (r->max_wrap_s > 0 && (max == 0 || r->max_wrap_s < max))
            max = r->max_wrap_s;
    }
    if (min == 0 && max == 0)
        return true;
    return ttl_s > 0 && ttl_s >= min && (max == 0 || (ttl_s <= max && max >= min));
}

static bool required_given(const struct policy_rule *r, const json_t *data)
{
    size_t i;
    json_t *name;

    json_array_foreach(r->required, i, name) if (json_object_get(data, json_string_value(name)) ==
                                                 NULL) return false;
    return true;
}

/* Parameter names are compared in lower case. */
static void lower(const char *s, char *out, size_t len)
{
    size_t i = 0;

    for (; s[i] != '\0' && i + 1 < len; i++)
        out[i] = (char)(s[i] >= 'A' && s[i] <= 'Z' ? s[i] + 32 : s[i]);
    out[i] = '\0';
}

struct verdict { /* on one parameter */
    bool denied, allowed;
    bool limited; /* some rule lists what is allowed */
    bool named;   /* the parameter itself is listed */
};

static struct verdict judge(const struct policy *const *ps, size_t n,
                            const struct policy_rule *found, const char *key, const json_t *value)
{
    struct verdict v = {0};
    bool star = false, listed = false;
    char name[512];

    lower(key, name, sizeof(name));
    EACH_JOINED(r, ps, n, found)
    {
        const json_t *list = json_object_get(r->denied, name);

        if (json_object_get(r->denied, "*") != NULL || (list != NULL && value_listed(list, value)))
            v.denied = true;
        if (json_object_size(r->allowed) > 0)
            v.limited = true;
        if (json_object_get(r->allowed, "*") != NULL)
            star = true;
        list = json_object_get(r->allowed, name);
        if (list != NULL) {
            v.named = true;
            listed = listed || value_listed(list, value);
        }
    }
    v.allowed = !v.limited || (v.named ? listed : star);
    return v;
}

bool acl_parameters_pass(const struct policy *const *ps, size_t n, const struct policy_rule *found,
                         const struct acl_request *rq)
{
    const char *key;
    json_t *value;

    if (!wrapping_passes(ps, n, found, rq->wrap_ttl_s))
        return false;
    if (rq->op == OP_DELETE || rq->op == OP_LIST)
        return true;
    EACH_JOINED(r, ps, n, found)
    {
        if (!required_given(r, rq->data))
            return false;
    }
    json_object_foreach((json_t *)rq->data, key, value)
    {
        struct verdict v = judge(ps, n, found, key, value);

        if (v.denied || !v.allowed)
            return false;
    }
    return true;
}

/* ---- the decision on a request ---- */

struct policy_set {
    struct policy *list[POLICIES_MAX];
    size_t n;
    bool root;
};

static void set_drop(struct policy_set *s)
{
    while (s->n > 0)
        policy_free(s->list[--s->n]);
}

/* The policies of a token; a name without a policy gives nothing. */
static int set_load(struct core *c, const struct token *t, struct policy_set *s, struct err *err)
{
    size_t i;
    json_t *v;

    s->n = 0;
    s->root = list_has(t->policies, "root");
    if (s->root)
        return 0;
    json_array_foreach(t->policies, i, v)
    {
        struct policy *p;

        if (s->n == POLICIES_MAX) {
            set_drop(s);
            return err_set(err, ERR_INVAL, 0, "a token with more than %d policies", POLICIES_MAX);
        }
        if (policy_get(c, json_string_value(v), &p, err) != 0) {
            set_drop(s);
            return -1;
        }
        if (p != NULL)
            s->list[s->n++] = p;
    }
    return 0;
}

static unsigned needed(const struct request *rq, bool exists)
{
    switch (rq->op) {
    case OP_READ:
        return CAP_READ;
    case OP_WRITE:
        return exists ? CAP_UPDATE : CAP_CREATE;
    case OP_DELETE:
        return CAP_DELETE;
    case OP_LIST:
        return CAP_LIST;
    case OP_PATCH:
        return CAP_PATCH;
    }
    return CAP_ROOT; /* not reached: no rule grants it */
}

int policy_check(struct request *rq, struct response *rs, bool exists, bool sudo)
{
    struct acl_request what = {.op = rq->op, .data = rq->data, .wrap_ttl_s = rq->wrap_ttl_s};
    const struct policy *const *ps;
    const struct policy_rule *rule;
    struct policy_set set = {0};
    struct err err = {0};
    unsigned caps, need = needed(rq, exists) | (sudo ? CAP_SUDO : 0u);
    bool pass;

    if (rq->token == NULL) {
        reply_error(rs, 403, "permission denied");
        return -1;
    }
    if (set_load(rq->core, rq->token, &set, &err) != 0) {
        reply_err(rs, &err);
        return -1;
    }
    if (set.root)
        return 0;
    ps = (const struct policy *const *)set.list;
    rule = acl_find(ps, set.n, rq->full_path, rq->op == OP_LIST, &caps);
    pass = rule != NULL && (caps & need) == need && acl_parameters_pass(ps, set.n, rule, &what);
    set_drop(&set);
    if (!pass)
        reply_router_error(rs, 403, "permission denied");
    return pass ? 0 : -1;
}

int policy_capabilities(struct request *rq, const struct token *t, const char *path,
                        unsigned *capsp, struct err *err)
{
    struct policy_set set = {0};

    *capsp = 0;
    if (set_load(rq->core, t, &set, err) != 0)
        return -1;
    *capsp = set.root ? (unsigned)CAP_ROOT
                      : acl_capabilities((const struct policy *const *)set.list, set.n, path, true);
    set_drop(&set);
    return 0;
}
