// Sends one message with nodemailer. Its directory is the argument; what to send comes as JSON on stdin. Prints what
// sendMail resolved to (exit 0) or was rejected with (exit 1).
'use strict';

const { join } = require('node:path');
const { readFileSync } = require('node:fs');
const nodemailer = require(join(process.argv[2], 'node_modules', 'nodemailer'));

const order = JSON.parse(readFileSync(0, 'utf8'));
const transport = nodemailer.createTransport({
    host: '127.0.0.1',
    port: order.port,
    name: 'tool.example',
    secure: order.tls === 'implicit',
    requireTLS: order.tls === 'starttls',
    ignoreTLS: order.tls === 'none',
    tls: order.ca ? { ca: order.ca } : undefined,
    auth: order.username ? { type: 'login', user: order.username, pass: order.password } : undefined,
});
const shown = (found, names) =>
    JSON.stringify({
        ...Object.fromEntries(names.map((name) => [name, found[name]])),
        refusals: (found.rejectedErrors || []).map((error) => error.response),
    });

transport
    .sendMail({ envelope: { from: order.from, to: order.to }, raw: Buffer.from(order.raw, 'latin1') })
    .then((info) => console.log(shown(info, ['accepted', 'rejected', 'response'])))
    .catch((error) => {
        console.log(shown(error, ['code', 'command', 'responseCode', 'response', 'message', 'rejected']));
        process.exitCode = 1;
    });
