#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our few rules that a compiler does not check. Prints each breach, then N passed, N failed (files)."""
import argparse
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Who may include whose public headers: arrows point down only.
BELOW = {'wal/base': [], 'wal': ['wal/base'], 'net': ['wal/base'], 'engine': ['wal', 'wal/base'],
         'api': ['engine', 'net', 'wal', 'wal/base'], 'tools': ['api', 'engine', 'net', 'wal', 'wal/base']}
# What breaks without each: unbounded copies, hidden state between threads, commands from strings, waiting by the clock.
BANNED = {'gets', 'strcpy', 'strcat', 'sprintf', 'vsprintf', 'strtok', 'system', 'popen', 'alloca', 'sleep', 'usleep', 'rand', 'srand',
          'asctime', 'ctime', 'gmtime', 'localtime', 'tmpnam', 'mktemp'}
# Tests copy constants and clean folders up; what they must not do is wait by the clock or be unrepeatable.
BANNED_IN_TESTS = {'gets', 'sleep', 'usleep', 'rand', 'srand'}


def folder(path):
    d = os.path.dirname(path)
    return d if d in BELOW else None


SEQUENCES = range(1, 30)


def read(path):
    try:
        with open(os.path.join(ROOT, path), encoding='utf-8') as f:
            return f.read()
    except FileNotFoundError:
        return ''


def runs(test):
    """Whether a test that docs/TESTING.md names exists, and something runs it."""
    m = re.fullmatch(r'(?:sim_(\w+)|(\w+)\.py: (\w+)|test_(\w+)\.c: (\w+)|(tests/crash/\w+\.py))', test)
    if not m:
        return False
    sim, client, function, unit, case, crash = m.groups()
    if sim:
        return re.search(rf"'(?:sim_)?{re.sub('^planted_', '', sim)}'", read('tests/sim/meson.build')) is not None
    if client:
        text = read(f'tests/clients/{client}.py')
        listed = text[text.rfind('run_tests(['):]
        return f'\ndef {function}():' in text and re.search(rf'\b{function}\b', listed) is not None
    if unit:
        return f', {case})' in read(f'tests/unit/test_{unit}.c')
    return crash in read('tests/lib/run.py') and read(crash) != ''


def check_sequences():
    """Each sequence of the design has a row with tests, and each test in it runs."""
    rows = {int(m[1]): re.findall(r'`([^`]+)`', m[2])
            for m in re.finditer(r'^\| (\d+) \| [^|]* \| ([^|]*) \|$', read('docs/TESTING.md'), flags=re.M)}
    missing = [f'docs/TESTING.md: sequence {n} has no test' for n in SEQUENCES if not rows.get(n)]
    return missing + [f'docs/TESTING.md: sequence {n}: {t} does not exist or is not run' for n, tests in rows.items() for t in tests if not runs(t)]


def check_rules():
    """Each test that a rule's row names runs."""
    table = read('docs/TESTING.md').partition('| rule | tests |')[2].partition('\n\n')[0]
    rows = re.findall(r'^\| ([^|`]+) \| ([^|]*) \|$', table, flags=re.M)
    missing = [] if rows else ['docs/TESTING.md: no rule has a test']
    return missing + [f'docs/TESTING.md: "{rule}": {t} does not exist or is not run'
                      for rule, tests in rows if '---' not in rule for t in re.findall(r'`([^`]+)`', tests) if not runs(t)]


def main():
    argparse.ArgumentParser(prog='tools/tidy.py', description=__doc__).parse_args()
    files = subprocess.run(['git', 'ls-files', '*.c', '*.h'], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    where = {os.path.basename(f): os.path.dirname(f) for f in files if f.endswith('.h')}
    bad_files = 0
    for f in files:
        text = open(os.path.join(ROOT, f), encoding='utf-8').read()
        breaches = []
        if not text.startswith('/* SPDX-License-Identifier: GPL-3.0-or-later */'):
            breaches.append((1, 'the licence line is missing'))
        code = re.sub(r'/\*.*?\*/', lambda m: '\n' * m[0].count('\n'), text, flags=re.S)
        code = re.sub(r'"(\\.|[^"\\\n])*"', '""', re.sub(r'#include "[^"]*"', '', code))
        for m in re.finditer(r'(?<![\w.>])(\w+)\s*\(', code):
            if m[1] in (BANNED_IN_TESTS if f.startswith('tests/') else BANNED):
                breaches.append((code[:m.start()].count('\n') + 1, f'{m[1]}() is banned here'))
        if folder(f):
            for m in re.finditer(r'^#include "([^"]+)"', text, flags=re.M):
                home = where.get(os.path.basename(m[1]))
                line = text[:m.start()].count('\n') + 1
                if home is None or home == os.path.dirname(f):
                    continue
                if home not in BELOW[folder(f)]:
                    breaches.append((line, f'{m[1]} lies in {home}/, which is not below {folder(f)}/'))
                elif m[1].endswith('_private.h'):
                    breaches.append((line, f'{m[1]} is private to {home}/'))
        # A test that no build file names runs nowhere, and nobody notices.
        test = re.fullmatch(r'(tests/(?:unit|fuzz|sim))/(?:test_|fuzz_)?(\w+)\.c', f)
        if test:
            with open(os.path.join(ROOT, test[1], 'meson.build'), encoding='utf-8') as b:
                if not re.search(rf"'(?:test_|fuzz_)?{test[2]}(?:\.c)?'", b.read()):
                    breaches.append((1, f'{test[1]}/meson.build does not name it'))
        for line, why in breaches:
            print(f'{f}:{line}: {why}')
        bad_files += bool(breaches)
    for line in check_sequences() + check_rules():
        print(line)
        bad_files += 1
    print(f'{len(files) + 1 - bad_files} passed, {bad_files} failed')
    return 1 if bad_files else 0


if __name__ == '__main__':
    sys.exit(main())
