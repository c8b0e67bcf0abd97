#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A flush that fails ends the process: no retry, no answer from then on, and nothing that was answered is lost.

usage: failed_flush.py [--rounds N] [--seed S]

The program is a build with -Dvolatile_disk=true. One flush of the log or of the store, at random, fails as Linux lets it fail: what it was
to write is lost, and the next flush says yes, so a server that tried again would answer for what is not there. Under load the
server must end by itself with exit code 1; started again, it must have every write that it answered.
"""
import argparse
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true  # noqa: E402
from crash import Load, check  # noqa: E402


def ended_by_it(server, said):
    if server.proc.returncode != 1 or said not in server.tail():
        raise Failed(f'{server.name} ended with {server.proc.returncode}, not by the failed flush:\n{server.tail()}')


def log_flush(a, rng):
    """A group of writes under load, or the zeros of the next file."""
    a.env['LOCKSTEP_VOLATILE_FAIL_LOG_FLUSH'] = str(rng.randrange(20, 400))
    a.start()
    a.unseal()
    load = Load(a, 0)
    await_true('the server to end by itself', lambda: a.proc.poll() is not None, 60)
    ended_by_it(a, 'final failure: ')
    return load.finish()[1]


def store_flush(a, rng):
    """The checkpoint of a start or of a stop."""
    a.env['LOCKSTEP_VOLATILE_FAIL_STORE_FLUSH'] = str(rng.randrange(1, 12))
    try:
        a.start()
        a.unseal()
    except Failed:
        ended_by_it(a, 'asked to fail')
        return []
    load = Load(a, 0)
    time.sleep(rng.uniform(0.1, 0.4))
    load.stop.set()
    acked = load.finish()[1]
    if a.stop() != 0:
        ended_by_it(a, 'asked to fail')
    return acked


def one_round(program, rng, which):
    seed = {'LOCKSTEP_VOLATILE_SEED': str(rng.randrange(1 << 30))}
    with World(program) as w:
        a = w.server('primary', env=dict(seed))
        a.start()
        a.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.stop()
        acked = which(a, rng)
        a.env = seed
        a.start()
        a.unseal()
        check(w, a, None, acked, [])
        return len(acked)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--rounds', type=int, default=8)
    p.add_argument('--seed', type=int, default=int(time.time()))
    p.add_argument('--program', default=os.path.join(ROOT, 'build-volatile', 'lockstep'))
    args = p.parse_args()
    print(f'seed {args.seed}', flush=True)
    rng, total = random.Random(args.seed), 0
    for i in range(args.rounds):
        try:
            total += one_round(args.program, rng, store_flush if i % 2 else log_flush)
        except Failed as e:
            print(f'round {i + 1}: {e}\n{i} passed, 1 failed')
            return 1
    print(f'{args.rounds} rounds, {total} acknowledged writes, none lost')
    print(f'{args.rounds} passed, 0 failed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
