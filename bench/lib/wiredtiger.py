# SPDX-License-Identifier: GPL-3.0-or-later
"""WiredTiger by itself: its log, and its tree over a key space larger than its cache."""
import shutil

from lab import run_json, tool

config = ('WiredTiger as Debian has it. log: each transaction of one row flushed to its own log (method fsync), by so many threads. '
          'large: rows into the tree alone by one thread, no log, a checkpoint each half minute, so nothing durable in between')


def run(lab, *flags, **options):
    folder = lab.folder('wiredtiger')
    try:
        return run_json([tool('bench_wt'), f'--dir={folder}', *flags, *(f'--{k.replace("_", "-")}={v}' for k, v in options.items())])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
