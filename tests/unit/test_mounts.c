/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a user relies on when mounts come, change and go. */
#include "fake_core.h"

TestSuite(mounts, .init = fake_start, .fini = fake_stop, .timeout = 20);

static size_t rows_under(const char *prefix)
{
    size_t n = 0;

    for (size_t i = fake_at(prefix);
         i < fake.n && strncmp(fake.rows[i].key, prefix, strlen(prefix)) == 0; i++)
        n++;
    return n;
}

static void fill(const char *mount, int n)
{
    char path[64];

    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof(path), "%s/k%d/x", mount, i);
        cr_assert_eq(fake_status(OP_WRITE, path, "{\"a\":1}"), 204);
    }
}

Test(mounts, longest_path_finds_the_mount_and_neighbours_do_not_shadow)
{
    struct mount_table *t;
    struct err err = {0};
    const char *rest;

    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a-b", "{\"type\":\"kv\"}"), 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a.b/c", "{\"type\":\"kv\"}"), 204);
    cr_assert_eq(mount_table_get(&fake.core, &t, &err), 0);
    cr_expect_str_eq(mount_find(t, "a/x/y", &rest)->path, "a/");
    cr_expect_str_eq(rest, "x/y");
    cr_expect_str_eq(mount_find(t, "a", &rest)->path, "a/");
    cr_expect_str_eq(rest, "");
    cr_expect_str_eq(mount_find(t, "a-b/x", &rest)->path, "a-b/");
    cr_expect_str_eq(mount_find(t, "a.b/c/", &rest)->path, "a.b/c/");
    cr_expect_str_eq(mount_find(t, "auth/token/create", &rest)->path, "auth/token/");
    cr_expect_null(mount_find(t, "a.b", &rest));
    cr_expect_null(mount_find(t, "ab/x", &rest));
    cr_expect_null(mount_find(t, "", &rest));
    mount_table_unref(t);
}

Test(mounts, a_path_in_use_is_refused)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/p/q", "{\"type\":\"kv\"}"), 204);
    expect(OP_WRITE, "sys/mounts/p", "{\"type\":\"kv\"}", 400, "errors",
           "[\"path is already in use at p/q/\"]");
    expect(OP_WRITE, "sys/mounts/p/q/r", "{\"type\":\"kv\"}", 400, "errors",
           "[\"path is already in use at p/q/\"]");
    expect(OP_WRITE, "sys/mounts/sys", "{\"type\":\"kv\"}", 400, "errors",
           "[\"cannot mount \\\"sys/\\\"\"]");
    expect(OP_WRITE, "sys/mounts/n", "{\"type\":\"nope\"}", 400, "errors",
           "[\"plugin not found in the catalog: nope\"]");
    expect(OP_WRITE, "sys/mounts/n", "{}", 400, "errors",
           "[\"backend type must be specified as a string\"]");
    expect(OP_WRITE, "sys/mounts/n", "{\"type\":\"kv\",\"options\":{\"version\":3}}", 400, "errors",
           "[\"nil backend of type \\\"kv\\\" returned from factory\"]");
}

Test(mounts, disabling_removes_all_data_in_small_transactions)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 1000);
    cr_assert_eq(rows_under("logical/"), 1000);
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    cr_assert_eq(rows_under("logical/"), 1000, "the answer waited for the removal");
    cr_expect_eq(fake_status(OP_READ, "a/k1/x", NULL), 404);
    fake_run();
    cr_assert_eq(rows_under("logical/"), 0);
    cr_assert_eq(rows_under("core/detached/"), 0);
    cr_assert_leq(fake.largest, 257);
}

/* What goes on in the background lets others write between its transactions: of a removal, and of
 * an upgrade. The last two may be one behind the other: the last rows, and the row that asked. */
Test(mounts, large_changes_pause_between_their_transactions)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 1500);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a/tune", "{\"options\":{\"version\":\"2\"}}"),
                 200);
    fake.row = fake.row_max = 0;
    fake_run();
    cr_assert_eq(rows_under("logical/"), 2 * 1500);
    cr_expect_leq(fake.row_max, 3, "an upgrade is %u transactions without a pause", fake.row_max);
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    fake.row = fake.row_max = 0;
    fake_run();
    cr_assert_eq(rows_under("logical/"), 0);
    cr_expect_leq(fake.row_max, 2, "a removal is %u transactions without a pause", fake.row_max);
}

Test(mounts, the_same_path_mounted_again_is_empty)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 3);
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    expect(OP_READ, "a/k1/x", NULL, 404, "errors", "[]");
}

