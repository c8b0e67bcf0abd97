# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the benchmark: its rounds, its progress, and the peers, which start when they are first needed."""
import os
import subprocess
import sys
import time

from figures import Figures
from lab import ROOT, Missing
from peers import Etcd, Postgres, Redis


class Peers:
    """Each is started once. One that cannot be is not asked for again: its lines say why."""

    def __init__(self, run):
        self.run, self.up, self.failed = run, {}, {}

    def get(self, name, make):
        if name in self.failed:
            raise Missing(self.failed[name])
        if name not in self.up:
            try:
                self.up[name] = make()
            except Missing as e:
                self.failed[name] = str(e)
                raise
            self.run.figures.configs[name] = self.up[name].config
        return self.up[name]

    def etcd(self):
        return self.get('etcd', lambda: Etcd(self.run.lab))

    def etcd_tls(self):
        return self.get('etcd over TLS', lambda: Etcd(self.run.lab, self.run.tls()))

    def redis(self):
        return self.get('redis', lambda: Redis(self.run.lab))

    def postgres(self):
        return self.get('postgres', lambda: Postgres(self.run.lab, self.run.tls()))

    def with_standby(self, commit, *args, **kw):
        pg = self.postgres()
        pg.attach()
        try:
            return pg.insert(commit, *args, **kw)
        finally:
            pg.detach()

    def with_replica(self, *args, **kw):
        redis = self.redis()
        redis.attach()
        try:
            return redis.set(*args, **kw)
        finally:
            redis.detach()


class Run:
    def __init__(self, lab, full):
        self.lab, self.full = lab, full
        self.rounds = 5 if full else 3
        self.figures, self.peers = Figures(), Peers(self)
        self.began = time.monotonic()

    def seconds(self, quick, full):
        return full if self.full else quick

    def progress(self, text):
        print(f'{time.monotonic() - self.began:6.0f} s  {text}', file=sys.stderr, flush=True)

    def tls(self):
        """(certificate, key, CA) files for a server on 127.0.0.1."""
        folder = self.lab.folder('tls')
        names = [os.path.join(folder, n) for n in ('peer.pem', 'peer-key.pem', 'ca.pem')]
        if not os.path.exists(names[0]):
            program = os.path.join(ROOT, 'build', 'lockstep')
            for args in (('ca', f'-dir={folder}'), ('server', f'-dir={folder}', '-name=peer')):
                subprocess.run([program, 'cert', *args], check=True, stdout=subprocess.DEVNULL)
        return names

    def compare(self, rounds, steps):
        """Each step once a round, in turn, so that what slows the machine slows them all."""
        for i in range(rounds):
            for name, measure in steps:
                if name in self.figures.not_measured:
                    continue
                os.sync()  # what the one before it left to the disk is not its own
                try:
                    r = measure()
                except Missing as e:
                    self.figures.skip(name, str(e))
                    self.progress(f'{name}: not measured: {e}')
                    continue
                self.figures.add(name, i, r)
                self.progress(f'round {i + 1}/{rounds}  {name:28} {summary(r)}')


def summary(r):
    parts = []
    if 'rate' in r:
        parts.append(f'{r["rate"]:10,.0f}/s')
    if 'bytes_per_s' in r:
        parts.append(f'{r["bytes_per_s"] / 1e6:10,.1f} MB/s in writes of {r["size"]} bytes')
    if r.get('answer', {}).get('count'):
        a = r['answer']
        parts.append(f'p50 {a["p50_ms"]:.2f} p99 {a["p99_ms"]:.2f} max {a["max_ms"]:.1f} ms')
    if 'lag' in r:
        parts.append('lag p99 ' + ', '.join(f'{k} {v["hist"]["p99_ms"]:.2f} ms' for k, v in r['lag'].items()))
    parts += [f'{k} {v:,.2f}' for k, v in r.items() if k.endswith(('_ms', '_after_s', '_mib', '_secret')) and isinstance(v, float)]
    if not parts:
        parts = [f'{k} {v:,.1f}' if isinstance(v, float) else f'{k} {v}' for k, v in r.items() if isinstance(v, (int, float, str))]
    return '  '.join(parts)
