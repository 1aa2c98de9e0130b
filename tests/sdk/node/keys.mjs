// API keys: made, listed, renamed, removed, and what each may do.

import { assert, ids, ok, refused, Resend, resend, unique, UNKNOWN, UUID } from './support.mjs';

const full = await ok(resend.apiKeys.create({ name: 'full' }));
assert.deepEqual(Object.keys(full).sort(), ['id', 'token']);
assert.match(full.id, UUID);
const domain = await ok(resend.domains.create({ name: unique('keys') }));
const sending = await ok(
  resend.apiKeys.create({ name: 'sending', permission: 'sending_access', domain_id: domain.id }),
);
assert.notEqual(sending.token, full.token);

const listed = await ok(resend.apiKeys.list());
assert.equal(listed.object, 'list');
assert.deepEqual(ids(listed).slice(0, 2), [sending.id, full.id]);
for (const one of listed.data) {
  for (const field of ['created_at', 'id', 'last_used_at', 'name']) assert.ok(field in one, field);
  assert.ok(!('token' in one));
}
assert.equal(listed.data[1].last_used_at, null);
assert.ok(!JSON.stringify(listed).includes(full.token));

const page = await ok(resend.apiKeys.list({ limit: 1 }));
assert.deepEqual([ids(page), page.has_more], [[sending.id], true]);
assert.deepEqual(ids(await ok(resend.apiKeys.list({ limit: 1, after: sending.id }))), [full.id]);
assert.deepEqual(ids(await ok(resend.apiKeys.list({ before: full.id }))), [sending.id]);

const other = new Resend(full.token);
await ok(other.domains.list());
await refused(new Resend(sending.token).domains.list(), 401, 'restricted_api_key');
// The use is noted behind the answer.
const end = Date.now() + 30_000;
let used = null;
while (!used) {
  assert.ok(Date.now() < end, 'the use was not noted');
  used = (await ok(resend.apiKeys.list())).data.find((one) => one.id === full.id).last_used_at;
}
assert.ok(!Number.isNaN(Date.parse(used)));

assert.deepEqual(await ok(resend.apiKeys.update(full.id, { name: 'renamed' })), { object: 'api_key', id: full.id });
assert.equal((await ok(resend.apiKeys.list())).data.find((one) => one.id === full.id).name, 'renamed');

await refused(resend.apiKeys.create({}), 422, 'missing_required_field', /`name`/);
await refused(resend.apiKeys.create({ name: 'x'.repeat(51) }), 422, 'validation_error');
await refused(resend.apiKeys.create({ name: 'x', permission: 'root' }), 422, 'invalid_access');
await refused(resend.apiKeys.remove(UNKNOWN), 404, 'not_found');
await refused(resend.apiKeys.update(UNKNOWN, { name: 'x' }), 404, 'not_found');
await refused(resend.apiKeys.remove('nonsense'), 422, 'invalid_parameter');

const removed = await ok(resend.apiKeys.remove(full.id));
assert.deepEqual(removed, { object: 'api_key', id: full.id, deleted: true });
await refused(other.domains.list(), 403, 'invalid_api_key');
await refused(resend.apiKeys.remove(full.id), 404, 'not_found');
await ok(resend.apiKeys.remove(sending.id));
await ok(resend.domains.remove(domain.id));
