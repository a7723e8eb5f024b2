import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { container, documents, HOST, network, OUTSIDE } from '../e2e/world.js';
import { CniBed } from './bed.js';
import { type Json, type NetworkList, type PluginAnswer, runList, type Sandbox } from './runtime.js';

/** Behind Debian's plugins bridge, ptp and macvlan: published ports, bandwidth and policy of an interface that is not ours. */

const PLUGINS = '/usr/lib/cni';
/** Answers who asked, over TCP and UDP, in both families. */
const WHO = `
import socket, socketserver, sys
class Tcp(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6; allow_reuse_address = True; daemon_threads = True
class Udp(socketserver.ThreadingUDPServer):
    address_family = socket.AF_INET6; daemon_threads = True
class TcpHandler(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(self.client_address[0].encode())
class UdpHandler(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(self.client_address[0].encode(), self.client_address)
import threading
tcp = Tcp(('::', 80), TcpHandler); udp = Udp(('::', 53), UdpHandler)
threading.Thread(target=udp.serve_forever, daemon=True).start()
print('ready', flush=True)
tcp.serve_forever()
`;
/** SECONDS, then TYPE ADDRESS PORT for each question; prints what came back, or why nothing did. */
const ASK = `
import socket, sys
for kind, address, port in zip(*[iter(sys.argv[2:])] * 3):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(float(sys.argv[1]))
    try:
        s.connect((address, int(port)))
        if kind == 'udp': s.send(b'?')
        print(s.recv(100).decode().replace('::ffff:', '') or 'closed')
    except OSError as e: print('refused' if e.errno == 111 else 'timeout')
`;

let bed: CniBed;
let folder: string;
let count = 0;

/** What a list's containers get, and what is asked of them. */
interface Member {
  readonly sandbox: Sandbox;
  readonly netns: string;
  readonly list: NetworkList;
  readonly capabilities: Json;
  readonly answer: PluginAnswer;
}

/** The list of another plugin and ours behind it. */
function chain(name: string, first: Json): NetworkList {
  const capabilities = { portMappings: true, bandwidth: true };
  const ours = { type: 'sluice-cni', socket: bed.socket, capabilities, labels: { net: name } };
  return { cniVersion: '1.0.0', name, plugins: [first, ours] };
}

function hostLocal(four: string, six: string): Json {
  const ranges = [[{ subnet: four }], [{ subnet: six }]];
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '::/0' }];
  return { type: 'host-local', dataDir: join(folder, 'leases'), ranges, routes };
}

const BRIDGE = (): NetworkList =>
  chain('br', {
    type: 'bridge',
    bridge: 'br-chained',
    isGateway: true,
    ipam: hostLocal('10.156.0.0/24', 'fd56::/64'),
  });
const PTP = (): NetworkList => chain('ptp', { type: 'ptp', ipam: hostLocal('10.157.0.0/24', 'fd57::/64') });

/** The plugins would wait for it, and what goes to their gateways gets no answer meanwhile. */
function withoutDad(netns: string): void {
  inside(netns, 'sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0');
}

