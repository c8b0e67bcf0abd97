#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequence 14, what is replicated and what is local: a test for each cell of the design's table, on one pair of servers.

The rows are the seal, the data, the cluster's identity, the CA's key, and what is local; the columns are secondary/enable, drill and restore, and
promote, demote and rejoin. The tests go through the columns in this order and stand on those before: they run all, in one go.
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402
from drill import DRILL, Fork, await_state, start  # noqa: E402
from snapshot import born, restore, save  # noqa: E402

PRIMARY, SECONDARY = 'sys/replication/dr/primary/', 'sys/replication/dr/secondary/'


def want(reply, status, text=''):
    if reply.status != status or text not in reply.text:
        raise Failed(f'wanted {status} with {text!r}, got {reply.status} {reply.text[:300]}')


def seal_of(s):
    r = s.ok('GET', 'sys/seal-status', token='').json
    return r['t'], r['n']


def restart(s):
    s.kill()
    s.start()


def opens(s, keys):
    """Whether the keys unseal it."""
    r = [s.call('PUT', 'sys/unseal', {'key': k}, token='') for k in keys]
    s.call('PUT', 'sys/unseal', {'reset': True}, token='')
    return all(x.status == 200 for x in r) and not s.call('GET', 'sys/seal-status', token='').json['sealed']


def link(s):
    with open(f'{s.dir}/data/link/identity.json') as f:
        return json.load(f)


def operation_tokens(s, token):
    return s.call('GET', DRILL, token=token).status


class Scene:
    """A primary with one of everything, and what was a cluster of its own before it became its secondary."""

    def __init__(self):
        self.w = w = World()
        self.a, self.b = a, b = w.server('primary'), w.server('secondary')
        a.start()
        a.init(5, 3)
        b.start()
        b.init()
        self.b_keys = b.keys
        self.audit = os.path.join(w.dir, 'audit.log')
        self.fill()
        b.ok('POST', 'sys/mounts/own', {'type': 'kv'})
        b.ok('PUT', 'own/x', {'v': 'own'})
        b.ok('PUT', 'sys/config/cors', {'allowed_origins': ['https://own.example']})
        b.ok('PUT', 'sys/policies/acl/own', {'policy': 'path "own/*" { capabilities = ["read"] }'})
        w.enable(a, b)
        b.keys, b.threshold = a.keys, 3
        self.later = self.wrapped(a.ok('PUT', PRIMARY + 'secondary-token', {'id': 'later'}))
        w.await_caught_up(a, b)

    def wrapped(self, r):
        return r.json['wrap_info']['token']

    def fill(self):
        a = self.a
        a.ok('PUT', 'sys/rotate', {})
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': 'x'})
        a.ok('PUT', 'sys/audit/file', {'type': 'file', 'options': {'file_path': self.audit}})
        a.ok('PUT', 'sys/config/cors', {'allowed_origins': ['https://a.example']})
        a.ok('PUT', 'sys/policies/acl/reader', {'policy': 'path "kv/*" { capabilities = ["read"] }'})
        a.ok('POST', 'sys/auth/up', {'type': 'userpass'})
        a.ok('PUT', 'auth/up/users/bob', {'password': 'pw', 'policies': 'reader'})
        self.lease = a.ok('PUT', 'auth/up/login/bob', {'password': 'pw'}, token='').json['auth']
        a.ok('POST', 'auth/token/roles/batch', {'allowed_policies': 'reader', 'orphan': True, 'renewable': False, 'token_type': 'batch'})
        self.batch = self.new_batch(a)
        self.child = a.ok('PUT', 'auth/token/create', {'policies': ['default', 'reader'], 'ttl': '1h'}).json['auth']
        a.ok('PUT', 'cubbyhole/c', {'v': 'c'}, token=self.child['client_token'])
        self.wrap = [self.wrapped(a.ok('GET', 'kv/x', headers={'X-Vault-Wrap-TTL': '1h', **more}))
                     for more in ({}, {'X-Vault-Wrap-Format': 'jwt'})]
        a.ok('PUT', 'sys/loggers', {'level': 'debug'})

    def new_batch(self, s):
        return s.ok('PUT', 'auth/token/create/batch', {'policies': ['reader'], 'ttl': '1h'}).json['auth']['client_token']

    def has_data(self, s):
        """s serves: one of everything is there, as it was, and nothing of what the secondary had before."""
        child, lease = self.child['client_token'], self.lease
        assert s.ok('GET', 'kv/x', token=child).data == {'v': 'x'}
        assert s.ok('GET', 'cubbyhole/c', token=child).data == {'v': 'c'}
        assert s.ok('GET', 'auth/token/lookup-self', token=lease['client_token']).data['meta'] == {'username': 'bob'}
        assert 0 < s.ok('GET', 'auth/token/lookup-self', token=lease['client_token']).data['ttl'] <= lease['lease_duration']
        assert s.ok('PUT', 'auth/token/lookup-accessor', {'accessor': self.child['accessor']}).data['policies'] == ['default', 'reader']
        s.ok('PUT', 'auth/up/login/bob', {'password': 'pw'}, token='')
        assert s.ok('GET', 'sys/config/cors').data['allowed_origins'] == ['https://a.example']
        assert s.ok('GET', 'sys/audit').data['file/']['options']['file_path'] == self.audit
        assert 'reader' in s.ok('LIST', 'sys/policies/acl').data['keys']
        assert {'kv/', 'own/'} & set(s.ok('GET', 'sys/mounts').data) == {'kv/'}
        assert 'own' not in s.ok('LIST', 'sys/policies/acl').data['keys']
        for t in self.wrap:
            assert s.ok('PUT', 'sys/wrapping/unwrap', token=t).data == {'v': 'x'}
            want(s.call('PUT', 'sys/wrapping/unwrap', token=t), 400)


