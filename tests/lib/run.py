#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the rings of tests and adds them up. A ring that ran nothing is a failure; each skip says why.

What failed is told again at the end, so that the end of a long output is enough to know it."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

import browser

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CI = os.environ.get('CI') == 'true'
totals = {'passed': 0, 'failed': 0, 'skipped': 0}
names = []
failures = []  # of each ring that failed: its name, and the end of what the last command that failed in it printed
last_failed = ''
listing = '--list' in sys.argv
only = [a for a in sys.argv[1:] if a not in ('quick', 'long')]
mode = next((a for a in sys.argv[1:] if a in ('quick', 'long')), 'full')


def say(text):
    print(text, flush=True)


def sh(args, env=None, timeout=3600, quiet=True):
    r = subprocess.run(args, cwd=ROOT, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors='replace', timeout=timeout)
    if r.returncode != 0:
        global last_failed
        last_failed = r.stdout
    if r.returncode != 0 or not quiet:
        say(r.stdout[-12000:])
    return r.returncode, r.stdout


FAILURE = re.compile(r'^FAIL|\[FAIL\]| FAIL |TIMEOUT|ERROR: |error:|runtime error|WARNING: ThreadSanitizer')


def what_failed(text):
    """The lines that name failures with some of what follows each, and the end of the text."""
    lines = text.splitlines()
    kept = set(range(max(len(lines) - 15, 0), len(lines)))
    for i in [i for i, line in enumerate(lines) if FAILURE.search(line)][:8]:
        kept |= set(range(i, min(i + 15, len(lines))))
    return '\n'.join(f'   {lines[i][:300]}' for i in sorted(kept))


def count(ring, passed, failed, skipped=0, why=''):
    global last_failed
    if passed + failed + skipped == 0:
        say(f'{ring}: ran nothing')
        failed = 1
    for k, v in (('passed', passed), ('failed', failed), ('skipped', skipped)):
        totals[k] += v
    if failed:
        failures.append((ring, failed, why, what_failed(last_failed)))
    last_failed = ''
    say(f'== {ring}: {passed} ok, {failed} not ok, {skipped} left out{" (" + why + ")" if why else ""}')


def skip(ring, why):
    """For a user a counted skip; in CI what is missing is a failure."""
    count(ring, 0, 1 if CI else 0, 0 if CI else 1, why)


def ring(name, modes=('full', 'long')):
    names.append(name)

    def wrap(fn):
        if listing:
            return fn
        if (mode in modes or name in only) and (not only or name in only):
            begin = time.monotonic()
            say(f'-- {name}')
            try:
                fn(name)
            except subprocess.TimeoutExpired as e:
                count(name, 0, 1, why=f'took longer than {e.timeout} s')
            say(f'   {time.monotonic() - begin:.0f} s')
        return fn
    return wrap


def build(folder, *options, env=None):
    code, _ = sh(['tools/build', *options], env={'BUILD_DIR': folder, **(env or {})})
    return code == 0


def meson_ring(name, folder, suites, env=None, timeout=1800):
    """Criterion's own totals count each test; other programs count as one."""
    log = os.path.join(ROOT, folder, 'meson-logs', 'testlog.json')
    if os.path.exists(log):
        os.unlink(log)
    args = ['meson', 'test', '-C', folder, '--no-rebuild', '--print-errorlogs', '--num-processes', '2']
    for s in suites:
        args += ['--suite', s]
    code, _ = sh(args, env=env, timeout=timeout)
    passed = failed = 0
    for line in open(log, errors='replace') if os.path.exists(log) else ():
        test = json.loads(line)
        good = test['result'] in ('OK', 'EXPECTEDFAIL')
        text = re.sub(r'\x1b\[[0-9;]*m', '', test.get('stdout', '') + test.get('stderr', ''))
        m = re.search(r'Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)', text)
        if m and int(m[1]) > 0:
            passed += int(m[2])
            failed += max(int(m[3]) + int(m[4]), 0 if good else 1)
        else:
            passed += good and not m
            failed += not good or bool(m)
            if m:
                say(f'{test["name"]}: ran nothing')
    if code != 0 and failed == 0:
        failed = 1
    count(name, passed, failed)


def script_ring(name, args, env=None, timeout=1800):
    code, out = sh([sys.executable, *args], env=env, timeout=timeout)
    m = re.findall(r'(?m)^(\d+) passed, (\d+) failed$', out)
    passed, failed = (int(m[-1][0]), int(m[-1][1])) if m else (0, 0)
    left_out = re.findall(r'(?m)^skip (.+)$', out)
    if code != 0 and failed == 0:
        failed = 1
    if code == 0:
        say('\n'.join(l for l in out.splitlines() if l.startswith(('ok ', 'seed ')) or ' rounds, ' in l or 'canary' in l))
    count(name, passed, failed, len(left_out), '; '.join(left_out))


