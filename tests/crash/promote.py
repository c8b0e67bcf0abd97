#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A promotion with mode flush or apply loses nothing that was answered: both sites lose power at once, and only the secondary comes back.

usage: promote.py [--rounds N] [--seed S] [--canary]

The program is a build with -Dvolatile_disk=true: SIGKILL is a power cut. Under load the secondary and the primary are killed, in either
order; the secondary alone is started again, unsealed and promoted. Every write that the primary answered must be there, and
nothing that no client ever asked for. --canary: the secondary's disk lies about flush; that must lose a write.
"""
import argparse
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true  # noqa: E402
from crash import Load, Lost  # noqa: E402

MODE = 'sys/replication/dr/primary/mode'


def one_round(program, rng, canary, counts):
    level = rng.choice(('flush', 'apply'))
    order = rng.random() < 0.5
    seed = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a = w.server('primary', env=seed)
        b = w.server('secondary', env=dict(seed))
        for s in (a, b):
            s.start()
            s.init()
        w.enable(a, b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        await_true('the secondary to be whole', lambda: a.ok('GET', MODE).data['secondaries']['secondary']['whole'])
        a.ok('PUT', MODE, {'mode': level, 'id': 'secondary'})
        await_true('the promise', lambda: b.dr_status()['no_loss'])
        if canary:
            b.stop()
            b.env['LOCKSTEP_VOLATILE_IGNORE_FLUSH'] = '1'
            b.start()
            b.unseal(a.keys[:2])
            w.await_caught_up(a, b)
        load = Load(a, 0)
        await_true('a first answer', lambda: load.acked)
        time.sleep(rng.uniform(0.02, 0.6))  # the random moment itself
        for s in (b, a) if order else (a, b):
            s.kill()
        asked, acked = load.finish()
        counts[level] += len(acked)
        answered = set(acked)
        try:
            b.start()
            b.unseal(a.keys[:2])
            t = b.dr_token(a.keys[:2])
            b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': t}, token='')
            await_true('service', lambda: b.call('GET', 'auth/token/lookup-self', token=a.root).status == 200, 10)
        except Failed:
            if canary:
                raise Lost('the secondary does not come back') from None
            raise
        conn = b.connect()
        for n in range(asked):
            r = b.call('GET', f'kv/k{n}', token=a.root, conn=conn)
            if r.status == 200 and r.data['v'] == n:
                continue
            if n in answered or r.status != 404:
                raise Lost(f'mode {level}: acknowledged write k{n} is not on the promoted secondary: {r.status} {r.text[:200]}')
        b.ok('PUT', 'kv/after', {'v': 1}, token=a.root, conn=conn)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=10)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--canary', action='store_true')
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng = random.Random(args.seed)
    counts = {'flush': 0, 'apply': 0}
    begin = time.monotonic()
    for i in range(args.rounds):
        try:
            one_round(args.program, rng, args.canary, counts)
        except Failed as e:
            print(f'round {i + 1}: {e}')
            good = args.canary and isinstance(e, Lost)
            if good:
                print('the canary died, as it must: a secondary that does not flush is noticed')
            print('1 passed, 0 failed' if good else f'{i} passed, 1 failed')
            return 0 if good else 1
    print(f'{args.rounds} rounds, acknowledged writes {counts}, none lost, {time.monotonic() - begin:.0f} s')
    if args.canary:
        print('a secondary that does not flush was NOT noticed')
    print('0 passed, 1 failed' if args.canary else f'{args.rounds} passed, 0 failed')
    return 1 if args.canary else 0


if __name__ == '__main__':
    sys.exit(main())
