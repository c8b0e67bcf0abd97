/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * policy.c - policy text to rules, and the cache of parsed policies.
 *
 * Errors are in Vault's words: an operator's tooling greps them. The cache maps a name to an
 * immutable, reference-counted policy (or to "none"). A reader that missed reads storage without a
 * lock and installs what it parsed only if no policy changed meanwhile, so a cached entry is never
 * older than the last applied write.
 */
#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hcl.h"
#include "policy_private.h"

#define CACHE_BUCKETS 256
#define CACHE_ENTRIES_MAX 4096

/* ---- rules ---- */

static const struct {
    const char *name;
    unsigned cap;
} capabilities[] = {{"create", CAP_CREATE}, {"delete", CAP_DELETE}, {"deny", CAP_DENY},
                    {"list", CAP_LIST},     {"patch", CAP_PATCH},   {"read", CAP_READ},
                    {"sudo", CAP_SUDO},     {"update", CAP_UPDATE}};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *capability_name(unsigned cap)
{
    for (size_t i = 0; i < COUNT(capabilities); i++)
        if (capabilities[i].cap == cap)
            return capabilities[i].name;
    return cap == CAP_ROOT ? "root" : NULL;
}

static unsigned capability_find(const char *name)
{
    for (size_t i = 0; i < COUNT(capabilities); i++)
        if (strcmp(capabilities[i].name, name) == 0)
            return capabilities[i].cap;
    return 0;
}

static const char *const root_keys[] = {"name", "path"};
static const char *const rule_keys[] = {
    "capabilities",        "policy",           "allowed_parameters", "denied_parameters",
    "required_parameters", "min_wrapping_ttl", "max_wrapping_ttl",   "comment"};

struct parse {
    struct policy *p;
    const char *key; /* path as written, for errors */
    bool stored;
    struct err *err;
};

/* All keys that are not known, as Vault lists them. The line is that of the '=' and 0 without one.
 */
static int check_keys(const struct hcl_value *object, const char *const *keys, size_t n_keys,
                      const char *before, struct err *err)
{
    struct buf text = {0};
    unsigned bad = 0;

    for (const struct hcl_item *it = object->items; it != NULL; it = it->next) {
        size_t i = 0;

        while (i < n_keys && strcmp(keys[i], it->key) != 0)
            i++;
        if (i < n_keys)
            continue;
        buf_printf(&text, "\t* %sinvalid key \"%s\" on line %d\n", before, it->key,
                   it->block ? 0 : it->line);
        bad++;
    }
    if (bad > 0)
        err_set(err, ERR_INVAL, 0, "%u error%s occurred:\n%s\n", bad, bad > 1 ? "s" : "",
                buf_str(&text));
    buf_free(&text);
    return bad > 0 ? -1 : 0;
}

static int bad_rule(struct parse *ps, const char *what)
{
    return err_set(ps->err, ERR_INVAL, 0, "path \"%s\": %s", ps->key, what);
}

static int no_memory(struct parse *ps)
{
    return err_set(ps->err, ERR_NOMEM, 0, "policy");
}

static json_t *scalar(const struct hcl_value *v)
{
    switch (v->kind) {
    case HCL_STRING:
        return json_string(v->text);
    case HCL_BOOL:
        return json_boolean(v->boolean);
    case HCL_NUMBER: {
        char *end;
        long long n = strtoll(v->text, &end, 0);

        return *end == '\0' ? json_integer(n) : json_real(strtod(v->text, NULL));
    }
    default:
        return NULL;
    }
}

/* A list of literals; one literal that was stored counts as a list of one. */
static int literals(struct parse *ps, const struct hcl_value *v, json_t **outp)
{
    json_t *list;
    const struct hcl_value *e = v->kind == HCL_LIST ? v->elems : v;

    *outp = NULL;
    if (!ps->stored && v->kind != HCL_LIST && v->kind != HCL_OBJECT)
        return err_set(ps->err, ERR_INVAL, 0,
                       "1 error occurred:\n\t* path \"%s\": At %d:%d: unknown slice type: "
                       "*ast.LiteralType\n\n",
                       ps->key, v->line, v->col);
    list = json_array();
    for (; list != NULL && e != NULL; e = v->kind == HCL_LIST ? e->next : NULL) {
        if (e->kind == HCL_LIST || e->kind == HCL_OBJECT) {
            json_decref(list);
            return bad_rule(ps, "expected a list of strings, numbers or booleans");
        }
        if (json_array_append_new(list, scalar(e)) != 0) {
            json_decref(list);
            return no_memory(ps);
        }
    }
    *outp = list;
    return list != NULL ? 0 : no_memory(ps);
}

