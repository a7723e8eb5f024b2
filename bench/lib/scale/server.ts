/**
 * The load generator as a program: a stand-in API server that is filled with a cluster and then lets its pods come and
 * go. `node server.js '{"nodes": 5000, ...}'`; it prints {"port": N}, takes {"churn": {"perSecond": N, "seconds": N}} or
 * {"local": true} on standard input, and prints a line for each event whose effect can be seen in a map.
 */
import { createInterface } from 'node:readline';
import { ApiServer } from '../../../test/kubernetes/api-server.js';
import { ClusterContent, type ClusterSize, namespaceName, type PodPlace } from './content.js';

/** What a line says: what the map `addrs` has to show for an address. `at`: CLOCK_MONOTONIC, ns. */
export interface Expectation {
  readonly address: string;
  readonly becomes: 'there' | 'gone' | 'another';
  readonly at: string;
}

const size = JSON.parse(process.argv[2] ?? '{}') as ClusterSize;
const content = new ClusterContent(size);
const server = new ApiServer({ bookmarkMs: 5000 });
const pods = new Map<number, PodPlace>();
const apps = new Map<number, number[]>();

function fill(): void {
  for (const node of content.nodes()) server.put('Node', node);
  for (const namespace of content.namespaces()) server.put('Namespace', namespace);
  for (const service of content.services()) server.put('Service', service);
  for (const policy of content.policies()) server.put('NetworkPolicy', policy);
  for (let serial = 0; serial < size.pods; serial++) {
    const place = content.place(serial);
    pods.set(serial, place);
    const members = apps.get(place.app);
    if (members === undefined) apps.set(place.app, [serial]);
    else members.push(serial);
    // Pods of the first node get their addresses from the agent.
    server.put('Pod', content.pod(place, place.node === 0 ? { ips: [], phase: 'Pending' } : {}));
  }
  for (const app of apps.keys()) putSlice(app);
}

function putSlice(app: number, without?: number): void {
  const members = (apps.get(app) ?? []).filter((serial) => serial !== without);
  const places = members.flatMap((serial) => pods.get(serial) ?? []).filter(({ node }) => node !== 0);
  server.put('EndpointSlice', content.slice(app, places));
}

const say = (line: object): boolean => process.stdout.write(`${JSON.stringify(line)}\n`);
const expect = (address: string, becomes: Expectation['becomes']): boolean =>
  say({ address, becomes, at: String(process.hrtime.bigint()) } satisfies Expectation);

/** The life of one place: the pod ends, another one takes its place on the same node. Each step is one pod event. */
function* replace(serial: number): IterableIterator<void> {
  const old = pods.get(serial);
  if (old === undefined) return;
  const namespace = namespaceName(old.app);
  const next: PodPlace = { ...old, host: 24 + ((old.host + old.round + 1) % 30), round: old.round + 1 };
  server.put('Pod', content.pod(old, { terminating: true }));
  putSlice(old.app, serial);
  yield;
  expect(content.address(old), 'gone');
  server.remove('Pod', `${namespace}/${content.podName(old)}`);
  yield;
  pods.set(serial, next);
  server.put('Pod', content.pod(next, { ips: [], phase: 'Pending' }));
  yield;
  expect(content.address(next), 'there');
  server.put('Pod', content.pod(next));
  putSlice(old.app);
  yield;
}

/** A pod gets another label. */
function* relabel(serial: number, version: string): IterableIterator<void> {
  const place = pods.get(serial);
  if (place === undefined) return;
  expect(content.address(place), 'another');
  server.put('Pod', content.pod(place, { version }));
  yield;
}

/** Pods of all nodes but the first, in steps that meet different nodes and apps. */
function* victims(): IterableIterator<number> {
  for (let i = 1; ; i++) {
    const serial = (i * 7919) % size.pods;
    if (content.place(serial).node !== 0) yield serial;
  }
}

async function churn(perSecond: number, seconds: number): Promise<void> {
  const serials = victims();
  const begin = performance.now();
  const total = perSecond * seconds;
  /** Several pods change side by side, as in a rollout. */
  const lives: IterableIterator<void>[] = [];
  let started = 0;
  const life = (): IterableIterator<void> => {
    const serial = serials.next().value as number;
    return started++ % 4 === 3 ? relabel(serial, `v${started}`) : replace(serial);
  };
  for (let events = 0; events < total; events++) {
    const slot = events % 8;
    let running = lives[slot] ?? life();
    if (running.next().done === true) {
      running = life();
      running.next();
    }
    lives[slot] = running;
    const due = begin + ((events + 1) / perSecond) * 1000;
    if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
  }
  say({ churned: total, milliseconds: performance.now() - begin });
}

fill();
server.prepare();
await server.listen();
say({ port: server.port });
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line) as {
    readonly churn?: { readonly perSecond: number; readonly seconds: number };
    readonly local?: true;
  };
  if (command.churn !== undefined) await churn(command.churn.perSecond, command.churn.seconds);
  if (command.local === true) {
    const local = [...pods.values()].filter(({ node }) => node === 0);
    say({
      local: local.map((place) => {
        const [namespace, name] = [namespaceName(place.app), content.podName(place)];
        return { namespace, name, uid: server.get('Pod', `${namespace}/${name}`)?.metadata.uid ?? '' };
      }),
    });
  }
}
await server.close();
