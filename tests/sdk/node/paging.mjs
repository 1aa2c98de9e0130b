// Lists in pages, forwards and backwards. What else the server has stands behind what is made here.

import { assert, ids, ok, refused, resend, UNKNOWN, unique } from './support.mjs';

const made = [];
for (let n = 0; n < 5; n += 1) {
  made.unshift((await ok(resend.domains.create({ name: unique('page') }))).id);
}
const list = (options) => ok(resend.domains.list(options));

const whole = await list();
assert.equal(whole.has_more, false);
assert.deepEqual(ids(whole).slice(0, 5), made);

const first = await list({ limit: 2 });
assert.deepEqual([ids(first), first.has_more], [made.slice(0, 2), true]);
const second = await list({ limit: 2, after: made[1] });
assert.deepEqual([ids(second), second.has_more], [made.slice(2, 4), true]);

// Page by page is everything, each once.
const seen = [];
let page = { has_more: true };
while (page.has_more) {
  page = await list({ limit: 2, after: seen.at(-1) });
  assert.ok(page.data.length > 0 && page.data.length <= 2);
  seen.push(...ids(page));
}
assert.deepEqual(seen, ids(whole));

// Backwards: those that stand just before, in the same order.
const back = await list({ limit: 2, before: made[4] });
assert.deepEqual([ids(back), back.has_more], [made.slice(2, 4), true]);
const start = await list({ limit: 2, before: made[2] });
assert.deepEqual([ids(start), start.has_more], [made.slice(0, 2), false]);
assert.deepEqual(ids(await list({ before: made[0] })), []);
assert.deepEqual(ids(await list({ after: made[1] })), ids(whole).slice(2));
assert.deepEqual(ids(await list({ limit: 100 })), ids(whole));

for (const limit of [0, 101, -1, 1.5, 'ten']) {
  await refused(resend.domains.list({ limit: `${limit}` }), 422, 'validation_error');
}
await refused(resend.domains.list({ after: made[0], before: made[1] }), 422, 'validation_error');
await refused(resend.domains.list({ after: 'nonsense' }), 422, 'invalid_parameter');
await refused(resend.domains.list({ before: 'nonsense' }), 422, 'invalid_parameter');
await refused(resend.domains.get('nonsense'), 422, 'invalid_parameter');
await refused(resend.domains.get(UNKNOWN), 404, 'not_found');

for (const id of made) await ok(resend.domains.remove(id));
