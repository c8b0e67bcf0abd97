/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_link_msg.c - the messages of the link: each comes back as it was sent, and bad bytes are
 * refused.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "link_msg.h"

TestSuite(link_msg, .timeout = 20);

static struct link_msg sent, got;

static void fill_epochs(struct epochs *ep)
{
    for (unsigned i = 0; i < 3; i++) {
        struct epoch_rec r = {.number = i + 1, .end_lsn = 100u * i, .member = "secondary"};

        memset(r.id, (int)i + 1, sizeof(r.id));
        memset(r.hash, (int)i + 7, sizeof(r.hash));
        epochs_add(ep, &r);
    }
}

static void fill_points(struct wal_points *t)
{
    for (t->n = 0; t->n < WAL_POINTS_MAX; t->n++) {
        t->p[t->n].lsn = UINT32_MAX + 10ull - t->n;
        memset(t->p[t->n].hash, (int)t->n, sizeof(t->p[t->n].hash));
    }
}

static const uint8_t sums[2 * 16 * LINK_SUM_BYTES] = {1, 2, 3};

static void fill(enum link_msg_type type)
{
    memset(&sent, 0, sizeof(sent));
    sent.type = type;
    switch (type) {
    case MSG_HELLO:
        sent.hello = (struct link_hello){.version = 1,
                                         .member_id = "secondary",
                                         .cluster_id = "c",
                                         .end_lsn = UINT32_MAX + 10ull,
                                         .commit_lsn = 70000,
                                         .applied_lsn = 300,
                                         .wall_ms = 1543,
                                         .cluster_addr = "127.0.0.1:9201"};
        fill_epochs(&sent.hello.epochs);
        fill_points(&sent.hello.points);
        break;
    case MSG_WELCOME:
        sent.welcome = (struct link_welcome){.version = 1,
                                             .decision = LINK_COPY,
                                             .from_lsn = 8,
                                             .base = {.lsn = 7, .epoch = 2},
                                             .commit_lsn = 9,
                                             .wall_ms = -5,
                                             .reason = "why",
                                             .end = LINK_END_ELSEWHERE,
                                             .common_lsn = 6};
        fill_epochs(&sent.welcome.epochs);
        fill_points(&sent.welcome.points);
        break;
    case MSG_SEGMENT:
        sent.tail = (const uint8_t *)"raw segment";
        sent.tail_len = 11;
        break;
    case MSG_COMMIT:
        sent.commit.lsn = 5;
        sent.commit.wall_ms = 1 << 20;
        break;
    case MSG_ACK:
        sent.ack.durable_lsn = 300;
        sent.ack.applied_lsn = 200;
        sent.ack.echo_ms = 7;
        sent.ack.received_lsn = 400;
        sent.ack.held_us = 1234;
        sent.ack.ready = true;
        break;
    case MSG_PING:
    case MSG_PONG:
        sent.ping.stamp = UINT64_MAX;
        sent.ping.wall_ms = -1;
        sent.ping.retain_lsn = 90;
        sent.ping.has_stages = type == MSG_PING;
        sent.ping.n_fed = type == MSG_PING ? 2 : 0;
        sent.ping.fed[0] =
            (struct link_fed){.id = "site-c", .durable_lsn = 12345678901, .applied_lsn = 7};
        sent.ping.fed[1] = (struct link_fed){.id = "site-d"};
        for (size_t s = 0; s < LAG_STAGES; s++) {
            sent.ping.stage[s] = (struct engine_lag_stage){
                .behind_lsns = s, .behind_bytes = 4096 * s, .behind_ms = (double)s + 0.125};
            sent.ping.stage[s].window[LAG_5M] =
                (struct engine_lag){.p50 = 0.75, .p99 = (double)s, .max = 70, .count = 1000};
        }
        break;
    case MSG_PAGE_REQUEST:
        sent.page_request.after = "core/a";
        sent.page_request.after_len = 6;
        sent.page_request.bytes_max = 1 << 20;
        break;
    case MSG_PAGE:
    case MSG_ENROL:
    case MSG_ENTRIES:
        sent.body.data = (const uint8_t *)"body";
        sent.body.len = 4;
        break;
    case MSG_ENROL_ANSWER:
        sent.enrol_answer.ok = true;
        sent.enrol_answer.data = (const uint8_t *)"answer";
        sent.enrol_answer.len = 6;
        break;
    case MSG_GOODBYE:
        strcpy(sent.reason, "revoked");
        break;
    case MSG_TREE_REQUEST:
        sent.tree_request.level = 3;
        sent.tree_request.nodes = (const uint8_t *)"\1\2\3\4";
        sent.tree_request.n = 2;
        break;
    case MSG_TREE:
        sent.tree.level = 1;
        sent.tree.lsn = 70000;
        sent.tree.keys = 12;
        sent.tree.sums = sums;
        sent.tree.n = 2;
        break;
    case MSG_LIST_REQUEST:
        sent.list_request.after = "core/a";
        sent.list_request.after_len = 6;
        sent.list_request.leaves = (const uint8_t *)"\1\2\3\4";
        sent.list_request.leaves_len = 4;
        break;
    case MSG_LIST:
        sent.list.lsn = 9;
        sent.list.last = "core/b";
        sent.list.last_len = 6;
        sent.list.hashes = sums;
        sent.list.n = 3;
        sent.list.looked = 300;
        sent.list.has_rest = true;
        sent.list.rest = UINT64_MAX - 5;
        break;
    case MSG_FETCH:
        sent.fetch.after = "core/a";
        sent.fetch.after_len = 6;
        sent.fetch.last = "core/b";
        sent.fetch.last_len = 6;
        sent.fetch.to_end = true;
        sent.fetch.hashes = sums;
        sent.fetch.n = 2;
        break;
    case MSG_PARTS_REQUEST:
        sent.parts_request.below = 3;
        sent.parts_request.salt = UINT64_MAX - 1;
        sent.parts_request.parts = (const uint8_t *)"\1";
        sent.parts_request.parts_len = 1;
        break;
    case MSG_PARTS:
        sent.parts.lsn = 70000;
        sent.parts.keys = 12;
        sent.parts.sums = sums;
        sent.parts.len = 64;
        break;
    case MSG_WANT:
        sent.want.after = "core/a";
        sent.want.after_len = 6;
        sent.want.last = "core/b";
        sent.want.last_len = 6;
        sent.want.wanted = (const uint8_t *)"\5\1";
        sent.want.wanted_len = 2;
        break;
    case MSG_ROOT:
        sent.root.lsn = 1ull << 40;
        memset(sent.root.root, 7, sizeof(sent.root.root));
        sent.root.damaged = true;
        break;
    case MSG_EPOCH_ASK:
    case MSG_EPOCH_TELL:
        sent.epoch = (struct link_epoch){.version = 2,
                                         .cluster_id = "c",
                                         .member_id = "secondary",
                                         .role = ENGINE_FENCED,
                                         .durable_lsn = 70000,
                                         .wall_ms = 1543,
                                         .gather = GATHER_RELEASE,
                                         .minor = 7,
                                         .has_signature = true,
                                         .signature = {1, 2, 3}};
        fill_epochs(&sent.epoch.epochs);
        break;
    case MSG_TYPE_END:
        break;
    }
}

