// A domain from its creation to its removal.

import { assert, ok, refused, resend, TARGET, unique, UUID } from './support.mjs';

const name = unique('domain');
const created = await ok(
  resend.domains.create({
    name,
    region: 'eu-west-1',
    customReturnPath: 'outbound',
    openTracking: true,
    clickTracking: true,
    tls: 'enforced',
    capabilities: { sending: 'enabled', receiving: 'disabled' },
    trackingSubdomain: 'links',
  }),
);
const { id } = created;
assert.match(id, UUID);
assert.equal(created.name, name);
assert.equal(created.status, 'not_started');
assert.equal(created.region, 'eu-west-1');
assert.equal(created.open_tracking, true);
assert.equal(created.click_tracking, true);
assert.equal(created.tracking_subdomain, 'links');
assert.equal(created.active_tracking_subdomain, undefined);
assert.deepEqual(created.capabilities, { sending: 'enabled', receiving: 'disabled' });
assert.ok(!Number.isNaN(Date.parse(created.created_at)));
assert.deepEqual(created.records, [
  { record: 'Tracking', name: `links.${name}`, type: 'CNAME', value: TARGET, ttl: 'Auto', status: 'not_started' },
]);

const got = await ok(resend.domains.get(id));
assert.equal(got.object, 'domain');
for (const field of ['id', 'name', 'created_at', 'status', 'region', 'tracking_subdomain', 'records', 'capabilities']) {
  assert.deepEqual(got[field], created[field], field);
}

const listed = await ok(resend.domains.list());
assert.equal(listed.object, 'list');
assert.equal(typeof listed.has_more, 'boolean');
const item = listed.data.find((one) => one.id === id);
assert.equal(item.name, name);
assert.equal(item.records, undefined);

// What is not named stays as it is.
const switched = await ok(resend.domains.update({ id, openTracking: false }));
assert.deepEqual([switched.object, switched.id], ['domain', id]);
const settings = (domain) => [domain.open_tracking, domain.click_tracking, domain.tracking_subdomain];
assert.deepEqual(settings(switched), [false, true, 'links']);
assert.deepEqual(switched.records, created.records);

const changed = await ok(
  resend.domains.update({
    id,
    openTracking: true,
    clickTracking: false,
    tls: 'opportunistic',
    trackingSubdomain: 't.mail',
  }),
);
assert.deepEqual(settings(changed), [true, false, 't.mail']);
// The one before was never verified, so nothing depends on it.
assert.deepEqual(changed.records.map((record) => record.name), [`t.mail.${name}`]);
assert.deepEqual(await ok(resend.domains.get(id)), changed);

// Once in a day.
const { error } = await refused(
  resend.domains.update({ id, openTracking: false, trackingSubdomain: 'links' }), 422, 'validation_error',
);
assert.match(error.message, /24 h|20\d\d-/);
assert.deepEqual(await ok(resend.domains.get(id)), changed);

assert.deepEqual(await ok(resend.domains.verify(id)), { object: 'domain', id });
assert.equal((await ok(resend.domains.get(id))).records[0].status, 'pending');

const removed = await ok(resend.domains.remove(id));
assert.deepEqual([removed.object, removed.id, removed.deleted], ['domain', id, true]);
await refused(resend.domains.get(id), 404, 'not_found');
assert.equal((await ok(resend.domains.list())).data.find((one) => one.id === id), undefined);

// A bare domain has nothing to check.
const bare = await ok(resend.domains.create({ name: unique('bare') }));
assert.deepEqual([bare.status, bare.records, bare.region], ['verified', [], 'us-east-1']);
assert.deepEqual([bare.open_tracking, bare.click_tracking], [false, false]);
assert.ok(!('tracking_subdomain' in bare));
await ok(resend.domains.remove(bare.id));
