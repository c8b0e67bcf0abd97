/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * acl_list.c - what a token may, as a list: the names of capabilities, and
 * sys/internal/ui/resultant-acl, by which a user interface knows what to offer.
 */
#include <string.h>

#include "policy_private.h"
#include "sys.h"
#include "token.h"
#include "token_private.h"

json_t *capabilities_json(unsigned caps)
{
    /* The names' order is the alphabet's, which the bits' is not. */
    static const unsigned each[] = {CAP_CREATE, CAP_DELETE, CAP_LIST,  CAP_PATCH,
                                    CAP_READ,   CAP_SUDO,   CAP_UPDATE};
    json_t *list = json_array();

    if (caps == 0 || (caps & CAP_DENY))
        json_array_append_new(list, json_string("deny"));
    else if (caps & CAP_ROOT)
        json_array_append_new(list, json_string("root"));
    else
        for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++)
            if (caps & each[i])
                json_array_append_new(list, json_string(capability_name(each[i])));
    return list;
}

/* Rules of the same pattern are joined, as for a decision; bits for now. */
static int join(const struct policy *p, json_t *exact, json_t *glob)
{
    for (const struct policy_rule *r = p->rules; r != NULL; r = r->next) {
        json_t *into = r->prefix || r->segments ? glob : exact, *have;

        have = json_object_get(into, r->path);
        if (json_object_set_new(into, r->path,
                                json_integer(json_integer_value(have) | (json_int_t)r->caps)) != 0)
            return -1;
    }
    return 0;
}

static json_t *named(const json_t *bits)
{
    json_t *out = json_object(), *v;
    const char *path;

    json_object_foreach((json_t *)bits, path, v) json_object_set_new(
        out, path,
        json_pack("{s:o}", "capabilities", capabilities_json((unsigned)json_integer_value(v))));
    return out;
}

void sys_resultant_acl(struct request *rq, struct response *rs)
{
    json_t *exact, *glob, *name;
    struct err err = {0};
    size_t i;

    if (rq->op != OP_READ) {
        reply_unsupported(rs);
        return;
    }
    if (rq->token == NULL) {
        reply_error(rs, 403, "permission denied");
        return;
    }
    if (list_has(rq->token->policies, "root")) {
        reply_data(rs, json_pack("{s:b}", "root", 1));
        return;
    }
    exact = json_object();
    glob = json_object();
    json_array_foreach(rq->token->policies, i, name)
    {
        struct policy *p = NULL;

        if (err.code == 0 && policy_get(rq->core, json_string_value(name), &p, &err) == 0 &&
            p != NULL && join(p, exact, glob) != 0)
            err_set(&err, ERR_NOMEM, 0, "out of memory");
        policy_free(p);
    }
    if (err.code != 0)
        reply_err(rs, &err);
    else
        reply_data(rs, json_pack("{s:b, s:o, s:o}", "root", 0, "exact_paths", named(exact),
                                 "glob_paths", named(glob)));
    json_decref(exact);
    json_decref(glob);
}
