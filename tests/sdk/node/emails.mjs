// E-mails that came by SMTP. EMAILS are their ids, the newest first; SENDER and RECIPIENT are theirs.

import { assert, ids, ok, refused, resend, UNKNOWN } from './support.mjs';

const { SENDER, RECIPIENT } = process.env;
const sent = process.env.EMAILS.split(',');

const email = await ok(resend.emails.get(sent[0]));
assert.deepEqual([email.object, email.id], ['email', sent[0]]);
assert.ok(email.from.includes(SENDER), email.from);
assert.deepEqual(email.to, [RECIPIENT]);
assert.equal(email.subject, 'Newest');
assert.match(email.message_id, /^<newest@/);
assert.ok(['sent', 'delivered', 'opened', 'clicked'].includes(email.last_event), email.last_event);
assert.equal(email.scheduled_at, null);
assert.ok(!Number.isNaN(Date.parse(email.created_at)));

const whole = await ok(resend.emails.list());
assert.deepEqual([whole.object, whole.has_more], ['list', false]);
assert.deepEqual(ids(whole), sent);
for (const one of whole.data) {
  for (const field of ['object', 'html', 'text', 'tags']) assert.ok(!(field in one), field);
}
const page = await ok(resend.emails.list({ limit: 1 }));
assert.deepEqual([ids(page), page.has_more], [sent.slice(0, 1), true]);
assert.deepEqual(ids(await ok(resend.emails.list({ limit: 1, after: sent[0] }))), sent.slice(1, 2));
assert.deepEqual(ids(await ok(resend.emails.list({ before: sent.at(-1) }))), sent.slice(0, -1));

await refused(resend.emails.get(UNKNOWN), 404, 'not_found');
await refused(resend.emails.get('nonsense'), 422, 'invalid_parameter');
await refused(resend.emails.list({ limit: 101 }), 422, 'validation_error');

// Sending is by SMTP alone.
const letter = { from: SENDER, to: RECIPIENT, subject: 'By HTTP', text: 'Hello' };
await refused(resend.emails.send(letter), 405, 'method_not_allowed', /SMTP/);
await refused(resend.batch.send([letter]), 405, 'method_not_allowed', /SMTP/);
