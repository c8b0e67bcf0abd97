#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of real servers: saved under load, checked offline, restored to any LSN or time, refused when damaged."""
import datetime
import json
import os
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

PATH = 'sys/storage/snapshot'


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def cli(w, s, *args, token=None, code=0, text=''):
    """The operator CLI against s (None: offline); its output."""
    env = dict(os.environ, VAULT_CACERT=w.ca, VAULT_FORMAT='json')
    if s is not None:
        env.update(VAULT_ADDR=s.addr, VAULT_TOKEN=s.token if token is None else token)
    r = subprocess.run([w.program, *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=120)
    if r.returncode != code or text not in r.stdout + r.stderr:
        raise Failed(f'{args}: wanted {code} with {text!r}, got {r.returncode}:\n{r.stdout[-1500:]}{r.stderr[-1500:]}')
    return r.stdout


def save(w, s, name, **kw):
    path = os.path.join(w.dir, name)
    out = cli(w, s, 'operator', 'snapshot', 'save', path, **kw)
    return path, json.loads(out) if out else None


def one(w, name='one', **kw):
    s = w.server(name, **kw)
    s.start()
    s.init()
    s.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    return s


class Writer(threading.Thread):
    """Writes kv/w<i> in order, one after the other; what was answered is counted."""

    def __init__(self, s, prefix='w'):
        super().__init__(daemon=True)
        self.s, self.prefix, self.done, self.failed, self.end = s, prefix, 0, None, threading.Event()

    def run(self):
        conn = self.s.connect()
        try:
            while not self.end.is_set():
                r = self.s.call('PUT', f'kv/{self.prefix}{self.done}', {'v': self.done, 'pad': 'x' * 4000}, conn=conn)
                if r.status != 204:
                    raise Failed(f'write {self.done}: {r.status} {r.text[:200]}')
                self.done += 1
        except Exception as e:
            self.failed = e

    def stop(self):
        self.end.set()
        self.join()
        if self.failed:
            raise self.failed


def saved_under_load():
    """a snapshot is saved while writers go on, who are not held up; inspect says the same offline; the file is private and whole"""
    with World() as w:
        s = one(w)
        writer = Writer(s)
        writer.start()
        await_true('writes', lambda: writer.done > 200)
        lsns = []
        for i in range(3):
            before = writer.done
            path, info = save(w, s, f'snap{i}')
            after = writer.done
            assert after > before, 'writers stood still'
            assert info['lsn'] >= before, (info, before)
            assert json.loads(cli(w, None, 'operator', 'snapshot', 'inspect', path)) == info
            assert os.stat(path).st_size == info['bytes'] and os.stat(path).st_mode & 0o777 == 0o600
            assert not os.path.exists(path + '.partial')
            lsns.append(info['lsn'])
        writer.stop()
        assert lsns == sorted(set(lsns)), lsns
        assert s.stop() == 0


def damaged():
    """a flipped byte, a cut file and another file are told by inspect, with where"""
    with World() as w:
        s = one(w)
        path, _ = save(w, s, 'snap')
        whole = open(path, 'rb').read()
        for name, data, text in (('flipped', whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], 'checksum'),
                                 ('cut', whole[:-100], 'not whole'), ('more', whole + b'x', 'behind the end'), ('other', b'hello', 'no snapshot'),
                                 ('empty', b'', 'not whole')):
            bad = os.path.join(w.dir, name)
            open(bad, 'wb').write(data)
            cli(w, None, 'operator', 'snapshot', 'inspect', bad, code=2, text=text)
        cli(w, None, 'operator', 'snapshot', 'inspect', os.path.join(w.dir, 'none'), code=2, text='No such file')


def who_may():
    """the policy on the path decides; a DR secondary and a sealed server give none; other methods are refused"""
    with World() as w:
        a, b = w.pair()
        want(a.call('GET', PATH, token=''), 403)
        a.ok('PUT', 'sys/policies/acl/saver', {'policy': f'path "{PATH}" {{ capabilities = ["read"] }}'})
        a.ok('PUT', 'sys/policies/acl/other', {'policy': 'path "kv/*" { capabilities = ["read"] }'})
        saver = a.ok('POST', 'auth/token/create', {'policies': ['saver']}).json['auth']['client_token']
        other = a.ok('POST', 'auth/token/create', {'policies': ['other']}).json['auth']['client_token']
        want(a.call('GET', PATH, token=other), 403)
        want(a.call('PUT', PATH, {}, token=a.root), 405)
        save(w, a, 'by-policy', token=saver)
        cli(w, a, 'operator', 'snapshot', 'save', os.path.join(w.dir, 'denied'), token=other, code=2, text='permission denied')
        assert not [f for f in os.listdir(w.dir) if f.startswith('denied')], 'a failed save leaves nothing'
        want(b.call('GET', PATH), 400, 'path disabled in replication DR secondary mode')
        a.ok('PUT', 'sys/seal')
        want(a.call('GET', PATH), 503, 'sealed')


