# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a benchmark runs: a temporary folder on a real disk, and processes that end with it.

Everything that is started here is ended here, by its id, also after Ctrl-C or a failure.
"""
import json
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IN_MEMORY = {'tmpfs', 'ramfs', 'overlay'}
TICKS = os.sysconf('SC_CLK_TCK')


class Missing(Exception):
    """Something that must be there is not; the text says what to do."""


def file_system(path):
    """(device, type) of what path lies on."""
    best = ('?', '?', '')
    with open('/proc/mounts') as f:
        for line in f:
            device, at, kind = line.split()[:3]
            if (path + '/').startswith(at.rstrip('/') + '/') and len(at) >= len(best[2]):
                best = (device, kind, at)
    return best[0], best[1]


def free_port():
    """Below the range that the kernel gives to clients."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            try:
                s.bind(('127.0.0.1', port))
            except OSError:
                continue
            return port


def await_true(what, fn, seconds=30):
    """There is no event across foreign processes but their own answer."""
    end = time.monotonic() + seconds
    while not fn():
        if time.monotonic() > end:
            raise Missing(f'waited {seconds} s for {what}')
        time.sleep(0.02)


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(('127.0.0.1', port)) == 0


def tree(pid):
    """pid and all below it."""
    found = [pid]
    for p in found:
        try:
            with open(f'/proc/{p}/task/{p}/children') as f:
                found += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return found


def cpu_seconds(pid):
    """Of a process and those below it, so far."""
    total = 0
    for p in tree(pid):
        try:
            with open(f'/proc/{p}/stat') as f:
                fields = f.read().rsplit(')', 1)[1].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


class Process:
    """end: the signal that makes it end now and take its own children with it."""

    def __init__(self, name, argv, log, user=None, env=None, end=signal.SIGTERM):
        who = {'user': user, 'group': user, 'extra_groups': []} if user else {}
        self.name, self.log, self.end = name, log, end
        self.proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=open(log, 'ab'), stderr=subprocess.STDOUT,
                                     env={**os.environ, **(env or {})}, **who)
        self.pid = self.proc.pid

    def alive(self):
        if self.proc.poll() is not None:
            raise Missing(f'{self.name} ended with {self.proc.returncode}:\n{self.tail()}')
        return True

    def tail(self):
        with open(self.log, errors='replace') as f:
            return ''.join(f.readlines()[-15:])

    def stop(self, how=None, seconds=30):
        if self.proc.poll() is None:
            self.proc.send_signal(how or self.end)
            try:
                self.proc.wait(seconds)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait()


class Lab:
    def __init__(self):
        base = os.environ.get('BENCH_DIR', '/var/tmp')
        self.device, self.kind = file_system(os.path.realpath(base))
        if self.kind in IN_MEMORY:
            raise Missing(f'{base} lies on {self.kind}: flushes would cost nothing there. Set BENCH_DIR to a folder on a disk')
        free = shutil.disk_usage(base).free
        if free < 8 << 30:
            raise Missing(f'{base} has {free >> 30} GiB free, 8 are needed: set BENCH_DIR to a folder with more')
        self.dir = tempfile.mkdtemp(prefix='lockstep-bench.', dir=base)
        os.chmod(self.dir, 0o711)  # PostgreSQL runs as another user
        self.processes = []

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit('bench: stopped'))
        return self

    def __exit__(self, *_):
        for p in reversed(self.processes):
            p.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def folder(self, name):
        path = os.path.join(self.dir, name)
        os.makedirs(path, exist_ok=True)
        return path

    def start(self, name, argv, **kw):
        p = Process(name, argv, os.path.join(self.dir, name + '.log'), **kw)
        self.processes.append(p)
        return p

    def forget(self, p):
        self.processes.remove(p)


def need(program):
    path = shutil.which(program)
    if path is None:
        raise Missing(f'there is no {program} on the PATH: run tools/setup --bench')
    return path


def user_of_postgres():
    """PostgreSQL does not run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam('postgres').pw_name
    except KeyError:
        raise Missing('there is no user postgres: run tools/setup --bench') from None


def tool(name):
    path = os.path.join(ROOT, 'build', 'bench', name)
    if not os.path.exists(path):
        raise Missing(f'{path} is not built: run tools/build')
    return path


def run_json(argv, env=None, seconds=3900):
    """Run a program that prints one JSON object."""
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})},
                       timeout=seconds)
    if r.returncode != 0:
        raise Missing(f'{" ".join(argv)} failed:\n{r.stderr[-2000:]}')
    return json.loads(r.stdout)


def load(server_pids=(), env=None, **options):
    """bench_load with these options; cpu_s is what the servers used meanwhile, less the share of the warm-up."""
    argv = [tool('bench_load')]
    for name, value in options.items():
        name = name.replace('_', '-')
        if value is True:
            argv.append(f'--{name}')
        elif value is not None and value is not False:
            argv.append(f'--{name}={value}')
    before = sum(cpu_seconds(p) for p in server_pids)
    r = run_json(argv, env)
    used = sum(cpu_seconds(p) for p in server_pids) - before
    r['cpu_s'] = used * r['seconds'] / (r['seconds'] + options.get('warmup', 0.5))
    if r['refused'] > r['done'] / 1000:
        raise Missing(f'{" ".join(argv)}: {r["refused"]} of {r["done"] + r["refused"]} requests were refused: {r["refusal"]}')
    return r
