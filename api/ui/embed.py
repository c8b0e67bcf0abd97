#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the pages as C strings, one array each: embed.py OUT FILE..."""
import os
import sys

with open(sys.argv[1], 'w', encoding='ascii') as out:
    out.write('/* Made by api/ui/embed.py. */\n')
    for path in sys.argv[2:]:
        name = os.path.basename(path).replace('.', '_')
        data = open(path, 'rb').read()
        assert b'\0' not in data, path
        out.write(f'static const char ui_{name}[] = {{\n')
        for i in range(0, len(data), 20):
            out.write(''.join(f'{b},' for b in data[i:i + 20]) + '\n')
        out.write('0};\n')
