#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modes of secondaries over the API: flush, apply, fallback, quorum, force, what an answer reached, what takes away."""
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

MODE = 'sys/replication/dr/primary/mode'
QUORUM = 'sys/replication/dr/primary/quorum'


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def promote(b, keys, **kw):
    return b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(keys), **kw}, token='')


def peer(a, ident='secondary'):
    return next(p for p in a.dr_status()['secondaries'] if p['node_id'] == ident)


def third(w, a):
    """One more secondary, which has all data: only then does a mode count it."""
    c = w.third(a)
    await_true('the third to be whole', lambda: peer(a, 'third')['whole'])
    return c


def kv(w, a):
    a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    await_true('the secondary to be whole', lambda: peer(a)['whole'])


def flush_and_apply():
    """an answer under flush or apply is on the secondary; what is not understood is refused; both sides say which mode counts"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        for body, text in (({}, 'mode must be'), ({'mode': 'flush'}, 'secondary ID'), ({'mode': 'sync', 'id': 'secondary'}, 'mode must be'),
                           ({'mode': 'flush', 'id': 'nobody'}, 'no secondary with ID \\"nobody\\": known are secondary'),
                           ({'mode': 'flush', 'id': 'secondary', 'wait_limit': '0s'}, 'wait_limit'),
                           ({'mode': 'flush', 'id': 'secondary', 'on_limit': 'give up'}, 'on_limit')):
            want(a.call('PUT', MODE, body), 400, text)
        want(a.call('PUT', MODE, {'mode': 'flush', 'id': 'secondary'}, token=''), 403)
        assert not b.dr_status()['no_loss']
        want(a.call('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '1500ms'}), 204)
        assert a.ok('GET', MODE).data['secondaries']['secondary'] == {
            'mode': 'flush', 'mode_on_limit': 'strict', 'mode_wait_limit_ms': 1500, 'mode_state': 'met', 'whole': True}
        await_true('the promise', lambda: b.dr_status()['no_loss'])
        for i in range(30):
            r = a.ok('PUT', f'kv/f{i}', {'v': i}, headers={'X-Lockstep-Ack': 'local'})
            assert r.headers['X-Lockstep-Ack'] in ('flush', 'apply'), dict(r.headers)
            assert b.dr_status()['durable_lsn'] >= int(r.headers['X-Lockstep-LSN'])
        want(a.call('PUT', MODE, {'mode': 'apply', 'id': 'secondary'}), 204)
        for i in range(30):
            r = a.ok('PUT', f'kv/a{i}', {'v': i}, headers={'X-Lockstep-Ack': 'local'})
            assert r.headers['X-Lockstep-Ack'] == 'apply', dict(r.headers)
            assert b.dr_status()['applied_lsn'] >= int(r.headers['X-Lockstep-LSN'])
        out = subprocess.run([w.program, 'replication', 'mode', f'-address={a.addr}', f'-ca-cert={w.ca}', '-on-limit=fallback',
                              'secondary', 'flush'], env={**os.environ, 'VAULT_TOKEN': a.root}, capture_output=True, text=True)
        assert out.returncode == 0 and peer(a)['mode'] == 'flush' and peer(a)['mode_on_limit'] == 'fallback', out
        await_true('the promise to end', lambda: not b.dr_status()['no_loss'])


def raised_answers():
    """a request may ask for more than the mode: it is told what was reached, or that the outcome is unknown at its limit"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        r = a.ok('PUT', 'kv/x', {'v': 1}, headers={'X-Lockstep-Ack': 'apply'})
        assert r.headers['X-Lockstep-Ack'] == 'apply' and b.dr_status()['applied_lsn'] >= int(r.headers['X-Lockstep-LSN'])
        assert r.headers['X-Lockstep-Ack-By'] == 'secondary=apply', dict(r.headers)
        assert 'X-Lockstep-Ack' not in a.ok('PUT', 'kv/x', {'v': 2}).headers
        assert 'X-Lockstep-Ack' not in a.ok('GET', 'kv/x', headers={'X-Lockstep-Ack': 'flush'}).headers
        want(a.call('PUT', 'kv/x', {'v': 3}, headers={'X-Lockstep-Ack': 'twice'}), 400, 'X-Lockstep-Ack must be')
        want(a.call('PUT', 'kv/x', {'v': 3}, headers={'X-Lockstep-Ack': 'flush', 'X-Lockstep-Ack-Limit': 'soon'}), 400, 'Ack-Limit')
        want(a.call('PUT', 'kv/x', {'v': 3}, headers={'X-Lockstep-Ack-Limit': '1s'}), 400, 'X-Lockstep-Ack-Limit needs X-Lockstep-Ack')
        b.kill()
        begin = time.monotonic()
        r = a.call('PUT', 'kv/x', {'v': 4}, headers={'X-Lockstep-Ack': 'flush', 'X-Lockstep-Ack-Limit': '400ms'})
        want(r, 503, 'outcome unknown: durable here, not confirmed by secondary')
        assert 0.35 < time.monotonic() - begin < 5 and r.headers['X-Lockstep-Ack'] == 'local', dict(r.headers)
        assert a.ok('GET', 'kv/x').data == {'v': 4}
        a.ok('PUT', 'kv/x', {'v': 5})


