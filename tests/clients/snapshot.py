#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of real servers: saved under load, checked offline, refused when damaged."""
import json
import os
import socket
import subprocess
import sys
import threading

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


if __name__ == '__main__':
    sys.exit(run_tests([saved_under_load, damaged, who_may, a_reader_that_goes_away], 'snapshot'))
