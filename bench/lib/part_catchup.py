# SPDX-License-Identifier: GPL-3.0-or-later
"""The link is cut for some seconds under load and joined again: how long until the lag is what it was."""
import json
import shutil
import subprocess
import threading
import time

from lab import Missing, tool
from relay import Relay

TICK_S = 0.1  # of tick_max_ms


def caught_up_s(ticks_ms, cut_s, joined_s):
    """Seconds from the join until no later tick is above twice the largest one before the cut (and 20 ms); None: never."""
    before = [t for i, t in enumerate(ticks_ms) if (i + 1) * TICK_S < cut_s]
    if not before:
        raise Missing('the link was cut before any lag was seen')
    normal = max(2 * max(before), 20)
    late = [i for i, t in enumerate(ticks_ms) if t > normal and (i + 1) * TICK_S > joined_s]
    last = (late[-1] + 1) * TICK_S if late else joined_s
    if not any(t > 0 for t in ticks_ms[round(last / TICK_S) + 1:]):
        return None
    return max(last - joined_s, 0.0)


def cut_for(run, cut_s, rate, after_s):
    folder = run.lab.folder('engine')
    with Relay(run.lab, 1) as relay:
        argv = [tool('bench_engine'), f'--dir={folder}', '--mode=async', f'--rate={rate}', '--outstanding=16384', '--warmup=0.5',
                f'--seconds={2 + cut_s + after_s}', *(f'--{k}={v}' for k, v in relay.options.items())]
        times, p = [], subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        began = threading.Event()

        def cut():
            # The load tells on stderr when it begins to count; from then on these are times, not conditions.
            began.wait()
            for pause, do in ((2, relay.cut), (cut_s, relay.join)):
                time.sleep(pause)
                do()
                times.append(time.monotonic_ns())

        thread = threading.Thread(target=cut, daemon=True)
        thread.start()
        try:
            if p.stderr.readline().startswith('begin'):
                began.set()
            out, err = p.communicate()
        finally:
            p.kill()  # when it was interrupted
            p.wait()
        if p.returncode != 0:
            raise Missing(f'bench_engine failed: {err[-800:]}')
        thread.join()
    shutil.rmtree(folder, ignore_errors=True)
    r = json.loads(out)
    since = [(t - r['begin_mono_ns']) / 1e9 for t in times]
    for at in ('durable', 'applied'):
        took = caught_up_s(r['lag'][at]['tick_max_ms'], *since)
        # It may stream at the rate at which is written and no faster: that is a result, too.
        r[f'{at}_normal_after_s' if took is not None else f'{at}_behind_still_after_s'] = float(after_s) if took is None else took
    return r


def measure(run):
    run.compare(run.rounds, [(f'catchup.{cut}s', lambda c=cut: cut_for(run, c, 5000, run.seconds(5, 15) + c)) for cut in run.seconds((2,), (2, 10, 60))])
