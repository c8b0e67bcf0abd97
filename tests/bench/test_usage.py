#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each program and script of bench/ and tools/ answers --help with its usage, and refuses what it does not know; argument: the build folder."""
import os
import re
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = sys.argv.pop(1)
PROGRAMS = [os.path.join(BUILD, 'bench', f'bench_{n}') for n in ('engine', 'load', 'probe', 'relay', 'wt')]
SCRIPTS = [os.path.join(ROOT, p) for p in ('bench/run', 'tools/build', 'tools/quickstart', 'tools/setup', 'tools/sim', 'tools/tidy.py')]


def run(*args):
    return subprocess.run(args, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20)


class Usage(unittest.TestCase):
    def test_help_says_how_to_call_it_and_is_no_error(self):
        for program in PROGRAMS + SCRIPTS:
            with self.subTest(program):
                r = run(program, '--help')
                self.assertEqual((r.returncode, r.stderr), (0, ''))
                self.assertIn(os.path.basename(program), r.stdout)

    def test_an_unknown_option_is_named_and_refused(self):
        for program in PROGRAMS + SCRIPTS:
            with self.subTest(program):
                r = run(program, '--nonsense')
                self.assertEqual((r.returncode, r.stdout), (2, ''))
                self.assertIn('--nonsense', r.stderr)

    def test_help_names_each_option_that_a_program_takes(self):
        for program in PROGRAMS:
            with open(os.path.join(ROOT, 'bench', f'{os.path.basename(program)}.c'), encoding='utf-8') as f:
                options = re.findall(r'\{"([\w-]+)", \w+_argument, NULL', f.read())
            text = run(program, '--help').stdout
            for o in options:
                with self.subTest(program, option=o):
                    self.assertIn(f'--{o}', text)


unittest.main()
