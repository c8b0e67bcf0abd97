#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequence 28: what is large is one small transaction, then paced ones, which go on after power cuts and after a promotion.

usage: detach.py [--rounds N] [--seed S]

A mount of many secrets is disabled, a mount of version 1 is upgraded to 2, or a token with many children is revoked. The primary is killed (a
power cut: the build has -Dvolatile_disk=true) at a random moment of what follows, and restarted, or given up for the secondary; whoever
goes on is killed once more. What serves at the end has nothing of what went, all that was upgraded, and the rest as it was. Its log
tells how: the first transaction is small, the later ones are bounded, and no row beside was written.
"""
import argparse
import http.client
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true  # noqa: E402

MANY = 2500
OTHERS = 60


def fill(a, n, one, writers=3):
    """one(i, conn) for each i below n."""
    lock, numbers, failed = threading.Lock(), iter(range(n)), []

    def run():
        conn = a.connect()
        while not failed:
            with lock:
                i = next(numbers, None)
            if i is None:
                return
            try:
                one(i, conn)
            except Exception as e:
                failed.append(e)
    threads = [threading.Thread(target=run) for _ in range(writers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


class Log:
    """What a server's log holds behind an LSN, from its disk: [[(op, key)]] by transaction."""

    def __init__(self, s, behind):
        gen = sorted((d for d in os.listdir(f'{s.dir}/data') if d.startswith('gen-')), key=lambda d: int(d[4:]))[-1]
        r = subprocess.run([s.world.program, 'wal', 'dump', f'-from={behind + 1}', f'{s.dir}/data/{gen}/wal'], capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed(f'{s.name}: {r.stderr}')
        self.txns = []
        for line in r.stdout.splitlines():
            if line.startswith('  lsn '):
                self.txns.append([])
            elif m := re.match(r'    (put|delete) +(\S+)', line):
                self.txns[-1].append((m[1], m[2]))

    def ops(self, prefix):
        return [op for recs in self.txns for op, key in recs if key.startswith(prefix)]


class Disable:
    """A kv mount is disabled: a row asks for the removal, and is the last to go."""
    first_max, later_max = 2, 257

    def __init__(self, a):
        a.ok('POST', 'sys/mounts/large', {'type': 'kv'})
        fill(a, MANY, lambda i, conn: a.ok('PUT', f'large/d{i % 7}/k{i}', {'v': i}, conn=conn))
        uuid = a.ok('GET', 'sys/mounts').data['large/']['uuid']
        self.asks, self.rows = 'core/detached/', (f'logical/{uuid}/', 'core/detached/')

    def change(self, s):
        s.ok('DELETE', 'sys/mounts/large')

    def pending(self, log):
        return log.ops(self.asks)[-1:] == ['put']

    def check(self, s):
        if s.call('LIST', 'large/').status != 404:
            raise Failed('the mount is there')
        s.ok('POST', 'sys/mounts/large', {'type': 'kv'})
        if s.call('LIST', 'large/').status != 404:
            raise Failed('a new mount at the path is not empty')


class Upgrade(Disable):
    """A kv mount becomes one of version 2: its row says so until all is rewritten."""
    first_max, later_max = 1, 3 * 256

    def __init__(self, a):
        super().__init__(a)
        self.asks = 'core/mount/'
        self.rows += (self.asks,)

    def change(self, s):
        s.ok('POST', 'sys/mounts/large/tune', {'options': {'version': '2'}})

    def pending(self, log):
        return len(log.ops(self.asks)) == 1

    def check(self, s):
        conn = s.connect()
        for i in range(MANY):
            d = s.ok('GET', f'large/data/d{i % 7}/k{i}', conn=conn).data
            if d['data'] != {'v': i} or d['metadata']['version'] != 1:
                raise Failed(f'upgraded, k{i} is {d}')


class Revoke(Disable):
    """A token with many children is revoked: a tombstone stands until they are gone. The answer comes behind that."""
    first_max, later_max = 5, 129

    def __init__(self, a):
        make = {'ttl': '1h', 'policies': ['root']}
        self.tokens = [a.ok('PUT', 'auth/token/create', make).json['auth']['client_token']]
        fill(a, MANY // 2, lambda i, conn: self.tokens.append(
            a.ok('PUT', 'auth/token/create', make, token=self.tokens[0], conn=conn).json['auth']['client_token']))
        self.asks, self.rows = 'sys/token/revoke/', ('sys/token/',)

    def change(self, s):
        s.ok('PUT', 'auth/token/revoke', {'token': self.tokens[0]})

    def check(self, s):
        conn = s.connect()
        for t in self.tokens:
            if s.call('GET', 'auth/token/lookup-self', token=t, conn=conn).status != 403:
                raise Failed('a token of the revoked tree is alive')


