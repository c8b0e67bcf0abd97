#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gets a clear error, and nothing is lost."""
import base64
import json
import os
import re
import select
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

        def refused(token, text, **kw):
            want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'confirm_wipe': 'secondary', **kw}), 400, text)
            assert b.ok('GET', 'kv/own').data == {'v': 'kept'}
            assert b.dr_status()['mode'] == 'disabled'

        def encoded(claims):
            return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')

        unwrap = f'error unwrapping secondary token: POST {a.addr}/v1/sys/wrapping/unwrap'
        forged = f'{unwrap} answered 400: wrapping token signature could not be validated'
        refused('nonsense', 'error parsing secondary token: wrapping token could not be parsed')
        refused('', 'token must be provided')
        head, body, sig = fresh('forged').split('.')
        refused(f'{head}.{body}.{sig[:20]}{"A" if sig[20] != "A" else "B"}{sig[21:]}', forged)
        claims = json.loads(base64.urlsafe_b64decode(body + '=' * (-len(body) % 4)))
        refused(f'{head}.{encoded({**claims, "jti": "s." + "x" * 24})}.{sig}', forged)
        refused(f'{head}.{encoded({**claims, "type": "other"})}.{sig}', 'unexpected type claim')
        refused(f'{head}.{encoded({k: v for k, v in claims.items() if k != "type"})}.{sig}', 'could not validate type claim')
        away = 'error unwrapping secondary token: POST https://127.0.0.1:1/v1/sys/wrapping/unwrap: '  # what was tried
        refused(f'{head}.{encoded({**claims, "addr": "https://127.0.0.1:1"})}.{sig}', away)
        refused(fresh('away'), away, primary_api_addr='https://127.0.0.1:1')
        refused(fresh('no-ca'), '/nonexistent.pem', ca_file='/nonexistent.pem')
        used = fresh('used')
        a.ok('PUT', 'sys/wrapping/unwrap', {'token': used}, token=a.root)
        refused(used, f'{unwrap} answered 400: wrapping token is not valid or does not exist')
        wrap = {'X-Vault-Wrap-TTL': '60', 'X-Vault-Wrap-Format': 'jwt'}
        refused(a.ok('POST', 'sys/wrapping/wrap', {'a': 1}, headers=wrap).json['wrap_info']['token'],
                'the wrapped answer is not that of a DR secondary token')
        short = fresh('short', ttl='1s')
        exp = json.loads(base64.urlsafe_b64decode(short.split('.')[1] + '=='))['exp']
        await_true('the token to expire', lambda: time.time() > exp + 0.2, 10)
        refused(short, 'the secondary token expired at ')
        want(a.call('PUT', 'sys/replication/dr/primary/secondary-token', {}), 400)
        want(a.call('PUT', 'sys/replication/dr/secondary/enable', {'token': fresh('self'), 'ca_file': w.ca}), 400, 'is a DR primary')
        real = fresh('real')
        b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': real, 'ca_file': w.ca, 'confirm_wipe': 'secondary'})
        w.await_following(b)
        # What is replaced is said before it is, and when it is.
        log = open(b.log).read()
        begin = re.search(r'when the copy is whole, it replaces this: (\d+) keys, \d+ bytes in (\S+)', log)
        end = re.search(r'the copy is whole; set aside is what it replaces: (\d+) keys, \d+ bytes in (\S+)', log)
        assert begin and end and begin[2] == end[2] and int(begin[1]) > 5 and begin.end() < end.start(), log[-3000:]
        want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': real, 'ca_file': w.ca, 'confirm_wipe': 'secondary'}, token=a.root), 400)