@ring('format')
def _(name):
    files = sh(['git', 'ls-files', '*.c', '*.h'])[1].split()
    bad = [f for f in files if sh(['clang-format', '--dry-run', '-Werror', f])[0] != 0]
    count(name, len(files) - len(bad), len(bad))


@ring('lint', ('quick', 'full', 'long'))
def _(name):
    script_ring(name, ['tools/tidy.py'])


@ring('build', ('quick', 'full', 'long'))
def _(name):
    count(name, *((1, 0) if build('build') else (0, 1)))


@ring('unit', ('quick', 'full', 'long'))
def _(name):
    meson_ring(name, 'build', ['unit'])


@ring('fuzz corpus', ('quick', 'full', 'long'))
def _(name):
    meson_ring(name, 'build', ['fuzz'])


def events_of(seed):
    """The event log of a storm, without what WiredTiger takes from the machine's clock: its own messages, and the size of its text in a snapshot."""
    _, out = sh(['build/tests/sim/sim', str(seed), '--scenario', 'storm', '--events'], timeout=600)
    return [line for line in out.splitlines() if 'storage.wiredtiger' not in line and 'snapshot: whole' not in line]


@ring('simulation')
def _(name):
    meson_ring(name, 'build', ['sim'])
    first, second = (events_of(7) for _ in range(2))
    count('a seed replays exactly', *((1, 0) if len(first) > 500 and first == second else (0, 1)))


@ring('clang')
def _(name):
    count(name, *((1, 0) if build('build-clang', env={'CC': 'clang'}) else (0, 1)))


@ring('asan+ubsan')
def _(name):
    if not build('build-asan', '-Db_sanitize=address,undefined', '-Db_lundef=false'):
        return count(name, 0, 1)
    env = {'ASAN_OPTIONS': 'detect_leaks=1:detect_stack_use_after_return=0', 'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1'}
    meson_ring(name, 'build-asan', ['unit', 'fuzz'], env=env)
    # Crashes, copies and changes of roles, which no unit test goes through; other seeds than above.
    code, _ = sh(['build-asan/tests/sim/sim', '101', '--scenario', 'storm', '--rounds', '10'], env=env, timeout=1800)
    count('asan+ubsan, simulation', int(code == 0), int(code != 0))
    # A server that reports ends, and the request that it was at fails.
    script_ring('asan+ubsan, api', ['tests/clients/api.py'], env={**env, 'LOCKSTEP': os.path.join(ROOT, 'build-asan', 'lockstep')})


@ring('tsan')
def _(name):
    if not build('build-tsan', '-Db_sanitize=thread', '-Db_lundef=false'):
        return count(name, 0, 1)
    options = f'suppressions={ROOT}/tests/tsan.supp:history_size=4:second_deadlock_stack=1'
    meson_ring(name, 'build-tsan', ['unit'], env={'TSAN_OPTIONS': options})  # the simulation has one thread
    # Servers with all their threads. A server's report goes to a file: it may be killed before its exit code could tell.
    with tempfile.TemporaryDirectory() as reports:
        env = {'TSAN_OPTIONS': f'{options}:log_path={reports}/report', 'LOCKSTEP': os.path.join(ROOT, 'build-tsan', 'lockstep')}
        script_ring('tsan, a pair of servers', ['tests/clients/replication.py'], env=env)
        script_ring('tsan, servers under load and killed', ['tests/crash/crash.py', '--rounds', '10', '--program', env['LOCKSTEP']], env=env)
        found = sorted(os.listdir(reports))
        for f in found:
            say(open(os.path.join(reports, f), errors='replace').read()[:6000])
        count('tsan, reports of the servers', int(not found), len(found))


@ring('walk (command line)', ('full', 'long'))
def _(name):
    code, out = sh(['tools/quickstart'], timeout=600)
    if code == 0:
        say('\n'.join(l for l in out.splitlines() if 'Replication lag' in l or 'first served read' in l))
    count(name, int(code == 0), int(code != 0))


def venv_python():
    py = os.path.join(ROOT, 'build', 'venv', 'bin', 'python')
    if not os.path.exists(os.path.join(ROOT, 'build', 'venv', 'ready')):
        shutil.rmtree(os.path.join(ROOT, 'build', 'venv'), ignore_errors=True)
        for args in (['/usr/bin/python3', '-m', 'venv', 'build/venv'],
                     [py, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '-r', 'tests/clients/requirements.txt']):
            if sh(args)[0] != 0:
                return None
        open(os.path.join(ROOT, 'build', 'venv', 'ready'), 'w').close()
    return py


@ring('walk (hvac)')
def _(name):
    py = venv_python()
    if py is None:
        return skip(name, 'the Python client hvac cannot be installed')
    code, out = sh([py, 'tests/clients/walk_hvac.py'])
    m = re.findall(r'(?m)^(\d+) passed, (\d+) failed$', out)
    count(name, *(map(int, m[-1]) if m else (0, 1)))


