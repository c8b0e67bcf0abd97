#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first benchmark: the engine alone, the API over TLS with and without a secondary, and the lag while writing."""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'tests', 'lib'))
from cluster import ROOT, World  # noqa: E402

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 5
ROUNDS = 3


def spread(name, values, unit):
    print(f'{name:58} {statistics.median(values):>10.0f} {unit}   ({min(values):.0f} to {max(values):.0f})', flush=True)


def engine(outstanding):
    rates, last = [], None
    for _ in range(ROUNDS):
        folder = tempfile.mkdtemp(prefix='lockstep-bench.', dir=os.environ.get('BENCH_DIR'))
        try:
            r = subprocess.run([os.path.join(ROOT, 'build', 'bench', 'bench_engine'), folder, str(SECONDS), '256', str(outstanding), '1'],
                               stdout=subprocess.PIPE, text=True, check=True)
            last = json.loads(r.stdout)
            rates.append(last['writes_per_s'])
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    spread(f'engine, 256 B, {outstanding} outstanding', rates, 'writes/s')
    print(f'    answer p50 {last["p50_ms"]} ms, p99 {last["p99_ms"]} ms, {last["txns_per_segment"]} transactions a segment')


def wrk(server, connections):
    env = {**os.environ, 'BENCH_TOKEN': server.root}
    r = subprocess.run(['wrk', '-t', '1', '-c', str(connections), '-d', f'{SECONDS:.0f}s', '--latency', '-s',
                        os.path.join(ROOT, 'bench', 'put.lua'), server.addr], env=env, stdout=subprocess.PIPE, text=True, check=True)
    bad = re.search(r'Non-2xx or 3xx responses: (\d+)', r.stdout)
    if bad:
        sys.exit(f'{bad[1]} requests failed:\n{r.stdout}')
    return float(re.search(r'Requests/sec:\s+([\d.]+)', r.stdout)[1])


def main():
    print(f'each figure: median of {ROUNDS} rounds of {SECONDS:.0f} s (least to most)\n')
    engine(1)
    engine(64)
    engine(1024)
    with World() as w:
        a = w.server('alone')
        a.start()
        a.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for c in (1, 64):
            spread(f'API over TLS, kv put 256 B, {c} connections, no secondary', [wrk(a, c) for _ in range(ROUNDS)], 'writes/s')
        a.stop()
    for c in (1, 64):
        with World() as w:  # a pair each: its lag is that of this load alone
            a, b = w.pair()
            a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
            spread(f'API over TLS, kv put 256 B, {c} connections, one secondary', [wrk(a, c) for _ in range(ROUNDS)], 'writes/s')
            s = a.dr_status()['secondaries'][0]
            print(f'    lag p50 {s.get("lag_ms_p50")} ms, p99 {s.get("lag_ms_p99")} ms, max {s.get("lag_ms_max")} ms')
            w.await_caught_up(a, b)


main()
