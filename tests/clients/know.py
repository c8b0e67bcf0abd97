#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators know of replication: lag, health with reasons, watch, metrics, retention, doctor."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

STAGES = ('sent', 'received', 'flushed', 'applied')
WINDOWS = ('1m', '5m', '60m')


def cli(server, *args, **kw):
    env = {**os.environ, 'VAULT_ADDR': server.addr, 'VAULT_CACERT': server.world.ca, 'VAULT_TOKEN': server.token or '', **kw.pop('env', {})}
    return subprocess.run([server.program, *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, **kw)


def lag():
    """lag in LSNs, bytes and milliseconds for each stage, on both sides, without a write and through a stop"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for i in range(30):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 500})
        w.await_caught_up(a, b)

        def measured(s, side):
            peer = s.dr_status()[side][0]
            return all(peer['lag'][k][win]['samples'] > 0 for k in STAGES for win in WINDOWS) and peer
        for s, side in ((a, 'secondaries'), (b, 'primaries')):
            peer = await_true(f'{s.name} to tell the lag', lambda: measured(s, side))
            for k in STAGES:
                for win in WINDOWS:
                    f = peer['lag'][k][win]
                    assert 0 <= f['p50_ms'] <= f['p99_ms'] <= f['max_ms'] < 30000, (k, win, f)
            assert peer['lag']['received']['1m']['p50_ms'] <= peer['lag']['flushed']['1m']['max_ms'], peer['lag']
            assert int(peer['replication_primary_canary_age_ms']) < 3000, peer
        before = a.dr_status()['secondaries'][0]['lag']['flushed']['60m']['samples']
        await_true('the canary to be measured', lambda: a.dr_status()['secondaries'][0]['lag']['flushed']['60m']['samples'] >= before + 2)
        b.kill()
        for i in range(10):
            a.ok('PUT', f'kv/k{i}', {'v': 'y' * 5000})
        behind = a.dr_status()['secondaries'][0]['lag']
        for k in ('received', 'flushed', 'applied'):
            assert behind[k]['lsns'] >= 10 and behind[k]['bytes'] >= 50000 and behind[k]['ms'] > 0, (k, behind[k])
        await_true('the lag to grow', lambda: a.dr_status()['secondaries'][0]['lag']['flushed']['ms'] > 1500)
        b.start()
        b.unseal(a.keys[:2])
        await_true('the lag to go', lambda: all(a.dr_status()['secondaries'][0]['lag'][k]['lsns'] <= 1 for k in STAGES))
        assert a.dr_status()['secondaries'][0]['lag']['flushed']['1m']['max_ms'] > 1500
        text = cli(a, 'replication', 'status', '-format=json')
        assert text.returncode == 0, text.stderr
        status = json.loads(text.stdout)
        assert status['secondaries'][0]['lag']['flushed']['1m']['samples'] > 0
        long = re.findall(r'\d+\.\d{4,}', text.stdout)
        assert not long, f'numbers with more than microseconds: {long}'


if __name__ == '__main__':
    sys.exit(run_tests([lag], 'know'))
