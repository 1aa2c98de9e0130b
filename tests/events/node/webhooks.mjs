// An endpoint from creation to removal, as a user of the SDK has it. ENDPOINT is where it leads; EVENTS what it wants.
// `create` prints what was made; `read ID EVENT` reads what was told to it; `remove ID` ends it.

import assert from 'node:assert/strict';
import { Resend } from 'resend';

const resend = new Resend();
const [what, id, event] = process.argv.slice(2);
const events = process.env.EVENTS.split(',');
const endpoint = process.env.ENDPOINT;

async function ok(call) {
  const { data, error } = await call;
  assert.equal(error, null);
  return data;
}

if (what === 'create') {
  const made = await ok(resend.webhooks.create({ endpoint, events }));
  assert.deepEqual(Object.keys(made).sort(), ['id', 'object', 'signing_secret']);
  console.log(JSON.stringify(made));
}

if (what === 'read') {
  const one = await ok(resend.webhooks.get(id));
  assert.deepEqual([one.object, one.id, one.endpoint, one.events], ['webhook', id, endpoint, events]);
  assert.equal(one.status, 'enabled');
  assert.ok(one.signing_secret.startsWith('whsec_') && !Number.isNaN(Date.parse(one.created_at)));
  const listed = (await ok(resend.webhooks.list())).data.find((each) => each.id === id);
  assert.deepEqual(Object.keys(listed).sort(), ['created_at', 'endpoint', 'events', 'id', 'status']);

  const told = await ok(resend.webhooks.events.list({ webhookId: id, limit: 2 }));
  assert.deepEqual([told.object, told.has_more, told.data.length], ['list', true, 2]);
  assert.deepEqual(Object.keys(told.data[0]).sort(), ['created_at', 'id', 'status', 'type']);
  const next = await ok(resend.webhooks.events.list({ webhookId: id, limit: 2, after: told.data[1].id }));
  assert.ok(next.data.every((each) => !told.data.some((other) => other.id === each.id)));
  const shown = await ok(resend.webhooks.events.get({ webhookId: id, eventId: event }));
  assert.deepEqual([shown.object, shown.id], ['webhook_event', event]);
  assert.deepEqual([shown.status, shown.next_attempt_at], ['success', null]);
  assert.equal(shown.payload.type, shown.type);
  const attempts = await ok(resend.webhooks.events.attempts.list({ webhookId: id, eventId: event }));
  assert.deepEqual([attempts.object, attempts.has_more, attempts.data.length], ['list', false, 1]);
  assert.deepEqual(Object.keys(attempts.data[0]).sort(), ['http_status_code', 'id', 'response', 'sent_at']);
  assert.equal(attempts.data[0].http_status_code, 200);
  const replayed = await ok(resend.webhooks.events.replay({ webhookId: id, eventId: event }));
  assert.deepEqual(replayed, { object: 'webhook_event', id: event });
}

if (what === 'remove') {
  assert.deepEqual(await ok(resend.webhooks.update(id, { status: 'disabled' })), { object: 'webhook', id });
  assert.equal((await ok(resend.webhooks.get(id))).status, 'disabled');
  assert.deepEqual(await ok(resend.webhooks.remove(id)), { object: 'webhook', id, deleted: true });
  assert.equal((await resend.webhooks.get(id)).error.name, 'not_found');
}
