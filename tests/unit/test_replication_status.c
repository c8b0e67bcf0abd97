/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What status tells of replication: Vault's fields and types, and reasons with stable codes.
 */
#include "replication_fixture.h"

TestSuite(replication_status, .init = setup, .fini = teardown, .timeout = 60);

Test(replication_status, status_has_vaults_fields_and_types)
{
    char text[TEXT_MAX];

    cr_assert_eq(call_as(NULL, "replication/status", NULL, text), 200);
    cr_assert_str_eq(text,
                     "{\"dr\":{\"mode\":\"disabled\"},\"performance\":{\"mode\":\"disabled\"}}");
    enable();
    cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
    cr_assert_not_null(strstr(text, "\"last_dr_wal\":41"));
    cr_assert_not_null(strstr(text, "\"last_corruption_check_epoch\":\"-62135596800\""));
    cr_assert_not_null(
        strstr(text, "\"merkle_root\":\"00000000000000000000000000000000000000ab\""));
    cr_assert_not_null(strstr(text, "\"mode\":\"primary\""));
    cr_assert_not_null(strstr(text, "\"lag_ms_p50\":0.5"));
    cr_assert_not_null(strstr(text, "\"lag\":{\"applied\":{"));
    cr_assert_not_null(strstr(text, "\"bytes\":8192,\"lsn\":18,\"lsns\":2,\"ms\":4.713"));
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
    cr_assert_not_null(strstr(text, "\"last_remote_wal\":40"));
    cr_assert_not_null(strstr(text, "\"known_primary_cluster_addrs\":[\"https://b:8201\"]"));
    cr_assert_not_null(strstr(text, "\"mode\":\"secondary\""));
}

static void away(struct engine_status *st)
{
    st->peers[0].connected = false;
    strcpy(st->peers[0].last_error, "nothing was heard");
    st->peers[0].last_error_ms = 1700000000000;
}
static void copying(struct engine_status *st)
{
    st->peers[0].whole = false;
}
static void slow(struct engine_status *st)
{
    st->peers[0].stage[LAG_FLUSHED].behind_lsns = 1;
    st->peers[0].stage[LAG_FLUSHED].behind_ms = 10001;
}
static void slow_with_nothing(struct engine_status *st) /* as just behind a first copy */
{
    slow(st);
    st->peers[0].stage[LAG_FLUSHED].behind_lsns = 0;
}
static void not_so_slow(struct engine_status *st)
{
    st->peers[0].stage[LAG_FLUSHED].behind_ms = 9999;
}
static void waits(struct engine_status *st)
{
    st->peers[0].level = REPL_FLUSH;
    st->peers[0].waiting = st->quorum_waiting = st->unsettled = true;
}
static void fell_back(struct engine_status *st)
{
    st->peers[0].fallen_back = st->quorum_fallen_back = true;
}
static void no_space(struct engine_status *st)
{
    st->disk_reserve = true;
    st->free_bytes = 100u << 20;
    st->reserve_bytes = 256u << 20;
}
static void little_space(struct engine_status *st)
{
    st->free_bytes = 511u << 20;
    st->reserve_bytes = 256u << 20;
}
static void skewed(struct engine_status *st)
{
    st->peers[0].clock_skew_ms = -1001;
}
static void lost(struct engine_status *st)
{
    away(st);
    strcpy(st->peers[0].last_error, "primary_lost_history");
    strcpy(st->reason, "primary_lost_history");
}
static void superseded(struct engine_status *st)
{
    strcpy(st->reason, "superseded by epoch 4");
}
static void damaged(struct engine_status *st)
{
    st->damaged = true;
    st->scrub_bad_leaves = 3;
}
static void different(struct engine_status *st)
{
    st->peers[0].verified = ENGINE_DIFFERENT;
}
static void half_kept(struct engine_status *st)
{
    st->peers[0].retain_percent = 50;
}
static void let_go(struct engine_status *st)
{
    st->peers[0].retain_percent = 100;
    st->peers[0].let_go = true;
}
static void no_canary(struct engine_status *st)
{
    st->peers[0].canary_age_ms = 10001;
}
static void no_canary_in_a_copy(struct engine_status *st)
{
    no_canary(st);
    st->copying = true;
    st->keeps_lsn = 17;
    strcpy(st->sync_phase, "ranges");
}
static void told(struct engine_status *st)
{
    strcpy(st->reason, "a_new_code");
}

