# SPDX-License-Identifier: GPL-3.0-or-later
"""Real server processes for the tests: certificates, configuration, start, kill, and a plain API client.

Everything lies in one temporary folder; only the processes that were started here are ended.
"""
import base64
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Failed(AssertionError):
    pass


def await_true(what, fn, seconds=30):
    """Poll a condition: there is no event across processes but the server's own answer."""
    end = time.monotonic() + seconds
    while True:
        got = fn()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f'waited {seconds} s for {what}')
        time.sleep(0.01)


given_ports = set()


def free_ports():
    """A port whose neighbour above is free as well, below the range that the kernel gives to clients. Each once: most are bound later."""
    while True:
        port = random.randrange(20000, 32000, 2)
        if port in given_ports:
            continue
        with socket.socket() as a, socket.socket() as b:
            try:
                a.bind(('127.0.0.1', port))
                b.bind(('127.0.0.1', port + 1))
            except OSError:
                continue
            given_ports.add(port)
            return port


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.text = status, headers, body.decode('utf-8', 'replace')
        try:
            self.json = json.loads(body) if body else None
        except ValueError:
            self.json = None

    @property
    def errors(self):
        return (self.json or {}).get('errors')

    @property
    def data(self):
        return (self.json or {}).get('data')


class Server:
    """One server: its folder, its configuration, its process."""

    def __init__(self, world, name, program, env=None, extra='', top='', cluster_addr=None, host='127.0.0.1', under=(),
                 data=None):
        """host: its address; under: a command that runs the program (in a namespace); data: its data directory."""
        self.world, self.name, self.program, self.env = world, name, program, env or {}
        self.host, self.under = host, list(under)
        self.port = free_ports() if host == '127.0.0.1' else 8200
        self.dir = os.path.join(world.dir, name)
        os.makedirs(self.dir, exist_ok=True)
        self.log = os.path.join(self.dir, 'server.log')
        self.config = os.path.join(self.dir, 'server.hcl')
        self.addr = f'https://{host}:{self.port}'
        self.cluster_addr = f'https://{host}:{self.port + 1}'
        self.proc = None
        self.keys, self.root, self.token, self.threshold = [], None, None, 0
        subprocess.run([world.program, 'cert', 'server', f'-dir={world.tls}', f'-name={name}', *([] if host == '127.0.0.1' else [f'-host={host}'])], check=True,
                       stdout=subprocess.DEVNULL)
        with open(self.config, 'w') as f:
            f.write(f'''
storage "wiredtiger" {{
  path = "{data or self.dir + '/data'}"
  {extra}
}}
listener "tcp" {{
  address         = "{host}:{self.port}"
  cluster_address = "{host}:{self.port + 1}"
  tls_disable     = "false"
  tls_cert_file   = "{world.tls}/{name}.pem"
  tls_key_file    = "{world.tls}/{name}-key.pem"
}}
api_addr      = "{self.addr}"
cluster_addr  = "{cluster_addr or f'https://{host}:{self.port + 1}'}"
cluster_name  = "{name}"
log_level     = "info"
disable_mlock = true
{top}
''')

    def free_metrics(self):
        """Before a start: sys/metrics needs no token."""
        with open(self.config) as f:
            text = f.read()
        with open(self.config, 'w') as f:
            f.write(text.replace('tls_disable ', 'telemetry {\n    unauthenticated_metrics_access = true\n  }\n  tls_disable '))

    def start(self):
        self.proc = subprocess.Popen([*self.under, self.program, 'server', f'-config={self.config}'], stdin=subprocess.DEVNULL,
                                     stdout=open(self.log, 'ab'), stderr=subprocess.STDOUT, env={**os.environ, **self.env})

        def up():
            if self.proc.poll() is not None:
                raise Failed(f'{self.name} ended with {self.proc.returncode}:\n{self.tail()}')
            try:
                return self.call('GET', 'sys/seal-status').status == 200
            except OSError:
                return False
        await_true(f'{self.name} to answer', up)

    def tail(self, lines=30):
        try:
            with open(self.log, errors='replace') as f:
                return ''.join(f.readlines()[-lines:])
        except OSError:
            return ''

    def kill(self):
        self.proc.send_signal(signal.SIGKILL)
        self.proc.wait()

    def stop(self, seconds=20):
        """SIGTERM; the exit code."""
        self.proc.send_signal(signal.SIGTERM)
        try:
            return self.proc.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f'{self.name} did not stop within {seconds} s of SIGTERM:\n{self.tail()}')

    def connect(self, timeout=30):
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.world.ssl)

    def call(self, method, path, body=None, token=None, headers=None, conn=None, timeout=30):
        """token: None for the server's own, '' for none."""
        c = conn or self.connect(timeout)
        h = dict(headers or {})
        token = self.token if token is None else token
        if token:
            h['X-Vault-Token'] = token
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        try:
            c.request(method, '/v1/' + urllib.parse.quote(path, safe='/?=&%'), raw, h)
            r = c.getresponse()
            return Reply(r.status, r.headers, r.read())
        finally:
            if conn is None:
                c.close()

    def ok(self, method, path, body=None, **kw):
        r = self.call(method, path, body, **kw)
        if r.status not in (200, 202, 204):
            raise Failed(f'{self.name}: {method} {path}: {r.status} {r.text[:500]}\n{self.tail(8)}')
        return r

    def init(self, shares=3, threshold=2):
        r = self.ok('PUT', 'sys/init', {'secret_shares': shares, 'secret_threshold': threshold}).json
        self.keys, self.root, self.threshold = r['keys_base64'], r['root_token'], threshold
        self.unseal()
        self.token = self.root
        return self

    def unseal(self, keys=None):
        for k in keys or self.keys[:self.threshold]:
            last = self.ok('PUT', 'sys/unseal', {'key': k}, token='').json
        if last['sealed']:
            raise Failed(f'{self.name} is still sealed: {last}')

    def cli(self, *args):
        """The command line, as an operator of this server uses it."""
        return subprocess.run([self.program, *args], env={**os.environ, 'VAULT_ADDR': self.addr, 'VAULT_CACERT': self.world.ca,
                                                          'VAULT_TOKEN': self.token or ''},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)

    def dr_status(self):
        r = self.call('GET', 'sys/replication/dr/status', token='')
        end = time.monotonic() + 1
        while r.status == 503 and time.monotonic() < end:  # while a copy is put in place a secondary is sealed
            time.sleep(0.01)
            r = self.call('GET', 'sys/replication/dr/status', token='')
        if r.status != 200:
            raise Failed(f'{self.name}: status: {r.status} {r.text[:500]}\n{self.tail(8)}')
        d = r.data
        return d.get('dr', d)

    def dr_token(self, keys):
        """The generate-root flow on the secondary."""
        base = 'sys/replication/dr/secondary/generate-operation-token/'
        a = self.ok('PUT', base + 'attempt', {'otp': '', 'pgp_key': ''}, token='').json
        for k in keys:
            r = self.ok('PUT', base + 'update', {'key': k, 'nonce': a['nonce']}, token='').json
        if not r['complete']:
            raise Failed(f'not complete: {r}')
        enc = r['encoded_token']
        raw = base64.b64decode(enc + '=' * (-len(enc) % 4))
        return bytes(x ^ y for x, y in zip(raw, a['otp'].encode())).decode()


