# SPDX-License-Identifier: GPL-3.0-or-later
"""bench/run: see there."""
import argparse
import importlib
import os
import sys

import html_report
import machine
import report
import targets
from lab import ROOT, Lab, Missing
from runner import Run

PARTS = ('engine', 'api', 'lag', 'catchup', 'failover', 'memory', 'peers')
OUT = os.path.join(ROOT, 'build', 'bench')


def finish(run, about):
    lines = targets.table(run.figures)
    report.write_json(os.path.join(OUT, 'report.json'), about, run.figures, lines, run.full)
    html_report.write(os.path.join(OUT, 'report.html'), about, run.figures, lines)
    print(machine.line(about))
    report.print_figures(run.figures)
    report.print_others(run.figures)
    report.print_stages(run.figures)
    report.print_targets(lines)
    print(f'{OUT}/report.json, {OUT}/report.html')


def main():
    p = argparse.ArgumentParser(prog='bench/run')
    p.add_argument('part', nargs='?', default='all', choices=(*PARTS, 'all'))
    p.add_argument('--full', action='store_true', help='long rounds, five of each, for publishing')
    args = p.parse_args()
    try:
        with Lab() as lab:
            run, about = Run(lab, args.full), machine.describe(lab)
            try:
                for name in PARTS if args.part == 'all' else (args.part,):
                    importlib.import_module(f'part_{name}').measure(run)
            finally:
                finish(run, about)
    except Missing as e:
        sys.exit(f'bench: {e}')


main()
