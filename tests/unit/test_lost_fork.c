/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * test_lost_fork.c - whether the points of a primary show that it had the end of our log: only then
 * a copy takes its place without its tail being saved first.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "engine_private.h"
#include "follow_private.h"
#include "retain_private.h"

#define SEG_TXNS_MAX (SEG_TARGET_BYTES / 4)

/* LSNs, the newest first, 0 at the end. Their hashes are their numbers, but for
 * that of other. */
static struct wal_points points(const uint64_t *lsns, uint64_t other)
{
    struct wal_points t = {0};

    for (; lsns[t.n] != 0; t.n++) {
        t.p[t.n].lsn = lsns[t.n];
        memcpy(t.p[t.n].hash, &lsns[t.n], sizeof(lsns[0]));
        t.p[t.n].hash[20] = lsns[t.n] == other;
    }
    return t;
}

#define POINTS(...) points((const uint64_t[]){__VA_ARGS__, 0}, 0)

/* Committed here is 102, our log ends at 103, and began with a start at 100, whose first segment
 * ended at 101. */
static bool shows(struct wal_points theirs)
{
    struct wal_points ours = POINTS(103, 101, 100);

    return points_show(&theirs, &ours, 102, 103);
}

Test(lost_fork, a_primary_without_a_start_in_between_had_our_end)
{
    cr_assert(shows(POINTS(900, 101, 100)));
    cr_assert(shows(POINTS(103, 101, 100)), "and has nothing more");
    cr_assert(shows(POINTS(900, 205, 204, 101, 100)), "it started later");
}

Test(lost_fork, a_start_at_or_behind_what_is_committed_may_have_lost_our_end)
{
    cr_assert(!shows(POINTS(900, 103, 102, 101, 100)));
    cr_assert(!shows(POINTS(900, 104, 102, 101, 100)), "its first segment goes beyond our end");
}

/* It came back from an image that ends where a start of ours begins, and wrote 101 to 110 at once.
 */
Test(lost_fork, a_first_segment_that_wrote_over_our_end_is_no_later_start)
{
    cr_assert(!shows(POINTS(900, 110, 100)));
    cr_assert(!shows(POINTS(110, 100)));
    cr_assert(!shows(POINTS(900, 110, 99)), "nor where we have no start");
}

Test(lost_fork, what_is_further_apart_than_a_segment_is_long_is_not_one_start)
{
    cr_assert(shows(POINTS(50 + SEG_TXNS_MAX + 1, 50)), "we know of no start at 50");
    cr_assert(!shows(POINTS(50 + SEG_TXNS_MAX, 50)));
}

Test(lost_fork, points_that_do_not_reach_show_nothing)
{
    cr_assert(!shows(POINTS(900, 205, 204)), "not back to us");
    cr_assert(!shows(POINTS(101, 100)), "not to our end");
    cr_assert(!shows((struct wal_points){0}), "of an older program");
}

Test(lost_fork, the_same_number_with_another_hash_is_another_start)
{
    cr_assert(!shows(points((const uint64_t[]){900, 101, 100, 0}, 101)));
}
