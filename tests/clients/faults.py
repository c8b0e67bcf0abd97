#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers under faults of network, process and disk: cables pulled, half-open links, stopped processes, a full disk on the secondary."""
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, fill_disk, run_tests  # noqa: E402
from netlab import Lab, Unavailable, enter  # noqa: E402

MODE = 'sys/replication/dr/primary/mode'
SILENCE = 20  # a link is given up after 10 s without a word; this is for a slow machine


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


class Writer:
    """Writes one after the other; keeps what was answered, and the longest wait."""

    def __init__(self, server, pad=500):
        self.server, self.pad, self.acked, self.worst, self.stop = server, pad, 0, 0.0, threading.Event()
        self.failed = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        conn = self.server.connect()
        while not self.stop.is_set():
            begin = time.monotonic()
            try:
                self.server.ok('PUT', f'kv/w{self.acked}', {'v': self.acked, 'pad': 'x' * self.pad}, conn=conn)
            except Exception as e:
                self.failed = e
                return
            self.worst = max(self.worst, time.monotonic() - begin)
            self.acked += 1

    def more(self, n=50):
        to = self.acked + n
        await_true('more writes to be answered', lambda: self.acked >= to or self.failed)
        if self.failed:
            raise self.failed

    def finish(self):
        self.stop.set()
        self.thread.join()
        if self.failed:
            raise self.failed
        return self.acked


def peer(a):
    return a.dr_status()['secondaries'][0]


def pair(w, lab):
    a, b = (w.server(n, host=s.host, under=s.under) for n, s in zip(('primary', 'secondary'), lab.sites))
    for s in (a, b):
        s.start()
        s.init()
    w.enable(a, b)
    a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    await_true('the secondary to be whole', lambda: a.ok('GET', MODE).data['secondaries']['secondary']['whole'])
    return a, b


def copies(b):
    with open(b.log) as f:
        return len(re.findall(r'replication: catching up with', f.read()))


def same(w, a, b):
    """Both at one LSN have one root, and it took no second copy."""
    w.await_following(b, 60)
    w.check_same_root(a, b)
    assert copies(b) == 1, 'a copy was taken for a cut link'


def cable_pulled():
    """a cable pulled for longer than the link's patience: the primary writes on, both sides say it, and the stream goes on where it was"""
    with Lab() as lab, World() as w:
        a, b = pair(w, lab)
        load = Writer(a)
        load.more()
        lab.sites[1].pull()
        await_true('the primary to notice', lambda: peer(a)['connection_status'] == 'disconnected', SILENCE)
        load.more()
        lab.sites[1].plug()
        await_true('the secondary to be back', lambda: peer(a)['connection_status'] == 'connected', SILENCE)
        assert b.dr_status()['mode'] == 'secondary'
        n = load.finish()
        assert load.worst < 5, f'an answer took {load.worst:.1f} s'
        same(w, a, b)
        a.kill()
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        conn = b.connect()
        for i in range(0, n, 7):
            assert b.ok('GET', f'kv/w{i}', token=a.root, conn=conn).data['v'] == i


def half_open():
    """packets vanish in one direction only: either end notices, and nothing is lost or doubled when they flow again"""
    with Lab() as lab, World() as w:
        a, b = pair(w, lab)
        sa, sb = lab.sites
        load = Writer(a)
        for x, y in ((sa, sb), (sb, sa)):
            load.more()
            lab.cut(x, y)
            await_true('the primary to notice', lambda: peer(a)['connection_status'] == 'disconnected', SILENCE)
            await_true('the secondary to notice', lambda: b.dr_status()['connection_state'] != 'ready', SILENCE)
            load.more()
            lab.join(x, y)
            await_true('the secondary to be back', lambda: peer(a)['connection_status'] == 'connected', SILENCE)
        load.finish()
        assert load.worst < 5, f'an answer took {load.worst:.1f} s'
        same(w, a, b)


