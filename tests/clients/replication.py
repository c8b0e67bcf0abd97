#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replication beyond the walk: restarts, sealed secondaries, two secondaries, revoke, disable, tokens after a promotion."""
import base64
import http.client
import os
import random
import signal
import socket
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def fresh(a, ident, **kw):
    return a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': ident, **kw}).json['wrap_info']['token']


def promote(b, keys, **kw):
    return b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(keys), **kw}, token='').json


def sealed_secondary():
    """a secondary that restarts takes the log while sealed, and opens with the primary's keys"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        for s in (a, b):
            s.start()
            s.init()
        own = b.keys
        w.enable(a, b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        b.kill()
        a.ok('PUT', 'kv/x', {'v': '1'})
        b.start()
        want(b.call('GET', 'sys/health', token=''), 503)

        def taken():
            peers = a.dr_status()['secondaries']
            return peers and peers[0]['connection_status'] == 'connected' and peers[0]['durable_lsn'] == a.dr_status()['last_dr_wal']
        await_true('the sealed secondary to take the log', taken)
        want(b.call('PUT', 'sys/unseal', {'key': own[0]}, token=''), 200)
        want(b.call('PUT', 'sys/unseal', {'key': own[1]}, token=''), 400, "authentication failed. A DR secondary has its primary's keys\"]")
        b.unseal(a.keys[:2])
        want(b.call('GET', 'sys/health', token=''), 472)
        w.await_caught_up(a, b)
        promote(b, a.keys[:2])
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}


def primary_restarts():
    """a primary that is killed comes back with its secondaries, and none has to be enrolled again"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        a.kill()
        a.start()
        a.unseal()
        a.ok('PUT', 'kv/y', {'v': '2'})
        w.await_following(b)
        w.await_caught_up(a, b)
        s = a.dr_status()
        assert s['known_secondaries'] == ['secondary'] and s['secondaries'][0]['node_id'] == 'secondary', s


def two_secondaries():
    """two secondaries follow; a revoked one is cut at once and can't come back; its id can be used again"""
    with World() as w:
        a, b = w.pair()
        c = w.third(a)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        w.await_caught_up(a, c)
        assert sorted(a.dr_status()['known_secondaries']) == ['secondary', 'third']
        want(a.call('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'third'}), 400, 'in use')
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'third'})
        await_true('the link of the revoked one to be cut', lambda: c.dr_status()['state'] != 'stream-wals')
        assert a.dr_status()['known_secondaries'] == ['secondary']
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        assert c.dr_status()['last_remote_wal'] < a.dr_status()['last_dr_wal']
        want(a.call('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'third'}), 204)
        want(a.call('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'nobody'}), 400, 'nobody')
        d = w.server('fourth')
        d.start()
        d.init()
        w.enable(a, d, 'third')
        w.await_caught_up(a, d)


def cut_off_by_the_primary():
    """a secondary that its primary has revoked, or left, says so, and how it comes to follow again; it is not told to promote"""
    with World() as w:
        a, b = w.pair()
        dr = b.dr_token(a.keys[:2])

        def told(code):
            reasons = await_true(code, lambda: [r for r in b.dr_status()['reasons'] if r['code'] == code], 10)
            assert [r['code'] for r in b.dr_status()['reasons']] == [code], b.dr_status()['reasons']
            assert 'promote' not in reasons[0]['do'] and 'token' in reasons[0]['do'], reasons
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'secondary'})
        told('revoked')
        b.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': dr, 'token': fresh(a, 'again'), 'ca_file': w.ca}, token='')
        w.await_following(b)
        w.await_caught_up(a, b)
        assert b.dr_status()['healthy']
        a.ok('PUT', 'sys/replication/dr/primary/disable', {})
        told('primary_disabled')
        # What is advised works.
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        b.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': dr, 'token': fresh(a, 'back'), 'ca_file': w.ca}, token='')
        w.await_following(b)
        w.await_caught_up(a, b)
        w.check_same_root(a, b)
        a.ok('PUT', 'sys/replication/dr/primary/disable', {})
        told('primary_disabled')
        r = b.cli('replication', 'disable', f'-dr-token={dr}')
        assert r.returncode == 0 and b.dr_status() == {'mode': 'disabled'}, r


def after_promotion():
    """a promotion voids open tokens and DR tokens, keeps the cluster id, and the new primary takes secondaries in"""
    with World() as w:
        a, b = w.pair()
        c = w.server('third')
        c.start()
        c.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        open_token = fresh(a, 'third')
        w.await_caught_up(a, b)
        cluster_id = a.dr_status()['cluster_id']
        a.kill()
        dr = b.dr_token(a.keys[:2])
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': 's.' + 'x' * 24}, token=''), 403,
             'permission denied')
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {}, token=''), 400, 'dr_operation_token')
        r = b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token='').json
        assert 'being promoted to a replication primary' in r['warnings'][0], r
        s = b.dr_status()
        assert s['mode'] == 'primary' and s['cluster_id'] == cluster_id, s
        assert s['primary_cluster_addr'] == f'https://127.0.0.1:{b.port + 1}', s
        assert 'third' not in s['known_secondaries'], s
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token=a.root), 400,
             'Not a DR secondary.')
        b.token = a.root
        r = c.call('PUT', 'sys/replication/dr/secondary/enable',
                   {'token': open_token, 'ca_file': w.ca, 'primary_api_addr': b.addr})
        assert r.status == 400, r.text
        w.enable(b, c, 'third')
        b.ok('PUT', 'kv/y', {'v': '2'})
        w.await_caught_up(b, c)
        b.kill()
        promote(c, a.keys[:2])
        assert c.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}
        assert c.ok('GET', 'kv/y', token=a.root).data == {'v': '2'}


