import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { inside, netnsPath } from '../../bench/lib/netns.js';
import { CniBed } from './bed.js';
import {
  type Json,
  type NetworkList,
  type PluginAnswer,
  runList,
  runPlugin,
  type Sandbox,
} from './runtime.js';

/**
 * Every requirement of the conformance data by its id, with the installed plugin and a real agent. What the runtime has
 * to do (CFG) is done by test/cni/runtime.ts, so those tests show that the plugin gets along with it.
 */

const REQUIREMENTS = '../shared/conformance/cni/requirements.json';

let bed: CniBed;
const tested = new Set<string>();

beforeAll(async () => {
  bed = new CniBed('slcnireq', { cgroupRoot: cgroupRoot() });
  await bed.start('10.140.0.0/24');
});
afterAll(() => bed.close());

/** Where processes of this test are; '' where there is no cgroup2. */
function cgroupRoot(): string {
  const mount = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/mounts', 'utf8'));
  return mount?.[1] ?? '';
}

/** A test of one requirement. */
function requirement(id: string, text: string, work: () => Promise<void>): void {
  tested.add(id);
  it(`${id}: ${text}`, work);
}

let counter = 0;

/** One container with a namespace that is given back, and what it was attached to removed. */
async function withSandbox(work: (sandbox: Sandbox & { netns: string }) => Promise<void>): Promise<void> {
  const netns = bed.namespace();
  try {
    await work({ id: `box-${counter++}`, netns });
  } finally {
    bed.giveBack(netns);
  }
}

const SUBNET = '10.141.0.0/24';
const conf = (more: Json = {}): Json => bed.conf('podnet', SUBNET, more);

/** ADD, then the work, then DEL. */
async function added(
  configuration: Json,
  work: (result: Json, sandbox: Sandbox & { netns: string }) => Promise<void>,
  more: Partial<Sandbox> = {},
): Promise<void> {
  await withSandbox(async (plain) => {
    const sandbox = { ...plain, ...more };
    const answer = await bed.call('ADD', configuration, sandbox);
    try {
      expect(answer).toMatchObject({ status: 0 });
      await work(answer.json, sandbox);
    } finally {
      expect(await bed.call('DEL', configuration, sandbox)).toMatchObject({ status: 0, stdout: '' });
    }
  });
}

interface Result {
  readonly cniVersion: string;
  readonly interfaces: readonly { name: string; mac: string; mtu?: number; sandbox?: string }[];
  readonly ips: readonly { address: string; gateway: string; interface: number; version?: string }[];
  readonly routes: readonly { dst: string; gw: string }[];
  readonly dns: Json;
}
const typed = (json: Json): Result => json as unknown as Result;
const addressOf = (json: Json): string => typed(json).ips[0]?.address.split('/')[0] ?? '';

async function leases(): Promise<string> {
  return bed.world.agent.list('leases');
}

function failure(answer: PluginAnswer, code: number, text?: RegExp): void {
  expect(answer.json).toMatchObject({ code, cniVersion: expect.any(String) });
  expect(answer.status).not.toBe(0);
  if (text !== undefined) expect(String(answer.json.msg)).toMatch(text);
}

describe('ADD', () => {
  requirement('ADD-1', 'makes the interface and prints a result', () =>
    added(conf(), async (result, { netns }) => {
      expect(bed.inside(netns, 'ip -4 -o address show dev eth0')).toContain(`${addressOf(result)}/32`);
      expect(bed.inside(netns, 'ip -o link show dev eth0')).toContain('state UP');
    }),
  );

  requirement('ADD-2', 'uses the requested interface name', () =>
    added(
      conf(),
      async (result, { netns }) => {
        expect(bed.inside(netns, 'ip -o link')).toContain(': sandbox-7@');
        expect(typed(result).interfaces.map(({ name }) => name)).toContain('sandbox-7');
      },
      { ifname: 'sandbox-7' },
    ),
  );

  requirement('ADD-3', 'fails when the container has an interface of that name', () =>
    withSandbox(async (sandbox) => {
      bed.inside(sandbox.netns, 'ip link add eth0 type veth peer name other');
      failure(await bed.call('ADD', conf(), sandbox), 102, /eth0/);
      bed.inside(sandbox.netns, 'ip link del eth0');
      expect(await leases()).not.toContain(sandbox.id);
    }),
  );

  requirement('ADD-4', 'leaves nothing when it fails: the address is free for the next one', async () => {
    const one = bed.conf('onlyone', '10.142.0.0/30');
    await withSandbox(async (sandbox) => {
      bed.inside(sandbox.netns, 'ip link add eth0 type veth peer name other');
      failure(await bed.call('ADD', one, sandbox), 102);
      bed.inside(sandbox.netns, 'ip link del eth0');
    });
    await added(one, async (result) => expect(addressOf(result)).toBe('10.142.0.2'));
  });

  requirement('ADD-5', 'a second ADD without DEL fails and changes nothing', () =>
    added(conf(), async (result, sandbox) => {
      failure(await bed.call('ADD', conf(), sandbox), 101, /DEL comes first/);
      expect(bed.inside(sandbox.netns, 'ip -4 -o address show dev eth0')).toContain(addressOf(result));
    }),
  );

  requirement('ADD-6', 'a second interface of one container is an attachment of its own', () =>
    added(conf(), async (first, sandbox) => {
      const second = { ...sandbox, ifname: 'eth1' };
      const answer = await bed.call('ADD', conf(), second);
      expect(answer).toMatchObject({ status: 0 });
      expect(addressOf(answer.json)).not.toBe(addressOf(first));
      expect(bed.inside(sandbox.netns, 'ip -4 route show default')).toMatch(/dev eth0/);
      expect(await bed.call('DEL', conf(), second)).toMatchObject({ status: 0 });
      expect(bed.inside(sandbox.netns, 'ip -4 -o address show dev eth0')).toContain(addressOf(first));
    }),
  );

  requirement('ADD-7', 'fails for a namespace that does not exist', () =>
    withSandbox(async ({ id }) => {
      failure(await bed.call('ADD', conf(), { id, netns: '/run/netns/not-there' }), 4, /not-there/);
      expect(await leases()).not.toContain(id);
    }),
  );
});

