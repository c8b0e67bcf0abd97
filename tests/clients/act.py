#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What operators do with replication: promote with a known loss, guard a wipe, lost writes, switch over."""
import os
import pty
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

PROMOTE = 'sys/replication/dr/secondary/promote'


def cli(server, *args, stdin='', token=None):
    env = {**os.environ, 'VAULT_ADDR': server.addr, 'VAULT_CACERT': server.world.ca, 'VAULT_TOKEN': token or server.token or ''}
    return subprocess.run([server.program, *args], env=env, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


def at_terminal(server, *args, say=''):
    """Exit code and all that a terminal showed; what is said is typed when it is asked for."""
    env = {**os.environ, 'VAULT_ADDR': server.addr, 'VAULT_CACERT': server.world.ca, 'VAULT_TOKEN': server.token or ''}
    ours, theirs = pty.openpty()
    p = subprocess.Popen([server.program, *args], env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    text = b''
    try:
        while True:
            got = os.read(ours, 4096)
            if not got:
                break
            if b'Type yes: ' not in text and b'Type yes: ' in text + got:
                os.write(ours, say.encode() + b'\n')
            text += got
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return p.wait(30), text.decode().replace('\r\n', '\n')


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
        p = await_true('the age to grow', lambda: preview(b)['last_heard_age_ms'] >= 1500 and preview(b))
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
        want(b.call('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': '1s'}, token=''), 400, 'or more: it grows while the primary is not heard')
        want(b.call('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': 'much'}, token=''), 400, 'max_loss')
        for wrong in (True, False):
            want(b.call('PUT', PROMOTE, {'dr_operation_token': dr, 'max_loss': wrong}, token=''), 400, 'a boolean')
        assert b.dr_status()['mode'] == 'secondary'
        none = cli(b, 'replication', 'promote', '-dr-token=-', '-yes')
        assert none.returncode == 1 and 'no -dr-token was given' in none.stderr, none
        no = cli(b, 'replication', 'promote', f'-dr-token={dr}', stdin='no\n')
        assert no.returncode == 1 and 'may be missing' in no.stderr and 'Nothing was changed' in no.stderr, no
        assert b.dr_status()['mode'] == 'secondary'
        r = cli(b, 'replication', 'promote', '-preview', '-format=json')
        assert r.returncode == 0 and '"keeps_lsn"' in r.stdout, r
        r = cli(b, 'replication', 'promote', f'-dr-token={dr}', '-max-loss=1s', '-yes')
        assert r.returncode == 2 and 'max_loss: up to' in r.stderr, r
        # From standard input, so that it stands in no list of processes.
        r = cli(b, 'replication', 'promote', '-dr-token=-', '-max-loss=1s', '-force', stdin=f'{dr}\nyes\n')
        assert r.returncode == 0 and 'Success' in r.stdout, r
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}


def asks_before_a_loss():
    """at a terminal, what loses something says what and asks, and only yes goes on; -y and a script are not asked; a secondary says what it needs"""
    with World() as w:
        a, b = w.pair()
        keys = a.keys[:2]
        # A secondary: which token is needed, and how it is made.
        for args in (('disable',), ('lost', 'show', 'x'), ('lost', 'delete', 'x')):
            r = cli(b, 'replication', *args)
            assert r.returncode == 2 and 'generate-root -dr-token -init' in r.stderr and '-dr-token=-' in r.stderr, r
        assert 'generate-root' not in cli(b, 'list', 'sys/policies/acl').stderr
        assert 'path disabled in replication DR secondary mode' in cli(b, 'kv', 'get', 'kv/x').stderr
        r = cli(a, 'replication', 'lost', 'apply', '-dr-token=s.x', 'x')
        assert r.returncode == 1 and '-from=ADDRESS' in r.stderr, r
        dr = b.dr_token(keys)
        dr_flag = f'-dr-token={dr}'
        for s, args, told in ((a, ['demote'], ['no cluster serves', 'secondary (connected, ', 'switchover']),
                              (a, ['disable'], ['goes on alone', 'secondary (connected, ']),
                              (a, ['revoke', 'secondary'], ['cuts secondary off', 'secondary (connected, ']),
                              (b, ['disable', dr_flag], ['serves the data that it has']),
                              (b, ['update-primary', dr_flag, '-forget'], ['follows nobody']),
                              (b, ['update-primary', dr_flag, '-force', a.cluster_addr], ['gives up', 'saved']),
                              (b, ['lost', 'delete', dr_flag, 'x'], ['are removed']),
                              (a, ['lost', 'apply', '-overwrite', 'x'], ['is replaced by the lost writes']),
                              (b, ['aside', 'delete', dr_flag, '1'], ['is removed for good'])):
            for say in ('no', ''):
                code, text = at_terminal(s, 'replication', *args, say=say)
                assert code == 1 and s.addr in text and all(x in text for x in told) and 'Nothing was changed.' in text, (args, code, text)
        assert a.dr_status()['mode'] == 'primary' and a.dr_status()['known_secondaries'] == ['secondary']
        assert b.dr_status()['mode'] == 'secondary' and b.dr_status()['state'] == 'stream-wals'
        code, text = at_terminal(b, 'replication', 'update-primary', dr_flag, '-forget', say='yes')
        assert code == 0 and b.dr_status()['state'] == 'idle', text
        code, text = at_terminal(b, 'replication', 'update-primary', dr_flag, a.cluster_addr)
        assert code == 0 and 'Type yes' not in text, text
        w.await_following(b)
        for yes in ('-y', '-yes'):
            code, text = at_terminal(b, 'replication', 'update-primary', '-forget', yes, dr_flag)
            assert code == 0 and 'Type yes' not in text and b.dr_status()['state'] == 'idle', text
        b.kill()  # sealed, it cannot say who follows it: it is not waited for
        b.start()
        code, text = at_terminal(b, 'replication', 'demote', say='no')
        assert code == 1 and 'steps down' in text and 'waiting' not in text, text
        r = cli(a, 'replication', 'demote')
        assert r.returncode == 0 and 'Type yes' not in r.stderr and a.dr_status()['mode'] == 'secondary', r


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
        await_true('the secondary to be whole', lambda: a.dr_status()['secondaries'][0]['whole'])
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