@ring('walk (Go client)')
def _(name):
    if shutil.which('go') is None:
        return skip(name, 'no Go toolchain')
    if sh(['sh', '-c', 'cd tests/clients/go && go mod download'], env={'GOTOOLCHAIN': 'local'}, timeout=600)[0] != 0:
        return skip(name, 'the Go client cannot be downloaded')
    script_ring(name, ['tests/clients/walk_go.py'])


@ring('walk (node-vault)')
def _(name):
    if shutil.which('npm') is None:
        return skip(name, 'no Node.js and npm')
    if sh(['sh', '-c', 'cd tests/clients/node && npm ci --silent --no-audit --no-fund'], timeout=600)[0] != 0:
        return skip(name, 'the JavaScript client node-vault cannot be downloaded')
    script_ring(name, ['tests/clients/walk_node.py'])


@ring('api')
def _(name):
    script_ring(name, ['tests/clients/api.py'])


@ring('command line')
def _(name):
    script_ring(name, ['tests/clients/cli.py'])


@ring('browser')
def _(name):
    if browser.find() is None:
        return skip(name, 'no Chromium')
    script_ring(name, ['tests/browser/ui.py'])


@ring('bad input')
def _(name):
    script_ring(name, ['tests/clients/bad_input.py'])


@ring('faults')
def _(name):
    script_ring(name, ['tests/clients/faults.py'])


@ring('versions')
def _(name):
    script_ring(name, ['tests/clients/versions.py'])


@ring('modes')
def _(name):
    script_ring(name, ['tests/clients/modes.py'])


@ring('snapshot and drill')
def _(name):
    script_ring(name, ['tests/clients/snapshot.py'])
    script_ring(name, ['tests/clients/drill.py'])


@ring('replication')
def _(name):
    script_ring(name, ['tests/clients/replication.py'])


@ring('catch-up')
def _(name):
    script_ring(name, ['tests/clients/catchup.py'])


@ring('roles')
def _(name):
    script_ring(name, ['tests/clients/roles.py'])


@ring('act')
def _(name):
    script_ring(name, ['tests/clients/act.py'])
    script_ring(name, ['tests/clients/cells.py'])


@ring('know')
def _(name):
    script_ring(name, ['tests/clients/know.py'])


@ring('crash')
def _(name):
    if not build('build-volatile', '-Dvolatile_disk=true'):
        return count(name, 0, 1)
    script_ring(name, ['tests/crash/crash.py', '--rounds', '1000' if mode == 'long' else '50'], timeout=7200)
    script_ring('crash while enabling', ['tests/crash/enable.py', '--rounds', '200' if mode == 'long' else '12'], timeout=7200)
    seed = str(int(time.time()))
    say(f'seed {seed}')
    script_ring('crash while leaving a first copy', ['tests/clients/replication.py', 'killed_while_leaving'],
                env={'LOCKSTEP': os.path.join(ROOT, 'build-volatile', 'lockstep'), 'LOCKSTEP_VOLATILE_SEED': seed, 'SEED': seed})
    script_ring('crash of both, promotion', ['tests/crash/promote.py', '--rounds', '200' if mode == 'long' else '10'], timeout=7200)
    script_ring('crash of both, canary', ['tests/crash/promote.py', '--canary'])
    script_ring('failed flush', ['tests/crash/failed_flush.py', '--rounds', '100' if mode == 'long' else '8'], timeout=7200)
    script_ring('crash in a restore and a drill', ['tests/crash/fork.py', '--rounds', '200' if mode == 'long' else '6'], timeout=7200)
    script_ring('crash in large changes', ['tests/crash/detach.py', '--rounds', '200' if mode == 'long' else '6'], timeout=7200)
    script_ring('crash in a switchover', ['tests/crash/switchover.py', '--rounds', '200' if mode == 'long' else '10'], timeout=7200)
    script_ring('crash canary', ['tests/crash/crash.py', '--canary', '--rounds', '10'])


@ring('simulation, long', ('long',))
def _(name):
    for seed in range(1, 1001):
        code, out = sh(['build/tests/sim/sim', str(seed), '--scenario', 'storm'], timeout=600)
        count(f'simulation seed {seed}', int(code == 0), int(code != 0))


if listing:
    print('\n'.join(names))
    sys.exit(0)
for unknown in sorted(set(only) - set(names)):
    count(unknown, 0, 1, why='there is no such ring: tests/run --list')
for ring_name, failed, why, text in failures:
    say(f'-- failed: {ring_name}: {failed}{" (" + why + ")" if why else ""}\n{text}'.rstrip())
print(f'{totals["passed"]} passed, {totals["failed"]} failed, {totals["skipped"]} skipped', flush=True)
sys.exit(1 if totals['failed'] or not totals['passed'] else 0)
