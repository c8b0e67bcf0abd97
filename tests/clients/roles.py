#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who serves: fencing, failing back, demote, update-primary, revoke."""
import base64
import os
import re
import signal
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

PROMOTE = 'sys/replication/dr/secondary/promote'


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def promote(b, keys, **kw):
    b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(keys), **kw}, token='')


def fenced(a, text='superseded by epoch 2'):
    def yes():
        r = a.call('GET', 'kv/x')
        return r.status == 503 and text in r.text
    return yes


def free_metrics(server):
    """Its listener gives the metrics without a token, from the next start on."""
    with open(server.config) as f:
        text = f.read()
    with open(server.config, 'w') as f:
        f.write(text.replace('tls_disable ', 'telemetry {\n    unauthenticated_metrics_access = true\n  }\n  tls_disable '))


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
        free_metrics(a)
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
        p = a.ok('GET', 'sys/replication/dr/secondary/promote').data  # it could be chosen, as after a split
        assert p['epoch'] == 3, p  # beyond the one that it has met
        m = a.call('GET', 'sys/metrics?format=prometheus', token='')
        assert m.status == 200 and [x for x in m.text.splitlines() if x.startswith('lockstep_reason{') and '"superseded"' in x and x.endswith(' 1')], m.text[:2000]
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


def left_alone():
    """a promoted cluster that nobody follows says so, without being unhealthy; the superseded one says what to do, and leaves, which the log calls no promotion"""
    with World() as w:
        a, b = w.pair()
        w.await_caught_up(a, b)
        assert a.dr_status()['reasons'] == []
        a.kill()
        promote(b, a.keys[:2])
        b.token = a.root

        def codes():
            return [r['code'] for r in b.dr_status()['reasons']]
        await_true('it to say that it has no secondary', lambda: codes() == ['no_secondary'])
        s = b.dr_status()
        assert s['healthy'] and s['reasons'][0]['severity'] == 'warning' and 'disable' in s['reasons'][0]['do'], s['reasons']
        a.start()
        a.unseal()
        await_true('the old primary to be fenced', fenced(a), 10)
        # What it says to an operator who does not know yet that it was superseded.
        assert 'demote, then update-primary' in a.dr_status()['reasons'][0]['do'], a.dr_status()
        want(a.call('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': 's.x'}), 400, 'demote this one first')
        for path, more in (('switchover', {}), ('mode', {'mode': 'flush'}), ('retention', {})):
            want(a.call('PUT', f'sys/replication/dr/primary/{path}', {'id': 'secondary', **more}), 400, 'Not a DR primary any more')
        a.ok('PUT', 'sys/replication/dr/primary/demote', {})
        await_true('it to know of the newer epoch', lambda: a.ok('GET', 'sys/replication/dr/secondary/promote', token='').data['needs_force'].endswith('acknowledged in it'))
        a.ok('PUT', 'sys/replication/dr/secondary/disable', {'dr_operation_token': a.dr_token(a.keys[:2])}, token='')
        assert a.dr_status() == {'mode': 'disabled'}
        log = open(a.log).read()
        assert 'leaving replication: keeping the whole tail' in log and 'promotion' not in log and 'promoted: ' not in log, log
        w.enable(b, a, 'back')
        await_true('the reason to go', lambda: codes() == [])
        b.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'back'})
        await_true('it to have none again', lambda: codes() == ['no_secondary'])
        b.ok('PUT', 'sys/replication/dr/primary/disable', {})
        assert b.dr_status() == {'mode': 'disabled'}


def demote(a):
    a.ok('PUT', 'sys/replication/dr/primary/demote', {})
    s = a.dr_status()
    assert s['mode'] == 'secondary' and s['state'] == 'idle' and s['connection_state'] == 'idle', s
    assert [r['code'] for r in s['reasons']] == ['no_primary'], s['reasons']


def update_primary(a, keys, **kw):
    return a.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': a.dr_token(keys), **kw}, token='')