def strict():
    """a dead strict secondary: 503 after the limit, also behind a held key; nothing is served after a restart; force cures it"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        a.ok('POST', 'sys/mounts/two', {'type': 'kv', 'options': {'version': '2'}})
        a.ok('PUT', 'two/data/x', {'data': {'v': 0}})
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '2s'})
        w.await_caught_up(a, b)
        b.kill()
        await_true('the end of the connection', lambda: peer(a)['connection_status'] == 'disconnected')
        want(a.call('PUT', MODE, {'mode': 'apply', 'id': 'secondary'}), 400, 'does not follow now')
        for path, body in (('kv/x', {'v': 1}), ('two/data/x', {'data': {'v': 1}, 'options': {'cas': 1}})):
            begin = time.monotonic()
            want(a.call('PUT', path, body), 503, 'outcome unknown: durable here, not confirmed by secondary')
            assert 1.9 < time.monotonic() - begin < 10
        # The outcome of the first is open: the next one on the key must not decide on what it reads.
        want(a.call('PUT', 'two/data/x', {'data': {'v': 2}, 'options': {'cas': 1}}), 503, 'not written')
        begin = time.monotonic()
        want(a.call('PUT', 'two/data/x', {'data': {'v': 2}}, headers={'X-Lockstep-Ack': 'local', 'X-Lockstep-Ack-Limit': '100ms'}), 503, 'not written')
        assert time.monotonic() - begin < 1.8, 'its own limit is not that of the mode'
        assert peer(a)['mode_state'] == 'waiting'
        want(a.call('PUT', MODE, {'mode': 'async', 'id': 'secondary', 'wait_limit': '500ms'}), 503, 'force=true')
        want(a.call('PUT', MODE, {'mode': 'async', 'id': 'secondary', 'wait_limit': '500ms'}), 400, 'force')
        a.kill()
        a.start()
        a.unseal()
        want(a.call('GET', 'two/data/x'), 503, 'unsettled')
        assert a.dr_status()['unsettled']
        r = a.ok('PUT', MODE, {'mode': 'async', 'id': 'secondary', 'force': True})
        assert 'may still promise' in r.json['warnings'][0]
        await_true('reads', lambda: a.call('GET', 'two/data/x').status == 200)
        assert a.ok('GET', 'two/data/x').data['data'] == {'v': 1}
        assert a.ok('GET', 'kv/x').data == {'v': 1}
        want(a.call('PUT', 'two/data/x', {'data': {'v': 9}, 'options': {'cas': 1}}), 400, 'check-and-set')
        a.kill()
        a.start()
        a.unseal()
        a.ok('PUT', 'two/data/x', {'data': {'v': 3}, 'options': {'cas': 2}})
        b.start()
        b.unseal(a.keys[:2])
        w.await_caught_up(a, b)
        assert not b.dr_status().get('no_loss')


def lag_of_a_mode():
    """a secondary that takes nothing while writes wait for it is behind by the time since they were durable here"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        want(a.call('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '1h'}), 204)
        a.ok('PUT', 'kv/x', {'v': 1})
        assert a.cli('replication', 'status', '--check', 'max-lag=2s').returncode == 0
        b.proc.send_signal(signal.SIGSTOP)
        try:
            threads = [threading.Thread(target=a.call, args=('PUT', 'kv/y', {'v': 1}), kwargs={'headers': {'X-Lockstep-Ack-Limit': '4s'}})]
            threads[0].start()
            await_true('the lag to grow', lambda: float(peer(a)['lag']['flushed']['ms']) > 3000 and peer(a)['lag']['flushed']['lsns'] >= 1)
            assert a.cli('replication', 'status', '--check', 'max-lag=2s').returncode == 3
        finally:
            b.proc.send_signal(signal.SIGCONT)
        threads[0].join()
        await_true('it to be met', lambda: a.cli('replication', 'status', '--check', 'max-lag=2s').returncode == 0)
        await_true('the lag to be counted', lambda: peer(a)['lag']['flushed']['1m']['max_ms'] > 3000)