async function add(list: NetworkList, capabilities: Json = {}): Promise<Member> {
  const netns = bed.namespace();
  withoutDad(netns.replace(/^.*\//, ''));
  const sandbox = { id: `chained-${count++}`, netns };
  const answer = await runList('ADD', list, { cniPath: bed.binDir, sandbox, capabilities });
  return { sandbox, netns, list, capabilities, answer };
}

function run(
  command: 'DEL' | 'CHECK',
  { list, sandbox, capabilities, answer }: Member,
): Promise<PluginAnswer> {
  return runList(command, list, { cniPath: bed.binDir, sandbox, capabilities, prevResult: answer.json });
}

const nameOf = ({ netns }: Member): string => netns.replace(/^.*\//, '');

const addressesOf = ({ answer }: Member): string[] =>
  (answer.json.ips as { address: string }[]).map((ip) => ip.address.replace(/\/.*/, ''));

/** What comes back: the address that the container saw, or "timeout" or "refused". */
function ask(netns: string, questions: readonly string[], seconds = 2): string[] {
  return inside(netns, `python3 ${join(folder, 'ask.py')} ${seconds} ${questions.join(' ')}`)
    .trim()
    .split('\n');
}

/** For what is expected to be dropped. */
const denied = (netns: string, ...questions: readonly string[]): string[] => ask(netns, questions, 0.2);

const links = (): string[] =>
  readdirSync(join(bed.world.agent.pinPath, 'links')).filter((name) => /^\d+-(in|e)gress/.test(name));
const ports = (hostPort: number): Json => ({
  portMappings: [
    { hostPort, containerPort: 80, protocol: 'tcp' },
    { hostPort, containerPort: 53, protocol: 'udp' },
  ],
});
const every = (port: number): string[] =>
  [HOST.v4, HOST.v6].flatMap((address) => [`tcp ${address} ${port}`, `udp ${address} ${port}`]);
const twice = (addresses: readonly string[]): string[] => addresses.flatMap((address) => [address, address]);

let bridged: Member;
let routed: Member;
let own: string;
let before: readonly string[];

beforeAll(async () => {
  bed = new CniBed('slcnichn');
  await bed.start('10.158.0.0/24');
  folder = bed.world.agent.folder;
  withoutDad(bed.world.host);
  for (const name of ['bridge', 'ptp', 'macvlan', 'host-local'])
    bed.script(name, `exec nsenter --net=${netnsPath(bed.world.host)} ${PLUGINS}/${name}`);
  writeFileSync(join(folder, 'who.py'), WHO);
  writeFileSync(join(folder, 'ask.py'), ASK);
  own = bed.world.container('own');
  await bed.world.agent.apply(
    documents(network('own', 95), container({ name: 'own', netns: own, networks: ['own'] })),
  );
  before = links();
  bridged = await add(BRIDGE(), ports(8101));
  routed = await add(PTP(), ports(8102));
  for (const member of [bridged, routed]) {
    expect(member.answer).toMatchObject({ status: 0, stderr: '' });
    await bed.world.start(nameOf(member), 'python3', [join(folder, 'who.py')], true);
  }
});
afterAll(() => bed.close());

/** Who asks keeps its address; a container that asks itself comes as the host. */
function reachAll(): void {
  const questions = [...every(8101), ...every(8102)];
  const outside = twice([OUTSIDE.v4, OUTSIDE.v6]);
  const host = twice([HOST.v4, HOST.v6]);
  expect(ask(bed.world.outside, questions)).toEqual([...outside, ...outside]);
  expect(ask(nameOf(bridged), questions)).toEqual([...host, ...twice(addressesOf(bridged))]);
  expect(ask(nameOf(routed), questions)).toEqual([...twice(addressesOf(routed)), ...host]);
  expect(ask(own, questions)).toEqual(twice(['10.95.0.2', 'fd95::2', '10.95.0.2', 'fd95::2']));
}

it('publishes ports of what bridge and ptp made', async () => {
  reachAll();
  expect(await run('CHECK', bridged)).toMatchObject({ status: 0 });
  expect(await run('CHECK', { ...bridged, capabilities: ports(8150) })).toMatchObject({
    status: 1,
    json: { code: 103 },
  });
});

it('applies policy in both directions, also behind published ports', async () => {
  const policy = (spec: Json): string =>
    documents({
      apiVersion: 'networking.k8s.io/v1',
      kind: 'NetworkPolicy',
      metadata: { name: 'chained', namespace: 'default' },
      spec,
    });
  const to = (net: string): Json => ({ podSelector: { matchLabels: { net } } });
  const [direct = ''] = addressesOf(bridged);
  const questions = [`tcp ${HOST.v4} 8101`, `udp ${HOST.v6} 8101`, `tcp ${direct} 80`];
  const [four, six] = addressesOf(routed);
  await bed.world.agent.apply(policy({ ...to('br'), ingress: [{ from: [to('ptp')] }] }));
  expect(denied(bed.world.outside, ...questions.slice(0, 2))).toEqual(['timeout', 'timeout']);
  expect(ask(nameOf(routed), questions)).toEqual([four, six, four]);
  expect(
    await bed.world.agent.explain({ from: OUTSIDE.v4, to: HOST.v4, port: '8101', protocol: 'TCP' }),
  ).toMatchObject({
    verdict: 'deny',
  });
  await bed.world.agent.apply(policy({ ...to('ptp'), policyTypes: ['Egress'], egress: [] }));
  expect(denied(nameOf(routed), ...questions)).toEqual(['timeout', 'timeout', 'timeout']);
  expect(ask(bed.world.outside, questions.slice(0, 2))).toEqual([OUTSIDE.v4, OUTSIDE.v6]);
  await bed.world.agent.delete(policy({ podSelector: {} }));
});

it('keeps them while no agent runs and after a restart, until DEL', async () => {
  await bed.world.agent.kill();
  expect(ask(bed.world.outside, every(8101))).toEqual(twice([OUTSIDE.v4, OUTSIDE.v6]));
  await bed.world.agent.start(bed.world.scratch);
  reachAll();
  for (const member of [bridged, routed]) expect(await run('DEL', member)).toMatchObject({ status: 0 });
  expect(denied(bed.world.outside, `tcp ${HOST.v4} 8101`, `tcp ${HOST.v6} 8102`)).toEqual([
    'refused',
    'refused',
  ]);
  expect(links()).toEqual(before);
});

it('limits the bandwidth of both directions: the burst passes, and next to nothing after it', async () => {
  // Pings of 1028 bytes: five of them are a burst, and the rate gives back one in eight seconds.
  const limit = (direction: string): Json => ({
    bandwidth: { [`${direction}Rate`]: 1028, [`${direction}Burst`]: 5 * 1028 * 8 },
  });
  for (const direction of ['ingress', 'egress']) {
    const member = await add(PTP(), limit(direction));
    const sent = bed.inside(member.netns, `ping -c 10 -i 0.002 -W 0.2 -s 1000 ${HOST.v4}`);
    expect(sent).toMatch(/10 packets transmitted, [67] received/);
    await run('DEL', member);
  }
});

it('refuses what has no host side; forgets by GC what the runtime does not know', async () => {
  const present = links();
  const macvlan = chain('mv', {
    type: 'macvlan',
    master: 'uplink0',
    ipam: { type: 'host-local', dataDir: join(folder, 'leases'), ranges: [[{ subnet: '10.159.0.0/24' }]] },
  });
  const without = await add(macvlan);
  expect(without.answer).toMatchObject({ status: 0 });
  await run('DEL', without);
  const refused = await add(macvlan, ports(8104));
  expect(refused.answer).toMatchObject({ status: 1, json: { code: 2 } });
  expect(refused.answer.json.msg).toMatch(/portMappings.*no veth device/);
  await run('DEL', refused);
  const stale = await add(BRIDGE(), ports(8105));
  expect(await bed.world.agent.list('containers')).toContain(stale.sandbox.id);
  const ours = { ...stale.list.plugins[1], cniVersion: '1.1.0', name: 'br', 'cni.dev/valid-attachments': [] };
  expect(await bed.call('GC', ours, { id: '' })).toMatchObject({ status: 0 });
  expect(await bed.world.agent.list('containers')).not.toContain(stale.sandbox.id);
  await run('DEL', stale);
  expect(links()).toEqual(present);
});
