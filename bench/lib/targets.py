# SPDX-License-Identifier: GPL-3.0-or-later
"""The ratio table: each line a name, a floor (or a ceiling), and how it follows from the figures.

A line is met when its median reaches the floor. A line whose figures are missing is not met: it says why.
"""
import statistics

from figures import ratios

AT_LEAST, AT_MOST = 'at least', 'at most'
NOT_RUN = ' was not part of this run'


class Target:
    def __init__(self, name, floor, above, below=None, direction=AT_LEAST, scale=1.0, unit='x'):
        """above, below: (figure, member); below None: the value itself. scale multiplies."""
        self.name, self.floor, self.above, self.below = name, floor, above, below
        self.direction, self.scale, self.unit = direction, scale, unit

    def measured(self, figures):
        top = figures.values(*self.above)
        if self.below is None:
            found = [v for v in top if v is not None]
        else:
            found = ratios(top, figures.values(*self.below))
        return [v * self.scale for v in found]

    def why_missing(self, figures):
        for part in (self.above, self.below):
            if part and not any(v is not None for v in figures.values(*part)):
                return 'not measured: ' + figures.not_measured.get(part[0], part[0] + NOT_RUN)
        return 'not measured: no round has both sides'

    def line(self, figures):
        v = self.measured(figures)
        line = {'name': self.name, 'floor': self.floor, 'direction': self.direction, 'unit': self.unit, 'rounds': v,
                'min': None, 'median': None, 'max': None, 'met': False, 'why': ''}
        if not v:
            line['why'] = self.why_missing(figures)
            return line
        line.update(min=min(v), median=statistics.median(v), max=max(v))
        line['met'] = line['median'] >= self.floor if self.direction == AT_LEAST else line['median'] <= self.floor
        return line


RATE, P99 = 'rate', 'answer.p99_ms'
TARGETS = [
    Target('engine, 64 producers, against etcd put at 64 clients', 15, ('engine.alone.64.256', RATE), ('etcd.put.64.256', RATE)),
    Target('engine, 64 producers, against Redis appendfsync always at 64 clients', 3, ('engine.alone.64.256', RATE), ('redis.always.64.256', RATE)),
    Target('engine, 64 producers, against PostgreSQL INSERT at 64 clients, local', 10, ('engine.alone.64.256', RATE), ('postgres.local.64.256', RATE)),
    Target('engine with a flush secondary against PostgreSQL with its standby, on', 8, ('engine.flush.64.256', RATE), ('postgres.on.64.256', RATE)),
    Target('1,024 producers, bytes to the log against fio', 0.8, ('engine.alone.1024.256', 'log_bytes_per_s'), ('fio.1024', 'bytes_per_s')),
    Target('random writes over a key space of 3x the cache against WiredTiger random inserts', 1, ('engine.large', RATE), ('wiredtiger.large', RATE)),
    Target('p99.99 of the answers at 80 % of that', 100, ('engine.large.80', 'answer.p9999_ms'), direction=AT_MOST, unit='ms'),
    Target('overwrites of 10 k hot keys against random inserts, 64 producers', 1.5, ('engine.hot', RATE), ('engine.alone.64.256', RATE)),
    Target('kv v1 PUT at 64 connections against OpenBao', 20, ('api.v1.put.64.256', RATE), ('bao.put.64', RATE)),
    Target('kv v1 GET at 64 connections against nginx static', 0.8, ('api.v1.get.64.256', RATE), ('nginx.get.64.256', RATE)),
    Target('kv v1 GET at 64 connections against OpenBao', 8, ('api.v1.get.64.256', RATE), ('bao.get.64', RATE)),
    Target('p99 of PUT at half its maximum against OpenBao at half of its own', 1 / 8, ('api.v1.put.half', P99), ('bao.put.half', P99), AT_MOST),
    Target('or, in place of that: p99 of PUT at half its maximum against p99 of a flush', 3, ('api.v1.put.half', P99), ('fio.flush', 'p99_ms'), AT_MOST),
    Target('kv v1 PUT against etcd put with TLS, 64 clients', 4, ('api.v1.put.64.256', RATE), ('etcd.tls.put.64.256', RATE)),
    Target('lag to durable there p99 at 10 k/s against p99 of a flush and a round trip', 2, ('lag.10000', 'lag.durable.hist.p99_ms'), ('probe', P99), AT_MOST),
    Target('lag to durable there p99 at 10 k/s against PostgreSQL flush_lag p99', 1 / 8, ('lag.10000', 'lag.durable.hist.p99_ms'), ('postgres.lag', 'flush_lag_p99_ms'), AT_MOST),
    Target('lag to applied there p99 at 80 % of the maximum', 10, ('lag.80', 'lag.applied.hist.p99_ms'), direction=AT_MOST, unit='ms'),
    Target('async secondary attached against a dummy that receives, writes and flushes', 0.95, ('engine.async.64.256', RATE), ('engine.dummy.64.256', RATE)),
    Target('flush mode with 100 ms of round trip, 1,024 in flight, of 10.2 k/s', 0.9, ('lag.flush.100ms.1024', RATE), scale=1 / 10200),
    Target('flush mode with 100 ms of round trip, 16,384 in flight, of async', 0.9, ('lag.flush.100ms.16384', RATE), ('lag.async.100ms.16384', RATE)),
    Target('RSS a secret at 1 M secrets of 256 B, beyond the configured cache', 200, ('memory.1000000', 'bytes_a_secret'), direction=AT_MOST, unit='B'),
    Target('promote to first served read at 1 M secrets', 100, ('failover', 'first_read_ms'), direction=AT_MOST, unit='ms'),
    Target('restart: replay of a log of 4 M overwrites of 1 M keys', 300000, ('replay', 'records_per_s'), unit='records/s'),
]


def table(figures, targets=None):
    return [t.line(figures) for t in (TARGETS if targets is None else targets)]
