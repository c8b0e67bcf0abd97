/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * mounts_config.c - the values of a mount's configuration, as sys/mounts, sys/auth and tune take
 * them.
 *
 * A value that cannot be used is answered 400 and nothing of the request is stored.
 */
#include <string.h>

#include "core.h"
#include "mounts_private.h"

const char *const mount_config_lists[] = {
    "audit_non_hmac_request_keys", "audit_non_hmac_response_keys", "passthrough_request_headers",
    "allowed_response_headers", NULL};

int mount_ttl_value(struct arena *a, const json_t *v, bool *givenp, int64_t *secondsp,
                    const char **textp, struct err *err)
{
    *givenp = false;
    *textp = "";
    if (v == NULL || json_is_null(v))
        return 0;
    if (json_is_integer(v)) {
        *givenp = true;
        *secondsp = json_integer_value(v);
        *textp = arena_printf(a, "%lld", (long long)*secondsp);
    } else if (json_is_real(v)) {
        *textp = arena_printf(a, "%.17g", json_real_value(v));
        return err_set(err, ERR_INVAL, 0, "time: missing unit in duration \"%s\"",
                       *textp != NULL ? *textp : "");
    } else if (json_is_string(v)) {
        *textp = json_string_value(v);
        if ((*textp)[0] == '\0')
            return 0;
        *givenp = true;
        *secondsp = 0;
        if (strcmp(*textp, "system") != 0 && parse_seconds(*textp, secondsp, err) != 0)
            return -1;
    } else {
        return err_set(err, ERR_INVAL, 0, "could not parse duration from input");
    }
    return *secondsp >= 0 ? 0
                          : err_set(err, ERR_INVAL, 0, "cannot provide negative value '%lld'",
                                    (long long)*secondsp);
}

static int visibility_check(struct response *rs, const char *v)
{
    if (v[0] == '\0' || strcmp(v, "hidden") == 0 || strcmp(v, "unauth") == 0)
        return 0;
    reply_error(rs, 400, "invalid listing_visibility %s", v);
    return -1;
}

int mount_config_extras(struct request *rq, struct response *rs, json_t *src, bool auth,
                        json_t *config)
{
    struct request view = *rq; /* the same conversions, of the object that holds these fields */
    const char *visibility, *token_type;
    json_t *list;

    view.data = src;
    if (field_str(&view, rs, "listing_visibility", NULL, &visibility) != 0 ||
        field_str(&view, rs, "token_type", NULL, &token_type) != 0)
        return -1;
    if (visibility != NULL) {
        if (visibility_check(rs, visibility) != 0)
            return -1;
        if (visibility[0] == '\0')
            json_object_del(config, "listing_visibility");
        else
            json_object_set_new(config, "listing_visibility", json_string(visibility));
    }
    if (token_type != NULL && token_type[0] != '\0') {
        if (!auth) {
            reply_error(rs, 400, "'token_type' can only be modified on auth mounts");
            return -1;
        }
        if (strcmp(token_type, "default-service") != 0 && strcmp(token_type, "service") != 0) {
            reply_error(rs, 400, "invalid value for 'token_type'");
            return -1;
        }
        json_object_set_new(config, "token_type", json_string(token_type));
    }
    for (size_t i = 0; mount_config_lists[i] != NULL; i++) {
        if (field_list(&view, rs, mount_config_lists[i], &list) != 0)
            return -1;
        if (list != NULL && json_array_size(list) > 0)
            json_object_set(config, mount_config_lists[i], list);
        else if (list != NULL)
            json_object_del(config, mount_config_lists[i]);
        json_decref(list);
    }
    return 0;
}

json_t *mount_config_new(struct request *rq, struct response *rs, json_t *given, bool auth)
{
    struct request view = *rq;
    const char *text;
    int64_t dflt = 0, max = 0;
    bool is_given, no_cache = false;
    struct err err = {0};
    json_t *config;

    view.data = given;
    if (mount_ttl_value(rq->arena, json_object_get(given, "default_lease_ttl"), &is_given, &dflt,
                        &text, &err) != 0) {
        reply_error(rs, 400, "unable to parse default TTL of %s: %s", text, err.msg);
        return NULL;
    }
    if (mount_ttl_value(rq->arena, json_object_get(given, "max_lease_ttl"), &is_given, &max, &text,
                        &err) != 0) {
        reply_error(rs, 400, "unable to parse max TTL of %s: %s", text, err.msg);
        return NULL;
    }
    if (max != 0 && dflt > max) {
        reply_error(rs, 400, "given default lease TTL greater than given max lease TTL");
        return NULL;
    }
    if (max == 0 && dflt > rq->core->config->max_lease_ttl_s) {
        reply_error(rs, 400, "given default lease TTL greater than system max lease TTL of %lld",
                    (long long)rq->core->config->max_lease_ttl_s);
        return NULL;
    }
    if (field_bool(&view, rs, "force_no_cache", false, &no_cache) != 0)
        return NULL;
    config = json_pack("{s:I,s:I,s:b}", "default_lease_ttl", (json_int_t)dflt, "max_lease_ttl",
                       (json_int_t)max, "force_no_cache", no_cache);
    if (config == NULL) {
        reply_router_error(rs, 500, "out of memory");
        return NULL;
    }
    if (auth)
        json_object_set_new(config, "token_type", json_string("default-service"));
    if (mount_config_extras(rq, rs, given, auth, config) != 0) {
        json_decref(config);
        return NULL;
    }
    return config;
}
