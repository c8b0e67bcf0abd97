#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills on a real DR secondary: a fork that is served beside it, while replication goes on, and that is gone afterwards."""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, Server, World, await_true, free_ports, run_tests  # noqa: E402

DRILL = 'sys/replication/dr/secondary/drill'


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


class Fork(Server):
    """The drill's server, spoken to like any other; its process is the secondary's child."""

    def __init__(self, world, of):
        self.world, self.name, self.port, self.host, self.log = world, 'drill', free_ports(), of.host, '/dev/null'
        self.addr, self.token = f'https://127.0.0.1:{self.port}', of.token
        self.address = f'127.0.0.1:{self.port}'


def pair(w, n=30):
    a, b = w.pair()
    a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    for i in range(n):
        a.ok('PUT', f'kv/k{i}', {'v': i})
    w.await_caught_up(a, b)
    return a, b


def start(b, token, fork, **kw):
    return b.call('PUT', DRILL, {'dr_operation_token': token, 'address': fork.address, **kw}, token='')


def state(b, token):
    return b.ok('GET', DRILL, token=token).data


def await_state(b, token, name):
    def there():
        st = state(b, token)
        if name == 'running' and st['state'] == 'none':
            raise Failed(f'the drill ended: {st}\n{b.tail()}')
        return st if st['state'] == name else None
    return await_true(f'the drill to be {name}', there)


def children(s):
    """Its child processes, of whichever thread, as the kernel has them: (process id, arguments)."""
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as f:
                parent = int(f.read().rpartition(')')[2].split()[1])
            with open(f'/proc/{pid}/cmdline', 'rb') as f:
                args = f.read().replace(b'\0', b' ').decode().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if parent == s.proc.pid:
            found.append((pid, args))
    return found


def no_trace(b):
    assert not os.path.exists(f'{b.dir}/data/drill'), os.listdir(f'{b.dir}/data/drill')


class Writer(threading.Thread):
    def __init__(self, s):
        super().__init__(daemon=True)
        self.s, self.done, self.failed, self.end = s, 0, None, threading.Event()

    def run(self):
        conn = self.s.connect()
        try:
            while not self.end.is_set():
                self.s.ok('PUT', f'kv/w{self.done}', {'v': self.done}, conn=conn)
                self.done += 1
        except Exception as e:
            self.failed = e

    def stop(self):
        self.end.set()
        self.join()
        if self.failed:
            raise self.failed


