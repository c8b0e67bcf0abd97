/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * token_create.c - auth/token/create: which token may be made, and with what.
 *
 * A child is committed first and its parent looked at again afterwards: when the parent went
 * meanwhile, the child is revoked and never answered, so no child outlives a revocation that was
 * answered before it.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mounts.h"
#include "policy_private.h"
#include "token_private.h"

#define LEASE_TTL_S 2764800 /* 768h, where the configuration says nothing */

static int64_t default_ttl(const struct core *c)
{
    int64_t s = c->config != NULL ? c->config->default_lease_ttl_s : 0;

    return s > 0 ? s : LEASE_TTL_S;
}

static int64_t max_ttl(const struct core *c)
{
    int64_t s = c->config != NULL ? c->config->max_lease_ttl_s : 0;

    return s > 0 ? s : LEASE_TTL_S;
}

/* "768h", "1h30m", "45s". */
static const char *ttl_text(struct arena *a, int64_t s)
{
    char h[32] = "", m[32] = "", sec[32] = "";
    const char *text;

    if (s >= 3600)
        snprintf(h, sizeof(h), "%lldh", (long long)(s / 3600));
    if (s % 3600 >= 60)
        snprintf(m, sizeof(m), "%lldm", (long long)(s % 3600 / 60));
    if (s % 60 != 0 || s == 0)
        snprintf(sec, sizeof(sec), "%llds", (long long)(s % 60));
    text = arena_printf(a, "%s%s%s", h, m, sec);
    return text != NULL ? text : "";
}

int64_t token_ttl_grant(struct request *rq, struct response *rs, const struct ttl_rule *r)
{
    int64_t max = max_ttl(rq->core), ttl, left;

    if (r->period_s > 0) {
        ttl = r->period_s;
        if (ttl > max) {
            reply_warning(rs,
                          "Period of \"%s\" exceeded the effective max_ttl of \"%s\"; Period "
                          "value is capped accordingly",
                          ttl_text(rq->arena, ttl), ttl_text(rq->arena, max));
            ttl = max;
        }
        if (r->explicit_max_s == 0)
            return ttl;
    } else {
        ttl = r->wanted_s > 0 ? r->wanted_s : default_ttl(rq->core);
    }
    if (r->explicit_max_s > 0 && r->explicit_max_s < max)
        max = r->explicit_max_s;
    left = max - (rq->now_ms / 1000 - r->start_ms / 1000);
    if (ttl > left) {
        reply_warning(rs,
                      "TTL of \"%s\" exceeded the effective max_ttl of \"%s\"; TTL value is "
                      "capped accordingly",
                      ttl_text(rq->arena, ttl), ttl_text(rq->arena, max));
        ttl = left;
    }
    return ttl;
}

/* ---- create ---- */

struct create { /* what a creation asks for */
    struct token_role *role;
    const struct token *parent;
    bool sudo, orphan;
    const char *id, *display_name;
    json_t *policies, *meta; /* owned */
    bool no_default, no_parent, renewable, batch;
    int64_t ttl_s, explicit_max_s, period_s, num_uses;
};

int token_seconds_field(struct request *rq, struct response *rs, const char *name, int64_t *outp)
{
    struct err err = {0};
    const char *text;

    *outp = 0;
    if (!field_given(rq, name))
        return 0;
    if (field_str(rq, rs, name, "", &text) != 0)
        return -1;
    if (parse_seconds(text, outp, &err) != 0) {
        reply_error(rs, 400, "%s", err.msg);
        return -1;
    }
    if (*outp < 0) {
        reply_error(rs, 400, "%s must be positive", name);
        return -1;
    }
    return 0;
}

static const char *const known_create[] = {"id",
                                           "policies",
                                           "meta",
                                           "ttl",
                                           "lease",
                                           "explicit_max_ttl",
                                           "period",
                                           "no_parent",
                                           "no_default_policy",
                                           "display_name",
                                           "num_uses",
                                           "renewable",
                                           "type",
                                           "entity_alias",
                                           "role_name",
                                           NULL};