def held_key_settles():
    """a write that was given up on is there when its secondary comes back, and its key goes on from it"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/two', {'type': 'kv', 'options': {'version': '2'}})
        a.ok('PUT', 'two/data/x', {'data': {'v': 0}})
        await_true('the secondary to be whole', lambda: peer(a)['whole'])
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '1s'})
        b.kill()
        want(a.call('PUT', 'two/data/x', {'data': {'v': 1}, 'options': {'cas': 1}}), 503, 'outcome unknown')
        b.start()
        await_true('it to be written', lambda: a.ok('GET', 'two/data/x').data['data'] == {'v': 1})
        want(a.call('PUT', 'two/data/x', {'data': {'v': 9}, 'options': {'cas': 1}}), 400, 'check-and-set')
        a.ok('PUT', 'two/data/x', {'data': {'v': 2}, 'options': {'cas': 2}})


def revoke_the_dead():
    """a dead strict secondary is revoked with force; a configured id is async when the server starts"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '1s'})
        w.await_caught_up(a, b)
        b.kill()
        revoke = 'sys/replication/dr/primary/revoke-secondary'
        # Without force it waits; that is said, and is no other answer because it was asked again.
        r = a.cli('replication', 'mode', 'secondary', 'async')
        assert r.returncode == 2 and 'Code: 503' in r.stdout and 'force=true' in r.stdout, r.stdout
        want(a.call('PUT', revoke, {'id': 'secondary'}), 503, 'cut off here')
        a.kill()
        with open(a.config) as f:
            text = f.read()
        with open(a.config, 'a') as f:
            f.write('replication {\n  force_async = "secondary"\n}\n')
        a.start()
        a.unseal()
        a.ok('PUT', 'kv/x', {'v': 1})
        with open(a.config, 'w') as f:
            f.write(text)
        c = third(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'third', 'wait_limit': '1s'})
        c.kill()
        want(a.call('PUT', 'kv/x', {'v': 2}), 503, 'not confirmed by third')
        a.ok('PUT', revoke, {'id': 'third', 'force': True})
        a.ok('PUT', 'kv/x', {'v': 3})


