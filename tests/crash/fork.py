#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power cuts while data becomes another cluster's or another process's: in a restore, and in a drill.

usage: fork.py [--rounds N] [--seed S]

The program is a build with -Dvolatile_disk=true: SIGKILL is a power cut, and so is each clean end. A restore that is killed at a random moment
leaves a directory that serves nothing, or all that was asked for, and one that said that it is done leaves all of it. A secondary that
is killed at a random moment of a drill comes back as the secondary that it was, without a trace of the fork, and can drill again.
The real cluster writes on meanwhile and has all that it answered.
"""
import argparse
import os
import random
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true, free_ports  # noqa: E402
from crash import Load, check  # noqa: E402

SECRETS = 200
# Of a restore under way: each is there from some step on.
SIGNS = ('gen-1/store', 'gen-1/store/WiredTiger.turtle', 'gen-1/wal/create.tmp', 'gen-1/wal/0000000000000001.log', 'local')
DRILL = 'sys/replication/dr/secondary/drill'


# ---- restore ----

def restore_command(a, snapshot, into, lsn):
    gen = sorted(d for d in os.listdir(f'{a.dir}/data') if d.startswith('gen-'))[-1]
    return ['operator', 'restore', f'-snapshot={snapshot}', f'-wal={a.dir}/data/{gen}/wal', f'-to-lsn={lsn}', f'-into={into}']


def has_all(s, n):
    """Exactly the first n writes."""
    s.unseal()
    found = s.ok('LIST', 'kv/').data['keys']
    if sorted(found) != sorted(f'k{i}' for i in range(n)):
        raise Failed(f'{len(found)} of {n} secrets were restored')
    conn = s.connect()
    for i in range(n):
        if s.ok('GET', f'kv/k{i}', conn=conn).data['v'] != i:
            raise Failed(f'k{i} has another value')
    s.ok('PUT', 'kv/after', {'v': 1}, conn=conn)


def what_is_left(s, into, n):
    """Of the restored directory that s serves: nothing that could be taken for the data, or all of it."""
    try:
        s.start()
        if not s.ok('GET', 'sys/init', token='').json['initialized']:
            return 'nothing'
        has_all(s, n)
        return 'all'
    except Failed as e:
        if os.path.exists(f'{into}/local') or 'local is missing' not in str(e):
            raise
        return 'refused'
    finally:
        if s.proc.poll() is None:
            s.kill()


def cut_restore(w, command, into, s, n, rng, counts):
    """One restore from a running server's log, killed at a random moment or just not."""
    shutil.rmtree(into, ignore_errors=True)
    s.env = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    p = subprocess.Popen([w.program, *command], env={**os.environ, **s.env}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL)
    sign = os.path.join(into, rng.choice(SIGNS))
    await_true(sign, lambda: os.path.exists(sign) or p.poll() is not None)
    try:
        p.wait(rng.uniform(0, 0.1))  # the random moment itself
    except subprocess.TimeoutExpired:
        p.kill()
    p.wait()
    left = what_is_left(s, into, n)
    if p.returncode == 0 and left != 'all':
        raise Failed(f'a restore that said that it is done left {left}')
    counts[f'restore: {left}'] = counts.get(f'restore: {left}', 0) + 1