def whole():
    """a drill runs while the primary writes: same root, all tokens and secrets, writable; replication goes on; what is written in it is nowhere else; at its end nothing is left"""
    with World() as w:
        a, b = pair(w)
        token = b.dr_token(a.keys[:2])
        fork = Fork(w, a)
        writer = Writer(a)
        writer.start()
        await_true('writes', lambda: writer.done > 150)
        assert state(b, token) == {'state': 'none'}
        want(start(b, token, fork), 200, 'copying')
        st = await_state(b, token, 'running')
        before = writer.done
        checks = st['checks']
        assert checks['root_equal'] and checks['barrier_opens'] and checks['values_not_opened'] == 0, st
        assert checks['secrets'] >= 30 + 50 and checks['values_opened'] >= checks['secrets'] and checks['tokens'] >= 1, st
        assert checks['mounts'] >= 3 and checks['auth_methods'] >= 1 and checks['policies'] >= 1, st
        assert st['promotion_estimate']['total_ms'] > 0, st
        # The root token of the primary opens the fork, which serves and writes.
        assert fork.ok('GET', 'kv/k7').data['v'] == 7
        health = fork.call('GET', 'sys/health', token='')
        assert health.status == 200 and health.json['replication_dr_mode'] == 'disabled', health.text
        fork.ok('PUT', 'kv/only-in-the-drill', {'v': 1})
        fork.ok('DELETE', 'kv/k7')
        await_true('the primary to write on', lambda: writer.done > before + 50)
        assert b.dr_status()['state'] == 'stream-wals'
        want(start(b, token, Fork(w, a)), 400, 'under way')
        writer.stop()
        w.await_caught_up(a, b)
        assert a.call('GET', 'kv/only-in-the-drill').status == 404 and a.ok('GET', 'kv/k7').data['v'] == 7
        w.check_same_root(a, b)
        want(b.call('PUT', DRILL + '/stop', {'dr_operation_token': token}, token=''), 200)
        st = await_state(b, token, 'none')
        assert st['error'] is None and st['checks'] == checks, st
        no_trace(b)
        assert children(b) == []
        # And again, by the command line, with the token of the environment.
        env = dict(os.environ, VAULT_ADDR=b.addr, VAULT_CACERT=w.ca, VAULT_TOKEN=token, VAULT_FORMAT='json')

        def cli(*args):
            return subprocess.run([w.program, 'replication', 'drill', *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, timeout=60)
        r = cli('start', f'-listen={fork.address}', '-ttl=10m')
        assert r.returncode == 0 and json.loads(r.stdout)['checks']['root_equal'], r
        assert json.loads(cli('status').stdout)['state'] == 'running'
        assert fork.ok('GET', 'kv/k7').data['v'] == 7, 'the second fork has nothing of the first'
        r = cli('stop')
        assert r.returncode == 0 and 'Success' in r.stdout, r
        no_trace(b)
        assert b.stop() == 0


def who_may():
    """a drill needs a DR operation token, or a batch token with the policy for it; a primary has none; bad requests are refused"""
    with World() as w:
        a, b = pair(w, 1)
        token = b.dr_token(a.keys[:2])
        fork = Fork(w, a)
        want(start(b, '', fork), 400, 'dr_operation_token must be provided')
        want(start(b, 'nonsense', fork), 403)
        want(start(b, a.root, fork), 403)
        want(b.call('GET', DRILL, token=''), 400)
        want(b.call('PUT', DRILL + '/stop', {}, token=''), 400)
        for kw, text in (({'address': 'nowhere'}, 'address must be given'), ({'address': '127.0.0.1:1"'}, 'address must be given'),
                         ({'address': '127.0.0.1:99999'}, 'port from 1 to 65535'), ({'address': '127.0.0.1:0'}, 'port from 1 to 65535'),
                         ({'directory': 'relative'}, 'directory must be an absolute'), ({'ttl': '25h'}, 'ttl must be')):
            want(start(b, token, fork, **kw), 400, text)
        want(a.call('PUT', DRILL, {'dr_operation_token': token, 'address': fork.address}), 400, 'Not a DR secondary')
        a.ok('PUT', 'sys/policies/acl/driller', {'policy': f'path "{DRILL}*" {{ capabilities = ["update"] }}'})
        a.ok('POST', 'auth/token/roles/driller', {'allowed_policies': 'driller', 'orphan': True, 'renewable': False, 'token_type': 'batch'})
        batch = a.ok('POST', 'auth/token/create/driller', {'policies': ['driller']}).json['auth']['client_token']
        w.await_caught_up(a, b)
        want(start(b, batch, fork), 200)
        await_state(b, batch, 'running')
        want(start(b, batch, fork), 400, 'a drill is under way')
        # A directory that is somebody else's is not touched.
        want(b.call('PUT', DRILL + '/stop', {'dr_operation_token': batch}, token=''), 200)
        await_state(b, batch, 'none')
        taken = os.path.join(w.dir, 'taken')
        os.makedirs(taken)
        open(os.path.join(taken, 'file'), 'w').close()
        want(start(b, token, fork, directory=taken), 400, 'exists already')
        assert os.listdir(taken) == ['file']
        os.unlink(os.path.join(taken, 'file'))
        want(start(b, token, fork, directory=taken), 400, 'exists already')
        assert os.listdir(taken) == [], 'an empty one neither'
        for name in ('lockstep-drill', 'state'):  # as another cluster's drill has it
            open(os.path.join(taken, name), 'w').close()
        want(start(b, token, fork, directory=taken), 400, 'exists already')
        assert sorted(os.listdir(taken)) == ['lockstep-drill', 'state'], 'nor one of another drill'
        # An address in use: the report says so, and nothing is left.
        want(start(b, token, fork, **{'address': f'127.0.0.1:{a.port}'}), 200)
        st = await_state(b, token, 'none')
        assert 'in use' in st['error'], st
        no_trace(b)


def ends_by_itself():
    """it ends after its time, at a promotion, when its own process is killed, and with its secondary; no second process stays behind, no unseal key or token is in its files or arguments"""
    with World() as w:
        a, b = pair(w, 5)
        token = b.dr_token(a.keys[:2])
        fork = Fork(w, a)

        def run(**kw):
            want(start(b, token, fork, **kw), 200)
            await_state(b, token, 'running')
            (pid, args), = children(b)
            return int(pid), args

        def gone(pid):
            return not os.path.exists(f'/proc/{pid}')
        # Its time: not before it; data, process and listener are gone, and the link has not noticed any of it.
        writer, stream, begun = Writer(a), b.dr_status()['last_start'], time.monotonic()
        writer.start()
        pid, _ = run(ttl='8s')
        served = fork.ok('GET', 'kv/k1').data['v']
        ended = await_state(b, token, 'none')
        assert served == 1 and ended['error'] is None and time.monotonic() - begun >= 8, ended
        no_trace(b)
        assert gone(pid) and children(b) == []
        with socket.socket() as s:
            assert s.connect_ex(('127.0.0.1', fork.port)) != 0, 'the listener of a drill that has ended'
        before = writer.done
        await_true('the primary to write on', lambda: writer.done > before + 50)
        writer.stop()
        w.check_same_root(a, b)
        y = b.dr_status()
        assert y['state'] == 'stream-wals' and y['last_start'] == stream, (stream, y)
        # Its own process dies: told, and cleaned.
        pid, args = run()
        secrets = a.keys + [a.root]
        assert '-drill-fd=3' in args and not any(s in args for s in secrets), args
        for root, _, files in os.walk(f'{b.dir}/data/drill'):
            for f in files:
                try:
                    data = open(os.path.join(root, f), 'rb').read()
                except FileNotFoundError:
                    continue  # written aside, and renamed since
                assert not any(s.encode() in data for s in secrets), f
        os.kill(pid, signal.SIGKILL)
        assert 'before its time' in await_state(b, token, 'none')['error']
        no_trace(b)
        # The secondary is killed: the fork ends, and its data goes at the next start.
        pid, _ = run()
        b.kill()
        await_true('the fork to end with its secondary', lambda: gone(pid))
        assert os.path.exists(f'{b.dir}/data/drill')
        b.start()
        await_true('the leftover to go', lambda: not os.path.exists(f'{b.dir}/data/drill'))
        b.unseal()
        w.await_following(b)
        # A crash between the making of the folder and of its mark, or in the midst of the removal: the empty folder goes, too.
        pid, _ = run()
        b.kill()
        await_true('the fork to end with its secondary', lambda: gone(pid))
        for folder, dirs, files in os.walk(f'{b.dir}/data/drill', topdown=False):
            for f in files:
                os.unlink(os.path.join(folder, f))
            for d in dirs:
                os.rmdir(os.path.join(folder, d))
        b.start()
        await_true('the empty leftover to go', lambda: not os.path.exists(f'{b.dir}/data/drill'))
        b.unseal()
        w.await_following(b)
        # A clean stop, too.
        pid, _ = run()
        assert b.stop() == 0
        assert gone(pid)
        no_trace(b)
        b.start()
        b.unseal()
        w.await_following(b)
        # A promotion ends it: this data is the real one now.
        pid, _ = run()
        want(b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token=''), 200)
        await_true('the fork to end', lambda: gone(pid))
        await_true('its data to go', lambda: not os.path.exists(f'{b.dir}/data/drill'))


