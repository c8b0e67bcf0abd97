/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What users of names and passwords rely on. */
#include "fake_core.h"

static void setup(void)
{
    fake_start();
    cr_assert_eq(fake_status(OP_WRITE, "sys/auth/up", "{\"type\":\"userpass\"}"), 204);
    cr_assert_eq(
        fake_status(OP_WRITE, "auth/up/users/Bob",
                    "{\"password\":\"pw\",\"token_policies\":\"a,b\",\"token_ttl\":\"1h\"}"),
        204);
}

TestSuite(userpass, .init = setup, .fini = fake_stop, .timeout = 60);

static size_t rows_with(const char *part)
{
    size_t n = 0;

    for (size_t i = 0; i < fake.n; i++)
        n += strstr(fake.rows[i].key, part) != NULL;
    return n;
}

Test(userpass, the_right_password_and_no_other_logs_in)
{
    expect(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}", 200, "auth.policies",
           "[\"a\",\"b\",\"default\"]");
    expect(OP_WRITE, "auth/up/login/BOB", "{\"password\":\"pw\"}", 200, "auth.metadata",
           "{\"username\":\"bob\"}");
    expect(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pW\"}", 400, "errors",
           "[\"invalid username or password\"]");
    expect(OP_WRITE, "auth/up/login/eve", "{\"password\":\"pw\"}", 400, "errors",
           "[\"invalid username or password\"]");
    expect(OP_WRITE, "auth/up/login/bob", "{}", 500, "errors",
           "[\"1 error occurred:\\n\\t* missing password\\n\\n\"]");
}

Test(userpass, a_password_is_stored_and_shown_nowhere)
{
    cr_assert_eq(fake_status(OP_WRITE, "auth/up/users/al", "{\"password\":\"correct horse\"}"),
                 204);
    for (size_t i = 0; i < fake.n; i++)
        cr_assert_null(memmem(fake.rows[i].value, fake.rows[i].len, "correct horse", 13), "%s",
                       fake.rows[i].key);
    expect(OP_READ, "auth/up/users/al", NULL, 200, "data.hash", "absent");
    expect(OP_READ, "auth/up/users/al", NULL, 200, "data.salt", "absent");
}

Test(userpass, a_write_without_password_keeps_it)
{
    cr_assert_eq(fake_status(OP_WRITE, "auth/up/users/bob", "{\"token_policies\":[\"c\"]}"), 204);
    expect(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}", 200, "auth.lease_duration",
           "3600");
    cr_assert_eq(fake_status(OP_WRITE, "auth/up/users/bob/password", "{\"password\":\"new\"}"),
                 204);
    cr_expect_eq(fake_status(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}"), 400);
    expect(OP_WRITE, "auth/up/login/bob", "{\"password\":\"new\"}", 200, "auth.policies",
           "[\"c\",\"default\"]");
    expect(OP_WRITE, "auth/up/users/new", "{}", 400, "errors", "[\"missing password\"]");
}

Test(userpass, a_deleted_user_is_out)
{
    expect(OP_LIST, "auth/up/users/", NULL, 200, "data.keys", "[\"bob\"]");
    cr_assert_eq(fake_status(OP_DELETE, "auth/up/users/bob", NULL), 204);
    cr_expect_eq(fake_status(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}"), 400);
    expect(OP_LIST, "auth/up/users/", NULL, 404, "errors", "[]");
}

Test(userpass, disabling_the_mount_revokes_its_tokens)
{
    for (int i = 0; i < 5; i++)
        cr_assert_eq(fake_status(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}"), 200);
    cr_assert_eq(rows_with("sys/token/id/"), 5);
    cr_assert_eq(fake_status(OP_DELETE, "sys/auth/up", NULL), 204);
    fake_run();
    cr_assert_eq(rows_with("sys/token/"), 0);
    cr_assert_eq(rows_with("core/detached/"), 0);
    cr_assert_eq(fake.n, rows_with("core/mount/"), "rows of the mount are left");
}

Test(userpass, links_to_expired_tokens_do_not_pile_up)
{
    cr_assert_eq(fake_status(OP_WRITE, "auth/up/users/bob", "{\"token_explicit_max_ttl\":\"1s\"}"),
                 204);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(fake_status(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}"), 200);
    cr_assert_eq(rows_with("/token/0000"), 3);
    fake_ahead_ms = 5000;
    cr_assert_eq(fake_status(OP_WRITE, "auth/up/login/bob", "{\"password\":\"pw\"}"), 200);
    cr_assert_eq(rows_with("/token/0000"), 1);
}
