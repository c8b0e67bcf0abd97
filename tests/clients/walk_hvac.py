#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The walk, driven by the unchanged Python client hvac on two real servers."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
import hvac  # noqa: E402
from cluster import World, await_true, run_tests, Failed  # noqa: E402


def client(server, token=None):
    return hvac.Client(url=server.addr, token=token, verify=server.world.ca)


def expect_error(kind, text, fn):
    try:
        fn()
    except kind as e:
        if text not in str(e):
            raise Failed(f'wanted {text!r}, got {e}')
        return
    raise Failed(f'wanted {kind.__name__}: {text!r}')


def start(server):
    server.start()
    c = client(server)
    assert not c.sys.is_initialized()
    r = c.sys.initialize(3, 2)
    server.keys, server.root, server.threshold = r['keys_base64'], r['root_token'], 2
    assert c.sys.is_sealed()
    c.sys.submit_unseal_key(r['keys'][0])
    assert c.sys.is_sealed()
    c.sys.submit_unseal_key(r['keys'][1])
    assert not c.sys.is_sealed()
    c.token = server.token = r['root_token']
    assert c.is_authenticated()
    return c


def the_walk():
    """enable, follow, refuse, DR token, kill, promote, read every secret back"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        ca, cb = start(a), start(b)
        ca.write_data('sys/replication/dr/primary/enable', data={})
        wrap = ca.write_data('sys/replication/dr/primary/secondary-token', data={'id': 'secondary'})['wrap_info']
        assert wrap['ttl'] == 1800 and wrap['token'].count('.') == 2, wrap
        assert wrap['creation_path'] == 'sys/replication/dr/primary/secondary-token', wrap
        cb.write_data('sys/replication/dr/secondary/enable', data={'token': wrap['token'], 'ca_file': w.ca})
        w.await_following(b)

        ca.sys.enable_secrets_engine('kv', path='kv', options={'version': '1'})
        ca.sys.enable_secrets_engine('kv', path='secret', options={'version': '2'})
        ca.sys.create_or_update_policy('app', 'path "kv/app/*" { capabilities = ["read", "list"] }')
        app = ca.auth.token.create(policies=['app'], ttl='24h')['auth']['client_token']
        for i in range(50):
            ca.secrets.kv.v1.create_or_update_secret(f'app/{i}', {'value': str(i)}, mount_point='kv')
            ca.secrets.kv.v2.create_or_update_secret(f'app/{i}', {'value': str(i)}, mount_point='secret')
        ca.secrets.kv.v2.create_or_update_secret('app/0', {'value': 'second'}, mount_point='secret')
        ca.secrets.kv.v1.delete_secret('app/49', mount_point='kv')
        ca.secrets.kv.v2.delete_latest_version_of_secret('app/49', mount_point='secret')

        expect_error(hvac.exceptions.InvalidRequest, 'path disabled in replication DR secondary mode',
                     lambda: client(b, a.root).auth.token.lookup_self())
        health = client(b).sys.read_health_status(method='GET')
        assert health.status_code == 472, health.status_code
        st = b.dr_status()
        assert st['mode'] == 'secondary' and st['state'] == 'stream-wals' and len(st['merkle_root']) == 40, st
        assert a.dr_status()['mode'] == 'primary'

        r = a.call('PUT', 'sys/replication/dr/secondary/generate-operation-token/attempt', {})
        assert r.status == 400 and 'Not a DR secondary.' in r.errors[0], r.text
        token = b.dr_token(a.keys[:2])
        assert token.startswith('s.') and len(token) == 26, 'a DR operation token'
        w.await_caught_up(a, b)
        a.kill()
        r = b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token='')
        assert 'being promoted to a replication primary' in r.json['warnings'][0], r.text
        await_true('service', lambda: b.call('GET', 'auth/token/lookup-self', token=a.root).status == 200, 10)

        cb = client(b, a.root)
        assert cb.is_authenticated()
        assert cb.sys.read_health_status(method='GET')['replication_dr_mode'] == 'primary'
        assert len(cb.secrets.kv.v1.list_secrets('app', mount_point='kv')['data']['keys']) == 49
        for i in range(49):
            assert cb.secrets.kv.v1.read_secret(f'app/{i}', mount_point='kv')['data'] == {'value': str(i)}
            got = cb.secrets.kv.v2.read_secret_version(f'app/{i}', mount_point='secret', raise_on_deleted_version=True)['data']
            assert got['data'] == {'value': 'second' if i == 0 else str(i)}, got
        assert cb.secrets.kv.v2.read_secret_version('app/0', version=1, mount_point='secret',
                                                    raise_on_deleted_version=True)['data']['data'] == {'value': '0'}
        expect_error(hvac.exceptions.InvalidPath, '', lambda: cb.secrets.kv.v2.read_secret_version(
            'app/49', mount_point='secret', raise_on_deleted_version=True))
        capp = client(b, app)
        assert capp.secrets.kv.v1.read_secret('app/7', mount_point='kv')['data'] == {'value': '7'}
        expect_error(hvac.exceptions.Forbidden, 'permission denied',
                     lambda: capp.secrets.kv.v1.create_or_update_secret('app/7', {'value': 'x'}, mount_point='kv'))
        cb.secrets.kv.v1.create_or_update_secret('after', {'failover': 'yes'}, mount_point='kv')

        # The old primary's keys unseal what was promoted, after a restart too.
        assert b.stop() == 0
        b.start()
        b.unseal(a.keys[:2])
        assert client(b, a.root).secrets.kv.v1.read_secret('after', mount_point='kv')['data'] == {'failover': 'yes'}


def restarts():
    """both sides come back from SIGKILL; the secondary resumes where its log ends"""
    with World() as w:
        a, b = w.pair()
        ca = client(a, a.root)
        ca.sys.enable_secrets_engine('kv', path='kv', options={'version': '1'})
        for i in range(20):
            ca.secrets.kv.v1.create_or_update_secret(f'k{i}', {'v': i}, mount_point='kv')
        b.kill()
        for i in range(20, 40):
            ca.secrets.kv.v1.create_or_update_secret(f'k{i}', {'v': i}, mount_point='kv')
        b.start()
        assert client(b).sys.read_health_status(method='GET').status_code == 503, 'sealed'
        # A sealed secondary goes on receiving.
        await_true('the stream', lambda: open(b.log).read().count('replication: stream started: remote_index=') >= 2)
        b.unseal(a.keys[:2])
        w.await_caught_up(a, b)
        assert client(b).sys.read_health_status(method='GET').status_code == 472
        a.kill()
        a.start()
        a.unseal()
        for i in range(40):
            assert ca.secrets.kv.v1.read_secret(f'k{i}', mount_point='kv')['data'] == {'v': i}
        ca.secrets.kv.v1.create_or_update_secret('last', {'v': 1}, mount_point='kv')
        w.await_following(b)
        w.check_same_root(a, b)
        token = b.dr_token(a.keys[:2])
        assert a.stop() == 0
        with open(a.log) as f:
            log = f.read()
        at = log.index('==> Vault shutdown triggered')
        for line in ('core: marked as sealed', 'core: pre-seal teardown starting', 'rollback: stopping rollback manager',
                     'core: pre-seal teardown complete', 'core: stopping cluster listeners',
                     'core.cluster-listener: rpc listeners successfully shut down',
                     'core: cluster listeners successfully shut down', 'core: vault is sealed'):
            assert line in log[at:], f'missing in the log of a clean stop, or out of order: {line}'
            at = log.index(line, at)
        with open(b.log) as f:
            log = f.read()
        for line in ('replication: stream started: remote_index=', 'core: successful mount: namespace= path=kv/ type=kv'):
            assert line in log, f'missing in the secondary\'s log: {line}'
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token='')
        await_true('service', lambda: b.call('GET', 'kv/last', token=a.root).status == 200, 10)


if __name__ == '__main__':
    sys.exit(run_tests([the_walk, restarts], 'hvac'))