static struct buf encode(void)
{
    struct buf b = {0};
    struct err err;

    cr_assert_eq(link_msg_encode(&sent, &b, &err), 0);
    buf_add(&b, sent.tail, sent.tail_len);
    return b;
}

Test(link_msg, every_message_comes_back_as_it_was_sent)
{
    for (int type = MSG_HELLO; type < MSG_TYPE_END; type++) {
        struct buf a, b;
        struct err err = {0};

        fill((enum link_msg_type)type);
        a = encode();
        cr_assert_eq(link_msg_decode(a.data, a.len, &got, &err), 0, "type %d: %s", type, err.msg);
        cr_assert_eq((int)got.type, type);
        sent = got;
        b = encode();
        cr_assert_eq(a.len, b.len);
        cr_assert_eq(memcmp(a.data, b.data, a.len), 0, "type %d", type);
        buf_free(&a);
        buf_free(&b);
    }
}

/* Each carries no more than it may, and leads somewhere. */
Test(link_msg, malformed_differences_are_refused)
{
    static uint8_t many[(LINK_HASHES_MAX + 1) * LINK_HASH_BYTES];
    struct buf b;
    struct err err;

    fill(MSG_LIST);
    sent.list.last_len = 0;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "a list that leads nowhere");
    buf_free(&b);
    fill(MSG_LIST);
    sent.list.hashes = many;
    sent.list.n = LINK_HASHES_MAX + 1;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "too many hashes");
    buf_free(&b);
    fill(MSG_LIST_REQUEST);
    sent.list_request.leaves_len = 3;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "half a leaf");
    buf_free(&b);
    fill(MSG_TREE_REQUEST);
    sent.tree_request.level = LINK_TREE_LEVELS;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "no such level");
    buf_free(&b);
    for (unsigned i = 0; i < 4; i++) {
        fill(MSG_PARTS_REQUEST);
        if (i == 0)
            sent.parts_request.level = sent.parts_request.below;
        if (i == 1)
            sent.parts_request.below = LINK_PARTS_DEPTH + 1;
        if (i == 2)
            sent.parts_request.parts_len = 0;
        if (i == 3) {
            sent.parts_request.parts = many;
            sent.parts_request.parts_len = LINK_LEAVES_BYTES + 1;
        }
        b = encode();
        cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "such parts: %u", i);
        buf_free(&b);
    }
    fill(MSG_WANT);
    sent.want.wanted = many;
    sent.want.wanted_len = LINK_HASHES_MAX / 8 + 1;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "more than a list has");
    buf_free(&b);
}

