#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's ratio table and its report, without measuring anything."""
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'bench', 'lib'))
import html_report  # noqa: E402
import plot  # noqa: E402
import report  # noqa: E402
from figures import Figures  # noqa: E402
from targets import AT_MOST, TARGETS, Target, table  # noqa: E402

MACHINE = {'cpu': 'c', 'cores': 2, 'memory_gib': 1, 'kernel': 'k', 'disk': 'd', 'load': 0.0, 'commit': 'x'}


def rates(figures, name, values):
    for i, v in enumerate(values):
        if v is not None:
            figures.add(name, i, {'rate': v, 'seconds': 1.0, 'done': int(v), 'cpu_s': 0.1, 'generator_cpu_s': 0.2})


class Ratios(unittest.TestCase):
    def line(self, ours, peer, **kw):
        f = Figures()
        rates(f, 'ours', ours)
        rates(f, 'peer', peer)
        return Target('t', kw.pop('floor', 2), ('ours', 'rate'), ('peer', 'rate'), **kw).line(f)

    def test_ratios_are_of_one_round_each(self):
        line = self.line([10, 40, 90], [10, 10, 30])  # not 40/10 of the medians
        self.assertEqual((line['min'], line['median'], line['max'], line['met']), (1, 3, 4, True))

    def test_median_below_the_floor_is_not_met_though_the_best_round_is(self):
        self.assertFalse(self.line([10, 10, 90], [10, 10, 10])['met'])

    def test_a_ceiling_is_met_from_below(self):
        self.assertTrue(self.line([1, 1, 1], [10, 10, 10], floor=0.125, direction=AT_MOST)['met'])
        self.assertFalse(self.line([2, 2, 2], [10, 10, 10], floor=0.125, direction=AT_MOST)['met'])

    def test_a_round_without_one_side_is_left_out(self):
        self.assertEqual(self.line([10, 20, 30], [10, None, 10])['rounds'], [1, 3])

    def test_what_was_not_measured_is_never_met_and_says_why(self):
        f = Figures()
        rates(f, 'ours', [10])
        f.skip('peer', 'no bao on the PATH')
        for t in (Target('t', 2, ('ours', 'rate'), ('peer', 'rate')), Target('t', 2, ('ours', 'rate'), ('peer', 'rate'), AT_MOST)):
            line = t.line(f)
            self.assertFalse(line['met'])
            self.assertEqual((line['median'], line['why']), (None, 'not measured: no bao on the PATH'))

    def test_members_of_members(self):
        f = Figures()
        f.add('lag', 0, {'lag': {'durable': {'hist': {'p99_ms': 3}}}})
        f.add('lag', 1, {'rate': 1})
        self.assertEqual(f.values('lag', 'lag.durable.hist.p99_ms'), [3, None])

    def test_every_line_has_what_machines_read(self):
        for line in table(Figures()):
            self.assertLessEqual({'name', 'floor', 'min', 'median', 'max', 'met'}, set(line))
            self.assertFalse(line['met'])
        self.assertEqual(len({t.name for t in TARGETS}), len(TARGETS))


class Report(unittest.TestCase):
    def test_html_is_whole_and_needs_nothing_from_elsewhere(self):
        f = Figures()
        for name in ('engine.alone.64.256', 'etcd.put.64.256', 'engine.offered.50'):
            f.add(name, 0, {'rate': 5000.0, 'offered': 5000, 'done': 5000, 'seconds': 1.0, 'cpu_s': 0.5, 'generator_cpu_s': 0.1,
                            'answer': {'count': 9, 'p50_ms': 1.0, 'p99_ms': 2.0, 'max_ms': 3.0, 'cdf': [[1.0, 0.5], [3.0, 1.0]]}})
        lag = {'hist': {'cdf': [[1.0, 1.0]]}, 'tick_max_ms': [1.0, 0.0, 2.0]}
        f.add('lag.10000', 0, {'rate': 1.0, 'seconds': 3.0, 'done': 3, 'lag': {'durable': lag, 'applied': lag}})
        f.add('catchup.2s', 0, {'rate': 1.0, 'seconds': 3.0, 'done': 3, 'per_second': [1, 1, 1], 'lag': {'durable': lag, 'applied': lag}})
        f.skip('bao.put.64', 'no <bao> on the PATH')
        with tempfile.NamedTemporaryFile('r', suffix='.html') as out:
            html_report.write(out.name, MACHINE, f, table(f))
            text = out.read()
        self.assertEqual(text.count('<svg'), 7)
        self.assertIn('no &lt;bao&gt; on the PATH', text)
        for outside in ('http://', 'https://', '<script', '<link'):
            self.assertNotIn(outside, text)

    def test_cpu_for_each_request_counts_both_of_a_pair(self):
        self.assertEqual(report.cpu_us({'done': 10, 'cpu_s': 1e-5, 'secondary_cpu_s': 1e-5}), 2)

    def test_a_logarithmic_axis_takes_values_of_any_size(self):
        self.assertIn('<polyline', plot.lines('t', 'x', 'y', {'a': [(0.001, 1e-5), (1e6, 1)]}, log_x=True, log_y=True))

    def test_a_flat_curve_has_an_axis(self):
        self.assertIn('<polyline', plot.lines('t', 'x', 'y', {'a': [(0, 0), (1, 0)]}))


if __name__ == '__main__':
    unittest.main()
