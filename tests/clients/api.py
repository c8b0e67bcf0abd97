#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP API as Vault's clients and scripts use it, beyond the walk: texts, status codes and JSON types."""
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, await_true, run_tests  # noqa: E402

LOGICAL = '1 error occurred:\n\t* {}\n\n'.format
UUID = re.compile(r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}')


def want(r, status, *texts):
    """Every text is one whole entry of `errors`."""
    if r.status != status or any(t not in (r.errors or ()) for t in texts):
        raise Failed(f'wanted {status} {texts}, got {r.status} {r.text[:600]}')
    return r


def equal(got, expected):
    if got != expected:
        raise Failed(f'wanted {expected!r}\ngot    {got!r}')


def has(got, **fields):
    for k, v in fields.items():
        if k not in got or got[k] != v or type(got[k]) is not type(v):
            raise Failed(f'wanted {k}={v!r}, got {got.get(k, "nothing")!r} in {got}')


class Api:
    """One server and a shorthand for each verb."""

    def __init__(self, w, **kw):
        self.s = w.server('one', **kw)
        self.s.start()
        self.s.init()
        self.root = self.s.root

    def __call__(self, method, path, body=None, **kw):
        return self.s.call(method, path, body, **kw)

    def ok(self, *args, **kw):
        return self.s.ok(*args, **kw)

    def token(self, **kw):
        return self.ok('POST', 'auth/token/create', kw).json['auth']

    def policy(self, name, text):
        self.ok('PUT', f'sys/policies/acl/{name}', {'policy': text})


def tokens():
    """auth/token: roles, accessors, orphans, renewal, batch tokens, tidy"""
    with World() as w:
        a = Api(w)
        a.policy('p1', 'path "kv/*" { capabilities = ["read"] }')
        auth = a.token(policies=['p1'], ttl='1h', meta={'a': 1}, display_name='my name', period='')
        has(auth, policies=['default', 'p1'], token_policies=['default', 'p1'], metadata={'a': '1'}, lease_duration=3600,
            renewable=True, entity_id='', token_type='service', orphan=False, num_uses=0)
        assert auth['mfa_requirement'] is None
        d = a.ok('POST', 'auth/token/lookup-accessor', {'accessor': auth['accessor']}).data
        has(d, id='', display_name='token-my-name', path='auth/token/create', orphan=False, type='service', explicit_max_ttl=0,
            creation_ttl=3600, num_uses=0, renewable=True, policies=['default', 'p1'], meta={'a': '1'})
        want(a('POST', 'auth/token/lookup-accessor', {'accessor': 'x' * 24}), 400, LOGICAL('invalid accessor'))
        want(a('POST', 'auth/token/lookup', {'token': 's.' + 'x' * 24}), 403, 'bad token')
        has(a.ok('GET', 'auth/token/lookup').data, display_name='root', path='auth/token/root', ttl=0, creation_ttl=0, orphan=True)
        r = a.ok('POST', 'auth/token/renew', {'token': auth['client_token'], 'increment': '30m'}).json['auth']
        has(r, lease_duration=1800, client_token=auth['client_token'])
        r = a.ok('POST', 'auth/token/renew-accessor', {'accessor': auth['accessor'], 'increment': 60}).json['auth']
        has(r, lease_duration=60)
        assert a.ok('GET', 'auth/token/lookup-self', token=auth['client_token']).data['last_renewal_time'] > 0
        want(a('POST', 'auth/token/renew', {}), 400, 'missing token ID')
        want(a('POST', 'auth/token/renew-self', {}), 400, 'invalid lease ID')
        want(a('POST', 'auth/token/revoke', {}), 400, 'missing token ID')
        want(a('GET', 'auth/token/revoke'), 405, LOGICAL('unsupported operation'))
        want(a('GET', 'auth/token/create'), 405, LOGICAL('unsupported operation'))
        want(a('POST', 'auth/token/revoke', {'token': 's.' + 'x' * 24}), 204)
        r = want(a('POST', 'auth/token/revoke-accessor', {'accessor': 'x' * 24}), 200)
        equal(r.json['warnings'], ['No token found with this accessor'])
        want(a('POST', 'auth/token/revoke-orphan', {'token': 's.' + 'x' * 24}), 400, 'token to revoke not found')

        # A tree: revoke kills it, revoke-orphan spares the children.
        a.policy('maker', 'path "auth/token/create" { capabilities = ["update"] }')
        top = a.token(policies=['maker'])
        child = a.ok('POST', 'auth/token/create', {}, token=top['client_token']).json['auth']
        a.ok('POST', 'auth/token/revoke-orphan', {'token': top['client_token']})
        want(a('GET', 'auth/token/lookup-self', token=top['client_token']), 403)
        has(a.ok('GET', 'auth/token/lookup-self', token=child['client_token']).data, orphan=True)
        grand = a.ok('POST', 'auth/token/create', {}, token=child['client_token']).json['auth']
        a.ok('POST', 'auth/token/revoke-accessor', {'accessor': child['accessor']})
        await_true('the child to be gone', lambda: a('GET', 'auth/token/lookup-self', token=grand['client_token']).status == 403, 5)
        want(a('POST', 'auth/token/create', {'no_parent': True}, token=a.token(policies=['maker'])['client_token']), 400,
             'root or sudo privileges required to create orphan token')

        # A token is renewed for as long as it was given the last time, and nothing is left out where it just began.
        t = a.token(policies=['p1'], ttl='1h')['client_token']
        has(a.ok('POST', 'auth/token/renew', {'token': t, 'increment': 60}).json['auth'], lease_duration=60)
        has(a.ok('POST', 'auth/token/renew', {'token': t}).json['auth'], lease_duration=60)
        want(a('POST', 'auth/token/renew', {'token': t, 'increment': 'x'}), 400,
             'Field validation failed: error converting input for field "increment": time: invalid duration "x"')
        has(a.ok('GET', f'auth/token/lookup?token={t}').data, id=t)
        has(a.ok('POST', 'auth/token/lookup', {'token': ''}).data, id=a.root)
        equal(a.ok('POST', 'auth/token/lookup', {'token': t, 'zz': 1}).json['warnings'],
              ['Endpoint ignored these unrecognized parameters: [zz]'])
        await_true('the first half of a second', lambda: time.time() % 1 < 0.5)  # what is left is counted in whole ones
        r = a.ok('POST', 'auth/token/renew', {'token': a.token(policies=['p1'], ttl='768h')['client_token']}).json
        equal((r['warnings'], r['auth']['lease_duration']), (None, 2764800))
        want(a('POST', 'auth/token/revoke-accessor', {'accessor': ''}), 400, LOGICAL('missing accessor'))
        want(a('POST', 'auth/token/create', {'id': 'hvs.x'}), 400, "custom token ID cannot have the 'hvs.' prefix")
        equal(a.token(policies=['default', 'p1'], no_default_policy=True)['policies'], ['p1'])
        a.policy('maker', 'path "auth/token/create" { capabilities = ["update"] }')
        equal(a.ok('POST', 'auth/token/create', {'no_default_policy': True}, token=a.token(policies=['maker'])['client_token'])
              .json['auth']['policies'], ['maker'])

        # Roles
        want(a('LIST', 'auth/token/roles'), 404)
        a.ok('POST', 'auth/token/roles/few', {'token_num_uses': 3, 'period': '1h', 'explicit_max_ttl': '2h'})
        has(a.ok('GET', 'auth/token/roles/few').data, token_num_uses=3, period=3600, token_period=3600, explicit_max_ttl=7200,
            token_explicit_max_ttl=7200, allowed_entity_aliases=None)
        has(a.ok('POST', 'auth/token/create/few', {'policies': ['p1']}).json['auth'], num_uses=3)
        r = a.ok('POST', 'auth/token/create/few', {'policies': ['p1'], 'num_uses': 2, 'period': '2h', 'explicit_max_ttl': '3h'}).json
        has(r['auth'], num_uses=2)
        equal(r['warnings'], ['Explicit max TTL specified both during creation call and in role; using the lesser value of 7200 seconds',
                              'Period specified both during creation call and in role; using the lesser value of 3600 seconds'])
        want(a('POST', 'auth/token/roles/few', {'token_num_uses': -1}), 400,
             "error parsing role fields: 'token_num_uses' cannot be negative")
        a.ok('POST', 'auth/token/roles/few', {'token_period': '2h', 'token_num_uses': 0})
        has(d := a.ok('GET', 'auth/token/roles/few').data, period=0, token_period=7200)
        assert 'token_num_uses' not in d, d
        want(a('POST', 'auth/token/roles/few', {'token_type': ''}), 400, "invalid 'token_type' value \"\"")
        a.ok('DELETE', 'auth/token/roles/few')
        a.ok('POST', 'auth/token/roles/app', {'allowed_policies': 'p1,default', 'orphan': True, 'token_period': '1h',
                                              'renewable': False, 'path_suffix': 'sfx'})
        equal(a.ok('LIST', 'auth/token/roles').data['keys'], ['app'])
        d = a.ok('GET', 'auth/token/roles/app').data
        equal({k: d[k] for k in ('allowed_policies', 'allowed_policies_glob', 'disallowed_policies', 'disallowed_policies_glob',
                                 'explicit_max_ttl', 'name', 'orphan', 'path_suffix', 'period', 'renewable', 'token_explicit_max_ttl',
                                 'token_no_default_policy', 'token_period', 'token_type')},
              {'allowed_policies': ['default', 'p1'], 'allowed_policies_glob': [], 'disallowed_policies': [],
               'disallowed_policies_glob': [], 'explicit_max_ttl': 0, 'name': 'app', 'orphan': True, 'path_suffix': 'sfx', 'period': 0,
               'renewable': False, 'token_explicit_max_ttl': 0, 'token_no_default_policy': False, 'token_period': 3600,
               'token_type': 'default-service'})
        t = a.ok('POST', 'auth/token/create/app', {'policies': ['p1']}).json['auth']
        has(t, orphan=True, renewable=False, lease_duration=3600)
        has(a.ok('GET', 'auth/token/lookup-self', token=t['client_token']).data, role='app', path='auth/token/create/app/sfx',
            period=3600)
        want(a('POST', 'auth/token/create/none', {}), 400, 'unknown role none')
        a.ok('POST', 'auth/token/roles/no', {'disallowed_policies': ['p9']})
        want(a('POST', 'auth/token/create/no', {'policies': ['p9']}), 400, 'token policy "p9" is disallowed by this role')
        want(a('POST', 'auth/token/create/app', {'policies': ['p2']}), 400,
             'token policies (["default" "p2"]) must be subset of the role\'s allowed policies (["default" "p1"]) or glob policies ([])')
        a.ok('DELETE', 'auth/token/roles/app')
        want(a('GET', 'auth/token/roles/app'), 404)
        r = want(a('POST', 'auth/token/tidy', {}), 202)
        assert r.json['warnings'], r.text

        # Batch tokens
        b = a.token(type='batch', policies=['p1'], ttl='1h')
        has(b, token_type='batch', accessor='', renewable=False)
        want(a('POST', 'auth/token/revoke', {'token': b['client_token']}), 400, 'batch tokens cannot be revoked')
        want(a('POST', 'auth/token/renew', {'token': b['client_token']}), 400, 'batch tokens cannot be renewed')
        want(a('POST', 'cubbyhole/x', {'a': 1}, token=b['client_token']), 400,
             "cubbyhole operations are only supported by 'service' type tokens")
        want(a('POST', 'auth/token/create', {'type': 'batch', 'num_uses': 2}), 400, 'batch tokens cannot have "num_uses" set')
        want(a('POST', 'auth/token/create', {'type': 'nope'}), 400, "invalid 'token_type' value")
        r = a.ok('POST', 'auth/token/create', {'ttl': '9999h', 'policies': ['ghost']})
        equal(sorted(r.json['warnings']), ['Policy "ghost" does not exist', 'TTL of "9999h" exceeded the effective max_ttl of '
                                           '"768h"; TTL value is capped accordingly'])