def operation_token():
    """a DR operation token can be deleted, and is no token for anything else"""
    with World() as w:
        a, b = w.pair()
        dr = b.dr_token(a.keys[:2])
        want(b.call('GET', 'sys/mounts', token=dr), 400, 'path disabled in replication DR secondary mode')
        want(a.call('GET', 'sys/mounts', token=dr), 403)
        path = 'sys/replication/dr/secondary/operation-token/delete'
        a.ok('PUT', 'sys/policies/acl/ender', {'policy': f'path "{path}" {{ capabilities = ["update"] }}'})
        batch = a.ok('POST', 'auth/token/create', {'policies': ['ender'], 'type': 'batch', 'no_parent': True}).json['auth']['client_token']
        w.await_caught_up(a, b)
        want(b.call('PUT', path, {'dr_operation_token': batch}, token=''), 400, 'not a DR operation token of the key holders')
        want(b.call('PUT', path, {'dr_operation_token': dr}, token=''), 204)
        want(b.call('PUT', path, {'dr_operation_token': dr}, token=''), 403)
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token=''), 403)
        # The newest 16 are kept, and the log says when one more voids the oldest.
        void = 'the oldest DR operation token is void'
        made = [b.dr_token(a.keys[:2]) for _ in range(16)]
        assert void not in open(b.log).read()
        made.append(b.dr_token(a.keys[:2]))
        await_true('the log to say it', lambda: open(b.log).read().count(void) == 1)
        want(b.call('PUT', path, {'dr_operation_token': made[0]}, token=''), 403)
        want(b.call('PUT', path, {'dr_operation_token': made[1]}, token=''), 204)