static int create_fields(struct request *rq, struct response *rs, struct create *cr)
{
    const char *type, *alias;

    if (field_str(rq, rs, "id", "", &cr->id) != 0 ||
        field_list(rq, rs, "policies", &cr->policies) != 0 ||
        field_string_map(rq, rs, "meta", &cr->meta) != 0 ||
        field_str(rq, rs, "display_name", "", &cr->display_name) != 0 ||
        field_int(rq, rs, "num_uses", 0, &cr->num_uses) != 0 ||
        field_bool(rq, rs, "renewable", true, &cr->renewable) != 0 ||
        field_bool(rq, rs, "no_parent", false, &cr->no_parent) != 0 ||
        field_bool(rq, rs, "no_default_policy", false, &cr->no_default) != 0 ||
        field_str(rq, rs, "type", "", &type) != 0 ||
        field_str(rq, rs, "entity_alias", "", &alias) != 0)
        return -1;
    if (cr->num_uses < 0) {
        reply_error(rs, 400, "number of uses cannot be negative");
        return -1;
    }
    if (*alias != '\0') {
        reply_error(rs, 400,
                    cr->role == NULL
                        ? "'entity_alias' is only allowed in combination with token role"
                        : "invalid 'entity_alias' value");
        return -1;
    }
    if (cr->role != NULL && strcmp(cr->role->type, "service") == 0)
        type = "service";
    if (cr->role != NULL && strcmp(cr->role->type, "batch") == 0)
        type = "batch";
    if (*type == '\0')
        type =
            cr->role != NULL && strcmp(cr->role->type, "default-batch") == 0 ? "batch" : "service";
    cr->batch = strcmp(type, "batch") == 0;
    if (!cr->batch && strcmp(type, "service") != 0) {
        reply_error(rs, 400, "invalid 'token_type' value");
        return -1;
    }
    return 0;
}

static int check_id(struct response *rs, const struct create *cr)
{
    if (*cr->id == '\0')
        return 0;
    if (!cr->sudo)
        reply_error(rs, 400, "root or sudo privileges required to specify token id");
    else if (strncmp(cr->id, "s.", 2) == 0 || strncmp(cr->id, "hvs.", 4) == 0)
        reply_error(rs, 400, "custom token ID cannot have the '%.*s.' prefix",
                    (int)strcspn(cr->id, "."), cr->id);
    else if (strchr(cr->id, '.') != NULL)
        reply_error(rs, 400, "custom token ID cannot have a '.' in the value");
    else
        return 0;
    return -1;
}

/* What a token that is all in its id cannot have. */
static int check_batch(struct response *rs, struct create *cr)
{
    const char *bad = NULL;

    if (!cr->batch)
        return 0;
    if (cr->num_uses != 0)
        bad = "num_uses";
    else if (*cr->id != '\0')
        bad = "id";
    else if (cr->explicit_max_s != 0)
        bad = "explicit_max_ttl";
    else if (cr->period_s != 0)
        bad = "period";
    if (bad != NULL)
        reply_error(rs, 400, "batch tokens cannot have \"%s\" set", bad);
    else if (list_has(cr->policies, "root"))
        reply_error(rs, 400, "batch tokens cannot be root tokens");
    else {
        cr->renewable = false;
        return 0;
    }
    return -1;
}

/* ["a" "b"], as Go prints a list of strings. */
static const char *list_text(struct arena *a, const json_t *list)
{
    const char *text = "[", *next;
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)list, i, v)
    {
        next = arena_printf(a, "%s%s\"%s\"", text, i > 0 ? " " : "", json_string_value(v));
        if (next == NULL)
            return "";
        text = next;
    }
    next = arena_printf(a, "%s]", text);
    return next != NULL ? next : "";
}

static bool subset(const json_t *of, const json_t *list)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)list, i, v) if (!list_has(of, json_string_value(v))) return false;
    return true;
}

static void list_drop(json_t *list, const char *s)
{
    for (size_t i = json_array_size(list); i-- > 0;)
        if (strcmp(json_string_value(json_array_get(list, i)), s) == 0)
            json_array_remove(list, i);
}

static void replace_list(json_t **listp, json_t *with)
{
    json_decref(*listp);
    *listp = with;
}

static bool role_limits(const struct token_role *r)
{
    return r != NULL && json_array_size(r->allowed) + json_array_size(r->allowed_glob) +
                                json_array_size(r->disallowed) +
                                json_array_size(r->disallowed_glob) >
                            0;
}