def userpass():
    """auth/userpass: users, login, and what the token is"""
    with World() as w:
        a = Api(w)
        want(a('POST', 'sys/auth/nope', {'type': 'nope'}), 400)
        a.ok('POST', 'sys/auth/userpass', {'type': 'userpass', 'description': 'people'})
        want(a('POST', 'sys/auth/userpass', {'type': 'userpass'}), 400, 'path is already in use at userpass/')
        want(a('POST', 'auth/userpass/users/bob', {}), 400, 'missing password')
        a.ok('POST', 'auth/userpass/users/bob', {'password': 'x', 'token_policies': 'p1', 'token_ttl': '1h'})
        d = a.ok('GET', 'auth/userpass/users/bob').data
        has(d, token_policies=['p1'], token_ttl=3600, token_max_ttl=0, token_num_uses=0)
        assert 'password' not in str(d), d
        equal(a.ok('LIST', 'auth/userpass/users').data['keys'], ['bob'])
        auth = a.ok('PUT', 'auth/userpass/login/bob', {'password': 'x'}, token='').json['auth']
        has(auth, metadata={'username': 'bob'}, orphan=True, policies=['default', 'p1'], lease_duration=3600, renewable=True)
        has(a.ok('GET', 'auth/token/lookup-self', token=auth['client_token']).data, display_name='userpass-bob',
            path='auth/userpass/login/bob')
        want(a('PUT', 'auth/userpass/login/bob', {'password': 'y'}, token=''), 400, 'invalid username or password')
        want(a('PUT', 'auth/userpass/login/eve', {'password': 'y'}, token=''), 400, 'invalid username or password')
        want(a('PUT', 'auth/userpass/login/bob', {}, token=''), 500, 'missing password')
        want(a('GET', 'auth/userpass/login/bob', token=''), 405, 'unsupported operation')
        a.ok('POST', 'auth/userpass/users/eve', {'password': 'x', 'ttl': '30m', 'max_ttl': '1h'})  # the old names
        has(a.ok('GET', 'auth/userpass/users/eve').data, token_ttl=1800, token_max_ttl=3600)
        want(a('POST', 'auth/userpass/users/eve', {'token_ttl': '2h'}), 400, "'token_ttl' cannot be greater than 'token_max_ttl'")
        want(a('POST', 'auth/userpass/users/eve', {'token_bound_cidrs': ['10.0.0.0/33']}), 400,
             'error parsing address "10.0.0.0/33": it is no IPv4 or IPv6 address or block')
        a.ok('POST', 'auth/userpass/users/eve', {'bound_cidrs': '10.0.0.1/32,10.1.2.3/8'})
        equal(a.ok('GET', 'auth/userpass/users/eve').data['token_bound_cidrs'], ['10.0.0.1', '10.1.2.3/8'])
        want(a('PUT', 'auth/userpass/login/eve', {'password': 'x'}, token=''), 403, 'permission denied')
        a.ok('POST', 'auth/userpass/users/eve', {'token_bound_cidrs': '127.0.0.0/8'})
        here = a.ok('PUT', 'auth/userpass/login/eve', {'password': 'x'}, token='').json['auth']['client_token']
        equal(a.ok('GET', 'auth/token/lookup-self', token=here).data['bound_cidrs'], ['127.0.0.0/8'])
        equal(a.ok('LIST', 'auth/userpass/users?limit=1').data['keys'], ['bob'])
        equal(a.ok('LIST', 'auth/userpass/users?after=bob').data['keys'], ['eve'])
        for field in 'token_period', 'token_num_uses':
            what = 'periodic tokens' if field == 'token_period' else 'tokens with limited use count'
            want(a('POST', 'auth/userpass/users/eve', {'token_type': 'batch', field: 5}), 400,
                 f"'token_type' cannot be 'batch' or 'default_batch' when set to generate {what}")
        a.ok('POST', 'auth/userpass/users/eve', {'token_type': 'batch'})
        equal(a.ok('GET', 'auth/userpass/users/eve').data['token_type'], 'batch')
        batch = a.ok('PUT', 'auth/userpass/login/eve', {'password': 'x'}, token='').json['auth']
        has(batch, token_type='batch', renewable=False, accessor='', lease_duration=1800, orphan=True)
        has(a.ok('GET', 'auth/token/lookup-self', token=batch['client_token']).data, type='batch', display_name='userpass-eve')
        a.ok('DELETE', 'auth/userpass/users/eve')
        r = a.ok('PUT', 'auth/userpass/login/bob', {'password': 'x'}, token='', headers={'X-Vault-Wrap-TTL': '60'}).json
        assert r['auth'] is None and r['wrap_info']['wrapped_accessor'], r
        a.ok('POST', 'auth/userpass/users/bob/password', {'password': 'z'})
        a.ok('PUT', 'auth/userpass/login/bob', {'password': 'z'}, token='')
        a.ok('POST', 'sys/auth/userpass/tune', {'default_lease_ttl': '2h'})
        has(a.ok('GET', 'sys/auth/userpass/tune').data, default_lease_ttl=7200, token_type='default-service')
        has(a.ok('GET', 'sys/mounts/auth/userpass/tune').data, default_lease_ttl=7200)
        has(a.ok('GET', 'sys/auth/userpass').data, type='userpass', description='people')
        want(a('GET', 'sys/auth/nope'), 400, 'No auth engine at nope/')
        a.ok('DELETE', 'auth/userpass/users/bob')
        want(a('GET', 'auth/userpass/users/bob'), 404)
        live = auth['client_token']
        a.ok('DELETE', 'sys/auth/userpass')
        await_true('the tokens of the mount to go', lambda: a('GET', 'auth/token/lookup-self', token=live).status == 403, 10)


