/**
 * The thread that answers DNS questions. It has an event loop of its own, so questions wait for no change of
 * networks, and a flood of questions holds up no change. It loads nothing that talks to the kernel.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { collectGarbage } from '../garbage.js';
import { Forwarder, type Upstream } from './forwarder.js';
import { NameTable } from './names.js';
import type { FromWorker, ToWorker, WorkerData } from './protocol.js';
import { canonicalServer, HostResolvers } from './resolv-conf.js';
import { DnsServer, HOST_NETWORK, type Listener } from './server.js';

const PORT = 53;
/** Of name servers of the host: the agent's own questions, which do not come back to it (NAMES_DIRECT_PORT). */
const DIRECT_PORT = 1;
const LOOPBACKS = { v4: '127.0.0.1', v6: '::1' } as const;
/** Milliseconds after which an address that was taken is tried again. */
const RETRY = 2000;
const COUNT_EVERY = 1000;
/** A change of so many names leaves much garbage, which goes when no other one has followed for some milliseconds. */
const LARGE_CHANGE = 1000;
const COLLECT_AFTER = 50;
/** Questions of watched containers under way: in all, and for one. */
const WATCHED = { all: 2048, client: 1024 };

const { upstreams: given } = workerData as WorkerData;
const upstreams = given === 'auto' ? given : given.map(canonicalServer);
const tell = (message: FromWorker): void => parentPort?.postMessage(message);
const names = new NameTable();
const host = new HostResolvers();
const hosts = (): Upstream[] => {
  const loopbacks: readonly string[] = Object.values(LOOPBACKS);
  const own = new Set(server.listeners().filter((address) => !loopbacks.includes(address)));
  const servers = upstreams === 'auto' ? host.servers() : upstreams;
  return servers.filter((address) => !own.has(address)).map((address) => ({ address, port: PORT }));
};
/** What the agent was asked and has not answered. */
const asked = new Map<number, (server?: string) => void>();
let next = 0;
const askAgent = (make: (id: number) => FromWorker): Promise<string | undefined> =>
  new Promise((resolve) => {
    const id = next++;
    asked.set(id, resolve);
    tell(make(id));
  });
let watched: ReadonlySet<string> = new Set();
let hostWanted = false;
const server: DnsServer = new DnsServer(names, new Forwarder(hosts), {
  // Its clients are few, and wait for nothing but their answers.
  forwarder: new Forwarder(hosts, WATCHED),
  watches: (client) => watched.has(client),
  serverOf: (question) => askAgent((id) => ({ type: 'whom', id, question })),
  hostServers: (asked) => {
    const known = host.servers();
    // The zone of a link-local address is known from resolv.conf alone.
    const isAsked = (address: string): boolean => address.split('%')[0] === asked;
    const others = known.filter((address) => !isAsked(address));
    const first = asked === undefined ? [] : (known.filter(isAsked).slice(0, 1) as readonly string[]);
    const servers = asked === undefined || first.length > 0 ? [...first, ...others] : [asked];
    return servers.map((address) => ({ address, port: DIRECT_PORT }));
  },
  learn: async (answer) => void (await askAgent((id) => ({ type: 'learn', id, answer }))),
});
const failing = new Map<string, string>();
let queue: Promise<void> = Promise.resolve();

/** Listens at the gateways of the networks that there are, and nowhere else. */
async function settle(): Promise<void> {
  const wanted = new Map<string, Listener>();
  for (const { name, ipv4, ipv6 } of names.networks())
    for (const range of [ipv4, ipv6])
      if (range !== undefined)
        wanted.set(range.gateway, { address: range.gateway, port: PORT, network: name });
  if (hostWanted)
    for (const address of Object.values(LOOPBACKS))
      wanted.set(address, { address, port: 0, network: HOST_NETWORK });
  for (const address of server.listeners()) if (!wanted.has(address)) await server.unlisten(address);
  for (const [address, network] of [...failing]) {
    if (wanted.has(address)) continue;
    failing.delete(address);
    tell({ type: 'problem', address, network });
  }
  for (const listener of wanted.values()) {
    const { address, network } = listener;
    try {
      await server.listen(listener);
      if (failing.delete(address)) tell({ type: 'problem', address, network });
    } catch (error) {
      // A host without IPv6 asks no server over it.
      if (network === HOST_NETWORK || failing.has(address)) continue;
      failing.set(address, network);
      tell({ type: 'problem', address, network, reason: (error as Error).message });
    }
  }
}

let collecting: NodeJS.Timeout | undefined;
parentPort?.on('message', (message: ToWorker) => {
  if (message.type === 'change') {
    names.update(message.change);
    if (message.change.objects.length + (message.change.services?.length ?? 0) >= LARGE_CHANGE) {
      clearTimeout(collecting);
      collecting = setTimeout(collectGarbage, COLLECT_AFTER).unref();
    }
    if (message.change.networks.length > 0) queue = queue.then(settle);
    queue = queue.then(() => tell({ type: 'settled', sequence: message.sequence }));
    return;
  }
  if (message.type === 'watched') {
    watched = new Set(message.clients);
    queue = queue.then(() => tell({ type: 'settled', sequence: message.sequence }));
    return;
  }
  if (message.type === 'host') {
    hostWanted = message.wanted;
    queue = queue.then(settle).then(() => {
      const [v4, v6] = [server.portOf(LOOPBACKS.v4), server.portOf(LOOPBACKS.v6)];
      const ports = { ...(v4 === undefined ? {} : { v4 }), ...(v6 === undefined ? {} : { v6 }) };
      tell({ type: 'host', ports });
      tell({ type: 'settled', sequence: message.sequence });
    });
    return;
  }
  if (message.type === 'reply') {
    const done = asked.get(message.id);
    asked.delete(message.id);
    done?.(message.server);
    return;
  }
  clearInterval(retry);
  clearInterval(report);
  queue = queue
    .then(() => server.close())
    .then(() => {
      tell({ type: 'closed' });
      parentPort?.close();
    });
});

const retry = setInterval(() => {
  if (failing.size > 0) queue = queue.then(settle);
}, RETRY);
let last = '';
const report = setInterval(() => {
  const text = JSON.stringify(server.counters);
  if (text !== last) tell({ type: 'counters', counters: { ...server.counters } });
  last = text;
}, COUNT_EVERY);