/* A role with lists of policies has its own rules: the parent's policies do not bound it. */
static int role_policies(struct request *rq, struct response *rs, struct create *cr)
{
    const struct token_role *r = cr->role;
    bool add_default = !cr->no_default && !r->no_default_policy &&
                       !list_has(r->disallowed, "default") &&
                       !list_has_glob(r->disallowed_glob, "default");
    bool asked = json_array_size(cr->policies) > 0;
    bool bounded = json_array_size(r->allowed) + json_array_size(r->allowed_glob) > 0;
    json_t *allowed = policies_sanitize(r->allowed, add_default), *v;
    size_t i;
    int rc = -1;

    if (asked)
        replace_list(&cr->policies, policies_sanitize(cr->policies, add_default));
    else if (bounded)
        replace_list(&cr->policies, json_incref(allowed));
    else
        replace_list(&cr->policies, policies_sanitize(cr->parent->policies, add_default));
    json_array_foreach(cr->policies, i, v)
    {
        const char *name = json_string_value(v);

        if (bounded && !list_has(allowed, name) && !list_has_glob(r->allowed_glob, name)) {
            reply_error(rs, 400,
                        "token policies (%s) must be subset of the role's allowed policies (%s) "
                        "or glob policies (%s)",
                        list_text(rq->arena, cr->policies), list_text(rq->arena, allowed),
                        list_text(rq->arena, r->allowed_glob));
            goto out;
        }
        if (list_has(r->disallowed, name) || list_has_glob(r->disallowed_glob, name)) {
            reply_error(rs, 400, "token policy \"%s\" is disallowed by this role", name);
            goto out;
        }
    }
    rc = 0;
out:
    json_decref(allowed);
    return rc;
}

static int create_policies(struct request *rq, struct response *rs, struct create *cr)
{
    const json_t *parents = cr->parent->policies;
    bool add_default = false;

    if (role_limits(cr->role)) {
        if (role_policies(rq, rs, cr) != 0)
            return -1;
    } else if (json_array_size(cr->policies) == 0) {
        replace_list(&cr->policies, json_copy((json_t *)parents));
    } else if (cr->sudo) {
        add_default = !cr->no_default;
    } else {
        json_t *clean = policies_sanitize(cr->policies, false);
        bool ok = subset(parents, clean);

        json_decref(clean);
        if (!ok) {
            reply_error(rs, 400, "child policies must be subset of parent");
            return -1;
        }
        add_default = !cr->no_default && list_has(parents, "default");
    }
    replace_list(&cr->policies, policies_sanitize(cr->policies, add_default));
    if (cr->no_default || (cr->role != NULL && cr->role->no_default_policy))
        list_drop(cr->policies, "default");
    if (cr->policies == NULL) {
        reply_error(rs, 500, "out of memory");
        return -1;
    }
    if (list_has(cr->policies, "response-wrapping")) {
        reply_error(rs, 400, "cannot assign policy \"response-wrapping\"");
        return -1;
    }
    if (list_has(cr->policies, "root") && !list_has(parents, "root")) {
        reply_error(rs, 400, "root tokens may not be created without parent token being root");
        return -1;
    }
    return 0;
}

static int64_t lesser(int64_t a, int64_t b) /* of those that are set */
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static int64_t role_bound(struct response *rs, const char *what, int64_t asked, int64_t role)
{
    int64_t s = lesser(asked, role);

    if (asked != 0 && role != 0)
        reply_warning(rs,
                      "%s specified both during creation call and in role; using the lesser value "
                      "of %lld seconds",
                      what, (long long)s);
    return s;
}

