# SPDX-License-Identifier: GPL-3.0-or-later
"""kv v1 and v2 over TLS: Lockstep beside etcd with TLS, nginx as the limit, and OpenBao where there is one."""
import disk
import wrk
from vault_servers import Bao, Lockstep, Nginx

CONNECTIONS = (1, 16, 64, 256)


def measure(run):
    seconds, warmup = run.seconds(1.5, 10), 0.5
    peers = run.peers
    kv = peers.get('lockstep', lambda: Lockstep(run.lab)).kv

    def nginx():
        return peers.get('nginx', lambda: Nginx(run.lab, run.tls(), kv.answer_bytes()))

    def bao():
        return peers.get('bao', lambda: Bao(run.lab)).kv

    run.compare(run.rounds, [
        ('api.v1.put.64.256', lambda: kv.put(64, seconds, warmup=warmup)),
        ('etcd.tls.put.64.256', lambda: peers.etcd_tls().put(64, 256, seconds, warmup)),
        ('bao.put.64', lambda: bao().put(64, seconds, warmup=warmup)),
        ('api.v1.get.64.256', lambda: kv.get(64, seconds, warmup=warmup)),
        ('nginx.get.64.256', lambda: nginx().get(64, seconds, warmup=warmup)),
        ('bao.get.64', lambda: bao().get(64, seconds, warmup=warmup)),
    ])
    half(run, 'api.v1.put', kv.put, seconds)
    if run.figures.median('bao.put.64'):
        half(run, 'bao.put', lambda *a, **k: bao().put(*a, **k), seconds)
    else:
        run.figures.skip('bao.put.half', run.figures.not_measured['bao.put.64'])
    sweep(run, kv, seconds)


def half(run, name, put, seconds):
    """Open loop at half the maximum of this run; beside it what one flush of the disk takes."""
    top = run.figures.median(f'{name}.64.256') or run.figures.median(f'{name}.64')
    run.figures.configs['fio'] = disk.config
    run.compare(run.rounds, [(f'{name}.half', lambda: put(256, seconds, rate=round(top / 2), warmup=0.5)),
                             ('fio.flush', lambda: disk.flushed_writes(run.lab, 4096, seconds))])


def sweep(run, kv, seconds):
    """Both versions, both sizes, all numbers of connections, both generators; quick: each once, and only some."""
    steps = []
    for op, do in (('put', kv.put), ('get', kv.get)):
        for version in (1, 2):
            for n in CONNECTIONS:
                for size in (256, 1024):
                    if not run.full and n != 64 and (version, size) != (1, 256):
                        continue
                    steps.append((f'api.v{version}.{op}.{n}.{size}', lambda d=do, v=version, n=n, s=size: d(n, seconds, v, s, warmup=0.3)))
                if run.full or (version == 1 and n == 64):
                    steps.append((f'wrk.v{version}.{op}.{n}.256', lambda o=op, v=version, n=n: wrk.run(kv, o, v, n, seconds)))
    run.compare(run.rounds if run.full else 1, [s for s in steps if s[0] not in run.figures.results])