def revoke_of_a_quorum():
    """a secondary without which the quorum cannot be met is revoked with force, and writes go on"""
    revoke = 'sys/replication/dr/primary/revoke-secondary'
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        third(w, a)
        a.ok('PUT', QUORUM, {'mode': 'flush', 'quorum': 2, 'members': ['secondary', 'third'], 'wait_limit': '1s'})
        a.ok('PUT', 'kv/x', {'v': 1})
        b.kill()
        want(a.call('PUT', 'kv/x', {'v': 2}), 503, 'not confirmed')
        a.ok('PUT', revoke, {'id': 'secondary', 'force': True})
        a.ok('PUT', 'kv/x', {'v': 3})
        assert a.dr_status()['quorum'] is None and [p['node_id'] for p in a.dr_status()['secondaries']] == ['third'], a.dr_status()


def revoke_cuts_at_once():
    """a secondary is cut off at once though another, dead one holds every record: with force, and behind a change that was given up on"""
    revoke = 'sys/replication/dr/primary/revoke-secondary'
    retention = 'sys/replication/dr/primary/retention'
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        c, d = third(w, a), w.server('fourth')
        d.start()
        d.init()
        w.enable(a, d, 'fourth')
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '2s'})
        w.await_caught_up(a, b)
        b.kill()

        def gone(s, ident, begin):
            await_true(f'the link of {ident} to end', lambda: s.dr_status()['connection_state'] != 'ready', 5)
            assert ident not in [p['node_id'] for p in a.dr_status()['secondaries']], a.dr_status()
            assert time.monotonic() - begin < 5, 'the answer came late'
        begin = time.monotonic()
        want(a.call('PUT', revoke, {'id': 'third', 'force': True}), 503, 'is cut off here')
        gone(c, 'third', begin)
        # That one keeps the latch of all changes of members; none of them hangs on it.
        for path, body in ((retention, {'id': 'fourth', 'max_bytes': 1 << 30}), ('sys/replication/dr/primary/secondary-token', {'id': 'fifth'}),
                           ('sys/replication/dr/primary/demote', {})):
            begin = time.monotonic()
            want(a.call('PUT', path, body, headers={'X-Lockstep-Ack': 'local', 'X-Lockstep-Ack-Limit': '300ms'}), 503, 'not done: an earlier change')
            assert 0.25 < time.monotonic() - begin < 1.8
        begin = time.monotonic()
        want(a.call('PUT', revoke, {'id': 'fourth'}), 503, 'is cut off here')
        gone(d, 'fourth', begin)
        want(a.call('PUT', revoke, {'id': 'nobody'}), 503, 'not done')
        assert a.stop() == 0
        a.start()
        a.unseal()
        assert [p['node_id'] for p in a.dr_status()['secondaries']] == ['secondary'], a.dr_status()
        a.ok('PUT', revoke, {'id': 'secondary', 'force': True})
        a.ok('PUT', revoke, {'id': 'fourth'})
        want(a.call('PUT', revoke, {'id': 'nobody'}), 400, 'no secondary with ID \\"nobody\\": none is known')
        a.ok('PUT', 'kv/x', {'v': 1})
        assert a.ok('GET', MODE).data['secondaries'] == {}


