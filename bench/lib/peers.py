# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers that a write is measured against, each in its best configuration that is durable.

`config` is what the report says of it. A server idles while others are measured.
"""
import glob
import os
import re
import signal
import subprocess

from lab import Missing, answers, await_true, free_port, load, need, user_of_postgres


class Etcd:
    config = 'etcd 3.4, one member, every put flushed (its only mode), one client a connection, gRPC'

    def __init__(self, lab, tls=None):
        """tls: (certificate, key, CA) files, or None."""
        self.port, peer = free_port(), free_port()
        self.tls = tls
        scheme = 'https' if tls else 'http'
        url = f'{scheme}://127.0.0.1:{self.port}'
        name = 'etcd-tls' if tls else 'etcd'
        argv = [need('etcd'), '--name=bench', f'--data-dir={lab.folder(name)}', f'--listen-client-urls={url}',
                f'--advertise-client-urls={url}', f'--listen-peer-urls=http://127.0.0.1:{peer}',
                f'--initial-advertise-peer-urls=http://127.0.0.1:{peer}', f'--initial-cluster=bench=http://127.0.0.1:{peer}',
                '--quota-backend-bytes=8589934592', '--log-level=error']
        if tls:
            argv += [f'--cert-file={tls[0]}', f'--key-file={tls[1]}']
        self.process = lab.start(name, argv)
        await_true('etcd to listen', lambda: self.process.alive() and answers(self.port))
        await_true('etcd to elect itself', self._serves)

    def _serves(self):
        try:
            return self.put(1, 64, 0.1, 0.0)['done'] > 0
        except Missing:
            return False

    def put(self, connections, value, seconds, warmup, **kw):
        tls = {'tls': True, 'ca': self.tls[2]} if self.tls else {}
        return load([self.process.pid], protocol='etcd', addr=f'127.0.0.1:{self.port}', connections=connections, value=value, seconds=seconds,
                    warmup=warmup, **tls, **kw)


class Redis:
    config = 'Redis 7, appendonly yes, appendfsync always, no RDB, no rewrite of the log while measuring; replica: the same; WAIT 1 counts a replica that has received, not flushed'

    def __init__(self, lab):
        self.lab = lab
        self.port, self.process = self._start('redis', [])
        self.replica = None

    def _start(self, name, more):
        port = free_port()
        p = self.lab.start(name, [need('redis-server'), '--port', str(port), '--bind', '127.0.0.1', '--dir', self.lab.folder(name),
                                  '--appendonly', 'yes', '--appendfsync', 'always', '--save', '', '--auto-aof-rewrite-percentage', '0', *more])
        await_true(f'{name} to listen', lambda: p.alive() and answers(port))
        return port, p

    def attach(self):
        if self.replica is None:
            _, self.replica = self._start('redis-replica', ['--replicaof', f'127.0.0.1 {self.port}'])
            await_true('the Redis replica', lambda: b'state=online' in subprocess.run(
                [need('redis-cli'), '-p', str(self.port), 'info', 'replication'], stdout=subprocess.PIPE, check=True).stdout)

    def detach(self):
        if self.replica is not None:
            self.replica.stop()
            self.lab.forget(self.replica)
            self.replica = None

    def set(self, connections, value, seconds, warmup, wait=0, **kw):
        pids = [self.process.pid] + ([self.replica.pid] if self.replica else [])
        return load(pids, protocol='redis', addr=f'127.0.0.1:{self.port}', connections=connections, value=value, seconds=seconds,
                    warmup=warmup, replicas=wait or None, **kw)


class Postgres:
    """A primary, and a standby over TLS that runs only while it is attached."""
    config = ('PostgreSQL 15, one row an INSERT (prepared) into a table with a text primary key, over a Unix socket, fsync and full_page_writes on, '
              'shared_buffers 256 MB, max_wal_size 4 GB; standby: streaming over TLS, synchronous_standby_names *, '
              'synchronous_commit local, on, remote_write or remote_apply')
    commits = ('local', 'on', 'remote_write', 'remote_apply')

    def __init__(self, lab, tls):
        """tls: (certificate, key, CA) files; None: no standby can be attached."""
        found = sorted(glob.glob('/usr/lib/postgresql/15/bin'))
        if not found:
            raise Missing('PostgreSQL 15 is not in /usr/lib/postgresql/15: run tools/setup --bench')
        self.lab, self.bin, self.user = lab, found[0], user_of_postgres()
        self.dir = lab.folder('postgres')
        if self.user:
            subprocess.run(['chown', self.user, self.dir], check=True)
        self.data, self.port = os.path.join(self.dir, 'a'), free_port()
        self._run('initdb', '-D', self.data, '-A', 'trust', '-U', 'bench', '--no-instructions')
        self.tls_lines = self._tls(tls) if tls else ''
        self._configure(self.data, self.port, 'max_wal_senders = 4\nwal_keep_size = 1GB\nsynchronous_standby_names = \'*\'\n')
        self.primary, self.standby = self._start('postgres', self.data, self.port), None
        self._sql(f'create database bench', 'postgres')
        self._sql('create table kv (k text primary key, v text)')
        for c in self.commits:
            self._sql(f'create role bench_{c} login superuser; alter role bench_{c} set synchronous_commit = {c}')

    def _as(self):
        return {'user': self.user, 'group': self.user, 'extra_groups': []} if self.user else {}

    def _run(self, program, *args):
        r = subprocess.run([os.path.join(self.bin, program), *args], cwd=self.dir, env={**os.environ, 'HOME': self.dir}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, **self._as())
        if r.returncode != 0:
            raise Missing(f'{program}: {r.stdout[-1500:]}')
        return r.stdout

    def _tls(self, tls):
        for source, name in zip(tls, ('server.pem', 'server-key.pem', 'ca.pem')):
            with open(source, 'rb') as f, open(os.path.join(self.dir, name), 'wb') as g:
                g.write(f.read())
            os.chmod(g.name, 0o600)
            if self.user:
                subprocess.run(['chown', self.user, g.name], check=True)
        return f"ssl = on\nssl_cert_file = '{self.dir}/server.pem'\nssl_key_file = '{self.dir}/server-key.pem'\n"

    def _configure(self, data, port, more):
        with open(os.path.join(data, 'postgresql.conf'), 'a') as f:
            f.write(f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{self.dir}'\nmax_connections = 300\n"
                    "shared_buffers = 256MB\nmax_wal_size = 4GB\ncheckpoint_timeout = 15min\nwal_level = replica\n"
                    "synchronous_commit = local\n" + self.tls_lines + more)

    def _start(self, name, data, port):
        p = self.lab.start(name, [os.path.join(self.bin, 'postgres'), '-D', data], user=self.user, env={'HOME': self.dir},
                           end=signal.SIGQUIT)  # immediate: its shared memory goes, too
        await_true(f'{name} to accept', lambda: p.alive() and subprocess.run(
            [os.path.join(self.bin, 'pg_isready'), '-q', '-h', self.dir, '-p', str(port)]).returncode == 0)
        return p

    def _sql(self, text, database='bench'):
        return self._run('psql', '-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', '-h', self.dir, '-p', str(self.port), '-U', 'bench', '-d', database, '-c', text).strip()

    def attach(self):
        data, port = os.path.join(self.dir, 'b'), free_port()
        if not os.path.exists(data):
            conn = f'host=127.0.0.1 port={self.port} user=bench sslmode=verify-ca sslrootcert={self.dir}/ca.pem'
            self._run('pg_basebackup', '-D', data, '-d', conn, '-R', '-c', 'fast', '-X', 'stream')
        self._configure(data, port, 'hot_standby = on\n')
        self.standby = self._start('postgres-standby', data, port)
        await_true('the standby to stream', lambda: self._sql("select count(*) from pg_stat_replication where state = 'streaming'") == '1')
        if self._sql('select bool_and(ssl) from pg_stat_ssl join pg_stat_replication using (pid)') != 't':
            raise Missing('the standby does not stream over TLS')

    def detach(self):
        if self.standby is not None:
            self.standby.stop(signal.SIGINT)  # fast shutdown
            self.lab.forget(self.standby)
            self.standby = None

    def insert(self, commit, connections, value, seconds, warmup, **kw):
        pids = [self.primary.pid] + ([self.standby.pid] if self.standby else [])
        return load(pids, protocol='postgres', addr=f'{self.dir}/.s.PGSQL.{self.port}', user=f'bench_{commit}', connections=connections,
                    value=value, seconds=seconds, warmup=warmup, keys=1 << 62, **kw)

    def watch_flush_lag(self):
        return FlushLag([os.path.join(self.bin, 'psql'), '-X', '-q', '-A', '-t', '-h', self.dir, '-p', str(self.port), '-U', 'bench', '-d', 'bench'])


class FlushLag:
    """flush_lag as pg_stat_replication tells it, looked at twenty times a second."""
    QUERY = 'select extract(epoch from flush_lag) * 1000 from pg_stat_replication \\watch 0.05\n'

    def __init__(self, psql):
        self.psql, self.ms = psql, []

    def __enter__(self):
        self.proc = subprocess.Popen(self.psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                     env={**os.environ, 'PGTZ': 'UTC'})
        self.proc.stdin.write(self.QUERY)
        self.proc.stdin.flush()
        return self

    def __exit__(self, *_):
        self.proc.send_signal(signal.SIGINT)
        self.proc.stdin.close()
        lines = self.proc.stdout.read().splitlines()
        self.proc.wait()
        self.ms = sorted(float(x) for x in lines if re.fullmatch(r'[\d.]+', x.strip()))

    def quantile(self, share):
        return self.ms[min(int(share * len(self.ms)), len(self.ms) - 1)]