/* Keep v (stolen) as long as the policy. */
static int keep(struct parse *ps, json_t *v)
{
    return v != NULL && json_array_append_new(ps->p->keep, v) == 0 ? 0 : no_memory(ps);
}

static void lower(char *s)
{
    for (; *s != '\0'; s++)
        *s = (char)tolower((unsigned char)*s);
}

static int set_parameters(struct parse *ps, const struct hcl_value *v, json_t **outp)
{
    json_t *map = json_object();

    if (keep(ps, map) != 0)
        return -1;
    if (v->kind != HCL_OBJECT)
        return bad_rule(ps, "parameters must be given as { \"name\" = [values] }");
    for (const struct hcl_item *it = v->items; it != NULL; it = it->next) {
        char *name = arena_strdup(ps->p->arena, it->key);
        json_t *list;

        if (name == NULL)
            return no_memory(ps);
        lower(name);
        if (literals(ps, it->value, &list) != 0)
            return -1;
        if (json_object_set_new(map, name, list) != 0)
            return no_memory(ps);
    }
    *outp = map;
    return 0;
}

static int set_required(struct parse *ps, const struct hcl_value *v, json_t **outp)
{
    json_t *names = json_array(), *list = NULL, *e;
    size_t i;
    int rc = -1;

    if (keep(ps, names) != 0 || literals(ps, v, &list) != 0)
        return -1;
    json_array_foreach(list, i, e)
    {
        char *name = json_is_string(e) ? arena_strdup(ps->p->arena, json_string_value(e)) : NULL;

        if (name == NULL) {
            bad_rule(ps, "required_parameters must be a list of strings");
            goto out;
        }
        lower(name);
        if (json_array_append_new(names, json_string(name)) != 0) {
            no_memory(ps);
            goto out;
        }
    }
    *outp = names;
    rc = 0;
out:
    json_decref(list);
    return rc;
}

static int set_ttl(struct parse *ps, const char *key, const struct hcl_value *v, int64_t *outp)
{
    struct err why = {0};

    if (v->kind != HCL_STRING && v->kind != HCL_NUMBER)
        return bad_rule(ps, "a duration must be a string or a number");
    if (parse_seconds(v->text, outp, &why) != 0)
        return err_set(ps->err, ERR_INVAL, 0, "error parsing %s: %s", key, why.msg);
    if (*outp < 0)
        return err_set(ps->err, ERR_INVAL, 0, "error parsing %s: duration cannot be negative", key);
    return 0;
}

static int set_capabilities(struct parse *ps, struct policy_rule *r, const struct hcl_value *v)
{
    json_t *list, *e;
    size_t i;
    int rc = 0;

    if (literals(ps, v, &list) != 0)
        return -1;
    json_array_foreach(list, i, e)
    {
        const char *name = json_string_value(e);
        unsigned cap = name != NULL ? capability_find(name) : 0;

        if (cap == 0) {
            rc = err_set(ps->err, ERR_INVAL, 0, "path \"%s\": invalid capability \"%s\"", ps->key,
                         name != NULL ? name : "");
            break;
        }
        r->caps |= cap;
        if (cap == CAP_DENY) /* what follows it is not even looked at */
            break;
    }
    json_decref(list);
    return rc;
}