def disable():
    """disabled on either side, a cluster stands alone with its data, and may be enabled again as something new"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        before = a.dr_status()['cluster_id']
        want(b.call('PUT', 'sys/replication/dr/secondary/disable', {}, token=''), 400, 'dr_operation_token')
        b.ok('PUT', 'sys/replication/dr/secondary/disable', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        assert b.dr_status() == {'mode': 'disabled'}
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}
        a.ok('PUT', 'sys/replication/dr/primary/disable', {})
        assert a.dr_status() == {'mode': 'disabled'}
        b.token = a.root
        w.enable(b, a, 'other-way')
        assert a.dr_status()['cluster_id'] not in (before, '')
        b.ok('PUT', 'kv/y', {'v': '2'})
        w.await_caught_up(b, a)


def promoted_after_disable():
    """a secondary whose primary disabled replication is promoted to a cluster that stands alone, with an id of its own"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        dr = b.dr_token(a.keys[:2])
        a.ok('PUT', 'sys/replication/dr/primary/disable', {})
        await_true('the secondary to hear of it', lambda: 'replication is not enabled' in open(b.log).read())
        r = b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token='')
        assert 'stands alone' in str(r.json['warnings']), r.json
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'} and b.dr_status() == {'mode': 'disabled'}
        ids = {s.ok('GET', 'sys/health', token='').json['cluster_id'] for s in (a, b)}
        assert len(ids) == 2, ids
        b.ok('PUT', 'sys/replication/dr/primary/enable', {}, token=a.root)
        assert b.dr_status()['mode'] == 'primary'


def audit_of_a_secondary():
    """a secondary that cannot write the primary's audit file is promoted all the same, and then serves only when it can"""
    with World() as w:
        a, b = w.pair()
        logs, second = os.path.join(w.dir, 'logs'), os.path.join(w.dir, 'second')
        for name, folder in (('file', logs), ('second', second)):
            a.ok('PUT', f'sys/audit/{name}', {'type': 'file', 'options': {'file_path': os.path.join(folder, 'audit.log')}})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)

        def told(code):
            return code in [r['code'] for r in b.dr_status()['reasons']]

        for folder in (logs, second):
            os.rename(folder, folder + '.2')
        await_true('folders that have gone to be seen', lambda: told('audit_unwritable'))
        for folder in (logs, second):
            assert not os.path.exists(folder), 'it was made anew'
            os.rename(folder + '.2', folder)
        await_true('that they are back', lambda: not told('audit_unwritable') and not told('audit_device_unwritable'))

        def replace(folder):
            os.rename(folder, folder + '.1')
            open(folder, 'w').close()  # in place of the folder
        replace(logs)
        await_true('a warning while another device would take the lines', lambda: told('audit_device_unwritable') and not told('audit_unwritable'))
        replace(second)
        await_true('the reason before the disaster', lambda: told('audit_unwritable') and not told('audit_device_unwritable'))
        promote, switchover = 'sys/replication/dr/secondary/promote', 'sys/replication/dr/primary/switchover'
        await_true('no switchover to it', lambda: a.call('PUT', switchover, {'id': 'secondary', 'limit': '1ms'}).status == 400)
        want(a.call('PUT', switchover, {'id': 'secondary'}), 400, 'no audit device that can be written')
        assert 'audit_unwritable' in [r['code'] for r in b.ok('GET', promote, token='').data['reasons']]
        dr = b.dr_token(a.keys[:2])
        a.kill()
        b.ok('PUT', promote, {'dr_operation_token': dr}, token='')
        want(b.call('PUT', 'kv/x', {'v': 1}, token=a.root), 500, 'internal error: no audit device')
        await_true('the primary that serves nothing to say why', lambda: told('audit_unwritable'))
        want(b.call('GET', 'sys/health', token=''), 200)
        for folder in (logs, second):
            os.unlink(folder)  # a primary makes it
        await_true('requests to be served', lambda: b.call('GET', 'sys/mounts', token=a.root).status == 200)
        await_true('the reason to go', lambda: not told('audit_unwritable'))
        want(b.call('GET', 'kv/x', token=a.root), 404)
        assert '"path":"kv/x"' in open(os.path.join(logs, 'audit.log')).read()


