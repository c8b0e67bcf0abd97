/* SPDX-License-Identifier: GPL-3.0-or-later */
#include <criterion/criterion.h>
#include <string.h>

#include "mounts.h"
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
