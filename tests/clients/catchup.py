#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Catching up by difference, and the proof that both hold the same: with real servers."""
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from cluster import ROOT, Failed, World, await_true, run_tests  # noqa: E402

FLIP = os.path.join(ROOT, 'build', 'tests', 'lib', 'flip_row')


def want(r, status, text=''):
    assert r.status == status and text in r.text, (r.status, r.text)
    return r


def pair(w):
    """Both scrub every second."""
    a, b = w.server('primary'), w.server('secondary')
    for s in (a, b):
        with open(s.config, 'a') as f:
            f.write('replication {\n  scrub_interval = "1s"\n}\n')
        s.start()
        s.init()
    w.enable(a, b)
    a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
    return a, b


def proof(s):
    st = s.dr_status()
    peers = st.get('secondaries') or st.get('primaries')
    return peers[0] if peers else {}


def equal(s):
    p = proof(s)
    return p.get('verified') == 'equal' and p['verified_equal_lsn'] > 0


def codes(s):
    return [r['code'] for r in s.dr_status()['reasons']]


def verified():
    """both ends say at which LSN they were equal and how long ago; without a link the proof grows old"""
    with World() as w:
        a, b = pair(w)
        for i in range(20):
            a.ok('PUT', f'kv/k{i}', {'v': str(i)})
        for s in (a, b):
            await_true(f'{s.name} to be verified', lambda: equal(s))
            await_true(f'{s.name} to be scrubbed', lambda: s.dr_status()['scrub']['rounds'] > 1)
        lsn = a.dr_status()['last_dr_wal']
        for s in (a, b):
            await_true('the proof to go on', lambda: proof(s)['verified_equal_lsn'] > lsn)
            st = s.dr_status()
            assert proof(s)['verified_equal_age_ms'] < 5000 and proof(s)['verified_equal_time'], proof(s)
            assert st['corrupted_merkle_tree'] is False and st['scrub']['corrupted_leaves'] == 0, st
            assert int(st['last_corruption_check_epoch']) > 0 and isinstance(st['last_corruption_check_epoch'], str), st
            assert st['last_reindex_epoch'] == '0', st
        a.kill()
        await_true('the proof to grow old', lambda: proof(b)['verified_equal_age_ms'] > 2500)


def flipped_byte():
    """a byte of the secondary's store is flipped: the badge goes within a scrub, and comes back with the byte as it was"""
    with World() as w:
        a, b = pair(w)
        for i in range(50):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 200})
        w.await_caught_up(a, b)
        await_true('the secondary to be verified', lambda: equal(b))
        assert b.stop() == 0
        data = os.path.join(b.dir, 'data')
        subprocess.run([FLIP, data, 'logical/'], check=True)
        b.start()
        b.unseal(a.keys[:2])

        def gone():
            st = b.dr_status()
            return st['corrupted_merkle_tree'] and proof(b)['verified'] == 'damaged' and 'data_damaged' in codes(b)
        await_true('the badge to go', gone, 20)
        await_true('the badge to come back', lambda: equal(b) and not b.dr_status()['corrupted_merkle_tree'], 40)
        await_true('both to be well', lambda: codes(b) == [] and codes(a) == [])
        st = b.dr_status()
        assert st['scrub']['repairs'] == 1, st['scrub']
        with open(b.log) as f:
            log = f.read()
        assert 'are not what the Merkle tree says' in log, log[-2000:]
        moved = [line for line in log.splitlines() if 'caught up to LSN' in line][-1]
        assert ': 1 keys taken, 1 deleted' in moved or ': 1 keys taken, 0 deleted' in moved, moved
        await_true('another scrub', lambda: b.dr_status()['scrub']['rounds'] > 1)
        assert not b.dr_status()['corrupted_merkle_tree']
        assert a.dr_status()['merkle_root'] and a.ok('GET', 'kv/k0').data == {'v': 'x' * 200}