def misspelt_fields():
    """what would lose something is refused with a field that it does not know, and nothing is done; elsewhere a warning names the field"""
    with World() as w:
        a, b = w.pair()
        dr, base = b.dr_token(a.keys[:2]), 'sys/replication/dr'
        refused = 'unrecognized parameters: [wrong]. Nothing was done.'
        for verb, body in (('disable', {}), ('demote', {}), ('switchover', {'id': 'secondary'}), ('revoke-secondary', {'id': 'secondary'}),
                           ('mode', {'id': 'secondary', 'mode': 'flush'}), ('quorum', {'members': ['secondary'], 'quorum': 1, 'mode': 'flush'}),
                           ('retention', {'id': 'secondary', 'max_bytes': 1 << 30}), ('lost/apply', {'fork_lsn': 1, 'groups': []})):
            want(a.call('PUT', f'{base}/primary/{verb}', {**body, 'wrong': '1'}), 400, refused)
        want(a.call('DELETE', f'{base}/primary/quorum?wrong=true'), 400, refused)
        for verb, body in (('promote', {'force': True}), ('promote', {'preview': True}), ('disable', {}), ('update-primary', {'token': ''}),
                           ('operation-token/delete', {})):
            want(b.call('PUT', f'{base}/secondary/{verb}', {'dr_operation_token': dr, **body, 'wrong': '1'}, token=''), 400, refused)
        s = a.dr_status()
        assert s['mode'] == 'primary' and s['known_secondaries'] == ['secondary'] and s['secondaries'][0]['mode'] == 'async', s
        assert b.dr_status()['state'] == 'stream-wals', b.dr_status()
        ignored = 'Endpoint ignored these unrecognized parameters: [wrong]'
        for s, method, path, body in ((a, 'PUT', f'{base}/primary/enable', {'primary_cluster_addr': a.cluster_addr}),
                                      (a, 'PUT', f'{base}/primary/secondary-token', {'id': 'third', 'ttl': '1m'}),
                                      (a, 'PUT', 'sys/replication/merkle-check', {}),
                                      (a, 'PUT', 'sys/replication/reindex', {'diff': True, 'force': True, 'skip_flush': False}),
                                      (a, 'GET', f'{base}/status', None),
                                      (a, 'GET', f'{base}/primary/mode', None),
                                      (b, 'GET', f'{base}/secondary/promote', None),
                                      (b, 'PUT', f'{base}/secondary/doctor', {'primary_api_addr': a.addr, 'ca_file': w.ca, 'client_cert_pem': ''}),
                                      (b, 'PUT', f'{base}/secondary/drill/stop', {})):
            if body is not None and s is b:
                body = {**body, 'dr_operation_token': dr}
            token = '' if s is b else None
            r = s.ok(method, path, {**body, 'wrong': '1'}, token=token) if body is not None else s.ok(method, f'{path}?wrong=1', token=token)
            assert ignored in (r.json['warnings'] or []), (path, r.text)
            if path.endswith('secondary-token'):
                a.ok('PUT', f'{base}/primary/revoke-secondary', {'id': 'third'})
            r = s.ok(method, path, body, token=token)
            assert 'unrecognized' not in str(r.json['warnings']), (path, r.text)
        # All of Vault's own fields are known.
        b.ok('PUT', f'{base}/secondary/update-primary', {'dr_operation_token': dr, 'token': token_for(a, 'again'), 'primary_api_addr': '', 'ca_file': w.ca,
                                                         'ca_path': '', 'client_cert_pem': '', 'client_key_pem': ''}, token='')
        w.await_following(b)
        c = w.server('fourth')
        c.start()
        c.init()
        r = c.ok('PUT', f'{base}/secondary/enable', {'token': token_for(a, 'fourth'), 'ca_file': w.ca, 'client_key_pem': '', 'wrong': '1'})
        assert ignored in r.json['warnings'], r.text


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


