#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""SIGKILL on the primary or the secondary at a random moment under load, on the volatile disk.

usage: crash.py [--rounds N] [--seed S] [--canary]

The program is a build with -Dvolatile_disk=true: what was not flushed lives in the process, so SIGKILL is a power cut, and so is the
end of a process that was told to stop. After each the victim is restarted; then every acknowledged write must be on the primary, and
the secondary, once it follows again, must have the same log (running hashes) and the same state (Merkle root at the same LSN).
--canary runs a disk that lies about flush, and fails unless that loses a write: it proves that the net holds.
"""
import argparse
import os
import random
import re
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World  # noqa: E402


class Lost(Failed):
    pass


class Load:
    """Writers over keep-alive connections; acked holds what was answered 204."""

    def __init__(self, server, start, writers=8):
        self.server, self.acked, self.stop, self.lock = server, {}, threading.Event(), threading.Lock()
        self.next = start
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(writers)]
        for t in self.threads:
            t.start()

    def run(self):
        conn = self.server.connect(10)
        while not self.stop.is_set():
            with self.lock:
                n, self.next = self.next, self.next + 1
            try:
                r = self.server.call('PUT', f'kv/k{n}', {'v': n, 'pad': 'x' * (n * 37 % 700)}, conn=conn)
            except OSError:
                return
            except Exception as e:  # a half answer of a killed server
                if self.server.proc.poll() is None:
                    raise
                return
            if r.status == 204:
                with self.lock:
                    self.acked[n] = True

    def finish(self):
        self.stop.set()
        for t in self.threads:
            t.join()
        return self.next, list(self.acked)


def hashes(world, server):
    """LSN of each segment's end -> running hash, from the log on disk."""
    found = {}
    for gen in sorted(os.listdir(os.path.join(server.dir, 'data'))):
        if not gen.startswith('gen-'):
            continue
        r = subprocess.run([world.program, 'wal', 'dump', '-records=false', os.path.join(server.dir, 'data', gen, 'wal')],
                           capture_output=True, text=True)
        if r.returncode != 0:
            raise Failed(f'{server.name}: {r.stderr}')
        found = {int(m[1]): m[2] for m in re.finditer(r'lsn \d+-(\d+) .* hash ([0-9a-f]+)', r.stdout)}
    return found


def check(world, a, b, acked, sample):
    conn = a.connect()
    for n in acked + sample:
        r = a.call('GET', f'kv/k{n}', conn=conn)
        if r.status != 200 or r.data['v'] != n:
            raise Lost(f'acknowledged write k{n} is not there: {r.status} {r.text[:200]}')
    conn.close()
    if b is None:
        return
    if b.call('GET', 'sys/seal-status', token='').json['sealed']:
        b.unseal(a.keys[:2])
    world.await_following(b)
    world.await_caught_up(a, b)
    world.check_same_root(a, b)
    ours, theirs = hashes(world, a), hashes(world, b)
    for lsn in theirs.keys() & ours.keys():
        if ours[lsn] != theirs[lsn]:
            raise Failed(f'the logs differ at LSN {lsn}')
    if not theirs.keys() & ours.keys():
        raise Failed('the logs have no segment in common')


def rounds(program, n, seed, canary):
    rng = random.Random(seed)
    env = {'LOCKSTEP_VOLATILE_SEED': str(seed)}
    if canary:
        env['LOCKSTEP_VOLATILE_IGNORE_FLUSH'] = '1'
    kills = {'primary': 0, 'secondary': 0, 'stopped': 0}
    total = 0
    begin = time.monotonic()
    with World(program) as w:
        if canary:
            a, b = w.server('primary', env=env), None
            a.start()
            a.init()
        else:
            a, b = w.pair(env=env)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        following, all_acked = 1, []
        for i in range(n):
            victim = a if b is None or rng.random() < 0.6 else b
            load = Load(a, following)
            time.sleep(rng.uniform(0.02, 0.4))  # the random moment itself
            if canary or rng.random() < 0.85:
                victim.kill()
                kills[victim.name] += 1
            else:  # a power cut right behind an orderly end
                victim.stop()
                kills['stopped'] += 1
            following, acked = load.finish()
            total += len(acked)
            try:
                victim.start()
                if victim is a or rng.random() < 0.5:  # a sealed secondary receives as well
                    victim.unseal(a.keys[:2])
            except Failed:
                if canary:
                    raise Lost('the server does not come back')
                raise
            check(w, a, b, acked, rng.sample(all_acked, min(20, len(all_acked))))
            all_acked += acked
            if (i + 1) % 10 == 0:
                print(f'round {i + 1}: {total} acknowledged writes, all there', flush=True)
    print(f'{n} rounds, {kills}, {total} acknowledged writes, none lost, {time.monotonic() - begin:.0f} s')


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=50)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--canary', action='store_true')
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    try:
        rounds(args.program, args.rounds, args.seed, args.canary)
    except Lost as e:
        print(e)
        if args.canary:
            print('the canary died, as it must: a disk that does not flush is noticed')
            print('1 passed, 0 failed')
            return 0
        print('0 passed, 1 failed')
        return 1
    except Failed as e:
        print(e)
        print('0 passed, 1 failed')
        return 1
    if args.canary:
        print('a disk that does not flush was NOT noticed')
    print('0 passed, 1 failed' if args.canary else f'{args.rounds} passed, 0 failed')
    return 1 if args.canary else 0


if __name__ == '__main__':
    sys.exit(main())