def fallback():
    """with fallback writes go on after the limit, status and log say so, and the mode counts again when it has caught up"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '2s', 'on_limit': 'fallback'})
        b.kill()
        a.ok('PUT', 'kv/x', {'v': 1})
        assert peer(a)['mode_state'] == 'fallback' and 'mode_fallback: secondary' in open(a.log).read()
        begin = time.monotonic()
        a.ok('PUT', 'kv/x', {'v': 2})
        assert time.monotonic() - begin < 1.8, 'only the first one waits'
        b.start()
        await_true('it to count again', lambda: peer(a)['mode_state'] == 'met')
        r = a.ok('PUT', 'kv/x', {'v': 3}, headers={'X-Lockstep-Ack': 'local'})
        assert r.headers['X-Lockstep-Ack'] in ('flush', 'apply'), dict(r.headers)


def quorum():
    """any one of two: writes go on with one of them dead; a promotion that did not hear both is refused, and forced"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        c = third(w, a)
        for body, text in (({'mode': 'flush', 'quorum': 3, 'members': ['secondary', 'third']}, 'quorum be a number'),
                           ({'mode': 'flush', 'quorum': 1, 'members': []}, 'members must name'),
                           ({'mode': 'flush', 'quorum': 1, 'members': ['third', 'third']}, 'named twice'),
                           ({'mode': 'flush', 'quorum': 1, 'members': ['third', 'nobody']}, 'no secondary')):
            want(a.call('PUT', QUORUM, body), 400, text)
        want(a.call('PUT', QUORUM, {'mode': 'flush', 'quorum': 1, 'members': ['secondary', 'third'], 'wait_limit': '1s'}), 204)
        assert a.ok('GET', QUORUM).data['quorum']['members'] == ['secondary', 'third']
        assert not b.dr_status()['no_loss']
        r = a.ok('PUT', 'kv/x', {'v': 0}, headers={'X-Lockstep-Ack': 'apply'})
        assert r.headers['X-Lockstep-Ack'] == 'apply', dict(r.headers)
        assert sorted(r.headers['X-Lockstep-Ack-By'].split(', ')) == ['secondary=apply', 'third=apply'], dict(r.headers)
        b.kill()
        for i in range(10):
            r = a.ok('PUT', f'kv/x{i}', {'v': i}, headers={'X-Lockstep-Ack': 'local'})
            assert r.headers['X-Lockstep-Ack'] in ('flush-quorum', 'apply-quorum'), dict(r.headers)
            assert r.headers['X-Lockstep-Ack-By'] in ('third=flush', 'third=apply'), dict(r.headers)
        c.kill()
        want(a.call('PUT', 'kv/y', {'v': 1}), 503, 'not confirmed by secondary, third')
        c.start()
        c.unseal(a.keys[:2])
        await_true('the held write', lambda: a.call('GET', 'kv/y').status == 200)
        w.await_caught_up(a, c)
        a.kill()
        want(promote(c, a.keys[:2]), 400, 'quorum_not_heard')
        want(promote(c, a.keys[:2], force=True), 200)
        assert c.ok('GET', 'kv/y', token=a.root).data == {'v': 1}
        # The modes ended with the epoch: nobody follows yet, and writes go on.
        c.ok('PUT', 'kv/z', {'v': 1}, token=a.root)


def reached_some():
    """without a quorum an answer names the secondaries that have the write while another is away"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        c = third(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'third'})
        b.kill()
        await_true('the end of the connection', lambda: peer(a)['connection_status'] == 'disconnected')
        r = a.ok('PUT', 'kv/x', {'v': 0}, headers={'X-Lockstep-Ack': 'local'})
        assert r.headers['X-Lockstep-Ack'] in ('flush-some', 'apply-some'), dict(r.headers)
        assert r.headers['X-Lockstep-Ack-By'] in ('third=flush', 'third=apply'), dict(r.headers)
        a.ok('PUT', MODE, {'mode': 'async', 'id': 'third'})
        c.kill()
        await_true('the end of the connection', lambda: peer(a, 'third')['connection_status'] == 'disconnected')
        r = a.ok('PUT', 'kv/x', {'v': 1}, headers={'X-Lockstep-Ack': 'local'})
        assert r.headers['X-Lockstep-Ack'] == 'local' and 'X-Lockstep-Ack-By' not in r.headers, dict(r.headers)


def quorum_tail():
    """any one of two: the one that lacks the last writes is promoted, and takes them from the other"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        c = third(w, a)
        want(a.call('PUT', QUORUM, {'mode': 'flush', 'quorum': 1, 'members': ['secondary', 'third']}), 204)
        w.await_caught_up(a, b)
        b.kill()
        for i in range(10):
            a.ok('PUT', f'kv/x{i}', {'v': i})
        a.kill()
        b.start()
        b.unseal(a.keys[:2])
        want(promote(b, a.keys[:2]), 200)
        for i in range(10):
            assert b.ok('GET', f'kv/x{i}', token=a.root).data == {'v': i}
        assert 'taking it from there first' in open(b.log).read()
        await_true('the other to say that it waits', lambda: 'promotion_elsewhere' in str(c.dr_status()) or 'newer_primary' in str(c.dr_status()))


