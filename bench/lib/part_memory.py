# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory of a pair by the number of its secrets, the time that a restart takes, and the rate of a replay."""
import shutil
import time

from lab import Missing, run_json, tool
from vault_servers import Kv, world_in

CACHE_MIB = 256          # the data of 1 M secrets is more
KEYS = 1000000
REPLAY_MIN = 200000      # records; below, most of the time goes to opening


def rss_bytes(pid):
    with open(f'/proc/{pid}/status') as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith('VmRSS'))


def restart_ms(server):
    """From the start of the program to the first read."""
    server.stop(120)
    began = time.monotonic()
    server.start()
    server.unseal()
    server.ok('GET', 'kv/read')
    return (time.monotonic() - began) * 1000


def grow(run, counts):
    """One pair that is filled on and on: the first n keys of one order, those that are there written again."""
    world = world_in(run.lab)
    a, b = world.pair(extra=f'cache_size = "{CACHE_MIB}MiB"')
    kv = Kv(a, a.proc.pid)
    a.ok('PUT', 'kv/read', {'value': 'x'})
    empty = rss_bytes(a.proc.pid)
    for n in counts:
        kv.pid = a.proc.pid
        kv.fill(n)
        world.await_caught_up(a, b, 600)
        r = {'primary_rss_mib': rss_bytes(a.proc.pid) / 2**20, 'secondary_rss_mib': rss_bytes(b.proc.pid) / 2**20,
             'bytes_a_secret': max(0, rss_bytes(a.proc.pid) - empty - (CACHE_MIB << 20)) / n}
        r['restart_ms'] = restart_ms(a)
        run.compare(1, [(f'memory.{n}', lambda r=r: r)])
    for s in (a, b):
        s.stop(120)


def replay(run, seconds):
    """1 M keys and a checkpoint, overwrites without one, then the end as by a power cut, then what recovery does a second."""
    folder = run.lab.folder('engine')
    program = [tool('bench_engine'), f'--dir={folder}']
    try:
        run_json([*program, f'--preload={KEYS}', '--seconds=0.1'])
        try:
            run_json([*program, f'--keys={KEYS}', '--outstanding=1024', f'--seconds={seconds}', '--checkpoint-mib=65536', '--die'])
        except Missing:
            pass  # it kills itself, as it was told
        r = run_json([*program, '--mode=reopen'])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if r['records'] < REPLAY_MIN:
        raise Missing(f'only {r["records"]} records were left to replay')
    return r


def measure(run):
    run.figures.configs['memory'] = ('a pair of servers with kv v1 secrets of 256 B; bytes_a_secret: resident memory of the primary beyond that of an empty one and '
                                     f'the configured cache of {CACHE_MIB} MiB; restart: from the start of the program to the first read, unsealing included')
    run.figures.configs['replay'] = f'{KEYS} keys and a checkpoint, then overwrites by 1,024 producers without one (16 s quick, 20 s full), then SIGKILL: those records by the time that opening takes'
    run.compare(run.rounds, [('replay', lambda: replay(run, run.seconds(16, 20)))])
    try:
        grow(run, (100000, 1000000, 10000000) if run.full else (100000, 1000000))
    except Missing as e:
        run.figures.skip('memory.1000000', str(e))