def progress():
    """how far a first copy is and how long it takes yet: in status, metrics and both forms of the command line"""
    with World() as w:
        a, b = w.server('primary'), w.server('secondary')
        b.free_metrics()
        for s in (a, b):
            s.start()
            s.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        conn, n = a.connect(), 1500
        for i in range(n):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 30000}, conn=conn)
        a.ok('PUT', 'sys/replication/dr/primary/enable', {})
        token = a.ok('PUT', 'sys/replication/dr/primary/secondary-token', {'id': 'secondary'}).json['wrap_info']['token']
        b.ok('PUT', 'sys/replication/dr/secondary/enable', {'token': token, 'ca_file': w.ca, 'confirm_wipe': b.name})

        def told():
            p = b.dr_status().get('progress')
            return p is not None and p['phase'] == 'ranges' and p['time_left_ms'] >= 0
        await_true('the copy to be under way', told)
        a.proc.send_signal(signal.SIGSTOP)  # and it stays as it is, until its silence is noticed
        p = b.dr_status()['progress']
        assert p['phase'] == 'ranges' and 0 < p['sync_progress'] < p['sync_total_keys'] and n < p['sync_total_keys'] < n + 50, p
        values = dict(line.rsplit(' ', 1) for line in b.ok('GET', 'sys/metrics?format=prometheus', token='').text.splitlines())
        assert values['lockstep_catch_up_active'] == '1' and int(values['lockstep_catch_up_total']) == p['sync_total_keys'], values
        assert 0 < int(values['lockstep_catch_up_done']) < n and float(values['lockstep_catch_up_left_seconds']) >= 0, values
        text = b.cli('replication', 'status').stdout
        assert re.search(r'(?m)^Catching up: ranges: \d+ of \d+ \(\d+ %\), \d+ s left; \d+ keys taken, 0 deleted, \d+ bytes moved$', text), text
        text = b.cli('replication', 'watch', '-count=1').stdout
        assert re.search(r' catching-up="ranges: \d+ of \d+ \(\d+ %\), \d+ s left" ', text), text
        a.proc.send_signal(signal.SIGCONT)
        b.threshold, b.keys, b.token = a.threshold, a.keys, a.token
        w.await_following(b, 60)
        assert 'Catching up' not in b.cli('replication', 'status').stdout


def spoil(s, table, begin=0, end=1):
    """A byte of each block in that part of the table's file; the block that describes the file stays."""
    data = os.path.join(s.dir, 'data')
    gen = max(int(n[4:]) for n in os.listdir(data) if n.startswith('gen-'))
    store = os.path.join(data, f'gen-{gen}', 'store')
    path = max((os.path.join(store, n) for n in os.listdir(store) if n.startswith(table)), key=os.path.getsize)
    size = os.path.getsize(path)
    with open(path, 'r+b') as f:
        for at in range(max(4096, int(size * begin) // 4096 * 4096), int(size * end), 4096):
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0xff]))


def start_again(s, most):
    """As a service manager does; how often it ended by itself."""
    for ended in range(most + 1):
        try:
            s.start()
            return ended
        except Failed:
            assert s.proc.poll() not in (None, 0), s.tail()
    raise Failed(f'{s.name} ended at each of {most + 1} starts:\n{s.tail()}')


def log_of(s):
    with open(s.log, errors='replace') as f:
        return f.read()


def unreadable_block():
    """a block of the secondary's store goes bad on the disk: the next start takes the data anew, and the badge comes back"""
    with World() as w:
        a, b = pair(w)
        for i in range(300):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 2000})
        w.await_caught_up(a, b)
        assert b.stop() == 0
        spoil(b, 'kv', 1 / 4, 1 / 2)
        b.start()
        await_true('the scrub to meet it', lambda: b.proc.poll() is not None)
        assert b.proc.returncode != 0
        b.start()
        b.unseal(a.keys[:2])
        assert b.dr_status()['mode'] == 'secondary', 'what can be read is given up before it is there anew'
        await_true('the badge to come back', lambda: equal(b) and not b.dr_status()['corrupted_merkle_tree'], 40)
        await_true('a whole scrub', lambda: b.dr_status()['scrub']['rounds'] > 0 and b.dr_status()['scrub']['corrupted_leaves'] == 0)
        assert 'has a block that cannot be read' in log_of(b)
        assert max(map(len, log_of(b).splitlines())) < 1000, 'what the block holds is in the log'