the_scene = None


def scene():
    global the_scene
    the_scene = the_scene or Scene()
    return the_scene


def once(step):
    """A step that several cells look at."""
    done = []

    def run(sc):
        if not done:
            done.append(step(sc))
        return done[0]
    return run


# ---- secondary/enable ----

def enable_seal():
    """enable, seal: the secondary has the primary's seal and keyring: its unseal keys open it, and no longer its own"""
    sc = scene()
    restart(sc.b)
    assert seal_of(sc.b) == (3, 5)
    assert not opens(sc.b, [*sc.b_keys])
    assert opens(sc.b, sc.a.keys[:3])
    sc.w.await_following(sc.b)


def enable_data():
    """enable, data: the secondary has every row of the primary and none of its own"""
    sc = scene()
    sc.w.check_same_root(sc.a, sc.b)
    want(sc.b.call('GET', 'own/x'), 400, 'path disabled in replication DR secondary mode')


def enable_identity():
    """enable, identity: one cluster id and epoch, and the secondary is a member by the id of its token"""
    x, y = scene().a.dr_status(), scene().b.dr_status()
    assert x['cluster_id'] == y['cluster_id'] != '' and x['epoch'] == y['epoch'] == 1, (x, y)
    assert y['secondary_id'] == 'secondary' and 'secondary' in x['known_secondaries']
    assert y['primary_cluster_addr'] == x['primary_cluster_addr'] == scene().a.cluster_addr


def enable_ca():
    """enable, CA key: its certificate signs both links; its key lies in clear on neither disk"""
    sc = scene()
    assert link(sc.a)['ca'] == link(sc.b)['ca'] != ''
    for s in (sc.a, sc.b):
        for folder, _, files in os.walk(f'{s.dir}/data'):
            for f in files:
                try:
                    with open(os.path.join(folder, f), 'rb') as data:
                        assert b'PRIVATE KEY' not in data.read() or f == 'identity.json', f
                except FileNotFoundError:
                    pass  # written aside, and renamed since


def enable_local():
    """enable, local: link key, role, operation tokens, ceremonies and log levels are the secondary's own"""
    sc = scene()
    x, y = link(sc.a), link(sc.b)
    assert x['key'] != y['key'] and x['certificate'] != y['certificate']
    assert (sc.a.dr_status()['mode'], sc.b.dr_status()['mode']) == ('primary', 'secondary')
    sc.dr = sc.b.dr_token(sc.a.keys[:3])
    sc.b.ok('PUT', SECONDARY + 'generate-operation-token/attempt', {}, token='')
    assert sc.a.ok('GET', 'sys/generate-root/attempt', token='').json['started'] is False
    restart(sc.b)
    assert opens(sc.b, sc.a.keys[:3])
    sc.w.await_following(sc.b)
    assert operation_tokens(sc.b, sc.dr) == 200, 'an operation token is gone after a restart'
    want(sc.a.call('GET', 'sys/mounts', token=sc.dr), 403)


