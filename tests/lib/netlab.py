# SPDX-License-Identifier: GPL-3.0-or-later
"""Sites in network namespaces of their own, and links between them that can be cut one way, both ways, or pulled out.

The test runs itself again in a fresh network namespace (enter), which routes between the sites: nothing outside of it is touched, and
all of it goes with the process.
"""
import os
import subprocess
import sys


class Unavailable(Exception):
    pass


def enter():
    """Run this program again inside a namespace of its own; returns in there. Raises Unavailable where the machine forbids that."""
    if os.environ.get('LOCKSTEP_NETLAB') == '1':
        sh('ip', 'link', 'set', 'lo', 'up')
        return
    flags = ['--net', '--mount', '--propagation', 'private'] if os.geteuid() == 0 else ['--net', '--mount', '--map-root-user']
    r = subprocess.run(['unshare', *flags, 'sh', '-c', 'ip link set lo up && ip link add try0 type veth peer name try1 && '
                        'mount -t sysfs none /sys 2>/dev/null; echo 1 > /proc/sys/net/ipv4/ip_forward'],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode != 0:
        raise Unavailable(f'no network namespaces here: {r.stdout.strip() or r.returncode}')
    os.environ['LOCKSTEP_NETLAB'] = '1'
    sys.stdout.flush()
    os.execvp('unshare', ['unshare', *flags, sys.executable, *sys.argv])


def sh(*args):
    r = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if r.returncode != 0:
        raise RuntimeError(f'{" ".join(args)}: {r.stdout}')


class Site:
    """A namespace with one address; under runs a command in it."""

    def __init__(self, number):
        self.number, self.dev = number, f'site{number}'
        self.host, gate = f'10.77.{number}.2', f'10.77.{number}.1'
        # cat holds the namespace until its input ends; it answers once it is in it.
        self.holder = subprocess.Popen(['unshare', '--net', 'cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.holder.stdin.write(b'\n')
        self.holder.stdin.flush()
        self.holder.stdout.readline()
        pid = str(self.holder.pid)
        self.under = ['nsenter', f'--net=/proc/{pid}/ns/net', '--']
        sh('ip', 'link', 'add', self.dev, 'type', 'veth', 'peer', 'name', 'net0', 'netns', pid)
        sh('ip', 'addr', 'add', f'{gate}/24', 'dev', self.dev)
        sh('ip', 'link', 'set', self.dev, 'up')
        for args in (('link', 'set', 'lo', 'up'), ('addr', 'add', f'{self.host}/24', 'dev', 'net0'), ('link', 'set', 'net0', 'up'),
                     ('route', 'add', 'default', 'via', gate)):
            sh(*self.under, 'ip', *args)

    def pull(self):
        """The cable is out."""
        sh('ip', 'link', 'set', self.dev, 'down')

    def plug(self):
        sh('ip', 'link', 'set', self.dev, 'up')

    def close(self):
        sh('ip', 'link', 'del', self.dev)
        self.holder.stdin.close()
        self.holder.wait()


class Lab:
    def __init__(self, n=2):
        with open('/proc/sys/net/ipv4/ip_forward', 'w') as f:
            f.write('1')
        self.sites = [Site(i + 1) for i in range(n)]

    def cut(self, a, b):
        """Packets from a to b vanish; those from b to a do not."""
        sh('ip', 'rule', 'add', 'pref', str(100 + 10 * a.number + b.number), 'iif', a.dev, 'to', b.host, 'blackhole')

    def join(self, a, b):
        sh('ip', 'rule', 'del', 'pref', str(100 + 10 * a.number + b.number))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for s in self.sites:
            s.close()