def unreadable_store():
    """a secondary whose store does not open, whatever of it is damaged, needs no hands: it says so, follows, and takes all anew"""
    with World() as w:
        a, b = pair(w)
        for i in range(300):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 2000})
        w.await_caught_up(a, b)
        dr = b.dr_token(a.keys[:2])
        for table, opens in (('leaf', True), ('meta', False), ('kv', False), ('WiredTiger.wt', False)):
            if table == 'meta':  # its log goes beyond its store
                for i in range(50):
                    a.ok('PUT', f'kv/k{i}', {'v': 'y' * 2000})
                w.await_caught_up(a, b)
                b.kill()
            else:
                assert b.stop() == 0
            spoil(b, table)
            a.kill()  # so that what it says of itself meanwhile can be seen
            assert 0 < start_again(b, 2), table
            assert 'takes all of its data anew from the primary, and cannot be promoted' in log_of(b).rsplit('Vault server started', 2)[1], b.tail()
            if opens:  # what is not damaged can still be read
                b.unseal(a.keys[:2])
                st = b.dr_status()
                why = [r for r in st['reasons'] if r['code'] == 'data_damaged']
                assert len(why) == 1 and 'cannot be read' in why[0]['what'] and st['corrupted_merkle_tree'], (table, st)
                assert st['mode'] == 'secondary', st
                r = b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token='')
                want(r, 503, 'cannot be read')
            else:
                r = b.call('GET', 'sys/init', token='')
                assert r.json == {'initialized': True}, (r.status, r.text, b.call('GET', 'sys/replication/dr/status', token='').text[:200], b.call('GET', 'sys/seal-status', token='').text)
                want(b.call('GET', 'sys/health', token=''), 503)
                assert b.call('GET', 'sys/seal-status', token='').json['initialized'] is True
                want(b.call('PUT', 'sys/unseal', {'key': a.keys[0]}, token=''), 400, 'takes all of its data anew from its primary')
                want(b.call('PUT', 'sys/init', {'secret_shares': 1, 'secret_threshold': 1}, token=''), 400, "taking a primary's data")
            before = log_of(b).count('caught up to LSN')
            a.start()
            a.unseal()
            a.ok('PUT', f'kv/{table.lower()}', {'v': '1'})
            await_true(f'the data to be whole again after {table}', lambda: log_of(b).count('caught up to LSN') > before, 40)
            def unsealed():  # the log says it before the data is in place, which forgets the shares given until then
                for key in a.keys[:2]:
                    r = b.call('PUT', 'sys/unseal', {'key': key}, token='')
                return r.status == 200 and not r.json['sealed']
            if not opens:
                await_true(f'it to be unsealed after {table}', unsealed)
            await_true(f'the badge to come back after {table}', lambda: equal(b) and codes(b) == [], 40)
            w.await_caught_up(a, b)
        said = log_of(b).count('cannot be read')
        assert b.stop() == 0
        b.start()
        b.unseal(a.keys[:2])
        await_true('both to be equal', lambda: equal(b) and codes(b) == [])
        assert log_of(b).count('cannot be read') == said, 'what is mended is not forgotten'


