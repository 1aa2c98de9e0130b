// More requests at once than LIMIT, which the server allows in a second: the first are answered, the others are told
// when to come again, and may then.

import { setTimeout as pause } from 'node:timers/promises';
import { assert, ok, Resend, resend } from './support.mjs';

const limit = process.env.LIMIT;
const results = await Promise.all(Array.from({ length: 4 * limit + 1 }, () => resend.domains.list()));
const served = results.filter((result) => result.error === null);
const refused = results.filter((result) => result.error !== null);
assert.ok(served.length >= limit, `${served.length} were served`);
// So many at once, and what comes back in the time that all of them take, which is far below a second.
assert.ok(served.length <= 3 * limit, `${served.length} were served`);
assert.ok(refused.length > 0);
for (const { data, error, headers } of refused) {
  assert.equal(data, null);
  assert.deepEqual([error.statusCode, error.name], [429, 'rate_limit_exceeded']);
  assert.match(headers['retry-after'], /^[1-9]\d*$/);
  assert.equal(headers['ratelimit-limit'], limit);
  assert.equal(headers['ratelimit-policy'], `${limit};w=1`);
  assert.equal(headers['ratelimit-remaining'], '0');
  assert.match(headers['ratelimit-reset'], /^\d+$/);
}
for (const { headers } of served) {
  assert.equal(headers['retry-after'], undefined);
  assert.equal(headers['ratelimit-limit'], limit);
}
// Another key has a count of its own.
await ok(new Resend(process.env.OTHER).domains.list());
await pause(1000 * refused[0].headers['retry-after']);
await ok(resend.domains.list());
