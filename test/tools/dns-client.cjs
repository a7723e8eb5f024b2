// The process behind test/lib/dns-client.ts: one JSON request a line in, one JSON answer a line out.
const { randomBytes } = require('node:crypto');
const { createSocket } = require('node:dgram');
const { connect, isIPv6 } = require('node:net');
const { createInterface } = require('node:readline');
const { decode, encode } = require('dns-packet');

const WAIT = 1000;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function text(message) {
  const packet = decode(message);
  return `${packet.rcode} ${packet.answers.map((answer) => String(answer.data)).join(', ')}`.trim();
}

function question(name, type) {
  return encode({
    type: 'query',
    id: 1 + Math.floor(Math.random() * 65535),
    flags: 0x100,
    questions: [{ name, type }],
  });
}

function ask({ server, name, type, transport }) {
  const message = question(name, type);
  return new Promise((resolve) => {
    const tcp = transport === 'tcp';
    const socket = tcp ? connect(53, server) : createSocket(isIPv6(server) ? 'udp6' : 'udp4');
    const finish = (answer) => {
      clearTimeout(timer);
      if (tcp) socket.destroy();
      else socket.close();
      resolve(answer);
    };
    const timer = setTimeout(() => finish('no answer'), WAIT);
    socket.on('error', () => finish('no answer'));
    if (tcp) {
      const head = Buffer.alloc(2);
      head.writeUInt16BE(message.length);
      socket.write(Buffer.concat([head, message]));
      socket.on('data', (answer) => finish(text(answer.subarray(2))));
    } else {
      socket.on('message', (answer) => finish(text(answer)));
      socket.connect(53, server, () => socket.send(message));
    }
  });
}

/** A message that is none: random, or a question with some bytes changed. */
function junk(valid) {
  if (Math.random() < 0.3) return randomBytes(Math.floor(Math.random() * 700));
  const message = Buffer.from(valid);
  for (let i = 0; i < 4; i++)
    message[Math.floor(Math.random() * message.length)] = Math.floor(Math.random() * 256);
  // Nothing that would be forwarded: the header says that there is no question, or too many.
  message[5] = Math.random() < 0.5 ? 0 : 2;
  return message;
}

async function flood({ server, messages }) {
  const valid = question('web.town.default', 'A');
  const streams = [];
  for (let i = 0; i < 20; i++) {
    const stream = connect(53, server);
    stream.on('error', () => {});
    if (i % 4 === 0) stream.write(Buffer.from([0xff])); // half of a length
    if (i % 4 === 1) stream.write(randomBytes(10 << 20)); // 10 MB
    if (i % 4 === 2) stream.write(Buffer.from([0xff, 0xff, 1, 2, 3])); // a message that never ends
    streams.push(stream);
  }
  const drip = setInterval(() => {
    for (const stream of streams) if (!stream.destroyed) stream.write(Buffer.from([0]));
  }, 50);
  const socket = createSocket('udp4');
  await new Promise((resolve) => socket.connect(53, server, resolve));
  const times = [];
  let done = false;
  const good = (async () => {
    while (!done) {
      const begin = performance.now();
      const answer = await ask({ server, name: 'web', type: 'A', transport: 'udp' });
      if (answer.startsWith('NOERROR')) times.push(performance.now() - begin);
      await pause(5);
    }
  })();
  for (let sent = 0; sent < messages; sent++) {
    socket.send(junk(valid), () => {});
    if (sent % 50 === 49) await pause(1);
  }
  done = true;
  await good;
  clearInterval(drip);
  socket.close();
  for (const stream of streams) stream.destroy();
  times.sort((a, b) => a - b);
  return { answers: times.length, median: times[times.length >> 1] ?? 1e9 };
}

const calls = { ask, flood };
let queue = Promise.resolve();
createInterface({ input: process.stdin }).on('line', (line) => {
  const request = JSON.parse(line);
  queue = queue.then(async () => console.log(JSON.stringify(await calls[request.call](request))));
});