def a_reader_that_goes_away():
    """a client that stops reading holds up nobody and blocks no other snapshot for long; one killed with the server leaves good data"""
    with World() as w:
        s = one(w)
        for i in range(8):
            s.ok('PUT', f'kv/big{i}', {'v': os.urandom(600000).hex()})
        raw = w.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port)), server_hostname='127.0.0.1')
        raw.sendall(f'GET /v1/{PATH} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.token}\r\n\r\n'.encode())
        assert raw.recv(100).startswith(b'HTTP/1.1 200')
        want(s.call('GET', PATH), 503, 'another snapshot is being made')
        for i in range(20):
            s.ok('PUT', f'kv/small{i}', {'v': i})
        raw.close()

        def free():
            r = s.call('GET', PATH)
            return r.status == 200
        await_true('the next snapshot', free)
        raw = w.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port)), server_hostname='127.0.0.1')
        raw.sendall(f'GET /v1/{PATH} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.token}\r\n\r\n'.encode())
        raw.recv(100)
        s.ok('PUT', 'kv/last', {'v': 'here'})
        s.kill()
        raw.close()
        s.start()
        s.unseal()
        assert s.ok('GET', 'kv/last').data['v'] == 'here'
        save(w, s, 'after')
        raw = w.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port)), server_hostname='127.0.0.1')
        raw.sendall(f'GET /v1/{PATH} HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.token}\r\n\r\n'.encode())
        raw.recv(100)
        assert s.stop() == 0, 'a snapshot under way keeps the server from stopping'
        raw.close()


def restore(w, s, snapshot, *args, **kw):
    """Into the data directory of s, which is not started."""
    out = cli(w, None, 'operator', 'restore', f'-snapshot={snapshot}', f'-into={s.dir}/data', *args, **kw)
    return json.loads(out) if out else None


def log_of(s):
    gens = sorted(d for d in os.listdir(f'{s.dir}/data') if d.startswith('gen-'))
    return f'{s.dir}/data/{gens[-1]}/wal'


def born(w, name, of, **kw):
    """A server that was not started, to be restored into: it will have the keys and tokens of another one."""
    s = w.server(name, **kw)
    s.keys, s.threshold, s.token, s.root = of.keys, of.threshold, of.token, of.root
    return s


def keys(s, prefix):
    r = s.call('LIST', 'kv/')
    return {int(k[len(prefix):]) for k in (r.data or {'keys': []})['keys'] if k.startswith(prefix)} if r.status == 200 else set()


def to_any_lsn():
    """from one snapshot and the log: exactly what was committed up to an LSN, also inside a segment of many transactions; a running server's log will do"""
    with World() as w:
        s = one(w)
        lsn_of = {}
        lock = threading.Lock()

        def write(part):
            conn = s.connect()
            for i in range(part, 240, 8):
                r = s.ok('PUT', f'kv/k{i}', {'v': i}, conn=conn, headers={'X-Lockstep-Ack': 'local'})
                with lock:
                    lsn_of[i] = int(r.headers['X-Lockstep-LSN'])
        s.ok('PUT', 'kv/before', {'v': 1})
        path, info = save(w, s, 'snap')
        many = [threading.Thread(target=write, args=(p,)) for p in range(8)]
        for t in many:
            t.start()
        for t in many:
            t.join()
        assert len(lsn_of) == 240
        s.ok('DELETE', 'kv/before')
        ordered = sorted(lsn_of.values())
        for n, target in enumerate((ordered[7], ordered[100], ordered[101], ordered[-1])):
            r = born(w, f'restored{n}', s)
            rep = restore(w, r, path, f'-wal={log_of(s)}', f'-to-lsn={target}')
            assert rep['lsn'] == target and rep['root_equals_snapshot'], rep
            r.start()
            r.unseal()
            assert keys(r, 'k') == {i for i, lsn in lsn_of.items() if lsn <= target}, target
            assert r.ok('GET', 'kv/before').data['v'] == 1
            r.ok('PUT', 'kv/new', {'v': 'writes go on'})
            r.stop()
            r.start()
            r.unseal()
            assert r.ok('GET', 'kv/new').data['v'] == 'writes go on'
            r.stop()
        r = born(w, 'latest', s)
        rep = restore(w, r, path, f'-wal={log_of(s)}')
        r.start()
        r.unseal()
        assert r.call('GET', 'kv/before').status == 404 and len(keys(r, 'k')) == 240
        r.stop()
        r = born(w, 'alone', s)
        rep = restore(w, r, path)
        assert rep['lsn'] == info['lsn'] and rep['merkle_root'] == info['merkle_root'], (rep, info)


