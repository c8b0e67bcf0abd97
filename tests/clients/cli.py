#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: Vault's tables, texts, forms and exit codes."""
import json
import os
import pty
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import Failed, World, run_tests  # noqa: E402


class Cli:
    def __init__(self, server):
        self.s = server
        self.home = os.path.join(server.dir, 'home')
        os.makedirs(self.home, exist_ok=True)

    def run(self, *args, stdin='', **env):
        env = {'PATH': os.environ['PATH'], 'HOME': self.home, 'VAULT_ADDR': self.s.addr, 'VAULT_CACERT': self.s.world.ca, **env}
        r = subprocess.run([self.s.program, *args], env=env, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           timeout=60)
        return r.returncode, r.stdout, r.stderr

    def ok(self, *args, **kw):
        code, out, err = self.run(*args, **kw)
        if code != 0:
            raise Failed(f'{args}: exit {code}\n{out}{err}')
        return out

    def says(self, *args, code=0, out=None, err=None, **kw):
        """Exit code and the whole of an output, digits and ids of the moment replaced by what stands in the wanted text."""
        got = self.run(*args, **kw)
        if got[0] != code or (out is not None and not fits(out, got[1])) or (err is not None and not fits(err, got[2])):
            raise Failed(f'{args}: wanted exit {code}\n{out or ""}---\n{err or ""}\ngot exit {got[0]}\n{got[1]}---\n{got[2]}')
        return got[1]


def fits(want, got):
    """`<...>` in the wanted text stands for anything within a line."""
    return re.fullmatch(re.sub(r'<\\\.\\\.\\\.>', r'[^\\n]*', re.escape(want)), got) is not None


def server(w, **kw):
    s = w.server('one', **kw)
    s.start()
    return s, Cli(s)