def unreadable_primary():
    """a primary, or a server alone, whose store does not open goes on refusing, and says what to do"""
    with World() as w:
        a = w.server('alone')
        a.start()
        a.init()
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        assert a.stop() == 0
        spoil(a, 'leaf')
        for _ in range(3):
            try:
                start_again(a, 0)
                raise AssertionError('it serves without its Merkle tree')
            except Failed:
                pass
            said = log_of(a)
            assert 'cannot be read' in said and 'promote a secondary' in said and 'restore a snapshot' in said, a.tail()


def fail_back():
    """an old primary with writes of its own comes back by what differs"""
    with World() as w:
        a, b = pair(w)
        for i in range(300):
            a.ok('PUT', f'kv/k{i}', {'v': 'x' * 500})
        w.await_caught_up(a, b)
        b.stop()
        a.ok('PUT', 'kv/only-here', {'v': '1'})
        a.kill()
        b.start()
        b.unseal(a.keys[:2])
        dr = b.dr_token(a.keys[:2])
        b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': dr}, token='')
        b.token = a.root
        for i in range(10):
            b.ok('PUT', f'kv/k{i}', {'v': 'new'})
        b.stop()  # else the old primary meets the new epoch and serves nothing, not even that it is disabled
        a.free_metrics()
        a.start()
        a.unseal()
        await_true('the old primary to serve', lambda: a.call('GET', 'sys/mounts').status == 200)
        a.ok('PUT', 'sys/replication/dr/primary/disable', {})
        b.start()
        b.unseal(a.keys[:2])
        await_true('the new primary to serve', lambda: b.call('GET', 'sys/mounts').status == 200)
        b.threshold, b.keys = a.threshold, a.keys
        w.enable(b, a, 'old-primary')
        await_true('the old primary to be verified', lambda: equal(a))
        with open(a.log) as f:
            log = f.read()
        assert log.index('starting merkle diff') < log.index('starting merkle sync: '), "Vault's words for it"
        moved = [line for line in log.splitlines() if 'caught up to LSN' in line][-1]
        taken = int(moved.split(' keys taken')[0].rsplit(' ', 1)[1])
        assert 10 <= taken < 100, moved
        text = a.ok('GET', 'sys/metrics?format=prometheus', token='').text
        counts = dict(line.rsplit(' ', 1) for line in text.splitlines() if '_count ' in line)
        for name in ('replication_merkleDiff', 'replication_merkleSync', 'replication_fetchRemoteKeys'):
            assert float(counts[f'vault_{name}_count']) >= 1, (name, counts)


def checks():
    """merkle-check and reindex answer in Vault's form on both sides, with the right token only"""
    with World() as w:
        a, b = pair(w)
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        dr = b.dr_token(a.keys[:2])

        def report(s, path, body):
            r = s.ok('PUT', path, body).data['merkle_corruption_report']
            tree = r['corrupted_tree_map']['1']
            assert r['corrupted_root'] is False and tree['tree_type'] == 'replicated', r
            assert tree['corrupted_subtree_root'] is False and tree['corrupted_index_tuples_map'] is None, r
            assert r['last_corruption_check_epoch'].endswith('Z') and r['checked_keys'] > 5, r
            assert len(tree['root_hash']) == 28, r
        report(a, 'sys/replication/merkle-check', {})
        report(b, 'sys/replication/dr/secondary/merkle-check', {'dr_operation_token': dr})
        want(b.call('PUT', 'sys/replication/dr/secondary/merkle-check', {}, token=''), 400, 'dr_operation_token')
        want(b.call('PUT', 'sys/replication/dr/secondary/reindex', {'dr_operation_token': 'x'}, token=''), 403)
        want(b.call('PUT', 'sys/replication/merkle-check', {}), 400, 'path disabled in replication DR secondary mode')
        want(a.call('PUT', 'sys/replication/dr/secondary/merkle-check', {'dr_operation_token': dr}, token=''), 400,
             'Not a DR secondary.')
        want(a.call('PUT', 'sys/replication/reindex', {}, token='s.nobody'), 403)
        assert a.ok('PUT', 'sys/replication/reindex', {}).json['warnings']
        assert int(a.dr_status()['last_reindex_epoch']) > 0
        before = b.dr_status()['scrub']['repairs']
        assert b.ok('PUT', 'sys/replication/dr/secondary/reindex', {'dr_operation_token': dr}, token='').json['warnings']
        await_true('what differs to be taken', lambda: b.dr_status()['scrub']['repairs'] > before)
        w.await_following(b)
        await_true('both to be equal', lambda: equal(a) and equal(b))
        assert int(b.dr_status()['last_reindex_epoch']) > 0