def kill_in(s, rng, work=None):
    """Kill at a random moment of what goes on, which takes some 40 ms."""
    failed = []

    def run():
        try:
            if work is not None:
                work(s)
        except (OSError, http.client.HTTPException):
            pass  # killed while it answered
        except Failed as e:
            failed.append(e)
    t = threading.Thread(target=run)
    t.start()
    time.sleep(rng.uniform(0, 0.04))  # the random moment itself
    s.kill()
    t.join()
    if failed:
        raise failed[0]


def asked(log, kind):
    """Whether the first transaction is there: when it is not, the power went before it was durable, and nobody was told that it was."""
    return log.ops(kind.asks) != []


def check_log(log, kind):
    with_rows = [recs for recs in log.txns if any(key.startswith(kind.rows) for _, key in recs)]
    if len(with_rows[0]) > kind.first_max or kind.asks not in str(with_rows[0]):
        raise Failed(f'it begins with {with_rows[0][:10]}')
    if max(map(len, with_rows)) > kind.later_max or len(with_rows) < MANY / kind.later_max / 2:
        raise Failed(f'{len(with_rows)} transactions of up to {max(map(len, with_rows))} records')
    beside = [key for recs in log.txns for _, key in recs if not key.startswith((*kind.rows, 'core/mount/', 'core/replication/'))]
    if beside:
        raise Failed(f'also written: {beside[:5]}')


def one_round(program, rng, kinds, counts):
    env = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a, b = w.pair(env=env)
        a.ok('POST', 'sys/mounts/other', {'type': 'kv'})
        for i in range(OTHERS):
            a.ok('PUT', f'other/k{i}', {'v': i})
        kind = rng.choice(kinds)(a)
        counts[kind.__class__.__name__.lower()] += 1
        w.await_caught_up(a, b)
        token = b.dr_token(a.keys[:2])
        behind = a.dr_status()['last_dr_wal']

        kill_in(a, rng, kind.change)
        s, how = (a, 'a restart') if rng.random() < 0.5 else (b, 'a promotion')
        log = Log(s, behind)
        counts[f'went on after {how}'] += asked(log, kind) and kind.pending(log)
        if s is a:
            a.start()
            a.unseal()
        else:
            b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token='')
        kill_in(s, rng, None if asked(log, kind) else kind.change)
        log = Log(s, behind)
        counts['went on after a restart'] += asked(log, kind) and kind.pending(log)
        s.start()
        s.unseal()
        if not asked(log, kind):
            kind.change(s)
        await_true('the work to end', lambda: not kind.pending(Log(s, behind)))
        check_log(Log(s, behind), kind)
        kind.check(s)
        for i in range(OTHERS):
            if s.ok('GET', f'other/k{i}').data != {'v': i}:
                raise Failed(f'other/k{i} is another')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=6)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng = random.Random(args.seed)
    counts = dict.fromkeys(('disable', 'upgrade', 'revoke', 'went on after a restart', 'went on after a promotion'), 0)
    begin = time.monotonic()
    for i in range(args.rounds):
        try:
            one_round(args.program, rng, (Disable, Upgrade, Revoke), counts)
        except Failed as e:
            print(f'round {i + 1}: {e}')
            print(f'{i} passed, 1 failed')
            return 1
    print(f'{args.rounds} rounds, {counts}, {time.monotonic() - begin:.0f} s')
    if args.rounds >= 6 and counts['went on after a restart'] + counts['went on after a promotion'] == 0:
        print('nothing was ever cut in the middle: the rounds show nothing')
        print('0 passed, 1 failed')
        return 1
    print(f'{args.rounds} passed, 0 failed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