def flush_over_a_cut():
    """mode flush over a cut link: 503 with the outcome unknown after the limit, and the write is there once the link is back"""
    with Lab() as lab, World() as w:
        a, b = pair(w, lab)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '700ms'})
        a.ok('PUT', 'kv/x', {'v': 1})
        lab.cut(*lab.sites)
        want(a.call('PUT', 'kv/x', {'v': 2}), 503, 'outcome unknown: durable here, not confirmed by secondary')
        lab.join(*lab.sites)
        await_true('the write', lambda: a.call('GET', 'kv/x').data == {'v': 2}, 40)
        a.ok('PUT', 'kv/x', {'v': 3})
        same(w, a, b)


def secondary_stopped():
    """a secondary stopped by SIGSTOP holds up nobody and does not grow the primary; it goes on when it is continued"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        b.proc.send_signal(signal.SIGSTOP)
        loads = [Writer(a)]
        await_true('the primary to notice', lambda: peer(a)['connection_status'] == 'disconnected', SILENCE)
        loads[0].more(500)
        b.proc.send_signal(signal.SIGCONT)
        loads[0].finish()
        assert loads[0].worst < 5, f'an answer took {loads[0].worst:.1f} s'
        same(w, a, b)


def primary_stopped():
    """a primary stopped by SIGSTOP is noticed; a promotion then loses nothing that was answered and had arrived"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for i in range(20):
            a.ok('PUT', f'kv/k{i}', {'v': i})
        w.await_caught_up(a, b)
        a.proc.send_signal(signal.SIGSTOP)
        await_true('the secondary to notice', lambda: b.dr_status()['connection_state'] != 'ready', SILENCE)
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        for i in range(20):
            assert b.ok('GET', f'kv/k{i}', token=a.root).data == {'v': i}
        a.proc.send_signal(signal.SIGCONT)


def promoted_on_a_full_disk():
    """a secondary whose disk is full is promoted all the same, and takes up all of a primary's work by itself once there is room"""
    with World() as w, w.small_disk('promoted_on_a_full_disk') as mount:
        if mount is None:
            return
        a, b = w.on_small_disk(mount)
        w.enable(a, b)
        w.await_caught_up(a, b)
        ballast = fill_disk(mount, 3 << 20)
        await_true('the secondary to say so', lambda: b.dr_status()['disk_reserve'])
        a.kill()
        r = b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        assert 'could not note its address' in r.text, r.text
        os.unlink(ballast)
        await_true('its own address, for secondaries', lambda: b.dr_status()['primary_cluster_addr'] == b.cluster_addr)
        w.third(b)


def secondary_disk_full():
    """a secondary whose disk fills up says so and holds up nobody; with room again it goes on by itself, and both are equal"""
    with World() as w, w.small_disk('secondary_disk_full') as mount:
        if mount is None:
            return
        a, b = w.on_small_disk(mount)
        w.enable(a, b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        ballast = fill_disk(mount, 3 << 20)
        load = Writer(a, 8000)
        load.more(4000)  # ten times what there is room for
        await_true('the secondary to say so', lambda: b.dr_status()['disk_reserve'])
        n, behind = load.acked, peer(a)
        assert a.dr_status()['last_dr_wal'] - behind['durable_lsn'] > 1000, behind
        assert 'disk_reserve' in b.tail(100)
        assert load.worst < 5, f'an answer took {load.worst:.1f} s'
        assert b.proc.poll() is None, f'the secondary ended:\n{b.tail()}'
        os.unlink(ballast)
        load.more(100)
        load.finish()
        same(w, a, b)
        a.kill()
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        conn = b.connect()
        for i in range(0, n, 31):
            assert b.ok('GET', f'kv/w{i}', token=a.root, conn=conn).data['v'] == i


if __name__ == '__main__':
    tests = [secondary_stopped, primary_stopped, secondary_disk_full, promoted_on_a_full_disk]
    try:
        enter()
        tests = [cable_pulled, half_open, flush_over_a_cut] + tests
    except Unavailable as e:
        print(f'skip links in network namespaces: {e}')
    sys.exit(run_tests(tests, 'faults'))