def audit_disk_is_full():
    """a primary whose audit file is open and takes no more serves nothing, and its status says why"""
    with World() as w:
        a, _ = w.pair()
        log = os.path.join(w.dir, 'audit.log')
        a.ok('PUT', 'sys/audit/file', {'type': 'file', 'options': {'file_path': log, 'mode': '0000'}})

        def told():
            return 'audit_unwritable' in [r['code'] for r in a.dr_status()['reasons']]

        def reopened():
            a.proc.send_signal(signal.SIGHUP)
        os.rename(log, log + '.1')
        os.symlink('/dev/full', log)
        reopened()
        await_true('requests to be refused', lambda: a.call('GET', 'sys/mounts').status == 500)
        await_true('the status to say why', told, 30)
        os.unlink(log)
        reopened()
        await_true('requests to be served', lambda: a.call('GET', 'sys/mounts').status == 200)
        await_true('the reason to go', lambda: not told(), 30)


def killed_while_enabling():
    """killed at any moment of secondary/enable, a cluster is the old one, whole, or goes on to be the secondary"""
    seed = int(os.environ.get('SEED', '3'))
    rnd = random.Random(seed)
    with World() as w:
        a = w.server('primary')
        a.start()
        a.init()
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for i in range(100):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 2000})
        for n in range(6):
            b = w.server(f'secondary{n}')
            b.start()
            b.init()
            b.ok('POST', 'sys/mounts/own', {'type': 'kv'})
            b.ok('PUT', 'own/x', {'v': '1'})
            token = fresh(a, f's{n}')

            def enable():
                try:
                    b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'confirm_wipe': b.name})
                except (OSError, http.client.HTTPException):
                    pass  # killed under it

            t = threading.Thread(target=enable)
            t.start()
            t.join(rnd.random() * 0.12)
            b.kill()
            t.join()
            b.start()

            def settled():
                r = b.call('GET', 'sys/replication/dr/status', token='')
                if r.status == 200:
                    return r.data['mode'] == 'disabled' or (r.data['mode'] == 'secondary' and r.data['state'] == 'stream-wals')
                for keys in (b.keys, a.keys):  # whichever seal is there now
                    for k in keys[:2]:
                        b.call('PUT', 'sys/unseal', {'key': k}, token='')
                return False
            await_true(f'the outcome of round {n} of seed {seed}', settled)
            if b.dr_status()['mode'] == 'disabled':
                assert b.ok('GET', 'own/x').data == {'v': '1'}
            else:
                w.await_caught_up(a, b)
            b.kill()


def ceremony_from_two_hosts():
    """key holders on two hosts make a DR operation token, each with his own status, and a stranger spoils nothing"""
    base = 'sys/replication/dr/secondary/generate-operation-token/'
    with World() as w:
        a, b = w.pair()

        def at(host, method, path, body=None):
            c = http.client.HTTPSConnection('127.0.0.1', b.port, timeout=30, context=w.ssl, source_address=(host, 0))
            try:
                return b.call(method, base + path, body, token='', conn=c)
            finally:
                c.close()

        begun = at('127.0.0.1', 'PUT', 'attempt', {}).json
        at('127.0.0.1', 'PUT', 'update', {'key': a.keys[0], 'nonce': begun['nonce']})
        # The second holder's CLI: status, then the prompt with the nonce that it told.
        seen = at('127.0.0.2', 'GET', 'attempt').json
        assert seen['started'] and seen['nonce'] not in ('', begun['nonce']) and seen['progress'] == 1, seen
        # A stranger reads the same, and can neither cancel it nor spoil it with a share that is none.
        at('127.0.0.3', 'DELETE', 'attempt')
        want(at('127.0.0.3', 'DELETE', 'attempt', {'nonce': seen['nonce']}), 204)
        garbage = base64.b64encode(b'x' * len(base64.b64decode(a.keys[0]))).decode()
        want(at('127.0.0.3', 'PUT', 'update', {'key': garbage, 'nonce': seen['nonce']}), 400, 'root generation aborted')
        assert at('127.0.0.1', 'GET', 'attempt').json['nonce'] == begun['nonce']
        done = at('127.0.0.2', 'PUT', 'update', {'key': a.keys[1], 'nonce': seen['nonce']}).json
        assert done['complete'], done
        raw = base64.b64decode(done['encoded_token'] + '=' * (-len(done['encoded_token']) % 4))
        dr = bytes(x ^ y for x, y in zip(raw, begun['otp'].encode())).decode()
        assert not at('127.0.0.1', 'GET', 'attempt').json['started']
        want(b.call('PUT', 'sys/replication/dr/secondary/operation-token/delete', {'dr_operation_token': dr}, token=''), 204)