describe('DEL', () => {
  requirement('DEL-1', 'removes the interface and prints nothing', () =>
    withSandbox(async (sandbox) => {
      await bed.call('ADD', conf(), sandbox);
      expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0, stdout: '' });
      expect(bed.inside(sandbox.netns, 'ip -o link')).not.toContain('eth0');
    }),
  );

  requirement('DEL-2', 'may be repeated', () =>
    withSandbox(async (sandbox) => {
      await bed.call('ADD', conf(), sandbox);
      for (let i = 0; i < 3; i++)
        expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0, stdout: '' });
    }),
  );

  requirement('DEL-3', 'succeeds without an ADD', () =>
    withSandbox(async (sandbox) => {
      expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0, stdout: '' });
    }),
  );

  requirement('DEL-4', 'frees the address without CNI_NETNS', () =>
    withSandbox(async (sandbox) => {
      await bed.call('ADD', conf(), sandbox);
      expect(await leases()).toContain(sandbox.id);
      expect(await bed.call('DEL', conf(), { id: sandbox.id })).toMatchObject({ status: 0 });
      expect(await leases()).not.toContain(sandbox.id);
    }),
  );

  requirement('DEL-5', 'frees the address when the namespace is gone', async () => {
    const name = bed.world.container('gone');
    const sandbox = { id: 'gone', netns: netnsPath(name) };
    await bed.call('ADD', conf(), sandbox);
    inside(bed.world.host, `ip netns del ${name}`);
    expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0, stdout: '' });
    expect(await leases()).not.toContain('default/gone');
    inside(bed.world.host, `ip netns add ${name}`); // for the clean-up
  });

  requirement('DEL-6', 'needs no prevResult', () =>
    withSandbox(async (sandbox) => {
      await bed.call('ADD', conf(), sandbox);
      expect(await bed.call('DEL', conf({ prevResult: {} }), sandbox)).toMatchObject({ status: 0 });
      expect(await bed.call('DEL', conf({ prevResult: null }), sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement('DEL-7', 'takes the result of ADD as prevResult', () =>
    withSandbox(async (sandbox) => {
      const { json } = await bed.call('ADD', conf(), sandbox);
      expect(await bed.call('DEL', conf({ prevResult: json }), sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement('DEL-8', 'makes the one address of a range free again', async () => {
    const one = bed.conf('single', '10.143.0.0/24', {
      ipam: { ranges: [[{ subnet: '10.143.0.0/24', rangeStart: '10.143.0.9', rangeEnd: '10.143.0.9' }]] },
    });
    for (let i = 0; i < 2; i++)
      await added(one, async (result) => {
        expect(addressOf(result)).toBe('10.143.0.9');
        await withSandbox(async (sandbox) =>
          failure(await bed.call('ADD', one, sandbox), 11, /no free address/),
        );
      });
  });

  requirement('DEL-9', 'succeeds when the device was removed by hand', () =>
    withSandbox(async (sandbox) => {
      const { json } = await bed.call('ADD', conf(), sandbox);
      inside(bed.world.host, `ip link del ${typed(json).interfaces[0]?.name}`);
      expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0, stdout: '' });
      expect(await leases()).not.toContain(sandbox.id);
    }),
  );
});

describe('CHECK', () => {
  const check = async (damage: (result: Result, sandbox: { netns: string }) => string, code = 103) =>
    added(conf(), async (result, sandbox) => {
      bed.inside(sandbox.netns, damage(typed(result), sandbox));
      failure(await bed.call('CHECK', conf({ prevResult: result }), sandbox), code);
    });

  requirement('CHECK-1', 'says nothing after ADD', () =>
    added(conf(), async (prevResult, sandbox) => {
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0, stdout: '' });
    }),
  );

  requirement('CHECK-2', 'needs prevResult', () =>
    added(conf(), async (_, sandbox) => failure(await bed.call('CHECK', conf(), sandbox), 7, /prevResult/)),
  );

  requirement('CHECK-3', 'finds that the interface is gone, and does not make it again', () =>
    added(conf(), async (prevResult, sandbox) => {
      bed.inside(sandbox.netns, 'ip link del eth0');
      failure(await bed.call('CHECK', conf({ prevResult }), sandbox), 103, /no interface eth0/);
      await new Promise((resolve) => setTimeout(resolve, 600)); // the agent looks at devices every 200 ms
      failure(await bed.call('CHECK', conf({ prevResult }), sandbox), 103, /no interface eth0/);
    }),
  );

  requirement('CHECK-4', 'finds that the address is gone', () =>
    check(({ ips }) => `ip address del ${ips[0]?.address} dev eth0`),
  );

  requirement('CHECK-5', 'finds that a route is gone', () => check(() => 'ip route del default'));

  requirement('CHECK-6', 'does not mind further routes and addresses', () =>
    added(conf(), async (prevResult, sandbox) => {
      bed.inside(sandbox.netns, 'ip route add 192.0.2.0/24 dev eth0');
      bed.inside(sandbox.netns, 'ip address add 192.0.2.1/32 dev eth0');
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement('CHECK-7', 'needs version 0.4.0', () =>
    added(conf({ cniVersion: '0.3.1' }), async (prevResult, sandbox) => {
      failure(await bed.call('CHECK', conf({ cniVersion: '0.3.1', prevResult }), sandbox), 1, /0\.4\.0/);
      const later = conf({ cniVersion: '0.4.0', prevResult: { ...prevResult, cniVersion: '0.4.0' } });
      expect(await bed.call('CHECK', later, sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement(
    'CHECK-8',
    'reports an address that is not reserved (any more), also by another IPAM plugin',
    async () => {
      await added(conf(), async (result, sandbox) => {
        const ips = [{ address: '10.141.0.200/32', interface: 1 }];
        bed.inside(sandbox.netns, 'ip address add 10.141.0.200/32 dev eth0');
        const answer = await bed.call('CHECK', conf({ prevResult: { ...result, ips } }), sandbox);
        failure(answer, 103, /10\.141\.0\.200 is not leased/);
      });
      fakeIpam('ipam-check', {
        check: `echo '{"cniVersion":"1.1.0","code":123,"msg":"reservation lost"}'; exit 1`,
      });
      await added(delegated('ipam-check'), async (prevResult, sandbox) => {
        failure(await bed.call('CHECK', { ...delegated('ipam-check'), prevResult }, sandbox), 123, /lost/);
      });
    },
  );

  requirement('CHECK-9', 'after DEL is an error that makes nothing', () =>
    withSandbox(async (sandbox) => {
      const { json } = await bed.call('ADD', conf(), sandbox);
      await bed.call('DEL', conf(), sandbox);
      failure(await bed.call('CHECK', conf({ prevResult: json }), sandbox), 103);
      expect(bed.inside(sandbox.netns, 'ip -o link')).not.toContain('eth0');
      expect(await leases()).not.toContain(sandbox.id);
    }),
  );
});

/** An IPAM plugin of a test: a script with one address, and a log of how it was called. */
function fakeIpam(
  name: string,
  answers: {
    readonly add?: string;
    readonly check?: string;
    readonly status?: string;
    readonly gc?: string;
  } = {},
): void {
  const add =
    answers.add ??
    `echo '{"cniVersion":"1.1.0","ips":[{"address":"10.150.0.7/24","gateway":"10.150.0.1"}],"routes":[{"dst":"0.0.0.0/0"}]}'`;
  bed.script(
    name,
    `input=$(cat)
printf '%s %s %s %s\\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "$CNI_NETNS" >>"$0.log"
printf '%s' "$input" >"$0.$CNI_COMMAND.json"
case $CNI_COMMAND in
ADD) ${add} ;;
CHECK) ${answers.check ?? ':'} ;;
STATUS) ${answers.status ?? ':'} ;;
GC) ${answers.gc ?? ':'} ;;
esac`,
  );
  rmSync(join(bed.binDir, `${name}.log`), { force: true });
}

function delegated(type: string): Json {
  return bed.conf(type, '', { ipam: { type, anything: { deep: [1] } }, own: 'kept' });
}

const calls = (name: string): string[] => {
  const log = join(bed.binDir, `${name}.log`);
  return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
};

describe('STATUS', () => {
  const status = (configuration: Json): Promise<PluginAnswer> =>
    runPlugin(bed.plugin, { CNI_COMMAND: 'STATUS', CNI_PATH: bed.binDir }, JSON.stringify(configuration));

  requirement('STATUS-1', 'is 0 when ready', async () => {
    expect(await status(conf())).toMatchObject({ status: 0, stdout: '' });
  });

  requirement('STATUS-2', 'is 50 without the agent, and when no address is left', async () => {
    const away = await status(conf({ socket: '/run/not-there.sock' }));
    failure(away, 50);
    expect(away.json.details).toBe('nobody listens at /run/not-there.sock: start the agent');
    const one = bed.conf('full', '10.144.0.0/30');
    await added(one, async () => failure(await status(one), 50, /no address/));
    expect(await status(one)).toMatchObject({ status: 0 });
    failure(await status(bed.conf('x', SUBNET, { network: 'not-defined' })), 50, /not-defined/);
    // What ADD would refuse: the range of another network, or one that has an address of the host.
    failure(await status(bed.conf('host', '198.51.100.0/24')), 50, /198\.51\.100\.1.*address of this host/);
    const other = bed.conf('other', '10.144.0.0/24');
    await added(one, async () => failure(await status(other), 50, /overlaps with 10\.144\.0\.0\/30/));
    expect(await status(other)).toMatchObject({ status: 0 });
    await added(other, async () =>
      failure(await status({ ...other, mode: 'bridge' }), 50, /network other has containers.*mode/),
    );
  });

  requirement('STATUS-3', "returns the IPAM plugin's error", async () => {
    fakeIpam('ipam-status', { status: `echo '{"cniVersion":"1.1.0","code":51,"msg":"limping"}'; exit 1` });
    failure(await status(delegated('ipam-status')), 51, /limping/);
    expect(calls('ipam-status')[0]).toMatch(/^STATUS/);
  });

  requirement('STATUS-4', 'needs version 1.1.0', async () => {
    failure(await status(conf({ cniVersion: '1.0.0' })), 1, /1\.1\.0/);
  });

  requirement('STATUS-5', 'is not needed for ADD and DEL', async () => {
    const name = 'statusless';
    fakeIpam(name, { status: `echo '{"cniVersion":"1.1.0","code":50,"msg":"no"}'; exit 1` });
    failure(await status(delegated(name)), 50);
    await added(delegated(name), async (result) => expect(addressOf(result)).toBe('10.150.0.7'));
  });
});

describe('GC', () => {
  const gc = (configuration: Json, valid: readonly { containerID: string; ifname: string }[]) =>
    runPlugin(
      bed.plugin,
      { CNI_COMMAND: 'GC', CNI_PATH: bed.binDir },
      JSON.stringify({ ...configuration, 'cni.dev/valid-attachments': valid }),
    );

  requirement('GC-1', 'removes what is not valid', () =>
    withSandbox(async (sandbox) => {
      await bed.call('ADD', conf(), sandbox);
      expect(await gc(conf(), [])).toMatchObject({ status: 0, stdout: '' });
      expect(await leases()).not.toContain(sandbox.id);
      expect(bed.inside(sandbox.netns, 'ip -o link')).not.toContain('eth0');
    }),
  );

  requirement('GC-2', 'keeps what is valid', () =>
    added(conf(), async (prevResult, sandbox) => {
      expect(await gc(conf(), [{ containerID: sandbox.id, ifname: 'eth0' }])).toMatchObject({ status: 0 });
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement('GC-3', 'tells interfaces of one container apart', () =>
    added(conf(), async (prevResult, sandbox) => {
      await bed.call('ADD', conf(), { ...sandbox, ifname: 'eth1' });
      await gc(conf(), [{ containerID: sandbox.id, ifname: 'eth0' }]);
      expect(bed.inside(sandbox.netns, 'ip -o link')).not.toContain('eth1');
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    }),
  );

  requirement('GC-4', 'is passed on to the IPAM plugin', async () => {
    fakeIpam('ipam-gc', { gc: `echo '{"cniVersion":"1.1.0","code":140,"msg":"cannot collect"}'; exit 1` });
    failure(await gc(delegated('ipam-gc'), [{ containerID: 'a', ifname: 'b' }]), 140, /cannot collect/);
    expect(JSON.parse(readFileSync(join(bed.binDir, 'ipam-gc.GC.json'), 'utf8'))).toMatchObject({
      'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'b' }],
    });
  });

  requirement('GC-5', 'needs version 1.1.0', async () => {
    failure(await gc(conf({ cniVersion: '1.0.0' }), []), 1, /1\.1\.0/);
  });

  requirement('GC-6', 'leaves other networks alone', () =>
    added(conf(), async (prevResult, sandbox) => {
      expect(await gc(bed.conf('another', '10.145.0.0/24'), [])).toMatchObject({ status: 0 });
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    }),
  );
});

describe('VERSION', () => {
  const version = (input: string) => runPlugin(bed.plugin, { CNI_COMMAND: 'VERSION' }, input);

  requirement('VERSION-1', 'prints the versions, with no other variable', async () => {
    const answer = await version('{"cniVersion":"1.0.0"}');
    expect(answer).toMatchObject({
      status: 0,
      json: { supportedVersions: ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] },
    });
  });

  requirement('VERSION-2', 'answers an empty input', async () => {
    expect(await version('')).toMatchObject({ status: 0, json: { cniVersion: expect.any(String) } });
  });

  requirement('VERSION-3', 'repeats the version of the input', async () => {
    for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0', '1.1.0'])
      expect((await version(JSON.stringify({ cniVersion }))).json.cniVersion).toBe(cniVersion);
  });
});

describe('parameters', () => {
  const run = (environment: Readonly<Record<string, string>>) =>
    runPlugin(bed.plugin, { CNI_PATH: bed.binDir, ...environment }, JSON.stringify(conf()));
  const all = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'env', CNI_NETNS: '/run/netns/x', CNI_IFNAME: 'eth0' };
  const without = (name: keyof typeof all): Record<string, string> =>
    Object.fromEntries(Object.entries(all).filter(([key]) => key !== name));

  requirement('ENV-1', 'an unknown CNI_COMMAND is error 4', async () => {
    failure(await run({ ...all, CNI_COMMAND: 'DANCE' }), 4, /CNI_COMMAND/);
    failure(await runPlugin(bed.plugin, {}, ''), 4, /CNI_COMMAND/);
  });

  requirement('ENV-2', 'a missing CNI_CONTAINERID is error 4 and named', async () =>
    failure(await run(without('CNI_CONTAINERID')), 4, /CNI_CONTAINERID/),
  );

  requirement('ENV-3', 'a missing CNI_NETNS is error 4 and named', async () =>
    failure(await run(without('CNI_NETNS')), 4, /CNI_NETNS/),
  );

  requirement('ENV-4', 'a missing CNI_IFNAME is error 4 and named', async () =>
    failure(await run(without('CNI_IFNAME')), 4, /CNI_IFNAME/),
  );

  requirement('ENV-5', 'all that is missing is named', async () =>
    failure(await run({ CNI_COMMAND: 'ADD' }), 4, /CNI_CONTAINERID.*CNI_NETNS.*CNI_IFNAME/),
  );

  requirement('ENV-6', 'a bad CNI_CONTAINERID is error 4', async () => {
    for (const id of ['a/b', '-a', '.a', 'a b', 'ä'])
      failure(await run({ ...all, CNI_CONTAINERID: id }), 4, /CNI_CONTAINERID/);
  });

  requirement('ENV-7', 'a bad CNI_IFNAME is an error', async () => {
    for (const name of ['sixteen-letters!', '.', '..', 'a/b', 'a b', 'a:b'])
      failure(await run({ ...all, CNI_IFNAME: name }), 4, /CNI_IFNAME/);
  });

  requirement('ENV-8', 'DEL needs CNI_CONTAINERID', async () =>
    failure(await run({ CNI_COMMAND: 'DEL', CNI_IFNAME: 'eth0' }), 4, /CNI_CONTAINERID/),
  );

  requirement('ENV-9', 'unknown keys of CNI_ARGS need IgnoreUnknown=1', async () => {
    failure(await run({ ...all, CNI_ARGS: 'STRANGE=1' }), 4, /STRANGE/);
    failure(await run({ ...all, CNI_ARGS: 'no-pair' }), 4, /CNI_ARGS/);
    const args =
      'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=y;STRANGE=1';
    await added(conf(), async () => expect(await leases()).toContain('"shop/web-1:cni.podnet"'), { args });
  });

  requirement('ARGS-1', 'args.cni.ips counts, then IP of CNI_ARGS', async () => {
    const args = 'IP=10.141.0.51;MAC=02:00:00:00:00:51';
    const both = conf({ args: { cni: { ips: ['10.141.0.50'] } } });
    await added(both, async (result) => expect(addressOf(result)).toBe('10.141.0.50'), { args });
    await added(
      conf(),
      async (result) => {
        expect(addressOf(result)).toBe('10.141.0.51');
        expect(typed(result).interfaces[1]?.mac).toBe('02:00:00:00:00:51');
      },
      { args },
    );
  });
});

describe('errors', () => {
  const sandbox: Sandbox = { id: 'errors', netns: '/run/netns/not-there' };

  requirement('ERR-1', 'are an object on standard output and a status', async () => {
    const answer = await bed.call('ADD', conf(), sandbox);
    expect(answer.status).toBe(1);
    expect(answer.json).toEqual({
      cniVersion: '1.1.0',
      code: expect.any(Number),
      msg: expect.any(String),
      details: expect.any(String),
    });
  });

  requirement('ERR-2', 'an unknown cniVersion is 1', async () => {
    for (const cniVersion of ['0.2.0', '0.3.0', '2.0.0', 'next'])
      failure(await bed.call('ADD', conf({ cniVersion }), sandbox), 1, /not supported/);
  });

  requirement('ERR-3', 'input that is not JSON is 6', async () => {
    for (const input of ['', 'junk', '[]', '{"a":1', '{"a":1}x', '{"a":\u0001}'])
      failure(await bed.call('ADD', input, sandbox), 6);
  });

  requirement('ERR-4', 'a missing network name is 7', async () => {
    failure(await bed.call('ADD', { ...conf(), name: undefined }, sandbox), 7, /name/);
    failure(await bed.call('ADD', conf({ name: '' }), sandbox), 7, /name/);
  });

  requirement('ERR-5', 'a bad network name is 7', async () => {
    for (const name of ['a/b', '-a', 'a b', '.a'])
      failure(await bed.call('ADD', conf({ name }), sandbox), 7, /name/);
  });

  requirement('ERR-6', 'those of the plugin itself begin with 100', async () => {
    await added(conf({ runtimeConfig: ports(18070) }), () =>
      withSandbox(async (other) => {
        const answer = await bed.call('ADD', conf({ runtimeConfig: ports(18070) }), other);
        failure(answer, 101, /18070/);
      }),
    );
  });

  requirement('ERR-7', 'what passes is 11', async () => {
    const started = performance.now();
    failure(await bed.call('ADD', conf({ socket: '/run/not-there.sock' }), sandbox), 11);
    failure(await bed.call('DEL', conf({ socket: '/run/not-there.sock' }), sandbox), 11);
    expect(performance.now() - started).toBeLessThan(5000);
  });

  requirement('ERR-8', 'error 2 names key and value', async () => {
    const deviceID = '0000:00:07.0';
    const answer = await bed.call('ADD', conf({ runtimeConfig: { deviceID } }), sandbox);
    failure(answer, 2, /deviceID.*0000:00:07\.0/);
    failure(await bed.call('ADD', conf({ mode: 'ipvlan' }), sandbox), 2, /mode.*ipvlan/);
  });

  requirement('ERR-9', 'without cniVersion it is 0.1.0, which is not supported', async () => {
    failure(await bed.call('ADD', { ...conf(), cniVersion: undefined }, sandbox), 1, /0\.1\.0/);
  });
});

function ports(hostPort: number, more: Json = {}): Json {
  return { portMappings: [{ hostPort, containerPort: 8080, protocol: 'tcp', ...more }] };
}

describe('results', () => {
  requirement('RES-1', 'have the version of the request', async () => {
    for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0', '1.1.0'])
      await added(conf({ cniVersion }), async (result) => expect(result.cniVersion).toBe(cniVersion));
  });

  requirement('RES-2', 'list both sides of the pair', () =>
    added(conf(), async (result, { netns }) => {
      const [host, container] = typed(result).interfaces;
      expect(host).not.toHaveProperty('sandbox');
      expect(inside(bed.world.host, `ip -o link show dev ${host?.name}`)).toContain(host?.mac);
      expect(container).toMatchObject({ name: 'eth0', sandbox: netns });
      expect(bed.inside(netns, 'ip -o link show dev eth0')).toContain(container?.mac);
    }),
  );

  requirement('RES-3', 'have addresses as CIDR with a valid index', () =>
    added(conf(), async (result) => {
      for (const ip of typed(result).ips) {
        expect(ip.address).toMatch(/^[0-9.]+\/32$/);
        expect(typed(result).interfaces[ip.interface]?.name).toBe('eth0');
      }
    }),
  );

  requirement('RES-4', 'say the family of an address before 1.0.0', async () => {
    const ranges = [[{ subnet: '10.146.0.0/24' }], [{ subnet: 'fd46::/64' }]];
    const both = (cniVersion: string) => bed.conf('dual', '', { cniVersion, ipam: { ranges } });
    for (const version of ['0.3.1', '0.4.0'])
      await added(both(version), async (result) =>
        expect(typed(result).ips.map((ip) => ip.version)).toEqual(['4', '6']),
      );
    for (const version of ['1.0.0', '1.1.0'])
      await added(both(version), async (result) => {
        expect(typed(result).ips).toHaveLength(2);
        for (const ip of typed(result).ips) expect(ip).not.toHaveProperty('version');
      });
  });

  requirement('RES-5', 'pass on what came from the plugins before', async () => {
    const made = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:05', sandbox: '' }],
      ips: [{ address: '192.0.2.7/24', interface: 0 }],
      dns: { nameservers: ['192.0.2.53'] },
    };
    await withSandbox(async (sandbox) => {
      const prevResult = { ...made, interfaces: [{ ...made.interfaces[0], sandbox: sandbox.netns }] };
      const answer = await bed.call('ADD', conf({ prevResult }), sandbox);
      expect(answer).toMatchObject({ status: 0, json: prevResult });
      expect(bed.inside(sandbox.netns, 'ip -o link')).not.toContain('eth0');
      failure(
        await bed.call('ADD', conf({ prevResult, runtimeConfig: ports(18071) }), sandbox),
        2,
        /portMappings/,
      );
      expect(await bed.call('DEL', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    });
    const before = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'lo' }],
      routes: [{ dst: '192.0.2.0/24' }],
      dns: made.dns,
    };
    await added(conf({ prevResult: before }), async (result) => {
      expect(typed(result).interfaces.map(({ name }) => name)).toEqual(['lo', expect.any(String), 'eth0']);
      expect(typed(result).ips[0]?.interface).toBe(2);
      expect(typed(result).routes[0]).toEqual({ dst: '192.0.2.0/24' });
      expect(typed(result).dns).toEqual(made.dns);
    });
  });

  requirement('RES-6', 'have nothing that an older version does not know', async () => {
    for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0'])
      await added(conf({ cniVersion }), async (result) => {
        for (const entry of typed(result).interfaces) expect(entry).not.toHaveProperty('mtu');
        for (const route of typed(result).routes) expect(Object.keys(route).sort()).toEqual(['dst', 'gw']);
      });
    await added(conf(), async (result) => expect(typed(result).interfaces[1]?.mtu).toBe(1500));
  });

  requirement('RES-7', 'of an IPAM plugin have no interfaces; its addresses get ours', async () => {
    fakeIpam('ipam-result');
    await added(delegated('ipam-result'), async (result) => {
      const json = JSON.parse(readFileSync(join(bed.binDir, 'ipam-result.ADD.json'), 'utf8')) as Json;
      expect(json).not.toHaveProperty('interfaces');
      expect(typed(result).ips).toEqual([{ address: '10.150.0.7/32', gateway: '10.150.0.1', interface: 1 }]);
    });
  });

  requirement('RES-8', 'are all that is printed', () =>
    withSandbox(async (sandbox) => {
      const answer = await bed.call('ADD', conf(), sandbox);
      expect(answer.stderr).toBe('');
      expect(answer.stdout).toBe(`${JSON.stringify(answer.json)}\n`);
      await bed.call('DEL', conf(), sandbox);
    }),
  );
});

describe('concurrency', () => {
  requirement('CONC-1', 'requests for different containers do not meet', async () => {
    const boxes = Array.from({ length: 12 }, (_, i) => ({ id: `par-${i}`, netns: bed.namespace() }));
    const answers = await Promise.all(boxes.map((sandbox) => bed.call('ADD', conf(), sandbox)));
    expect(answers.map(({ status }) => status)).toEqual(boxes.map(() => 0));
    expect(new Set(answers.map(({ json }) => addressOf(json))).size).toBe(boxes.length);
    const mixed = await Promise.all(
      boxes.map((sandbox, i) =>
        i % 2 === 0
          ? bed.call('DEL', conf(), sandbox)
          : bed.call('CHECK', conf({ prevResult: answers[i]?.json }), sandbox),
      ),
    );
    expect(mixed.map(({ status }) => status)).toEqual(boxes.map(() => 0));
    for (const sandbox of boxes) {
      expect(await bed.call('DEL', conf(), sandbox)).toMatchObject({ status: 0 });
      bed.giveBack(sandbox.netns);
    }
    expect(await leases()).not.toContain('par-');
  });
});

describe('delegation', () => {
  requirement('DELEG-1', 'gives the IPAM plugin the same variables and the whole configuration', async () => {
    fakeIpam('ipam-all');
    const configuration = delegated('ipam-all');
    await added(configuration, async (_, { id, netns }) => {
      expect(calls('ipam-all')).toEqual([`ADD ${id} eth0 ${netns}`]);
      expect(JSON.parse(readFileSync(join(bed.binDir, 'ipam-all.ADD.json'), 'utf8'))).toEqual(configuration);
    });
    await withSandbox(async (sandbox) =>
      failure(await bed.call('ADD', delegated('ipam-not-there'), sandbox), 104, /CNI_PATH/),
    );
    // It gave nothing, and can take nothing back: the container goes all the same.
    await withSandbox(async (sandbox) => {
      expect(await bed.call('DEL', delegated('ipam-not-there'), sandbox)).toMatchObject({ status: 0 });
      fakeIpam('ipam-gone');
      expect(await bed.call('ADD', delegated('ipam-gone'), sandbox)).toMatchObject({ status: 0 });
      rmSync(join(bed.binDir, 'ipam-gone'));
      expect(await bed.call('DEL', delegated('ipam-gone'), sandbox)).toMatchObject({ status: 0 });
      const gc = { ...delegated('ipam-gone'), 'cni.dev/valid-attachments': [] };
      expect(await bed.call('GC', gc, sandbox)).toMatchObject({ status: 0 });
      expect(await leases()).not.toContain(sandbox.id);
    });
  });

  requirement('DELEG-2', 'takes the address back when ADD fails', async () => {
    fakeIpam('ipam-fails', { add: `echo '{"cniVersion":"1.1.0","code":120,"msg":"no more"}'; exit 1` });
    await withSandbox(async (sandbox) => {
      failure(await bed.call('ADD', delegated('ipam-fails'), sandbox), 120, /no more/);
      expect(calls('ipam-fails').map((line) => line.split(' ')[0])).toEqual(['ADD', 'DEL']);
    });
    fakeIpam('ipam-works');
    await withSandbox(async (sandbox) => {
      bed.inside(sandbox.netns, 'ip link add eth0 type veth peer name other');
      failure(await bed.call('ADD', delegated('ipam-works'), sandbox), 102);
      expect(calls('ipam-works').map((line) => line.split(' ')[0])).toEqual(['ADD', 'DEL']);
      bed.inside(sandbox.netns, 'ip link del eth0');
    });
  });

  requirement('DELEG-3', 'runs CHECK, DEL and GC on it and returns its errors', async () => {
    fakeIpam('ipam-more');
    const configuration = delegated('ipam-more');
    await added(configuration, async (prevResult, sandbox) => {
      expect(await bed.call('CHECK', { ...configuration, prevResult }, sandbox)).toMatchObject({ status: 0 });
    });
    expect(calls('ipam-more').map((line) => line.split(' ')[0])).toEqual(['ADD', 'CHECK', 'DEL']);
    bed.script('ipam-bad', `echo '{"cniVersion":"1.1.0","code":111,"msg":"stuck"}'; exit 1`);
    await withSandbox(async (sandbox) => {
      failure(await bed.call('DEL', delegated('ipam-bad'), sandbox), 111, /stuck/);
      failure(await bed.call('GC', delegated('ipam-bad'), sandbox), 111, /stuck/);
    });
  });
});

describe('lists', () => {
  const list = (plugins: readonly Json[], more: Partial<NetworkList> = {}): NetworkList => ({
    cniVersion: '1.1.0',
    name: 'podnet',
    plugins,
    ...more,
  });
  const ours = (more: Json = {}): Json => ({
    type: 'sluice-cni',
    socket: bed.socket,
    ipam: { ranges: [[{ subnet: SUBNET }]] },
    ...more,
  });
  /** A plugin that passes its prevResult on, and notes how it was called. */
  const chained = (name: string): Json => {
    bed.script(
      name,
      `cat >"$0.json"; printf '%s\\n' "$CNI_COMMAND" >>"$0.log"; printf '%s\\n' "${name} $CNI_COMMAND" >>"${bed.binDir}/order"
[ "$CNI_COMMAND" = ADD ] && sed -e 's/.*"prevResult"://' -e 's/}$//' "$0.json"
exit 0`,
    );
    rmSync(join(bed.binDir, 'order'), { force: true });
    return { type: name };
  };

  requirement('CFG-1', 'run in order, and in reverse on DEL', () =>
    withSandbox(async (sandbox) => {
      const chain = list([ours(), chained('second'), chained('third')]);
      const call = { cniPath: bed.binDir, sandbox };
      const result = await runList('ADD', chain, call);
      expect(result).toMatchObject({ status: 0 });
      expect(typed(result.json).interfaces[1]?.name).toBe('eth0');
      expect(await runList('DEL', chain, { ...call, prevResult: result.json })).toMatchObject({ status: 0 });
      const order = readFileSync(join(bed.binDir, 'order'), 'utf8').trim().split('\n');
      expect(order).toEqual(['second ADD', 'third ADD', 'third DEL', 'second DEL']);
    }),
  );

  requirement('CFG-2', 'may have keys that the plugin does not know', () =>
    withSandbox(async (sandbox) => {
      const chain = list([ours({ 'example.com/unknown': { a: [1] }, isGateway: true })]);
      expect(await runList('ADD', chain, { cniPath: bed.binDir, sandbox })).toMatchObject({ status: 0 });
      expect(await runList('DEL', chain, { cniPath: bed.binDir, sandbox })).toMatchObject({ status: 0 });
    }),
  );

  requirement('CFG-3', 'give the plugin the capabilities that it declares', () =>
    withSandbox(async (sandbox) => {
      const capabilities = { mac: '02:00:00:00:00:33', ips: ['10.141.0.33'] };
      const call = { cniPath: bed.binDir, sandbox, capabilities };
      const chain = list([ours({ capabilities: { mac: true, ips: true, bandwidth: true } })]);
      const { json } = await runList('ADD', chain, call);
      expect(addressOf(json)).toBe('10.141.0.33');
      expect(typed(json).interfaces[1]?.mac).toBe('02:00:00:00:00:33');
      expect(await runList('DEL', chain, call)).toMatchObject({ status: 0 });
    }),
  );

  requirement('CFG-4', 'use the newest version that both know', () =>
    withSandbox(async (sandbox) => {
      const chain = list([ours()], { cniVersion: '0.4.0', cniVersions: ['0.3.1', '1.1.0', '9.0.0'] });
      const { json } = await runList('ADD', chain, { cniPath: bed.binDir, sandbox });
      expect(json.cniVersion).toBe('1.1.0');
      await runList('DEL', chain, { cniPath: bed.binDir, sandbox });
    }),
  );

  requirement('CFG-5', 'do not carry keys of cni.dev/ from the file', () =>
    withSandbox(async (sandbox) => {
      const chain = list([ours({ 'cni.dev/valid-attachments': 'from the file' })]);
      expect(await runList('ADD', chain, { cniPath: bed.binDir, sandbox })).toMatchObject({ status: 0 });
      const valid = [{ containerID: sandbox.id, ifname: 'eth0' }];
      expect(await runList('GC', chain, { cniPath: bed.binDir, sandbox, valid })).toMatchObject({
        status: 0,
      });
      expect(await leases()).toContain(sandbox.id);
      await runList('DEL', chain, { cniPath: bed.binDir, sandbox });
    }),
  );

  requirement('CFG-6', 'may turn CHECK and GC off', () =>
    withSandbox(async (sandbox) => {
      const chain = list([ours()], { disableCheck: true, disableGC: true });
      const call = { cniPath: bed.binDir, sandbox, valid: [] };
      await runList('ADD', chain, call);
      expect(await runList('CHECK', chain, call)).toMatchObject({ status: 0 });
      expect(await runList('GC', chain, call)).toMatchObject({ status: 0 });
      expect(await leases()).toContain(sandbox.id);
      await runList('DEL', chain, call);
    }),
  );

  requirement('CFG-7', 'GC does not meet an ADD that is under way', async () => {
    const boxes = Array.from({ length: 6 }, (_, i) => ({ id: `gc-${i}`, netns: bed.namespace() }));
    const valid = boxes.map(({ id }) => ({ containerID: id, ifname: 'eth0' }));
    const collecting = conf({ 'cni.dev/valid-attachments': valid });
    const answers = await Promise.all([
      ...boxes.map((sandbox) => bed.call('ADD', conf(), sandbox)),
      ...[1, 2, 3].map(() => bed.call('GC', collecting, { id: 'x' })),
    ]);
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 0));
    for (const [i, sandbox] of boxes.entries()) {
      const prevResult = answers[i]?.json;
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
      await bed.call('DEL', conf(), sandbox);
      bed.giveBack(sandbox.netns);
    }
  });
});

describe('capabilities', () => {
  requirement(
    'CAP-portMappings',
    'publish ports: by address and protocol, from the host itself too',
    async () => {
      const mappings = [
        { hostPort: 18080, containerPort: 8080, protocol: 'tcp' },
        { hostPort: 18081, containerPort: 8080, protocol: 'tcp', hostIP: '198.51.100.1' },
        { hostPort: 0, containerPort: 9999, protocol: 'udp' },
        { hostPort: 18082, containerPort: 53, protocol: 'udp', hostIP: '' },
      ];
      await added(conf({ runtimeConfig: { portMappings: mappings } }), async (_, { netns }) => {
        const server = await bed.world.traffic(netns.replace(/^.*\//, ''), 'tcp-server', '::', 8080, 60);
        expect(await bed.world.probe(bed.world.outside, '198.51.100.1', 18080)).toBe('open');
        expect(await bed.world.probe(bed.world.outside, '198.51.100.1', 18081)).toBe('open');
        if (cgroupRoot() !== '') {
          expect(await bed.world.probe(bed.world.host, '198.51.100.1', 18080)).toBe('open');
          expect(await bed.world.probe(bed.world.host, '127.0.0.1', 18080)).toBe('open');
        }
        await server.stop();
      });
      expect(await bed.world.probe(bed.world.outside, '198.51.100.1', 18080)).toBe('refused');
      await withSandbox(async (sandbox) => {
        failure(
          await bed.call('ADD', conf({ runtimeConfig: ports(80, { protocol: 'icmp' }) }), sandbox),
          2,
          /icmp/,
        );
        failure(await bed.call('ADD', conf({ runtimeConfig: ports(70000) }), sandbox), 7, /hostPort/);
      });
    },
  );

  requirement('CAP-bandwidth', 'needs a burst with a rate', async () => {
    const limit = {
      ingressRate: 8_000_000,
      ingressBurst: 400_000,
      egressRate: 4_000_000,
      egressBurst: 400_000,
    };
    await added(conf({ runtimeConfig: { bandwidth: limit } }), async (result) =>
      expect(addressOf(result)).not.toBe(''),
    );
    await withSandbox(async (sandbox) => {
      for (const bandwidth of [
        { ingressRate: 1000 },
        { egressBurst: 1000 },
        { egressRate: 7, egressBurst: 1000 },
      ])
        failure(await bed.call('ADD', conf({ runtimeConfig: { bandwidth } }), sandbox), 7, /bandwidth/);
    });
  });

  requirement('CAP-ips', 'are used, or ADD fails', async () => {
    const wish = (ip: string) => conf({ runtimeConfig: { ips: [ip] } });
    await added(wish('10.141.0.99/24'), async (result) => {
      expect(addressOf(result)).toBe('10.141.0.99');
      await withSandbox(async (sandbox) =>
        failure(await bed.call('ADD', wish('10.141.0.99'), sandbox), 101, /10\.141\.0\.99/),
      );
    });
    await withSandbox(async (sandbox) => {
      failure(await bed.call('ADD', wish('10.99.0.1'), sandbox), 7, /not inside/);
      failure(await bed.call('ADD', wish('10.141.0.1'), sandbox), 101, /gateway/);
    });
  });

  requirement('CAP-ipRanges', 'are the ranges of the network', async () => {
    const configuration = bed.conf('ranged', '', {
      ipam: {},
      runtimeConfig: { ipRanges: [[{ subnet: '10.147.0.0/24' }], [{ subnet: 'fd47::/64' }]] },
    });
    await added(configuration, async (result) =>
      expect(typed(result).ips.map(({ address }) => address)).toEqual(['10.147.0.2/32', 'fd47::2/128']),
    );
  });

  requirement('CAP-mac', 'is what the interface has', () =>
    added(conf({ runtimeConfig: { mac: '02:00:00:AA:BB:CC' } }), async (result, { netns }) => {
      expect(typed(result).interfaces[1]?.mac).toBe('02:00:00:aa:bb:cc');
      expect(bed.inside(netns, 'ip -o link show dev eth0')).toContain('02:00:00:aa:bb:cc');
    }),
  );

  requirement('CAP-infinibandGUID', 'is refused', () =>
    withSandbox(async (sandbox) => {
      const runtimeConfig = { infinibandGUID: 'c2:11:22:33:44:55:66:77' };
      failure(await bed.call('ADD', conf({ runtimeConfig }), sandbox), 2, /infinibandGUID.*c2:11/);
    }),
  );

  requirement('CAP-dns', 'comes back in the result under its names there', () =>
    added(
      conf({
        runtimeConfig: { dns: { servers: ['192.0.2.53'], searches: ['example.com'], options: ['ndots:2'] } },
      }),
      async (result) =>
        expect(result.dns).toEqual({
          nameservers: ['192.0.2.53'],
          search: ['example.com'],
          options: ['ndots:2'],
        }),
    ),
  );

  requirement('CAP-deviceID', 'of a device that does not exist is an error', () =>
    withSandbox(async (sandbox) => {
      failure(
        await bed.call('ADD', conf({ runtimeConfig: { deviceID: 'none' } }), sandbox),
        2,
        /deviceID.*none/,
      );
    }),
  );

  requirement('CAP-aliases', 'are kept with the container', async () => {
    const names = async (): Promise<string> => bed.world.agent.list('containers');
    await added(conf({ runtimeConfig: { aliases: ['db', 'store'] } }), async () =>
      expect(await names()).toContain('"aliases":["db","store"]'),
    );
    await added(conf({ runtimeConfig: { aliases: { podnet: ['cache'] } } }), async () =>
      expect(await names()).toContain('"aliases":["cache"]'),
    );
  });

  requirement('CAP-cgroupPath', 'is taken', () =>
    added(conf({ runtimeConfig: { cgroupPath: '/kubepods/pod1' } }), async (result) =>
      expect(addressOf(result)).not.toBe(''),
    ),
  );

  requirement('CAP-order', 'that are not declared do not reach the plugin', () =>
    withSandbox(async (sandbox) => {
      const chain: NetworkList = {
        cniVersion: '1.1.0',
        name: 'podnet',
        plugins: [{ type: 'sluice-cni', socket: bed.socket, ipam: { ranges: [[{ subnet: SUBNET }]] } }],
      };
      const call = { cniPath: bed.binDir, sandbox, capabilities: { mac: '02:00:00:00:00:34' } };
      const { json } = await runList('ADD', chain, call);
      expect(typed(json).interfaces[1]?.mac).not.toBe('02:00:00:00:00:34');
      await runList('DEL', chain, call);
    }),
  );
});

describe('all together', () => {
  it('the configuration that "sluice cni install" wrote works', () =>
    withSandbox(async (sandbox) => {
      const chain = bed.installed as unknown as NetworkList;
      const call = { cniPath: bed.binDir, sandbox, capabilities: ports(18090) };
      const { json, status } = await runList('ADD', chain, call);
      expect([status, addressOf(json)]).toEqual([0, '10.140.0.2']);
      expect(await runList('CHECK', chain, { ...call, prevResult: json })).toMatchObject({ status: 0 });
      expect(await runList('DEL', chain, { ...call, prevResult: json })).toMatchObject({ status: 0 });
    }));

  it('"sluice cni install" writes nothing that cannot be served', () => {
    const where = ['--bin-dir', join(bed.binDir, 'new'), '--conf-dir', join(bed.confDir, 'new')];
    const install = (...range: readonly string[]): void =>
      bed.install('new', ...where, '--wait', '0', ...range);
    expect(() => install('--subnet', '198.51.100.0/24')).toThrow(
      /ADD cannot be served.*address of this host/,
    );
    expect(() => install('--network', 'nowhere')).toThrow(/network nowhere is not defined/);
    expect([existsSync(join(bed.binDir, 'new')), existsSync(join(bed.confDir, 'new'))]).toEqual([
      false,
      false,
    ]);
  });

  it('errors name the field of the configuration or of the request', () =>
    withSandbox(async (sandbox) => {
      const add = (more: Json): Promise<PluginAnswer> => bed.call('ADD', conf(more), sandbox);
      const ranges = (subnet: string): Json => ({ name: 'fields', ipam: { ranges: [[{ subnet }]] } });
      failure(await add(ranges('198.51.100.0/24')), 101, /^ipam\.ranges\.subnet: 198\.51/);
      failure(await add(ranges('127.0.0.0/24')), 7, /^ipam\.ranges\.subnet: 127\./);
      failure(await add({ runtimeConfig: { ips: ['10.77.0.1'] } }), 7, /^ips: 10\.77\.0\.1/);
      const port = { hostPort: 18_091, containerPort: 80, protocol: 'tcp' };
      const twice = await add({ runtimeConfig: { portMappings: [port, port] } });
      failure(twice, 101, /^portMappings\[1\]/);
    }));

  it('the plugin says to people what it is', () => {
    const said = (...args: readonly string[]): readonly [number | null, string] => {
      const { status, stdout, stderr } = spawnSync(bed.plugin, args, { encoding: 'utf8', input: '' });
      return [status, `${stdout}${stderr}`];
    };
    expect(said('--help')).toEqual([
      0,
      expect.stringMatching(/^sluice-cni \d.*1\.1\.0.*\n[^{]*agent/s) as unknown,
    ]);
    expect(said('--version')).toEqual([
      0,
      expect.stringMatching(/^sluice-cni \d.*\n.*1\.1\.0.*\n$/) as unknown,
    ]);
    expect(said('--helf')).toEqual([2, expect.stringMatching(/unknown option/) as unknown]);
  });

  it('ADD begins anew where another namespace has the path of one that went without DEL', () =>
    withSandbox(async (sandbox) => {
      const name = sandbox.netns.replace(/^.*\//, '');
      for (const id of [`${sandbox.id}-a`, `${sandbox.id}-b`, `${sandbox.id}-b`]) {
        const answer = await bed.call('ADD', conf(), { ...sandbox, id });
        expect(answer, JSON.stringify(answer)).toMatchObject({ status: 0 });
        expect(bed.inside(sandbox.netns, 'ip -4 -o address show dev eth0')).toContain(addressOf(answer.json));
        execFileSync('sh', ['-c', `ip netns del ${name} && ip netns add ${name}`]);
      }
      expect(await bed.call('DEL', conf(), { ...sandbox, id: `${sandbox.id}-a` })).toMatchObject({
        status: 0,
      });
      expect(await bed.call('DEL', conf(), { ...sandbox, id: `${sandbox.id}-b` })).toMatchObject({
        status: 0,
      });
      expect(await leases()).not.toContain(sandbox.id);
    }));

  it('CHECK finds that the end on the host is down', () =>
    added(conf(), async (prevResult, sandbox) => {
      const device = typed(prevResult).interfaces[0]?.name ?? '';
      inside(bed.world.host, `ip link set ${device} down`);
      failure(await bed.call('CHECK', conf({ prevResult }), sandbox), 103, /no carrier/);
      inside(bed.world.host, `ip link set ${device} up`);
      expect(await bed.call('CHECK', conf({ prevResult }), sandbox)).toMatchObject({ status: 0 });
    }));

  it('CNI_ARGS has namespaces and labels that there can be', () =>
    withSandbox(async (sandbox) => {
      const call = (args: string) => {
        const environment = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: sandbox.id, CNI_IFNAME: 'eth0' };
        const more = { CNI_NETNS: sandbox.netns, CNI_PATH: bed.binDir, CNI_ARGS: args };
        return runPlugin(bed.plugin, { ...environment, ...more }, JSON.stringify(conf()));
      };
      for (const args of ['K8S_POD_NAMESPACE=a/b', 'K8S_POD_NAMESPACE=../x', 'K8S_POD_NAMESPACE=a b'])
        failure(await call(`${args};K8S_POD_NAME=p`), 4, /K8S_POD_NAMESPACE/);
      for (const args of ['SLUICE_LABELS=app=a b', 'SLUICE_LABELS=a/b/c=d'])
        failure(await call(args), 4, /SLUICE_LABELS/);
      expect(await leases()).not.toContain(sandbox.id);
    }));

  it('gives the default routes that are listed, and no others', () =>
    withSandbox(async (sandbox) => {
      const ranges = [[{ subnet: '10.149.0.0/24' }], [{ subnet: 'fd49::/64' }]];
      const routesOf = async (...dst: readonly string[]): Promise<readonly string[]> => {
        const duo = bed.conf('duo', '', { ipam: { ranges, routes: dst.map((to) => ({ dst: to })) } });
        const { json, stdout } = await bed.call('ADD', duo, sandbox);
        expect((await bed.call('CHECK', { ...duo, prevResult: json }, sandbox)).stdout, stdout).toBe('');
        await bed.call('DEL', duo, sandbox);
        return (json.routes as { readonly dst: string }[]).map((route) => route.dst);
      };
      expect(await routesOf()).toEqual(['0.0.0.0/0', '::/0']);
      expect(await routesOf('::/0', '0.0.0.0/0')).toEqual(['0.0.0.0/0', '::/0']);
      expect(await routesOf('::/0')).toEqual(['10.149.0.0/24', 'fd49::/64', '::/0']);
      expect(await routesOf('192.0.2.0/24')).not.toContain('0.0.0.0/0');
    }));

  it('names the gateway as name server unless the configuration names one', async () => {
    const nameservers = ['10.141.0.1'];
    const search = ['a.test'];
    for (const [more, dns] of [
      [{ dns: {} }, { nameservers }],
      [{ dns: { search } }, { nameservers, search }],
      [{ runtimeConfig: { dns: { servers: [], searches: search } } }, { nameservers, search }],
      [{ dns: { nameservers: ['192.0.2.1'], search } }, { nameservers: ['192.0.2.1'], search }],
    ] as const)
      await added(conf(more), async (result) => expect(result.dns).toEqual(dns));
  });

  it('takes the DNS part of the result from a file, and refuses routes that it cannot make', async () => {
    const file = join(bed.binDir, 'resolv.conf');
    const lines = [
      '# x',
      'nameserver 192.0.2.53',
      'domain d.test',
      'search a.test b.test',
      'options ndots:3',
    ];
    writeFileSync(file, `${lines.join('\n')}\n`);
    const ranges = [[{ subnet: SUBNET }]];
    const withIpam = (more: Json): Json => conf({ ipam: { type: 'host-local', ranges, ...more } });
    await added(withIpam({ resolvConf: file }), async (result) =>
      expect(result.dns).toEqual({
        nameservers: ['192.0.2.53'],
        domain: 'd.test',
        search: ['a.test', 'b.test'],
        options: ['ndots:3'],
      }),
    );
    await withSandbox(async (sandbox) => {
      const route = (more: Json) => withIpam({ routes: [{ dst: '10.9.0.0/16', ...more }] });
      failure(
        await bed.call('ADD', withIpam({ resolvConf: '/none' }), sandbox),
        7,
        /resolvConf.*\/none.*ENOENT/,
      );
      failure(await bed.call('ADD', route({ table: 100 }), sandbox), 2, /ipam\.routes\[0\]\.table: 100/);
      failure(await bed.call('ADD', route({ mtu: 1300 }), sandbox), 2, /ipam\.routes\[0\]\.mtu: 1300/);
    });
    await added(withIpam({ routes: [{ dst: '10.9.0.0/16', table: 254, mtu: 0 }] }), async (result) =>
      expect(typed(result).routes).toContainEqual({ dst: '10.9.0.0/16', gw: '10.141.0.1' }),
    );
  });

  it('refuses a range that ends before it begins, and results that are none', () =>
    withSandbox(async (sandbox) => {
      const range = { subnet: SUBNET, rangeStart: '10.141.0.9', rangeEnd: '10.141.0.8' };
      for (const [more, what] of [
        [{ ipam: { ranges: [[range]] } }, 'ipam.ranges[0][0].rangeEnd'],
        [{ prevResult: { interfaces: 'x' } }, 'prevResult.interfaces'],
        [{ prevResult: { ips: [7] } }, 'prevResult.ips[0]'],
      ] as const) {
        const { json } = await bed.call('ADD', bed.conf('podnet', SUBNET, more), sandbox);
        expect(json).toMatchObject({ code: 7, msg: expect.stringContaining(what) as unknown });
      }
    }));

  it('leaves no lease, no device and no network', async () => {
    expect(await leases()).toBe('[]');
    expect(inside(bed.world.host, 'ip -br link').match(/^sl[0-9a-f]{8}/gm)).toBeNull();
    for (const deadline = Date.now() + 10_000; (await bed.world.agent.list('networks')) !== '[]'; ) {
      expect(Date.now()).toBeLessThan(deadline);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(inside(bed.world.host, 'ip -4 -o address show dev lo')).not.toContain('10.14');
  });

  it.skipIf(!existsSync(REQUIREMENTS))('every requirement has its test', () => {
    const { requirements } = JSON.parse(readFileSync(REQUIREMENTS, 'utf8')) as {
      requirements: readonly { id: string }[];
    };
    expect(requirements.map(({ id }) => id).filter((id) => !tested.has(id))).toEqual([]);
  });
});