def sealed_for_good():
    """the new primary is rekeyed and the old shares are gone: the old primary follows sealed, and the new shares open it"""
    with World() as w:
        a, b = w.pair()
        with open(a.config, 'a') as f:
            f.write('replication {\n  sealed_wait = "1s"\n}\n')
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        b.kill()
        a.ok('PUT', 'kv/lost', {'v': '1'})
        a.kill()
        b.start()
        b.unseal(a.keys[:2])
        promote(b, a.keys[:2])
        b.token = a.root
        b.ok('PUT', 'kv/x', {'v': '2'})
        nonce = b.ok('PUT', 'sys/rekey/init', {'secret_shares': 1, 'secret_threshold': 1}).json['nonce']
        for key in a.keys[:2]:
            r = b.ok('PUT', 'sys/rekey/update', {'key': key, 'nonce': nonce})
        new = r.json['keys_base64'] if 'keys_base64' in r.json else r.json['keys']
        a.start()

        def follows():
            s = [x for x in b.dr_status()['secondaries'] if x['connection_status'] == 'connected']
            return len(s) == 1 and s[0]['durable_lsn'] == b.dr_status()['last_dr_wal']
        await_true('the sealed old primary to follow', follows, 40)
        await_true('its copy to be whole', lambda: b.dr_status()['secondaries'][0]['whole'], 40)
        a.unseal(new)
        w.check_same_root(b, a)
        s = a.dr_status()
        assert s['mode'] == 'secondary' and len(s['lost_writes']) == 1, s
        promote(a, new)
        assert a.ok('GET', 'kv/x').data == {'v': '2'} and a.call('GET', 'kv/lost').status == 404


def fenced_without_audit():
    """a fenced primary whose audit files cannot be written is demoted and follows all the same; a refusal there stays one"""
    with World() as w:
        a, b = w.pair()
        logs = os.path.join(w.dir, 'logs')
        a.ok('PUT', 'sys/audit/file', {'type': 'file', 'options': {'file_path': os.path.join(logs, 'audit.log')}})
        w.await_caught_up(a, b)
        a.kill()
        promote(b, a.keys[:2])
        os.rename(logs, logs + '.1')
        open(logs, 'w').close()  # in place of the folder
        a.start()
        a.unseal()
        await_true('the old primary to be fenced', fenced(a), 10)
        want(a.call('PUT', 'sys/replication/dr/primary/demote', {}, token='s.' + 'x' * 24), 403)
        a.ok('PUT', 'sys/replication/dr/primary/demote', {})
        assert {'no_primary', 'audit_unwritable'} == {r['code'] for r in a.dr_status()['reasons']}
        update_primary(a, a.keys[:2], update_primary_addrs=[b.cluster_addr])
        await_true('it to follow', lambda: a.dr_status().get('state') == 'stream-wals', 30)


