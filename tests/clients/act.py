#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators do with replication: promote with a known loss, guard a wipe, lost writes, switch over."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

PROMOTE = 'sys/replication/dr/secondary/promote'


def cli(server, *args, stdin='', token=None):
    env = {**os.environ, 'VAULT_ADDR': server.addr, 'VAULT_CACERT': server.world.ca, 'VAULT_TOKEN': token or server.token or ''}
    return subprocess.run([server.program, *args], env=env, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:400]}')


def preview(s):
    return s.ok('GET', PROMOTE, token='').data


def loss_is_told():
    """a promotion tells what it keeps and may lose, before and after a restart, and refuses beyond max_loss unless forced"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        p = preview(b)
        assert p['connected'] and p['missing_lsns'] == 0 and p['may_lose_ms'] < 5000 and p['epoch'] == a.dr_status()['epoch'] + 1, p
        want(a.call('GET', PROMOTE), 400, 'Not a DR secondary.')
        a.kill()
        last = b.dr_status()['last_remote_wal']
        p = await_true('the age to grow', lambda: preview(b)['may_lose_ms'] >= 1500 and preview(b))
        assert not p['connected'] and p['keeps_lsn'] >= p['last_heard_lsn'] == last and not p['no_loss'], p
        assert p['last_heard_age_ms'] >= 1500 and 'may be missing' in p['summary'], p
        # What the log says is still told when the process that heard it is gone.
        b.kill()
        b.start()
        b.unseal(a.keys[:2])
        p = preview(b)
        assert p['may_lose_ms'] >= 1500 and p['last_heard_lsn'] >= 1 and p['missing_lsns'] == 0, p
        dr = b.dr_token(a.keys[:2])
        want(b.call('PUT', PROMOTE, {'dr_operation_token': 's.' + 'x' * 24, 'preview': True}, token=''), 403)
        assert b.ok('PUT', PROMOTE, {'dr_operation_token': dr, 'preview': True}, token='').data['may_lose_ms'] >= 1500
        assert b.dr_status()['mode'] == 'secondary'
        want(b.call('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': '1s'}, token=''), 400, 'max_loss: up to')
        want(b.call('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': 'much'}, token=''), 400, 'max_loss')
        assert b.dr_status()['mode'] == 'secondary'
        no = cli(b, 'replication', 'promote', f'-dr-token={dr}', stdin='no\n')
        assert no.returncode == 1 and 'may be missing' in no.stderr and 'Nothing was changed' in no.stderr, no
        assert b.dr_status()['mode'] == 'secondary'
        r = cli(b, 'replication', 'promote', '-preview', '-format=json')
        assert r.returncode == 0 and '"keeps_lsn"' in r.stdout, r
        r = cli(b, 'replication', 'promote', f'-dr-token={dr}', '-max-loss=1s', '-yes')
        assert r.returncode == 2 and 'max_loss: up to' in r.stderr, r
        r = cli(b, 'replication', 'promote', f'-dr-token={dr}', '-max-loss=1s', '-force', '-yes')
        assert r.returncode == 0 and 'Success' in r.stdout, r
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}


def bound_of_the_configuration():
    """max_loss of the configuration counts, a request's own beats it, and a strict mode loses nothing"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        with open(b.config, 'a') as f:
            f.write('replication {\n  max_loss = "0s"\n}\n')
        for s in (a, b):
            s.start()
            s.init()
        w.enable(a, b)
        a.ok('PUT', 'sys/replication/dr/primary/mode', {'id': 'secondary', 'mode': 'flush'})
        w.await_caught_up(a, b)
        a.kill()
        await_true('the link to be seen as cut', lambda: not preview(b)['connected'])
        p = preview(b)
        assert p['no_loss'] and p['may_lose_ms'] == 0 and p['max_loss_ms'] == 0, p
        b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        # The new primary's secondary is async.
        b.token = a.root
        c = w.server('third')
        with open(c.config, 'a') as f:
            f.write('replication {\n  max_loss = "0s"\n}\n')
        c.start()
        c.init()
        w.enable(b, c, 'third')
        b.kill()
        await_true('the link to be seen as cut', lambda: not preview(c)['connected'] and preview(c)['may_lose_ms'] > 0)
        dr = c.dr_token(a.keys[:2])
        want(c.call('PUT', PROMOTE, {'dr_operation_token': dr}, token=''), 400, 'and 0.0s is accepted')
        c.ok('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': '1h'}, token='')


def token_of_before():
    """a batch token with a policy, made on the primary before the disaster, promotes; one without that policy does not"""
    with World() as w:
        a, b = w.pair()
        a.ok('PUT', 'sys/policies/acl/dr', {'policy': f'path "{PROMOTE}" {{ capabilities = ["update"] }}'})
        a.ok('PUT', 'sys/policies/acl/other', {'policy': 'path "kv/*" { capabilities = ["update"] }'})
        tokens = {}
        for p in ('dr', 'other'):
            a.ok('PUT', f'auth/token/roles/{p}', {'allowed_policies': p, 'orphan': True, 'renewable': False, 'token_type': 'batch'})
            tokens[p] = a.ok('PUT', f'auth/token/create/{p}', {'ttl': '1h'}).json['auth']['client_token']
        w.await_caught_up(a, b)
        a.kill()
        want(b.call('PUT', PROMOTE, {'dr_operation_token': tokens['other']}, token=''), 403)
        assert b.ok('PUT', PROMOTE, {'dr_operation_token': tokens['dr'], 'preview': True}, token='').data['epoch'] == 2
        b.ok('PUT', PROMOTE, {'dr_operation_token': tokens['dr']}, token='')
        assert b.dr_status()['mode'] == 'primary'


if __name__ == '__main__':
    sys.exit(run_tests([loss_is_told, bound_of_the_configuration, token_of_before], 'act'))