Test(mounts, removal_goes_on_after_a_restart)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 1000);
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    fake.refuse_after = 3; /* two steps of the removal, then the server is gone */
    fake.waits_left = 4;
    fake_run();
    cr_assert_gt(rows_under("logical/"), 0);
    cr_assert_lt(rows_under("logical/"), 1000);
    /* the next life */
    fake.refuse_after = 0;
    fake.waits_left = 10000;
    fake.n_spawned = 0;
    fake.core.stopping = false;
    fake.open = false;
    mounts_forget(&fake.core);
    fake.open = true;
    cr_assert_eq(fake_status(OP_READ, "sys/mounts", NULL), 200);
    fake_run();
    cr_assert_eq(rows_under("logical/"), 0);
    cr_assert_eq(rows_under("core/detached/"), 0);
}

Test(mounts, removal_waits_for_requests_that_saw_the_mount)
{
    struct mount_table *t;
    struct err err = {0};

    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 3);
    cr_assert_eq(mount_table_get(&fake.core, &t, &err), 0); /* a request under way */
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    fake.waits_left = 20;
    fake_run();
    cr_assert_eq(rows_under("logical/"), 3);
    mount_table_unref(t);
    fake.core.stopping = false;
    fake.waits_left = 20;
    mounts_sweep_start(&fake.core);
    fake_run();
    cr_assert_eq(rows_under("logical/"), 0);
}

Test(mounts, a_secondary_removes_nothing)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 3);
    cr_assert_eq(fake_status(OP_DELETE, "sys/mounts/a", NULL), 204);
    fake.core.role = ENGINE_SECONDARY;
    fake_run();
    cr_assert_eq(rows_under("logical/"), 3);
    fake.core.role = ENGINE_PRIMARY; /* promoted */
    cr_assert_eq(fake_status(OP_READ, "sys/mounts", NULL), 200);
    fake_run();
    cr_assert_eq(rows_under("logical/"), 0);
}

Test(mounts, upgrade_keeps_every_secret_as_version_one)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 600);
    expect(OP_WRITE, "sys/mounts/a/tune", "{\"options\":{\"version\":\"2\"}}", 200, "warnings.0",
           "\"Upgrading mount from version 0 to version 2. This mount will be unavailable for a "
           "brief period and will resume "
           "service shortly.\"");
    cr_expect_eq(fake_status(OP_READ, "a/data/k1/x", NULL), 400,
                 "the mount answers while its rows are rewritten");
    fake_run();
    expect(OP_READ, "a/data/k599/x", NULL, 200, "data.data", "{\"a\":1}");
    expect(OP_READ, "a/data/k0/x", NULL, 200, "data.metadata.version", "1");
    expect(OP_WRITE, "a/data/k0/x", "{\"data\":{\"a\":2}}", 200, "data.version", "2");
    cr_assert_eq(rows_under("logical/"), 2 * 600 + 1, "old rows are left");
    expect(OP_WRITE, "sys/mounts/a/tune", "{\"options\":{\"version\":\"1\"}}", 400, "errors",
           "[\"cannot downgrade mount from version 2\"]");
}

Test(mounts, upgrade_keeps_the_deepest_secret_readable)
{
    struct buf text = {0};

    for (int i = 0; i < 500; i++)
        buf_adds(&text, "{\"k\":");
    buf_adds(&text, "1");
    for (int i = 0; i < 500; i++)
        buf_adds(&text, "}");
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    cr_assert_eq(fake_status(OP_WRITE, "a/k", buf_str(&text)), 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a/tune", "{\"options\":{\"version\":\"2\"}}"),
                 200);
    fake_run();
    cr_expect_eq(fake_status(OP_READ, "a/data/k", NULL), 200);
    buf_free(&text);
}

Test(mounts, tune_checks_and_keeps_what_is_not_given)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\",\"description\":\"d\"}"),
                 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a/tune", "{\"default_lease_ttl\":\"30m\"}"),
                 204);
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a/tune", "{\"max_lease_ttl\":7200}"), 204);
    expect(
        OP_WRITE, "sys/mounts/a/tune", "{\"max_lease_ttl\":\"10m\"}", 400, "errors",
        "[\"backend max lease TTL of 600 would be less than backend default lease TTL of 1800\"]");
    expect(OP_READ, "sys/mounts/a/tune", NULL, 200, "data",
           "{\"default_lease_ttl\":1800,\"description\":\"d\",\"force_no_cache\":false,\"max_lease_"
           "ttl\":7200}");
    cr_assert_eq(fake_status(OP_WRITE, "a/k", "{\"x\":1}"), 204);
    expect(OP_READ, "a/k", NULL, 200, "lease_duration", "1800");
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a/tune", "{\"default_lease_ttl\":\"system\"}"),
                 204);
    expect(OP_READ, "a/k", NULL, 200, "lease_duration", "2764800");
    expect(OP_WRITE, "sys/mounts/n/tune", "{\"description\":\"x\"}", 400, "errors",
           "[\"tune of path \\\"n/\\\" failed: no mount entry found\"]");
}

