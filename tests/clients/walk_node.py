#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts two fresh servers and lets the unchanged node-vault walk on them."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, run_tests  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def the_walk():
    """the walk by node-vault"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        for s in (a, b):
            s.start()
        env = {**os.environ, 'LOCKSTEP_A': a.addr, 'LOCKSTEP_B': b.addr, 'LOCKSTEP_CA': w.ca, 'LOCKSTEP_PID_A': str(a.proc.pid)}
        r = subprocess.run(['node', 'walk.js'], cwd=os.path.join(HERE, 'node'), env=env, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=300)
        if r.returncode != 0:
            raise Failed(r.stdout[-4000:])


if __name__ == '__main__':
    sys.exit(run_tests([the_walk], 'node'))
