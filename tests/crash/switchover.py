#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequence 7: a switchover that is cut by power at any moment ends with one primary, and nothing that was answered is gone.

usage: switchover.py [--rounds N] [--seed S]

The program is a build with -Dvolatile_disk=true: SIGKILL is a power cut. While clients write to whichever side takes it, the primary hands
over; the primary, the secondary or both are killed before, in, or after the handover, started again and unsealed. No
operator does more: then exactly one of them must serve, with every write that either had answered.
"""
import argparse
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true  # noqa: E402


class Load:
    """Writers that turn to the other side when one does not take a write."""

    def __init__(self, sides, token, writers=3):
        self.sides, self.token, self.acked, self.next = sides, token, set(), 0
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(writers)]
        for t in self.threads:
            t.start()

    def run(self):
        at = 0
        while not self.stop.is_set():
            with self.lock:
                n, self.next = self.next, self.next + 1
            try:
                r = self.sides[at].call('PUT', f'kv/k{n}', {'v': n}, token=self.token, timeout=5)
            except Exception:  # killed, or a half answer of it: not answered
                at ^= 1
                continue
            if r.status == 204:
                with self.lock:
                    self.acked.add(n)
            else:
                at ^= 1

    def finish(self):
        self.stop.set()
        for t in self.threads:
            t.join()
        return self.acked


def one_round(program, rng, counts):
    env = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a, b = w.pair(env=env)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        load = Load((a, b), a.root)
        await_true('the load to run', lambda: len(load.acked) > 100)

        killed = rng.choice(((a,), (b,), (a, b), (b, a)))

        def hand_over():
            try:
                a.call('PUT', 'sys/replication/dr/primary/switchover', {'id': 'secondary'}, token=a.root, timeout=60)
            except Exception:
                if a not in killed:
                    raise
        request = threading.Thread(target=hand_over)
        request.start()
        time.sleep(rng.uniform(0, rng.choice((0.005, 0.04))))  # the random moment itself: it takes some 30 ms
        for s in killed:
            s.kill()
        for s in killed:
            s.start()
            s.unseal(a.keys[:2])
        request.join()

        def codes():
            return [s.call('GET', 'sys/health', token='').status for s in (a, b)]
        await_true('one to serve and the other to be its secondary', lambda: sorted(codes()) == [200, 472])
        before = len(load.acked)
        await_true('writes to be answered again', lambda: len(load.acked) > before + 20)
        acked = load.finish()
        found = codes()
        if sorted(found) != [200, 472]:
            raise Failed(f'not one primary and one secondary: {found}')
        one, other = (a, b) if found[0] == 200 else (b, a)
        counts['went back' if one is a else 'handed over'] += 1
        conn = one.connect()
        for n in sorted(acked):
            r = one.call('GET', f'kv/k{n}', token=a.root, conn=conn)
            if r.status != 200 or r.data['v'] != n:
                raise Failed(f'acknowledged write k{n} is not on {one.name}: {r.status} {r.text[:200]}')
        counts['writes'] += len(acked)
        w.await_following(other)
        w.await_caught_up(one, other)
        w.check_same_root(one, other)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=10)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng = random.Random(args.seed)
    counts = {'handed over': 0, 'went back': 0, 'writes': 0}
    begin = time.monotonic()
    for i in range(args.rounds):
        try:
            one_round(args.program, rng, counts)
        except Failed as e:
            print(f'round {i + 1}: {e}')
            print(f'{i} passed, 1 failed')
            return 1
    print(f'{args.rounds} rounds, {counts}, none lost, {time.monotonic() - begin:.0f} s')
    print(f'{args.rounds} passed, 0 failed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