def defaults():
    """a new secondary gets the configured mode once it follows; a wrong configuration is told"""
    with World() as w:
        a = w.server('primary')
        with open(a.config, 'a') as f:
            f.write('replication {\n  default_mode = "flush"\n  default_wait_limit = "700ms"\n  default_on_limit = "fallback"\n}\n')
        b = w.server('secondary')
        for s in (a, b):
            s.start()
            s.init()
        w.enable(a, b)
        await_true('the default', lambda: peer(a)['mode'] == 'flush')
        p = peer(a)
        assert (p['mode_wait_limit_ms'], p['mode_on_limit']) == (700, 'fallback'), p
        a.ok('PUT', MODE, {'mode': 'async', 'id': 'secondary'})
        a.stop()
        a.start()
        a.unseal()
        w.await_following(b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        assert peer(a)['mode'] == 'async'
        for line, text in (('default_mode = "sync"', 'write async, flush or apply'), ('wait = "1s"', 'unknown key'),
                           ('logshipper_buffer_size = "1GB"', 'there is no buffer')):
            s = w.server('bad' + str(abs(hash(line))))
            with open(s.config, 'a') as f:
                f.write('replication {\n  ' + line + '\n}\n')
            r = subprocess.run([w.program, 'server', f'-config={s.config}'], capture_output=True, text=True, timeout=20)
            assert r.returncode != 0 and text in r.stdout + r.stderr, (line, r.stdout + r.stderr)


def configured():
    """a mode in the configuration is that secondary's, not the others', until the API sets another; and again after a promotion"""
    def named(s, blocks):
        with open(s.config, 'a') as f:
            f.write('replication {\n  default_wait_limit = "900ms"\n' + blocks + '}\n')
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        named(a, '  secondary "secondary" {\n    mode = "flush"\n    wait_limit = "700ms"\n    on_limit = "fallback"\n  }\n'
                 '  secondary "fourth" {\n    mode = "apply"\n  }\n')
        named(b, '  secondary "third" {\n    mode = "apply"\n  }\n')
        for s in (a, b):
            s.start()
            s.init()
        w.enable(a, b)
        kv(w, a)
        c = third(w, a)
        await_true('the mode', lambda: peer(a)['mode'] == 'flush')
        p = peer(a)
        assert (p['mode_wait_limit_ms'], p['mode_on_limit']) == (700, 'fallback'), p
        assert peer(a, 'third')['mode'] == 'async'
        a.ok('PUT', MODE, {'mode': 'async', 'id': 'secondary'})
        a.stop()
        a.start()
        a.unseal()
        for s in (b, c):
            w.await_following(s)
        w.await_caught_up(a, b)
        assert peer(a)['mode'] == 'async'
        a.kill()
        want(promote(b, a.keys[:2]), 200)
        b.token = a.root
        c.ok('PUT', 'sys/replication/dr/secondary/update-primary',
             {'dr_operation_token': c.dr_token(a.keys[:2]), 'update_primary_addrs': [b.cluster_addr]}, token='')
        await_true('the mode that the new primary is told', lambda: peer(b, 'third')['mode'] == 'apply')
        p = peer(b, 'third')
        assert (p['mode_wait_limit_ms'], p['mode_on_limit']) == (900, 'strict'), p


def taken_away():
    """a revocation, a use and an unwrap in any mode are on the connected secondary when they are answered"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        for i in range(5):
            t = a.ok('PUT', 'auth/token/create', {'num_uses': 5}).json['auth']['client_token']
            wrapped = a.ok('GET', 'sys/mounts', headers={'X-Vault-Wrap-TTL': '60'}).json['wrap_info']['token']
            for call in (lambda: a.ok('GET', 'auth/token/lookup-self', token=t, headers={'X-Lockstep-Ack': 'local'}),
                         lambda: a.ok('PUT', 'sys/wrapping/unwrap', {'token': wrapped}, headers={'X-Lockstep-Ack': 'local'}),
                         lambda: a.ok('PUT', 'auth/token/revoke', {'token': t}, headers={'X-Lockstep-Ack': 'local'})):
                r = call()
                assert r.headers['X-Lockstep-Ack'] in ('flush', 'apply'), dict(r.headers)
        # Another one does not answer, and the mode of this one gives up sooner: it is met.
        c = third(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '700ms'})
        t = a.ok('PUT', 'auth/token/create', {}).json['auth']['client_token']
        c.proc.send_signal(signal.SIGSTOP)
        try:
            a.ok('PUT', 'auth/token/revoke', {'token': t})
            r = a.call('PUT', 'kv/x', {'v': 1}, headers={'X-Lockstep-Ack': 'flush', 'X-Lockstep-Ack-Limit': '1s'})
            want(r, 503, 'not confirmed by third')
            assert int(r.headers['X-Lockstep-LSN']) > 0, dict(r.headers)
        finally:
            c.proc.send_signal(signal.SIGCONT)
        a.ok('PUT', MODE, {'mode': 'async', 'id': 'secondary'})
        c.kill()
        t = a.ok('PUT', 'auth/token/create', {}).json['auth']['client_token']
        b.kill()
        begin = time.monotonic()
        a.ok('PUT', 'auth/token/revoke', {'token': t})
        assert time.monotonic() - begin < 1.5, 'waits for a secondary that is away'


def stop_while_held():
    """a server stops in time while a strict mode holds a write, and its request is told that the outcome is unknown"""
    with World() as w:
        a, b = w.pair()
        kv(w, a)
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '30s'})
        b.kill()
        got = []
        t = threading.Thread(target=lambda: got.append(a.call('PUT', 'kv/x', {'v': 1})))
        t.start()
        await_true('the write to be held', lambda: a.dr_status()['durable_lsn'] > a.dr_status()['committed_lsn'])
        assert a.stop() == 0
        t.join()
        want(got[0], 503, 'outcome unknown')


def rekey_unconfirmed():
    """new key shares whose seal a strict mode does not confirm in time are told, with the warning to keep the old ones, and hold once it does"""
    with World() as w:
        a, b = w.pair()
        await_true('the secondary to be whole', lambda: peer(a)['whole'])
        a.ok('PUT', MODE, {'mode': 'flush', 'id': 'secondary', 'wait_limit': '1s', 'on_limit': 'strict'})
        b.kill()
        old = a.keys
        nonce = a.ok('PUT', 'sys/rekey/init', {'secret_shares': 2, 'secret_threshold': 2}, token='').json['nonce']
        for k in old[:a.threshold]:
            r = a.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': nonce}, token='').json
        assert r['complete'] and len(r['keys_base64']) == 2, r
        assert 'Keep the old key shares' in r['warnings'][0] and 'secondary' in r['warnings'][0], r
        want(a.call('GET', 'sys/rekey/init', token=''), 503, 'not confirmed by secondary')
        b.start()
        await_true('the word of the secondary', lambda: a.call('GET', 'sys/rekey/init', token='').status == 200)
        assert not a.ok('GET', 'sys/rekey/init', token='').json['started']
        assert a.stop() == 0
        a.start()
        a.unseal(r['keys_base64'])
        b.unseal(r['keys_base64'])
        w.await_caught_up(a, b)


if __name__ == '__main__':
    sys.exit(run_tests([flush_and_apply, raised_answers, strict, lag_of_a_mode, held_key_settles, revoke_the_dead, revoke_of_a_quorum, revoke_cuts_at_once, fallback, quorum, reached_some, quorum_tail, defaults, configured,
                        taken_away, stop_while_held, rekey_unconfirmed], 'modes'))