def sequence_22_a_drill_is_a_cluster_of_its_own():
    """sequence 22: what is made in a drill opens nothing of the real pair, and the fork fences nobody"""
    with World() as w:
        a, b = pair(w, 5)
        a.ok('PUT', 'sys/policies/acl/promoter', {'policy': 'path "sys/replication/dr/secondary/*" { capabilities = ["update"] }'})
        a.ok('POST', 'auth/token/roles/handler', {'allowed_policies': 'promoter', 'orphan': True, 'renewable': False, 'token_type': 'batch'})
        w.await_caught_up(a, b)
        token = b.dr_token(a.keys[:2])
        fork = Fork(w, a)
        want(start(b, token, fork), 200)
        st = await_state(b, token, 'running')
        real = a.ok('GET', 'sys/seal-status', token='').json['cluster_id']
        assert fork.ok('GET', 'sys/seal-status', token='').json['cluster_id'] == st['cluster_id'] != real
        forged = fork.ok('POST', 'auth/token/create/handler', {'policies': ['promoter']}).json['auth']['client_token']
        service = fork.ok('POST', 'auth/token/create', {'policies': ['root']}).json['auth']['client_token']
        assert fork.call('GET', 'auth/token/lookup-self', token=forged).status == 200
        promote = 'sys/replication/dr/secondary/promote'
        want(b.call('PUT', promote, {'dr_operation_token': forged}, token=''), 403)
        want(b.call('GET', DRILL, token=forged), 403)
        want(a.call('GET', 'auth/token/lookup-self', token=forged), 403)
        want(a.call('GET', 'auth/token/lookup-self', token=service), 403)
        # A DR operation token of the real secondary is local to it: the fork is no secondary and knows none.
        assert fork.call('PUT', promote, {'dr_operation_token': token}, token='').status == 400
        st = fork.ok('GET', 'sys/replication/dr/status', token='').data
        assert st.get('dr', st)['mode'] == 'disabled', st
        a.ok('PUT', 'kv/goes-on', {'v': 1})
        w.await_caught_up(a, b)
        assert a.dr_status()['mode'] == 'primary' and b.dr_status()['state'] == 'stream-wals'
        want(b.call('PUT', DRILL + '/stop', {'dr_operation_token': token}, token=''), 200)
        await_state(b, token, 'none')


