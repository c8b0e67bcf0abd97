/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "mounts.h"
#include "replication_private.h"
#include "sys.h"

static struct arena *arena;
static struct response rs;

static void setup(void)
{
    arena = arena_new(4096);
    rs = (struct response){0};
}

static void clear(void)
{
    json_decref(rs.raw);
    json_decref(rs.errors);
    rs = (struct response){0};
}

static void teardown(void)
{
    clear();
    arena_free(arena);
}

TestSuite(catalog, .init = setup, .fini = teardown, .timeout = 10);

/* The help of a path below a mount, or NULL. */
static const char *help(const char *mount, const char *type, int kv_version, const char *path)
{
    struct mount m = {.path = mount, .type = type, .kv_version = kv_version};
    struct request rq = {.arena = arena, .mount = &m, .path = path};

    clear();
    help_handle(&rq, &rs);
    return json_string_value(json_object_get(rs.raw, "help"));
}

static const char *only_path(void)
{
    return json_object_iter_key(
        json_object_iter(json_object_get(json_object_get(rs.raw, "openapi"), "paths")));
}

Test(catalog, a_path_is_described_by_the_pattern_that_it_fits)
{
    cr_assert_str_eq(help("sys/", "system", 0, "mounts"), "List the secrets engines.");
    cr_assert_str_eq(only_path(), "/sys/mounts");
    cr_assert_str_eq(help("sys/", "system", 0, "mounts/kv/tune"),
                     "Look at or change a mount's settings.");
    cr_assert_str_eq(only_path(), "/sys/mounts/{path}/tune");
    cr_assert_str_eq(help("sys/", "system", 0, "mounts/deep/kv"),
                     "Look at, enable or disable a secrets engine.");
    cr_assert_str_eq(help("auth/token/", "token", 0, "create"), "Create a token.");
    cr_assert_str_eq(help("auth/token/", "token", 0, "create/app"), "Create a token by a role.");
    cr_assert_str_eq(only_path(), "/auth/token/create/{role}");
}

Test(catalog, a_last_name_stands_for_the_rest_and_never_for_nothing)
{
    cr_assert_str_eq(help("kv/", "kv", 1, "a/b/c"), "A secret.");
    cr_assert_null(help("kv/", "kv", 1, ""));
    cr_assert_eq(rs.status, 404);
    cr_assert_str_eq(help("s/", "kv", 2, "data/a/b"), "A version of a secret.");
    cr_assert_null(help("s/", "kv", 2, "nothing/a"));
    cr_assert_null(help("s/", "kv", 2, "data"));
    cr_assert_null(help("sys/", "system", 0, "mounts2"));
}

Test(catalog, a_parameter_is_listed_for_each_name_in_the_path)
{
    json_t *item, *parameters;

    cr_assert_not_null(help("auth/approle/", "approle", 0, "role/x/secret-id/lookup"));
    item = json_object_get(json_object_get(json_object_get(rs.raw, "openapi"), "paths"),
                           "/auth/approle/role/{role_name}/secret-id/lookup");
    parameters = json_object_get(item, "parameters");
    cr_assert_eq(json_array_size(parameters), 1);
    cr_assert_str_eq(json_string_value(json_object_get(json_array_get(parameters, 0), "name")),
                     "role_name");
    cr_assert_not_null(json_object_get(item, "post"));
    cr_assert_null(json_object_get(item, "get"));
}

/* ---- against what is routed ---- */

/* A pattern with each {name} filled in. */
static const char *sample(const char *pattern)
{
    static char out[256];
    size_t n = 0;

    for (; *pattern != '\0'; pattern++) {
        out[n++] = *pattern == '{' ? 'x' : *pattern;
        if (*pattern == '{')
            pattern += strcspn(pattern, "}");
    }
    out[n] = '\0';
    return out;
}

static bool route_takes(const char *route, const char *path)
{
    size_t n = strlen(route);

    return route[n - 1] == '*' ? strncmp(route, path, n - 1) == 0 : strcmp(route, path) == 0;
}

static bool raw_takes(const char *path)
{
    const char *raw;

    for (size_t i = 0; (raw = router_raw_at(i)) != NULL; i++)
        if (strcmp(raw + strlen("sys/"), path) == 0)
            return true;
    return false;
}

static bool routed(const char *path)
{
    const char *route;

    for (size_t i = 0; (route = sys_route_at(i)) != NULL; i++)
        if (strcmp(route, "replication/*") != 0 && route_takes(route, path))
            return true;
    return raw_takes(path);
}

/* NULL: none has this path. */
static const char *verb_ops(const char *path, bool *foundp)
{
    const char *verb, *ops;

    *foundp = false;
    if (strncmp(path, "replication/", 12) != 0)
        return NULL;
    for (size_t i = 0; (verb = replication_verb_at(i, &ops)) != NULL; i++)
        if (strcmp(verb, path + 12) == 0) {
            *foundp = true;
            return ops;
        }
    return NULL;
}

Test(catalog, each_path_of_sys_that_is_described_is_routed)
{
    const char *pattern, *type, *ops;

    for (size_t i = 0; (pattern = catalog_path_at(i, &type, &ops)) != NULL; i++) {
        const char *path = sample(pattern), *takes;
        bool verb;

        if (strcmp(type, "system") != 0)
            continue;
        takes = verb_ops(path, &verb);
        cr_expect(verb || routed(path), "sys/%s leads nowhere", pattern);
        cr_expect(takes == NULL || strcmp(takes, ops) == 0,
                  "sys/%s takes %s and is said to take %s", pattern, takes, ops);
    }
}

static bool described(const char *route)
{
    const char *pattern, *type, *ops;

    for (size_t i = 0; (pattern = catalog_path_at(i, &type, &ops)) != NULL; i++)
        if (strcmp(type, "system") == 0 &&
            (route_takes(route, sample(pattern)) ||
             (ops[0] == 'l' && strncmp(route, pattern, strlen(pattern)) == 0 &&
              strcmp(route + strlen(pattern), "/") == 0)))
            return true;
    return false;
}

Test(catalog, each_path_of_sys_that_is_routed_is_described)
{
    const char *path, *ops;
    char full[128];

    for (size_t i = 0; (path = router_raw_at(i)) != NULL; i++)
        cr_expect(described(path + strlen("sys/")), "%s is not described", path);
    for (size_t i = 0; (path = sys_route_at(i)) != NULL; i++)
        cr_expect(described(path), "sys/%s is not described", path);
    for (size_t i = 0; (path = replication_verb_at(i, &ops)) != NULL; i++) {
        snprintf(full, sizeof(full), "replication/%s", path);
        cr_expect(described(full), "sys/%s is not described", full);
    }
}
