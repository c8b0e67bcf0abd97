// SPDX-License-Identifier: GPL-3.0-or-later

// The walk's parts that the unchanged node-vault covers, against two fresh servers that the caller started:
// LOCKSTEP_A, LOCKSTEP_B (addresses), LOCKSTEP_CA, LOCKSTEP_PID_A (killed before the promotion).
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const nodeVault = require('node-vault');

const ca = fs.readFileSync(process.env.LOCKSTEP_CA);
const DR = 'sys/replication/dr';

const client = (endpoint, token) => nodeVault({ endpoint, token, requestOptions: { ca } });

async function awaitTrue(what, fn) {
    for (const end = Date.now() + 30000; ;) {
        if (await fn()) return;
        assert.ok(Date.now() < end, `waited too long for ${what}`);
        await new Promise((resolve) => { setTimeout(resolve, 10); });
    }
}

async function refused(status, text, promise) {
    await assert.rejects(promise, (e) => {
        assert.equal(e.response && e.response.statusCode, status, String(e));
        assert.equal(e.message, text);
        return true;
    });
}

// A fresh server: initialised, unsealed, and a client that holds its root token.
async function fresh(endpoint) {
    const c = client(endpoint);
    assert.equal((await c.initialized()).initialized, false);
    assert.equal((await c.health()).initialized, false);
    const made = await c.init({ secret_shares: 3, secret_threshold: 2 });
    assert.equal(made.keys.length, 3);
    assert.equal((await c.unseal({ secret_shares: 3, key: made.keys[0] })).progress, 1);
    assert.equal((await c.unseal({ secret_shares: 3, key: made.keys_base64[1] })).sealed, false);
    assert.equal((await c.status()).t, 2);
    c.token = made.root_token;
    return { c, keys: made.keys, root: made.root_token };
}

const status = async (c) => (await c.read(`${DR}/status`)).data;

async function follow(a, b) {
    await a.c.write(`${DR}/primary/enable`, {});
    const wrap = (await a.c.write(`${DR}/primary/secondary-token`, { id: 'secondary' })).wrap_info;
    assert.equal(wrap.ttl, 1800);
    await b.c.write(`${DR}/secondary/enable`, { token: wrap.token, ca_file: process.env.LOCKSTEP_CA });
    // 503 for the moment in which the copy is put in place.
    await awaitTrue('the secondary to follow',
        () => status(b.c).then((s) => s.mode === 'secondary' && s.state === 'stream-wals', () => false));
}

async function fill(c) {
    await c.mount({ mount_point: 'kv', type: 'kv', description: 'v1' });
    await c.mount({ mount_point: 'secret', type: 'kv', options: { version: '2' } });
    assert.deepEqual((await c.mounts()).data['secret/'].options, { version: '2' });
    await c.addPolicy({ name: 'app', rules: 'path "kv/app/*" { capabilities = ["read", "list"] }' });
    assert.ok((await c.policies()).policies.includes('app'));
    for (let i = 0; i < 20; i += 1) {
        await c.write(`kv/app/${i}`, { value: `${i}` });
        await c.write(`secret/data/app/${i}`, { data: { value: `${i}`, odd: '<&>\u2028é' } });
    }
    await c.update('secret/data/app/0', { data: { value: 'patched' } });
    await c.delete('kv/app/19');
    await c.delete('secret/data/app/19');
    await c.destroySecretVersions({ mount_point: 'secret', path: 'app/18', versions: [1] });
    assert.equal((await c.list('kv/app')).data.keys.length, 19);
    await refused(404, 'Status 404', c.read('kv/app/19'));
    await c.enableAuth({ mount_point: 'userpass', type: 'userpass' });
    await c.write('auth/userpass/users/bob', { password: 'x', policies: 'app' });
    const kept = c.token;
    const app = (await c.tokenCreate({ policies: ['app'], ttl: '1h' })).auth.client_token;
    c.token = kept; // a client of this kind goes on with the token that it made
    return app;
}

// The generate-root flow, on a DR secondary; commands of its own are how node-vault is told of more paths.
async function operationToken(c, keys) {
    const base = `/${DR}/secondary/generate-operation-token`;
    c.generateFunction('drTokenInit', { method: 'PUT', path: `${base}/attempt` });
    c.generateFunction('drTokenUpdate', { method: 'PUT', path: `${base}/update` });
    const { nonce, otp } = await c.drTokenInit({});
    let r;
    for (const key of keys.slice(0, 2)) r = await c.drTokenUpdate({ key, nonce });
    assert.equal(r.complete, true);
    return Buffer.from(r.encoded_token, 'base64').map((x, i) => x ^ otp.charCodeAt(i)).toString();
}

async function check(c) {
    for (let i = 0; i < 18; i += 1) {
        assert.deepEqual((await c.read(`kv/app/${i}`)).data, { value: `${i}` });
        const got = (await c.read(`secret/data/app/${i}`)).data;
        assert.deepEqual(got.data, { value: i === 0 ? 'patched' : `${i}`, odd: '<&>\u2028é' });
        assert.equal(got.metadata.version, i === 0 ? 2 : 1);
    }
    await refused(404, 'Status 404', c.read('secret/data/app/19'));
    await refused(404, 'Status 404', c.read('secret/data/app/18'));
}

async function walk() {
    const a = await fresh(process.env.LOCKSTEP_A);
    const b = await fresh(process.env.LOCKSTEP_B);

    await follow(a, b);
    const app = await fill(a.c);
    const wrapped = await a.c.write('sys/wrapping/wrap', { a: 1 }, { headers: { 'X-Vault-Wrap-TTL': '60' } });
    assert.deepEqual((await a.c.unwrap({ token: wrapped.wrap_info.token })).data, { a: 1 });
    await refused(400, 'wrapping token is not valid or does not exist', a.c.unwrap({ token: wrapped.wrap_info.token }));
    assert.ok((await a.c.help('sys/mounts')).help);

    await refused(400, 'path disabled in replication DR secondary mode', b.c.tokenLookupSelf());
    assert.equal((await b.c.health()).replication_dr_mode, 'secondary');
    await awaitTrue('lag 0', async () => {
        const [x, y] = [await status(a.c), await status(b.c)];
        return x.last_dr_wal === y.last_remote_wal && x.last_dr_wal === y.applied_lsn;
    });
    const token = await operationToken(b.c, a.keys);
    process.kill(Number(process.env.LOCKSTEP_PID_A), 'SIGKILL');
    const promoted = await b.c.write(`${DR}/secondary/promote`, { dr_operation_token: token });
    assert.match(promoted.warnings[0], /^This cluster is being promoted to a replication primary\./);

    b.c.token = a.root;
    await awaitTrue('service', () => b.c.tokenLookupSelf().then(() => true, () => false));
    await check(b.c);
    const reader = client(process.env.LOCKSTEP_B, app);
    assert.deepEqual((await reader.read('kv/app/7')).data, { value: '7' });
    await refused(403, '1 error occurred:\n\t* permission denied\n\n', reader.write('kv/app/7', { value: 'x' }));
    const bob = client(process.env.LOCKSTEP_B);
    assert.deepEqual((await bob.userpassLogin({ username: 'bob', password: 'x' })).auth.policies, ['app', 'default']);
    assert.equal((await bob.list('kv/app')).data.keys.length, 19);
    await bob.tokenRevokeSelf();
    await refused(403, 'permission denied', bob.tokenLookupSelf());
}

walk().catch((e) => {
    process.stderr.write(`${e.stack}\n${e.response ? JSON.stringify(e.response.body) : ''}\n`);
    process.exit(1);
});
