// One call: `step.mjs domains.create '{"name": …}'` prints its result as JSON.

import { Resend } from 'resend';

const [call, ...values] = process.argv.slice(2);
const [group, method] = call.split('.');
const client = new Resend();
console.log(JSON.stringify(await client[group][method](...values.map((value) => JSON.parse(value)))));