def demote_tells_who_lacks():
    """a demotion says when a secondary lacks what it has, and says nothing when none does"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        path = 'sys/replication/dr/primary/demote'
        assert 'transactions' not in str(a.ok('PUT', path, {}).json['warnings'])
        promote(a, a.keys[:2])
        w.await_following(b)
        b.proc.send_signal(signal.SIGSTOP)
        try:
            for i in range(50):
                a.ok('PUT', f'kv/{i}', {'v': i})
            said = a.ok('PUT', path, {}).json['warnings']
        finally:
            b.proc.send_signal(signal.SIGCONT)
        n = int(re.search('the last ([0-9]+) transactions', str(said)).group(1))
        assert 50 <= n < 200, said


def fail_back():
    """the lost primary comes back, rejoins by difference while sealed and not, and takes over again; all with the command line"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        cluster_id = a.dr_status()['cluster_id']
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        b.kill()
        a.ok('PUT', 'kv/lost', {'v': '1'})
        a.kill()
        b.start()
        b.unseal(keys)
        promote(b, keys)
        b.ok('PUT', 'kv/x', {'v': '2'}, token=a.root)
        b.token = a.root
        a.start()
        a.unseal()
        await_true('the old primary to be fenced', fenced(a), 10)
        want(a.call('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': 's.x'}), 400, 'Not a DR secondary')
        assert a.cli('replication', 'demote').returncode == 0
        assert a.dr_status()['cluster_id'] == cluster_id
        want(a.call('PUT', 'sys/replication/dr/secondary/update-primary', {'update_primary_addrs': [b.cluster_addr]}, token=''), 400,
             'dr_operation_token')
        want(a.call('PUT', 'sys/replication/dr/secondary/update-primary',
                    {'dr_operation_token': a.dr_token(keys), 'token': 'x', 'update_primary_addrs': [b.cluster_addr]}, token=''), 400, 'exclude')
        # An empty variable must not read as "follow nobody".
        for words in (['-token='], ['']):
            r = a.cli('replication', 'update-primary', f'-dr-token={a.dr_token(keys)}', *words)
            assert r.returncode == 1 and 'none of them empty' in r.stdout, r
        r = a.cli('replication', 'update-primary', f'-dr-token={a.dr_token(keys)}', 'https://127.0.0.1:1', b.cluster_addr)
        assert r.returncode == 0 and 'not followed yet' not in r.stdout, r.stdout  # it saved the lost write first
        w.await_following(a)
        w.check_same_root(b, a)
        await_true('the old primary to be an ordinary member', lambda: b.dr_status()['known_secondaries'] == [cluster_id])
        # A demoted primary goes on receiving, restarted and sealed.
        a.kill()
        a.start()
        b.ok('PUT', 'kv/y', {'v': '1'})

        def taken():
            p = b.dr_status()['secondaries'][0]
            return p['connection_status'] == 'connected' and p['durable_lsn'] == b.dr_status()['last_dr_wal']
        await_true('the sealed old primary to take the log', taken)
        a.unseal(keys)
        w.await_caught_up(b, a)
        # Back, as planned.
        want(b.call('PUT', 'sys/replication/dr/primary/demote', {}, token='s.' + 'x' * 24), 403)
        demote(b)
        want(b.call('GET', 'kv/x'), 400, 'path disabled in replication DR secondary mode')
        promote(a, keys)
        assert a.ok('GET', 'kv/x').data == {'v': '2'} and a.ok('GET', 'kv/y').data == {'v': '1'}
        assert a.call('GET', 'kv/lost').status == 404
        token = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'site-b'}).json['wrap_info']['token']
        update_primary(b, keys, token=token, ca_file=w.ca)
        w.await_following(b)
        a.ok('PUT', 'kv/z', {'v': '1'})
        w.await_caught_up(a, b)
        s = a.dr_status()
        assert s['known_secondaries'] == ['site-b'] and s['healthy'], s
        # Forget the primary, when that is said, and remember it.
        update_primary(b, keys, token='')
        assert b.dr_status()['state'] == 'idle'
        update_primary(b, keys, update_primary_addrs=a.cluster_addr)
        w.await_following(b)
        assert a.cli('replication', 'revoke', 'site-b').returncode == 0
        await_true('the revoked one to be cut', lambda: b.dr_status()['state'] == 'idle')
        assert a.dr_status()['known_secondaries'] == []