def rekey_is_ended_by_its_own():
    """a rekey is cancelled from where it was begun, or with a token that may, and by no stranger; Vault's calls as they are"""
    with World() as w:
        s = w.server('one')
        s.start()
        s.init()

        def at(host, method, path, body=None, token=''):
            c = http.client.HTTPSConnection('127.0.0.1', s.port, timeout=30, context=w.ssl, source_address=(host, 0))
            try:
                return s.call(method, f'sys/rekey/{path}', body, token=token, conn=c)
            finally:
                c.close()

        def begin(**kw):
            return at('127.0.0.1', 'PUT', 'init', {'secret_shares': 3, 'secret_threshold': 2, **kw}).json['nonce']

        def going():
            return at('127.0.0.1', 'GET', 'init').json['started']

        nonce = begin()
        at('127.0.0.1', 'PUT', 'update', {'key': s.keys[0], 'nonce': nonce})
        # The nonce is what every key holder reads in the status, so it proves nothing.
        for body in (None, {'nonce': nonce}):
            want(at('127.0.0.2', 'DELETE', 'init', body), 403, 'begun from another address')
        s.ok('PUT', 'sys/policies/acl/some', {'policy': 'path "sys/rekey/init" { capabilities = ["read", "delete"] }'})
        weak = s.ok('PUT', 'auth/token/create', {'policies': ['some']}).json['auth']['client_token']
        want(at('127.0.0.2', 'DELETE', 'init', token=weak), 403)
        want(at('127.0.0.2', 'DELETE', 'init', token='s.' + 'x' * 24), 403)
        assert going() and at('127.0.0.2', 'GET', 'init').json['progress'] == 1
        want(at('127.0.0.1', 'DELETE', 'init', {'nonce': 'another'}), 400, 'incorrect nonce')
        want(at('127.0.0.1', 'DELETE', 'init'), 204)  # the unchanged CLI, not logged in
        assert not going()
        want(at('127.0.0.2', 'DELETE', 'init'), 204)  # there is none
        begin()
        want(at('127.0.0.2', 'DELETE', 'init', token=s.root), 204)  # logged in, from anywhere
        assert not going()
        nonce = begin(require_verification=True)
        for k in s.keys[:2]:
            r = at('127.0.0.1', 'PUT', 'update', {'key': k, 'nonce': nonce}).json
        at('127.0.0.1', 'PUT', 'verify', {'key': r['keys'][0], 'nonce': r['verification_nonce']})
        want(at('127.0.0.2', 'DELETE', 'verify'), 403)
        assert at('127.0.0.1', 'GET', 'verify').json['progress'] == 1
        want(at('127.0.0.1', 'DELETE', 'verify'), 200)
        assert at('127.0.0.1', 'GET', 'verify').json['progress'] == 0


class Relay:
    """Stands before a cluster address: the first connection (it enrols) goes through, each later one only as far as `room` bytes from
    the primary. So a first copy begins, and is not whole before the test says so."""

    def __init__(self, room):
        self.room, self.target, self.seen, self.open, self.sockets = room, None, 0, True, []
        self.asked = False
        self.passed = 0
        self.go = threading.Event()  # cleared: connections wait
        self.go.set()
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.address = f'https://127.0.0.1:{self.listener.getsockname()[1]}'
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while self.open:
            try:
                near, _ = self.listener.accept()
                self.asked = True
                self.go.wait()
                far = socket.create_connection(('127.0.0.1', self.target))
            except OSError:
                continue
            self.seen += 1
            self.sockets += [near, far]
            threading.Thread(target=self.pump, args=(near, far, None), daemon=True).start()
            threading.Thread(target=self.pump, args=(far, near, self.room if self.seen > 1 else None), daemon=True).start()

    def pump(self, a, b, room):
        try:
            while room is None or room > 0:
                data = a.recv(65536 if room is None else min(65536, room))
                if not data:
                    break
                b.sendall(data)
                if room is not None:
                    room -= len(data)
                    self.passed += len(data)
            else:
                return  # stands still: neither end is told
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.open = False
        for s in [self.listener, *self.sockets]:
            s.close()


