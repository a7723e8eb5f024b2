import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CONFIG_DEFAULTS } from './config.js';
import { defaultConfig, findCgroup2, parseConfig, readConfigFile } from './config-file.js';

const MOUNTS = 'proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw,nosuid 0 0\n';
const HEAD = 'apiVersion: sluice.dev/v1alpha1\nkind: AgentConfig\n';
const folder = mkdtempSync(join(tmpdir(), 'sluice-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

function errorsOf(text: string): string[] {
  const parsed = parseConfig('agent.yaml', text, MOUNTS);
  return parsed.ok ? [] : parsed.errors.map((error) => error.toLine());
}

describe('parseConfig', () => {
  it('fills every setting that is left out', () => {
    const { apiVersion: _, ...expected } = {
      apiVersion: '',
      ...CONFIG_DEFAULTS,
      socket: '/run/sluice/sluice.sock',
      cniSocket: '/run/sluice/cni.sock',
      cgroupRoot: '/sys/fs/cgroup/uni fied',
      dockerPlugin: '/run/docker/plugins/sluice.sock',
    };
    for (const text of ['', '# nothing\n', '---\n', HEAD, `---\n${HEAD}`]) {
      expect(parseConfig('agent.yaml', text, MOUNTS)).toEqual({ ok: true, config: expected });
    }
    expect(defaultConfig(MOUNTS)).toEqual(expected);
  });

  it('takes every setting, and derives the socket from runDir', () => {
    const given = {
      instance: 'blue-1',
      stateDir: '/a',
      runDir: '/b',
      pinPath: '/c',
      cgroupRoot: '',
      uplinks: ['eth0', 'bond0.12'],
      definitions: '',
      metricsAddress: '[::1]:0',
      flowEntries: 4096,
      maxEndpointIndex: 2048,
      policyPeerEntries: 1024,
      policyPortEntries: 1025,
      addressEntries: 1026,
      cidrEntries: 1027,
      hostPortEntries: 512,
      failsafePorts: { inbound: ['22/TCP', '53/UDP'], outbound: [] },
      hostPrefixEntries: 2048,
      nodeName: 'node-1',
      nodeAddresses: ['192.0.2.1', '2001:db8::1'],
      nodeRouting: 'overlay',
      vxlanPort: 8472,
      vxlanId: 7,
      podCidrs: ['10.244.0.0/16'],
      nodeEncryption: 'none',
      wireguardPort: 51821,
      zone: 'a',
      serviceCidrs: ['10.97.0.0/16'],
      nodePorts: { min: 20000, max: 20100 },
      nodePortAddresses: ['192.0.2.0/24'],
      serviceBalancing: 'least-connections',
      externalBalancing: 'random',
      externalMode: 'snat',
      xdp: 'generic',
      serviceEntries: 2048,
      serviceSlotEntries: 8192,
      backendEntries: 4096,
      snatPorts: { min: 30000, max: 39999 },
      dockerPlugin: '/run/docker/plugins/blue.sock',
      dockerApi: '/d.sock',
      dns: false,
      dnsUpstreams: ['192.0.2.53', '2001:db8::53'],
      logLevel: 'debug',
      hooks: 'clsact',
    };
    const text =
      HEAD +
      Object.entries(given)
        .map(([key, value]) => `${key}: ${JSON.stringify(value)}\n`)
        .join('');
    expect(parseConfig('agent.yaml', text, MOUNTS)).toEqual({
      ok: true,
      config: { ...given, socket: '/b/sluice.sock', cniSocket: '/b/cni.sock' },
    });
  });

  it.each([
    [
      '- a\n',
      'agent.yaml:1: a configuration file is one mapping with apiVersion: sluice.dev/v1alpha1 and kind: AgentConfig (SLU2005)',
    ],
    [
      'logLevel: info\n',
      /^agent\.yaml:1: (apiVersion|kind): a configuration file is one mapping .*\(SLU2005\)$/,
    ],
    [`${HEAD}runDri: /x\n`, 'agent.yaml:3: runDri: unknown setting: did you mean "runDir"? (SLU2003)'],
    [`${HEAD}qqqqqqqq: 1\n`, 'agent.yaml:3: qqqqqqqq: unknown setting (SLU2003)'],
    [`${HEAD}\nrunDir: run\n`, 'agent.yaml:4: runDir: must be an absolute path, not "run" (SLU2004)'],
    [
      `${HEAD}socket: /${'x'.repeat(107)}\n`,
      /^agent\.yaml:3: socket: must be a path of at most 107 bytes, not /,
    ],
    [
      `${HEAD}flowEntries: 12\n`,
      'agent.yaml:3: flowEntries: must be "auto" or a whole number from 1024 to 67108864, not 12 (SLU2004)',
    ],
    [
      `${HEAD}addressEntries: 1e99\n`,
      'agent.yaml:3: addressEntries: must be a whole number from 1024 to 16777216, not 1e+99 (SLU2004)',
    ],
    [
      `${HEAD}hostPortEntries: many\n`,
      'agent.yaml:3: hostPortEntries: must be a whole number from 256 to 1048576, not "many" (SLU2004)',
    ],
    [`${HEAD}metricsAddress: 9644\n`, /^agent\.yaml:3: metricsAddress: must be .*, not 9644 \(SLU2004\)$/],
    [`${HEAD}metricsAddress: ::1:9644\n`, /^agent\.yaml:3: metricsAddress: must be HOST:PORT /],
    [`${HEAD}metricsAddress: 127.0.0.1:99999\n`, /^agent\.yaml:3: metricsAddress: must be HOST:PORT /],
    [
      `${HEAD}uplinks: eth0\n`,
      'agent.yaml:3: uplinks: must be "auto" or a list of device names, not "eth0" (SLU2004)',
    ],
    [
      `${HEAD}uplinks:\n  - eth0\n  - a/b\n`,
      /^agent\.yaml:\d: uplinks: must be "auto" or a list of device names/,
    ],
    [`${HEAD}snatPorts: {min: 9, max: 3}\n`, /^agent\.yaml:3: snatPorts: must be "auto" or \{min, max\}/],
    [`${HEAD}snatPorts: {min: 9}\n`, /^agent\.yaml:3: snatPorts: must be "auto" or \{min, max\}/],
    [`${HEAD}instance: Blue\n`, /^agent\.yaml:3: instance: must be at most 32 lower case/],
    [
      `${HEAD}externalMode: ipip\n`,
      'agent.yaml:3: externalMode: must be one of snat, dsr, not "ipip" (SLU2004)',
    ],
    [`${HEAD}hooks: xdp\n`, 'agent.yaml:3: hooks: must be one of auto, tcx, clsact, not "xdp" (SLU2004)'],
    [`${HEAD}hooks: tcx\nhooks: tcx\n`, /^agent\.yaml:4: not valid YAML: .*unique/],
    [`${HEAD}runDir: [\n`, /^agent\.yaml:\d: not valid YAML: /],
    [
      'apiVersion: v1\nkind: AgentConfig\n',
      'agent.yaml:1: apiVersion: must be "sluice.dev/v1alpha1", not "v1" (SLU2004)',
    ],
    [
      'apiVersion: sluice.dev/v1alpha1\nkind: Network\n',
      'agent.yaml:2: kind: must be "AgentConfig", not "Network" (SLU2004)',
    ],
    [`${HEAD}---\nkind: AgentConfig\n`, /^agent\.yaml:\d: not valid YAML: /],
  ])('refuses %j with one line that names the place', (text, expected) => {
    const [line = '', ...more] = errorsOf(text);
    if (typeof expected === 'string') expect(line).toBe(expected);
    else expect(line).toMatch(expected);
    // A file without its head has both parts of it missing.
    expect(more.length).toBe(text === 'logLevel: info\n' ? 1 : 0);
  });

  it('reports every error of a file, in the order of the lines', () => {
    const lines = errorsOf(`${HEAD}stateDir: a\npinPath: b\nfoo: 1\n`);
    expect(lines.map((line) => line.slice(0, 12))).toEqual(['agent.yaml:3', 'agent.yaml:4', 'agent.yaml:5']);
  });

  it('refuses an alias bomb quickly', () => {
    let text = `${HEAD}a0: &a0 [x, x]\n`;
    for (let i = 1; i < 40; i++) text += `a${i}: &a${i} [*a${i - 1}, *a${i - 1}]\n`;
    const started = performance.now();
    expect(errorsOf(text)[0]).toMatch(/^agent\.yaml:\d+: /);
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe('readConfigFile', () => {
  it('names the file that cannot be read', () => {
    const file = join(folder, 'none.yaml');
    const parsed = readConfigFile(file, MOUNTS);
    expect(parsed.ok ? [] : parsed.errors.map((error) => error.toLine())).toEqual([
      `${file}: cannot read the configuration file: no such file or directory (SLU2001)`,
    ]);
  });

  it('refuses what is not UTF-8', () => {
    const file = join(folder, 'latin1.yaml');
    writeFileSync(file, Buffer.from('instance: caf\xe9', 'latin1'));
    expect(readConfigFile(file, MOUNTS)).toMatchObject({ ok: false, errors: [{ code: 'SLU2001' }] });
  });
});

describe('findCgroup2', () => {
  it('takes the first cgroup2 mount, or nothing', () => {
    expect(findCgroup2(MOUNTS)).toBe('/sys/fs/cgroup/uni fied');
    expect(findCgroup2('cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n')).toBe('');
  });
});
