#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets a clear error, and nothing is lost."""
import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402


def want(reply, status, text=''):
    if reply.status != status or (text and text not in reply.text):
        raise Failed(f'wanted {status} {text!r}, got {reply.status} {reply.text[:400]}')


def still_serves(s):
    s.ok('PUT', 'kv/probe', {'v': 'there'})
    assert s.ok('GET', 'kv/probe').data == {'v': 'there'}


def one(w, name='one'):
    s = w.server(name)
    s.start()
    s.init()
    s.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    return s


def secondary_tokens():
    """wrong, forged, replayed and expired secondary tokens leave the would-be secondary as it was"""
    with World() as w:
        a, b = one(w, 'primary'), one(w, 'secondary')
        b.ok('PUT', 'kv/own', {'v': 'kept'})
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})

        def fresh(ident, **kw):
            return a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': ident, **kw}).json['wrap_info']['token']

        def refused(token, text=''):
            r = b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca})
            if r.status < 400 or (text and text not in r.text):
                raise Failed(f'wanted a refusal with {text!r}, got {r.status} {r.text[:300]}')
            assert b.ok('GET', 'kv/own').data == {'v': 'kept'}
            assert b.dr_status()['mode'] == 'disabled'

        refused('nonsense', 'wrapping token could not be parsed')
        refused('')
        good = fresh('forged')
        head, body, sig = good.split('.')
        flipped = sig[:20] + ('A' if sig[20] != 'A' else 'B') + sig[21:]
        refused(f'{head}.{body}.{flipped}')
        claims = json.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))
        claims['jti'] = 's.' + 'x' * 24
        other = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')
        refused(f'{head}.{other}.{sig}')
        claims['addr'] = 'https://127.0.0.1:1'
        away = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')
        refused(f'{head}.{away}.{sig}', '127.0.0.1:1')  # says what was tried
        used = fresh('used')
        a.ok('PUT', 'sys/wrapping/unwrap', {'token': used}, token=a.root)
        refused(used, 'wrapping token is not valid or does not exist')
        short = fresh('short', ttl='1s')
        exp = json.loads(base64.urlsafe_b64decode(short.split('.')[1] + '=='))['exp']
        await_true('the token to expire', lambda: time.time() > exp + 0.2, 10)
        refused(short)
        want(a.call('PUT', 'sys/replication/dr/primary/secondary-token', {}), 400)
        w.enable(a, b, 'real')


def shares():
    """wrong share, share twice, wrong nonce"""
    with World() as w:
        s = one(w)
        other = one(w, 'other')
        s.kill()
        s.start()
        s.ok('PUT', 'sys/unseal', {'key': s.keys[0]}, token='')
        r = s.ok('PUT', 'sys/unseal', {'key': s.keys[0]}, token='').json
        assert r['progress'] == 1 and r['sealed'], r
        want(s.call('PUT', 'sys/unseal', {'key': other.keys[1]}, token=''), 400)
        assert s.ok('GET', 'sys/seal-status').json['progress'] == 0
        want(s.call('PUT', 'sys/unseal', {'key': 'zz'}, token=''), 400)
        s.unseal()
        g = s.ok('PUT', 'sys/generate-root/attempt', {}, token='').json
        want(s.call('PUT', 'sys/generate-root/update', {'key': s.keys[0], 'nonce': 'wrong'}, token=''), 400, 'incorrect nonce supplied')
        s.ok('PUT', 'sys/generate-root/update', {'key': s.keys[0], 'nonce': g['nonce']}, token='')
        want(s.call('PUT', 'sys/generate-root/update', {'key': s.keys[0], 'nonce': g['nonce']}, token=''), 400,
             'given key has already been provided')
        still_serves(s)


def requests():
    """malformed JSON, a 33 MiB body, half a request, a client that stops reading"""
    with World() as w:
        s = one(w)
        want(s.call('PUT', 'kv/x', b'{"a":'), 400, 'error parsing JSON')
        want(s.call('PUT', 'kv/x', b'[1]'), 400, 'error parsing JSON')
        try:
            want(s.call('PUT', 'kv/x', b'{"v":"' + b'x' * (33 << 20) + b'"}'), 413, 'http: request body too large')
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass  # it was cut while we were still sending: allowed, the server must live on
        raw = s.world.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port)), server_hostname='127.0.0.1')
        raw.sendall(b'PUT /v1/kv/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"v":')
        raw.close()
        want(s.call('GET', 'kv/half'), 404)
        s.ok('PUT', 'kv/big', {'v': 'y' * (1 << 20)})
        lazy = [s.world.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port)), server_hostname='127.0.0.1') for _ in range(8)]
        for c in lazy:  # asks for much, reads nothing
            c.sendall(f'GET /v1/kv/big HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.root}\r\n\r\n'.encode() * 20)
        still_serves(s)
        for c in lazy:
            c.close()
        plain = socket.create_connection(('127.0.0.1', s.port))
        plain.sendall(b'GET / HTTP/1.1\r\nHost: x\r\n\r\n')
        got = plain.recv(4096)
        assert b'400' in got.split(b'\r\n')[0] and b'HTTP request to an HTTPS server' in got, got
        still_serves(s)