def restores(program, rng, rounds, counts):
    with World(program) as w:
        a = w.server('primary', env={'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))})
        a.start()
        a.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        conn = a.connect()
        snapshot, into = os.path.join(w.dir, 'snapshot'), os.path.join(w.dir, 'into')
        for i in range(SECRETS):
            if i == SECRETS // 2:
                r = a.cli('operator', 'snapshot', 'save', snapshot)
                if r.returncode != 0:
                    raise Failed(r.stdout)
            r = a.ok('PUT', f'kv/k{i}', {'v': i, 'pad': 'x' * 1500}, conn=conn, headers={'X-Lockstep-Ack': 'local'})
        command = restore_command(a, snapshot, into, r.headers['X-Lockstep-LSN'])
        s = w.server('restored', data=into)
        s.keys, s.threshold, s.token = a.keys, a.threshold, a.token
        following, all_acked = SECRETS, list(range(SECRETS))
        for _ in range(rounds):
            load = Load(a, following, writers=1)
            cut_restore(w, command, into, s, SECRETS, rng, counts)
            following, acked = load.finish()
            all_acked += acked
        a.kill()
        a.start()
        a.unseal()
        check(w, a, None, all_acked, [])


# ---- drill ----

def begin_drill(b, token, address):
    r = b.call('PUT', DRILL, {'dr_operation_token': token, 'address': address}, token='')
    if r.status != 200:
        raise Failed(f'no drill: {r.status} {r.text}')


def drill_state(b, token):
    return b.ok('GET', DRILL, token=token).data


def await_drill(b, token, state):
    def there():
        st = drill_state(b, token)
        if state == 'running' and st['state'] == 'none':
            raise Failed(f'the drill ended: {st}\n{b.tail()}')
        return st['state'] == state
    await_true(f'the drill to be {state}', there)


def end_drill(b, token):
    b.ok('PUT', DRILL + '/stop', {'dr_operation_token': token}, token='')
    await_drill(b, token, 'none')


def cut_drill(w, a, b, rng, token, address, whole, following, counts):
    """One power cut of the secondary from the beginning of a drill to behind its end."""
    load = Load(a, following, writers=2)
    begin_drill(b, token, address)
    ends = rng.random() < 0.3
    if ends:
        await_drill(b, token, 'running')
        b.ok('PUT', DRILL + '/stop', {'dr_operation_token': token}, token='')
    time.sleep(rng.uniform(0, 0.05 if ends else whole))  # the random moment itself
    word = 'ending' if ends else drill_state(b, token)['state']
    b.kill()
    counts[f'drill: {word}'] = counts.get(f'drill: {word}', 0) + 1
    b.start()
    b.unseal()
    await_true('the fork to go', lambda: not os.path.exists(f'{b.dir}/data/drill'))
    following, acked = load.finish()
    check(w, a, b, acked, [])
    x, y = a.dr_status(), b.dr_status()
    if (x['mode'], y['mode'], x['epoch'], y['epoch']) != ('primary', 'secondary', 1, 1) or x['cluster_id'] != y['cluster_id']:
        raise Failed(f'the pair is another one after the drill: {x} {y}')
    return following, acked


def drills(program, rng, rounds, counts):
    env = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a, b = w.pair(env=env)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        conn = a.connect()
        for i in range(100):
            a.ok('PUT', f'kv/k{i}', {'v': i, 'pad': 'x' * 1500}, conn=conn)
        w.await_caught_up(a, b)
        token = b.dr_token(a.keys[:2])
        address = f'127.0.0.1:{free_ports()}'
        begin = time.monotonic()
        begin_drill(b, token, address)
        await_drill(b, token, 'running')
        whole = time.monotonic() - begin
        end_drill(b, token)
        following, all_acked = 1000, list(range(100))
        for _ in range(rounds):
            following, acked = cut_drill(w, a, b, rng, token, address, whole, following, counts)
            all_acked += acked
        # And it is all still there when it counts, also for one more drill.
        begin_drill(b, token, address)
        await_drill(b, token, 'running')
        end_drill(b, token)
        a.kill()
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token='')
        await_true('service', lambda: b.call('GET', 'auth/token/lookup-self', token=a.root).status == 200, 10)
        check(w, b, None, all_acked, [])


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=8, help='of each kind')
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    p.add_argument('--only', choices=('restore', 'drill'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng = random.Random(args.seed)
    counts, begin, passed = {}, time.monotonic(), 0
    for name, kind in (('restore', restores), ('drill', drills)):
        if args.only not in (None, name):
            continue
        try:
            kind(args.program, rng, args.rounds, counts)
            passed += args.rounds
        except Failed as e:
            print(f'{name}: {e}')
            print(f'{passed} passed, 1 failed')
            return 1
    print(f'{args.rounds} rounds, {counts}, no half of anything, {time.monotonic() - begin:.0f} s')
    print(f'{passed} passed, 0 failed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