# ---- drill, restore ----

@once
def forks(sc):
    """A drill of the secondary, and a restored snapshot of the primary: both serve."""
    w, a, b = sc.w, sc.a, sc.b
    w.await_caught_up(a, b)
    fork = Fork(w, a)
    want(start(b, sc.dr, fork), 200)
    sc.drill = await_state(b, sc.dr, 'running')
    path, _ = save(w, a, 'cells.snapshot')
    r = born(w, 'restored', a)
    sc.report = restore(w, r, path)
    sc.had_link = os.path.exists(f'{r.dir}/data/link')
    r.start()
    return fork, r


def fork_seal():
    """drill and restore, seal: copied: the primary's keys open a restored cluster, and a drill has the same seal"""
    sc = scene()
    fork, r = forks(sc)
    assert seal_of(fork) == seal_of(r) == (3, 5)
    assert opens(r, sc.a.keys[:3])


def fork_data():
    """drill and restore, data: copied, each wrapped secret too, while the real one keeps its own; batch tokens are of one cluster"""
    sc = scene()
    for s in forks(sc):
        sc.has_data(s)
        want(s.call('GET', 'kv/x', token=sc.batch), 403)
        mine = sc.new_batch(s)
        assert s.ok('GET', 'kv/x', token=mine).data == {'v': 'x'}
        want(sc.a.call('GET', 'kv/x', token=mine), 403)
    assert sc.a.ok('GET', 'kv/x', token=sc.batch).data == {'v': 'x'}


def fork_identity():
    """drill and restore, identity: a new cluster id and epoch, and no members"""
    sc = scene()
    fork, r = forks(sc)
    ids = [sc.a.dr_status()['cluster_id'], sc.drill['cluster_id'], sc.report['cluster_id']]
    assert len(set(ids)) == 3, ids
    for s, its in ((fork, ids[1]), (r, ids[2])):
        assert s.ok('GET', 'sys/seal-status', token='').json['cluster_id'] == its
        assert s.dr_status() == {'mode': 'disabled'}
    r.ok('PUT', PRIMARY + 'enable', {})
    st = r.dr_status()
    assert st['cluster_id'] == ids[2] and st['epoch'] > sc.a.dr_status()['epoch'] and st['known_secondaries'] == [], st


def fork_ca():
    """drill and restore, CA key: not copied: a restored cluster makes another one when it is enabled"""
    sc = scene()
    assert link(forks(sc)[1])['ca'] != link(sc.a)['ca']


def fork_local():
    """drill and restore, local: no link key, operation token, ceremony or log level comes with it"""
    sc = scene()
    fork, r = forks(sc)
    assert not sc.had_link and not os.path.exists(f'{sc.drill["directory"]}/data/link')
    for s in (fork, r):
        want(s.call('PUT', SECONDARY + 'promote', {'dr_operation_token': sc.dr}), 400, 'Not a DR secondary')
        assert s.ok('GET', 'sys/generate-root/attempt', token='').json['started'] is False
        assert s.ok('GET', 'sys/loggers').data['core'] == 'info'
    r.stop()
    sc.b.ok('PUT', DRILL + '/stop', {'dr_operation_token': sc.dr}, token='')
    await_state(sc.b, sc.dr, 'none')


# ---- promote, demote, rejoin ----

@once
def promoted(sc):
    """The primary is lost, the secondary promoted."""
    sc.w.await_caught_up(sc.a, sc.b)
    sc.link_a, sc.cluster_id = link(sc.a), sc.a.dr_status()['cluster_id']
    sc.a.kill()
    sc.b.ok('PUT', SECONDARY + 'promote', {'dr_operation_token': sc.dr}, token='')
    await_true('service', lambda: sc.b.call('GET', 'sys/mounts').status == 200)
    return sc.b


