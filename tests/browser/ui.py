#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's page at /ui/ in a real browser: unseal, follow the status, make a DR operation token, promote."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'lib'))
from browser import Browser  # noqa: E402
from cluster import Failed, World, await_true, run_tests  # noqa: E402


def sees(page, ident, text, seconds=20):
    try:
        await_true(f'{text!r} in {ident}', lambda: text in page.text(ident), seconds)
    except Failed as e:
        raise Failed(f'{e}; the page shows:\n{page.js("document.body.innerText")}') from None


def disaster():
    """unseal by the page, watch the secondary, let two people make the DR operation token, promote"""
    with World() as w, Browser() as browser:
        a, b = w.server('primary'), w.server('secondary', top='ui = true')
        a.start()
        a.init()
        b.start()
        page = browser.page(f'{b.addr}/')  # leads to /ui/
        sees(page, 'seal', 'not initialised')
        assert page.js('location.pathname') == '/ui/'
        r = b.ok('PUT', 'sys/init', {'secret_shares': 3, 'secret_threshold': 2}).json
        b.keys, b.root, b.threshold, b.token = r['keys_base64'], r['root_token'], 2, r['root_token']
        sees(page, 'unseal-progress', '0 of 2 keys given')
        page.type('unseal-key', 'zz')
        page.click('#unseal-form button')
        sees(page, 'error', "'key' must be a valid hex or base64 string")
        page.type('unseal-key', b.keys[0])
        page.click('#unseal-form button')
        sees(page, 'unseal-progress', '1 of 2 keys given')
        assert page.value('unseal-key') == '' and page.text('error') == '', 'a key stays in no field'
        page.type('unseal-key', b.keys[1])
        page.click('#unseal-form button')
        sees(page, 'seal', 'unsealed')
        sees(page, 'role', 'no replication')
        assert not page.visible('operation')

        w.enable(a, b)
        a.ok('POST', 'sys/mounts/kv', {'type': 'kv'})
        a.ok('PUT', 'kv/x', {'v': '1'})
        w.await_caught_up(a, b)
        sees(page, 'role', 'DR secondary')
        sees(page, 'status', 'stream-wals')

        # One starts and gives a key; another, elsewhere, takes part by the nonce and gives the last one.
        page.click('#start-form button')
        sees(page, 'progress', '0 of 2 keys given')
        pad, nonce = page.text('otp'), page.value('nonce')
        assert len(pad) == 26 and nonce, (pad, nonce)
        page.type('share', a.keys[0])
        page.click('#share-form button')
        sees(page, 'progress', '1 of 2 keys given')
        page.type('share', a.keys[0])
        page.click('#share-form button')
        sees(page, 'error', 'given key has already been provided during this generation operation')
        other = browser.page(f'{b.addr}/ui/')
        sees(other, 'role', 'DR secondary')
        other.type('nonce', nonce)
        other.type('share', a.keys[1])
        other.click('#share-form button')
        sees(other, 'decode-form', 'Complete.')
        other.type('pad', pad[:-1])
        other.click('#decode-form button')
        sees(other, 'error', 'its length differs')
        other.type('pad', pad)
        other.click('#decode-form button')
        sees(other, 'made', 's.')
        first = other.text('token')
        assert len(first) == 26, first
        # Deleted, it is worth nothing; and one person with all the keys makes another.
        other.click('#delete-token')
        sees(other, 'notice', 'The token is deleted.')
        assert b.call('PUT', 'sys/replication/dr/secondary/promote', {'dr_operation_token': first}, token='').status == 403
        page.click('#start-form button')
        sees(page, 'progress', '0 of 2 keys given')
        page.click('#cancel')
        sees(page, 'notice', 'is cancelled')
        page.click('#start-form button')
        sees(page, 'progress', '0 of 2 keys given')
        for n, key in enumerate(a.keys[:2]):
            page.type('share', key)
            page.click('#share-form button')
            sees(page, 'progress', f'{n + 1} of 2 keys given')
        sees(page, 'made', 's.')
        if os.environ.get('SCREENSHOT'):
            page.screenshot(os.environ['SCREENSHOT'])

        a.kill()
        sees(page, 'expected', 'It keeps all up to LSN ')
        sees(page, 'expected', 'may be missing')
        page.click('#promote-form button')  # without the word that is asked for
        assert b.dr_status()['mode'] == 'secondary'
        page.type('sure', 'promote')
        page.click('#promote-form button')
        sees(page, 'notice', 'This cluster is being promoted to a replication primary.')
        sees(page, 'role', 'DR primary')
        assert page.value('dr-token') == '' and page.text('token') == ''
        assert b.ok('GET', 'kv/x', token=a.root).data == {'v': '1'}
        for p in (page, other):
            for url in p.requested():
                assert url.startswith((b.addr, 'data:', 'about:')), f'a request to {url}'
        assert not page.complaints(), page.complaints()


def policy():
    """the page's security policy holds: no script of others, no frame; `ui = false` has no page"""
    with World() as w, Browser() as browser:
        s, off = w.server('one', top='ui = true'), w.server('off')
        s.start()
        s.init()
        off.start()
        page = browser.page(f'{s.addr}/ui/')
        sees(page, 'seal', 'unsealed')
        assert not page.complaints(), page.complaints()
        page.js('''(() => { const e = document.createElement('script'); e.textContent = 'window.ran = 1'; document.body.append(e);
                           const i = document.createElement('iframe'); i.src = '/ui/'; document.body.append(i); })()''')
        assert page.js('window.ran') is None, 'an inline script ran'
        await_true('the policy to complain', lambda: page.js('1') and any(  # its events come with the next answer
           
            'Content Security Policy' in c.get('text', '') for c in page.complaints()), 10)
        s.ok('PUT', 'sys/config/ui/headers/X-Mine', {'values': ['a', 'b']})
        r = page.js("fetch('/ui/').then((r) => [r.headers.get('x-mine'), r.headers.get('content-security-policy'), "
                    "r.headers.get('x-content-type-options'), r.headers.get('cache-control')])")
        assert r[0] == 'a, b' and r[1].startswith("default-src 'none';") and r[2:] == ['nosniff', 'no-store'], r
        # With CORS for others the server's own page goes on.
        s.ok('PUT', 'sys/config/cors', {'allowed_origins': ['https://a.example']})
        r = page.js("fetch('/v1/sys/wrapping/lookup', {method: 'PUT', body: '{\"token\":\"x\"}'}).then((r) => r.text())")
        assert 'wrapping token is not valid or does not exist' in r, r
        page = browser.page(f'{off.addr}/ui/')
        await_true('404', lambda: '404 page not found' in page.js('document.body ? document.body.innerText : ""'), 10)


if __name__ == '__main__':
    sys.exit(run_tests([disaster, policy], 'browser'))