def first_copy_held(w, room=400000, secrets=300):
    """A primary, and a cluster with data of its own whose first copy of it stands still in the middle."""
    relay = Relay(room)
    a, b = w.server('primary', cluster_addr=relay.address), w.server('secondary')
    relay.target = a.port + 1
    for s in (a, b):
        s.start()
        s.init()
        s.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    for i in range(secrets):
        a.ok('PUT', f'kv/k{i}', {'v': random.randbytes(2000).hex()})
    b.ok('PUT', 'kv/own', {'v': 'own'})
    a.ok('PUT', 'sys/replication/dr/primary/enable', {})
    b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': fresh(a, 'first'), 'ca_file': w.ca, 'confirm_wipe': b.name})
    await_true('the copy to stand still in the middle', lambda: relay.passed >= room)
    assert b.dr_status()['mode'] == 'bootstrapping', b.dr_status()
    return a, b, relay


def generations(s):
    return sorted(n for n in os.listdir(f'{s.dir}/data') if n.startswith('gen-'))


def secrets_written_while_enabling():
    """what is written while a cluster is being enabled is not replaced unasked: neither while its snapshot is read, nor while it enrols"""
    path = 'sys/replication/dr/secondary/enable'
    with World() as w:
        relay = Relay(None)
        a = w.server('primary', cluster_addr=relay.address)
        relay.target = a.port + 1
        a.start()
        a.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': 'theirs'})
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        for i in range(150):  # enough for its snapshot to be read while something is written
            a.ok('PUT', f'kv/big{i}', {'v': 'x' * 400000})
        image = os.path.join(w.dir, 'snapshot')
        r = a.cli('operator', 'snapshot', 'save', image)
        assert r.returncode == 0, r.stdout
        for when in ('snapshot', 'enrol'):
            b = w.server(f'to-be-{when}')
            b.start()
            b.init()
            body = {'token': fresh(a, when), 'ca_file': w.ca}
            if when == 'snapshot':
                body['seed_file'] = image
            else:
                relay.asked = False
                relay.go.clear()
            got = []
            t = threading.Thread(target=lambda: got.append(b.call('PUT', path, body)))
            t.start()
            if when == 'snapshot':
                await_true('the snapshot to be read', lambda: generations(b) == ['gen-1', 'gen-2'])
            else:
                await_true('it to enrol', lambda: relay.asked)
            b.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
            b.ok('PUT', 'kv/own', {'v': 'own'})
            assert not got, 'it was over before anything was written'
            relay.go.set()
            t.join()
            want(got[0], 400, f'confirm_wipe={b.name}')
            assert b.dr_status() == {'mode': 'disabled'} and b.ok('GET', 'kv/own').data == {'v': 'own'}
            await_true('what was made of the snapshot to be removed', lambda: generations(b) == ['gen-1'])
            if when == 'snapshot':  # the token is not spent, and what is confirmed is done, and set aside
                b.ok('PUT', path, {**body, 'confirm_wipe': b.name})
                b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
                w.await_following(b)
                assert len(b.dr_status()['set_aside']) == 1
        relay.close()