def to_any_time():
    """from one snapshot and the log: what was committed at or before a time; a time that cannot be proven to be covered is refused"""
    with World() as w:
        s = one(w)
        path, info = save(w, s, 'snap')

        def now():
            return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='milliseconds')
        times = []
        for i in range(5):
            s.ok('PUT', f'kv/k{i}', {'v': i})
            times.append(now())
            ms = time.time() * 1000 // 1
            await_true('the next millisecond', lambda: time.time() * 1000 // 1 > ms)
        for n in (0, 2, 3):
            r = born(w, f'restored{n}', s)
            rep = restore(w, r, path, f'-wal={log_of(s)}', f'-to-time={times[n]}')
            assert rep['commit_time'] <= times[n].replace('+00:00', 'Z'), rep
            r.start()
            r.unseal()
            assert keys(r, 'k') == set(range(n + 1)), n
            r.stop()
        r = born(w, 'later', s)
        restore(w, r, path, f'-wal={log_of(s)}', f'-to-time={now()}', code=2, text='cannot tell what was committed')
        restore(w, r, path, '-to-time=2020-01-01T00:00:00Z', code=2, text='older snapshot')
        for bad in ('yesterday', '2026-02-31T00:00:00Z', '2026-01-01T00:00:00', '2026-01-01'):
            restore(w, r, path, f'-to-time={bad}', code=1, text='is no time')
        assert not os.path.exists(f'{r.dir}/data'), 'a refused restore leaves nothing'


def refused_restores():
    """not into what is not empty or in use, not before the snapshot, not beyond the log, not with another cluster's log, not from a damaged file"""
    with World() as w:
        s, other = one(w), one(w, 'other')
        for i in range(20):
            s.ok('PUT', f'kv/k{i}', {'v': i})
            other.ok('PUT', f'kv/k{i}', {'v': i})
        path, info = save(w, s, 'snap')
        s.ok('PUT', 'kv/after', {'v': 1})
        restore(w, s, path, code=2, text='a server is running on')
        r = born(w, 'r', s)
        os.makedirs(f'{r.dir}/data/something')
        restore(w, r, path, code=2, text='not empty')
        assert os.listdir(f'{r.dir}/data') == ['something']
        os.rmdir(f'{r.dir}/data/something')
        for args, code, text in ((['-to-lsn=3'], 2, 'older snapshot'), ([f'-to-lsn={info["lsn"] + 100000}', f'-wal={log_of(s)}'], 2, 'ends at LSN'),
                                 ([f'-to-lsn={info["lsn"] + 1}'], 2, 'ends at LSN'), ([f'-wal={log_of(other)}'], 2, 'another history'),
                                 ([f'-wal={w.dir}'], 2, w.dir), (['-to-lsn=9', '-to-time=2026-01-01T00:00:00Z'], 1, 'one target'),
                                 (['-to-lsn=0'], 1, '-to-lsn must be 1 or more'), (['-to-lsn=-5'], 1, '-to-lsn must be 1 or more')):
            restore(w, r, path, *args, code=code, text=text)
            assert os.listdir(f'{r.dir}/data') == [], (args, os.listdir(f'{r.dir}/data'))
        whole = open(path, 'rb').read()
        bad = os.path.join(w.dir, 'bad')
        open(bad, 'wb').write(whole[:len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 4]) + whole[len(whole) // 2 + 1:])
        restore(w, r, bad, code=2, text='checksum')
        assert os.listdir(f'{r.dir}/data') == []
        restore(w, r, path)
        restore(w, r, path, code=2, text='not empty')


def enable_seeded(w, a, b, path, name='secondary', status=200, text=''):
    token = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': name}).json['wrap_info']['token']
    want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'seed_file': path, 'confirm_wipe': b.name}), status, text)
    return token


