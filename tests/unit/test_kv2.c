/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a user of versioned secrets relies on. */
#include "fake_core.h"

static void setup(void)
{
    fake_start();
    cr_assert_eq(
        fake_status(OP_WRITE, "sys/mounts/s", "{\"type\":\"kv\",\"options\":{\"version\":2}}"),
        204);
}

static void teardown(void)
{
    fake_stop();
}

TestSuite(kv2, .init = setup, .fini = teardown, .timeout = 20);

#define PUT(k, v) cr_assert_eq(fake_status(OP_WRITE, "s/data/" k, "{\"data\":{\"a\":" v "}}"), 200)

static size_t version_rows(void)
{
    size_t n = 0;

    for (size_t i = 0; i < fake.n; i++)
        n += strstr(fake.rows[i].key, "/2/data/") != NULL;
    return n;
}

Test(kv2, versions_count_up_and_each_stays_readable)
{
    PUT("k", "1");
    PUT("k", "2");
    expect(OP_READ, "s/data/k", NULL, 200, "data.data", "{\"a\":2}");
    expect(OP_READ, "s/data/k", "{\"version\":\"1\"}", 200, "data.data", "{\"a\":1}");
    expect(OP_READ, "s/data/k", "{\"version\":3}", 404, "errors", "[]");
    expect(OP_READ, "s/data/none", NULL, 404, "errors", "[]");
    expect(OP_READ, "s/data/k", NULL, 200, "data.metadata.version", "2");
}

Test(kv2, check_and_set_holds)
{
    const char *mismatch = "[\"check-and-set parameter did not match the current version\"]";

    expect(OP_WRITE, "s/data/k", "{\"data\":{},\"options\":{\"cas\":1}}", 400, "errors", mismatch);
    expect(OP_WRITE, "s/data/k", "{\"data\":{},\"options\":{\"cas\":0}}", 200, "data.version", "1");
    expect(OP_WRITE, "s/data/k", "{\"data\":{},\"options\":{\"cas\":0}}", 400, "errors", mismatch);
    expect(OP_WRITE, "s/data/k", "{\"data\":{},\"options\":{\"cas\":\"1\"}}", 200, "data.version",
           "2");
    expect(OP_WRITE, "s/data/k", "{\"data\":{},\"options\":{\"cas\":\"x\"}}", 400, "errors",
           "[\"error parsing check-and-set parameter\"]");
    cr_assert_eq(fake_status(OP_WRITE, "s/metadata/k", "{\"cas_required\":true}"), 204);
    expect(OP_WRITE, "s/data/k", "{\"data\":{}}", 400, "errors",
           "[\"check-and-set parameter required for this call\"]");
}

Test(kv2, one_write_is_one_transaction)
{
    uint64_t before = fake.lsn;

    PUT("k", "1");
    cr_assert_eq(fake.lsn, before + 1);
}

Test(kv2, a_refused_write_changes_nothing)
{
    PUT("k", "1");
    fake.refuse_after = 1;
    cr_assert_eq(fake_status(OP_WRITE, "s/data/k", "{\"data\":{\"a\":2}}"), 503);
    fake.refuse_after = 0;
    expect(OP_READ, "s/data/k", NULL, 200, "data.data", "{\"a\":1}");
    expect(OP_WRITE, "s/data/k", "{\"data\":{\"a\":3}}", 200, "data.version", "2");
}

Test(kv2, deleted_comes_back_and_destroyed_does_not)
{
    PUT("k", "1");
    cr_assert_eq(fake_status(OP_DELETE, "s/data/k", NULL), 204);
    expect(OP_READ, "s/data/k", NULL, 404, "data.data", "null");
    cr_assert_eq(fake_status(OP_WRITE, "s/undelete/k", "{\"versions\":[1]}"), 204);
    expect(OP_READ, "s/data/k", NULL, 200, "data.metadata.deletion_time", "\"\"");
    cr_assert_eq(fake_status(OP_WRITE, "s/destroy/k", "{\"versions\":\"1,7\"}"), 204);
    cr_assert_eq(version_rows(), 0, "the destroyed value is still stored");
    cr_assert_eq(fake_status(OP_WRITE, "s/undelete/k", "{\"versions\":[1]}"), 204);
    expect(OP_READ, "s/data/k", NULL, 404, "data.metadata.destroyed", "true");
    expect(OP_WRITE, "s/destroy/k", "{}", 400, "errors", "[\"no version number provided\"]");
    expect(OP_WRITE, "s/delete/k", "{}", 400, "errors", "[\"No version number provided\"]");
}