def left_during_first_copy():
    """before the first copy is whole, the holders of the cluster's own keys take it back: all that it was stands again"""
    path = 'sys/replication/dr/secondary/disable'
    with World() as w:
        a, b, relay = first_copy_held(w)
        want(b.call('GET', 'kv/own'), 400, 'path disabled in replication DR secondary mode')
        want(b.call('PUT', path, {}, token=''), 400, 'dr_operation_token')
        want(b.call('PUT', path, {}), 400, 'dr_operation_token')  # a token of the cluster is none
        want(b.call('PUT', path, {'dr_operation_token': 's.' + 'x' * 24}, token=''), 403)
        dr = b.dr_token(b.keys[:2])
        # It is good for leaving, and for nothing else.
        for verb in ('promote', 'update-primary', 'reindex', 'aside/delete', 'drill', 'doctor'):
            r = b.call('PUT', f'sys/replication/dr/secondary/{verb}', {'dr_operation_token': dr}, token='')
            assert r.status in (400, 403), (verb, r.status, r.text)
        assert b.dr_status()['mode'] == 'bootstrapping'
        a.kill()  # the primary may be gone for good
        r = b.ok('PUT', path, {'dr_operation_token': dr}, token='').json
        assert 'what it held before' in r['warnings'][0], r
        assert b.dr_status() == {'mode': 'disabled'}
        want(b.call('GET', 'sys/health', token=''), 200)
        assert b.ok('GET', 'kv/own').data == {'v': 'own'}
        b.ok('PUT', 'kv/new', {'v': 'new'})
        await_true('the half copy to be removed', lambda: generations(b) == ['gen-1'])
        want(b.call('PUT', path, {'dr_operation_token': dr}), 400, 'Not a DR secondary.')
        b.kill()
        b.start()
        b.unseal()
        assert b.ok('GET', 'kv/own').data == {'v': 'own'} and b.ok('GET', 'kv/new').data == {'v': 'new'}
        assert b.dr_status() == {'mode': 'disabled'}
        # It may be enabled again, and its old token is void.
        a.start()
        a.unseal()
        b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': fresh(a, 'second'), 'ca_file': w.ca, 'confirm_wipe': b.name})
        want(b.call('PUT', path, {'dr_operation_token': dr}, token=''), 403)
        relay.close()


def left_token_ends_with_the_copy():
    """a token of the cluster's own keys, made during the first copy, is void once the copy is whole"""
    with World() as w:
        a, b, relay = first_copy_held(w)
        dr = b.dr_token(b.keys[:2])
        relay.room = None
        for s in relay.sockets:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        w.await_following(b)
        for verb in ('disable', 'promote', 'operation-token/delete'):
            want(b.call('PUT', f'sys/replication/dr/secondary/{verb}', {'dr_operation_token': dr}, token=''), 403)
        relay.close()


def killed_while_leaving():
    """killed at any moment of leaving, a cluster is the old one, whole, or still takes its first copy and can leave again"""
    path = 'sys/replication/dr/secondary/disable'
    rnd = random.Random(int(os.environ.get('SEED', '5')))
    outcomes = set()
    with World() as w:
        a, b, relay = first_copy_held(w)
        for n in range(8):
            dr = b.dr_token(b.keys[:2])

            def leave():
                try:
                    b.call('PUT', path, {'dr_operation_token': dr}, token='')
                except (OSError, http.client.HTTPException):
                    pass  # killed under it

            t = threading.Thread(target=leave)
            t.start()
            t.join(rnd.random() * 0.03)
            b.kill()
            t.join()
            b.start()
            b.unseal()
            mode = b.dr_status()['mode']
            outcomes.add(mode)
            if mode == 'disabled':
                assert b.ok('GET', 'kv/own').data == {'v': 'own'}
                b.ok('PUT', 'kv/own', {'v': 'own'})
                assert generations(b) == ['gen-1'], generations(b)
                b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': fresh(a, f'again{n}'), 'ca_file': w.ca, 'confirm_wipe': b.name})
            else:
                assert mode == 'bootstrapping', mode
        b.ok('PUT', path, {'dr_operation_token': b.dr_token(b.keys[:2])}, token='')
        assert b.ok('GET', 'kv/own').data == {'v': 'own'}
        relay.close()


