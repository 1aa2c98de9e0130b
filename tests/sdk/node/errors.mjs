// Every class of error as the SDK gives it. SENDING is the token of a key that may only send.

import { assert, ok, refused, Resend, resend, UNKNOWN, unique } from './support.mjs';

const create = (payload) => resend.domains.create(payload);

await refused(new Resend(' ').domains.list(), 401, 'missing_api_key');
await refused(new Resend('re_wrong').domains.list(), 403, 'invalid_api_key');
const sending = new Resend(process.env.SENDING);
const calls = [
  sending.domains.list(),
  sending.domains.get(UNKNOWN),
  sending.domains.create({ name: unique('none') }),
  sending.domains.update({ id: UNKNOWN, openTracking: true }),
  sending.domains.verify(UNKNOWN),
  sending.domains.remove(UNKNOWN),
  sending.apiKeys.list(),
  sending.apiKeys.create({ name: 'more' }),
  sending.apiKeys.remove(UNKNOWN),
  sending.emails.list(),
  sending.emails.get(UNKNOWN),
];
for (const call of calls) await refused(call, 401, 'restricted_api_key');

await refused(create({}), 422, 'missing_required_field', /Missing `name` field\./);
await refused(create({ name: 'no domain' }), 422, 'validation_error');
await refused(create({ name: 7 }), 422, 'validation_error');
await refused(create({ name: unique('none'), openTracking: 'yes' }), 422, 'validation_error');
await refused(create({ name: unique('none'), region: 'mars-1' }), 422, 'invalid_region');
await refused(create({ name: unique('none'), trackingSubdomain: 'a..b' }), 422, 'validation_error');
await refused(create({ name: unique('none'), trackingSubdomain: '' }), 422, 'validation_error');
await refused(create({ name: unique('none'), trackingSubdomain: null }), 422, 'validation_error');

const name = unique('twice');
const { id } = await ok(create({ name }));
await refused(create({ name }), 422, 'validation_error');
await refused(create({ name: name.toUpperCase() }), 422, 'validation_error');
await refused(resend.domains.update({ id, trackingSubdomain: null }), 422, 'validation_error');
await refused(resend.domains.update({ id, clickTracking: 1 }), 422, 'validation_error');

for (const [bad, status, error] of [[UNKNOWN, 404, 'not_found'], ['nonsense', 422, 'invalid_parameter']]) {
  await refused(resend.domains.get(bad), status, error);
  await refused(resend.domains.update({ id: bad, openTracking: true }), status, error);
  await refused(resend.domains.verify(bad), status, error);
  await refused(resend.domains.remove(bad), status, error);
}
await refused(resend.get('/nothing'), 404, 'not_found');
await refused(resend.put('/domains', {}), 405, 'method_not_allowed');
await refused(resend.delete(`/domains/${id}/verify`), 405, 'method_not_allowed');
assert.equal((await ok(resend.domains.get(id))).name, name);
await ok(resend.domains.remove(id));
