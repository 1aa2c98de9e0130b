// What is given on stdin as JSON, verified by the SDK and by the package: prints whether each takes it. Anything but a
// refusal of theirs ends this.

import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import { Resend } from 'resend';
import { Webhook, WebhookVerificationError } from 'standardwebhooks';

const resend = new Resend('re_unused');

function takes(payload, verify) {
  try {
    assert.deepEqual(verify(), JSON.parse(payload));
    return true;
  } catch (error) {
    if (error instanceof WebhookVerificationError) return false;
    throw error;
  }
}

const given = JSON.parse(await text(process.stdin));
const results = given.map(({ payload, id, timestamp, signature, secret }) => [
  takes(payload, () => resend.webhooks.verify({
    payload, headers: { id, timestamp, signature }, webhookSecret: secret,
  })),
  takes(payload, () => new Webhook(secret).verify(
    payload, { 'webhook-id': id, 'webhook-timestamp': timestamp, 'webhook-signature': signature },
  )),
]);
console.log(JSON.stringify(results));
