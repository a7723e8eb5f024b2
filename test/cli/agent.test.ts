import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { DropEvent, Status } from '../../src/engine.js';
import { type Agent, must, needBuild, Place, run, SLUICE } from './process.js';

/** The agent as a process, with the real engine and the kernel, each in a network namespace of its own. */

const NETWORK = `apiVersion: sluice.dev/v1alpha1
kind: Network
metadata:
  name: front
spec:
  ipv4:
    cidr: 10.91.0.0/24
  ipv6:
    cidr: fd91::/64
---
apiVersion: v1
kind: Namespace
metadata:
  name: shop
`;

const container = (name: string, netns: string, address: string): string => `---
apiVersion: sluice.dev/v1alpha1
kind: Container
metadata:
  name: ${name}
  namespace: shop
  labels:
    app: ${name}
spec:
  netns: ${netns}
  networks:
    - name: front
      ipv4: ${address}
`;

const DENY = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: closed
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes: [Ingress]
`;

const BROKEN = 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\nspecc: {}\n';

let place: Place;
let web: string;
let client: string;

beforeAll(needBuild);

function setUp(): void {
  place = new Place();
  web = place.addNamespace('web');
  client = place.addNamespace('client');
}
const takeDown = (): void => place.remove();

const shop = (): string =>
  NETWORK + container('web', web, '10.91.0.10') + container('client', client, '10.91.0.11');

async function ready(config?: string): Promise<Agent> {
  const agent = place.startAgent(config);
  await agent.logged('ready');
  return agent;
}

const applied: string[] = [];

function apply(text: string): string {
  applied.push(text);
  const { code, out, err } = place.sluiceWith(text, 'apply', '-f', '-');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return out;
}

const status = (): Status => place.ask<Status>('/v1/status');
const items = (what: string): { metadata: { name: string } }[] =>
  place.ask<{ objects: { metadata: { name: string } }[] }>(`/v1/list/${what}`).objects;
const links = (netns: string): string[] =>
  (JSON.parse(must('ip', '-j', '-n', netns, 'link')) as { ifname: string }[])
    .map(({ ifname }) => ifname)
    .sort();
const pins = (): string[] =>
  existsSync(join(place.root, 'bpf/pins')) ? readdirSync(join(place.root, 'bpf/pins')) : [];
const define = (name: string, text: string): void =>
  writeFileSync(join(place.root, 'definitions', name), text);

function scrape(netns = place.netns): string {
  return must('nsenter', `--net=/run/netns/${netns}`, 'curl', '-sS', 'http://127.0.0.1:9644/metrics');
}

/** The value of a series in a scrape. */
function series(text: string, name: string): number {
  const line = text.split('\n').find((candidate) => candidate.startsWith(`${name} `));
  if (line === undefined) throw new Error(`no ${name} in:\n${text}`);
  return Number(line.slice(name.length + 1));
}

function expectNothingLeft(): void {
  expect(links(place.netns)).toEqual(['lo']);
  expect(links(web)).toEqual(['lo']);
  expect(['bpf/pins', 'run', 'state'].filter((name) => existsSync(join(place.root, name)))).toEqual([]);
}

/** A flow that stays in the table for a while: that of a TCP connection goes when it is closed. */
function echo(netns: string, address: string): void {
  must('nsenter', `--net=/run/netns/${netns}`, 'ping', '-n', '-c', '1', '-W', '1', address);
}

/** Deletes what `apply` made, the last first. */
function clear(): void {
  for (const text of applied
    .splice(0)
    .flatMap((all) => all.split('---\n'))
    .reverse())
    place.delete(text);
}

describe('an agent', () => {
  let agent: Agent;
  beforeAll(async () => {
    setUp();
    agent = await ready();
    await place.serve(web, 80);
    await place.serve(client, 81);
  });
  afterEach(clear);
  afterAll(takeDown);

  it('connects containers, lists them, and takes them down again', async () => {
    expect(status().state).toBe('ready');
    expect(apply(shop()).trimEnd().split('\n').sort()).toEqual([
      'container shop/client created',
      'container shop/web created',
      'namespace shop created',
      'network front created',
    ]);
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(true);
    echo(client, '10.91.0.10');

    expect(status()).toMatchObject({
      state: 'ready',
      networks: 1,
      containers: 2,
      endpoints: 2,
      pid: agent.process.pid,
    });
    expect(items('networks').map(({ metadata }) => metadata.name)).toEqual(['front']);
    expect(
      items('containers')
        .map(({ metadata }) => metadata.name)
        .sort(),
    ).toEqual(['client', 'web']);
    for (const what of ['endpoints', 'leases', 'identities', 'flows']) {
      const { code, out } = place.sluice('get', what);
      expect(code).toBe(0);
      expect(out.split('\n').length).toBeGreaterThan(2);
    }
    expect(place.sluice('get', 'endpoints').out).toContain('10.91.0.10');
    expect(place.sluice('get', 'policies')).toMatchObject({ code: 0, out: '', err: 'No policies.\n' });

    // What `get -o yaml` prints can be applied again, and is what is in force.
    const again = place.sluiceWith(place.sluice('get', 'containers', '-o', 'yaml').out, 'apply', '-f', '-');
    expect(again).toEqual({
      code: 0,
      err: '',
      out: expect.stringMatching(/^(container shop\/\w+ unchanged\n){2}$/),
    });

    expect(place.sluice('delete', 'container', 'shop/web')).toMatchObject({
      code: 0,
      out: 'container shop/web deleted\n',
    });
    expect(links(web)).toEqual(['lo']);
    expect(place.sluice('delete', 'container', 'shop/web')).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^command line:1: [^\n]*shop\/web[^\n]*\(SLU\d{4}\)\n$/),
    });
  });

  it('prints refused documents as lines with their place, and changes nothing', () => {
    apply(shop());
    const before = [items('networks'), items('containers'), links(place.netns), status().epoch];
    const { code, out, err } = place.sluiceWith(`${DENY}---\n${BROKEN}`, 'apply', '-f', '-');
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(/^stdin:\d+: [^\n]*specc[^\n]* \(SLU1103\)\n$/);
    expect([items('networks'), items('containers'), links(place.netns), status().epoch]).toEqual(before);
    expect(place.sluice('get', 'policies').err).toBe('No policies.\n');
  });

  it("has V8's threads take no processor from the one that requests wait for", () => {
    const { pid } = agent.process;
    const policies = readdirSync(`/proc/${pid}/task`).map((task) => {
      const [, rest = ''] = readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8').split(') ');
      return { main: task === String(pid), batch: rest.split(' ')[38] === '3' }; // field 41, policy: SCHED_BATCH
    });
    expect(policies.filter(({ batch }) => batch)).toEqual([{ main: false, batch: true }]);
  });

  it('has an API socket for root only', () => {
    expect(statSync(place.socket).mode & 0o777).toBe(0o600);
    must('chmod', '755', place.root);
    const asUser = run([
      'setpriv',
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
      SLUICE,
      '--socket',
      place.socket,
      'status',
    ]);
    expect(asUser).toEqual({
      code: 1,
      out: '',
      err: `sluice: no permission to use ${place.socket}: run as root (SLU2202)\n`,
    });
  });

  it('refuses a second one for its run folder, pin path or socket, in one line', async () => {
    apply(shop());
    const pid = agent.process.pid;
    const [root, other] = [
      place.root,
      { runDir: join(place.root, 'run2'), pinPath: join(place.root, 'bpf/pins2') },
    ];
    const cases: [string, string][] = [
      [
        place.config,
        `another agent is running (pid ${pid}) and uses the run folder ${root}/run: stop it, or give this one its own runDir`,
      ],
      [
        place.writeConfig('pins.yaml', { runDir: other.runDir, metricsAddress: '' }),
        `another agent is running (pid ${pid}) and uses the pin path ${root}/bpf/pins: stop it, or give this one its own pinPath`,
      ],
      [
        place.writeConfig('socket.yaml', { ...other, socket: place.socket, metricsAddress: '' }),
        `another agent is running and uses the socket ${place.socket}: stop it, or give this one its own socket`,
      ],
      [
        place.writeConfig('port.yaml', other),
        'the metrics address 127.0.0.1:9644 is in use: stop the other process or set metricsAddress',
      ],
    ];
    for (const [config, line] of cases) {
      const { code, out, err } = run(place.inside(SLUICE, 'agent', '--config', config));
      expect({ code, out }).toEqual({ code: 1, out: '' });
      expect(err).toMatch(/^sluice: [^\n]+ \(SLU210[45]\)\n$/);
      expect(err).toContain(line);
    }
    expect(status()).toMatchObject({ state: 'ready', endpoints: 2, pid });
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(true);
  });

  it('has one with its own folders and network namespace beside it', async () => {
    const second = new Place();
    try {
      const beside = second.startAgent();
      await beside.logged('ready');
      const far = second.addNamespace('far');
      apply(shop());
      const { code } = second.sluiceWith(NETWORK + container('far', far, '10.91.0.10'), 'apply', '-f', '-');
      expect(code).toBe(0);
      expect(second.sluice('down').code).toBe(0);
      expect(await beside.exited).toBe(0);
      expect(links(second.netns)).toEqual(['lo']);
      expect(place.reaches(client, '10.91.0.10', 80)).toBe(true);
      expect(status().endpoints).toBe(2);
    } finally {
      second.remove();
    }
  });

  it('shows what was dropped, from whom, and by which policy', async () => {
    apply(`${shop()}---\n${DENY}`);
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);
    let events: DropEvent[] = [];
    await vi.waitFor(
      () => {
        const { out } = place.sluice('drops', '-o', 'json');
        events = out
          .trimEnd()
          .split('\n')
          .filter((line) => line !== '')
          .map((line) => JSON.parse(line) as DropEvent);
        expect(events.some(({ destinationPort }) => destinationPort === 80)).toBe(true);
      },
      { timeout: 5000 },
    );
    expect(events.find(({ destinationPort }) => destinationPort === 80)).toMatchObject({
      reason: 'policy_ingress',
      source: '10.91.0.11',
      destination: '10.91.0.10',
      protocol: 'TCP',
      from: 'shop/client',
      to: 'shop/web',
      rule: expect.stringContaining('shop/closed'),
    });
    expect(place.sluice('drops').out).toMatch(/^TIME +REASON .*\n(.*\n)*.* policy_ingress .*shop\/closed/);
  });

  it('has metrics that follow the kernel', async () => {
    const start = scrape();
    apply(`${shop()}---\n${DENY}`);
    expect(place.reaches(web, '10.91.0.11', 81)).toBe(true);
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);
    echo(web, '10.91.0.11');
    // The table is counted about once a second.
    let end = scrape();
    for (
      const until = Date.now() + 5000;
      series(end, 'sluice_flow_table_entries') < 2 && Date.now() < until;
    ) {
      end = scrape();
    }
    const grown = (name: string): number => series(end, name) - series(start, name);
    expect(grown('sluice_forwarded_packets_total{direction="egress"}')).toBeGreaterThanOrEqual(4);
    expect(grown('sluice_forwarded_bytes_total{direction="egress"}')).toBeGreaterThanOrEqual(200);
    const dropped = end
      .split('\n')
      .filter((line) => /^sluice_dropped_packets_total\{.*reason="policy_ingress"\} [1-9]/.test(line));
    expect(dropped).toHaveLength(1);
    expect(series(end, 'sluice_endpoints')).toBe(2);
    expect(series(end, 'sluice_policy_sets')).toBeGreaterThanOrEqual(1);
    expect(series(end, 'sluice_flow_table_entries')).toBeGreaterThanOrEqual(2);
    expect(series(end, 'sluice_flow_table_capacity')).toBe(4096);
    expect(grown('sluice_apply_duration_seconds_count{source="api"}')).toBe(1);
    expect(series(end, 'sluice_map_capacity{map="flows"}')).toBe(4096);
    expect(series(end, 'sluice_map_memory_bytes{map="flows"}')).toBeGreaterThan(100_000);
    expect(end).toMatch(/^process_resident_memory_bytes \d+$/m);
  });
});

describe('the definitions folder', () => {
  let agent: Agent;
  beforeAll(async () => {
    setUp();
    define('10-network.yaml', NETWORK);
    define('20-web.yaml', container('web', web, '10.91.0.10'));
    agent = await ready();
  });
  afterAll(takeDown);

  it('is applied before the agent is ready, and followed', async () => {
    expect(status()).toMatchObject({ networks: 1, containers: 1, endpoints: 1 });

    define('30-client.yml', container('client', client, '10.91.0.11'));
    await vi.waitFor(() => expect(status().endpoints).toBe(2), { timeout: 5000 });
    await place.serve(web, 80);
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(true);

    define('.deny.yaml.swp', DENY);
    renameSync(join(place.root, 'definitions/.deny.yaml.swp'), join(place.root, 'definitions/40-deny.yaml'));
    await vi.waitFor(() => expect(status().policies).toBe(1), { timeout: 5000 });
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);

    rmSync(join(place.root, 'definitions/40-deny.yaml'));
    await vi.waitFor(() => expect(status().policies).toBe(0), { timeout: 5000 });
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(true);
  });

  it('with a bad file keeps the last good state as a whole, says so once, and counts it', async () => {
    define('broken.yaml', BROKEN);
    await vi.waitFor(() => expect(status().state).toBe('degraded'), { timeout: 5000 });
    rmSync(join(place.root, 'definitions/30-client.yml'));
    await sleep(500);
    expect(status()).toMatchObject({ state: 'degraded', endpoints: 2 });
    expect(place.sluice('status').out).toMatch(/\n {2}\S*broken\.yaml:5: [^\n]*\(SLU1103\)\n/);
    expect(agent.log.filter(({ msg }) => msg.includes('broken.yaml'))).toHaveLength(1);
    const text = scrape();
    expect(series(text, 'sluice_apply_failures_total{source="folder"}')).toBeGreaterThanOrEqual(1);
    expect(series(text, 'sluice_last_apply_success')).toBe(0);
    expect(series(text, 'sluice_problems{code="SLU1103"}')).toBe(1);

    rmSync(join(place.root, 'definitions/broken.yaml'));
    await vi.waitFor(() => expect(status().state).toBe('ready'), { timeout: 5000 });
    expect(status().endpoints).toBe(1);
    expect(series(scrape(), 'sluice_last_apply_success')).toBe(1);
  });

  it('is read again on SIGHUP', async () => {
    const before = agent.log.filter(({ msg }) => msg === 'definitions applied').length;
    expect(before).toBeGreaterThan(0);
    agent.process.kill('SIGHUP');
    await agent.logged('definitions applied', before + 1);
  });
});

describe('the end of an agent', () => {
  let agent: Agent;
  const state = () => ({ links: links(place.netns), pins: pins() });
  let before: ReturnType<typeof state>;

  beforeAll(async () => {
    setUp();
    agent = await ready();
    apply(`${shop()}---\n${DENY}`);
    await place.serve(web, 80);
    await place.serve(client, 81);
    before = state();
  });
  afterAll(takeDown);

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'by %s leaves networks and policies in force, and the next one adopts them',
    async (signal) => {
      expect(await agent.stop(signal)).toBe(0);
      expect(agent.log.at(-1)?.msg).toBe('stopped; networks and policies stay in force');
      expect(existsSync(place.socket)).toBe(false);
      expect(state()).toEqual(before);
      expect(place.reaches(web, '10.91.0.11', 81)).toBe(true);
      expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);

      agent = await ready();
      expect(status()).toMatchObject({ adopted: true, endpoints: 2, policies: 1 });
      expect(state()).toEqual(before);
      expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);
    },
  );

  it('by SIGKILL leaves a socket and a lock that the next one replaces', async () => {
    await agent.stop('SIGKILL');
    expect(existsSync(place.socket)).toBe(true);
    expect(place.sluice('status').err).toBe(
      `sluice: the agent is not running (nobody listens on ${place.socket}): start it with "sluice agent" (SLU2201)\n`,
    );
    agent = await ready();
    expect(status()).toMatchObject({ adopted: true, endpoints: 2, pid: agent.process.pid });
    expect(await agent.stop()).toBe(0);
  });

  it('by a bug is one line without a stack, and status 70', async () => {
    const options = process.env.NODE_OPTIONS;
    process.env.NODE_OPTIONS = `--import="data:text/javascript,process.on('SIGUSR2',()=>{throw new Error('boom')})"`;
    try {
      agent = await ready();
      expect(await agent.stop('SIGUSR2')).toBe(70);
      const lines = agent.text.trimEnd().split('\n');
      expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({
        level: 'fatal',
        msg: 'internal error',
        err: { message: 'boom' },
      });
      expect(agent.text).not.toContain('    at ');
    } finally {
      if (options === undefined) delete process.env.NODE_OPTIONS;
      else process.env.NODE_OPTIONS = options;
    }
    expect(place.reaches(web, '10.91.0.11', 81)).toBe(true);
    expect(place.reaches(client, '10.91.0.10', 80)).toBe(false);
  });
});

describe('down', () => {
  beforeEach(setUp);
  afterEach(takeDown);

  it('with the agent running removes everything and ends it', async () => {
    define('shop.yaml', shop());
    const agent = await ready();
    expect(links(place.netns).length).toBe(3);
    expect(place.sluice('down', '--config', place.config)).toEqual({
      code: 0,
      out: 'Everything is removed; the agent has ended.\n',
      err: '',
    });
    expect(await agent.exited).toBe(0);
    expectNothingLeft();
    expect(readdirSync(join(place.root, 'definitions'))).toEqual(['shop.yaml']);
  });

  it('without an agent does the same, and again nothing', async () => {
    const agent = await ready();
    apply(`${shop()}---\n${DENY}`);
    must('ip', '-n', place.netns, 'link', 'add', 'mine', 'type', 'veth', 'peer', 'name', 'mine2');
    await agent.stop('SIGKILL');
    for (let i = 0; i < 2; i++) {
      expect(place.sluice('status').code).toBe(1);
      expect(run(place.inside(SLUICE, 'down', '--config', place.config))).toEqual({
        code: 0,
        out: 'Everything is removed.\n',
        err: '',
      });
    }
    expect(links(place.netns)).toEqual(['lo', 'mine', 'mine2']);
    must('ip', '-n', place.netns, 'link', 'del', 'mine');
    expectNothingLeft();
  });
});

describe('a machine without cgroup v2', () => {
  beforeEach(setUp);
  afterEach(takeDown);

  it('is a warning: everything but host ports from the host itself works', async () => {
    const agent = await ready(
      place.writeConfig('cgroup.yaml', { cgroupRoot: join(place.root, 'definitions') }),
    );
    const warnings = agent.log.filter(({ level }) => level === 'warn').map(({ msg }) => msg);
    expect(warnings).toEqual(['not a cgroup2 folder: processes of the host itself do not reach host ports']);
    apply(shop());
    expect(status()).toMatchObject({ state: 'ready', endpoints: 2 });
  });
});