def fill_disk(mount, left):
    """A file, whose path is returned, that leaves so many bytes."""
    ballast, room = os.path.join(mount, 'ballast'), os.statvfs(mount)
    with open(ballast, 'wb') as f:
        os.posix_fallocate(f.fileno(), 0, room.f_bavail * room.f_frsize - left)
    return ballast


class World:
    """A folder with a CA and any number of servers."""

    def __init__(self, program=None):
        self.program = program or os.environ.get('LOCKSTEP', os.path.join(ROOT, 'build', 'lockstep'))
        self.dir = tempfile.mkdtemp(prefix='lockstep-test.')
        self.tls = os.path.join(self.dir, 'tls')
        self.servers = []
        subprocess.run([self.program, 'cert', 'ca', f'-dir={self.tls}'], check=True, stdout=subprocess.DEVNULL)
        self.ca = os.path.join(self.tls, 'ca.pem')
        self.ssl = ssl.create_default_context(cafile=self.ca)

    def server(self, name, **kw):
        s = Server(self, name, kw.pop('program', self.program), **kw)
        self.servers.append(s)
        return s

    def pair(self, **kw):
        """A primary and a secondary that follows it."""
        a, b = self.server('primary', **kw), self.server('secondary', **kw)
        for s in (a, b):
            s.start()
            s.init()
        self.enable(a, b)
        return a, b

    @contextlib.contextmanager
    def small_disk(self, name):
        """Where a file system of 320 MiB is mounted, as long as this lasts, and all servers end with it; None, and a counted skip, where none can be."""
        image, mount = os.path.join(self.dir, 'small.img'), os.path.join(self.dir, 'small')
        os.mkdir(mount)
        with open(image, 'wb') as f:
            f.truncate(320 << 20)
        for cmd in (['mkfs.ext4', '-q', '-F', image], ['mount', '-o', 'loop', image, mount]):
            r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if r.returncode != 0:
                print(f'skip {name}: {" ".join(cmd[:2])}: {r.stdout.strip()}')
                yield None
                return
        try:
            yield mount
        finally:
            for s in self.servers:
                if s.proc is not None and s.proc.poll() is None:
                    s.kill()
            subprocess.run(['umount', mount], check=True)

    def on_small_disk(self, mount):
        """A primary, and a server that is to be its secondary, whose data lies there."""
        a = self.server('primary')
        b = self.server('secondary', data=os.path.join(mount, 'data'), extra='disk_reserve = "64MiB"\n  log_file_size = "8MiB"')
        for s in (a, b):
            s.start()
            s.init()
        return a, b

    def third(self, a):
        """One more secondary, which follows a; its id is 'third'."""
        c = self.server('third')
        c.start()
        c.init()
        self.enable(a, c, 'third')
        return c

    def enable(self, a, b, name='secondary'):
        if a.dr_status()['mode'] != 'primary':
            a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        w = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': name}).json['wrap_info']
        b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': w['token'], 'ca_file': self.ca, 'confirm_wipe': b.name})
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        self.await_following(b)

    def await_following(self, b, seconds=30):
        def following():
            # 503 for the moment in which the copy is put in place and opened with the primary's root key.
            r = b.call('GET', 'sys/replication/dr/status', token='')
            return r.status == 200 and r.data.get('dr', r.data).get('state') == 'stream-wals' and r.data.get('mode') != 'bootstrapping'
        await_true('the secondary to follow', following, seconds)

    def await_caught_up(self, a, b, seconds=30):
        def same():
            x, y = a.dr_status(), b.dr_status()
            return x.get('last_dr_wal') == y.get('last_remote_wal') == y.get('applied_lsn')
        await_true('lag 0', same, seconds)

    def check_same_root(self, a, b, seconds=30):
        """At an equal LSN both have one root. A root is that of an LSN of its own: what was applied since is folded later."""
        def roots():
            x, y = a.dr_status(), b.dr_status()
            return x['merkle_root_lsn'] == y['merkle_root_lsn'] >= x['last_dr_wal'] and (x['merkle_root'], y['merkle_root'])
        x, y = await_true('the roots of one LSN', roots, seconds)
        if x != y:
            raise Failed(f'states differ at one LSN: {x} {y}')

    def __enter__(self):
        return self

    def __exit__(self, kind, value, tb):
        for s in self.servers:
            if s.proc is not None and s.proc.poll() is None:
                s.proc.send_signal(signal.SIGKILL)
                s.proc.wait()
        if kind is not None:
            for s in self.servers:
                print(f'--- {s.name} ---\n{s.tail()}')
            print(f'kept for inspection: {self.dir}')
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


def run_tests(tests, name):
    """Run functions in order; one line each and the plain closing line. Returns the exit code."""
    passed = failed = 0
    only = [a for a in sys.argv[1:] if not a.startswith('-')]
    for t in tests:
        if only and t.__name__ not in only:
            continue
        begin = time.monotonic()
        try:
            t()
            passed += 1
            print(f'ok   {name}: {t.__doc__ or t.__name__} ({time.monotonic() - begin:.1f} s)', flush=True)
        except Exception:
            failed += 1
            print(f'FAIL {name}: {t.__doc__ or t.__name__}', flush=True)
            traceback.print_exc()
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0