def sealed_token():
    """a secondary token that is sealed to a key of the secondary's: no way to the primary's API is needed, and only that cluster can use it"""
    make, tokens = 'sys/replication/dr/secondary/generate-public-key', 'sys/replication/dr/primary/secondary-token'
    enable, doctor = 'sys/replication/dr/secondary/enable', 'sys/replication/dr/secondary/doctor'
    with World() as w:
        a, b, c = w.server('primary'), w.server('secondary'), w.server('other')
        for s in (a, b, c):
            s.start()
            s.init()
        key = b.ok('POST', make).data['secondary_public_key']
        b.kill()
        b.start()
        b.unseal()
        assert b.ok('POST', make).data == {'secondary_public_key': key}  # an open token stays good
        assert c.ok('POST', make).data['secondary_public_key'] != key
        want(b.call('POST', make, token=''), 403)
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        want(a.call('POST', make), 400, 'cluster is a DR primary')
        other = key[:40] + ('A' if key[40] != 'A' else 'B') + key[41:]
        for bad in ('x', key[:-8], other, 'A' * 600):
            want(a.call('PUT', tokens, {'id': 'bad', 'secondary_public_key': bad}), 400, 'secondary_public_key must be what')

        def sealed(ident, k=key, **kw):
            r = a.ok('PUT', tokens, {'id': ident, 'secondary_public_key': k, **kw}).json
            assert r['wrap_info'] is None and list(r['data']) == ['token'], r
            return r['data']['token']

        def checks(s, t):
            return {x['name']: x for x in s.ok('PUT', doctor, {'token': t}).data['checks']}

        token = sealed('bad')  # none of the above took the id
        content = base64.b64decode(token[len('sealed.'):])
        assert b'PRIVATE' not in content and b'"bad"' not in content
        want(a.call('PUT', tokens, {'id': 'bad'}), 400, 'has an open token already')
        want(c.call('PUT', enable, {'token': token}), 400, 'made for another public key')
        for cut in (token[:-5], token[:-4], token[:60], 'sealed.', token[:99] + ('A' if token[99] != 'A' else 'B') + token[100:]):
            want(b.call('PUT', enable, {'token': cut}), 400, 'the secondary token ')
        late = sealed('late', ttl='1s')
        await_true('its end', lambda: 'it expired ' in checks(b, late)['token']['what'])
        want(b.call('PUT', enable, {'token': late}), 400, 'the secondary token expired at ')
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'bad'})
        want(b.call('PUT', enable, {'token': token}), 400, 'error fetching secondary bootstrap package')
        want(b.call('PUT', enable, {'token': fresh(a, 'wrapped')}), 400, 'error unwrapping secondary token')  # its API is not to be reached

        token = sealed('secondary')
        found = checks(b, token)
        assert {found[x]['result'] for x in ('token', 'tls', 'cluster port')} == {'ok'} and 'api' not in found, found
        found = checks(c, token)
        assert found['token']['result'] == 'fail' and 'cluster port' not in found, found
        b.ok('PUT', enable, {'token': token})
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        w.await_following(b)
        w.await_caught_up(a, b)
        want(c.call('PUT', enable, {'token': token}), 400, 'made for another public key')
        want(b.call('POST', make), 400, 'dr_operation_token must be provided')
        dr = b.dr_token(a.keys[:2])
        same = b.ok('POST', make, {'dr_operation_token': dr}, token='').data['secondary_public_key']
        b.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': dr, 'token': sealed('renamed', same)}, token='')
        await_true('the new name', lambda: b.dr_status()['secondary_id'] == 'renamed')
        w.await_caught_up(a, b)
        promote(b, a.keys[:2])
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}


if __name__ == '__main__':
    sys.exit(run_tests([sealed_secondary, primary_restarts, two_secondaries, cut_off_by_the_primary, after_promotion, operation_token, audit_of_a_secondary, audit_disk_is_full, disable, promoted_after_disable,
                        killed_while_enabling, left_during_first_copy, left_token_ends_with_the_copy, killed_while_leaving, ceremony_from_two_hosts,
                        rekey_is_ended_by_its_own, secrets_written_while_enabling, sealed_token], 'replication'))
