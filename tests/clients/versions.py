#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old and new programs speak: the previous commit's build against this one, in both roles, and an upgrade of each side in place.

usage: versions.py [--previous COMMIT]     HEAD~1 unless given
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, World, await_true, run_tests  # noqa: E402

FOLDER = os.path.join(ROOT, 'build-previous')
OLD = os.path.join(FOLDER, 'build', 'lockstep')
NEW = os.environ.get('LOCKSTEP', os.path.join(ROOT, 'build', 'lockstep'))


def git(*args):
    return subprocess.run(['git', '-C', ROOT, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def build(commit):
    """Its source aside, its program in build-previous/build. None, or why it cannot be."""
    r = git('rev-parse', '--verify', '-q', commit + '^{commit}')
    if r.returncode != 0:
        return f'{commit} is not in this clone'
    name, stamp = r.stdout.decode().strip(), os.path.join(FOLDER, 'commit')
    if os.path.exists(OLD) and os.path.exists(stamp) and open(stamp).read() == name:
        return None
    shutil.rmtree(FOLDER, ignore_errors=True)
    src = os.path.join(FOLDER, 'src')
    os.makedirs(src)
    archive = subprocess.run(['git', '-C', ROOT, 'archive', name], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(['tar', '-x', '-C', src], input=archive, check=True)
    for cmd in (['meson', 'setup', os.path.join(FOLDER, 'build'), src], ['ninja', '-C', os.path.join(FOLDER, 'build'), 'lockstep']):
        r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode != 0:
            sys.exit(f'{" ".join(cmd)}:\n{r.stdout[-3000:]}')
    with open(stamp, 'w') as f:
        f.write(name)
    return None


def fill(a, n, base=0):
    conn = a.connect()
    for i in range(base, base + n):
        a.ok('PUT', f'kv/k{i}', {'v': i}, conn=conn)


def read_all(s, n, token):
    conn = s.connect()
    for i in range(n):
        assert s.ok('GET', f'kv/k{i}', token=token, conn=conn).data == {'v': i}


def pair(w, primary, secondary):
    a, b = w.server('primary', program=primary), w.server('secondary', program=secondary)
    for s in (a, b):
        s.start()
        s.init()
    w.enable(a, b)
    a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    fill(a, 50)
    w.await_caught_up(a, b)
    return a, b


def promote(a, b, n):
    a.kill()
    b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': b.dr_token(a.keys[:2])}, token='')
    await_true('service', lambda: b.call('GET', 'auth/token/lookup-self', token=a.root).status == 200, 10)
    read_all(b, n, a.root)


def new_secondary():
    """a new secondary follows an old primary, is promoted, and has every secret"""
    with World(NEW) as w:
        a, b = pair(w, OLD, NEW)
        promote(a, b, 50)


def old_secondary():
    """an old secondary follows a new primary, is promoted, and has every secret"""
    with World(NEW) as w:
        a, b = pair(w, NEW, OLD)
        promote(a, b, 50)


def upgrade():
    """the secondary first, then the primary: each starts with the new program on the old one's data, and the stream goes on"""
    with World(NEW) as w:
        a, b = pair(w, OLD, OLD)
        n = 50
        for s in (b, a):
            s.stop()
            s.program = NEW
            s.start()
            s.unseal(a.keys[:2])
            w.await_following(b)
            fill(a, 20, n)
            n += 20
            w.await_caught_up(a, b)
        with open(b.log) as f:
            log = f.read()
        copies = log.count('replication: copying') + log.count('replication: catching up with')  # of either program
        assert copies == 1, f'{copies} copies: an upgrade took one'
        w.check_same_root(a, b)
        promote(a, b, n)


if __name__ == '__main__':
    commit = 'HEAD~1'
    if '--previous' in sys.argv:
        at = sys.argv.index('--previous')
        commit = sys.argv[at + 1]
        del sys.argv[at:at + 2]
    why = build(commit)
    if why:
        print(f'skip versions: {why}\n0 passed, 0 failed')
        sys.exit(0)
    sys.exit(run_tests([new_secondary, old_secondary, upgrade], 'versions'))