static void without_any(struct engine_status *st)
{
    st->replicating = true;
    st->n_peers = 0;
}

/* What a promotion would have while a copy is under way: the state before it. */
Test(replication_status, the_old_state_is_told_while_another_is_fetched)
{
    char text[TEXT_MAX];

    enable();
    shape_status = no_canary_in_a_copy;
    fake.core.role = ENGINE_SECONDARY;
    cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
    cr_assert_not_null(strstr(text, "promotion now has the state at LSN 17, 10.0 s old"), "%s",
                       text);
    shape_status = NULL;
}

/* Each state has its code on each side, says what to do, and is an error or a warning. */
Test(replication_status, reasons_have_stable_codes)
{
    static const struct {
        void (*shape)(struct engine_status *st);
        enum engine_role role;
        bool healthy;
        const char *codes; /* in order */
    } cases[] = {
        {NULL, ENGINE_PRIMARY, true, ""},
        {NULL, ENGINE_SECONDARY, true, ""},
        {away, ENGINE_PRIMARY, false, "secondary_disconnected "},
        {away, ENGINE_SECONDARY, false, "not_connected "},
        {copying, ENGINE_PRIMARY, false, "secondary_copying "},
        {without_any, ENGINE_PRIMARY, true, "no_secondary "},
        {no_canary, ENGINE_SECONDARY, false, "canary_late "},
        {no_canary_in_a_copy, ENGINE_SECONDARY, true, "catching_up "},
        {NULL, ENGINE_BOOTSTRAPPING, false, "first_copy "},
        {slow, ENGINE_PRIMARY, false, "lag_high "},
        {slow, ENGINE_SECONDARY, false, "lag_high "},
        {not_so_slow, ENGINE_PRIMARY, true, ""},
        {slow_with_nothing, ENGINE_SECONDARY, true, ""},
        {waits, ENGINE_PRIMARY, false, "mode_waiting quorum_waiting unsettled "},
        {fell_back, ENGINE_PRIMARY, false, "mode_fallback quorum_fallback "},
        {no_space, ENGINE_PRIMARY, false, "disk_reserve "},
        {no_space, ENGINE_SECONDARY, false, "disk_reserve "},
        {little_space, ENGINE_SECONDARY, true, "disk_low "},
        {skewed, ENGINE_PRIMARY, true, "clock_skew "},
        {skewed, ENGINE_SECONDARY, true, "clock_skew "},
        {lost, ENGINE_PRIMARY, false, "primary_lost_history primary_lost_history "},
        {lost, ENGINE_SECONDARY, false, "primary_lost_history not_connected "},
        {superseded, ENGINE_FENCED, false, "superseded "},
        {damaged, ENGINE_SECONDARY, false, "data_damaged "},
        {different, ENGINE_PRIMARY, false, "data_differs "},
        {different, ENGINE_SECONDARY, false, "data_differs "},
        {half_kept, ENGINE_PRIMARY, true, "log_retention "},
        {let_go, ENGINE_PRIMARY, false, "secondary_let_go "},
        {told, ENGINE_SECONDARY, false, "a_new_code "},
    };
    char text[TEXT_MAX];

    enable();
    fake.config.lag_warn_ms = 10000;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char got[256] = "";
        json_t *v, *r;
        size_t k;

        shape_status = cases[i].shape;
        fake.core.role = cases[i].role;
        cr_assert_eq(call_as(NULL, "replication/dr/status", NULL, text), 200);
        v = json_loads(text, 0, NULL);
        cr_assert_not_null(v, "case %zu: %s", i, text);
        json_array_foreach(json_object_get(v, "reasons"), k, r)
        {
            const char *code = json_string_value(json_object_get(r, "code"));

            snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s ", code);
            cr_assert_gt(strlen(json_string_value(json_object_get(r, "what"))), 5);
            cr_assert_gt(strlen(json_string_value(json_object_get(r, "do"))), 10);
        }
        cr_assert_str_eq(got, cases[i].codes, "case %zu: %s", i, got);
        cr_assert_eq(json_is_true(json_object_get(v, "healthy")), cases[i].healthy, "case %zu", i);
        json_decref(v);
    }
    shape_status = NULL;
}
