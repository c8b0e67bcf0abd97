# SPDX-License-Identifier: GPL-3.0-or-later
"""What the figures were measured on."""
import os
import platform
import subprocess

from lab import ROOT


def describe(lab):
    with open('/proc/cpuinfo') as f:
        cpu = next((line.split(':', 1)[1].strip() for line in f if line.startswith('model name')), platform.machine())
    with open('/proc/meminfo') as f:
        memory = int(f.readline().split()[1])
    commit = subprocess.run(['git', 'describe', '--always', '--dirty'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    return {'cpu': cpu, 'cores': len(os.sched_getaffinity(0)), 'memory_gib': round(memory / 2**20, 1), 'kernel': platform.release(),
            'disk': f'{lab.device} ({lab.kind})', 'load': os.getloadavg()[0], 'commit': commit or 'unknown'}


def line(m):
    return (f'{m["cores"]} cores of {m["cpu"]}, {m["memory_gib"]} GiB, Linux {m["kernel"]}, {m["disk"]}, '
            f'load {m["load"]:.1f} at the start, commit {m["commit"]}')
