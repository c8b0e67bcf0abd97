# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers alone: more clients, larger values, and their replicas, each in every way that it promises durability."""
import disk
import wiredtiger
from peers import Postgres


def measure(run):
    seconds, warmup = run.seconds(1.5, 10), 0.5
    peers, steps = run.peers, []
    for n in (1, 16, 64, 256) if run.full else (1, 64):
        for value in (256, 1024) if run.full else (256,):
            steps += [(f'etcd.put.{n}.{value}', lambda n=n, v=value: peers.etcd().put(n, v, seconds, warmup)),
                      (f'redis.always.{n}.{value}', lambda n=n, v=value: peers.redis().set(n, v, seconds, warmup)),
                      (f'postgres.local.{n}.{value}', lambda n=n, v=value: peers.postgres().insert('local', n, v, seconds, warmup))]
    for n in (1, 64):
        steps.append((f'wiredtiger.log.{n}.256', lambda n=n: wiredtiger.run(run.lab, '--log', threads=n, seconds=seconds, warmup=warmup)))
    run.figures.configs['wiredtiger'] = wiredtiger.config
    steps.append(('redis.wait.64.256', lambda: peers.with_replica(64, 256, seconds, warmup, wait=1)))
    for commit in Postgres.commits[1:]:
        steps.append((f'postgres.{commit}.64.256', lambda c=commit: peers.with_standby(c, 64, 256, seconds, warmup)))
    for size in (4096, 32768, 524288):
        steps.append((f'fio.{size}', lambda s=size: disk.flushed_writes(run.lab, s, seconds)))
    run.figures.configs['fio'] = disk.config
    run.compare(run.rounds, [s for s in steps if s[0] not in run.figures.results])