static int set_old_policy(struct parse *ps, struct policy_rule *r, const struct hcl_value *v)
{
    const unsigned read = CAP_READ | CAP_LIST;
    const unsigned write = read | CAP_CREATE | CAP_UPDATE | CAP_DELETE;
    const char *name = v->kind == HCL_STRING ? v->text : "";

    if (strcmp(name, "deny") == 0)
        r->caps = CAP_DENY;
    else if (strcmp(name, "read") == 0)
        r->caps |= read;
    else if (strcmp(name, "write") == 0)
        r->caps |= write;
    else if (strcmp(name, "sudo") == 0)
        r->caps |= write | CAP_SUDO;
    else if (*name != '\0' || v->kind != HCL_STRING)
        return err_set(ps->err, ERR_INVAL, 0, "path \"%s\": invalid policy \"%s\"", ps->key, name);
    return 0;
}

/* The path's shape: which wildcards it has and where. Templates ({{identity...}}) are not filled
 * in: there are no entities to fill them from, and such a rule grants nothing, as Vault's for a
 * token without one. */
static int set_path(struct parse *ps, struct policy_rule *r)
{
    const char *s = *ps->key == '/' ? ps->key + 1 : ps->key;
    size_t len = strlen(s), plus_at;
    char *path;

    if (strstr(s, "+*") != NULL)
        return err_set(ps->err, ERR_INVAL, 0,
                       "path \"%s\": invalid use of wildcards ('+*' is forbidden)", s);
    path = arena_strdup(ps->p->arena, s);
    if (path == NULL)
        return no_memory(ps);
    r->segments = strcmp(s, "+") == 0 || strncmp(s, "+/", 2) == 0 || strstr(s, "/+") != NULL;
    if (len > 0 && path[len - 1] == '*') {
        r->prefix = true;
        path[--len] = '\0';
    }
    plus_at = strcspn(path, "+");
    r->wild_at = r->segments ? plus_at : len;
    for (const char *p = path; r->segments && *p != '\0';) {
        size_t n = strcspn(p, "/");

        r->plus += n == 1 && *p == '+';
        p += n + (p[n] == '/');
    }
    r->path = path;
    return 0;
}

static int set_key(struct parse *ps, struct policy_rule *r, const struct hcl_item *it)
{
    const struct hcl_value *v = it->value;

    if (strcmp(it->key, "allowed_parameters") == 0)
        return set_parameters(ps, v, &r->allowed);
    if (strcmp(it->key, "denied_parameters") == 0)
        return set_parameters(ps, v, &r->denied);
    if (strcmp(it->key, "required_parameters") == 0)
        return set_required(ps, v, &r->required);
    if (strcmp(it->key, "min_wrapping_ttl") == 0)
        return set_ttl(ps, it->key, v, &r->min_wrap_s);
    if (strcmp(it->key, "max_wrapping_ttl") == 0)
        return set_ttl(ps, it->key, v, &r->max_wrap_s);
    return 0; /* capabilities and policy come in a fixed order, comment says nothing */
}

static const struct hcl_value *last_of(const struct hcl_value *object, const char *key)
{
    const struct hcl_value *v = NULL;

    for (const struct hcl_item *it = object->items; it != NULL; it = it->next)
        if (strcmp(it->key, key) == 0)
            v = it->value;
    return v;
}

/* Each "{{" has its "}}", and none lies in another. */
static bool balanced(const char *s)
{
    for (;;) {
        const char *open = strstr(s, "{{"), *close = strstr(s, "}}");

        if (open == NULL || close == NULL)
            return open == close;
        if (close < open)
            return false;
        s = open + 2;
        open = strstr(s, "{{");
        close = strstr(s, "}}");
        if (close == NULL || (open != NULL && open < close))
            return false;
        s = close + 2;
    }
}

