#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who serves: fencing, failing back, demote, update-primary, revoke."""
import os
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def promote(b, keys, **kw):
    b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(keys), **kw}, token='')


def fenced(a, text='superseded by epoch 2'):
    def yes():
        r = a.call('GET', 'kv/x')
        return r.status == 503 and text in r.text
    return yes


def fenced_old_primary():
    """an old primary that comes back answers nothing, reads too, from its first answer on, and after restarts, alone and sealed"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        a.kill()
        promote(b, a.keys[:2])
        b.ok('PUT', 'kv/x', {'v': '2'})
        a.start()
        answers = []
        stop = threading.Event()

        def read():
            while not stop.is_set():
                try:
                    answers.append(a.call('GET', 'kv/x'))
                except OSError:
                    pass  # more connections than one server takes at once
        t = threading.Thread(target=read)
        t.start()
        a.unseal()
        await_true('the old primary to say so', fenced(a), 10)
        stop.set()
        t.join()
        assert all(r.status == 503 for r in answers), [r.text for r in answers if r.status != 503]
        want(a.call('PUT', 'kv/y', {'v': '1'}), 503, 'superseded by epoch 2')
        s = a.dr_status()
        assert s['mode'] == 'primary' and s['healthy'] is False and s['reasons'][0]['code'] == 'superseded', s
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '2'}
        b.stop()
        a.kill()
        a.start()
        want(a.call('GET', 'sys/health', token=''), 503)
        a.unseal()
        want(a.call('GET', 'kv/x'), 503, 'superseded by epoch 2')


def stopped_primary():
    """a primary that was stopped while the other side was promoted answers no request after it goes on"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        a.proc.send_signal(signal.SIGSTOP)
        try:
            promote(b, a.keys[:2])
            b.ok('PUT', 'kv/x', {'v': '2'})
            # Longer than a step of a running log thread can take.
            threading.Event().wait(6)
        finally:
            a.proc.send_signal(signal.SIGCONT)
        want(a.call('GET', 'kv/x'), 503, 'superseded by epoch 2')
        want(a.call('PUT', 'kv/x', {'v': '3'}), 503, 'superseded by epoch 2')


def alone():
    """a primary whose secondary is gone serves after fence_wait, and says that it could not ask"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        b.kill()
        a.kill()
        a.start()
        a.unseal()
        assert a.ok('GET', 'kv/x').data == {'v': '1'}
        assert 'epoch_unconfirmed' in [r['code'] for r in a.dr_status()['reasons']]
        b.start()
        w.await_following(b) if b.call('GET', 'sys/health', token='').status != 503 else b.unseal(a.keys[:2])
        await_true('the epoch to be confirmed', lambda: 'epoch_unconfirmed' not in [r['code'] for r in a.dr_status()['reasons']])


if __name__ == '__main__':
    sys.exit(run_tests([fenced_old_primary, stopped_primary, alone], 'roles'))
