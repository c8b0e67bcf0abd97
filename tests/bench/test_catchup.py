#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a lag is normal again after a cut, from the largest of each tenth of a second."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench', 'lib'))
from lab import Missing  # noqa: E402
from part_catchup import caught_up_s  # noqa: E402


class CaughtUp(unittest.TestCase):
    def ticks(self, *after):
        return [15.0] * 10 + [0] * 10 + list(after)  # cut at 1.0 s, joined at 2.0 s

    def test_counts_from_the_join_to_the_last_large_lag(self):
        self.assertAlmostEqual(caught_up_s(self.ticks(0, 1000, 500, 31, 29, 10, 10), 1.0, 2.0), 0.4)

    def test_a_lag_that_comes_back_is_not_normal_before_that(self):
        self.assertAlmostEqual(caught_up_s(self.ticks(1000, 10, 10, 900, 10, 10), 1.0, 2.0), 0.4)

    def test_none_that_stays_large(self):
        self.assertIsNone(caught_up_s(self.ticks(1000, 1000, 1000), 1.0, 2.0))

    def test_none_without_any_write_after_the_join(self):
        self.assertIsNone(caught_up_s(self.ticks(), 1.0, 2.0))

    def test_nothing_before_the_cut_is_no_measurement(self):
        with self.assertRaises(Missing):
            caught_up_s([], 0.0, 1.0)


if __name__ == '__main__':
    unittest.main()