def seeded():
    """a secondary that is enabled with a snapshot begins at its LSN and takes only the log from there; it survives a kill and a promotion"""
    with World() as w:
        a = one(w, 'primary')
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        for i in range(200):
            a.ok('PUT', f'kv/k{i}', {'v': i, 'pad': 'x' * 2000})
        path, info = save(w, a, 'snap')
        a.ok('PUT', 'kv/after', {'v': 'the snapshot'})
        b = w.server('secondary')
        b.start()
        b.init()
        enable_seeded(w, a, b, path)
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        w.await_following(b)
        w.await_caught_up(a, b)
        w.check_same_root(a, b)
        log = open(b.log).read()
        assert f'the snapshot is whole: LSN {info["lsn"]}' in log, log
        assert 'catching up with the primary' not in log, 'it was copied'
        b.kill()
        a.ok('PUT', 'kv/meanwhile', {'v': 1})
        b.start()
        b.unseal()
        w.await_following(b)
        w.await_caught_up(a, b)
        w.check_same_root(a, b)
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token=''), 200)
        await_true('the promoted one to serve', lambda: b.call('GET', 'kv/meanwhile').status == 200)
        assert len(keys(b, 'k')) == 200 and b.ok('GET', 'kv/after').data['v'] == 'the snapshot'


def seeded_from_an_old_one():
    """when the primary no longer has the log that goes on from it, the difference is fetched, not all"""
    with World() as w:
        a = one(w, 'primary')
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        for i in range(60):
            a.ok('PUT', f'kv/k{i}', {'v': i, 'pad': os.urandom(20000).hex()})
        path, info = save(w, a, 'snap')
        # The one that is promoted took its copy later: its log begins behind the snapshot's LSN.
        b = w.server('between')
        b.start()
        b.init()
        w.enable(a, b, 'between')
        a.ok('PUT', 'kv/k0', {'v': 'changed'})
        w.await_caught_up(a, b)
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token=''), 200)
        a.stop()
        await_true('the promoted one to serve', lambda: b.call('GET', 'kv/k0').status == 200)
        c = w.server('late')
        c.start()
        c.init()
        enable_seeded(w, b, c, path, name='late')
        c.threshold, c.keys, c.token = a.threshold, a.keys, a.token
        w.await_following(c)
        w.await_caught_up(b, c)
        w.check_same_root(b, c)
        log = open(c.log).read()
        assert 'by its difference to the data at hand' in log, log[-3000:]


def seeds_that_are_refused():
    """a damaged snapshot, another cluster's, one that is not there: nothing changes, and a good token is not spent on a damaged one"""
    with World() as w:
        a, other = one(w, 'primary'), one(w, 'other')
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        path, _ = save(w, a, 'snap')
        foreign, _ = save(w, other, 'foreign')
        whole = open(path, 'rb').read()
        bad = os.path.join(w.dir, 'bad')
        open(bad, 'wb').write(whole[:-40000] + bytes([whole[-40000] ^ 1]) + whole[-39999:])
        b = one(w, 'secondary')
        b.ok('PUT', 'kv/mine', {'v': 'still here'})
        token = enable_seeded(w, a, b, bad, status=400, text='checksum')
        enable_seeded(w, a, b, foreign, name='two', status=400, text='not of the token')
        want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'seed_file': '/nowhere', 'confirm_wipe': b.name}), 400, 'No such file')
        fifo = os.path.join(w.dir, 'fifo')
        os.mkfifo(fifo)
        for no_file in (w.dir, fifo):
            want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'seed_file': no_file, 'confirm_wipe': b.name}, timeout=10),
                 400, 'not a regular file')
        assert b.ok('GET', 'kv/mine').data['v'] == 'still here'
        assert sorted(d for d in os.listdir(f'{b.dir}/data') if d.startswith('gen')) == ['gen-1'], os.listdir(f'{b.dir}/data')
        want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'seed_file': path, 'confirm_wipe': b.name}), 200)
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        w.await_following(b)


