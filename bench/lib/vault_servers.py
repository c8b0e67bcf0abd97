# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of Vault's API under load: Lockstep, OpenBao where there is one, and nginx as the limit of what TLS and HTTP allow."""
import os
import shutil
import sys
import tempfile

from lab import ROOT, Missing, answers, await_true, free_port, load, need

sys.path.insert(0, os.path.join(ROOT, 'tests', 'lib'))
from cluster import Server, World  # noqa: E402

READ_KEYS = 10000
NO_BAO = 'no bao on the PATH'


def world_in(lab):
    """A test world whose folder goes with the lab, and whose servers, whenever started, are ended by it."""
    tempfile.tempdir = lab.dir
    world = World()
    lab.processes.append(Servers(world))
    return world


class Servers:
    def __init__(self, world):
        self.world = world

    def stop(self):
        for s in self.world.servers:
            if s.proc is not None and s.proc.poll() is None:
                s.kill()


class Kv:
    """kv v1 at kv/ and v2 at kv2/ of one unsealed server, both with READ_KEYS secrets to be read."""

    def __init__(self, server, pid):
        self.server, self.pid = server, pid
        self.env = {'BENCH_TOKEN': server.root}
        server.ok('POST', 'sys/mounts/kv', {'type': 'kv', 'options': {'version': '1'}})
        server.ok('POST', 'sys/mounts/kv2', {'type': 'kv', 'options': {'version': '2'}})
        self.filled = set()

    def path(self, version, size, use):
        return f'/v1/kv2/data/{use}{size}-' if version == 2 else f'/v1/kv/{use}{size}-'

    def _load(self, version, size, use, **kw):
        return load([self.pid], self.env, protocol='http', addr=f'127.0.0.1:{self.server.port}', tls=True, ca=self.server.world.ca, value=size,
                    kv2=version == 2, path=self.path(version, size, use), **kw)

    def put(self, connections, seconds, version=1, size=256, **kw):
        return self._load(version, size, 'p', connections=connections, seconds=seconds, **kw)

    def get(self, connections, seconds, version=1, size=256, **kw):
        if (version, size) not in self.filled:
            self._load(version, size, 'g', connections=64, seconds=600, warmup=0, in_order=True, keys=READ_KEYS)
            self.filled.add((version, size))
        return self._load(version, size, 'g', connections=connections, seconds=seconds, get=True, keys=READ_KEYS, **kw)

    def fill(self, keys):
        """Write the first so many keys of one order."""
        r = self._load(1, 256, 'n', connections=256, seconds=3500, warmup=0, in_order=True, keys=keys)
        if r['done'] != keys:
            raise Missing(f'only {r["done"]} of {keys} secrets were written in an hour')

    def answer_bytes(self):
        """The size of the body that a GET is answered with."""
        self.server.ok('PUT', 'kv/size', {'value': 'x' * 244})
        return len(self.server.ok('GET', 'kv/size').text)


class Lockstep:
    config = 'Lockstep as it is shipped, alone, no audit device, every write flushed before its answer, TLS 1.3, keys of 1 M written and 10 k read'

    def __init__(self, lab):
        self.world = world_in(lab)
        server = self.world.server('bench')
        server.start()
        self.kv = Kv(server.init(), server.proc.pid)


class BaoServer(Server):
    """`bao server` with raft storage in place of our program; the API is the same."""

    def __init__(self, world, program):
        super().__init__(world, 'bao', program)
        with open(self.config, 'w') as f:
            f.write(f'''
storage "raft" {{
  path    = "{self.dir}/data"
  node_id = "bench"
}}
listener "tcp" {{
  address         = "127.0.0.1:{self.port}"
  cluster_address = "127.0.0.1:{self.port + 1}"
  tls_cert_file   = "{world.tls}/bao.pem"
  tls_key_file    = "{world.tls}/bao-key.pem"
}}
api_addr      = "{self.addr}"
cluster_addr  = "{self.cluster_addr}"
disable_mlock = true
''')
        os.makedirs(self.dir + '/data')


class Bao:
    config = 'OpenBao, one node with raft storage, no audit device, TLS 1.3'

    def __init__(self, lab):
        program = shutil.which('bao')
        if program is None:
            raise Missing(NO_BAO)
        world = world_in(lab)
        server = BaoServer(world, program)
        world.servers.append(server)
        server.start()
        server.init(1, 1)
        await_true('OpenBao to lead', lambda: server.call('GET', 'sys/health', token='').status == 200, 60)
        self.kv = Kv(server, server.proc.pid)


class Nginx:
    config = 'nginx, `return 200` with a fixed body of the size of our answer, keep-alive without end, no access log, one worker a core, the same kind of certificate'

    def __init__(self, lab, tls, body_bytes):
        self.ca, self.port = tls[2], free_port()
        folder = lab.folder('nginx')
        with open(os.path.join(folder, 'nginx.conf'), 'w') as f:
            f.write(f'''
daemon off;
worker_processes {len(os.sched_getaffinity(0))};
pid {folder}/pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3; uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{self.port} ssl reuseport;
    ssl_certificate {tls[0]};
    ssl_certificate_key {tls[1]};
    ssl_protocols TLSv1.2 TLSv1.3;
    location / {{ default_type application/json; return 200 '{"x" * body_bytes}'; }}
  }}
}}
''')
        self.process = lab.start('nginx', [need('nginx'), '-p', folder, '-e', 'stderr', '-c', f'{folder}/nginx.conf'])
        await_true('nginx to listen', lambda: self.process.alive() and answers(self.port))

    def get(self, connections, seconds, **kw):
        return load([self.process.pid], protocol='http', addr=f'127.0.0.1:{self.port}', tls=True, ca=self.ca, path='/', get=True, keys=0,
                    connections=connections, seconds=seconds, **kw)