Test(kv2, ten_versions_are_kept_and_older_values_are_gone_from_disk)
{
    for (int i = 0; i < 12; i++)
        PUT("k", "1");
    expect(OP_READ, "s/metadata/k", NULL, 200, "data.oldest_version", "3");
    expect(OP_READ, "s/metadata/k", NULL, 200, "data.versions.2", "absent");
    expect(OP_READ, "s/data/k", "{\"version\":2}", 404, "errors", "[]");
    cr_assert_eq(version_rows(), 10);
    cr_assert_eq(fake_status(OP_WRITE, "s/metadata/k", "{\"max_versions\":2}"), 204);
    PUT("k", "2");
    cr_assert_eq(version_rows(), 2);
    expect(OP_READ, "s/metadata/k", NULL, 200, "data.oldest_version", "12");
}

Test(kv2, very_many_versions_fall_in_bounded_transactions)
{
    cr_assert_eq(fake_status(OP_WRITE, "s/metadata/k", "{\"max_versions\":1000}"), 204);
    for (int i = 0; i < 900; i++)
        PUT("k", "1");
    cr_assert_eq(version_rows(), 900);
    cr_assert_eq(fake_status(OP_WRITE, "s/metadata/k", "{\"max_versions\":1}"), 204);
    for (int i = 0; i < 4; i++)
        PUT("k", "1");
    cr_assert_eq(version_rows(), 1);
    cr_assert_leq(fake.largest, 300);
    expect(OP_READ, "s/data/k", "{\"version\":903}", 404, "errors", "[]");
}

Test(kv2, removing_a_key_with_very_many_versions_goes_on_in_the_background)
{
    cr_assert_eq(fake_status(OP_WRITE, "s/metadata/k", "{\"max_versions\":1000}"), 204);
    for (int i = 0; i < 700; i++)
        PUT("k", "1");
    cr_assert_eq(fake_status(OP_DELETE, "s/metadata/k", NULL), 204);
    expect(OP_WRITE, "s/data/k", "{\"data\":{\"b\":1}}", 200, "data.version", "1");
    fake_run();
    cr_assert_eq(version_rows(), 1);
    cr_assert_leq(fake.largest, 300);
    expect(OP_READ, "s/data/k", NULL, 200, "data.data", "{\"b\":1}");
}

Test(kv2, patch_merges)
{
    cr_assert_eq(fake_status(OP_WRITE, "s/data/k", "{\"data\":{\"a\":1,\"o\":{\"x\":1,\"y\":2}}}"),
                 200);
    expect(OP_PATCH, "s/data/k", "{\"data\":{\"a\":null,\"o\":{\"x\":null,\"z\":3},\"n\":[1]}}",
           200, "data.version", "2");
    expect(OP_READ, "s/data/k", NULL, 200, "data.data", "{\"n\":[1],\"o\":{\"y\":2,\"z\":3}}");
    cr_expect_eq(fake_status(OP_PATCH, "s/data/none", "{\"data\":{}}"), 404);
    expect(OP_PATCH, "s/data/k", "{}", 400, "errors", "[\"no data provided\"]");
    cr_assert_eq(fake_status(OP_DELETE, "s/data/k", NULL), 204);
    expect(OP_PATCH, "s/data/k", "{\"data\":{}}", 404, "data.version", "2");
    cr_assert_eq(fake_status(OP_WRITE, "s/data/k", "{\"data\":null}"), 200);
    expect(OP_PATCH, "s/data/k", "{\"data\":{}}", 500, "errors",
           "[\"1 error occurred:\\n\\t* resource does not exist\\n\\n\"]");
}

Test(kv2, versions_expire_by_the_shorter_time)
{
    cr_assert_eq(fake_status(OP_WRITE, "s/config", "{\"delete_version_after\":\"3h25m19s\"}"), 204);
    expect(OP_READ, "s/config", NULL, 200, "data.delete_version_after", "\"3h25m19s\"");
    cr_assert_eq(fake_status(OP_WRITE, "s/config", "{\"max_versions\":3}"), 204);
    expect(OP_READ, "s/config", NULL, 200, "data.delete_version_after", "\"3h25m19s\"");
    PUT("k", "1");
    expect(OP_READ, "s/data/k", NULL, 200, "data.data", "{\"a\":1}");
    cr_assert_eq(fake_status(OP_WRITE, "s/config", "{\"delete_version_after\":\"-1s\"}"), 204);
    expect(OP_WRITE, "s/data/k", "{\"data\":{}}", 200, "data.deletion_time", "\"\"");
    expect(OP_WRITE, "s/metadata/k", "{\"delete_version_after\":\"x\"}", 400, "data", "absent");
}