Test(link_msg, hello_carries_every_field)
{
    struct buf b;
    struct err err;

    fill(MSG_HELLO);
    b = encode();
    cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), 0);
    cr_assert_str_eq(got.hello.member_id, "secondary");
    cr_assert_eq(got.hello.end_lsn, UINT32_MAX + 10ull);
    cr_assert_eq(got.hello.commit_lsn, 70000);
    cr_assert_eq(got.hello.applied_lsn, 300);
    cr_assert_eq(got.hello.epochs.n, 3);
    cr_assert_eq(got.hello.epochs.e[2].end_lsn, 200);
    cr_assert_str_eq(got.hello.cluster_addr, "127.0.0.1:9201");
    cr_assert_eq(got.hello.points.n, WAL_POINTS_MAX);
    cr_assert_eq(got.hello.points.p[9].lsn, UINT32_MAX + 1ull);
    cr_assert_eq(got.hello.points.p[9].hash[31], 9);
    buf_free(&b);
}

static void refused_points(const void *points, size_t len, const char *what)
{
    struct buf b;
    struct err err;

    fill(MSG_HELLO);
    sent.hello.points.n = 0;
    b = encode();
    b.len--; /* the empty array */
    buf_add(&b, points, len);
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0, "%s", what);
    buf_free(&b);
}

Test(link_msg, malformed_points_are_refused)
{
    static const uint8_t hash[WAL_HASH_BYTES];
    struct buf many = {0};

    refused_points("\x91\x05", 2, "an LSN without a hash");
    refused_points("\x92\x05\xc4\x01\x00", 5, "a short hash");
    mp_put_array(&many, 2 * (WAL_POINTS_MAX + 1));
    for (size_t i = 0; i <= WAL_POINTS_MAX; i++) {
        mp_put_uint(&many, i);
        mp_put_bin(&many, hash, WAL_HASH_BYTES);
    }
    refused_points(many.data, many.len, "too many");
    buf_free(&many);
}

Test(link_msg, an_unknown_role_is_refused)
{
    struct buf b;
    struct err err;

    fill(MSG_EPOCH_TELL);
    sent.epoch.role = ENGINE_FENCED + 1;
    b = encode();
    cr_assert_neq(link_msg_decode(b.data, b.len, &got, &err), 0);
    buf_free(&b);
}

/* A frame that ends anywhere but at its end is refused, and so is one with a byte too many. */
Test(link_msg, cut_or_lengthened_frames_are_refused)
{
    for (int type = MSG_HELLO; type < MSG_TYPE_END; type++) {
        struct buf b;
        struct err err;

        if (type == MSG_SEGMENT) /* its tail is checked by the segment's own frame */
            continue;
        fill((enum link_msg_type)type);
        b = encode();
        for (size_t n = 0; n < b.len; n++) {
            uint8_t *cut = malloc(n ? n : 1); /* exact size, so that ASan sees a byte too far */

            memcpy(cut, b.data, n);
            cr_assert_eq(link_msg_decode(cut, n, &got, &err), -1, "type %d at %zu", type, n);
            cr_assert_eq(err.code, ERR_PROTO);
            free(cut);
        }
        buf_addc(&b, 0);
        cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), -1, "type %d", type);
        buf_free(&b);
    }
}

