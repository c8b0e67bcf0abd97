# SPDX-License-Identifier: GPL-3.0-or-later
"""What the disk alone gives: fio, with writes of the same size, each flushed."""
import json
import os
import subprocess

from lab import Missing, need

FILE_BYTES = 64 << 20
ways = {'fdatasync after each write': ['--ioengine=psync', '--fdatasync=1'],
        'O_DSYNC, two in flight': ['--ioengine=io_uring', '--iodepth=2', '--sync=dsync']}
config = 'fio, O_DIRECT into a zero-filled file of 64 MiB, the same size of write; ' + ' and '.join(ways) + ', the faster counts'


def flushed_writes(lab, size, seconds):
    """{bytes_per_s, p99_ms, way} of the faster way; size is rounded up to whole blocks."""
    size = -(-int(size) // 4096) * 4096
    path = os.path.join(lab.folder('fio'), 'zeros')
    if not os.path.exists(path):
        with open(path, 'wb') as f:
            for _ in range(64):
                f.write(bytes(FILE_BYTES // 64))
            os.fsync(f.fileno())
    return max((_fio(path, size, seconds, way) for way in ways), key=lambda r: r['bytes_per_s'])


def _fio(path, size, seconds, way):
    r = subprocess.run([need('fio'), '--name=log', f'--filename={path}', f'--filesize={FILE_BYTES // size * size}', '--rw=write', f'--bs={size}',
                        '--direct=1', '--overwrite=1', '--time_based', f'--runtime={seconds}', '--output-format=json', *ways[way]],
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode != 0:
        raise Missing(f'fio failed:\n{r.stdout[-1000:]}')
    job = json.loads(r.stdout[r.stdout.index('{'):])['jobs'][0]
    timed = job['sync'] if job['sync'].get('lat_ns', {}).get('N') else job['write']
    percentiles = timed.get('lat_ns', {}).get('percentile') or job['write']['clat_ns'].get('percentile', {})
    return {'bytes_per_s': job['write']['bw_bytes'], 'p99_ms': percentiles.get('99.000000', 0) / 1e6, 'way': way, 'size': size}