def reindex_alone():
    """a secondary's reindex without its primary is refused, and says why and what helps; with it again it is done"""
    with World() as w:
        a, b = pair(w)
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        body = {'dr_operation_token': b.dr_token(a.keys[:2])}
        a.kill()
        await_true('the loss to be noticed', lambda: b.dr_status()['state'] != 'stream-wals', 30)
        want(b.call('PUT', 'sys/replication/dr/secondary/reindex', body, token=''), 400, 'not connected to the primary')
        st = b.dr_status()
        assert st['last_reindex_epoch'] == '0' and st['scrub']['repairs'] == 0, st
        a.start()
        a.unseal()
        w.await_following(b)
        assert b.dr_status()['scrub']['repairs'] == 0, 'what was refused is done later'
        b.ok('PUT', 'sys/replication/dr/secondary/reindex', body, token='')
        await_true('both to be equal', lambda: equal(a) and equal(b) and b.dr_status()['scrub']['repairs'] == 1)
        assert int(b.dr_status()['last_reindex_epoch']) > 0


def recover():
    """recover makes the link anew, at once, whether it is there or waited for, and changes nothing; each side with its own token"""
    path = 'sys/replication/dr/secondary/recover'
    with World() as w:
        a, b = pair(w)
        body = {'dr_operation_token': b.dr_token(a.keys[:2])}

        def waits():
            return re.findall(r'dialling again in (\d+)', log_of(b))
        for n in range(1, 4):
            assert 'made anew' in b.ok('PUT', path, body, token='').json['warnings'][0]
            await_true('the end of the old link', lambda: log_of(b).count(': a new connection was asked for') == n)
            a.ok('PUT', 'kv/x', {'v': str(n)})
            w.await_following(b)
            w.await_caught_up(a, b)
        a.kill()
        await_true('the loss to be noticed', lambda: b.dr_status()['state'] != 'stream-wals', 30)
        await_true('a wait of seconds', lambda: max(map(int, waits())) >= 1000)
        seen = len(waits())
        b.ok('PUT', path, body, token='')  # the wait is cut short, and begins small again
        await_true('another call', lambda: any(int(ms) < 1000 for ms in waits()[seen:]))
        a.start()
        a.unseal()
        b.ok('PUT', path, body, token='')
        w.await_following(b)
        w.await_caught_up(a, b)
        assert 'by the secondary' in a.ok('PUT', 'sys/replication/recover', {}).json['warnings'][0]
        want(b.call('PUT', path, {}, token=''), 400, 'dr_operation_token')
        want(b.call('PUT', 'sys/replication/recover', {}), 400, 'path disabled in replication DR secondary mode')
        want(a.call('PUT', path, body, token=''), 400, 'Not a DR secondary.')
        want(a.call('PUT', 'sys/replication/recover', {}, token='s.nobody'), 403)
        b.ok('PUT', 'sys/replication/dr/secondary/update-primary', {**body, 'token': ''}, token='')
        want(b.call('PUT', path, body, token=''), 400, 'follows nobody')
        c = w.server('alone')
        c.start()
        c.init()
        want(c.call('PUT', 'sys/replication/recover', {}), 400)


sys.exit(run_tests([progress, verified, flipped_byte, unreadable_block, unreadable_store, unreadable_primary, fail_back, checks, reindex_alone, recover], 'catch-up'))