def approle():
    """auth/approle: roles, role ids, secret ids by id and accessor, uses and time, login"""
    with World() as w:
        a = Api(w)
        a.ok('POST', 'sys/auth/approle', {'type': 'approle'})
        want(a('LIST', 'auth/approle/role'), 404)
        want(a('POST', 'auth/approle/role/app', {'token_policies': 'p1', 'token_ttl': '1h', 'secret_id_num_uses': 2}), 204)
        equal(a.ok('LIST', 'auth/approle/role').data['keys'], ['app'])
        d = a.ok('GET', 'auth/approle/role/app').data
        has(d, bind_secret_id=True, secret_id_num_uses=2, secret_id_ttl=0, token_policies=['p1'], token_ttl=3600, local_secret_ids=False)
        want(a('GET', 'auth/approle/role/none'), 404)
        rid = a.ok('GET', 'auth/approle/role/app/role-id').data['role_id']
        assert UUID.fullmatch(rid), rid
        s = a.ok('POST', 'auth/approle/role/app/secret-id', {'metadata': '{"host":"h1"}'}).data
        has(s, secret_id_num_uses=2, secret_id_ttl=0)
        assert UUID.fullmatch(s['secret_id']) and UUID.fullmatch(s['secret_id_accessor']), s

        def login(secret, role=rid, **kw):
            return a('POST', 'auth/approle/login', {'role_id': role, 'secret_id': secret}, token='', **kw)
        want(a('POST', 'auth/approle/login', {}, token=''), 500, 'missing role_id')
        want(a('PUT', 'auth/approle/role/app/no-such-property', {'secret_id_num_uses': 1}), 404)  # and no secret id
        equal(a.ok('LIST', 'auth/approle/role/app/secret-id').data['keys'], [s['secret_id_accessor']])
        want(a('POST', 'auth/approle/login', {'role_id': rid}, token=''), 400, 'missing secret_id')
        want(login('nope'), 400, 'invalid role or secret ID')
        want(login(s['secret_id'], role='nope'), 400, 'invalid role or secret ID')
        want(a('GET', 'auth/approle/login', token=''), 405)
        auth = want(login(s['secret_id']), 200).json['auth']
        has(auth, metadata={'host': 'h1', 'role_name': 'app'}, policies=['default', 'p1'], orphan=True, lease_duration=3600, renewable=True)
        has(a.ok('GET', 'auth/token/lookup-self', token=auth['client_token']).data, display_name='approle', path='auth/approle/login')
        d = a.ok('POST', 'auth/approle/role/app/secret-id/lookup', {'secret_id': s['secret_id']}).data
        has(d, secret_id_num_uses=1, secret_id_accessor=s['secret_id_accessor'], metadata={'host': 'h1'},
            expiration_time='0001-01-01T00:00:00Z')
        equal(a.ok('POST', 'auth/approle/role/app/secret-id-accessor/lookup', {'secret_id_accessor': s['secret_id_accessor']}).data, d)
        equal(a.ok('LIST', 'auth/approle/role/app/secret-id').data['keys'], [s['secret_id_accessor']])
        want(login(s['secret_id']), 200)  # the last use
        want(login(s['secret_id']), 400, 'invalid role or secret ID')
        want(a('LIST', 'auth/approle/role/app/secret-id'), 404)
        want(a('POST', 'auth/approle/role/app/secret-id/lookup', {'secret_id': s['secret_id']}), 204)

        # Of many at once only as many get in as there are uses.
        one = a.ok('POST', 'auth/approle/role/app/secret-id', {'num_uses': 1}).data['secret_id']
        codes = []
        threads = [threading.Thread(target=lambda: codes.append(login(one).status)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(sorted(codes), [200] + [400] * 7)

        s = a.ok('POST', 'auth/approle/role/app/secret-id', {'ttl': '1s'}).data
        equal(s['secret_id_ttl'], 1)
        await_true('the secret id to expire', lambda: login(s['secret_id']).status == 400, 10)
        stays = a.ok('POST', 'auth/approle/role/app/secret-id').data['secret_id_accessor']
        for _ in range(70):
            a.ok('POST', 'auth/approle/role/app/secret-id', {'ttl': '1s'})
        r = a.ok('POST', 'auth/approle/role/app/secret-id', {'ttl': '1s'}).data
        gone = {'secret_id': r['secret_id']}
        await_true('the last to expire', lambda: a('POST', 'auth/approle/role/app/secret-id/lookup', gone).status == 204, 10)
        assert len(a.ok('LIST', 'auth/approle/role/app/secret-id').data['keys']) > 70
        want(a('GET', 'auth/approle/tidy/secret-id'), 405)
        r = want(a('POST', 'auth/approle/tidy/secret-id', {}), 202)
        assert r.json['warnings'][0].startswith('Tidy operation successfully started.'), r.text
        equal(a.ok('LIST', 'auth/approle/role/app/secret-id').data['keys'], [stays])
        a.ok('POST', 'auth/approle/role/app/custom-secret-id', {'secret_id': 'mine'})
        want(a('POST', 'auth/approle/role/app/custom-secret-id', {'secret_id': 'mine'}), 400, 'SecretID is already registered')
        want(login('mine'), 200)
        want(a('POST', 'auth/approle/role/app/secret-id/destroy', {'secret_id': 'mine'}), 204)
        want(login('mine'), 400, 'invalid role or secret ID')
        s = a.ok('POST', 'auth/approle/role/app/secret-id').data
        want(a('POST', 'auth/approle/role/app/secret-id-accessor/destroy', {'secret_id_accessor': s['secret_id_accessor']}), 204)
        want(login(s['secret_id']), 400, 'invalid role or secret ID')
        r = a('POST', 'auth/approle/role/app/secret-id-accessor/destroy', {'secret_id_accessor': s['secret_id_accessor']})
        equal(r.status, 404)

        a.ok('POST', 'auth/approle/role/app/role-id', {'role_id': 'chosen'})
        s = a.ok('POST', 'auth/approle/role/app/secret-id').data['secret_id']
        want(login(s), 400, 'invalid role or secret ID')
        want(login(s, role='chosen'), 200)
        want(a('POST', 'auth/approle/role/two', {'role_id': 'chosen'}), 400, 'role_id is used by another role')
        want(a('POST', 'auth/approle/role/two', {'bind_secret_id': False}), 400,
             'at least one constraint should be enabled on the role')
        want(a('DELETE', 'auth/approle/role/app'), 204)
        want(login(s, role='chosen'), 400, 'invalid role or secret ID')
        a.ok('POST', 'auth/approle/role/app', {'role_id': 'chosen'})
        want(login(s, role='chosen'), 400, 'invalid role or secret ID')  # its secret ids went with the role
        live = auth['client_token']
        a.ok('DELETE', 'sys/auth/approle')
        await_true('the tokens of the mount to go', lambda: a('GET', 'auth/token/lookup-self', token=live).status == 403, 10)


def approle_properties():
    """auth/approle: each property of a role has its own endpoint, and a role is bound to addresses"""
    with World() as w:
        a = Api(w)
        a.ok('POST', 'sys/auth/approle', {'type': 'approle'})
        role = 'auth/approle/role/app'
        values = {'policies': ('token_policies', ['p1', 'p2'], []), 'period': ('token_period', 60, 0),
                  'bind-secret-id': ('bind_secret_id', False, True), 'secret-id-num-uses': ('secret_id_num_uses', 3, 0),
                  'secret-id-ttl': ('secret_id_ttl', 90, 0), 'secret-id-bound-cidrs': ('secret_id_bound_cidrs', ['127.0.0.0/8'], None),
                  'token-bound-cidrs': ('token_bound_cidrs', ['127.0.0.0/8', '10.0.0.1'], []), 'token-num-uses': ('token_num_uses', 4, 0),
                  'token-ttl': ('token_ttl', 30, 0), 'token-max-ttl': ('token_max_ttl', 300, 0)}
        for path, (field, value, _) in values.items():
            want(a('GET', f'{role}/{path}'), 404)
            want(a('DELETE', f'{role}/{path}'), 204)
            want(a('POST', f'{role}/{path}', {field: value}), 404, LOGICAL('unsupported path'))
        a.ok('POST', role, {'token_no_default_policy': True, 'secret_id_bound_cidrs': '127.0.0.1/32'})
        rid = a.ok('GET', f'{role}/role-id').data
        for path, (field, value, default) in values.items():
            want(a('POST', f'{role}/{path}', {}), 400, f'missing {field}')
            want(a('POST', f'{role}/{path}', {field: value, 'role_id': 'other', 'token_no_default_policy': False}), 204)
            equal(a.ok('GET', f'{role}/{path}').data, {field: value})
            has(a.ok('GET', role).data, **{field: value, 'token_no_default_policy': True})
        equal(a.ok('GET', f'{role}/role-id').data, rid)
        want(a('DELETE', f'{role}/role-id'), 405)
        equal(a.ok('GET', f'{role}/local-secret-ids').data, {'local_secret_ids': False})
        want(a('POST', f'{role}/local-secret-ids', {'local_secret_ids': True}), 404)
        want(a('POST', f'{role}/token-ttl', {'token_ttl': '1h'}), 400, "'token_ttl' cannot be greater than 'token_max_ttl'")
        for path, (field, _, default) in values.items():
            want(a('DELETE', f'{role}/{path}'), 204)
            equal(a.ok('GET', f'{role}/{path}').data, {field: default})
        a.ok('POST', f'{role}/policies', {'policies': 'old'})
        equal(a.ok('GET', f'{role}/policies').data, {'token_policies': ['old'], 'policies': ['old']})
        equal(a.ok('GET', role).data['policies'], ['old'])
        a.ok('POST', f'{role}/policies', {'token_policies': 'new'})
        equal(a.ok('GET', f'{role}/policies').data, {'token_policies': ['new']})
        want(a('POST', f'{role}/bind-secret-id', {'bind_secret_id': False}), 400, 'at least one constraint should be enabled on the role')

        # A secret id is no stronger than its role's.
        a.ok('POST', f'{role}/secret-id-num-uses', {'secret_id_num_uses': 3})
        a.ok('POST', f'{role}/secret-id-ttl', {'secret_id_ttl': 90})
        for uses in 0, 4:
            want(a('POST', f'{role}/secret-id', {'num_uses': uses}), 400, "num_uses cannot be higher than the role's secret_id_num_uses")
        for ttl in '0s', '91s':
            want(a('POST', f'{role}/secret-id', {'ttl': ttl}), 400, "ttl cannot be longer than the role's secret_id_ttl")
        has(a.ok('POST', f'{role}/secret-id', {'num_uses': 2, 'ttl': 80}).data, secret_id_num_uses=2, secret_id_ttl=80)
        has(a.ok('POST', f'{role}/secret-id').data, secret_id_num_uses=3, secret_id_ttl=90)
        a.ok('DELETE', f'{role}/secret-id-num-uses')
        a.ok('DELETE', f'{role}/secret-id-ttl')

        # Where logins and tokens come from: the server sees 127.0.0.1.
        def login(secret=None):
            return a('POST', 'auth/approle/login', {**rid, **({'secret_id': secret} if secret else {})}, token='')
        here, there = '127.0.0.0/8', '10.0.0.0/8'
        want(a('POST', f'{role}/secret-id-bound-cidrs', {'secret_id_bound_cidrs': '127.0.0.1'}), 400,
             'failed to validate CIDR blocks: invalid CIDR address: 127.0.0.1')
        want(a('POST', role, {'secret_id_bound_cidrs': 'x'}), 400, 'failed to validate CIDR blocks: invalid CIDR address: x')
        want(a('POST', role, {'token_bound_cidrs': 'x'}), 400, 'error parsing address "x": it is no IPv4 or IPv6 address or block')
        s = a.ok('POST', f'{role}/secret-id', {'num_uses': 2}).data['secret_id']
        a.ok('POST', f'{role}/secret-id-bound-cidrs', {'secret_id_bound_cidrs': there})
        want(login(s), 400, 'source address "127.0.0.1" unauthorized by CIDR restrictions on the role')
        equal(a.ok('POST', f'{role}/secret-id/lookup', {'secret_id': s}).data['secret_id_num_uses'], 2)
        r = want(a('POST', f'{role}/secret-id', {'cidr_list': here}), 400)
        assert 'failed to verify subset relationship' in r.errors[0], r.text
        a.ok('POST', f'{role}/secret-id-bound-cidrs', {'secret_id_bound_cidrs': [here, there]})
        want(login(s), 200)
        s = a.ok('POST', f'{role}/secret-id', {'cidr_list': there}).data['secret_id']
        want(login(s), 400, 'source address "127.0.0.1" unauthorized through CIDR restrictions on the secret ID')
        s = a.ok('POST', f'{role}/secret-id', {'cidr_list': '127.0.0.1/32', 'token_bound_cidrs': there}).data['secret_id']
        d = a.ok('POST', f'{role}/secret-id/lookup', {'secret_id': s}).data
        has(d, cidr_list=['127.0.0.1/32'], token_bound_cidrs=[there])
        want(login(s), 403, 'permission denied')
        s = a.ok('POST', f'{role}/secret-id').data['secret_id']
        a.ok('POST', f'{role}/token-bound-cidrs', {'token_bound_cidrs': there})
        want(login(s), 403, 'permission denied')
        a.ok('POST', f'{role}/token-bound-cidrs', {'token_bound_cidrs': here})
        t = want(login(s), 200).json['auth']['client_token']
        equal(a.ok('POST', 'auth/token/lookup', {'token': t}).data['bound_cidrs'], [here])
        a.ok('DELETE', f'{role}/token-bound-cidrs')
        a.ok('POST', f'{role}/bind-secret-id', {'bind_secret_id': False})
        want(login(), 200)
        want(a('POST', f'{role}/secret-id', {}), 400, 'bind_secret_id is not set on the role')
        want(a('DELETE', f'{role}/secret-id-bound-cidrs'), 400, 'at least one constraint should be enabled on the role')


def bound_tokens():
    """a token role binds its tokens to addresses: others are refused at each use, and so are its children"""
    with World() as w:
        a = Api(w)
        a.policy('maker', 'path "auth/token/create" { capabilities = ["update"] }')
        want(a('POST', 'auth/token/roles/r', {'token_bound_cidrs': '300.0.0.1'}), 400)
        a.ok('POST', 'auth/token/roles/r', {'bound_cidrs': ['10.0.0.1/32']})
        has(a.ok('GET', 'auth/token/roles/r').data, token_bound_cidrs=['10.0.0.1'], bound_cidrs=['10.0.0.1'])
        t = a.ok('POST', 'auth/token/create/r', {'policies': ['maker']}).json['auth']['client_token']
        equal(a.ok('POST', 'auth/token/lookup', {'token': t}).data['bound_cidrs'], ['10.0.0.1'])
        want(a('GET', 'auth/token/lookup-self', token=t), 403, 'permission denied')
        want(a('GET', 'sys/internal/ui/mounts', token=t), 403, 'permission denied')
        b = a.ok('POST', 'auth/token/create/r', {'policies': ['maker'], 'type': 'batch'}).json['auth']['client_token']
        want(a('GET', 'auth/token/lookup-self', token=b), 403, 'permission denied')
        a.ok('POST', 'auth/token/roles/r', {'token_bound_cidrs': '127.0.0.1'})
        assert 'bound_cidrs' not in a.ok('GET', 'auth/token/roles/r').data
        want(a('GET', 'auth/token/lookup-self', token=t), 403, 'permission denied')  # what a token is bound to stays
        t = a.ok('POST', 'auth/token/create/r', {'policies': ['maker'], 'num_uses': 0}).json['auth']['client_token']
        child = a.ok('POST', 'auth/token/create', {}, token=t).json['auth']['client_token']
        equal(a.ok('GET', 'auth/token/lookup-self', token=child).data['bound_cidrs'], ['127.0.0.1'])
        a.ok('POST', 'auth/token/roles/r', {'token_bound_cidrs': ''})
        assert 'token_bound_cidrs' not in a.ok('GET', 'auth/token/roles/r').data


def kv():
    """kv v2: patch, metadata patch, subkeys, config, limits, delete_version_after"""
    with World() as w:
        a = Api(w)
        a.ok('POST', 'sys/mounts/s2', {'type': 'kv-v2'})
        mp = {'Content-Type': 'application/merge-patch+json'}
        a.ok('POST', 's2/data/a', {'data': {'x': {'y': 1, 'z': 2}, 'keep': 'me'}})
        r = a.ok('PATCH', 's2/data/a', {'data': {'x': {'y': None, 'n': [1]}}}, headers=mp)
        has(r.data, version=2, destroyed=False, deletion_time='')
        equal(a.ok('GET', 's2/data/a').data['data'], {'x': {'z': 2, 'n': [1]}, 'keep': 'me'})
        want(a('PATCH', 's2/data/a', {'data': {'x': 1}, 'options': {'cas': 1}}, headers=mp), 400,
             'check-and-set parameter did not match the current version')
        equal(want(a('PATCH', 's2/data/none', {'data': {'x': 1}}, headers=mp), 404).text, '')
        want(a('PATCH', 's2/data/a/', {'data': {'x': 1}}, headers=mp), 400, "cannot write to a path ending in '/'")
        want(a('PATCH', 's2/data/a', {}, headers=mp), 400, 'no data provided')
        want(a('PATCH', 's2/data/a', {'data': {}}, headers={'Content-Type': 'application/json'}), 415)
        d = a.ok('GET', 's2/subkeys/a?depth=1').data
        equal(d['subkeys'], {'x': None, 'keep': None})
        equal(a.ok('GET', 's2/subkeys/a').data['subkeys'], {'x': {'z': None, 'n': None}, 'keep': None})
        a.ok('POST', 's2/metadata/a', {'custom_metadata': {'owner': 'x', 'n': 5}, 'max_versions': 3})
        want(a('PATCH', 's2/metadata/a', {'custom_metadata': {'owner': None, 'q': 'w'}}, headers=mp), 204)
        d = a.ok('GET', 's2/metadata/a').data
        has(d, custom_metadata={'n': '5', 'q': 'w'}, max_versions=3, current_version=2, cas_required=False,
            delete_version_after='0s', oldest_version=0)
        want(a('PATCH', 's2/metadata/none', {'max_versions': 1}, headers=mp), 404)
        for i in range(3):
            a.ok('POST', 's2/data/a', {'data': {'i': i}})
        has(a.ok('GET', 's2/metadata/a').data, oldest_version=3, current_version=5)
        want(a('GET', 's2/data/a?version=1'), 404)
        r = want(a('POST', 's2/metadata/a', {'custom_metadata': {'k': 'v' * 600}}), 400)
        assert 'length of value for key "k" is 600 but must be 0 < len(value) <= 512' in r.errors[0], r.text
        r = want(a('POST', 's2/metadata/a', {'custom_metadata': {f'k{i}': 'v' for i in range(65)}}), 400)
        assert 'payload must contain at most 64 keys, provided 65' in r.errors[0], r.text
        want(a('POST', 's2/metadata/a', {'delete_version_after': 'x'}), 400,
             'error converting input for field "delete_version_after": time: invalid duration "x"')
        equal(a.ok('GET', 's2/config').data, {'cas_required': False, 'delete_version_after': '0s', 'max_versions': 0})
        a.ok('POST', 's2/config', {'max_versions': 5, 'cas_required': True, 'delete_version_after': '3h25m19s'})
        equal(a.ok('GET', 's2/config').data, {'cas_required': True, 'delete_version_after': '3h25m19s', 'max_versions': 5})
        want(a('POST', 's2/data/a', {'data': {'i': 9}}), 400, 'check-and-set parameter required for this call')
        r = a.ok('POST', 's2/data/a', {'data': {'i': 9}, 'options': {'cas': 5}})
        assert r.data['deletion_time'].endswith('Z'), r.text
        want(a('POST', 's2/metadata/unset', {}), 204)  # nothing is set, nothing is made
        want(a('GET', 's2/metadata/unset'), 404)
        a.ok('POST', 's2/metadata/dir/b', {'max_versions': 0})
        want(a('GET', 's2/data/dir/b'), 404)
        equal(a.ok('LIST', 's2/metadata').data['keys'], ['a', 'dir/'])
        equal(a.ok('GET', 's2/metadata/dir?list=True').data['keys'], ['b'])
        want(a('LIST', 's2/data'), 405)
        want(a('GET', 's2/metadata/a?list=perhaps'), 400)
        r = want(a('GET', 's2/foo'), 404)
        assert r.json['warnings'][0].startswith('Invalid path for a versioned K/V secrets engine.'), r.text
        r = want(a('GET', 's2/data'), 404)
        equal(r.json['warnings'], ['Non-listing operations on the root of a K/V v2 mount are not supported.'])
        want(a('DELETE', 's2/config'), 405)
        want(a('GET', 's2/undelete/a'), 405)
        a.ok('DELETE', 's2/data/a')
        r = want(a('GET', 's2/data/a'), 404)
        assert r.data['data'] is None and r.data['metadata']['deletion_time'], r.text
        r = want(a('PATCH', 's2/data/a', {'data': {'x': 1}, 'options': {'cas': 6}}, headers=mp), 404)
        assert r.data['version'] == 6, r.text
        r = want(a('GET', 's2/subkeys/a'), 404)
        assert r.data['subkeys'] is None and r.data['metadata']['version'] == 6, r.text

        wrong_int = "Field validation failed: error converting input for field \"{}\": '' cannot parse value as 'int': strconv.ParseInt: {}"
        want(a('GET', 's2/data/a?version=abc'), 400, wrong_int.format('version', 'invalid syntax'))
        want(a('GET', 's2/data/a?version=' + '9' * 20), 400, wrong_int.format('version', 'value out of range'))
        want(a('POST', 's2/metadata/a', {'max_versions': 'x'}), 400, wrong_int.format('max_versions', 'invalid syntax')[25:])
        want(a('POST', 's2/delete/a', {'versions': [1, 'x']}), 400,
             'Field validation failed: error converting input for field "versions": decoding failed due to the following error(s):'
             "\n\n'[1]' cannot parse value as 'int': strconv.ParseInt: invalid syntax")
        want(a('POST', 's2/metadata/a', {'cas_required': 2}), 400)
        want(a('POST', 's2/metadata/a', {'delete_version_after': True}), 400)
        a.ok('POST', 's2/metadata/a', {'max_versions': None, 'cas_required': None})  # null is the default
        has(a.ok('GET', 's2/metadata/a').data, max_versions=0, cas_required=False)
        a.ok('POST', 's2/config', {'cas_required': False, 'delete_version_after': -1})
        want(a('POST', 's2/data/cas', {'data': {}, 'options': {'cas': None}}), 200)
        want(a('POST', 's2/data/cas', {'data': {}, 'options': {'cas': 1.5}}), 400, 'error parsing check-and-set parameter')
        has(a.ok('POST', 's2/data/cas', {'data': [], 'options': []}).data, version=2)
        equal(a.ok('GET', 's2/data/cas').data['data'], {})
        for path in ('s2/config', 's2/metadata/cas', 'sys/mounts/s3'):  # no answer, no warning
            want(a('POST', path, {'zz': 1, 'type': 'kv'}), 204)
        equal(a.ok('LIST', 's2/metadata?limit=2').data['keys'], ['a', 'cas'])
        equal(a.ok('GET', 's2/metadata?list=true&after=a').data['keys'], ['cas', 'dir/'])
        want(a('LIST', 's2/metadata?after=dir/'), 404)
        for ttl, seconds in (('30m', 1800), ('zz', 2764800), (None, 0), (1.5, 2764800), (90, 90)):
            a.ok('POST', 's3/t', {'ttl': ttl})
            equal((ttl, a.ok('GET', 's3/t').json['lease_duration']), (ttl, seconds))


def policies():
    """capabilities, lists, and names of policies"""
    with World() as w:
        a = Api(w)
        a.policy('p1', 'path "s1/a" { capabilities = ["read", "list"] }')
        r = want(a('PUT', 'sys/policies/acl/P3', {'policy': 'path "x" {}'}), 200)
        equal(r.json['warnings'], ['policy name was converted to p3'])
        equal(a.ok('LIST', 'sys/policies/acl').data['keys'], ['default', 'p1', 'p3', 'root'])
        want(a('GET', 'sys/policies/acl'), 405)
        r = a.ok('GET', 'sys/policy').json
        equal(r['policies'], r['data']['policies'])
        equal(sorted(r['keys']), ['default', 'p1', 'p3', 'root'])
        has(a.ok('GET', 'sys/policy/p1').json, name='p1', rules='path "s1/a" { capabilities = ["read", "list"] }')
        want(a('PUT', 'sys/policy/p4', {}), 400, "'policy' parameter not supplied or empty")
        want(a('DELETE', 'sys/policy/none'), 204)
        a.ok('PUT', 'sys/policy/p4', {'rules': 'path "x" { policy = "read" }'})  # node-vault's and older clients' name of it
        t = a.token(policies=['p1'])
        r = a.ok('POST', 'sys/capabilities-self', {'paths': ['s1/a']}, token=t['client_token']).json
        equal((r['data'], r['capabilities']), ({'capabilities': ['list', 'read'], 's1/a': ['list', 'read']}, ['list', 'read']))
        r = a.ok('POST', 'sys/capabilities', {'paths': 's1/a,s1/b', 'token': t['client_token']}).json
        equal(r['data'], {'s1/a': ['list', 'read'], 's1/b': ['deny']})
        r = a.ok('POST', 'sys/capabilities-accessor', {'path': 's1/a', 'accessor': t['accessor']}).json
        equal(r['s1/a'], ['list', 'read'])
        equal(a.ok('POST', 'sys/capabilities-self', {'paths': ['/s1/a']}, token=t['client_token']).data['/s1/a'], r['s1/a'])
        equal(a.ok('POST', 'sys/capabilities-self', {'path': 'any'}).json['any'], ['root'])
        want(a('POST', 'sys/capabilities-self', {}), 400, 'paths must be supplied')
        for path in ('sys/capabilities-selfish', 'sys/tools/randomly', 'sys/remounted', 'sys/leases/revoked'):
            want(a('POST', path, {'path': 'any', 'from': 'x', 'to': 'y', 'lease_id': 'x'}), 404, LOGICAL('unsupported path'))
        want(a('POST', 'sys/capabilities', {'path': 'x', 'token': 'nope'}), 400, LOGICAL('invalid token'))
        want(a('POST', 'sys/capabilities-accessor', {'path': 'x', 'accessor': 'nope'}), 400, LOGICAL('invalid accessor'))
        want(a('POST', 'sys/capabilities', {'path': 'x'}), 500, LOGICAL('no token found'))
        equal(a.ok('GET', 'sys/internal/ui/resultant-acl').data, {'root': True})
        d = a.ok('GET', 'sys/internal/ui/resultant-acl', token=t['client_token']).data
        equal(d['root'], False)
        equal(d['exact_paths']['s1/a'], {'capabilities': ['list', 'read']})
        equal(d['glob_paths']['cubbyhole/'], {'capabilities': ['create', 'delete', 'list', 'read', 'update']})
        text = a.ok('GET', 'sys/policies/acl/default').data['policy']
        for path in ('auth/token/lookup-self', 'sys/internal/ui/resultant-acl', 'sys/leases/renew', 'cubbyhole/*',
                     'sys/wrapping/unwrap', 'sys/tools/hash'):
            assert f'path "{path}"' in text, path


def mounts():
    """tune, remount and its status, listing visibility, the texts of refused mounts"""
    with World() as w:
        a = Api(w)
        for path, text in (('sys', 'cannot mount "sys/"'), ('cubbyhole', None), ('auth/x', None), ('identity', None)):
            r = want(a('POST', f'sys/mounts/{path}', {'type': 'kv'}), 400)
            assert text is None or text in r.errors, r.text
        want(a('POST', 'sys/mounts/x', {'type': 'system'}), 400, 'mount type of "system" is not mountable')
        want(a('POST', 'sys/mounts/x', {'type': 'nope'}), 400, 'plugin not found in the catalog: nope')
        want(a('POST', 'sys/mounts/x', {}), 400, 'backend type must be specified as a string')
        want(a('POST', 'sys/mounts/x', {'type': 'kv', 'options': {'version': '3'}}), 400,
             'nil backend of type "kv" returned from factory')
        want(a('DELETE', 'sys/mounts/sys'), 400, 'cannot unmount "sys/"')
        a.ok('POST', 'sys/mounts/s1', {'type': 'kv', 'options': {'version': 2}, 'config': {'listing_visibility': 'unauth'},
                                       'description': None, 'plugin_name': None})
        d = a.ok('GET', 'sys/internal/ui/mounts', token='').data
        equal(d['secret'], {'s1/': {'description': '', 'options': {'version': '2'}, 'type': 'kv'}})
        d = a.ok('GET', 'sys/internal/ui/mounts').data
        assert {'s1/', 'cubbyhole/', 'sys/', 'identity/'} <= set(d['secret']) and 'token/' in d['auth'], d
        has(a.ok('GET', 'sys/internal/ui/mounts/s1/some/key').data, path='s1/', options={'version': '2'}, type='kv')
        has(a.ok('GET', 'sys/internal/ui/mounts/auth/token').data, path='token/', type='token')
        want(a('GET', 'sys/internal/ui/mounts/nope/foo'), 403, 'preflight capability check returned 403, please ensure client\'s '
             'policies grant access to path "nope/foo/"')
        m = a.ok('GET', 'sys/mounts').json
        equal(m['s1/'], m['data']['s1/'])
        assert re.fullmatch(r'kv_[0-9a-f]{8}', m['s1/']['accessor']) and UUID.fullmatch(m['s1/']['uuid']), m['s1/']
        has(m['s1/'], local=False, seal_wrap=False, external_entropy_access=False, deprecation_status='supported', type='kv')
        has(m['sys/'], type='system')
        has(m['cubbyhole/'], local=True)
        has(m['identity/'], type='identity')
        a.ok('POST', 'sys/mounts/s1/tune', {'default_lease_ttl': '1h', 'max_lease_ttl': '', 'description': 'new',
                                            'audit_non_hmac_request_keys': ['k']})
        has(a.ok('GET', 'sys/mounts/s1/tune').data, default_lease_ttl=3600, max_lease_ttl=2764800, description='new',
            audit_non_hmac_request_keys=['k'])
        want(a('POST', 'sys/mounts/s1/tune', {'listing_visibility': 'zzz'}), 400, 'invalid listing_visibility zzz')
        want(a('POST', 'sys/mounts/s1/tune', {'token_type': 'service'}), 400, "'token_type' can only be modified on auth mounts")
        want(a('POST', 'sys/mounts/s1/tune', {'options': {'version': '1'}}), 400, 'cannot downgrade mount from version 2')
        want(a('POST', 'sys/mounts/sys/tune', {'default_lease_ttl': '1h'}), 400, 'cannot tune parameter default_lease_ttl of sys/')
        for mount, field in (('sys', 'description'), ('cubbyhole', 'options'), ('identity', 'listing_visibility')):
            want(a('POST', f'sys/mounts/{mount}/tune', {field: {} if field == 'options' else 'hidden'}), 400,
                 f'cannot tune parameter {field} of {mount}/')
        want(a('GET', 'sys/internal/ui/mounts', token='s.' + 'x' * 24), 403, 'permission denied')
        a.ok('POST', 'sys/mounts/s1/tune', {'listing_visibility': ''})
        assert 'listing_visibility' not in a.ok('GET', 'sys/mounts/s1/tune').data
        a.ok('POST', 'sys/mounts/s2', {'type': 'kv', 'config': [], 'options': []})
        want(a('POST', 'sys/mounts/s3', {'type': 'kv', 'config': {'default_lease_ttl': '9999h'}}), 400,
             'given default lease TTL greater than system max lease TTL of 2764800')
        want(a('POST', 'sys/remount', {'from': 'nope', 'to': 's3'}), 400, 'no matching mount at "nope/"')
        want(a('POST', 'sys/remount', {'from': 'sys', 'to': 's3'}), 400, 'cannot remount "sys/"')
        want(a('POST', 'sys/remount', {}), 400, "both 'from' and 'to' path must be specified as a string")
        mid = a.ok('POST', 'sys/remount', {'from': 's1', 'to': 's9'}).data['migration_id']

        def moved():
            d = a.ok('GET', f'sys/remount/status/{mid}').data
            return d['migration_info'] == {'source_mount': 's1/', 'target_mount': 's9/', 'status': 'success'}
        await_true('the move', moved, 10)
        want(a('GET', 'sys/remount/status/nope'), 404)


def wrapping():
    """any answer can be wrapped; a wrapping token opens once"""
    with World() as w:
        a = Api(w)
        wrap = {'X-Vault-Wrap-TTL': '5m'}
        for method, path, body in (('GET', 'sys/mounts', None), ('POST', 'auth/token/create', {}), ('LIST', 'sys/policies/acl', None),
                                   ('GET', 'sys/policies/acl/default', None), ('POST', 'sys/tools/random', {}),
                                   ('GET', 'auth/token/lookup-self', None)):
            r = a.ok(method, path, body, headers=wrap).json
            assert r['data'] is None and r['auth'] is None and r['request_id'] == '', r
            has(r['wrap_info'], ttl=300, creation_path=path + ('/' if method == 'LIST' else ''))
            t = r['wrap_info']['token']
            has(a.ok('POST', 'sys/wrapping/lookup', {'token': t}, token='').data, creation_ttl=300)
            inner = a.ok('PUT', 'sys/wrapping/unwrap', token=t).json
            assert inner['data'] or inner['auth'], inner
            want(a('PUT', 'sys/wrapping/unwrap', {'token': t}), 400, 'wrapping token is not valid or does not exist')
        want(a('GET', 'sys/mounts', headers={'X-Vault-Wrap-TTL': 'abc'}), 400,
             'error parsing X-Vault-Wrap-TTL header: time: invalid duration "abc"')
        t = a.ok('POST', 'sys/wrapping/wrap', {'a': 1}, headers={**wrap, 'X-Vault-Wrap-Format': 'jwt'}).json['wrap_info']['token']
        equal(len(t.split('.')), 3)
        equal(a.ok('PUT', 'sys/wrapping/unwrap', {'token': t}).data, {'a': 1})


def unknown_fields():
    """sys/: what a caller gives that nobody looks at is named in a warning, where there is an answer to put it into"""
    with World() as w:
        a = Api(w)
        a.policy('p1', 'path "x" { capabilities = ["read"] }')
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'sys/audit/file', {'type': 'file', 'options': {'file_path': os.path.join(w.dir, 'logs', 'audit.log')}})
        ignored = 'Endpoint ignored these unrecognized parameters: [other wrong]'
        for path, body in (('capabilities-self', {'paths': 'x'}), ('capabilities', {'path': 'x', 'token': a.root}),
                           ('tools/random/8', {'format': 'hex'}), ('tools/hash/sha2-256', {'input': '', 'format': 'hex'}),
                           ('remount', {'from': 'kv', 'to': 'kv2'}), ('audit-hash/file', {'input': 'x'})):
            r = a.ok('POST', f'sys/{path}', {**body, 'wrong': 1, 'other': 2})
            assert ignored in (r.json['warnings'] or []), (path, r.text)
            if path != 'remount':
                equal(a.ok('POST', f'sys/{path}', body).json['warnings'], None)
        for path in ('policies/acl/p1', 'policy', 'policies/acl?list=true&after=a&limit=9', 'key-status', 'ha-status', 'host-info', 'rotate/config',
                     'version-history?list=true', 'internal/ui/resultant-acl'):
            mark = '&' if '?' in path else '?'
            equal(a.ok('GET', f'sys/{path}').json['warnings'], None)
            equal(a.ok('GET', f'sys/{path}{mark}wrong=1&other=2').json['warnings'], [ignored])
        want(a('PUT', 'sys/policies/acl/p1', {'policy': 'path "x" {}', 'wrong': 1}), 204)


def system():
    """sys/ as tools use it: loggers, CORS, UI and audit headers, plugins, counters, rotation, leases, help, OpenAPI"""
    with World() as w:
        a = Api(w)
        init = {'secret_shares': 1, 'secret_threshold': 1}
        want(a('PUT', 'sys/init', {**init, 'recovery_pgp_keys': ['x']}, token=''), 400,
             'parameters recovery_pgp_keys not applicable to seal type shamir')
        want(a('PUT', 'sys/init', {}, token=''), 400, 'invalid seal configuration: shares must be at least one')
        want(a('PUT', 'sys/init', init, token=''), 400, 'Vault is already initialized')
        want(a('PUT', 'sys/generate-root/attempt', b'{bad', token=''), 400, 'error parsing JSON')
        rekey = {'secret_shares': 2, 'secret_threshold': 2}
        want(a('PUT', 'sys/rekey/init', {**rekey, 'pgp_keys': ['x']}, token=''), 400, 'incorrect number of PGP keys for rekey')
        want(a('DELETE', 'sys/rekey/verify', token=''), 400, 'no rekey configuration found')
        nonce = a.ok('PUT', 'sys/rekey/init', {**rekey, 'require_verification': True}, token='').json['nonce']
        for key in a.s.keys[:2]:
            r = a.ok('PUT', 'sys/rekey/update', {'key': key, 'nonce': nonce}, token='').json
        want(a('PUT', 'sys/rekey/update', {'key': a.s.keys[2], 'nonce': nonce}, token=''), 400, 'rekey operation already finished; '
             f'verification must be performed; nonce for the verification operation is "{r["verification_nonce"]}"')
        a.ok('PUT', 'sys/rekey/verify', {'key': r['keys'][0], 'nonce': r['verification_nonce']}, token='')
        want(a('PUT', 'sys/rekey/verify', {'key': 'ee' * 33, 'nonce': r['verification_nonce']}, token=''), 400,
             'rekey verification failed; incorrect key shares supplied')
        a.ok('DELETE', 'sys/rekey/init', token='')
        want(a('PUT', 'sys/leases/renew/x', {}), 400, 'lease not found')
        d = a.ok('GET', 'sys/loggers').data
        assert d.get('core') == 'info', d
        a.ok('POST', 'sys/loggers', {'level': 'debug'})
        equal(set(a.ok('GET', 'sys/loggers').data.values()), {'debug'})
        want(a('POST', 'sys/loggers', {}), 400, 'level is required')
        want(a('POST', 'sys/loggers', {'level': 'zz'}), 400, 'invalid level provided: unknown log level: zz')
        a.ok('POST', 'sys/loggers/core', {'level': 'error'})
        equal(a.ok('GET', 'sys/loggers/core').data, {'core': 'error'})
        want(a('POST', 'sys/loggers/nope', {'level': 'info'}), 400, 'logger "nope" not found')
        equal(a.ok('GET', 'sys/loggers/nope').data, {})
        a.ok('DELETE', 'sys/loggers/core')
        a.ok('DELETE', 'sys/loggers')
        equal(set(a.ok('GET', 'sys/loggers').data.values()), {'info'})

        equal(a.ok('GET', 'sys/config/cors').data, {'enabled': False})
        want(a('PUT', 'sys/config/cors', {}), 500, LOGICAL('at least one origin or the wildcard must be provided'))
        a.ok('PUT', 'sys/config/cors', {'allowed_origins': ['https://a.example'], 'allowed_headers': ['X-Mine']})
        d = a.ok('GET', 'sys/config/cors').data
        equal((d['enabled'], d['allowed_origins']), (True, ['https://a.example']))
        assert {'X-Vault-Token', 'Content-Type', 'X-Mine'} <= set(d['allowed_headers']), d
        ask = {'Origin': 'https://a.example', 'Access-Control-Request-Method': 'PUT'}
        r = want(a('OPTIONS', 'kv/x', headers=ask, token=''), 200)
        equal((r.text, r.headers['Access-Control-Allow-Origin'], r.headers['Vary'], r.headers['Access-Control-Max-Age']),
              ('', 'https://a.example', 'Origin', '300'))
        assert 'LIST' in r.headers['Access-Control-Allow-Methods'], r.headers
        want(a('OPTIONS', 'kv/x', headers={**ask, 'Origin': 'https://b.example'}, token=''), 403, 'origin not allowed')
        want(a('OPTIONS', 'kv/x', headers={**ask, 'Access-Control-Request-Method': 'FOO'}, token=''), 405)
        want(a('GET', 'sys/mounts', headers={'Origin': 'https://b.example'}), 403, 'origin not allowed')
        equal(a.ok('GET', 'sys/mounts', headers={'Origin': 'https://a.example'}).headers['Access-Control-Allow-Origin'],
              'https://a.example')
        a.ok('DELETE', 'sys/config/cors')
        want(a('OPTIONS', 'kv/x', headers=ask, token=''), 405)
        assert a.ok('GET', 'sys/mounts', headers={'Origin': 'https://b.example'}).headers['Access-Control-Allow-Origin'] is None

        want(a('LIST', 'sys/config/ui/headers'), 404)
        want(a('PUT', 'sys/config/ui/headers/X-Frame-Options', {'values': ['a']}), 200)
        equal(a.ok('GET', 'sys/config/ui/headers/X-Frame-Options').data, {'value': 'a'})
        equal(a.ok('LIST', 'sys/config/ui/headers').data['keys'], ['X-Frame-Options'])
        want(a('DELETE', 'sys/config/ui/headers/X-Frame-Options'), 204)

        d = a.ok('GET', 'sys/plugins/catalog').data
        assert 'kv' in d['secret'] and 'userpass' in d['auth'] and d['database'] == [], d
        assert {'name': 'kv', 'type': 'secret', 'builtin': True, 'deprecation_status': 'supported'}.items() <= next(
            x for x in d['detailed'] if x['name'] == 'kv').items(), d
        assert 'kv' in a.ok('LIST', 'sys/plugins/catalog/secret').data['keys']
        has(a.ok('GET', 'sys/plugins/catalog/secret/kv').data, name='kv', builtin=True, command='', sha256='', args=None)
        want(a('GET', 'sys/plugins/catalog/secret/nope'), 404)

        n = a.ok('GET', 'sys/internal/counters/tokens').data['counters']['service_tokens']['total']
        a.token()
        equal(a.ok('GET', 'sys/internal/counters/tokens').data['counters']['service_tokens']['total'], n + 1)
        equal(a.ok('GET', 'sys/internal/counters/entities').data, {'counters': {'entities': {'total': 0}}})

        has(a.ok('GET', 'sys/rotate/config').data, enabled=True, interval=0, max_operations=3865470566)
        want(a('POST', 'sys/rotate/config', {'max_operations': 5}), 400, 'max_operations must be in the range [1000000,3865470566]')
        a.ok('POST', 'sys/rotate/config', {'interval': '720h'})
        has(a.ok('GET', 'sys/rotate/config').data, interval='720h0m0s')

        equal(a.ok('GET', 'sys/config/auditing/request-headers').data, {'headers': {}})
        a.ok('PUT', 'sys/config/auditing/request-headers/X-Mine', {'hmac': True})
        equal(a.ok('GET', 'sys/config/auditing/request-headers').data, {'headers': {'x-mine': {'hmac': True}}})
        equal(a.ok('GET', 'sys/config/auditing/request-headers/X-Mine').data, {'x-mine': {'hmac': True}})
        want(a('DELETE', 'sys/config/auditing/request-headers/X-Mine'), 204)

        want(a('LIST', 'sys/leases/lookup/nope'), 404)
        want(a('PUT', 'sys/leases/lookup', {'lease_id': 'nope'}), 400, 'invalid lease')
        want(a('PUT', 'sys/leases/renew', {'lease_id': 'nope'}), 400, 'lease not found')
        want(a('PUT', 'sys/leases/revoke', {'lease_id': 'nope'}), 204)
        want(a('PUT', 'sys/leases/revoke/nope', {'sync': False}), 202)
        want(a('PUT', 'sys/leases/revoke-prefix/nope', {}), 204)
        assert want(a('POST', 'sys/leases/tidy', {}), 202).json['warnings']

        r = a.ok('GET', 'sys/mounts?help=1').json
        assert r['help'] and r['see_also'] is None and 'openapi' in r, r
        r = a.ok('GET', 'sys/internal/specs/openapi').json
        equal(r['openapi'], '3.0.2')
        assert {'/sys/mounts/{path}', '/auth/token/create', '/sys/replication/dr/primary/enable'} <= set(r['paths']), sorted(r['paths'])
        want(a('LIST', 'sys/namespaces'), 404)
        equal(a.ok('LIST', 'sys/version-history').data['keys'], ['1.0.0'])
        want(a('GET', 'sys/version-history'), 405)
        d = a.ok('GET', 'sys/host-info').data
        assert len(d['cpu']) == len(d['cpu_times']) == os.cpu_count() and d['cpu_times'][0]['idle'] > 0, d
        assert d['disk'][0]['total'] > d['disk'][0]['free'] > 0 and d['memory']['total'] > 0 and d['host']['hostname'], d
        has(a.ok('GET', 'sys/config/state/sanitized').data, enable_ui=False, log_level='info', disable_cache=False)
        h = a('GET', 'sys/health', token='').json
        has(h, initialized=True, sealed=False, standby=False, replication_dr_mode='disabled', enterprise=False)


def described():
    """what openapi says of tokens, auth methods and secrets engines is answered: each path, with each method"""
    with World() as w:
        a = Api(w)
        for kind, name, body in (('auth', 'approle', {}), ('auth', 'userpass', {}), ('mounts', 'kv', {}), ('mounts', 'kv2', {'options': {'version': '2'}})):
            a.ok('POST', f'sys/{kind}/{name}', {'type': name.rstrip('2'), **body})
        for path, item in a.ok('GET', 'sys/internal/specs/openapi').json['paths'].items():
            if path.startswith('/sys/'):
                continue  # tests/unit/test_catalog.c: some of them seal the server
            for method in {'get', 'post', 'delete', 'patch'} & set(item):
                lists = method == 'get' and 'list' in [p['name'] for p in item['get'].get('parameters', [])]
                r = a('LIST' if lists else method.upper(), re.sub(r'{\w+}', 'x', path[1:]), {} if method in ('post', 'patch') else None,
                      token=a.token()['client_token'], **({'headers': {'Content-Type': 'application/merge-patch+json'}} if method == 'patch' else {}))
                if r.status == 405 or 'unsupported path' in r.text:
                    raise Failed(f'{method} {path}: {r.status} {r.text[:200]}')


def lines(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def audit():
    """audit devices: enable, list, refuse; each request and answer in lines, hashed; none writable: nothing is executed"""
    with World() as w:
        a = Api(w)
        log = os.path.join(w.dir, 'logs', 'audit.log')
        equal(a.ok('GET', 'sys/audit').data, {})
        for body, text in (({'type': 'nope'}, 'unknown backend type: "nope"'), ({'type': 'file'}, 'file_path is required'),
                           ({'type': 'file', 'options': {'file_path': log, 'format': 'zz'}}, 'unknown format type "zz"'),
                           ({'type': 'file', 'options': {'file_path': w.dir}},
                            f'sanity check failed; unable to open "{w.dir}" for writing: open {w.dir}: is a directory')):
            want(a('PUT', 'sys/audit/file', body), 400, text)
        want(a('PUT', 'sys/audit/file', {'type': 'file', 'description': 'all', 'options': {'file_path': log, 'mode': '0640'}}), 204)
        assert os.stat(log).st_mode & 0o777 == 0o640
        want(a('PUT', 'sys/audit/file', {'type': 'file', 'options': {'file_path': log}}), 400, 'path already in use')
        want(a('GET', 'sys/audit/file'), 405)
        r = a.ok('GET', 'sys/audit').json
        equal(r['file/'], {'type': 'file', 'description': 'all', 'local': False, 'path': 'file/',
                           'options': {'file_path': log, 'mode': '0640'}})
        equal(r['data'], {'file/': r['file/']})

        def hashed(text):
            return a.ok('POST', 'sys/audit-hash/file', {'input': text}).json['hash']
        assert re.fullmatch('hmac-sha256:[0-9a-f]{64}', hashed('x'))
        want(a('POST', 'sys/audit-hash/nope', {'input': 'x'}), 400, 'unknown audit backend "nope/"')
        want(a('POST', 'sys/audit-hash/file', {}), 400, 'the "input" parameter is empty')

        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.policy('p1', 'path "kv/*" { capabilities = ["create", "update", "read"] }')
        t = a.token(policies=['p1'])
        a.ok('PUT', 'sys/config/auditing/request-headers/X-Mine', {'hmac': False})
        before = len(lines(log))
        a.ok('PUT', 'kv/roots', {'v': 1})
        a.ok('PUT', 'kv/roots', {'v': 2})
        equal([line['request']['operation'] for line in lines(log)[before:]], ['create'] * 2 + ['update'] * 2)
        before = len(lines(log))
        a.ok('PUT', 'kv/x', {'secret': 'hush', 'n': 7, 'list': ['hush', True]}, token=t['client_token'], headers={'X-Mine': 'yes'})
        equal(len(lines(log)), before + 2)
        got = a.ok('GET', 'kv/x', token=t['client_token']).json
        want(a('DELETE', 'kv/x', token=t['client_token']), 403)
        want(a('GET', 'kv/x', token='s.' + 'x' * 24), 403)
        rq, rs, read, answer, denied, _, bad, _ = lines(log)[before:before + 8]
        has(rq, type='request')
        has(rq['request'], operation='create', path='kv/x', mount_point='kv/', mount_type='kv', mount_class='secret',
            remote_address='127.0.0.1', namespace={'id': 'root'}, client_token=hashed(t['client_token']),
            client_token_accessor=hashed(t['accessor']), headers={'x-mine': ['yes']},
            data={'secret': hashed('hush'), 'n': 7, 'list': [hashed('hush'), True]})
        has(rq['auth'], client_token=hashed(t['client_token']), accessor=hashed(t['accessor']), display_name='token',
            policies=['default', 'p1'], token_type='service')
        equal(rq['auth']['policy_results']['allowed'], True)
        assert rq['auth']['policy_results']['granting_policies'][1] == {'name': 'p1', 'namespace_id': 'root', 'type': 'acl'}
        has(rs, type='response')
        equal(rs['request']['id'], rq['request']['id'])
        has(read['request'], operation='read', id=got['request_id'])
        equal(answer['response']['data']['secret'], hashed('hush'))
        assert '1 error occurred' in denied['error'] and denied['auth']['policy_results']['allowed'] is False, denied
        assert bad['error'] == 'permission denied' and bad['auth'] == {}, bad
        has(bad['request'], mount_point='kv/', mount_type='kv')
        # A wrapping token that is none is refused before any handler, and written down.
        before = len(lines(log))
        for path in ('unwrap', 'lookup', 'rewrap'):
            want(a('POST', f'sys/wrapping/{path}', {'token': 's.' + 'y' * 24}), 400)
        found = lines(log)[before:]
        equal([(x['type'], x['request']['path']) for x in found],
              [(kind, f'sys/wrapping/{path}') for path in ('unwrap', 'lookup', 'rewrap') for kind in ('request', 'response')])
        assert all('wrapping token is not valid' in x['error'] for x in found if x['type'] == 'request'), found
        # A new token and a wrapping token are in no line in clear.
        new = a.token(policies=['p1'])
        wrapped = a.ok('GET', 'kv/x', headers={'X-Vault-Wrap-TTL': '60'}).json['wrap_info']
        text = open(log).read()
        for secret in (new['client_token'], new['accessor'], wrapped['token'], a.root, 'hush'):
            assert secret not in text, secret
        assert hashed(new['client_token']) in text and hashed(wrapped['token']) in text
        # Tuned keys stay in clear; raw devices hash nothing; a prefix stands before each line.
        a.ok('POST', 'sys/mounts/kv/tune', {'audit_non_hmac_request_keys': 'secret', 'audit_non_hmac_response_keys': 'secret'})
        raw = os.path.join(w.dir, 'raw.log')
        a.ok('PUT', 'sys/audit/raw', {'type': 'file', 'options': {'file_path': raw, 'log_raw': 'true', 'prefix': '@cee: '}})
        a.ok('PUT', 'kv/y', {'secret': 'clear', 'other': 'hidden'})
        equal(lines(log)[-2]['request']['data'], {'secret': 'clear', 'other': hashed('hidden')})
        last = next(line for line in reversed(open(raw).read().splitlines()) if '"kv/y"' in line)
        assert last.startswith('@cee: {') and 'hidden' in open(raw).read() and a.root in last, last
        # A file that was moved away is opened again at SIGHUP.
        os.rename(log, log + '.1')
        a.s.proc.send_signal(signal.SIGHUP)
        await_true('a new file', lambda: a('GET', 'kv/y').status == 200 and os.path.exists(log), 10)
        # One device is enough; with none nothing is executed, and health goes on.
        os.unlink(raw)
        os.mkdir(raw)
        a.s.kill()
        a.s.start()
        a.s.unseal()
        a.ok('GET', 'kv/y')
        want(a('DELETE', 'sys/audit/file'), 500)  # written down, but not its answer: only the broken one is left
        want(a('PUT', 'kv/z', {'v': 1}), 500,
             'internal error: no audit device took the line of the request (reasons in sys/replication/dr/status; its file is tried again every ten seconds)')
        equal(a('GET', 'sys/health', token='').status, 200)
        want(a('PUT', 'sys/seal'), 500, 'failed to audit request, cannot continue')
        os.rmdir(raw)
        a.s.proc.send_signal(signal.SIGHUP)
        await_true('the device to be there', lambda: a('GET', 'kv/y').status == 200, 10)
        want(a('GET', 'kv/z'), 404)
        want(a('DELETE', 'sys/audit/raw'), 204)
        want(a('DELETE', 'sys/audit/raw'), 204)
        equal(a.ok('GET', 'sys/audit').data, {})


def transport():
    """HTTP: methods, redirects, encoded paths, odd headers, forms, escapes"""
    with World() as w:
        a = Api(w)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        c = a.s.connect()

        def raw(method, target, body=None, headers=None):
            c.request(method, target, body, headers or {'X-Vault-Token': a.root})
            r = c.getresponse()
            return r, r.read()
        r, body = raw('GET', '/v1//sys/mounts')
        equal((r.status, r.headers['Location']), (307, '/v1/sys/mounts'))
        r, body = raw('GET', '/v1/kv/%2e%2e/x')
        assert r.status == 400 and b'relative paths not supported' in body, body
        r, body = raw('GET', '/v1/kv/a%00b')
        equal((r.status, body), (400, b''))
        raw('PUT', '/v1/kv/a%2Fb', b'{"v":1}')
        equal(a.ok('GET', 'kv/a/b').data, {'v': 1})
        for target in ('/foo', '/v1', '/v2/x', '/V1/sys/mounts'):
            r, body = raw('GET', target)
            equal((target, r.status, body), (target, 404, b'{"errors":[]}\n'))
        for target in ('/', '/ui/'):
            r, body = raw('GET', target)
            equal((target, r.status, body.strip()), (target, 404, b'404 page not found'))
        r, body = raw('PUT', '/v1/kv/form', b'a=b&c=d', {'X-Vault-Token': a.root, 'Content-Type': 'application/x-www-form-urlencoded'})
        equal(r.status, 204)
        equal(a.ok('GET', 'kv/form').data, {'a': 'b', 'c': 'd'})
        raw('PUT', '/v1/kv/form', b'a=b&a=c', {'X-Vault-Token': a.root, 'Content-Type': 'application/x-www-form-urlencoded'})
        equal(a.ok('GET', 'kv/form').data, {'a': 'b,c'})
        raw('PUT', '/v1/kv/form?x=1', b'{"v":1}')  # what is written is the body, not the query
        equal(a.ok('GET', 'kv/form').data, {'v': 1})
        r, body = raw('PUT', '/v1/kv/form?x=1', b'{}')
        assert r.status == 400 and b'missing data fields' in body, body
        equal(raw('DELETE', '/v1/kv/form?x=1')[0].status, 204)
        r, body = raw('PUT', '/v1/kv/esc', '{"v":"<&>\u2028é","n":12345678901234567890,"e":1e30}'.encode())
        r, body = raw('GET', '/v1/kv/esc')
        assert '"data":{"e":1e+30,"n":12345678901234567890,"v":"\\u003c\\u0026\\u003e\\u2028é"}' in body.decode(), body
        r, body = raw('GET', '/v1/kv/esc', headers={'Authorization': f'Bearer {a.root}'})
        equal(r.status, 200)
        r, body = raw('GET', '/v1/kv/esc', headers={'X-Vault-Token': a.root, 'X-Vault-Namespace': 'nope'})
        equal((r.status, r.headers['X-Vault-Namespace']), (404, 'nope'))
        assert b'namespace not found' in body, body
        for name, value in (('Cache-Control', 'no-store'), ('Content-Type', 'application/json'),
                            ('Strict-Transport-Security', 'max-age=31536000; includeSubDomains')):
            equal(raw('DELETE', '/v1/kv/esc')[0].headers[name], value)
        r, body = raw('GET', '/v1/kv/esc?x=1')
        r, body = raw('PUT', '/v1/kv/chunk', iter([b'{"v":', b'"chunked"}']))
        equal(a.ok('GET', 'kv/chunk').data, {'v': 'chunked'})
        c.close()


def hot_key():
    """many clients that change one key by check-and-set lose no update, and hold up nobody who uses another key"""
    with World() as w:
        a = Api(w)
        a.ok('POST', 'sys/mounts/two', {'type': 'kv', 'options': {'version': '2'}})
        a.ok('PUT', 'two/data/count', {'data': {'v': 0}, 'options': {'cas': 0}})
        won, lock, refused = [], threading.Lock(), []

        def add(_):
            conn = a.s.connect()
            mine = 0
            while mine < 15:
                now = a('GET', 'two/data/count', conn=conn).data
                r = a('PUT', 'two/data/count', {'data': {'v': now['data']['v'] + 1}, 'options': {'cas': now['metadata']['version']}}, conn=conn)
                with lock:
                    (won if r.status == 200 else refused).append(r.status)
                mine += r.status == 200
        threads = [threading.Thread(target=add, args=(i,)) for i in range(12)]
        for t in threads:
            t.start()
        conn, others = a.s.connect(), 0
        while any(t.is_alive() for t in threads):
            a.ok('PUT', f'two/data/other{others % 9}', {'data': {'v': others}}, conn=conn)
            others += 1
        for t in threads:
            t.join()
        now = a.ok('GET', 'two/data/count').data
        equal(now['data'], {'v': len(won)})
        equal((len(won), now['metadata']['version']), (12 * 15, 12 * 15 + 1))
        assert set(refused) <= {400} and refused, 'nobody ever met another'
        assert others > 20, others


class Gpg:
    """A key ring of its own, in a folder; the holder's side, by another implementation."""

    def __init__(self, folder):
        self.home = folder
        os.mkdir(folder, 0o700)

    def run(self, *args, stdin=None):
        r = subprocess.run(['gpg', '--homedir', self.home, '--batch', '--quiet', '--no-tty', '--pinentry-mode', 'loopback', '--passphrase', '', *args],
                           input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        assert r.returncode == 0, r.stderr.decode()
        return r.stdout

    def key(self, name, algo='default', usage='default', expire='never', *args):
        self.run(*args, '--quick-generate-key', name, algo, usage, expire)
        fields = [line.split(':') for line in self.run('--with-colons', '--list-keys', name).decode().splitlines()]
        return next(f[9] for f in fields if f[0] == 'fpr').lower()

    def public(self, name, *args):
        return self.run(*args, '--export', name)

    def revoke(self, fingerprint):
        """By the certificate that was made with the key; a colon keeps it from being used by mistake."""
        with open(os.path.join(self.home, 'openpgp-revocs.d', fingerprint.upper() + '.rev'), 'rb') as f:
            self.run('--import', stdin=f.read().replace(b':-----BEGIN', b'-----BEGIN'))

    def opened(self, message):
        return self.run('--decrypt', stdin=message).decode()

    def close(self):
        subprocess.run(['gpgconf', '--homedir', self.home, '--kill', 'all'], check=False)


def pgp():
    """init, rekey and generate-root encrypt shares and tokens to PGP keys, whose holders read them with GnuPG; what is no such key is refused before anything is made"""
    b64 = base64.b64encode
    with World() as w, contextlib.closing(Gpg(os.path.join(w.dir, 'gpg'))) as g:
        prints = {'alice': g.key('alice'), 'bob': g.key('bob', 'rsa2048', 'cert,sign,encr')}  # a subkey; no subkey
        prints['carol'] = g.key('carol', 'future-default')  # Curve25519
        g.key('signer', 'ed25519', 'sign')
        keys = [b64(g.public(n)).decode() for n in prints]
        s = w.server('pgp')
        s.start()
        init = {'secret_shares': 3, 'secret_threshold': 2}

        def refused(path, body, text):
            r = s.call('PUT', path, body, token='')
            assert r.status == 400 and text in r.text, (r.status, r.text)
        refused('sys/init', {**init, 'pgp_keys': keys[:2]}, 'invalid seal configuration: count mismatch between number of provided PGP keys and number of shares')
        refused('sys/init', {**init, 'pgp_keys': [1, 2, 3]}, 'cannot unmarshal number')
        refused('sys/init', {**init, 'pgp_keys': [keys[0], keys[1], '!']}, 'invalid seal configuration: error decoding given PGP key: illegal base64 data at input byte 0')
        refused('sys/init', {**init, 'pgp_keys': [keys[0], keys[1], 'QUJD']}, 'invalid seal configuration: error parsing given PGP key: ')
        refused('sys/init', {**init, 'pgp_keys': [keys[0], keys[1], keys[2][:200]]}, 'invalid seal configuration: error ')
        sign = b64(g.public('signer')).decode()
        refused('sys/init', {**init, 'root_token_pgp_key': sign}, 'no valid encryption keys')
        g.key('old', 'default', 'default', '1y', '--faked-system-time', '20200101T000000')
        g.revoke(g.key('gone'))
        for bad in ('old', 'gone'):
            refused('sys/init', {**init, 'pgp_keys': [keys[0], b64(g.public(bad)).decode(), keys[2]]}, 'no valid encryption keys')
        refused('sys/init', {**init, 'root_token_pgp_key': 'A' * 40000}, 'longer than 32 KiB')
        refused('sys/init', {**init, 'pgp_keys': [keys[0], None, keys[2]]}, 'error parsing given PGP key: EOF')
        for args in (['-pgp-keys='], ['-pgp-keys=,'], ['-root-token-pgp-key=']):  # never shown as they are instead
            r = s.cli('operator', 'init', '-n=1', '-t=1', *args)
            assert r.returncode == 1 and 'PGP key' in r.stdout, r.stdout
        assert s.ok('GET', 'sys/init', token='').json == {'initialized': False}
        armored = b64(g.public('bob', '--armor')).decode()
        r = s.ok('PUT', 'sys/init', {**init, 'pgp_keys': [keys[0], armored, keys[2]], 'root_token_pgp_key': keys[2]}, token='').json
        equal(r['keys'], [base64.b64decode(k).hex() for k in r['keys_base64']])
        shares = [g.opened(base64.b64decode(k)) for k in r['keys_base64']]
        assert all(re.fullmatch('[0-9a-f]{66}', x) for x in shares), shares
        s.root = s.token = g.opened(base64.b64decode(r['root_token']))
        s.keys, s.threshold = shares, 2
        s.unseal()
        equal(s.ok('GET', 'auth/token/lookup-self').data['policies'], ['root'])

        attempt, update = 'sys/generate-root/attempt', 'sys/generate-root/update'
        refused(attempt, {'pgp_key': '!'}, 'error parsing PGP key: error decoding given PGP key: illegal base64 data at input byte 0')
        refused(attempt, {'pgp_key': sign}, 'error parsing PGP key: ')
        refused(attempt, {'otp': 'A' * 26, 'pgp_key': 5}, 'cannot unmarshal number')
        r = s.ok('PUT', attempt, {'pgp_key': keys[0]}, token='').json
        equal((r['otp'], r['pgp_fingerprint'], r['started']), ('', prints['alice'], True))
        equal(s.ok('GET', attempt, token='').json['pgp_fingerprint'], prints['alice'])
        for k in shares[:2]:
            r = s.ok('PUT', update, {'key': k, 'nonce': r['nonce']}, token='').json
        equal((r['complete'], r['pgp_fingerprint'], r['encoded_token']), (True, prints['alice'], r['encoded_root_token']))
        token = g.opened(base64.b64decode(r['encoded_token']))
        equal(s.ok('GET', 'auth/token/lookup-self', token=token).data['policies'], ['root'])
        assert s.ok('PUT', attempt, {'pgp_key': keys[0]}, token='').json['nonce'] != r['nonce']
        s.ok('DELETE', attempt, token='')

        rekey = 'sys/rekey/init'
        refused(rekey, {**init, 'backup': True}, 'cannot request a backup of the new keys without providing PGP keys')
        refused(rekey, {**init, 'pgp_keys': ['QUJD'] * 3}, 'invalid rekey seal configuration: error parsing given PGP key: ')
        want(s.call('GET', 'sys/rekey/backup'), 400, 'no backed-up keys found')
        r = s.ok('PUT', rekey, {**init, 'pgp_keys': [keys[0], keys[1], keys[0]], 'backup': True}, token='').json
        mine = [prints['alice'], prints['bob'], prints['alice']]
        equal((r['pgp_fingerprints'], r['backup'], r['started']), (mine, True, True))
        for k in shares[:2]:
            r = s.ok('PUT', 'sys/rekey/update', {'key': k, 'nonce': r['nonce']}, token='').json
        equal((r['complete'], r['pgp_fingerprints'], r['backup']), (True, mine, True))
        new = [g.opened(base64.b64decode(k)) for k in r['keys_base64']]
        kept = s.ok('GET', 'sys/rekey/backup').data
        equal(kept, {'nonce': r['nonce'], 'keys': {prints['alice']: [r['keys'][0], r['keys'][2]], prints['bob']: [r['keys'][1]]},
                     'keys_base64': {prints['alice']: [r['keys_base64'][0], r['keys_base64'][2]], prints['bob']: [r['keys_base64'][1]]}})
        want(s.call('GET', 'sys/rekey/backup', token=''), 403)
        assert s.stop() == 0
        s.start()
        want(s.call('PUT', 'sys/unseal', {'key': shares[0]}, token=''), 200)
        want(s.call('PUT', 'sys/unseal', {'key': shares[1]}, token=''), 400)
        s.unseal(new[1:])
        equal(s.ok('GET', 'sys/rekey/backup').data, kept)
        s.ok('DELETE', 'sys/rekey/backup')
        want(s.call('GET', 'sys/rekey/backup'), 400, 'no backed-up keys found')

        # The command line, with files; verification with what the holders read.
        files = {}
        for n, args in (('alice', ()), ('bob', ('--armor',)), ('carol', ())):
            files[n] = os.path.join(w.dir, n)
            with open(files[n], 'wb') as f:
                f.write(b64(g.public(n)) + b'\n' if n == 'carol' else g.public(n, *args))
        r = s.cli('operator', 'rekey', '-init', '-verify', '-backup', '-n=2', '-t=2', f'-pgp-keys={files["alice"]},@{files["bob"]}')
        assert r.returncode == 0 and prints['bob'] in r.stdout, r.stdout
        for k in new[:2]:
            r = s.cli('operator', 'rekey', k)
            assert r.returncode == 0, r.stdout
        equal(s.ok('GET', 'sys/rekey/backup').data['nonce'], re.search(r'Operation nonce: (\S+)', r.stdout)[1])  # before they are proven
        newer = [g.opened(base64.b64decode(x)) for x in re.findall(r'Key \d: (\S+)', r.stdout)]
        assert len(newer) == 2 and 'Verification nonce' in r.stdout, r.stdout
        for k in newer:
            r = s.cli('operator', 'rekey', '-verify', k)
            assert r.returncode == 0, r.stdout
        assert 'verification succeeded' in r.stdout, r.stdout
        r = s.cli('operator', 'generate-root', '-init', f'-pgp-key={files["carol"]}')
        assert r.returncode == 0 and prints['carol'] in r.stdout, r.stdout
        nonce = re.search(r'Nonce +(\S+)', r.stdout)[1]
        for k in newer:
            r = s.cli('operator', 'generate-root', f'-nonce={nonce}', k)
            assert r.returncode == 0, r.stdout
        token = g.opened(base64.b64decode(re.search(r'Encoded Token +(\S+)', r.stdout)[1]))
        equal(s.ok('GET', 'auth/token/lookup-self', token=token).data['policies'], ['root'])
        for bad in (os.path.join(w.dir, 'none'), 'keybase:alice', os.devnull):
            r = s.cli('operator', 'generate-root', '-init', f'-pgp-key={bad}')
            assert r.returncode == 1 and bad in r.stdout, r.stdout


def pgp_operation_token():
    """a DR operation token made with a PGP key, by the API and on the command line, is read by the key's holder alone, and is a good one"""
    path = 'sys/replication/dr/secondary/generate-operation-token'
    with World() as w, contextlib.closing(Gpg(os.path.join(w.dir, 'gpg'))) as g:
        a, b = w.pair()
        fingerprint, public = g.key('alice'), g.public('alice')
        r = b.ok('PUT', f'{path}/attempt', {'pgp_key': base64.b64encode(public).decode()}, token='').json
        has(r, pgp_fingerprint=fingerprint, otp='', complete=False)
        for key in a.keys[:2]:
            r = b.ok('PUT', f'{path}/update', {'key': key, 'nonce': r['nonce']}, token='').json
        has(r, pgp_fingerprint=fingerprint, complete=True)
        by_api = g.opened(base64.b64decode(r['encoded_token']))
        file = os.path.join(w.dir, 'alice')
        with open(file, 'wb') as f:
            f.write(public)
        r = b.cli('operator', 'generate-root', '-dr-token', '-init', f'-pgp-key={file}')
        assert r.returncode == 0 and fingerprint in r.stdout, r.stdout
        nonce = re.search(r'Nonce +(\S+)', r.stdout)[1]
        for key in a.keys[:2]:
            r = b.cli('operator', 'generate-root', '-dr-token', f'-nonce={nonce}', key)
            assert r.returncode == 0, r.stdout
        by_cli = g.opened(base64.b64decode(re.search(r'Encoded Token +(\S+)', r.stdout)[1]))
        assert by_api != by_cli
        delete, promote = 'sys/replication/dr/secondary/operation-token/delete', 'sys/replication/dr/secondary/promote'
        b.ok('PUT', delete, {'dr_operation_token': by_api}, token='')
        assert b.call('PUT', promote, {'dr_operation_token': by_api}, token='').status >= 400
        a.kill()
        b.ok('PUT', promote, {'dr_operation_token': by_cli}, token='')
        b.token = a.root
        await_true('the secondary to serve', lambda: b.call('GET', 'auth/token/lookup-self').status == 200)


def slow_pgp_key():
    """a stranger's PGP key that takes long to read holds up neither a seal nor a rekey nor a ceremony, and is given up on"""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), 'slow_key.b64')) as f:
        slow = f.read().replace('\n', '')
    with World() as w:
        a = Api(w)
        ended, answers = threading.Event(), []

        def stranger():
            while not ended.is_set():
                for path, body in (('rekey/init', {'secret_shares': 16, 'secret_threshold': 2, 'pgp_keys': [slow] * 16}),
                                   ('generate-root/attempt', {'pgp_key': slow})):
                    try:
                        answers.append(a('PUT', f'sys/{path}', body, token=''))
                    except OSError:
                        pass
        threads = [threading.Thread(target=stranger) for _ in range(6)]
        for t in threads:
            t.start()
        try:
            await_true('a key to be given up on', lambda: any(r.status == 400 and 'cannot be read within' in r.text for r in list(answers)))
            await_true('others not to wait', lambda: any(r.status == 503 and 'other PGP keys are being tried' in r.text for r in list(answers)))
            begin = time.monotonic()
            nonce = a.ok('PUT', 'sys/generate-root/attempt', {}, token='').json['nonce']
            for key in a.s.keys[:2]:
                r = a.ok('PUT', 'sys/generate-root/update', {'key': key, 'nonce': nonce}, token='').json
            assert r['complete']
            a.ok('PUT', 'sys/rekey/init', {'secret_shares': 2, 'secret_threshold': 2}, token='')
            a.ok('DELETE', 'sys/rekey/init', token='')
            want(a('PUT', 'sys/seal', {}), 204)
            assert time.monotonic() - begin < 20, time.monotonic() - begin
        finally:
            ended.set()
            for t in threads:
                t.join()
        assert {r.status for r in answers} <= {400, 503}, {r.status for r in answers}
        assert a.s.stop() == 0


if __name__ == '__main__':
    sys.exit(run_tests([tokens, userpass, approle, approle_properties, bound_tokens, kv, policies, mounts, wrapping, unknown_fields, system, described, audit, transport, hot_key, pgp, pgp_operation_token, slow_pgp_key], 'api'))
