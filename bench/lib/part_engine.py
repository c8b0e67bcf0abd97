# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's durable writes beside those of etcd, Redis, PostgreSQL and of the bare disk, in alternating rounds."""
import shutil

import disk
import wiredtiger
from lab import run_json, tool

PRODUCERS = (1, 16, 64, 256, 1024)
MODES = ('alone', 'async', 'flush')


def engine(run, mode='alone', outstanding=64, value=256, **options):
    """bench_engine on an empty folder. None: an option without a value."""
    folder = run.lab.folder('engine')
    argv = [tool('bench_engine'), f'--dir={folder}', f'--mode={mode}', f'--outstanding={outstanding}', f'--value={value}',
            *(f'--{k.replace("_", "-")}' + (f'={v}' if v is not None else '') for k, v in options.items())]
    try:
        return run_json(argv)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(run):
    seconds, warmup = run.seconds(2, 10), 0.5
    peers = run.peers
    run.figures.configs['fio'] = disk.config
    run.compare(run.rounds, [
        ('engine.alone.64.256', lambda: engine(run, 'alone', seconds=run.seconds(2, 60), warmup=warmup)),
        ('etcd.put.64.256', lambda: peers.etcd().put(64, 256, seconds, warmup)),
        ('redis.always.64.256', lambda: peers.redis().set(64, 256, seconds, warmup)),
        ('postgres.local.64.256', lambda: peers.postgres().insert('local', 64, 256, seconds, warmup)),
        ('engine.flush.64.256', lambda: engine(run, 'flush', seconds=seconds, warmup=warmup)),
        ('postgres.on.64.256', lambda: peers.with_standby('on', 64, 256, seconds, warmup)),
        ('engine.async.64.256', lambda: engine(run, 'async', seconds=seconds, warmup=warmup)),
        ('engine.dummy.64.256', lambda: engine(run, 'dummy', seconds=seconds, warmup=warmup)),
        ('engine.hot', lambda: engine(run, 'alone', keys=10000, seconds=seconds, warmup=warmup)),
        ('engine.alone.1024.256', lambda: engine(run, 'alone', 1024, seconds=seconds, warmup=warmup)),
        ('fio.1024', lambda: fio_beside(run, seconds)),
    ])
    stages(run)
    large(run)
    sweep(run)
    sustained(run)


def stages(run):
    """Where the time of a write goes, from point to point of its way (wal/base/trace.h). Noting it costs a little, so these are runs of their own."""
    run.compare(1, [(f'stages.{mode}.64', lambda m=mode: engine(run, m, seconds=run.seconds(2, 10), warmup=0.5, stages=None))
                    for mode in ('alone', 'flush')])


def sustained(run):
    """The maximum is what holds for ten minutes on 1 M keys that are there. Only --full has the time."""
    if run.full:
        options = {'keys': 1000000, 'preload': 1000000, 'seconds': 600, 'warmup': 5}
        run.compare(3, [(f'engine.sustained.{n}', lambda n=n: engine(run, 'alone', n, **options)) for n in (64, 1024)])


def large(run):
    """A key space of three times the cache; a row of 256 B takes about 300 in the tree. Quick: what can be filled in ten seconds of it."""
    cache_mib = run.seconds(16, 256)
    keys = 3 * (cache_mib << 20) // 300
    timed = {'keys': keys, 'cache_mib': cache_mib, 'seconds': run.seconds(3, 600), 'warmup': 1}
    filled = {'preload': keys, 'preload_seconds': run.seconds(10, 1200), **timed}
    run.figures.configs['wiredtiger'] = wiredtiger.config
    run.compare(3 if run.full else 1, [
        ('wiredtiger.large', lambda: wiredtiger.run(run.lab, '--preload', **timed)),
        ('engine.large', lambda: engine(run, 'alone', 1024, **filled)),
    ])
    top = run.figures.median('engine.large')
    if run.full and top:
        run.compare(3, [('engine.large.80', lambda: engine(run, 'alone', 16384, rate=round(0.8 * top), **filled))])
    else:
        run.figures.skip('engine.large.80', 'takes --full')


def fio_beside(run, seconds):
    """The same size of write as the engine's segments had in this round."""
    r = run.figures.results['engine.alone.1024.256'][-1]
    return disk.flushed_writes(run.lab, r['log_bytes_per_s'] * r['seconds'] / max(r['segments'], 1), seconds)


def sweep(run):
    """All numbers of producers and both sizes; quick: each once, and only some."""
    steps = []
    for mode in MODES:
        for n in PRODUCERS:
            for value in (256, 1024):
                name = f'engine.{mode}.{n}.{value}'
                quick = mode == 'alone' and (value == 256 or n == 64)
                if name in run.figures.results or not (run.full or quick):
                    continue
                steps.append((name, lambda m=mode, o=n, v=value: engine(run, m, o, v, seconds=run.seconds(1, 10), warmup=0.3)))
    run.compare(run.rounds if run.full else 1, steps)
    offered(run)


def offered(run):
    """Open loop: what a steady rate costs in latency and CPU, at shares of the maximum."""
    top = run.figures.median('engine.alone.1024.256')
    if top is None:
        return
    steps = []
    for share in (10, 25, 50, 80, 100, 120) if run.full else (10, 50, 80):
        steps.append((f'engine.offered.{share}',
                      lambda r=top * share / 100: engine(run, 'alone', 16384, rate=round(r), seconds=run.seconds(1.5, 10), warmup=0.3)))
    run.compare(run.rounds if run.full else 1, steps)