def sequence_22_a_drill_audits_into_its_own_folder():
    """sequence 22: a drill writes no line into the real audit files, nor into one that is enabled in it, and is not held up when they cannot be written"""
    with World() as w:
        a, b = pair(w, 5)
        real, other = os.path.join(w.dir, 'audit.log'), os.path.join(w.dir, 'elsewhere', 'other.log')
        a.ok('PUT', 'sys/audit/real', {'type': 'file', 'options': {'file_path': real}})
        w.await_caught_up(a, b)
        token = b.dr_token(a.keys[:2])
        fork = Fork(w, a)
        os.rename(real, real + '.kept')
        os.mkdir(real)  # in place of the file: nobody can write there any more
        want(start(b, token, fork), 200)
        st = await_state(b, token, 'running')
        fork.ok('PUT', 'kv/only-in-the-drill', {'v': 1})
        fork.ok('PUT', 'sys/audit/other', {'type': 'file', 'options': {'file_path': other}})
        fork.ok('GET', 'kv/only-in-the-drill')
        assert not os.path.exists(other), 'a drill made a file beside its folder'
        with open(real + '.kept') as f:
            assert 'only-in-the-drill' not in f.read(), 'a drill wrote into the real audit file'
        lines = [open(os.path.join(folder, f)).read() for folder, _, files in os.walk(st['directory']) for f in files if f.endswith('.audit')]
        assert len(lines) == 2 and all('kv/only-in-the-drill' in text for text in lines), lines
        # What it shows is the real configuration.
        assert fork.ok('GET', 'sys/audit').data['real/']['options']['file_path'] == real
        want(b.call('PUT', DRILL + '/stop', {'dr_operation_token': token}, token=''), 200)
        await_state(b, token, 'none')
        no_trace(b)


if __name__ == '__main__':
    sys.exit(run_tests([whole, who_may, ends_by_itself, sequence_22_a_drill_is_a_cluster_of_its_own,
                        sequence_22_a_drill_audits_into_its_own_folder], 'drill'))