Test(kv2, custom_metadata_is_checked_and_merged)
{
    cr_assert_eq(
        fake_status(OP_WRITE, "s/metadata/k", "{\"custom_metadata\":{\"a\":1,\"b\":\"x\"}}"), 204);
    PUT("k", "1");
    expect(OP_READ, "s/data/k", NULL, 200, "data.metadata.custom_metadata",
           "{\"a\":\"1\",\"b\":\"x\"}");
    cr_assert_eq(
        fake_status(OP_PATCH, "s/metadata/k", "{\"custom_metadata\":{\"a\":null,\"c\":\"y\"}}"),
        204);
    expect(OP_READ, "s/metadata/k", NULL, 200, "data.custom_metadata", "{\"b\":\"x\",\"c\":\"y\"}");
    expect(OP_WRITE, "s/metadata/k", "{\"custom_metadata\":{\"k\":\"\"}}", 400, "errors",
           "[\"1 error occurred:\\n\\t* custom_metadata validation failed: length of value for key "
           "\\\"k\\\" is 0 but must "
           "be 0 < len(value) <= 512\\n\\n\"]");
    expect(OP_READ, "s/metadata/k", NULL, 200, "data.custom_metadata", "{\"b\":\"x\",\"c\":\"y\"}");
    cr_expect_eq(fake_status(OP_PATCH, "s/metadata/none", "{\"max_versions\":1}"), 404);
}

Test(kv2, folders_are_listed)
{
    PUT("f/x", "1");
    PUT("f/y/z", "1");
    cr_assert_eq(fake_status(OP_DELETE, "s/data/f/x", NULL), 204);
    expect(OP_LIST, "s/metadata/f/", NULL, 200, "data.keys", "[\"x\",\"y/\"]");
    expect(OP_LIST, "s/metadata/", NULL, 200, "data.keys", "[\"f/\"]");
    expect(OP_LIST, "s/metadata/none/", NULL, 404, "errors", "[]");
    expect(OP_LIST, "s/data/", NULL, 405, "data", "absent");
}

Test(kv2, subkeys_show_the_shape_only)
{
    cr_assert_eq(fake_status(OP_WRITE, "s/data/k",
                             "{\"data\":{\"a\":{\"b\":{\"c\":1}},\"e\":\"x\",\"m\":{}}}"),
                 200);
    expect(OP_READ, "s/subkeys/k", NULL, 200, "data.subkeys",
           "{\"a\":{\"b\":{\"c\":null}},\"e\":null,\"m\":null}");
    expect(OP_READ, "s/subkeys/k", "{\"depth\":\"1\"}", 200, "data.subkeys",
           "{\"a\":null,\"e\":null,\"m\":null}");
}

Test(kv2, wrong_paths_say_what_to_use)
{
    expect(OP_WRITE, "s/k", "{\"a\":1}", 404, "warnings.0",
           "\"Invalid path for a versioned K/V secrets engine. See the API docs for the "
           "appropriate API endpoints to use. If "
           "using the Vault CLI, use 'vault kv put' for this operation.\"");
    expect(OP_READ, "s/data", NULL, 404, "warnings.0",
           "\"Non-listing operations on the root of a K/V v2 mount are not supported.\"");
}

/* Data as deep as JSON may be, from reading to patching, on a stack of the size that a handler has.
 */
static void *deep(void *arg)
{
    struct buf text = {0}, patch = {0};

    (void)arg;
    buf_adds(&text, "{\"data\":");
    for (int i = 0; i < 499; i++)
        buf_adds(&text, "{\"k\":");
    buf_adds(&text, "1");
    for (int i = 0; i < 499; i++)
        buf_adds(&text, "}");
    buf_adds(&text, "}");
    cr_expect_eq(fake_status(OP_WRITE, "s/data/k", buf_str(&text)), 200);
    cr_expect_eq(fake_status(OP_READ, "s/data/k", NULL), 200);
    cr_expect_eq(fake_status(OP_READ, "s/subkeys/k", NULL), 200);
    buf_add(&patch, text.data, text.len);
    cr_expect_eq(fake_status(OP_PATCH, "s/data/k", buf_str(&patch)), 200);
    buf_free(&text);
    buf_free(&patch);
    return NULL;
}

#ifdef __SANITIZE_ADDRESS__
#define ASAN 1
#else
#define ASAN 0
#endif

Test(kv2, deeply_nested_data_fits_the_stack_of_a_handler)
{
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    cr_assert_eq(pthread_attr_setstacksize(&attr, (ASAN ? 256 : 128) << 10), 0);
    cr_assert_eq(pthread_create(&thread, &attr, deep, NULL), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
}