static int create_times(struct request *rq, struct response *rs, struct create *cr)
{
    struct ttl_rule rule = {.start_ms = rq->now_ms};
    bool root = list_has(cr->policies, "root");

    if (token_seconds_field(rq, rs, "explicit_max_ttl", &cr->explicit_max_s) != 0 ||
        token_seconds_field(rq, rs, "period", &cr->period_s) != 0 ||
        token_seconds_field(rq, rs, field_given(rq, "ttl") ? "ttl" : "lease", &cr->ttl_s) != 0)
        return -1;
    if (cr->period_s > 0 && !cr->sudo) {
        reply_error(rs, 400, "root or sudo privileges required to create periodic token");
        return -1;
    }
    if (cr->role != NULL) {
        cr->explicit_max_s =
            role_bound(rs, "Explicit max TTL", cr->explicit_max_s, cr->role->explicit_max_ttl_s);
        cr->period_s = role_bound(rs, "Period", cr->period_s, cr->role->period_s);
        cr->num_uses = lesser(cr->num_uses, cr->role->num_uses);
        cr->renewable = cr->renewable && cr->role->renewable;
    }
    if (check_batch(rs, cr) != 0)
        return -1;
    if (cr->period_s > 0 || cr->ttl_s > 0 || !root) {
        rule.wanted_s = cr->ttl_s;
        rule.period_s = cr->period_s;
        rule.explicit_max_s = cr->explicit_max_s;
        cr->ttl_s = token_ttl_grant(rq, rs, &rule);
    }
    if (cr->ttl_s == 0 && cr->explicit_max_s > 0)
        cr->ttl_s = cr->explicit_max_s;
    if (cr->ttl_s == 0) {
        if (cr->parent->expire_ms != 0) {
            reply_error(rs, 400, "expiring root tokens cannot create non-expiring root tokens");
            return -1;
        }
        cr->renewable = false;
    }
    return 0;
}

static const char *create_display_name(struct request *rq, const struct create *cr)
{
    char *name;
    size_t len;

    if (*cr->display_name == '\0')
        return "token";
    name = arena_printf(rq->arena, "token-%s", cr->display_name);
    if (name == NULL)
        return NULL;
    for (char *s = name; *s != '\0'; s++)
        if (!isalnum((unsigned char)*s))
            *s = '-';
    len = strlen(name);
    if (name[len - 1] == '-')
        name[len - 1] = '\0';
    return name;
}

static const char *create_path(struct request *rq, const struct create *cr)
{
    if (cr->role == NULL || *cr->role->path_suffix == '\0')
        return arena_printf(rq->arena, "auth/token/%s", rq->path);
    return arena_printf(rq->arena, "auth/token/%s/%s", rq->path, cr->role->path_suffix);
}

/* A custom id that is in use, or whose last owner's tree is still being removed, is not given out
 * again. */
static int check_unused(struct request *rq, struct response *rs, const char *hmac)
{
    const char *path = arena_printf(rq->arena, TOKEN_REVOKE_PREFIX "%s", hmac);
    struct err err = {0};
    struct token *old;
    json_t *tomb = NULL;
    bool used = token_read(rq, hmac, &old, &err) == 0;

    if (!used && err.code == ERR_NOTFOUND && path != NULL) {
        err_clear(&err);
        used = storage_get(rq->core, path, &tomb, &err) == 0;
        json_decref(tomb);
    }
    if (used) {
        reply_error(rs, 400, "cannot create a token with a duplicate ID");
        return -1;
    }
    if (err.code != ERR_NOTFOUND) {
        reply_err(rs, &err);
        return -1;
    }
    return 0;
}

static void warn_missing_policies(struct request *rq, struct response *rs, const json_t *policies)
{
    size_t i;
    json_t *v;

    json_array_foreach((json_t *)policies, i, v)
    {
        const char *name = json_string_value(v);
        struct policy *p = NULL;
        struct err err = {0};

        if (strcmp(name, "root") == 0 || policy_get(rq->core, name, &p, &err) != 0)
            continue;
        if (p == NULL)
            reply_warning(rs, "Policy \"%s\" does not exist", name);
        policy_free(p);
    }
}

static int create_commit(struct request *rq, const struct token_new *n, struct token **tp,
                         struct err *err)
{
    struct batch *b = batch_new(rq->core);

    if (b == NULL)
        return err_set(err, ERR_NOMEM, 0, "new token");
    if (token_create(rq, b, n, tp, err) != 0) {
        batch_free(b);
        return -1;
    }
    return batch_commit(b, err);
}

/* A parent that is gone by now takes the new token along. */
static int check_parent(struct request *rq, const struct token *t, struct err *err)
{
    struct err again = {0};
    struct token *parent;

    if (*t->parent_hmac == '\0' || token_read(rq, t->parent_hmac, &parent, err) == 0)
        return 0;
    if (err->code != ERR_NOTFOUND)
        return -1;
    if (token_revoke(rq->core, t->hmac, &again) != 0)
        log_warn(rq->core->log, "token", "child of a revoked token stays, unanswered: %s",
                 again.msg);
    err_clear(err);
    return err_set(err, ERR_DENIED, 0, "the parent token was revoked");
}