/* An older program says less: what it does not know of is zero. */
Test(link_msg, acks_and_pings_of_an_older_program_are_taken)
{
    static const uint8_t ack[] = {0x94, MSG_ACK, 9, 8, 7}, ping[] = {0x93, MSG_PING, 5, 6};
    struct err err = {0};

    cr_assert_eq(link_msg_decode(ack, sizeof(ack), &got, &err), 0, "%s", err.msg);
    cr_assert(got.ack.durable_lsn == 9 && got.ack.applied_lsn == 8 && got.ack.echo_ms == 7);
    cr_assert(got.ack.received_lsn == 0 && got.ack.held_us == 0);
    cr_assert_eq(link_msg_decode(ping, sizeof(ping), &got, &err), 0, "%s", err.msg);
    cr_assert(got.ping.stamp == 5 && got.ping.wall_ms == 6 && !got.ping.has_stages);
}

Test(link_msg, a_ping_carries_the_lag)
{
    struct buf b;
    struct err err;

    fill(MSG_PING);
    b = encode();
    cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), 0);
    cr_assert(got.ping.has_stages && got.ping.retain_lsn == 90);
    cr_assert_eq(got.ping.stage[LAG_APPLIED].behind_bytes, 12288);
    cr_assert_eq(got.ping.stage[LAG_FLUSHED].behind_ms, 2.125);
    cr_assert_eq(got.ping.stage[LAG_RECEIVED].window[LAG_5M].p50, 0.75);
    buf_free(&b);
}

/* It has nothing to say of where its log may part. */
Test(link_msg, hello_and_welcome_of_an_older_program_are_taken)
{
    for (int type = MSG_HELLO; type <= MSG_WELCOME; type++) {
        struct err err = {0};
        struct buf b;

        fill((enum link_msg_type)type);
        sent.hello.points.n = type == MSG_HELLO ? 0 : sent.hello.points.n;
        if (type == MSG_WELCOME) {
            sent.welcome.points.n = 0;
            sent.welcome.common_lsn = 0;
        }
        b = encode();
        b.data[0] = (uint8_t)(b.data[0] - (type == MSG_HELLO ? 1 : 2));
        b.len -= type == MSG_HELLO ? 1 : 2;
        cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), 0, "type %d: %s", type, err.msg);
        cr_assert_eq(type == MSG_HELLO ? got.hello.points.n : got.welcome.points.n, 0);
        buf_free(&b);
    }
}

/* A list of an older program has no sum of the leaves that were not told. */
Test(link_msg, a_list_of_an_older_program_is_taken)
{
    struct buf b;
    struct err err = {0};

    fill(MSG_LIST);
    b = encode();
    b.data[0]--;
    b.len -= 10; /* bin 8 */
    cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), 0, "%s", err.msg);
    cr_assert(!got.list.has_rest && got.list.looked == 300);
    b.len -= 2; /* 300 */
    cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), -1);
    buf_free(&b);
}

/* A newer program may say more; what is known keeps its place. */
Test(link_msg, fields_of_a_newer_program_are_passed_over)
{
    static const char more[] =
        "\x93\xcd\x01\x02\xc0\xd9\x01x\xd1\xff\x00"; /* [258, nil, "x"], -256 */

    for (int type = MSG_HELLO; type < MSG_TYPE_END; type++) {
        struct buf a, b, longer = {0};
        struct err err = {0};

        if (type == MSG_SEGMENT) /* the raw segment follows its only field */
            continue;
        fill((enum link_msg_type)type);
        a = encode();
        cr_assert_eq(a.data[0] & 0xf0, 0x90); /* a short array: its count is in the first byte */
        mp_put_array(&longer, (a.data[0] & 0x0fu) + 2u);
        buf_add(&longer, a.data + 1, a.len - 1);
        buf_add(&longer, more, sizeof(more) - 1);
        cr_assert_eq(link_msg_decode(longer.data, longer.len, &got, &err), 0, "type %d: %s", type,
                     err.msg);
        sent = got;
        b = encode();
        cr_assert_eq(memcmp(a.data, b.data, b.len), 0, "type %d", type);
        buf_free(&longer);
        buf_free(&a);
        buf_free(&b);
    }
}

