# SPDX-License-Identifier: GPL-3.0-or-later
"""The same requests through wrk, a load generator that is not ours. Closed loop; its latencies know of no due time."""
import os
import re
import resource
import subprocess

from lab import ROOT, Missing, cpu_seconds, need

MS = {'us': 1e-3, 'ms': 1.0, 's': 1e3}


def run(kv, op, version, connections, seconds, size=256):
    """A result like bench_load's, as far as wrk tells."""
    if op == 'get':
        kv.get(1, 0.1, version, size, warmup=0)  # so that they are there
    env = {**os.environ, **kv.env, 'BENCH_OP': op, 'BENCH_PATH': kv.path(version, size, 'g' if op == 'get' else 'p'), 'BENCH_BYTES': str(size),
           'BENCH_VERSION': str(version)}
    own, server = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_seconds(kv.pid)
    r = subprocess.run([need('wrk'), '-t', '1', '-c', str(connections), '-d', f'{max(1, round(seconds))}s', '--latency', '-s',
                        os.path.join(ROOT, 'bench', 'kv.lua'), kv.server.addr], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True)
    if r.returncode != 0 or 'Non-2xx' in r.stdout or 'Socket errors' in r.stdout:
        raise Missing(f'wrk: {r.stdout[-800:]}')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    done, took, unit = re.search(r'(\d+) requests in ([\d.]+)(s|m)\b', r.stdout).groups()
    took = float(took) * (60 if unit == 'm' else 1)
    quantile = {q: float(v) * MS[u] for q, v, u in re.findall(r'(\d\d)% +([\d.]+)(us|ms|s)\b', r.stdout)}
    return {'rate': int(done) / took, 'done': int(done), 'seconds': took, 'connections': connections,
            'cpu_s': cpu_seconds(kv.pid) - server,
            'generator_cpu_s': after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime,
            'answer': {'count': int(done), 'p50_ms': quantile['50'], 'p99_ms': quantile['99'], 'max_ms': quantile['99']}}