def cluster_port_out_of_reach():
    """a primary whose cluster address cannot be reached: the answer says which was tried, and nothing is lost"""
    with World() as w:
        a, b = w.server('primary', cluster_addr='https://127.0.0.1:1'), one(w, 'secondary')
        a.start()
        a.init()
        b.ok('PUT', 'kv/own', {'v': 'kept'})
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        token = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'b'}).json['wrap_info']['token']
        want(b.call('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'confirm_wipe': 'secondary'}), 400,
             'error fetching secondary bootstrap package from cluster address 127.0.0.1:1')
        assert b.ok('GET', 'kv/own').data == {'v': 'kept'} and b.dr_status()['mode'] == 'disabled'


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
        want(s.call('PUT', 'sys/generate-root/update', {'key': other.keys[1], 'nonce': g['nonce']}, token=''), 400,
             'root generation aborted: unable to authenticate')
        assert s.ok('GET', 'sys/generate-root/attempt', token='').json['progress'] == 0
        still_serves(s)
        # The same at the making of a DR operation token, with the primary's keys.
        s.ok('PUT', 'sys/replication/dr/primary/enable', {})
        w.enable(s, other)
        base = 'sys/replication/dr/secondary/generate-operation-token/'
        g = other.ok('PUT', base + 'attempt', {}, token='').json
        want(other.call('PUT', base + 'update', {'key': s.keys[0], 'nonce': 'wrong'}, token=''), 400, 'incorrect nonce supplied')
        other.ok('PUT', base + 'update', {'key': s.keys[0], 'nonce': g['nonce']}, token='')
        want(other.call('PUT', base + 'update', {'key': s.keys[0], 'nonce': g['nonce']}, token=''), 400,
             'given key has already been provided')
        bad = bytearray(base64.b64decode(s.keys[1]))
        bad[0] ^= 1
        want(other.call('PUT', base + 'update', {'key': base64.b64encode(bad).decode(), 'nonce': g['nonce']}, token=''), 400, 'aborted')
        for k in s.keys[:2]:
            r = other.ok('PUT', base + 'update', {'key': k, 'nonce': g['nonce']}, token='').json
        assert r['complete'] and r['encoded_token'], r


def requests():
    """malformed JSON, a 33 MiB body, half a request, a client that stops reading"""
    with World() as w:
        s = one(w)
        want(s.call('PUT', 'kv/x', b'{"a":'), 400, 'error parsing JSON')
        want(s.call('PUT', 'kv/x', b'[1]'), 400, 'error parsing JSON')
        def connect():
            return s.world.ssl.wrap_socket(socket.create_connection(('127.0.0.1', s.port), timeout=30), server_hostname='127.0.0.1')

        def refused(head, body=b''):
            """The answer to a request that is broken off as soon as an answer is there; the connection must end, too."""
            c = connect()
            got = b''
            try:
                c.sendall(head.encode() + b'\r\n\r\n' + body)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                pass  # answered and closed while we were still sending
            while data := c.recv(65536):
                got += data
            c.close()
            return got

        put = f'PUT /v1/kv/x HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.root}\r\n'
        got = refused(f'{put}Content-Length: {33 << 20}', b'{"v":"' + b'x' * 1000)
        assert got.startswith(b'HTTP/1.1 413 ') and b'http: request body too large' in got, got
        chunk = b'%x\r\n' % (1 << 20) + b'x' * (1 << 20) + b'\r\n'
        got = refused(f'{put}Transfer-Encoding: chunked', chunk * 33)
        assert got.startswith(b'HTTP/1.1 413 ') and b'http: request body too large' in got, got
        got = refused(f'{put}X-Long: {"x" * (70 << 10)}')
        assert got.startswith(b'HTTP/1.1 431 '), got[:200]
        got = refused('NONSENSE')
        assert got.startswith(b'HTTP/1.1 400 '), got[:200]
        s.ok('PUT', 'kv/large', {'v': 'x' * (31 << 20)})  # below the limit
        assert len(s.ok('GET', 'kv/large').data['v']) == 31 << 20
        raw = connect()
        raw.sendall(f'{put}Content-Length: 100\r\n\r\n{{"v":'.encode())
        raw.close()
        want(s.call('GET', 'kv/x'), 404)
        s.ok('PUT', 'kv/big', {'v': 'y' * (1 << 20)})

        def resident():
            with open(f'/proc/{s.proc.pid}/statm') as f:
                return int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
        before = resident()
        lazy = [connect() for _ in range(16)]
        for c in lazy:  # asks for 20 MiB, reads nothing
            c.sendall(f'GET /v1/kv/big HTTP/1.1\r\nHost: x\r\nX-Vault-Token: {s.root}\r\n\r\n'.encode() * 20)
        for c in lazy:  # until the first answer is on its way: the server is at work on each
            select.select([c], [], [], 30)
        for _ in range(20):
            still_serves(s)
        grown = resident() - before
        assert grown < 16 * (8 << 20), f'{grown >> 20} MiB for 16 clients that do not read'
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
        def line(word):
            return 1 + next(i for i, t in enumerate(text.splitlines()) if t.startswith(word))
        refused(text.replace('api_addr', 'api_adr'), f'bad.hcl:{line("api_addr")}: ', 'api_adr')
        refused(text.replace('disable_mlock = true', 'disable_mlock = "perhaps"'), f'bad.hcl:{line("disable_mlock")}: ', 'disable_mlock')
        refused('{\n"storage": {"wiredtiger": {"path": "/x"}},\n"listener": {"tcp": {"tls_disable": 1}},\n"api_adr": "x"\n}',
                'bad.hcl:4: ', 'api_adr')
        refused(text + 'broken = [', 'bad.hcl:')
        refused(text.replace('storage "wiredtiger"', 'storage "consul"'), 'consul', 'wiredtiger')
        refused(text.replace('one.pem', 'none.pem').replace('one/data', 'one/data3'), 'none.pem')
        r = subprocess.run([w.program, 'server', '-config=/nonexistent.hcl'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert r.returncode != 0 and '/nonexistent.hcl' in r.stdout, r.stdout
        still_serves(s)
        # A cache as Vault counts it is no damage: with another size the same data serves.
        s.stop()
        for size in ('131072', '512', '100TiB'):
            refused(text.replace('path =', f'cache_size = "{size}"\n  path ='), f'bad.hcl:{line("storage") + 1}: cache_size: ', '16MiB')
        s.start()
        s.unseal()
        still_serves(s)
        assert 'cannot be read' not in open(s.log).read()


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


def generation(s):
    data = os.path.join(s.dir, 'data')
    return os.path.join(data, sorted(d for d in os.listdir(data) if d.startswith('gen-'))[-1])


def start_fails(s, *texts):
    r = subprocess.run([s.program, 'server', f'-config={s.config}'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    if r.returncode == 0 or any(t not in r.stdout for t in texts):
        raise Failed(f'wanted {texts}, got exit {r.returncode}: {r.stdout}')


def damaged_log():
    """a segment that is flipped or cut in the middle of the log stops the start, with file, offset and LSN; a torn tail does not"""
    with World() as w:
        s = one(w)
        for i in range(50):
            s.ok('PUT', f'kv/k{i}', {'v': i})
        s.kill()
        data, keep, wal = os.path.join(s.dir, 'data'), os.path.join(w.dir, 'keep'), os.path.join(generation(s), 'wal')
        first = os.path.join(wal, sorted(os.listdir(wal))[0])
        shutil.copytree(data, keep)
        r = subprocess.run([w.program, 'wal', 'dump', '-records=false', wal], capture_output=True, text=True)
        offsets = [int(line.split(':')[1].split()[0]) for line in r.stdout.splitlines() if line.startswith('segment ')]
        middle, size = offsets[len(offsets) // 2], os.path.getsize(first)

        def flipped(f):
            f.seek(middle + 40)
            x = f.read(1)
            f.seek(-1, 1)
            f.write(bytes([x[0] ^ 0x10]))

        def zeroed(f):
            f.seek(middle)
            f.write(bytes(4096))

        def cut(f):
            f.truncate(middle + 100)

        def cut_at_a_block(f):
            f.truncate(middle)

        def emptied(f):
            f.truncate(0)

        for damage, text in ((flipped, 'LSN'), (zeroed, 'LSN'), (cut, 'the file was cut'), (cut_at_a_block, 'the file was cut'),
                             (emptied, 'the head of the oldest file is damaged')):
            with open(first, 'r+b') as f:
                damage(f)
            r = subprocess.run([w.program, 'wal', 'verify', wal], capture_output=True, text=True)
            assert r.returncode != 0 and os.path.basename(first) in r.stderr, (damage.__name__, r.stdout, r.stderr)
            start_fails(s, os.path.basename(first), 'offset', text)
            shutil.rmtree(data)
            shutil.copytree(keep, data)
        # The write that a power cut tore: half of a segment behind the last.
        with open(first, 'r+b') as f:
            f.seek(middle)
            piece = f.read(2048)
            f.seek(offsets[-1])
            length = len(f.read(size).rstrip(b'\0'))
            f.seek(offsets[-1] + (length + 4095) // 4096 * 4096)
            f.write(piece)
        s.start()
        s.unseal()
        for i in range(50):
            assert s.ok('GET', f'kv/k{i}').data == {'v': i}


def data_of_another_cluster():
    """a log or store of another cluster stops the start and says so; another's whole data does not open with our keys"""
    with World() as w:
        s, other = one(w), one(w, 'other')
        s.ok('PUT', 'kv/own', {'v': 'kept'})
        for i in range(100):
            other.ok('PUT', f'kv/x{i}', {'v': i})
        assert s.stop() == 0 and other.stop() == 0
        mine, keep = generation(s), os.path.join(w.dir, 'keep')
        for part, text in (('wal', 'log and store disagree at LSN'), ('store', 'the store has applied LSN')):
            os.rename(os.path.join(mine, part), keep)
            shutil.copytree(os.path.join(generation(other), part), os.path.join(mine, part))
            start_fails(s, text)
            shutil.rmtree(os.path.join(mine, part))
            os.rename(keep, os.path.join(mine, part))
        os.rename(os.path.join(s.dir, 'data'), keep)
        shutil.copytree(os.path.join(other.dir, 'data'), os.path.join(s.dir, 'data'))
        s.start()
        s.ok('PUT', 'sys/unseal', {'key': s.keys[0]}, token='')
        want(s.call('PUT', 'sys/unseal', {'key': s.keys[1]}, token=''), 400, 'failed to decrypt keys from storage')
        s.unseal(other.keys[:2])
        assert s.ok('GET', 'kv/x99', token=other.root).data == {'v': 99}
        assert s.stop() == 0
        shutil.rmtree(os.path.join(s.dir, 'data'))
        os.rename(keep, os.path.join(s.dir, 'data'))
        s.start()
        s.unseal()
        assert s.ok('GET', 'kv/own').data == {'v': 'kept'}


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
    sys.exit(run_tests([secondary_tokens, cluster_port_out_of_reach, shares, requests, start_failures, foreign_certificate, cluster_port_without_replication, damaged_log,
                        data_of_another_cluster, disk_nearly_full], 'bad input'))