static int parse_rule(struct parse *ps, const struct hcl_item *item, struct policy_rule **rp)
{
    struct policy_rule *r = arena_alloc(ps->p->arena, sizeof(*r));
    const struct hcl_value *v;
    char *before;

    *rp = NULL;
    ps->key = item->n_labels > 0 ? item->labels[0] : "path";
    if (!ps->stored && !balanced(ps->key))
        return err_set(ps->err, ERR_INVAL, 0,
                       "failed to validate policy templating: unbalanced templating characters");
    before = arena_printf(ps->p->arena, "path \"%s\": ", ps->key);
    if (r == NULL || before == NULL)
        return no_memory(ps);
    if (item->value->kind != HCL_OBJECT)
        return bad_rule(ps, "a rule must be a block { ... }");
    if (check_keys(item->value, rule_keys, COUNT(rule_keys), before, ps->err) != 0 ||
        set_path(ps, r) != 0)
        return -1;
    v = last_of(item->value, "policy");
    if (v != NULL && set_old_policy(ps, r, v) != 0)
        return -1;
    v = last_of(item->value, "capabilities");
    if (v != NULL && set_capabilities(ps, r, v) != 0)
        return -1;
    for (const struct hcl_item *it = item->value->items; it != NULL; it = it->next)
        if (set_key(ps, r, it) != 0)
            return -1;
    if (r->caps & CAP_DENY)
        r->caps = CAP_DENY;
    if (r->min_wrap_s != 0 && r->max_wrap_s != 0 && r->max_wrap_s < r->min_wrap_s)
        return err_set(ps->err, ERR_INVAL, 0,
                       "max_wrapping_ttl cannot be less than min_wrapping_ttl");
    *rp = r;
    return 0;
}

static struct policy *policy_new(const char *name)
{
    struct policy *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    atomic_store(&p->refs, 1);
    p->arena = arena_new(4096);
    p->keep = json_array();
    p->name = p->arena != NULL ? arena_strdup(p->arena, name) : NULL;
    if (p->name == NULL || p->keep == NULL) {
        policy_free(p);
        return NULL;
    }
    return p;
}

void policy_free(struct policy *p)
{
    if (p == NULL || atomic_fetch_sub(&p->refs, 1) != 1)
        return;
    json_decref(p->keep);
    arena_free(p->arena);
    free(p);
}

static int parse(const char *name, const char *text, bool stored, struct policy **pp,
                 struct err *err)
{
    struct policy *p = policy_new(name);
    struct parse ps = {.p = p, .stored = stored, .err = err};
    struct policy_rule **tail;
    struct hcl *h = NULL;
    int rc = -1;

    *pp = NULL;
    if (p == NULL)
        return err_set(err, ERR_NOMEM, 0, "policy");
    tail = &p->rules;
    if (hcl_parse(text, strlen(text), &h, err) != 0 ||
        check_keys(hcl_root(h), root_keys, COUNT(root_keys), "", err) != 0)
        goto out;
    for (const struct hcl_item *it = hcl_root(h)->items; it != NULL; it = it->next) {
        if (strcmp(it->key, "path") != 0)
            continue;
        if (parse_rule(&ps, it, tail) != 0)
            goto out;
        tail = &(*tail)->next;
    }
    *pp = p;
    p = NULL;
    rc = 0;
out:
    hcl_free(h);
    policy_free(p);
    return rc;
}

int policy_parse(const char *name, const char *text, struct policy **pp, struct err *err)
{
    return parse(name, text, false, pp, err);
}

int policy_parse_stored(const char *name, const char *text, struct policy **pp, struct err *err)
{
    return parse(name, text, true, pp, err);
}

/* ---- the cache ---- */

struct entry {
    struct entry *next;
    char *name;
    struct policy *policy; /* NULL: there is none by that name */
};
struct policies {
    pthread_mutex_t mu;
    uint64_t changes; /* of any policy */
    size_t n;
    struct entry *buckets[CACHE_BUCKETS];
};

