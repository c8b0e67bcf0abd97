#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators know of replication: lag, health with reasons, watch, metrics, retention, doctor."""
import fcntl
import http.server
import json
import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, fill_disk, run_tests  # noqa: E402

STAGES = ('sent', 'received', 'flushed', 'applied')
WINDOWS = ('1m', '5m', '60m')


def cli(server, *args, **kw):
    env = {**os.environ, 'VAULT_ADDR': server.addr, 'VAULT_CACERT': server.world.ca, 'VAULT_TOKEN': server.token or '', **kw.pop('env', {})}
    return subprocess.run([server.program, *args], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=60, **kw)


def lag():
    """lag in LSNs, bytes and milliseconds for each stage, on both sides, without a write and through a stop"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for i in range(30):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 500})
        w.await_caught_up(a, b)

        def measured(s, side):
            peer = s.dr_status()[side][0]
            return all(peer['lag'][k][win]['samples'] > 0 for k in STAGES for win in WINDOWS) and peer
        for s, side in ((a, 'secondaries'), (b, 'primaries')):
            peer = await_true(f'{s.name} to tell the lag', lambda: measured(s, side))
            for k in STAGES:
                for win in WINDOWS:
                    f = peer['lag'][k][win]
                    assert 0 <= f['p50_ms'] <= f['p99_ms'] <= f['max_ms'] < 30000, (k, win, f)
            assert peer['lag']['received']['1m']['p50_ms'] <= peer['lag']['flushed']['1m']['max_ms'], peer['lag']
            assert int(peer['replication_primary_canary_age_ms']) < 3000, peer
        before = a.dr_status()['secondaries'][0]['lag']['flushed']['60m']['samples']
        await_true('the canary to be measured', lambda: a.dr_status()['secondaries'][0]['lag']['flushed']['60m']['samples'] >= before + 2)
        b.kill()
        for i in range(10):
            a.ok('PUT', f'kv/k{i}', {'v': 'y' * 5000})
        behind = a.dr_status()['secondaries'][0]['lag']
        for k in ('received', 'flushed', 'applied'):
            assert behind[k]['lsns'] >= 10 and behind[k]['bytes'] >= 50000 and behind[k]['ms'] > 0, (k, behind[k])
        await_true('the lag to grow', lambda: a.dr_status()['secondaries'][0]['lag']['flushed']['ms'] > 1500)
        b.start()
        b.unseal(a.keys[:2])
        await_true('the lag to go', lambda: all(a.dr_status()['secondaries'][0]['lag'][k]['lsns'] <= 1 for k in STAGES))
        await_true('the outage in the figures', lambda: a.dr_status()['secondaries'][0]['lag']['flushed']['1m']['max_ms'] > 1500, 5)
        text = cli(a, 'replication', 'status', '-format=json')
        assert text.returncode == 0, text.stderr
        status = json.loads(text.stdout)
        assert status['secondaries'][0]['lag']['flushed']['1m']['samples'] > 0
        long = re.findall(r'\d+\.\d{4,}', text.stdout)
        assert not long, f'numbers with more than microseconds: {long}'


def codes(s):
    return [(r['code'], r.get('secondary')) for r in s.dr_status()['reasons']]


def health():
    """healthy and reasons on both sides: a secondary that goes and comes back, the last error and when, the log says it too"""
    with World() as w:
        a, b = w.pair()
        for s in (a, b):
            await_true(f'{s.name} to be healthy', lambda s=s: s.dr_status()['healthy'])
            assert s.dr_status()['reasons'] == [], s.dr_status()['reasons']
        assert b.ok('GET', 'sys/health?drsecondarycode=200', token='').json['replication_primary_canary_age_ms'] < 3000
        a.kill()
        await_true('the secondary to miss the primary', lambda: ('not_connected', None) in codes(b))
        s = b.dr_status()
        reason = next(r for r in s['reasons'] if r['code'] == 'not_connected')
        assert not s['healthy'] and reason['severity'] == 'error' and len(reason['do']) > 20, s['reasons']
        assert s['last_error'] and s['last_error_time'].endswith('Z'), s
        await_true("Vault's words for it in its log", lambda: 'failed to connect to primary' in open(b.log).read())
        a.start()
        a.unseal()
        await_true('both to be healthy again', lambda: a.dr_status()['healthy'] and b.dr_status()['healthy'])
        assert b.dr_status()['last_error'], 'the last error is kept'
        a.ok('PUT', 'sys/replication/dr/primary/mode', {'id': 'secondary', 'mode': 'flush', 'wait_limit': '200ms', 'on_limit': 'fallback'})
        b.kill()
        await_true('the primary to miss the secondary', lambda: ('secondary_disconnected', 'secondary') in codes(a))
        assert not a.dr_status()['healthy']
        a.proc.send_signal(signal.SIGHUP)  # look now, not within ten seconds
        await_true('its log to say so', lambda: 'secondary_disconnected: secondary is not connected' in open(a.log).read())
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        await_true('the fallback to be told', lambda: ('mode_fallback', 'secondary') in codes(a))
        b.start()
        b.unseal(a.keys[:2])
        await_true('the primary to be healthy', lambda: a.dr_status()['healthy'])
        a.proc.send_signal(signal.SIGHUP)
        await_true('its log to say so', lambda: 'secondary_disconnected of secondary is over' in open(a.log).read())

        def logged(s, line):
            s.proc.send_signal(signal.SIGHUP)
            await_true(f'the log of {s.name} to say {line}', lambda: f'] replication: {line}' in re.sub(r'\[(\w+)\] +', r'[\1] ', open(s.log).read()))
        a.ok('PUT', 'sys/replication/dr/primary/mode', {'id': 'secondary', 'mode': 'flush', 'wait_limit': '1s'})
        b.kill()
        assert a.call('PUT', 'kv/x', {'v': 1}).status == 503
        logged(a, 'mode_waiting: writes wait for secondary, which is in mode flush')
        b.start()
        b.unseal(a.keys[:2])
        await_true('the primary to be healthy', lambda: a.dr_status()['healthy'])
        logged(a, 'mode_waiting of secondary is over')
        b.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': b.dr_token(a.keys[:2]), 'token': ''}, token='')
        await_true('it to follow nobody', lambda: ('no_primary', None) in codes(b))
        logged(b, 'no_primary: this secondary follows nobody')


def certificate():
    """a certificate that expires soon is a warning, one that has expired an error, on a secondary too; a reload of a new one ends it"""
    with World() as w:
        a, b = w.pair()
        cert, key = (os.path.join(w.tls, f'secondary{x}.pem') for x in ('', '-key'))

        def swap(days):
            if days is None:  # a renewed one
                subprocess.run([w.program, 'cert', 'server', f'-dir={w.tls}', '-name=renewed'], check=True, stdout=subprocess.DEVNULL)
                for x in ('', '-key'):
                    os.replace(os.path.join(w.tls, f'renewed{x}.pem'), os.path.join(w.tls, f'secondary{x}.pem'))
            else:
                subprocess.run(['openssl', 'x509', '-in', cert, '-signkey', key, '-days', str(days), '-out', cert + '.new'], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                os.replace(cert + '.new', cert)
            b.proc.send_signal(signal.SIGHUP)

        before = w.ssl
        w.ssl = ssl._create_unverified_context()
        for days, code, healthy in ((20, 'certificate_expires', True), (0, 'certificate_expired', False)):
            swap(days)
            await_true(code, lambda code=code: code in [r['code'] for r in b.dr_status()['reasons']])
            s = b.dr_status()
            assert s['healthy'] == healthy and f':{b.port}' in s['reasons'][0]['what'], s['reasons']
            assert s['reasons'][0]['severity'] == ('warning' if healthy else 'error'), s['reasons']
        swap(None)
        await_true('the reason to go', lambda: not b.dr_status()['reasons'])
        w.ssl = before
        assert b.dr_status()['healthy']


def check():
    """status --check: exit codes for scripts"""
    with World() as w:
        a, b = w.pair()
        fresh = w.server('alone')
        fresh.start()
        fresh.init()
        await_true('both to be healthy', lambda: a.dr_status()['healthy'] and b.dr_status()['healthy'])

        def run(s, *checks, code, text=''):
            r = cli(s, 'replication', 'status', *sum((['--check', k] for k in checks), []))
            if r.returncode != code or text not in r.stdout + r.stderr:
                raise Failed(f'{s.name} {checks}: wanted {code} with {text!r}, got {r.returncode}: {r.stdout}{r.stderr}')
        for s in (a, b):
            run(s, 'max-lag=20s', 'healthy', 'max-lag-bytes=16MiB', 'max-lag-lsns=1000', code=0, text='ok: ')
        run(fresh, 'max-lag=2s', code=5, text='disabled')
        for bad in ('max-lag=2x', 'max-lag=', 'max-lag=-1s', 'lag=2', 'max-lag-bytes=1TB', ''):
            run(a, bad, code=1, text='invalid check')
        r = cli(a, 'replication', 'status', 'max-lag=2s')  # --check was forgotten
        assert r.returncode == 1 and 'Too many arguments' in r.stderr, r
        b.kill()
        await_true('the primary to notice', lambda: not a.dr_status()['healthy'])
        run(a, 'max-lag=2s', code=3, text='not connected')
        run(a, 'healthy', code=4, text='secondary_disconnected')
        run(a, 'healthy', 'max-lag=1h', code=3)
        run(b, 'healthy', code=2)
        out = cli(a, 'replication', 'status').stdout
        assert 'Lag ' in out and 'secondary_disconnected' in out and 'map[' not in out, out


def watch():
    """replication watch: lines into a pipe, in place on a terminal, ended by SIGINT with exit code 0"""
    with World() as w:
        a, b = w.pair()
        env = {**os.environ, 'VAULT_ADDR': a.addr, 'VAULT_CACERT': w.ca}
        p = subprocess.Popen([w.program, 'replication', 'watch', '-interval=100ms'], env=env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
        lines = [p.stdout.readline() for _ in range(3)]
        assert all(re.match(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ primary running committed=\d+ applied=\d+ secondary=connected sent=', s)
                   for s in lines), lines
        a.kill()
        seen = ''
        while 'error: ' not in seen:  # it goes on, and says why
            seen = p.stdout.readline()
            assert seen, 'it ended'
        a.start()
        a.unseal()
        while ' primary running ' not in seen:
            seen = p.stdout.readline()
            assert seen, 'it ended'
        p.send_signal(signal.SIGINT)
        assert p.wait(10) == 0 and '\x1b' not in p.stdout.read()
        assert len(cli(b, 'replication', 'watch', '-interval=50ms', '-count=3').stdout.splitlines()) == 3
        assert cli(b, 'replication', 'watch', '-interval=1ms').returncode == 1
        main, side = pty.openpty()
        p = subprocess.Popen([w.program, 'replication', 'watch', '-interval=100ms'], env=env, stdin=side, stdout=side)
        os.close(side)
        shown = b''
        while shown.count(b'\x1b[H') < 3 or b'applied' not in shown:
            shown += os.read(main, 65536)
        p.send_signal(signal.SIGINT)
        assert p.wait(10) == 0, shown
        os.close(main)
        assert b'Lag ' in shown and b'mode' in shown


def watch_ends():
    """replication watch: SIGINT at any moment ends it with exit code 0, also one whose terminal or pipe takes no more"""
    with World() as w:
        a, _ = w.pair()
        env = {**os.environ, 'VAULT_ADDR': a.addr, 'VAULT_CACERT': w.ca}

        def start(out):
            return subprocess.Popen([w.program, 'replication', 'watch', '-interval=50ms'], env=env, stdin=subprocess.DEVNULL,
                                    stdout=out, stderr=subprocess.PIPE)

        def ended(p):
            p.send_signal(signal.SIGINT)
            said = p.communicate(timeout=10)[1]
            assert (p.returncode, said) == (0, b''), (p.returncode, said)

        main, side = pty.openpty()
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        for full in (side, writer):  # nobody reads them
            p = start(full)
            with open(f'/proc/{p.pid}/wchan') as f:
                await_true('a write that waits', lambda: f.seek(0) == 0 and re.search('pipe_write|wait_woken', f.read()))
            ended(p)
        for n in range(40):  # while it asks, writes or waits
            os.close(main)
            os.close(side)
            main, side = pty.openpty()  # a flush of the old one can leave what the kernel has under way
            p = start(side)
            os.read(main, 1 + 100 * n)
            ended(p)
        for fd in (main, side, reader, writer):
            os.close(fd)


def parse_metrics(text):
    """Prometheus' text form, read strictly: {name: {labels: value}}, {name: type}."""
    values, types, closed, current = {}, {}, set(), None
    for line in text.splitlines():
        m = re.fullmatch(r'# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)', line)
        if m:
            if m[2] != current:
                assert m[2] not in closed, f'{m[2]} stands in two places'
                closed.add(current)
                current = m[2]
            if m[1] == 'TYPE':
                assert m[2] not in types and m[3] in ('gauge', 'counter', 'summary'), line
                types[m[2]] = m[3]
            continue
        m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)', line)
        assert m, f'no line of the format: {line!r}'
        base = m[1] if m[1] in types else re.sub('_(sum|count)$', '', m[1])
        assert base == current, f'{line!r} under {current}'
        labels = tuple(sorted(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or '')))
        assert labels not in values.setdefault(m[1], {}), f'twice: {line!r}'
        values[m[1]][labels] = float(m[3])
    return values, types