def misread_update():
    """an update-primary that is not understood is refused, and the secondary goes on following; an empty list is understood"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        dr = b.dr_token(keys)
        for body in ({'update_primary_addrs': 5}, {'update_primary_addrs': True}, {'update_primary_addrs': False}, {'update_primary_addrs': {'a': 'b'}},
                     {'update_primary_addrs': [5]}, {'update_primary_addrs': [None]}, {'update_primary_addrs': ['']}, {'update_primary_addrs': ['x', '']}, {'update_primary_addrs': ['https://0.0.0.0:8201']},
                     {'update_primary_addrs': None}, {'token': None}, {'token': {}}, {'token': ['x']}, {'primary_addrs': [a.cluster_addr]}, {}):
            want(b.call('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': dr, **body}, token=''), 400)
        s = b.dr_status()
        assert s['state'] == 'stream-wals' and s['connection_state'] == 'ready', s
        for names in (5, True, {'a': 1}, [['secondary']], [1]):
            want(a.call('PUT', 'sys/replication/dr/primary/quorum', {'mode': 'flush', 'quorum': 1, 'members': names}), 400, 'members')
        update_primary(b, keys, update_primary_addrs=f' {a.cluster_addr} , https://127.0.0.1:1')
        w.await_following(b)
        update_primary(b, keys, update_primary_addrs=[])
        assert b.dr_status()['state'] == 'idle'
        r = b.cli('replication', 'update-primary', f'-dr-token={b.dr_token(keys)}', a.cluster_addr)
        assert r.returncode == 0, r.stdout
        w.await_following(b)
        r = b.cli('replication', 'update-primary', f'-dr-token={b.dr_token(keys)}', '-forget')
        assert r.returncode == 0 and b.dr_status()['state'] == 'idle', r.stdout


def update_tells():
    """update-primary says whether one of the addresses was reached; status says which was not, why, and what to do"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        stranger = w.server('stranger')
        stranger.start()
        stranger.init()
        for addrs, why in ((['https://127.0.0.1:1'], 'refused'), ([stranger.cluster_addr, 'https://127.0.0.1:1'], 'refused'),
                           (['https://127.0.0.1:1', stranger.cluster_addr], ''), ([b.cluster_addr], '')):
            told = update_primary(b, keys, update_primary_addrs=addrs).json['warnings']
            assert len(told) == 1 and 'not followed yet' in told[0] and addrs[-1][8:] in told[0] and why in told[0], told
            s = b.dr_status()
            reason = [r for r in s['reasons'] if r['code'] == 'not_connected']
            assert not s['healthy'] and len(reason) == 1 and 'no connection' in reason[0]['what'] and 'update-primary' in reason[0]['do'], s
        r = b.cli('replication', 'update-primary', f'-dr-token={b.dr_token(keys)}', 'https://127.0.0.1:1')
        assert r.returncode == 0 and 'not followed yet' in r.stdout, r.stdout
        for addrs in ([a.cluster_addr], ['https://127.0.0.1:1', a.cluster_addr]):
            told = update_primary(b, keys, update_primary_addrs=addrs).json['warnings']
            assert len(told) == 1 and 'successfully' in told[0], told
            assert b.dr_status()['state'] == 'stream-wals'


def third_follows():
    """a second secondary follows the promoted one by its address alone, keeps its data, and a rekey reaches a sealed one"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        c = w.third(a)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        w.await_caught_up(a, c)
        a.kill()
        promote(b, keys)
        b.token = a.root
        await_true('the third to be told', lambda: 'newer_primary' in [r['code'] for r in c.dr_status()['reasons']], 10)
        what = next(r['what'] for r in c.dr_status()['reasons'] if r['code'] == 'newer_primary')
        assert what == (f'secondary was promoted to epoch 2: its API is at {b.addr}, its cluster address {b.cluster_addr}'), what
        # Promoted unasked, it would take away what the new primary has acknowledged.
        body = {'dr_operation_token': c.dr_token(keys)}
        p = c.ok('GET', PROMOTE, token='').data
        assert 'epoch 2' in p['needs_force'] and p['epoch'] == 3 and not p['no_loss'], p
        want(c.call('PUT', PROMOTE, body, token=''), 400, 'newer_epoch: epoch 2')
        c.kill()  # it knows it without being told again
        c.start()
        c.unseal(keys)
        want(c.call('PUT', PROMOTE, body, token=''), 400, 'newer_epoch: epoch 2')
        update_primary(c, keys, update_primary_addrs=[a.cluster_addr, b.cluster_addr])
        assert c.dr_status()['mode'] == 'secondary'
        w.await_following(c)
        b.ok('PUT', 'kv/y', {'v': '1'})
        w.await_caught_up(b, c)
        assert c.ok('GET', PROMOTE, token='').data['needs_force'] == ''
        assert sorted(b.dr_status()['known_secondaries']) == ['third']
        # The old primary is forgotten, and what it says counts no more.
        b.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': b.dr_status()['cluster_id']})
        # Sealed while the keys change.
        c.kill()
        c.start()
        r = b.ok('PUT', 'sys/rekey/init', {'secret_shares': 3, 'secret_threshold': 2}).json
        for k in keys:
            r2 = b.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': r['nonce']}).json
        new = r2['keys_base64'][:2]
        await_true('the sealed one to take the new seal', lambda: b.dr_status()['secondaries'][0]['durable_lsn'] == b.dr_status()['last_dr_wal']
                   and b.dr_status()['secondaries'][0]['connection_status'] == 'connected')
        c.unseal(new)
        w.await_caught_up(b, c)


def keys_change_while_it_follows():
    """a secondary follows rotate and rekey while it is open, and serves after a promotion without being unsealed again; then only the new keys open it"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/old', {'v': '1'})
        a.ok('PUT', 'sys/rotate', {})
        a.ok('PUT', 'kv/rotated', {'v': '2'})
        r = a.ok('PUT', 'sys/rekey/init', {'secret_shares': 3, 'secret_threshold': 2}).json
        for k in keys:
            new = a.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': r['nonce']}).json
        new = new['keys_base64'][:2]
        a.ok('PUT', 'sys/rotate', {})
        a.ok('PUT', 'kv/rekeyed', {'v': '3'})
        w.await_caught_up(a, b)
        a.kill()
        promote(b, new)
        for name, v in (('old', '1'), ('rotated', '2'), ('rekeyed', '3')):
            assert b.ok('GET', f'kv/{name}', token=a.root).data == {'v': v}
        b.ok('PUT', 'sys/rotate', {}, token=a.root)
        b.kill()
        b.start()
        want(b.call('PUT', 'sys/unseal', {'key': keys[0]}, token=''), 200)
        want(b.call('PUT', 'sys/unseal', {'key': keys[1]}, token=''), 400)
        b.unseal(new)
        assert b.ok('GET', 'kv/rekeyed', token=a.root).data == {'v': '3'}


