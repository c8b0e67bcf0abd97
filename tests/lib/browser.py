# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Chromium without a window, over the pipe of its developer tools: pages, typing, clicking, what it loaded."""
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from cluster import Failed

PROGRAMS = ('chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome')


def find():
    return next((p for p in map(shutil.which, PROGRAMS) if p), None)


class Browser:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='lockstep-browser.')
        pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for fd in pair]
        args = [find(), '--headless', '--remote-debugging-pipe', f'--user-data-dir={self.dir}', '--no-first-run', '--disable-gpu',
                '--disable-dev-shm-usage', '--ignore-certificate-errors']
        if os.getuid() == 0:
            args.append('--no-sandbox')  # it refuses to run as root otherwise

        def plumb():
            os.dup2(pipes[0], 3)
            os.dup2(pipes[3], 4)
        self.proc = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                     preexec_fn=plumb, pass_fds=(3, 4))
        os.close(pipes[0])
        os.close(pipes[3])
        self.into, self.out, self.buffer, self.n, self.events = pipes[1], pipes[2], b'', 0, []

    def read(self, end):
        while b'\0' not in self.buffer:
            if not select.select([self.out], [], [], max(0, end - time.monotonic()))[0]:
                raise Failed('the browser did not answer')
            data = os.read(self.out, 1 << 16)
            if not data:
                raise Failed('the browser ended')
            self.buffer += data
        text, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(text)

    def call(self, method, params=None, session=None, seconds=30):
        self.n += 1
        message = {'id': self.n, 'method': method, 'params': params or {}}
        if session:
            message['sessionId'] = session
        os.write(self.into, json.dumps(message).encode() + b'\0')
        end = time.monotonic() + seconds
        while True:
            m = self.read(end)
            if m.get('id') == self.n:
                if 'error' in m:
                    raise Failed(f'{method}: {m["error"]}')
                return m['result']
            self.events.append(m)

    def page(self, url):
        return Page(self, url)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.into)
        os.close(self.out)
        self.proc.kill()
        self.proc.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


class Page:
    def __init__(self, browser, url):
        self.browser = browser
        target = browser.call('Target.createTarget', {'url': 'about:blank'})['targetId']
        self.session = browser.call('Target.attachToTarget', {'targetId': target, 'flatten': True})['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.call(f'{domain}.enable')
        self.call('Page.navigate', {'url': url})

    def call(self, method, params=None):
        return self.browser.call(method, params, self.session)

    def js(self, expression):
        r = self.call('Runtime.evaluate', {'expression': expression, 'returnByValue': True, 'awaitPromise': True})
        if 'exceptionDetails' in r:
            raise Failed(f'{expression}: {r["exceptionDetails"]}')
        return r['result'].get('value')

    def text(self, ident):
        """What a person sees of an element: '' when it is hidden."""
        return self.js(f'((e) => e && e.checkVisibility() ? e.innerText : "")(document.getElementById({json.dumps(ident)}))')

    def visible(self, ident):
        return self.js(f'document.getElementById({json.dumps(ident)}).checkVisibility()')

    def value(self, ident):
        return self.js(f'document.getElementById({json.dumps(ident)}).value')

    def type(self, ident, text):
        if not self.visible(ident):
            raise Failed(f'{ident} is not there to type into')
        self.js(f'document.getElementById({json.dumps(ident)}).select()')
        self.call('Input.insertText', {'text': text})

    def click(self, selector):
        """A mouse click in the middle of the element."""
        box = self.js(f'''(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});
                                    const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width]; }})()''')
        if not box[2]:
            raise Failed(f'{selector} is not there to click')
        for kind in ('mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', {'type': kind, 'x': box[0], 'y': box[1], 'button': 'left', 'clickCount': 1})

    def screenshot(self, path):
        with open(path, 'wb') as f:
            f.write(base64.b64decode(self.call('Page.captureScreenshot', {'captureBeyondViewport': True})['data']))

    def requested(self):
        return [e['params']['request']['url'] for e in self.browser.events if e.get('method') == 'Network.requestWillBeSent']

    def complaints(self):
        """Console errors, and what the content security policy stopped."""
        return [e['params'].get('entry', e['params']) for e in self.browser.events
                if e.get('method') in ('Log.entryAdded', 'Runtime.exceptionThrown')
                and e['params'].get('entry', {}).get('source') != 'network']