def sequence_22_restore_is_a_cluster_of_its_own():
    """sequence 22: what was restored has a new cluster id, no members, no link key and audit files of its own; it fences nobody, and its batch tokens open nothing of the real cluster"""
    with World() as w:
        a, b = w.pair()
        real = os.path.join(w.dir, 'audit.log')
        a.ok('PUT', 'sys/audit/real', {'type': 'file', 'options': {'file_path': real}})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'sys/policies/acl/promoter', {
            'policy': 'path "sys/replication/dr/secondary/*" { capabilities = ["update"] }'})
        a.ok('POST', 'auth/token/roles/handler', {'allowed_policies': 'promoter', 'orphan': True, 'renewable': False, 'token_type': 'batch'})
        batch = {'policies': ['promoter'], 'ttl': '1h'}
        a.ok('PUT', 'sys/replication/dr/primary/mode', {'id': 'secondary', 'mode': 'flush'})
        path, info = save(w, a, 'snap')
        r = born(w, 'restored', a)
        rep = restore(w, r, path)
        assert rep['snapshot_cluster_id'] == info['cluster_id'] != rep['cluster_id'], rep
        assert not os.path.exists(f'{r.dir}/data/link'), 'a link key was restored'
        r.start()
        r.unseal()
        st = r.ok('GET', 'sys/replication/dr/status', token='').data
        assert st.get('dr', st)['mode'] == 'disabled', st
        assert r.ok('GET', 'sys/seal-status', token='').json['cluster_id'] == rep['cluster_id']
        # Writes do not wait for the real secondary, and the real pair does not notice.
        r.ok('PUT', 'kv/only-here', {'v': 1})
        own = f'{r.dir}/data/audit/real.audit'
        assert 'kv/only-here' not in open(real).read(), 'it wrote into the real audit file'
        assert 'kv/only-here' in open(own).read()
        forged = r.ok('POST', 'auth/token/create/handler', batch).json['auth']['client_token']
        handler = a.ok('POST', 'auth/token/create/handler', batch).json['auth']['client_token']
        promote = 'sys/replication/dr/secondary/promote'
        want(b.call('PUT', promote, {'dr_operation_token': forged}, token=''), 403)
        want(a.call('GET', 'auth/token/lookup-self', token=forged), 403)
        # Enabled as a primary of its own it still is nobody to the real pair.
        r.ok('PUT', 'sys/replication/dr/primary/enable', {})
        assert r.ok('GET', 'sys/seal-status', token='').json['cluster_id'] == rep['cluster_id']
        r.kill()
        r.start()
        r.unseal()
        r.ok('PUT', 'kv/restarted', {'v': 1})
        assert 'kv/restarted' in open(own).read() and 'kv/restarted' not in open(real).read()
        a.ok('PUT', 'kv/goes-on', {'v': 2})
        w.await_caught_up(a, b)
        assert a.dr_status()['mode'] == 'primary' and b.dr_status()['state'] == 'stream-wals'
        assert a.call('GET', 'kv/only-here').status == 404
        want(b.call('PUT', promote, {'dr_operation_token': handler}, token=''), 200)
        # With the data of the real cluster it writes where that says.
        a.kill()
        b.token = a.root
        await_true('the promoted one to serve', lambda: b.call('GET', 'kv/goes-on').status == 200)
        r.ok('PUT', 'sys/replication/dr/primary/disable', {})
        w.enable(b, r, 'restored')
        before = os.path.getsize(own)
        r.dr_token(a.keys[:2])
        assert os.path.getsize(own) == before
        # What it was, got back from where it was set aside, is a restored cluster still.
        w.await_following(r)
        aside = r.dr_status()['set_aside']
        assert len(aside) == 1, aside
        back = os.path.join(w.dir, 'back')
        cli(w, r, 'replication', 'aside', 'restore', f'{r.dir}/data', str(aside[0]['generation']), back)
        again = born(w, 'again', a, data=back)
        again.start()
        again.unseal()
        again.ok('PUT', 'kv/again', {'v': 1})
        assert 'kv/again' not in open(real).read(), 'it wrote into the real audit file'
        assert 'kv/again' in open(f'{back}/audit/real.audit').read()


if __name__ == '__main__':
    sys.exit(run_tests([saved_under_load, damaged, who_may, a_reader_that_goes_away, to_any_lsn, to_any_time, refused_restores,
                        seeded, seeded_from_an_old_one, seeds_that_are_refused,
                        sequence_22_restore_is_a_cluster_of_its_own], 'snapshot'))
