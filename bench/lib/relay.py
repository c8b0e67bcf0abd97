# SPDX-License-Identifier: GPL-3.0-or-later
"""bench_relay between a secondary and its primary."""
import signal

from lab import answers, await_true, free_port, tool


class Relay:
    def __init__(self, lab, round_trip_ms):
        """Half of it each way. options: what bench_engine is to be given."""
        self.lab, port, target = lab, free_port(), free_port()
        self.process = lab.start('relay', [tool('bench_relay'), str(port), str(target), str(round_trip_ms / 2)])
        await_true('the relay to listen', lambda: self.process.alive() and answers(port))
        self.options = {'listen': f'127.0.0.1:{target}', 'via': f'127.0.0.1:{port}'}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()
        self.lab.forget(self.process)

    def cut(self):
        self.process.proc.send_signal(signal.SIGUSR1)

    def join(self):
        self.process.proc.send_signal(signal.SIGUSR2)