static void create_token(struct request *rq, struct response *rs, struct create *cr)
{
    struct token_new n = {.id = *cr->id != '\0' ? cr->id : NULL,
                          .display_name = create_display_name(rq, cr),
                          .path = create_path(rq, cr),
                          .role = cr->role != NULL ? cr->role->name : "",
                          .policies = cr->policies,
                          .meta = json_object_size(cr->meta) > 0 ? cr->meta : NULL,
                          .cidrs = cr->role != NULL ? cr->role->cidrs : NULL,
                          .ttl_s = cr->ttl_s,
                          .explicit_max_ttl_s = cr->explicit_max_s,
                          .period_s = cr->period_s,
                          .num_uses = cr->num_uses,
                          .orphan = cr->orphan,
                          .renewable = cr->renewable,
                          .batch = cr->batch};
    struct token_latch latch;
    struct err err = {0};
    const char *hmac;
    struct token *t;
    int rc;

    if (!cr->orphan) {
        n.parent_hmac = cr->parent->hmac;
        n.entity_id = cr->parent->entity_id;
        n.chain_ms = lesser(cr->parent->expire_ms, cr->parent->chain_ms);
        if (cr->role == NULL) /* which has its own rules */
            n.cidrs = cr->parent->cidrs;
    }
    if (n.display_name == NULL || n.path == NULL) {
        reply_error(rs, 500, "out of memory");
        return;
    }
    if (n.id != NULL) {
        if (token_hmac(rq, n.id, &hmac, &err) != 0) {
            reply_err(rs, &err);
            return;
        }
        token_latch(rq->core, hmac, &latch);
        rc = check_unused(rq, rs, hmac);
        if (rc == 0 && (rc = create_commit(rq, &n, &t, &err)) != 0)
            reply_err(rs, &err);
        token_unlatch(rq->core, &latch);
        if (rc != 0)
            return;
    } else if (create_commit(rq, &n, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    if (check_parent(rq, t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    rs->auth = token_auth_block(t, cr->ttl_s);
    if (rs->auth == NULL) {
        reply_error(rs, 500, "out of memory");
        return;
    }
    warn_missing_policies(rq, rs, cr->policies);
    warn_unknown(rq, rs, false, known_create);
    if (n.id != NULL)
        reply_warning(rs, "Supplying a custom ID for the token makes it only as hard to guess as "
                          "that ID is");
}

static int create_allowed(struct request *rq, struct response *rs, struct create *cr)
{
    struct err err = {0};
    unsigned caps;

    if (cr->parent == NULL || cr->parent->num_uses < 0) {
        reply_error(rs, 403, "permission denied");
        return -1;
    }
    if (cr->parent->batch) {
        reply_error(rs, 400, "batch tokens cannot create more tokens");
        return -1;
    }
    if (cr->parent->num_uses > 0) {
        reply_error(rs, 400, "restricted use token cannot generate child tokens");
        return -1;
    }
    if (policy_capabilities(rq, cr->parent, rq->full_path, &caps, &err) != 0) {
        reply_err(rs, &err);
        return -1;
    }
    cr->sudo = (caps & (CAP_SUDO | CAP_ROOT)) != 0;
    return 0;
}

void token_create_handle(struct request *rq, struct response *rs, const char *role, bool orphan)
{
    struct create cr = {.parent = rq->token};
    struct err err = {0};

    if (rq->op != OP_WRITE) {
        reply_unsupported(rs);
        return;
    }
    if (role != NULL && token_role_get(rq, role, &cr.role, &err) != 0) {
        if (err.code == ERR_NOTFOUND)
            reply_error(rs, 400, "unknown role %s", role);
        else
            reply_err(rs, &err);
        return;
    }
    if (create_allowed(rq, rs, &cr) != 0 || create_fields(rq, rs, &cr) != 0 ||
        check_id(rs, &cr) != 0 || create_policies(rq, rs, &cr) != 0)
        goto out;
    if (cr.role != NULL) {
        cr.orphan = cr.role->orphan;
    } else if (cr.no_parent) {
        if (!cr.sudo) {
            reply_error(rs, 400, "root or sudo privileges required to create orphan token");
            goto out;
        }
        cr.orphan = true;
    } else {
        cr.orphan = orphan;
    }
    if (create_times(rq, rs, &cr) == 0)
        create_token(rq, rs, &cr);
out:
    json_decref(cr.policies);
    json_decref(cr.meta);
}