Test(link_msg, flipped_bits_never_crash)
{
    for (int type = MSG_HELLO; type < MSG_TYPE_END; type++) {
        struct buf b;
        struct err err;

        fill((enum link_msg_type)type);
        b = encode();
        for (size_t bit = 0; bit < b.len * 8; bit++) {
            b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            (void)!link_msg_decode(b.data, b.len, &got, &err);
            b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        }
        buf_free(&b);
    }
}

Test(link_msg, a_hello_that_claims_to_know_more_than_it_has_is_refused)
{
    struct buf b;
    struct err err;

    fill(MSG_HELLO);
    sent.hello.commit_lsn = sent.hello.end_lsn + 1;
    b = encode();
    cr_assert_eq(link_msg_decode(b.data, b.len, &got, &err), -1);
    cr_assert_eq(err.code, ERR_PROTO);
    buf_free(&b);
}

Test(link_msg, a_refused_enrolment_gives_the_primarys_reason)
{
    struct buf b;
    struct err err;
    const uint8_t *body;
    size_t len;

    fill(MSG_ENROL_ANSWER);
    sent.enrol_answer.ok = false;
    strcpy(sent.enrol_answer.reason, "token expired");
    b = encode();
    cr_assert_eq(link_msg_enrol_answer(b.data, b.len, &body, &len, &err), -1);
    cr_assert_eq(err.code, ERR_DENIED);
    cr_assert(strstr(err.msg, "token expired") != NULL);
    buf_free(&b);
}

Test(link_msg, rows_come_back_and_damaged_rows_are_refused)
{
    struct member m = {.id = "s",
                       .cluster_addr = "h:1",
                       .api_addr = "https://h:2",
                       .revoked = true,
                       .retain_bytes = 70000,
                       .retain_ms = 3},
                  mg;
    struct repl_config c = {.primary_enabled = true,
                            .cluster_id = "id",
                            .primary_cluster_addr = "p:1"},
                       cg;
    struct buf b = {0};
    struct err err;

    memset(m.key_hash, 9, sizeof(m.key_hash));
    cr_assert_eq(member_encode(&m, &b, &err), 0);
    cr_assert_eq(member_decode(b.data, b.len, &mg, &err), 0);
    cr_assert_str_eq(mg.id, "s");
    cr_assert(mg.revoked && !mg.primary);
    cr_assert_eq(memcmp(mg.key_hash, m.key_hash, 32), 0);
    cr_assert(mg.retain_bytes == 70000 && mg.retain_ms == 3);
    cr_assert_eq(member_decode(b.data, b.len - 1, &mg, &err), -1);
    buf_addc(&b, 5);
    cr_assert_eq(member_decode(b.data, b.len, &mg, &err), -1);
    b.data[0]++; /* now it is a field of a newer program */
    cr_assert_eq(member_decode(b.data, b.len, &mg, &err), 0);
    cr_assert_str_eq(mg.api_addr, "https://h:2");
    b.data[0] -= 3; /* a row of before there were limits: five bytes and one, and the one above */
    b.len -= 7;
    cr_assert_eq(member_decode(b.data, b.len, &mg, &err), 0);
    cr_assert(mg.revoked && mg.retain_bytes == 0 && mg.retain_ms == 0);
    buf_clear(&b);
    cr_assert_eq(repl_config_encode(&c, &b, &err), 0);
    cr_assert_eq(repl_config_decode(b.data, b.len, &cg, &err), 0);
    cr_assert(cg.primary_enabled);
    cr_assert_str_eq(cg.primary_cluster_addr, "p:1");
    cr_assert_eq(repl_config_decode(b.data, b.len - 1, &cg, &err), -1);
    buf_free(&b);
}

Test(link_msg, the_history_keeps_the_newest_epochs_at_its_bound)
{
    struct epochs *ep = calloc(1, sizeof(*ep));

    for (uint32_t i = 1; i <= EPOCHS_MAX + 3; i++) {
        struct epoch_rec r = {.number = i, .end_lsn = i};

        epochs_add(ep, &r);
    }
    cr_assert_eq(ep->n, EPOCHS_MAX);
    cr_assert_eq(ep->e[0].number, 4);
    cr_assert_eq(ep->e[EPOCHS_MAX - 1].number, EPOCHS_MAX + 3);
    free(ep);
}