def disabled_when_fenced():
    """a fenced cluster can leave with its data, and supersedes nobody; or it is promoted by force and supersedes"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        a.kill()
        promote(b, keys)
        b.token = a.root
        a.start()
        a.unseal()
        await_true('the old primary to be fenced', fenced(a), 10)
        what = a.dr_status()['reasons'][0]['what']
        assert what == f'superseded by epoch 2, of secondary: its API is at {b.addr}, its cluster address {b.cluster_addr}', what
        p = a.ok('GET', PROMOTE).data
        assert p['needs_force'] == p['summary'] and 'superseded by epoch 2: ' in p['summary'] and p['epoch'] == 3, p
        want(a.call('PUT', PROMOTE, {'force': True}, token=''), 403, 'permission denied')
        want(a.call('PUT', PROMOTE, {}), 400, 'force')
        a.ok('PUT', PROMOTE, {'force': True})
        assert a.ok('GET', 'kv/x').data == {'v': '1'} and a.dr_status()['epoch'] == 3
        await_true('the other one to be fenced', fenced(b, 'superseded by epoch 3'), 10)
        assert b.cli('replication', 'disable').returncode == 0
        assert b.dr_status() == {'mode': 'disabled'} and b.ok('GET', 'kv/x').data == {'v': '1'}
        a.ok('PUT', 'kv/x', {'v': '2'})
        threading.Event().wait(3)  # longer than members take to meet
        assert a.ok('GET', 'kv/x').data == {'v': '2'} and b.ok('GET', 'kv/x').data == {'v': '1'}


def index_header():
    """an index of a write is satisfied where the write is, and beyond the end of its epoch answers 412 for good"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        kept = a.ok('PUT', 'kv/x', {'v': '1'}).headers['X-Vault-Index']
        parts = base64.b64decode(kept).decode().split(':')
        assert parts[:3] == ['v1', a.dr_status()['cluster_id'], '1'] and int(parts[3]) > 0 and len(parts) == 5, parts
        assert 'X-Vault-Index' not in a.ok('GET', 'kv/x', headers={'X-Vault-Index': kept}).headers
        w.await_caught_up(a, b)
        b.kill()
        lost = a.ok('PUT', 'kv/lost', {'v': '1'}).headers['X-Vault-Index']
        a.ok('GET', 'kv/lost', headers={'X-Vault-Index': lost})
        a.kill()
        b.start()
        b.unseal(keys)
        promote(b, keys)
        b.token = a.root
        for i in range(20):
            b.ok('PUT', f'kv/k{i}', {'v': '1'})
        b.ok('GET', 'kv/x', headers={'X-Vault-Index': kept})
        want(b.call('GET', 'kv/lost', headers={'X-Vault-Index': lost}), 412, 'the write was lost when epoch 1 ended')
        forged = base64.b64encode(base64.b64decode(kept)[:-1] + b'g').decode()
        want(b.call('GET', 'kv/x', headers={'X-Vault-Index': forged}), 412, 'not of this history')
        want(b.call('GET', 'kv/x', headers={'X-Vault-Index': 'v1'}), 400, 'X-Vault-Index')


