/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ui_mounts.c - sys/internal/ui/mounts: what clients ask before they use a mount (the kv commands
 * do so each time).
 *
 * Invariant: a caller learns of a mount only when it is listed for everybody, or when the caller's
 * policies grant something in it.
 */
#include <string.h>

#include "core.h"
#include "mounts.h"
#include "mounts_private.h"
#include "policy_private.h"
#include "token.h"

static bool listed(const struct mount *m)
{
    const char *v =
        json_string_value(json_object_get(json_object_get(m->row, "config"), "listing_visibility"));

    return v != NULL && strcmp(v, "unauth") == 0;
}

static json_t *listed_json(const struct mount *m)
{
    json_t *options = json_deep_copy(json_object_get(m->row, "options"));

    return json_pack("{s:s,s:o,s:s}", "description", m->description, "options", options, "type",
                     m->type);
}

/* Whether the pattern can match something in the folder (which ends in '/'). */
static bool reaches(const struct policy_rule *r, const char *folder)
{
    const char *p = r->path, *s = folder;

    for (;;) {
        size_t pn = strcspn(p, "/"), sn = strcspn(s, "/");

        if (*s == '\0')
            return true; /* what is left of the pattern lies in the folder */
        if (p[pn] == '\0' && r->prefix && pn <= sn && strncmp(p, s, pn) == 0)
            return true; /* the pattern's end is open from here */
        if (p[pn] == '\0' || !((pn == 1 && *p == '+') || (pn == sn && strncmp(p, s, pn) == 0)))
            return false;
        p += pn + 1;
        s += sn + 1;
    }
}

/* Whether one of the token's policies grants something in the mount. */
static int grants_in(struct request *rq, const char *mount_path, bool *yesp, struct err *err)
{
    const json_t *names = rq->token->policies;

    for (size_t i = 0; !*yesp && i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        struct policy *p = NULL;

        if (strcmp(name, "root") == 0) {
            *yesp = true;
            break;
        }
        if (policy_get(rq->core, name, &p, err) != 0)
            return -1;
        for (const struct policy_rule *r = p != NULL ? p->rules : NULL; r != NULL && !*yesp;
             r = r->next)
            *yesp = (r->caps & (unsigned)CAP_DENY) == 0 && r->caps != 0 && reaches(r, mount_path);
        policy_free(p);
    }
    return 0;
}

/* Whether the caller may know of m. -1: answered. */
static int may_see(struct request *rq, struct response *rs, const struct mount *m, bool *yesp)
{
    struct err err = {0};

    *yesp = listed(m);
    if (*yesp || grants_in(rq, m->path, yesp, &err) == 0)
        return 0;
    reply_err(rs, &err);
    return -1;
}

static void ui_list(struct request *rq, struct response *rs)
{
    json_t *groups[2] = {json_object(), json_object()}; /* secret, auth */
    struct mount_table *t = NULL;
    const struct mount *m;
    struct err err = {0};

    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        goto out;
    }
    for (size_t i = 0; (m = mount_at(t, i)) != NULL; i++) {
        bool yes = false;

        if (rq->token == NULL)
            yes = listed(m);
        else if (may_see(rq, rs, m, &yes) != 0)
            goto out;
        if (yes &&
            json_object_set_new(groups[m->auth], mount_shown_path(m->path),
                                rq->token == NULL ? listed_json(m) : mount_entry_json(m)) != 0) {
            reply_router_error(rs, 500, "out of memory");
            goto out;
        }
    }
    reply_data(rs, json_pack("{s:O,s:O}", "secret", groups[0], "auth", groups[1]));
out:
    mount_table_unref(t);
    json_decref(groups[0]);
    json_decref(groups[1]);
}

static void ui_one(struct request *rq, struct response *rs, const char *path)
{
    struct mount_table *t = NULL;
    const struct mount *m;
    struct err err = {0};
    size_t len = strlen(path);
    const char *rest = "";
    json_t *entry;
    bool yes = false;

    if (rq->token == NULL) {
        reply_error(rs, 403, "permission denied");
        return;
    }
    if (mount_table_get(rq->core, &t, &err) != 0) {
        reply_err(rs, &err);
        return;
    }
    m = mount_find(t, path, &rest);
    if (m != NULL && may_see(rq, rs, m, &yes) != 0)
        goto out;
    if (!yes) {
        reply_error(rs, 403,
                    "preflight capability check returned 403, please ensure client's policies "
                    "grant access to path "
                    "\"%s%s\"",
                    path, len > 0 && path[len - 1] == '/' ? "" : "/");
        goto out;
    }
    entry = mount_entry_json(m);
    if (json_object_set_new(entry, "path", json_string(mount_shown_path(m->path))) != 0) {
        json_decref(entry);
        entry = NULL;
    }
    reply_data(rs, entry);
out:
    mount_table_unref(t);
}

void ui_mounts_handle(struct request *rq, struct response *rs)
{
    const char *below = "internal/ui/mounts/", *path = rq->path;

    if (rq->op != OP_READ)
        reply_unsupported(rs);
    else if (strncmp(path, below, strlen(below)) == 0 && path[strlen(below)] != '\0')
        ui_one(rq, rs, path + strlen(below));
    else
        ui_list(rq, rs);
}
