// What the SDK reads of e-mails and counts, printed as JSON: `counts.mjs METHOD ARGUMENT`.

import assert from 'node:assert/strict';
import { Resend } from 'resend';

const [method, argument] = process.argv.slice(2);
const { data, error } = await new Resend().emails[method](JSON.parse(argument));
assert.equal(error, null);
console.log(JSON.stringify(data));