Test(mounts, remount_takes_the_data_along)
{
    struct fake_answer a;
    char path[128];

    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    fill("a", 1);
    a = fake_call(OP_WRITE, "sys/remount", "{\"from\":\"a\",\"to\":\"/b/c/\"}");
    cr_assert_eq(a.status, 200);
    snprintf(path, sizeof(path), "sys/remount/status/%s",
             json_string_value(json_object_get(json_object_get(a.body, "data"), "migration_id")));
    json_decref(a.body);
    expect(OP_READ, path, NULL, 200, "data.migration_info.status", "\"success\"");
    expect(OP_READ, "b/c/k0/x", NULL, 200, "data", "{\"a\":1}");
    cr_expect_eq(fake_status(OP_READ, "a/k0/x", NULL), 404);
    expect(OP_WRITE, "sys/remount", "{\"from\":\"x\",\"to\":\"y\"}", 400, "errors",
           "[\"no matching mount at \\\"x/\\\"\"]");
    expect(OP_WRITE, "sys/remount", "{\"from\":\"sys\",\"to\":\"y\"}", 400, "errors",
           "[\"cannot remount \\\"sys/\\\"\"]");
    cr_expect_eq(fake_status(OP_READ, "sys/remount/status/none", NULL), 404);
}

Test(mounts, builtin_mounts_stay)
{
    expect(OP_DELETE, "sys/mounts/sys", NULL, 400, "errors", "[\"cannot unmount \\\"sys/\\\"\"]");
    expect(OP_DELETE, "sys/auth/token", NULL, 400, "errors",
           "[\"token credential backend cannot be disabled\"]");
    expect(OP_WRITE, "sys/auth/token", "{\"type\":\"token\"}", 400, "errors",
           "[\"token credential backend cannot be instantiated\"]");
    expect(OP_DELETE, "sys/mounts/auth/token", NULL, 400, "errors",
           "[\"cannot unmount \\\"auth/token/\\\"\"]");
    cr_expect_eq(fake_status(OP_DELETE, "sys/mounts/nope", NULL), 204);
    expect(OP_READ, "sys/auth/token", NULL, 200, "data.type", "\"token\"");
}

Test(mounts, secrets_of_version_one_are_replaced_whole)
{
    cr_assert_eq(fake_status(OP_WRITE, "sys/mounts/a", "{\"type\":\"kv\"}"), 204);
    cr_assert_eq(fake_status(OP_WRITE, "a/f/k", "{\"x\":12345678901234567890,\"ttl\":\"30m\"}"),
                 204);
    expect(OP_READ, "a/f/k", NULL, 200, "lease_duration", "1800");
    cr_assert_eq(fake_status(OP_WRITE, "a/f/k", "{\"y\":1}"), 204);
    expect(OP_READ, "a/f/k", NULL, 200, "data", "{\"y\":1}");
    cr_assert_eq(fake_status(OP_WRITE, "a/f", "{\"y\":1}"), 204);
    expect(OP_LIST, "a/", NULL, 200, "data.keys", "[\"f\",\"f/\"]");
    expect(OP_LIST, "a/f/k/", NULL, 404, "errors", "[]");
    expect(OP_WRITE, "a/f/k", "{}", 400, "errors", "[\"missing data fields\"]");
    expect(OP_WRITE, "a", "{\"y\":1}", 400, "errors", "[\"missing path\"]");
    cr_assert_eq(fake_status(OP_DELETE, "a/f/k", NULL), 204);
    expect(OP_READ, "a/f/k", NULL, 404, "errors", "[]");
    cr_expect_eq(fake_status(OP_PATCH, "a/f", "{\"y\":1}"), 405);
}

Test(mounts, cubbyhole_keeps_to_its_token)
{
    cr_assert_eq(fake_status(OP_WRITE, "cubbyhole/k", "{\"x\":1}"), 204);
    expect(OP_READ, "cubbyhole/k", NULL, 200, "data", "{\"x\":1}");
    cr_assert_eq(rows_under(CUBBYHOLE_PREFIX "0123/"), 1);
    expect(OP_WRITE, "cubbyhole/k", "{}", 500, "errors",
           "[\"1 error occurred:\\n\\t* missing data fields\\n\\n\"]");
}

Test(mounts, a_sealed_server_shows_none)
{
    struct mount_table *t;
    struct err err = {0};

    fake.open = false;
    mounts_forget(&fake.core);
    cr_assert_eq(mount_table_get(&fake.core, &t, &err), -1);
    cr_assert_eq(err.code, ERR_SEALED);
}
