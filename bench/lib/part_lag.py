# SPDX-License-Identifier: GPL-3.0-or-later
"""From durable here to durable and to applied there: at steady rates, over longer ways, and beside what it cannot be better than."""
import shutil

from lab import Missing, run_json, tool
from part_engine import engine
from relay import Relay

OUTSTANDING = 16384
SECONDARY_WAY = 'lag: one async secondary in another process over TLS, 256 B values, open loop'
PROBE = 'probe: one block written and flushed at both ends at once, and a socket between them, one at a time; no TLS, nothing applied'


def at_rate(run, rate, seconds, round_trip_ms=0, mode='async', outstanding=OUTSTANDING, **options):
    options |= {'seconds': seconds, 'warmup': 0.5 + 4 * round_trip_ms / 1000}
    if rate:
        options['rate'] = round(rate)
    if round_trip_ms == 0:
        return engine(run, mode, outstanding, **options)
    with Relay(run.lab, round_trip_ms) as relay:
        return engine(run, mode, outstanding, **options, **relay.options)


def sustained(run, seconds):
    """The maximum, and what of it a pair sustains: what was applied there meanwhile, for a secondary that falls behind is let go in the end."""
    r = at_rate(run, 0, seconds, outstanding=1024)
    applied = r['lag']['applied']
    return r | {'pair_rate': min(r['rate'], (applied['hist']['count'] + applied['unknown']) / r['seconds'])}


def probe(run, seconds):
    folder = run.lab.folder('probe')
    try:
        return run_json([tool('bench_probe'), f'--dir={folder}', '--rate=1000', f'--seconds={seconds}'])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def postgres_lag(run, seconds):
    """PostgreSQL's own measure at the same rate, or at its maximum where that is less."""
    pg = run.peers.postgres()
    pg.attach()
    try:
        with pg.watch_flush_lag() as lag:
            r = pg.insert('local', 64, 256, seconds, 0.5, rate=10000)
        if not lag.ms:
            raise Missing('PostgreSQL told no flush_lag')
        return {'rate': r['rate'], 'done': r['done'], 'seconds': r['seconds'], 'cpu_s': r['cpu_s'], 'generator_cpu_s': r['generator_cpu_s'],
                'flush_lag_p50_ms': lag.quantile(0.5), 'flush_lag_p99_ms': lag.quantile(0.99)}
    finally:
        pg.detach()


def measure(run):
    seconds = run.seconds(2, 10)
    run.figures.configs.update(lag=SECONDARY_WAY, probe=PROBE)
    run.compare(run.rounds, [
        ('lag.max', lambda: at_rate(run, 0, seconds, outstanding=1024)),
        ('lag.10000', lambda: at_rate(run, 10000, seconds)),
        ('probe', lambda: probe(run, seconds)),
        ('postgres.lag', lambda: postgres_lag(run, seconds)),
    ])
    run.compare(1, [('stages.async.at_10000', lambda: at_rate(run, 10000, seconds, stages=None))])
    top = run.figures.median('lag.max')
    if top is None:
        return
    run.compare(3 if run.full else 1, [('lag.sustained', lambda: sustained(run, run.seconds(60, 600)))])
    run.compare(1, [('lag.80', lambda: at_rate(run, 0.8 * (run.figures.median('lag.sustained', 'pair_rate') or top), run.seconds(20, 600)))])
    steps = [(f'lag.{rate}', lambda r=rate: at_rate(run, r, seconds)) for rate in (1000, 50000) if rate < top]
    for ms in (1, 20, 100):
        steps += [(f'lag.{rate}.{ms}ms', lambda r=rate, m=ms: at_rate(run, r, seconds, m))
                  for rate in (1000, 10000, 50000) if rate < top and (run.full or rate == 10000)]
    run.compare(run.rounds if run.full else 1, steps)
    far(run, run.seconds(3, 10))


def far(run, seconds):
    """A secondary 100 ms away: what a mode that waits for it costs."""
    run.compare(run.rounds if run.full else 1, [
        ('lag.flush.100ms.1024', lambda: at_rate(run, 0, seconds, 100, 'flush', 1024)),
        ('lag.flush.100ms.16384', lambda: at_rate(run, 0, seconds, 100, 'flush', 16384)),
        ('lag.async.100ms.16384', lambda: at_rate(run, 0, seconds, 100, 'async', 16384)),
    ])