@once
def rejoined(sc):
    """The old primary is demoted and follows the new one, which has changed its seal meanwhile."""
    a, b = sc.a, promoted(sc)
    r = b.ok('PUT', 'sys/rekey/init', {'secret_shares': 4, 'secret_threshold': 2}).json
    for k in a.keys[:3]:
        got = b.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': r['nonce']}).json
    sc.new_keys = got['keys_base64']
    a.start()
    a.unseal()
    await_true('the old primary to be fenced', lambda: 'superseded' in a.call('GET', 'kv/x').text)
    a.ok('PUT', PRIMARY + 'demote', {})
    sc.dr_a = a.dr_token(a.keys[:3])
    a.ok('PUT', SECONDARY + 'update-primary', {'dr_operation_token': sc.dr_a, 'update_primary_addrs': [b.cluster_addr]}, token='')
    sc.w.await_following(a)
    sc.w.await_caught_up(b, a)
    return a


def promote_seal():
    """promote and rejoin, seal: kept by the promoted one; the one that rejoins takes the new primary's"""
    sc = scene()
    restart(promoted(sc))
    assert seal_of(sc.b) == (3, 5) and opens(sc.b, sc.a.keys[:3])
    a = rejoined(sc)
    restart(a)
    assert seal_of(a) == (2, 4)
    assert not opens(a, sc.a.keys[:2]) and opens(a, sc.new_keys[:2])
    sc.w.await_following(a)


def promote_data():
    """promote and rejoin, data: kept, batch tokens too; open activation tokens die"""
    sc = scene()
    b = promoted(sc)
    sc.has_data(b)
    assert b.ok('GET', 'kv/x', token=sc.batch).data == {'v': 'x'}
    assert b.dr_status()['known_secondaries'].count('later') == 0
    c = sc.w.server('third')
    c.start()
    c.init()
    want(c.call('PUT', SECONDARY + 'enable', {'token': sc.later, 'primary_api_addr': b.addr, 'ca_file': sc.w.ca}), 400)
    sc.third = c
    a = rejoined(sc)
    sc.w.check_same_root(b, a)


def promote_identity():
    """promote and rejoin, identity: the cluster id and the members stay, the epoch is a new one, and both have its history"""
    sc = scene()
    a, b = rejoined(sc), promoted(sc)
    x, y = b.dr_status(), a.dr_status()
    assert x['cluster_id'] == y['cluster_id'] == sc.cluster_id and x['epoch'] == y['epoch'] == 2, (x, y)
    assert y['secondary_id'] == sc.cluster_id and sc.cluster_id in x['known_secondaries'], (x, y)


def promote_ca():
    """promote and rejoin, CA key: the new primary issues from it"""
    sc = scene()
    b = promoted(sc)
    sc.w.enable(b, sc.third, 'third')
    assert link(sc.third)['ca'] == sc.link_a['ca']
    sc.w.await_caught_up(b, sc.third)


def promote_local():
    """promote, demote and rejoin, local: operation tokens are void after a promotion; link keys and log levels stay where they were made"""
    sc = scene()
    a, b = rejoined(sc), promoted(sc)
    assert link(a)['key'] == sc.link_a['key'] != link(b)['key']
    assert b.ok('GET', 'sys/loggers').data['core'] == 'info'
    b.ok('PUT', PRIMARY + 'demote', {})
    assert operation_tokens(b, sc.dr) == 403, 'an operation token of before the promotion'
    sc.dr_a = a.dr_token(sc.new_keys[:2])
    assert operation_tokens(a, sc.dr_a) == 200 and operation_tokens(b, sc.dr_a) == 403
    a.ok('PUT', SECONDARY + 'promote', {'dr_operation_token': sc.dr_a}, token='')
    await_true('service', lambda: a.call('GET', 'kv/x').status == 200)
    a.ok('PUT', PRIMARY + 'demote', {})
    assert operation_tokens(a, sc.dr_a) == 403, 'an operation token of before the promotion'


if __name__ == '__main__':
    code = 1
    try:
        code = run_tests([enable_seal, enable_data, enable_identity, enable_ca, enable_local, fork_seal, fork_data, fork_identity, fork_ca, fork_local,
                          promote_seal, promote_data, promote_identity, promote_ca, promote_local], 'cells')
    finally:
        if the_scene is not None:
            the_scene.w.__exit__(Failed if code else None, None, None)
    sys.exit(code)