def cascade():
    """a secondary follows a secondary, and the primary knows; a revocation at the primary reaches it through the one in between"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        c = w.third(a)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, c)
        update_primary(c, keys, update_primary_addrs=b.cluster_addr)
        w.await_following(c)
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, c)
        s = b.dr_status()['secondaries']
        assert [(x['node_id'], x['connection_status']) for x in s] == [('third', 'connected')], s
        assert s[0]['retention']['let_go'] is False, s
        # To the primary it is not away, and no answer waits for it.
        await_true('the primary to hear of it', lambda: [p['fed_by'] for p in a.dr_status()['secondaries']] == ['', 'secondary'])
        s = a.dr_status()
        assert s['healthy'] and s['reasons'] == [], s['reasons']
        r = a.ok('PUT', 'kv/x', {'v': '2'}, headers={'X-Lockstep-Ack': 'flush', 'X-Lockstep-Ack-Limit': '5s'})
        assert r.headers['X-Lockstep-Ack'] in ('flush', 'apply') and 'third' not in r.headers['X-Lockstep-Ack-By'], dict(r.headers)
        r = a.cli('replication', 'status', '--check', 'healthy', '--check', 'max-lag=20s')
        assert r.returncode == 0, r.stdout
        b.kill()
        await_true('it to be away with the one in between',
                   lambda: [x['secondary'] for x in a.dr_status()['reasons'] if x['code'] == 'secondary_disconnected'] == ['secondary', 'third'])
        b.start()
        b.unseal(keys)
        w.await_following(b)
        await_true('the third to follow it again', lambda: [x['connection_status'] for x in b.dr_status()['secondaries']] == ['connected'])
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'third'})
        await_true('the revocation to reach the one in between', lambda: not [x for x in b.dr_status()['secondaries'] if x['connection_status'] == 'connected'])


def cascade_tells_the_age():
    """a secondary of a secondary does not take that one's word for the primary's when the primary is gone"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        c = w.third(a)
        w.await_caught_up(a, c)
        update_primary(c, keys, update_primary_addrs=b.cluster_addr)
        w.await_following(c)
        await_true('a canary by that way', lambda: 0 < int(c.dr_status()['primaries'][0]['replication_primary_canary_age_ms']) < 3000)
        assert c.cli('replication', 'status', '--check', 'healthy', '--check', 'max-lag=3s').returncode == 0
        a.kill()
        await_true('the age to be told', lambda: 'canary_late' in [r['code'] for r in c.dr_status()['reasons']], 30)
        assert c.dr_status()['state'] == 'stream-wals' and not c.dr_status()['healthy']
        assert c.cli('replication', 'status', '--check', 'max-lag=3s').returncode == 3
        token = c.dr_token(keys)
        want(c.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token, 'max_loss': '5s'}, token=''), 400, 'max_loss')
        # What was heard before a start counts from then on.
        b.kill()
        c.kill()
        c.start()
        c.unseal(keys)
        s = c.dr_status()
        assert int(s['primaries'][0]['replication_primary_canary_age_ms']) > 10000, s


if __name__ == '__main__':
    sys.exit(run_tests([fenced_old_primary, stopped_primary, alone, left_alone, fenced_without_audit, sealed_for_good, demote_tells_who_lacks, fail_back, misread_update, update_tells, third_follows,
                        keys_change_while_it_follows, disabled_when_fenced,
                        index_header, cascade, cascade_tells_the_age], 'roles'))
