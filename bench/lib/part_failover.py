# SPDX-License-Identifier: GPL-3.0-or-later
"""The primary is killed; the secondary is promoted: how long until it serves a read, and acknowledges a write."""
import time

from lab import Missing
from vault_servers import Kv, world_in


def filled_pair(run, secrets):
    """A pair of servers with so many secrets of 256 B, the same on both."""
    world = world_in(run.lab)
    a, b = world.pair()
    kv = Kv(a, a.proc.pid)
    kv.fill(secrets)
    a.ok('PUT', 'kv/read', {'value': 'x'})
    world.await_caught_up(a, b, 600)
    return world, a, b


def first(server, what, began, *call):
    """Milliseconds from `began` until a call is answered well, on one connection while that holds."""
    conn = server.connect()
    while time.monotonic() - began < 60:
        try:
            if server.call(*call, conn=conn).status in (200, 204):
                conn.close()
                return (time.monotonic() - began) * 1000
        except OSError:
            conn.close()
            conn = server.connect()
    raise Missing(f'no {what} within 60 s of the promotion')


def promote(run, secrets):
    _, a, b = filled_pair(run, secrets)
    token = b.dr_token(a.keys[:a.threshold])
    a.kill()
    began = time.monotonic()
    b.ok('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': token}, token='')
    answered = (time.monotonic() - began) * 1000
    read = first(b, 'read', began, 'GET', 'kv/read')
    write = first(b, 'write', began, 'PUT', 'kv/written', {'value': 'y'})
    b.stop()
    return {'secrets': secrets, 'promote_answered_ms': answered, 'first_read_ms': read, 'first_write_ms': write}


def measure(run):
    run.figures.configs['failover'] = 'a pair of servers; the primary is killed; the time from sending the promotion, with its token made before, to an answer of 200'
    run.compare(run.rounds, [('failover.50000', lambda: promote(run, 50000))])
    run.compare(run.rounds if run.full else 1, [('failover', lambda: promote(run, 1000000))])
