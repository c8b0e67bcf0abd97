// SPDX-License-Identifier: GPL-3.0-or-later
// The operator's page: seal, replication status, the DR operation token, promotion. Keys, pads and tokens stay in this
// page's memory; nothing is stored, and what the server says is only ever put in as text.
'use strict';

const DR = 'sys/replication/dr';
const ATTEMPT = `${DR}/secondary/generate-operation-token`;
const POLL_MS = 2000;
const $ = (id) => document.getElementById(id);

async function call(method, path, body) {
  const options = { method, cache: 'no-store', credentials: 'omit', headers: { 'X-Vault-Request': 'true' } };
  if (body !== undefined) options.body = JSON.stringify(body);
  const r = await fetch(`/v1/${path}`, options);
  const text = await r.text();
  let json = {};
  try {
    json = text === '' ? {} : JSON.parse(text);
  } catch {
    throw new Error(`${r.status}: the answer is not JSON`);
  }
  if (!r.ok) throw new Error(json.errors && json.errors.length ? json.errors.join('\n') : `status ${r.status}`);
  return json;
}

function show(id, yes) {
  $(id).hidden = !yes;
}

function say(id, text) {
  $(id).textContent = text;
  show(id, text !== '');
}

function badge(id, text, kind) {
  $(id).textContent = text;
  $(id).className = `badge ${kind}`;
}

function rows(list, pairs) {
  list.replaceChildren(...pairs.flatMap(([name, value]) => {
    const dt = document.createElement('dt');
    const dd = document.createElement('dd');
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
}

const SHOWN = [['mode', 'Mode'], ['state', 'State'], ['connection_state', 'Connection'], ['healthy', 'Healthy'],
  ['cluster_id', 'Cluster id'], ['primary_cluster_addr', 'Primary'], ['secondary_id', 'Secondary id'],
  ['last_dr_wal', 'Last LSN here'], ['last_remote_wal', 'Last LSN from the primary'], ['applied_lsn', 'Applied LSN'],
  ['lag_ms_p50', 'Lag p50 (ms)'], ['lag_ms_p99', 'Lag p99 (ms)'], ['merkle_root', 'Merkle root']];

function showStatus(s) {
  const pairs = SHOWN.filter(([key]) => s[key] !== undefined && s[key] !== '').map(([key, name]) => [name, String(s[key])]);
  for (const peer of s.secondaries || []) {
    pairs.push([`Secondary ${peer.node_id}`, `${peer.fed_by ? `follows ${peer.fed_by}` : peer.connection_status}, ${peer.cluster_address}`]);
  }
  for (const r of s.reasons || []) pairs.push([r.severity === 'error' ? 'Problem' : 'Warning', `${r.what} ${r.do}`]);
  rows($('status'), pairs);
}

// What a promotion would keep and lose: asked anew each time, since it grows while the primary is not heard.
async function showExpected() {
  const p = (await call('GET', `${DR}/secondary/promote`)).data;
  const force = p.needs_force ? ' It is refused here: only lockstep replication promote -force does it.' : '';
  say('expected', `It keeps all up to LSN ${p.keeps_lsn}. ${p.summary}${force}`);
}

async function refresh() {
  const seal = await call('GET', 'sys/seal-status');
  $('cluster').textContent = [seal.cluster_name, `version ${seal.version}`].filter(Boolean).join(', ');
  badge('seal', !seal.initialized ? 'not initialised' : seal.sealed ? 'sealed' : 'unsealed',
    seal.initialized && !seal.sealed ? 'good' : 'bad');
  show('unseal', seal.initialized && seal.sealed);
  $('unseal-progress').textContent = `${seal.progress} of ${seal.t} keys given`;
  if (seal.sealed) {
    badge('role', '', '');
    for (const id of ['replication', 'operation', 'promotion']) show(id, false);
    return;
  }
  const answer = (await call('GET', `${DR}/status`)).data;
  const status = answer.dr || answer;
  const secondary = status.mode === 'secondary';
  badge('role', { primary: 'DR primary', secondary: 'DR secondary', disabled: 'no replication' }[status.mode] || status.mode, '');
  show('replication', true);
  showStatus(status);
  show('operation', secondary);
  show('promotion', secondary);
  if (secondary) await showExpected();
}

async function poll() {
  try {
    await refresh();
    document.body.dataset.state = 'shown';
  } catch (e) {
    badge('seal', 'no answer', 'bad');
    document.body.dataset.state = String(e.message);
  }
  setTimeout(poll, POLL_MS);
}

// A form's work: one at a time, its error shown, secrets it took cleared.
function on(id, event, work) {
  $(id).addEventListener(event, async (e) => {
    e.preventDefault();
    say('error', '');
    say('notice', '');
    try {
      await work();
      await refresh();
    } catch (err) {
      say('error', err.message);
    }
  });
}

function take(id) {
  const value = $(id).value.trim();
  $(id).value = '';
  return value;
}

let otp = '';

function showAttempt(a) {
  show('attempt', a.started || a.complete);
  $('progress').textContent = `${a.progress} of ${a.required} keys given`;
  $('otp').textContent = otp || 'known to whoever started';
}

// The token XOR the pad comes in base64 without padding.
function decode(encoded, pad) {
  const bytes = atob(encoded.replace(/-/g, '+').replace(/_/g, '/'));
  if (bytes.length !== pad.length) throw new Error('The one-time pad is not of this attempt: its length differs.');
  return Array.from(bytes, (c, i) => String.fromCharCode(c.charCodeAt(0) ^ pad.charCodeAt(i))).join('');
}

function showToken(token) {
  $('token').textContent = token;
  show('made', true);
  show('decode-form', false);
  $('dr-token').value = token;
}

on('unseal-form', 'submit', () => call('PUT', 'sys/unseal', { key: take('unseal-key') }));

on('start-form', 'submit', async () => {
  const a = await call('PUT', `${ATTEMPT}/attempt`, {});
  otp = a.otp;
  $('nonce').value = a.nonce;
  show('made', false);
  show('decode-form', false);
  showAttempt(a);
});

on('share-form', 'submit', async () => {
  const a = await call('PUT', `${ATTEMPT}/update`, { nonce: $('nonce').value.trim(), key: take('share') });
  showAttempt(a);
  if (!a.complete) return;
  $('nonce').value = '';
  if (otp !== '') {
    showToken(decode(a.encoded_token, otp));
  } else {
    $('encoded').value = a.encoded_token;
    show('decode-form', true);
  }
  otp = '';
});

on('cancel', 'click', async () => {
  await call('DELETE', `${ATTEMPT}/attempt`);
  otp = '';
  $('nonce').value = '';
  show('attempt', false);
  say('notice', 'The attempt that was started from here is cancelled.');
});

on('decode-form', 'submit', () => showToken(decode($('encoded').value.trim(), $('pad').value.trim())));

on('promote-form', 'submit', async () => {
  const r = await call('PUT', `${DR}/secondary/promote`, { dr_operation_token: $('dr-token').value.trim() });
  for (const id of ['dr-token', 'sure']) $(id).value = '';
  show('made', false);
  $('token').textContent = '';
  say('notice', (r.warnings || ['Promoted.']).join('\n'));
});

on('delete-token', 'click', async () => {
  await call('PUT', `${DR}/secondary/operation-token/delete`, { dr_operation_token: take('dr-token') });
  show('made', false);
  $('token').textContent = '';
  say('notice', 'The token is deleted.');
});

poll();