def start_failures():
    """port in use, data in use, unknown key, missing file: each stops the start and says what it is"""
    with World() as w:
        s = one(w)

        def refused(config, *texts):
            path = os.path.join(w.dir, 'bad.hcl')
            with open(path, 'w') as f:
                f.write(config)
            r = subprocess.run([w.program, 'server', f'-config={path}'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=30)
            if r.returncode == 0 or any(t not in r.stdout for t in texts):
                raise Failed(f'wanted {texts}, got exit {r.returncode}: {r.stdout}')

        text = open(s.config).read()
        refused(text, 'another')                                    # same data, same port
        refused(text.replace('one/data', 'one/data2'), str(s.port))  # the port alone
        refused(text.replace('api_addr', 'api_adr'), 'bad.hcl:', 'api_adr')
        refused(text.replace('disable_mlock = true', 'disable_mlock = "perhaps"'), 'bad.hcl:', 'disable_mlock')
        refused(text.replace('storage "wiredtiger"', 'storage "consul"'), 'consul', 'wiredtiger')
        refused(text.replace('one.pem', 'none.pem').replace('one/data', 'one/data3'), 'none.pem')
        r = subprocess.run([w.program, 'server', '-config=/nonexistent.hcl'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert r.returncode != 0 and '/nonexistent.hcl' in r.stdout, r.stdout
        still_serves(s)


def foreign_certificate():
    """a certificate of another CA on the cluster port is refused; the link goes on"""
    with World() as w, World() as other:
        a, b = w.pair()
        other.server('stranger')
        ctx = ssl.create_default_context(cafile=w.ca)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        ctx.load_cert_chain(f'{other.tls}/stranger.pem', f'{other.tls}/stranger-key.pem')
        ctx.set_alpn_protocols(['replication_dr_v1'])
        try:
            with ctx.wrap_socket(socket.create_connection(('127.0.0.1', a.port + 1))) as c:
                c.sendall(b'\0' * 64)
                if c.recv(10):
                    raise Failed('a stranger was answered')
        except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
            pass
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        still_serves(a)
        w.await_caught_up(a, b)


def damaged_log():
    """a segment that is flipped in the middle of the log stops the start, with file, offset and LSN; a cut tail does not"""
    with World() as w:
        s = one(w)
        for i in range(50):
            s.ok('PUT', f'kv/k{i}', {'v': i})
        s.kill()
        wal = os.path.join(s.dir, 'data', sorted(d for d in os.listdir(os.path.join(s.dir, 'data')) if d.startswith('gen-'))[-1], 'wal')
        first = os.path.join(wal, sorted(os.listdir(wal))[0])
        keep = os.path.join(w.dir, 'keep')
        shutil.copytree(os.path.join(s.dir, 'data'), keep)
        r = subprocess.run([w.program, 'wal', 'dump', '-records=false', wal], capture_output=True, text=True)
        offsets = [int(line.split(':')[1].split()[0]) for line in r.stdout.splitlines() if line.startswith('segment ')]
        with open(first, 'r+b') as f:
            f.seek(offsets[len(offsets) // 2] + 40)
            x = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([x[0] ^ 0x10]))
        r = subprocess.run([w.program, 'wal', 'verify', wal], capture_output=True, text=True)
        assert r.returncode != 0 and os.path.basename(first) in r.stderr, r.stderr
        r = subprocess.run([w.program, 'server', f'-config={s.config}'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           timeout=60)
        assert r.returncode != 0 and os.path.basename(first) in r.stdout and 'LSN' in r.stdout, r.stdout
        shutil.rmtree(os.path.join(s.dir, 'data'))
        shutil.copytree(keep, os.path.join(s.dir, 'data'))
        s.start()
        s.unseal()
        for i in range(50):
            assert s.ok('GET', f'kv/k{i}').data == {'v': i}


def cluster_port_without_replication():
    """a replication client on a server that does not replicate is refused and logged in Vault's words"""
    with World() as w:
        s = one(w)
        ctx = ssl.create_default_context(cafile=w.ca)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        ctx.set_alpn_protocols(['replication_dr_v1'])
        try:
            with ctx.wrap_socket(socket.create_connection(('127.0.0.1', s.port + 1))):
                raise Failed('the handshake succeeded')
        except (ssl.SSLError, ConnectionResetError):
            pass
        await_true('the log line', lambda: 'no TLS config found for ALPN: ALPN=[replication_dr_v1]' in open(s.log).read(), 5)


def disk_nearly_full():
    """below the reserve writes answer 503 disk_reserve and reads go on; with room again, writes go on"""
    with World() as w:
        st = os.statvfs(w.dir)
        reserve = st.f_bavail * st.f_frsize - (2 << 30)
        if reserve < 0:
            raise Failed('this test needs 2 GiB of free disk')
        s = w.server('one', extra=f'disk_reserve = {reserve}')
        s.start()
        s.init()
        s.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        still_serves(s)
        filler = os.path.join(w.dir, 'filler')
        with open(filler, 'wb') as f:
            os.posix_fallocate(f.fileno(), 0, 4 << 30)

        def refused():
            r = s.call('PUT', 'kv/probe', {'v': 'more'})
            return r.status == 503 and 'disk_reserve' in r.text
        await_true('writes to be refused', refused, 10)
        assert s.ok('GET', 'kv/probe').data['v'] in ('there', 'more')
        os.unlink(filler)
        await_true('writes to go on', lambda: s.call('PUT', 'kv/probe', {'v': 'again'}).status == 204, 10)
        still_serves(s)


if __name__ == '__main__':
    sys.exit(run_tests([secondary_tokens, shares, requests, start_failures, foreign_certificate, cluster_port_without_replication, damaged_log, disk_nearly_full], 'bad input'))