def metrics():
    """Vault's and our metrics in Prometheus' form, on a primary and, where the listener frees them, on a secondary"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        for s in (a, b):
            s.free_metrics()
            s.start()
            s.init()
        w.enable(a, b, 'site"b"')
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        for i in range(20):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 500})
        w.await_caught_up(a, b)
        name = 'site\\"b\\"'

        def read(s, **kw):
            r = s.ok('GET', 'sys/metrics?format=prometheus', token='', **kw)
            assert r.headers['Content-Type'].startswith('text/plain'), r.headers
            return parse_metrics(r.text)
        await_true('a measured lag', lambda: read(a)[0]['lockstep_lag_samples'][(('peer', name), ('stage', 'applied'), ('window', '1m'))])
        values, types = read(a)
        for k in ('vault_replication_wal_last_wal', 'vault_replication_wal_last_dr_wal', 'vault_replication_merkle_commit_index',
                  'replication_merkle_commit_index', 'vault_logshipper_streamWALs_missing_guard', 'logshipper_streamWALs_missing_guard',
                  'vault_logshipper_buffer_size', 'vault_wal_gc_total', 'vault_core_unsealed', 'vault_core_active',
                  'vault_core_replication_dr_primary', 'lockstep_healthy', 'lockstep_log_bytes', 'lockstep_disk_free_bytes'):
            assert k in values, k
        assert types['vault_wal_persistWALs'] == 'summary' and values['vault_wal_persistWALs_count'][()] > 20
        assert values['vault_wal_persistWALs_sum'][()] > 0 and values['vault_wal_persistWALs'][(('quantile', '0.99'),)] > 0
        assert types['vault_wal_flushReady'] == 'summary' and values['vault_wal_flushReady_count'][()] > 20
        assert 0 < values['vault_wal_flushReady_sum'][()] < 20000, values['vault_wal_flushReady_sum']
        for k in ('vault_replication_wal_gc', 'vault_merkle_flushDirty', 'vault_merkle_saveCheckpoint', 'vault_replication_fetchRemoteKeys',
                  'vault_replication_merkleDiff', 'vault_replication_merkleSync'):
            assert types[k] == 'summary' and values[k + '_count'][()] >= 0, k
        assert values['vault_wal_flushReady_queue_len'][()] == 0, values['vault_wal_flushReady_queue_len']
        served = {k.removeprefix('vault_replication_rpc_'): v[()] for k, v in values.items() if k.startswith('vault_replication_rpc_')}
        assert served['server_bootstrap_request'] == 1 and served['server_stream_wals_request'] >= 1, served
        assert served['dr_server_fetch_keys_request'] >= 0 and served['client_stream_wals'] == 0, served
        await_true('an echo', lambda: read(a)[0]['vault_replication_rpc_dr_server_echo'][()] > 0)
        # Vault's older builds, and what was made for them, have these without the prefix.
        vaults = {k for k in values if re.match('vault_(wal|merkle|logshipper|replication)_', k)}
        assert len(vaults) > 40 and 'vault_wal_deleteWALs_count' in vaults, vaults
        for k in vaults:
            assert values.get(k.removeprefix('vault_'), {}).keys() == values[k].keys(), k
            assert types.get(k) == types.get(k.removeprefix('vault_')), k
        assert values['vault_replication_wal_last_dr_wal'][()] >= 20 and values['vault_core_active'][()] == 1
        assert len(values['lockstep_lag_p99_seconds']) == 12 and len(values['lockstep_lag_bytes']) == 4
        assert values['lockstep_peer_connected'] == {(('peer', name),): 1}, values['lockstep_peer_connected']
        values, types = read(b)
        assert values['vault_replication_fsm_last_remote_wal'][()] >= 20 and values['vault_core_active'][()] == 0
        assert values['vault_core_replication_dr_secondary'][()] == 1
        assert values['vault_replication_rpc_client_stream_wals'][()] >= 1 and values['vault_replication_merkleSync_count'][()] == 1, values
        asked = values['vault_replication_rpc_client_fetch_keys'][()]
        assert asked >= 1 and values['vault_replication_fetchRemoteKeys_count'][()] == asked, values
        assert values['vault_replication_merkleSync_sum'][()] > 0 and types['vault_replication_merkleSync'] == 'summary', values
        health = a.ok('GET', 'sys/health', token='').json
        assert health['last_wal'] >= values['vault_replication_fsm_last_remote_wal'][()] and health['echo_duration_ms'] == 0, health
        assert abs(health['last_wal'] - a.dr_status()['last_wal']) < 10
        health = b.call('GET', 'sys/health', token='').json
        assert 0 <= health['echo_duration_ms'] < 5000 and 'last_wal' not in health, health
        await_true('the secondary to know its lag',
                   lambda: read(b)[0]['lockstep_lag_samples'][(('peer', 'primary'), ('stage', 'flushed'), ('window', '60m'))])
        j = a.ok('GET', 'sys/metrics').json
        assert {g['Name'] for g in j['Gauges']} >= {'vault.replication.wal.last_wal', 'lockstep.lag.bytes'}, j
        assert [s for s in j['Samples'] if s['Name'] == 'vault.wal.persistWALs'][0]['Count'] > 20
        r = a.ok('GET', 'sys/metrics', headers={'Accept': 'application/openmetrics-text'})
        parse_metrics(r.text)
        b.kill()
        await_true('the reason', lambda: read(a)[0]['lockstep_healthy'][()] == 0)
        assert read(a)[0]['lockstep_reason'][(('code', 'secondary_disconnected'), ('peer', name))] == 1


def retention():
    """limits for each secondary over API and command line: warnings by name, let go at 100 %, through a restart, back by a copy"""
    with World() as w:
        a, b = w.server('primary', extra='log_file_size = "1MiB"\n  log_retain = "64MiB"'), w.server('secondary')
        for s in (a, b):
            s.start()
            s.init()
        w.enable(a, b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        path = 'sys/replication/dr/primary/retention'

        def kept():
            return a.dr_status()['secondaries'][0]['retention']
        assert kept()['max_bytes'] == 64 << 20 and kept()['max_age_ms'] == 0 and not kept()['let_go'], kept()
        r = cli(a, 'replication', 'retention', '-max-bytes=16MiB', '-max-age=24h', 'secondary')
        assert r.returncode == 0, r.stderr
        await_true('the limits to count', lambda: kept()['max_bytes'] == 16 << 20 and kept()['max_age_ms'] == 86400000)
        # What would be cut down to 0, which is another limit, or is no size, is refused and named.
        for flag in ('-max-age=100ms', '-max-age=1.5s', '-max-bytes=1XB', '-max-bytes=0.5'):
            r = cli(a, 'replication', 'retention', flag, 'secondary')
            assert r.returncode == 1 and f'invalid value for flag {flag.split("=")[0]}' in r.stderr and flag.split('=')[1] in r.stderr, r
        assert kept()['max_bytes'] == 16 << 20 and kept()['max_age_ms'] == 86400000, kept()
        for bad in ({}, {'id': 'secondary'}, {'id': 'nobody', 'max_bytes': 1}, {'id': 'secondary', 'max_bytes': -1},
                    {'id': 'secondary', 'max_age': '11y'}, {'max_bytes': 5}):
            assert a.call('PUT', path, bad).status == 400, bad
        w.await_caught_up(a, b)
        b.kill()
        big = {'v': 'x' * 250000}
        wrote = 0

        def write_to(percent):  # the limits are looked at once a second: a step at a time
            nonlocal wrote
            while kept()['used_percent'] < percent and not kept()['let_go']:
                before = kept()['bytes']
                for _ in range(4):
                    a.ok('PUT', f'kv/k{wrote % 4}', big)
                    wrote += 1
                await_true('the limits to be looked at', lambda: kept()['bytes'] >= before + 1000000 or kept()['let_go'])
                assert wrote < 200, kept()
        write_to(50)
        await_true('the warning', lambda: 'log_retention: secondary: 5' in open(a.log).read())
        assert ('log_retention', 'secondary') in codes(a)
        assert 'log_retention: secondary: 8' not in open(a.log).read()
        out = cli(a, 'replication', 'retention').stdout
        assert re.search(r'(?m)^secondary +5\d ', out), out
        a.stop()
        a.start()
        a.unseal()
        await_true('the cursor to be there again', lambda: kept()['used_percent'] >= 50)
        assert kept()['max_bytes'] == 16 << 20
        write_to(80)
        await_true('the second warning', lambda: 'log_retention: secondary: 8' in open(a.log).read())
        write_to(101)
        assert ('secondary_let_go', 'secondary') in codes(a)
        assert 'secondary_let_go: secondary' in open(a.log).read()
        b.start()
        b.unseal(a.keys[:2])
        w.await_caught_up(a, b)
        await_true('the primary to be content', lambda: a.dr_status()['healthy'] and not kept()['let_go'])


def sixteen():
    """the seventeenth secondary is refused before anything is made for it"""
    with World() as w:
        a = w.server('primary')
        a.start()
        a.init()
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        path = 'sys/replication/dr/primary/secondary-token'
        for i in range(16):
            a.ok('PUT', path, {'id': f's{i}'})
        r = a.call('PUT', path, {'id': 's16'})
        assert r.status == 400 and '16 secondaries' in r.text, r.text
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 's3'})
        a.ok('PUT', path, {'id': 's16'})
        assert len(a.dr_status()['known_secondaries']) == 16


class Relay:
    """Something between the sites, on a port of its own: passes TCP through, or ends TLS, with or without the ALPN of the link."""

    def __init__(self, world, to, tls=None, alpn=None):
        self.to, self.ctx = to, None
        if tls:
            self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.ctx.load_cert_chain(os.path.join(world.tls, f'{tls}.pem'), os.path.join(world.tls, f'{tls}-key.pem'))
            if alpn:
                self.ctx.set_alpn_protocols([alpn])
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.addr = f'127.0.0.1:{self.listener.getsockname()[1]}'
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def serve(self, c):
        try:
            if self.ctx:
                c = self.ctx.wrap_socket(c, server_side=True)
                while c.recv(65536):
                    pass
                return
            with socket.create_connection(self.to) as out:
                def back():
                    try:
                        while data := out.recv(65536):
                            c.sendall(data)
                        c.close()
                    except OSError:
                        pass
                threading.Thread(target=back, daemon=True).start()
                while data := c.recv(65536):
                    out.sendall(data)
        except OSError:
            pass
        finally:
            c.close()

    def close(self):
        self.listener.close()


class OtherClock(http.server.BaseHTTPRequestHandler):
    """A primary of another version whose clock is 100 s ahead."""
    ahead = 100

    def do_GET(self):
        body = json.dumps({'sealed': False, 'initialized': True, 'version': '9.1.0', 'server_time_utc': int(time.time()) + self.ahead}
                          if 'health' in self.path else {'data': {'mode': 'disabled'}}).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def doctor():
    """replication doctor: finds what is in the way, a proxy that ends TLS too, uses nothing up and wipes nothing"""
    with World() as w:
        a, b, c = w.server('primary'), w.server('secondary'), w.server('third')
        for s in (a, b, c):
            s.start()
            s.init()
        b.ok('POST', 'sys/mounts/own', {'type': 'kv'})
        b.ok('PUT', 'own/x', {'v': '1'})
        path = 'sys/replication/dr/secondary/doctor'

        def examine(code, strict=False, **args):
            r = cli(b, 'replication', 'doctor', *(['-strict'] if strict else []), '-format=json', *(f'{k}={v}' for k, v in args.items()))
            if r.returncode != code:
                raise Failed(f'wanted {code}, got {r.returncode}: {r.stdout}{r.stderr}')
            found = {}
            for k in json.loads(r.stdout)['checks']:
                assert k['result'] in ('ok', 'warn', 'fail') and k['what'] and (k['do'] or k['result'] == 'ok'), k
                if found.get(k['name'], {'result': 'ok'})['result'] != 'fail':
                    found[k['name']] = k
            return found

        def bad(found):
            return sorted(n for n, k in found.items() if k['result'] == 'fail')
        found = examine(3, primary_api_addr=a.addr, ca_file=w.ca)
        assert bad(found) == ['primary'] and 'enable' in found['primary']['do'], found
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        token = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'b'}).json['wrap_info']['token']
        good = dict(token=token, ca_file=w.ca)
        await_true('the primary to know its link key', lambda: a.dr_status()['link_key_hash'] and a.dr_status()['data_bytes'])
        found = examine(0, strict=True, **good)
        assert set(found) == {'role', 'token', 'name', 'api port', 'api', 'clock', 'version', 'primary', 'cluster port', 'alpn', 'tls',
                              'space', 'own address'}, found
        out = cli(b, 'replication', 'doctor', *(f'{k}={v}' for k, v in good.items()))
        assert out.returncode == 0 and out.stdout.endswith('0 failed, 0 warned\n') and re.search('(?m)^ok +tls ', out.stdout), out.stdout
        assert bad(examine(3, token=token)) == ['api'], 'the CA of the primary is not known'
        assert bad(examine(3, token='x.y.z', ca_file=w.ca)) == ['api', 'token']
        assert bad(examine(3, primary_api_addr='https://nowhere.invalid:8200', **good)) == ['api port', 'name']
        port = a.port + 1
        for kw, fails in (({}, []), ({'tls': 'secondary', 'alpn': 'replication_dr_v1'}, ['tls']), ({'tls': 'secondary'}, ['alpn', 'tls'])):
            relay = Relay(w, ('127.0.0.1', port), **kw)
            found = examine(3 if fails else 0, primary_cluster_addr=relay.addr, **good)
            assert bad(found) == fails, (kw, found)
            if 'tls' in fails:
                assert 'TLS is ended in between' in found['tls']['what'], found['tls']
            relay.close()
        with socket.create_server(('127.0.0.1', 0)) as s:
            closed = s.getsockname()[1]
        assert bad(examine(3, primary_cluster_addr=f'127.0.0.1:{closed}', **good)) == ['cluster port']
        with socket.create_server(('127.0.0.1', 0)) as silent:
            found = examine(3, primary_cluster_addr=f'127.0.0.1:{silent.getsockname()[1]}', **good)
            assert 'did not answer within 5 s' in found['tls']['what'], found['tls']
        other = http.server.ThreadingHTTPServer(('127.0.0.1', 0), OtherClock)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        found = examine(3, primary_api_addr=f'http://127.0.0.1:{other.server_port}')
        assert bad(found) == ['clock', 'primary'] and found['version']['result'] == 'warn' and 'ahead' in found['clock']['what'], found
        OtherClock.ahead = -10
        assert examine(3, primary_api_addr=f'http://127.0.0.1:{other.server_port}')['clock']['result'] == 'warn'
        other.shutdown()
        short = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'short', 'ttl': '1s'}).json['wrap_info']['token']
        await_true('the token to expire', lambda: 'expired' in cli(b, 'replication', 'doctor', f'token={short}', f'ca_file={w.ca}').stdout)
        revoked = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'revoked'}).json['wrap_info']['token']
        a.ok('PUT', 'sys/replication/dr/primary/revoke-secondary', {'id': 'revoked'})
        assert bad(examine(3, token=revoked, ca_file=w.ca)) == ['token'], 'its id was revoked'
        assert b.call('PUT', path, good, token='').status == 403 and b.call('GET', path).status == 405
        assert b.call('PUT', path, {}).status == 400
        assert b.ok('GET', 'own/x').data == {'v': '1'} and b.dr_status() == {'mode': 'disabled'}, 'something was changed'
        b.ok('PUT', 'sys/replication/dr/secondary/enable', {**good, 'confirm_wipe': 'secondary'})  # the token was not used up
        b.keys, b.token, b.threshold = a.keys, a.token, a.threshold
        w.await_following(b)
        r = cli(c, 'replication', 'doctor', f'token={token}', f'ca_file={w.ca}')
        assert r.returncode == 3 and re.search('(?m)^fail +token ', r.stdout), r.stdout
        assert b.call('PUT', path, good).status == 400, 'a secondary wants its DR operation token'
        assert b.call('PUT', path, {'dr_operation_token': 's.' + 'x' * 24}, token='').status == 403
        dr = b.dr_token(a.keys[:2])
        await_true('the secondary to be healthy', lambda: b.dr_status()['healthy'])
        found = examine(0, dr_operation_token=dr)
        assert set(found) == {'role', 'name', 'cluster port', 'alpn', 'tls', 'own address'}, found
        a.kill()
        await_true('the secondary to miss the primary', lambda: ('not_connected', None) in codes(b))
        assert bad(examine(3, dr_operation_token=dr)) == ['cluster port', 'not_connected']
        a.start()
        a.unseal()
        a.ok('PUT', 'sys/seal', {})
        r = cli(c, 'replication', 'doctor', f'primary_api_addr={a.addr}', f'ca_file={w.ca}')
        assert r.returncode == 3 and 'is sealed' in r.stdout, r.stdout


def doctor_space():
    """the doctor looks at the disk as it is now, not as it was when the server wrote last"""
    with World() as w, w.small_disk('doctor_space') as mount:
        if mount is None:
            return
        a, b = w.on_small_disk(mount)
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        await_true('the primary to tell its size', lambda: a.dr_status()['data_bytes'])

        def space():
            checks = b.ok('PUT', 'sys/replication/dr/secondary/doctor', {'primary_api_addr': a.addr, 'ca_file': w.ca}).data['checks']
            return next(c for c in checks if c['name'] == 'space')
        assert space()['result'] == 'ok', space()
        fill_disk(mount, 32 << 20)
        room = os.statvfs(mount)
        told = int(re.match('([0-9]+) MiB are free', space()['what']).group(1))
        assert space()['result'] == 'fail' and abs(told - (room.f_bavail * room.f_frsize >> 20)) <= 1, (space(), room)


if __name__ == '__main__':
    sys.exit(run_tests([lag, health, certificate, check, watch, watch_ends, metrics, retention, sixteen, doctor, doctor_space], 'know'))
