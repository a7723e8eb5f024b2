import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { hostListeners } from '../../src/dataplane/host-listeners.js';
import { newNetns } from './namespaces.js';

/** Sockets of all kinds, and a connection of each protocol. */
const SOCKETS = `
  const net = require('node:net');
  const dgram = require('node:dgram');
  const listen = (port, host, ipv6Only) =>
    new Promise((done) => net.createServer(() => {}).listen({ port, host, ipv6Only: ipv6Only === true }, done));
  const bind = (type, port, address) => new Promise((done) => dgram.createSocket(type).bind(port, address, done));
  (async () => {
    await listen(80, '127.0.0.1');
    await listen(81, '::');
    await listen(82, '::', true);
    await listen(83, '::1');
    await bind('udp4', 53, '0.0.0.0');
    await bind('udp6', 54, '::1');
    await new Promise((done) => net.connect({ host: '127.0.0.1', port: 80, localPort: 5000 }, done));
    const connected = dgram.createSocket('udp4');
    await new Promise((done) => connected.bind(5001, '127.0.0.1', () => connected.connect(53, '127.0.0.1', done)));
    console.log('ready');
  })();`;

let place: ReturnType<typeof newNetns>;
let child: ReturnType<typeof spawn>;

beforeAll(async () => {
  place = newNetns();
  execFileSync('ip', ['-n', place.name, 'link', 'set', 'lo', 'up']);
  child = spawn('ip', ['netns', 'exec', place.name, process.execPath, '-e', SOCKETS], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout as NodeJS.ReadableStream, 'data');
});
afterAll(async () => {
  child.kill('SIGKILL');
  await once(child, 'exit');
});

it('lists who listens, and no connection', () => {
  const found = hostListeners(place.ns).map(
    ({ protocol, address, port }) => `${protocol} ${address} ${port}`,
  );
  expect(found.sort()).toEqual([
    'TCP 0.0.0.0 81',
    'TCP 127.0.0.1 80',
    'TCP :: 81',
    'TCP :: 82',
    'TCP ::1 83',
    'UDP 0.0.0.0 53',
    'UDP ::1 54',
  ]);
});