def helps():
    """every command says what it is for, and how it is used"""
    def walk(words):
        r = subprocess.run([program, *words, '-help'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert r.returncode == 0 and r.stdout.startswith(' '.join(['Usage: lockstep', *words])) and not r.stderr, (words, r)
        below = [line.split() for line in r.stdout.partition('\nCommands:\n')[2].splitlines()]
        assert all(len(w) > 1 for w in below), below
        return 1 + sum(walk([*words, w[0]]) for w in below if w[0] != 'version')
    with World() as w:
        program = w.program
        assert walk([]) > 80


def lost_output():
    """what cannot be written is a failure, and the end of a watch; a snapshot takes the place of no device, link or folder"""
    with World() as w:
        s, c = server(w)
        env = {'PATH': os.environ['PATH'], 'HOME': c.home, 'VAULT_ADDR': s.addr, 'VAULT_CACERT': w.ca}
        with open('/dev/full', 'w') as full:  # the keys of an init that nobody has
            r = subprocess.run([s.program, 'operator', 'init', '-key-shares=1', '-key-threshold=1'], env=env, stdout=full, stderr=subprocess.PIPE, text=True)
        assert r.returncode == 1 and 'No space left on device' in r.stderr, r
        watch = subprocess.Popen([s.program, 'replication', 'watch', '-interval=50ms'], env=env, stdout=subprocess.PIPE)
        watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(20) == 1
        link, folder = f'{w.dir}/link', f'{w.dir}/folder'
        os.symlink(f'{w.dir}/nowhere', link)
        os.mkdir(folder)
        for target in (link, folder):
            c.says('operator', 'snapshot', 'save', target, code=1, err=f'Error: {target} is there, and is no regular file\n')
        assert os.path.islink(link) and os.listdir(folder) == []


def waiting():
    """who waits at a terminal for a server that does not answer is told so after two seconds; a script's output stays as it is"""
    with World() as w:
        s, c = server(w)
        s.proc.send_signal(signal.SIGSTOP)
        env = {'PATH': os.environ['PATH'], 'HOME': c.home, 'VAULT_ADDR': s.addr, 'VAULT_CACERT': w.ca, 'VAULT_CLIENT_TIMEOUT': '5'}
        ours, theirs = pty.openpty()
        r = subprocess.run([s.program, 'status'], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        text = ''
        try:
            while got := os.read(ours, 4096):
                text += got.decode()
        except OSError:  # nothing more comes
            pass
        assert r.returncode == 1 and f'waiting for {s.addr}: ' in text and 'timed out' in text and text.count('waiting') < 4, text
        code, _, err = c.run('status', VAULT_CLIENT_TIMEOUT='4')
        assert code == 1 and 'waiting' not in err, err
        s.proc.send_signal(signal.SIGCONT)


def nested():
    """a table has a row for each nested value, with its path; plain lists are Vault's"""
    with World() as w:
        s, c = server(w)
        s.init()
        env = {'VAULT_TOKEN': s.root}
        c.ok('secrets', 'enable', '-path=kv', 'kv', **env)
        s.ok('PUT', 'kv/x', {'a': {'b': 1, 'c': [{'d': True}, [5]]}, 'none': {}, 'list': ['p', 'q'], 'ttl': 90})
        table = '''a.b                 1
a.c[0].d            true
a.c[1]              [5]
list                [p q]
none                {}
ttl                 1m30s
'''
        c.says('read', 'kv/x', out='Key                 Value\n---                 -----\nrefresh_interval    1m30s\n' + table, **env)
        out = c.ok('read', 'sys/mounts', **env)
        assert re.search('^kv/.config.default_lease_ttl +0$', out, re.M) and 'map[' not in out, out


def life():
    """init, unseal, status, login: tables, JSON, YAML, exit codes"""
    with World() as w:
        s, c = server(w)
        c.says('operator', 'init', '-status', code=2, out='Vault is not initialized\n')
        c.says('status', code=2, out='''Key                Value
---                -----
Seal Type          shamir
Initialized        false
Sealed             true
Total Shares       0
Threshold          0
Unseal Progress    0/0
Unseal Nonce       n/a
Version            <...>
Build Date         n/a
Storage Type       wiredtiger
HA Enabled         false
''')
        out = c.says('operator', 'init', '-key-shares=3', '-key-threshold=2', out='''Unseal Key 1: <...>
Unseal Key 2: <...>
Unseal Key 3: <...>

Initial Root Token: s.<...>

Vault initialized with 3 key shares and a key threshold of 2. Please securely
distribute the key shares printed above. When the Vault is re-sealed,
restarted, or stopped, you must supply at least 2 of these keys to unseal it
before it can start servicing requests.

Vault does not store the generated root key. Without at least 2 keys to
reconstruct the root key, Vault will remain permanently sealed!

It is possible to generate new unseal keys, provided you have a quorum of
existing unseal keys shares. See "lockstep operator rekey" for more information.
''')
        keys, root = re.findall(r'Unseal Key \d: (\S+)', out), re.search(r'Token: (\S+)', out)[1]
        c.says('operator', 'init', code=2, err='''Error initializing: Error making API request.

URL: PUT <...>/v1/sys/init
Code: 400. Errors:

* Vault is already initialized
''')
        c.says('operator', 'unseal', keys[0], out='''Key                Value
---                -----
Seal Type          shamir
Initialized        true
Sealed             true
Total Shares       3
Threshold          2
Unseal Progress    1/2
Unseal Nonce       <...>-<...>
Version            <...>
Build Date         n/a
Storage Type       wiredtiger
''')
        assert json.loads(c.ok('operator', 'unseal', '-format=json', stdin=keys[1] + '\n'))['sealed'] is False
        assert 'sealed: false\n' in c.ok('status', '-format=yaml')
        c.says('status', '-field=t', out='2')
        c.says('login', root, out=f'''Success! You are now authenticated. The token information displayed below
is already stored in the token helper. You do NOT need to run "vault login"
again. Future Vault requests will automatically use this token.

Key                  Value
---                  -----
token                {root}
token_accessor       <...>
token_duration       ∞
token_renewable      false
token_policies       ["root"]
identity_policies    []
policies             ["root"]
''')
        assert open(os.path.join(c.home, '.vault-token')).read() == root
        assert os.stat(os.path.join(c.home, '.vault-token')).st_mode & 0o777 == 0o600
        c.says('token', 'lookup', out=f'''Key                 Value
---                 -----
accessor            <...>
creation_time       <...>
creation_ttl        0s
display_name        root
entity_id           n/a
expire_time         <nil>
explicit_max_ttl    0s
id                  {root}
meta                <nil>
num_uses            0
orphan              true
path                auth/token/root
policies            [root]
ttl                 0s
type                service
''')
        c.says('login', 'bad', code=2, err='''Error authenticating: error looking up token: Error making API request.

URL: GET <...>/v1/auth/token/lookup-self
Code: 403. Errors:

* permission denied
''')
        s.kill()
        code, _, err = c.run('status')
        assert code == 1 and 'Error checking seal status' in err, (code, err)


def secrets():
    """kv v1 and v2, read, write, list, delete: tables, -field, -format, not found"""
    with World() as w:
        s, c = server(w)
        s.init()
        c.ok('login', s.root)
        c.says('secrets', 'enable', '-path=kv', 'kv', out='Success! Enabled the kv secrets engine at: kv/\n')
        c.says('secrets', 'enable', '-path=secret', '-version=2', 'kv', out='Success! Enabled the kv secrets engine at: secret/\n')
        c.says('kv', 'put', 'kv/a', 'foo=1', 'y=two', out='Success! Data written to: kv/a\n')
        c.says('kv', 'get', 'kv/a', out='''=== Data ===
Key    Value
---    -----
foo    1
y      two
''')
        c.says('read', 'kv/a', out='''Key                 Value
---                 -----
refresh_interval    768h
foo                 1
y                   two
''')
        c.says('kv', 'get', '-field=y', 'kv/a', out='two')
        c.says('kv', 'get', '-field=none', 'kv/a', code=1, err='Field "none" not present in secret\n')
        c.says('kv', 'get', 'kv/none', code=2, err='No value found at kv/none\n')
        c.says('read', 'kv/none', code=2, err='No value found at kv/none\n')
        c.says('kv', 'list', 'kv', out='Keys\n----\na\n')
        equal = json.loads(c.ok('kv', 'get', '-format=json', 'kv/a'))
        assert equal['data'] == {'foo': '1', 'y': 'two'} and equal['lease_duration'] == 2764800, equal
        table = '''==== Secret Path ====
secret/data/some/key

======= Metadata =======
Key                Value
---                -----
created_time       <...>
custom_metadata    <nil>
deletion_time      n/a
destroyed          false
version            1
'''
        c.says('kv', 'put', 'secret/some/key', 'a=b', out=table)
        c.says('kv', 'get', '-mount=secret', 'some/key', out=table + '''
== Data ==
Key    Value
---    -----
a      b
''')
        c.says('kv', 'put', '-cas=7', 'secret/some/key', 'a=c', code=2, err='''Error writing data to secret/data/some/key: Error making API request.

URL: PUT <...>/v1/secret/data/some/key
Code: 400. Errors:

* check-and-set parameter did not match the current version
''')
        c.ok('kv', 'put', 'secret/some/key', 'a=new')
        c.ok('kv', 'patch', 'secret/some/key', 'more=x')
        c.says('kv', 'rollback', 'secret/some/key', code=1, err='Version flag must be specified\n')
        c.says('kv', 'rollback', '-version=1', 'secret/some/key', out='''Key                Value
---                -----
created_time       <...>
custom_metadata    <nil>
deletion_time      n/a
destroyed          false
version            4
''')
        c.says('kv', 'get', '-field=a', 'secret/some/key', out='b')
        c.says('kv', 'delete', 'secret/some/key', out='Success! Data deleted (if it existed) at: secret/data/some/key\n')
        c.says('kv', 'undelete', '-versions=4', 'secret/some/key', out='Success! Data written to: secret/undelete/some/key\n')
        c.says('kv', 'destroy', '-versions=1', 'secret/some/key', out='Success! Data written to: secret/destroy/some/key\n')
        c.says('kv', 'rollback', '-version=1', 'secret/some/key', code=2,
               err='Cannot roll back to a version that has been deleted or does not exist\n')
        assert 'True' not in c.ok('kv', 'metadata', 'get', 'secret/some/key')
        c.says('kv', 'enable-versioning', 'kv/', out='Success! Tuned the secrets engine at: kv/\n')
        c.says('write', 'sys/policies/acl/app', 'policy=path "kv/*" { capabilities = ["read"] }',
               out='Success! Data written to: sys/policies/acl/app\n')
        c.says('list', 'sys/policies/acl', out='Keys\n----\napp\ndefault\nroot\n')
        c.says('write', 'sys/policies/acl/app', code=1, err='Must supply data or use -force\n')
        c.says('delete', 'sys/policies/acl/app', out='Success! Data deleted (if it existed) at: sys/policies/acl/app\n')
        out = c.ok('token', 'create', '-policy=default', '-ttl=90m')
        assert re.search(r'(?m)^token_duration       1h30m$', out) and '["default"]' in out, out
        c.says('path-help', 'sys/mounts', out='List the secrets engines.\n')
        wrapped = c.ok('kv', 'get', '-wrap-ttl=60', '-field=wrapping_token', 'secret/some/key')
        assert 'b' in c.ok('unwrap', wrapped)


def words():
    """help texts, unknown commands and flags, environment, curl string"""
    with World() as w:
        s, c = server(w)
        s.init()
        for args in (['-help'], ['kv', '-help'], ['kv', 'get', '-help'], ['operator', '--help'], ['server', '-h']):
            out = c.says(*args)
            assert out.startswith('Usage: lockstep '), (args, out)
        code, _, err = c.run('nonsense')
        assert code == 1 and err.startswith('lockstep: no such command: nonsense\n\nUsage: lockstep <command>'), (code, err)
        c.says('replication', 'drill', 'start', code=1, err='Usage: lockstep replication drill start -listen=HOST:PORT [options]\n')
        code, _, err = c.run('kv', 'nonsense')
        assert code == 1 and err.startswith('lockstep kv: no such command: nonsense\n'), (code, err)
        for flag, text in (('-days=0', 'give 1 to 36500'), ('-days=-1', 'give 1 to 36500'), ('-host=', '-host is empty')):
            code, _, err = c.run('cert', 'server', f'-dir={w.tls}', '-name=bad', flag)
            assert code == 1 and text in err and not os.path.exists(f'{w.tls}/bad.pem'), (flag, code, err)
        c.says('kv', 'get', '-nope', 'x', code=1, err='flag provided but not defined: -nope\nSee `lockstep kv get -help`.\n')
        c.says('read', '-format=xml', 'x', code=1, err='Invalid output format: xml (use table, json or yaml)\n')
        assert json.loads(c.ok('read', 'sys/mounts', VAULT_TOKEN=s.root, VAULT_FORMAT='json'))['data']['sys/']['type'] == 'system'
        out = c.ok('read', '-output-curl-string', 'kv/x', VAULT_TOKEN=s.root)
        assert s.root not in out and out.startswith('curl ') and f'{s.addr}/v1/kv/x' in out, out
        code, _, err = c.run('read', 'sys/mounts', VAULT_CACERT='')
        assert code == 2 and 'certificate' in err and 'VAULT_CACERT' in err, (code, err)
        code, _, err = c.run('status', VAULT_TLS_SERVER_NAME='other.example')
        assert code == 1 and 'other.example' in err, (code, err)
        c.ok('status', VAULT_TLS_SERVER_NAME='localhost')
        code, _, err = c.run('read', 'sys/mounts', VAULT_ADDR='https://127.0.0.1:1')
        assert code == 2 and 'https://127.0.0.1:1/v1/sys/mounts' in err, (code, err)


def audit():
    """audit list, enable, disable"""
    with World() as w:
        s, c = server(w)
        s.init()
        c.ok('login', s.root)
        c.says('audit', 'list', code=2, err='No audit devices are enabled.\n')
        log = os.path.join(w.dir, 'audit.log')
        c.says('audit', 'enable', '-description=all of it', 'file', f'file_path={log}', out='Success! Enabled the file audit device at: file/\n')
        c.says('audit', 'enable', '-path=two/', 'file', 'file_path=discard', out='Success! Enabled the file audit device at: two/\n')
        c.says('audit', 'list', out='''Path     Type    Description
----     ----    -----------
file/    file    all of it
two/     file    n/a
''')
        out = c.ok('audit', 'list', '-detailed')
        assert f'replicated     file_path={log}\n' in out, out
        assert json.loads(c.ok('audit', 'list', '-format=json'))['two/']['options'] == {'file_path': 'discard'}
        c.says('audit', 'enable', 'file', code=2, err='''Error enabling audit device: Error making API request.

URL: PUT <...>/v1/sys/audit/file
Code: 400. Errors:

* path already in use
''')
        c.says('audit', 'disable', 'file', out='Success! Disabled audit device (if it was enabled) at: file/\n')
        assert '"path":"sys/audit/file"' in open(log).read()


def primary_words():
    """what the walk's verbs print on a primary"""
    with World() as w:
        s, c = server(w)
        s.init()
        c.ok('login', s.root)
        c.says('write', '-f', 'sys/replication/dr/primary/enable',
               out='Success! Data written to: sys/replication/dr/primary/enable\n',
               err='''WARNING! The following warnings were returned from Vault:

  * This cluster is being enabled as a primary for replication. Vault will be
  unavailable for a brief period and will resume service shortly.

''')
        c.says('write', 'sys/replication/dr/primary/secondary-token', 'id=b', out='''Key                              Value
---                              -----
wrapping_token:                  ey<...>.<...>.<...>
wrapping_accessor:               <...>
wrapping_token_ttl:              30m
wrapping_token_creation_time:    20<...> +0000 UTC
wrapping_token_creation_path:    sys/replication/dr/primary/secondary-token
''')
        code, _, err = c.run('operator', 'generate-root', '-dr-token', '-init')
        assert code == 2 and '\n* Not a DR secondary.' in err, (code, err)
        out = c.says('operator', 'generate-root', '-init', out='''A One-Time-Password has been generated for you and is shown in the OTP field.
You will need this value to decode the resulting root token, so keep it safe.

Nonce         <...>
Started       true
Progress      0/2
Complete      false
OTP           <...>
OTP Length    26
''')
        nonce, otp = re.search(r'(?m)^Nonce +(\S+)', out)[1], re.search(r'(?m)^OTP +(\S+)', out)[1]
        c.ok('operator', 'generate-root', f'-nonce={nonce}', s.keys[0])
        out = c.ok('operator', 'generate-root', f'-nonce={nonce}', s.keys[1])
        encoded = re.search(r'(?m)^Encoded Token +(\S+)', out)[1]
        token = c.ok('operator', 'generate-root', f'-decode={encoded}', f'-otp={otp}').strip()
        assert s.ok('GET', 'auth/token/lookup-self', token=token).data['policies'] == ['root']
        c.says('operator', 'generate-root', '-cancel', out='Success! Root token generation canceled (if it was started)\n')


if __name__ == '__main__':
    sys.exit(run_tests([helps, nested, lost_output, waiting, life, secrets, words, audit, primary_words], 'cli'))
