// What the scripts here share: the SDK's client as a user makes it, from RESEND_API_KEY and RESEND_BASE_URL, and what
// its results are held against. Each script ends with exit code 0, or with what was wrong on stderr.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Resend } from 'resend';

export { assert, Resend };
export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
export const UNKNOWN = '00000000-0000-4000-8000-000000000000';
export const TARGET = 'track.relay.example.net';

export const resend = new Resend();

export function unique(word) {
  return `${word}-${randomBytes(6).toString('hex')}.example.com`;
}

// The data of a call that must succeed; every answer brings the rate limit.
export async function ok(call) {
  const { data, error, headers } = await call;
  assert.equal(error, null);
  assert.ok(data && typeof data === 'object');
  limits(headers);
  return data;
}

// The error of a call that must fail just so, and nothing may have come with it.
export async function refused(call, statusCode, name, message = /./) {
  const { data, error, headers } = await call;
  assert.equal(data, null);
  assert.deepEqual(Object.keys(error).sort(), ['message', 'name', 'statusCode']);
  assert.deepEqual([error.statusCode, error.name], [statusCode, name], error.message);
  assert.match(error.message, message);
  limits(headers);
  return { error, headers };
}

function limits(headers) {
  for (const name of ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset']) {
    assert.match(headers[name] ?? '', /^\d+$/, name);
  }
  assert.match(headers['ratelimit-policy'] ?? '', /^\d+;w=\d+$/);
}

export const ids = (list) => list.data.map((one) => one.id);