static size_t bucket_of(const char *name)
{
    uint32_t h = 2166136261u;

    for (; *name != '\0'; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return h % CACHE_BUCKETS;
}

static void entry_free(struct entry *e)
{
    policy_free(e->policy);
    free(e->name);
    free(e);
}

static void drop_all(struct policies *ps)
{
    for (size_t i = 0; i < CACHE_BUCKETS; i++)
        while (ps->buckets[i] != NULL) {
            struct entry *e = ps->buckets[i];

            ps->buckets[i] = e->next;
            entry_free(e);
        }
    ps->n = 0;
}

static struct entry **find(struct policies *ps, const char *name)
{
    struct entry **at = &ps->buckets[bucket_of(name)];

    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

void policy_forget(struct core *c, const char *name)
{
    struct policies *ps = c->policies;

    pthread_mutex_lock(&ps->mu);
    ps->changes++;
    if (name == NULL) {
        drop_all(ps);
    } else {
        struct entry **at = find(ps, name), *e = *at;

        if (e != NULL) {
            *at = e->next;
            ps->n--;
            entry_free(e);
        }
    }
    pthread_mutex_unlock(&ps->mu);
}

static void policy_changed(void *arg, const char *key, uint64_t lsn)
{
    (void)lsn;
    policy_forget(arg, key + strlen(POLICY_PREFIX));
}

int policies_new(struct core *c, struct err *err)
{
    struct policies *ps = calloc(1, sizeof(*ps));

    if (ps == NULL)
        return err_set(err, ERR_NOMEM, 0, "policy cache");
    pthread_mutex_init(&ps->mu, NULL);
    c->policies = ps;
    if (engine_watch(c->engine, POLICY_PREFIX, policy_changed, c, err) != 0) {
        policies_free(c);
        return -1;
    }
    return 0;
}

void policies_free(struct core *c)
{
    if (c->policies == NULL)
        return;
    drop_all(c->policies);
    pthread_mutex_destroy(&c->policies->mu);
    free(c->policies);
    c->policies = NULL;
}

int policy_row(struct core *c, const char *name, json_t **rowp, struct err *err)
{
    char path[512];

    *rowp = NULL;
    if (snprintf(path, sizeof(path), POLICY_PREFIX "%s", name) >= (int)sizeof(path))
        return err_set(err, ERR_NOTFOUND, 0, "no policy has so long a name");
    if (storage_get(c, path, rowp, err) != 0)
        return -1;
    if (!json_is_string(json_object_get(*rowp, "policy"))) {
        json_decref(*rowp);
        *rowp = NULL;
        return err_set(err, ERR_CORRUPT, 0, "policy %s", name);
    }
    return 0;
}

static int load(struct core *c, const char *name, struct policy **pp, struct err *err)
{
    json_t *row;
    int rc;

    *pp = NULL;
    if (policy_row(c, name, &row, err) != 0) {
        if (err->code != ERR_NOTFOUND)
            return -1;
        err_clear(err);
        return 0;
    }
    rc = policy_parse_stored(name, json_string_value(json_object_get(row, "policy")), pp, err);
    json_decref(row);
    if (rc != 0)
        err_wrap(err, "policy %s", name);
    return rc;
}

/* Install what a reader loaded, unless something changed since. Without memory it is simply not
 * cached. */
static void install(struct policies *ps, const char *name, struct policy *p, uint64_t seen)
{
    struct entry *e = calloc(1, sizeof(*e)), **at;

    if (e == NULL || (e->name = strdup(name)) == NULL) {
        free(e);
        return;
    }
    pthread_mutex_lock(&ps->mu);
    at = find(ps, name);
    if (ps->changes == seen && *at == NULL) {
        if (ps->n >= CACHE_ENTRIES_MAX)
            drop_all(ps);
        if (p != NULL)
            atomic_fetch_add(&p->refs, 1);
        e->policy = p;
        at = find(ps, name);
        e->next = *at;
        *at = e;
        ps->n++;
        e = NULL;
    }
    pthread_mutex_unlock(&ps->mu);
    if (e != NULL)
        entry_free(e);
}

int policy_get(struct core *c, const char *name, struct policy **pp, struct err *err)
{
    struct policies *ps = c->policies;
    struct entry *e;
    uint64_t seen;

    *pp = NULL;
    pthread_mutex_lock(&ps->mu);
    e = *find(ps, name);
    seen = ps->changes;
    if (e != NULL) {
        *pp = e->policy;
        if (*pp != NULL)
            atomic_fetch_add(&(*pp)->refs, 1);
    }
    pthread_mutex_unlock(&ps->mu);
    if (e != NULL)
        return 0;
    if (load(c, name, pp, err) != 0)
        return -1;
    install(ps, name, *pp, seen);
    return 0;
}