def token_for(a, ident):
    return a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': ident}).json['wrap_info']['token']


def wipe_is_guarded():
    """a cluster with secrets becomes a secondary only by its name; what it held is set aside, comes back whole, and goes in time"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        for s in (a, b):
            s.start()
            s.init()
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/of', {'v': 'the primary'})
        keys, root = b.keys, b.token
        path, token = 'sys/replication/dr/secondary/enable', token_for(a, 'secondary')
        body = {'token': token, 'ca_file': w.ca}
        b.ok('PUT', 'cubbyhole/mine', {'v': '1'})
        want(b.call('PUT', path, body), 400, 'cubbyhole/ (1 entry)')
        b.ok('POST', 'sys/mounts/own', {'type': 'kv', 'options': {'version': '2'}})
        b.ok('PUT', 'own/data/x', {'data': {'v': '1'}})
        want(b.call('PUT', path, body), 400, 'cluster secondary holds secrets')
        r = b.call('PUT', path, {**body, 'confirm_wipe': 'primary'})
        want(r, 400, 'confirm_wipe names another cluster')
        assert 'own/ (2 entries)' in r.text and 'pass confirm_wipe=secondary' in r.text, r.text
        assert b.ok('GET', 'own/data/x').data['data'] == {'v': '1'} and b.dr_status() == {'mode': 'disabled'}
        b.ok('PUT', path, {**body, 'confirm_wipe': 'secondary'})
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        w.await_following(b)
        aside = b.dr_status()['set_aside']
        assert len(aside) == 1 and aside[0]['cluster_name'] == 'secondary' and aside[0]['until'] > aside[0]['since'], aside
        generation = str(aside[0]['generation'])
        assert f'secondary  ' in cli(b, 'replication', 'aside', 'list').stdout
        # A restart keeps it, and it can be got back while the secondary runs.
        b.kill()
        b.start()
        b.unseal()
        w.await_following(b)
        assert b.dr_status()['set_aside'] == aside
        assert os.path.isdir(f'{b.dir}/data/gen-{generation}')
        back = f'{w.dir}/back'
        r = cli(b, 'replication', 'aside', 'restore', f'{b.dir}/data', '99', back)
        assert r.returncode == 2 and 'not set aside' in r.stderr, r
        r = cli(b, 'replication', 'aside', 'restore', f'{b.dir}/data', generation, back)
        assert r.returncode == 0 and back in r.stdout, r
        r = cli(b, 'replication', 'aside', 'restore', f'{b.dir}/data', generation, back)
        assert r.returncode == 2 and 'is there already' in r.stderr, r
        old = w.server('old', data=back)
        old.start()
        old.unseal(keys[:2])
        assert old.ok('GET', 'own/data/x', token=root).data['data'] == {'v': '1'}
        old.ok('PUT', 'own/data/y', {'data': {'v': '2'}}, token=root)
        assert old.dr_status() == {'mode': 'disabled'}
        old.stop()
        dr = b.dr_token(a.keys[:2])
        drop = 'sys/replication/dr/secondary/aside/delete'
        want(b.call('PUT', drop, {'generation': generation}, token=''), 400, 'dr_operation_token')
        want(b.call('PUT', drop, {'dr_operation_token': dr, 'generation': 99}, token=''), 400, 'not set aside')
        r = cli(b, 'replication', 'aside', 'delete', f'-dr-token={dr}', '99')
        assert r.returncode == 2 and 'not set aside' in r.stderr, r
        a.stop()  # promoted, it is a token of the cluster that lets it
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token='')
        want(b.call('PUT', drop, {'generation': generation}, token=''), 403)
        r = cli(b, 'replication', 'aside', 'delete', generation, token=a.root)
        assert r.returncode == 0, r
        await_true('its folder to go', lambda: not os.path.exists(f'{b.dir}/data/gen-{generation}'))
        assert 'set_aside' not in b.dr_status()


def aside_goes_in_time():
    """what is set aside goes when its time is over, also when that is while the server is down; nothing is kept of an empty cluster"""
    with World() as w:
        a = w.server('primary')
        a.start()
        a.init()
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        for name, keep, secret in (('soon', '1s', True), ('down', '3s', True), ('never', '0s', True), ('empty', '72h', False)):
            b = w.server(name)
            with open(b.config, 'a') as f:
                f.write(f'replication {{\n  keep_wiped = "{keep}"\n}}\n')
            b.start()
            b.init()
            if secret:
                b.ok('POST', 'sys/mounts/own', {'type': 'kv'})
                b.ok('PUT', 'own/x', {'v': '1'})
            b.ok('PUT', 'sys/replication/dr/secondary/enable',
                 {'token': token_for(a, name), 'ca_file': w.ca, **({'confirm_wipe': name} if secret else {})})
            b.threshold, b.keys = a.threshold, a.keys
            w.await_following(b)
            if name == 'down':
                assert len(b.dr_status()['set_aside']) == 1
                b.kill()
                b.start()
                b.unseal()
            await_true(f'nothing to be aside on {name}', lambda: sorted(os.listdir(f'{b.dir}/data/')).count('gen-1') == 0)
            assert 'set_aside' not in b.dr_status()
            b.stop()


def failed_over(w, a, b):
    """b is the primary and has changed on; a, which has more, is back and stands alone. They never saw each other."""
    w.await_caught_up(a, b)
    b.kill()
    yield 'alone'
    a.kill()
    b.start()
    b.unseal(a.keys[:2])
    b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
    yield 'promoted'
    b.stop()
    a.start()
    a.unseal()
    await_true('the old primary to serve', lambda: a.call('GET', 'sys/mounts').status == 200)
    a.ok('PUT', 'sys/replication/dr/primary/disable', {})
    b.start()
    b.unseal(a.keys[:2])
    await_true('the new primary to serve', lambda: b.call('GET', 'sys/mounts').status == 200)


def rejoin(w, a, b):
    b.threshold, b.keys = a.threshold, a.keys
    w.enable(b, a, 'back')
    w.await_caught_up(b, a)


def lost_writes():
    """what only the old primary had is saved before it follows; the primary takes in what it has not changed since, the rest when told to"""
    with World() as w:
        a, b = w.pair()
        b.token = a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('POST', 'sys/mounts/two', {'type': 'kv', 'options': {'version': '2'}})
        for k in ('both', 'gone', 'same'):
            a.ok('PUT', f'kv/{k}', {'v': 'before'})
        for k in ('both', 'one', 'cut'):
            a.ok('PUT', f'two/data/{k}', {'data': {'v': 'before'}})
        steps = failed_over(w, a, b)
        next(steps)
        a.ok('PUT', 'kv/only', {'v': 'lost'})
        a.ok('PUT', 'kv/both', {'v': 'lost'})
        a.ok('PUT', 'kv/same', {'v': 'lost 1'})
        a.ok('PUT', 'kv/same', {'v': 'lost 2'})
        a.ok('DELETE', 'kv/gone')
        a.ok('PUT', 'two/data/one', {'data': {'v': 'lost'}})
        a.ok('PUT', 'two/data/both', {'data': {'v': 'lost'}})
        a.ok('PUT', 'two/data/new', {'data': {'v': 'lost'}})
        a.ok('DELETE', 'two/data/cut')
        gone = a.ok('POST', 'sys/mounts/third', {'type': 'kv'}) and a.ok('PUT', 'third/x', {'v': 'lost'})
        assert gone.status == 204
        token = a.ok('PUT', 'auth/token/create', {'ttl': '1h'}).json['auth']['client_token']
        next(steps)
        b.ok('PUT', 'kv/both', {'v': 'newer'})
        for k in ('both', 'cut'):
            b.ok('PUT', f'two/data/{k}', {'data': {'v': 'newer'}})
        list(steps)
        rejoin(w, a, b)
        saved = a.dr_status()['lost_writes']
        assert len(saved) == 1 and saved[0]['whole'] and saved[0]['epoch'] == 2 and saved[0]['puts'] > 8 and saved[0]['deletes'] >= 1, saved
        ident = saved[0]['id']
        assert os.path.getsize(f'{a.dir}/data/lost/{ident}') > 4096
        assert b'lost' not in open(f'{a.dir}/data/lost/{ident}', 'rb').read()[4096:], 'a secret in clear'
        assert ident in cli(a, 'replication', 'lost', 'list').stdout
        dr = a.dr_token(a.keys[:2])
        want(a.call('PUT', 'sys/replication/dr/secondary/lost/show', {'id': ident}, token=''), 400, 'dr_operation_token')
        want(a.call('PUT', 'sys/replication/dr/secondary/lost/show', {'id': '../local', 'dr_operation_token': dr}, token=''), 400, 'no lost writes')
        want(a.call('PUT', 'sys/replication/dr/primary/lost/show', {'id': ident}, token=''), 400)
        want(b.call('PUT', 'sys/replication/dr/primary/lost/apply', {'fork_lsn': 1, 'groups': []}, token=''), 403)
        shown = cli(a, 'replication', 'lost', 'show', '-dr-token=-', ident, stdin=f'{dr}\n')
        assert shown.returncode == 0 and 'kv/only' in shown.stdout and 'kv/gone' in shown.stdout, shown
        assert 'records are not of secrets' in shown.stderr, shown
        flags = [f'-from={a.addr}', f'-dr-token={dr}', ident]
        r = cli(b, 'replication', 'lost', 'apply', '-dry-run', *flags)
        assert r.returncode == 0, r
        want(b.call('GET', 'kv/only'), 404)
        r = cli(b, 'replication', 'lost', 'apply', *flags)
        assert r.returncode == 0, r
        line = {l.split()[3]: l.split()[0] for l in r.stdout.splitlines()[2:] if l[0] != ' '}
        assert line['kv/only'] == line['kv/same'] == line['kv/gone'] == 'applied' and line['kv/both'] == 'conflict', r.stdout
        assert r.stdout.count('conflict') == 3 and r.stdout.count('no_mount') == 1, r.stdout
        assert b.ok('GET', 'kv/only').data == {'v': 'lost'} and b.ok('GET', 'kv/same').data == {'v': 'lost 2'}
        assert b.ok('GET', 'kv/both').data == {'v': 'newer'}
        want(b.call('GET', 'kv/gone'), 404)
        assert b.ok('GET', 'two/data/one').data['data'] == b.ok('GET', 'two/data/new').data['data'] == {'v': 'lost'}
        assert b.ok('GET', 'two/data/both').data['data'] == {'v': 'newer'}
        assert b.ok('GET', 'two/data/one?version=1').data['data'] == {'v': 'before'}
        want(b.call('GET', 'auth/token/lookup-self', token=token), 403)
        # Given again it changes nothing; told to, it takes the rest, and nothing else.
        r = cli(b, 'replication', 'lost', 'apply', *flags)
        assert r.returncode == 0 and 'applied' not in r.stdout and r.stdout.count('already') >= 5, r.stdout
        for n in (3, 4):
            b.ok('PUT', 'two/data/both', {'data': {'v': f'newer {n}'}})
        r = cli(b, 'replication', 'lost', 'apply', '-dry-run', '-overwrite', *flags)
        assert r.returncode == 0 and r.stdout.count('version_5') == 1 and r.stdout.count('overwritten') == 1, r.stdout
        r = cli(b, 'replication', 'lost', 'apply', '-overwrite', *flags)
        assert r.returncode == 0 and r.stdout.count('version_5') == 1 and r.stdout.count('overwritten') == 1, r.stdout
        assert b.ok('GET', 'kv/both').data == b.ok('GET', 'two/data/both').data['data'] == {'v': 'lost'}
        # A secret with versions that are newer here keeps them: the lost one comes behind them, once.
        r = cli(b, 'replication', 'lost', 'apply', '-overwrite', *flags)
        assert r.returncode == 0 and 'version_' not in r.stdout and r.stdout.count('conflict') == 1, r.stdout
        assert b.ok('GET', 'two/data/cut').data['data'] == {'v': 'newer'} and b.ok('GET', 'two/data/cut?version=1').status == 200
        versions = [b.ok('GET', f'two/data/both?version={n}').data['data']['v'] for n in range(1, 6)]
        assert versions == ['before', 'newer', 'newer 3', 'newer 4', 'lost'], versions
        assert sorted(b.ok('GET', 'two/metadata/both').data['versions']) == list('12345')
        assert b.ok('PUT', 'two/data/both', {'data': {'v': 'goes on'}}).data['version'] == 6
        w.check_same_root(b, a)
        # More than are shown: they are counted, and come as the others go.
        copies = [f'{a.dir}/data/lost/copy-{i}' for i in range(17)]
        for c in copies:
            shutil.copy(f'{a.dir}/data/lost/{ident}', c)
        a.stop()
        a.start()
        a.unseal(b.keys[:2])
        await_true('the list of what is saved', lambda: a.dr_status().get('lost_writes_unshown') == 2, 10)
        assert len(a.dr_status()['lost_writes']) == 16
        assert '2 more, older ones, are saved' in cli(a, 'replication', 'lost', 'list').stdout
        for c in copies:
            os.unlink(c)
        r = cli(a, 'replication', 'lost', 'delete', f'-dr-token={dr}', ident)
        assert r.returncode == 0 and 'lost_writes' not in a.dr_status() and 'lost_writes_unshown' not in a.dr_status(), r


def lost_under_a_term_of_its_own():
    """lost writes sealed under a key term that the new primary never had are opened all the same, after both rotated"""
    with World() as w:
        a, b = w.pair()
        b.token = a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': 'before'})
        steps = failed_over(w, a, b)
        next(steps)
        a.ok('PUT', 'sys/rotate', {})
        a.ok('PUT', 'kv/only', {'v': 'under the new term'})
        next(steps)
        b.ok('PUT', 'sys/rotate', {})
        list(steps)
        rejoin(w, a, b)
        ident = a.dr_status()['lost_writes'][0]['id']
        dr = a.dr_token(a.keys[:2])
        r = cli(b, 'replication', 'lost', 'apply', f'-from={a.addr}', f'-dr-token={dr}', ident)
        assert r.returncode == 0 and 'applied' in r.stdout and 'unreadable' not in r.stdout, r
        assert b.ok('GET', 'kv/only').data == {'v': 'under the new term'}
        # After a failback the same files are shown by their own cluster's tokens.
        w.await_caught_up(b, a)
        b.stop()
        a.ok('PUT', PROMOTE, {'dr_operation_token': a.dr_token(a.keys[:2])}, token='')
        a.token = a.root
        r = cli(a, 'replication', 'lost', 'apply', ident)
        assert r.returncode == 0 and 'already' in r.stdout, r


def points_back(w, a, b, keys):
    """a was the primary, b is it now and down: a is demoted, and pointed to b, which it cannot hear yet."""
    a.start()
    a.unseal()
    await_true('the old primary to serve', lambda: a.call('GET', 'sys/mounts').status == 200)
    a.ok('PUT', 'sys/replication/dr/primary/demote', {})
    a.ok('PUT', 'sys/replication/dr/secondary/update-primary',
         {'dr_operation_token': a.dr_token(keys), 'update_primary_addrs': [b.cluster_addr]}, token='')
    a.kill()


def in_log(s, text):
    with open(s.log, errors='replace') as f:
        return text in f.read()


def lost_writes_wait_for_the_keys():
    """an old primary that is sealed keeps its lost writes in its log, through restarts, until its old keys open it; then they are saved, shown and applied"""
    with World() as w:
        a, b = w.pair()
        keys, b.token = a.keys[:2], a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': 'before'})
        w.await_caught_up(a, b)
        b.kill()
        a.ok('PUT', 'sys/rotate', {})
        a.ok('PUT', 'kv/only', {'v': 'under the new term'})
        last = a.dr_status()['last_dr_wal']
        a.kill()
        b.start()
        b.unseal(keys)
        b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(keys)}, token='')
        b.ok('PUT', 'kv/x', {'v': 'after'})
        # The new primary changes the seal: the old keys open the old one only.
        r = b.ok('PUT', 'sys/rekey/init', {'secret_shares': 3, 'secret_threshold': 2}).json
        for k in keys:
            new = b.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': r['nonce']}).json
        new = new['keys_base64'][:2]
        b.stop()
        points_back(w, a, b, keys)
        b.start()
        b.unseal(new)
        for restarts in range(2):
            os.truncate(a.log, 0)
            a.start()
            await_true('the sealed one to say why it waits', lambda: in_log(a, 'lost_writes_sealed: '), 10)
            assert in_log(a, 'unseal it with the keys that it had then')
            assert os.listdir(f'{a.dir}/data/lost') == ['saving'], 'saved without the keys'
            r = subprocess.run([w.program, 'wal', 'verify', f'{a.dir}/data/gen-1/wal'], stdout=subprocess.PIPE, text=True)
            assert r.returncode == 0 and int(r.stdout.split('lsn 1-')[1].split(',')[0]) >= last, 'the log was cut before it was saved'
            if restarts == 0:
                a.kill()
        a.unseal(keys)
        w.await_following(a)
        w.check_same_root(b, a)
        x = a.dr_status()
        assert 'lost_writes_sealed' not in [c['code'] for c in x['reasons']], x
        saved, = x['lost_writes']
        assert saved['whole'] and saved['last_lsn'] >= last, saved
        # Sealed and opened again, now by the new keys, it has them still.
        a.kill()
        a.start()
        a.unseal(new)
        w.await_following(a)
        dr = a.dr_token(new)
        r = cli(a, 'replication', 'lost', 'show', f'-dr-token={dr}', saved['id'])
        assert r.returncode == 0 and 'kv/only' in r.stdout, r
        r = cli(b, 'replication', 'lost', 'apply', f'-from={a.addr}', f'-dr-token={dr}', saved['id'])
        assert r.returncode == 0 and 'applied' in r.stdout and 'unreadable' not in r.stdout, r
        assert b.ok('GET', 'kv/only').data == {'v': 'under the new term'} and b.ok('GET', 'kv/x').data == {'v': 'after'}


def lost_writes_outlive_changes_of_the_role():
    """lost writes of each time that a cluster was the primary are kept through demote, update-primary by address and by token, and promotions; each is applied on its own"""
    with World() as w:
        a, b = w.pair()
        keys, b.token = a.keys[:2], a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        w.await_caught_up(a, b)
        for i, by_token in enumerate((False, True)):
            # a is the primary and writes alone; b is promoted without that; a comes back as its secondary.
            b.kill()
            a.ok('PUT', f'kv/only{i}', {'v': f'lost {i}'})
            a.kill()
            b.start()
            b.unseal(keys)
            b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(keys)}, token='')
            if by_token:
                a.start()
                a.unseal()
                await_true('the old primary to be fenced', lambda: 'superseded' in a.call('GET', 'kv/x').text)
                a.ok('PUT', 'sys/replication/dr/primary/demote', {})
                a.kill()
                a.start()
                a.unseal()
                a.ok('PUT', 'sys/replication/dr/secondary/update-primary',
                     {'dr_operation_token': a.dr_token(keys), 'token': token_for(b, f'again{i}'), 'ca_file': w.ca}, token='')
            else:
                b.stop()
                points_back(w, a, b, keys)
                a.start()
                b.start()
                b.unseal(keys)
                a.unseal()
            w.await_following(a)
            w.await_caught_up(b, a)
            assert len(a.dr_status()['lost_writes']) == i + 1, a.dr_status()
            if i == 0:  # and back
                want(b.call('GET', 'kv/only0'), 404)
                b.ok('PUT', 'sys/replication/dr/primary/demote', {})
                a.ok('PUT', PROMOTE, {'dr_operation_token': a.dr_token(keys)}, token='')
                assert len(a.dr_status()['lost_writes']) == 1, 'a promotion forgot them'
                b.ok('PUT', 'sys/replication/dr/secondary/update-primary',
                     {'dr_operation_token': b.dr_token(keys), 'update_primary_addrs': [a.cluster_addr]}, token='')
                w.await_following(b)
                w.await_caught_up(a, b)
        # Forget the primary, remember it: the files stay.
        for addrs in ([], [b.cluster_addr]):
            a.ok('PUT', 'sys/replication/dr/secondary/update-primary', {'dr_operation_token': a.dr_token(keys), 'update_primary_addrs': addrs}, token='')
        w.await_following(a)
        saved = sorted(a.dr_status()['lost_writes'], key=lambda s: s['first_lsn'])
        assert len(saved) == 2 and 'lost_writes' not in b.dr_status(), saved
        dr = a.dr_token(keys)
        for i in (1, 0):
            r = cli(b, 'replication', 'lost', 'apply', f'-from={a.addr}', f'-dr-token={dr}', saved[i]['id'])
            assert r.returncode == 0 and 'applied' in r.stdout, r
            assert b.ok('GET', f'kv/only{i}').data == {'v': f'lost {i}'}
            want(b.call('GET', 'kv/only0'), 404 if i == 1 else 200)


def nothing_expires_on_a_secondary():
    """a secondary expires nothing; after its promotion what is over is refused at once, and goes"""
    with World() as w:
        a, b = w.pair()
        b.token = a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        short = a.ok('PUT', 'auth/token/create', {'ttl': '2s', 'policies': ['root']}).json['auth']
        long = a.ok('PUT', 'auth/token/create', {'ttl': '1h'}).json['auth']
        w.await_caught_up(a, b)
        a.kill()
        await_true('the link to be seen as cut', lambda: not preview(b)['connected'])
        root = b.dr_status()['merkle_root']
        await_true('the token to be over', lambda: preview(b)['last_heard_age_ms'] > 4000)
        assert b.dr_status()['merkle_root'] == root, 'a secondary changed its data by itself'
        b.ok('PUT', PROMOTE, {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
        want(b.call('GET', 'auth/token/lookup-self', token=short['client_token']), 403)
        assert b.call('GET', 'auth/token/lookup-self', token=long['client_token']).status == 200
        await_true('it to be removed', lambda: b.call('PUT', 'auth/token/lookup-accessor', {'accessor': short['accessor']}).status in (400, 403, 404))


def switchover():
    """a switchover loses nothing that was answered under load, pauses shortly, makes the old primary a secondary, and goes back the same way"""
    with World() as w:
        a, b = w.pair()
        b.token = a.root
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        path = 'sys/replication/dr/primary/switchover'
        want(a.call('PUT', path, {'id': 'nobody'}), 400, 'no secondary with ID \\"nobody\\": known are secondary')
        want(a.call('PUT', path, {}), 400, 'secondary ID must be provided')
        want(a.call('PUT', path, {'id': 'secondary', 'limit': '-1s'}), 400, 'limit')
        want(a.call('PUT', path, {'id': 'secondary'}, token=''), 403)
        answered, stop = [], threading.Event()

        def write(n):
            i = 0
            while not stop.is_set():
                i += 1
                if a.call('PUT', f'kv/{n}-{i}', {'v': i}).status == 204:
                    answered.append((n, i))
        threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
        for t in threads:
            t.start()
        await_true('some writes', lambda: len(answered) > 60)
        r = cli(a, 'replication', 'switchover', '-yes', 'secondary')
        stop.set()
        for t in threads:
            t.join()
        assert r.returncode == 0 and b.addr in r.stdout, r
        s = b.dr_status()
        assert s['mode'] == 'primary' and s['epoch'] == 2, s
        await_true('the old primary to follow', lambda: a.dr_status()['mode'] == 'secondary' and a.dr_status()['state'] == 'stream-wals')
        assert 'switchover' not in a.dr_status() and 'lost_writes' not in a.dr_status(), a.dr_status()
        for n, i in answered:
            assert b.ok('GET', f'kv/{n}-{i}').data == {'v': i}
        want(a.call('PUT', 'kv/x', {'v': 1}), 400, 'path disabled in replication DR secondary mode')
        b.ok('PUT', 'kv/x', {'v': 'b'})
        w.check_same_root(b, a)
        # And back, by the id that the first primary has.
        back = a.dr_status()['secondary_id']
        await_true('it to be known', lambda: any(p['node_id'] == back and p['connection_status'] == 'connected' for p in b.dr_status()['secondaries']))
        await_true('it to be ready', lambda: b.call('PUT', path, {'id': back}).status == 200 or b.dr_status()['mode'] != 'primary')
        await_true('it to serve again', lambda: a.call('GET', 'kv/x').status == 200)
        assert a.ok('GET', 'kv/x').data == {'v': 'b'} and a.dr_status()['epoch'] == 3
        a.ok('PUT', 'kv/x', {'v': 'a'})
        w.await_following(b)
        w.await_caught_up(a, b)


def switchover_goes_back():
    """a secondary that is sealed or away is not handed over to, and one that does not catch up within the limit: writes go on"""
    with World() as w:
        a, b = w.pair()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        path = 'sys/replication/dr/primary/switchover'
        w.await_caught_up(a, b)
        b.kill()
        b.start()
        await_true('the sealed secondary to be connected', lambda: a.dr_status()['secondaries'][0]['connection_status'] == 'connected')
        want(a.call('PUT', path, {'id': 'secondary'}), 400, 'it does not say that it can be promoted')
        b.unseal(a.keys[:2])
        await_true('it to be ready', lambda: 'does not say' not in a.call('PUT', path, {'id': 'secondary', 'limit': '1ms'}).text or a.dr_status()['mode'] != 'primary')
        if a.dr_status()['mode'] == 'primary':
            a.ok('PUT', 'kv/x', {'v': '1'})  # 1 ms was too short: writes went on
        b.stop()
        if a.dr_status()['mode'] == 'primary':
            want(a.call('PUT', path, {'id': 'secondary'}), 400, 'not connected')
            a.ok('PUT', 'kv/y', {'v': '1'})


if __name__ == '__main__':
    sys.exit(run_tests([loss_is_told, asks_before_a_loss, bound_of_the_configuration, misspelt_fields, token_of_before, wipe_is_guarded, aside_goes_in_time, lost_writes, lost_under_a_term_of_its_own,
                        lost_writes_wait_for_the_keys, lost_writes_outlive_changes_of_the_role,
                        nothing_expires_on_a_secondary, switchover, switchover_goes_back], 'act'))
