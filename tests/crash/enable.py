#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequence 17: enabling a secondary survives SIGKILL between any two of its steps.

usage: enable.py [--rounds N] [--seed S]

unwrap, credentials durable, link proven, old data set aside, role durable, copy, switch: the secondary is killed at a random moment of this;
in every other round it begins with a snapshot of the primary instead of a copy. After its restart it either still has all its own
data and takes a new token, or resumes by itself and ends up following with the primary's data; it is then promoted and everything is
read. The volatile-disk build makes the kill a power cut.
"""
import argparse
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true  # noqa: E402

SECRETS = 300
SIGNS = ('making gen-', 'the snapshot is whole')  # in its log: making it takes longer than all the rest


def one_round(program, rng, seeded, outcomes):
    how = ', seeded' if seeded else ''
    env = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a, b = w.server('primary', env=env), w.server('secondary', env=env)
        for s in (a, b):
            s.start()
            s.init()
            s.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        conn = a.connect()
        for i in range(SECRETS):
            a.ok('PUT', f'kv/k{i}', {'v': i, 'pad': 'x' * 1000}, conn=conn)
        b.ok('PUT', 'kv/own', {'v': 'own'})
        own_keys, own_root = b.keys, b.root
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        asks = {'ca_file': w.ca, 'confirm_wipe': b.name}
        if seeded:
            asks['seed_file'] = os.path.join(w.dir, 'snapshot')
            r = a.cli('operator', 'snapshot', 'save', asks['seed_file'])
            if r.returncode != 0:
                raise Failed(r.stdout)
            a.ok('PUT', f'kv/k{SECRETS - 1}', {'v': SECRETS - 1, 'later': 'than the snapshot'}, conn=conn)

        def token(name):
            return a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': name}).json['wrap_info']['token']

        def enable(t):
            try:
                b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': t, **asks}, token=own_root)
            except OSError:
                pass  # killed while it worked
            except Exception:
                if b.proc.poll() is None:
                    raise

        request = threading.Thread(target=enable, args=(token('first'),))
        request.start()
        sign = rng.choice(SIGNS) if seeded else ''
        await_true(sign, lambda: sign in open(b.log, errors='replace').read() or not request.is_alive())
        time.sleep(rng.uniform(0, 0.25))  # the random moment itself
        b.kill()
        request.join()
        b.start()
        # Which of the two it is shows in which keys unseal it.
        own = True
        for k in own_keys[:2]:
            r = b.call('PUT', 'sys/unseal', {'key': k}, token='')
            own = own and r.status == 200
        own = own and not b.call('GET', 'sys/seal-status', token='').json['sealed'] and \
            b.call('GET', 'kv/own', token=own_root).status == 200
        if own:
            outcomes['old data in place' + how] += 1
            assert b.ok('GET', 'kv/own', token=own_root).data == {'v': 'own'}
            b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': token('second'), **asks}, token=own_root)
        else:
            outcomes['resumed' + how] += 1

        def ready():
            """Unsealed with the primary's keys, and following. Old keys may fit until the copy is whole."""
            if b.call('GET', 'sys/seal-status', token='').json['sealed']:
                b.call('PUT', 'sys/unseal', {'reset': True}, token='')
                for k in a.keys[:2]:
                    b.call('PUT', 'sys/unseal', {'key': k}, token='')
            r = b.call('GET', 'sys/replication/dr/status', token='')
            return r.status == 200 and r.data.get('dr', r.data).get('state') == 'stream-wals'
        await_true("the secondary to follow, unsealed with the primary's keys", ready)
        w.await_caught_up(a, b)
        aside, = b.dr_status()['set_aside']
        if not os.path.isdir(f'{b.dir}/data/gen-{aside["generation"]}'):
            raise Failed(f'what was set aside is not there: {aside}')
        t = b.dr_token(a.keys[:2])
        a.kill()
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': t}, token='')
        await_true('service', lambda: b.call('GET', 'auth/token/lookup-self', token=a.root).status == 200, 10)
        conn = b.connect()
        for i in range(SECRETS):
            r = b.ok('GET', f'kv/k{i}', token=a.root, conn=conn)
            assert r.data['v'] == i
        assert b.call('GET', 'kv/own', token=a.root).status == 404


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=8)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng = random.Random(args.seed)
    outcomes = {f'{word}{how}': 0 for how in ('', ', seeded') for word in ('old data in place', 'resumed')}
    for i in range(args.rounds):
        try:
            one_round(args.program, rng, i % 2 == 1, outcomes)
        except Failed as e:
            print(f'round {i + 1}: {e}')
            print(f'{i} passed, 1 failed')
            return 1
    print(f'{args.rounds} rounds, {outcomes}')
    print(f'{args.rounds} passed, 0 failed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
