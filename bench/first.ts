/**
 * Ready means ready: containers are started one after another, each sends from its first instruction to a peer that it
 * may reach and to two that it may not; how many are judged wrong. Not a measurement of speed: the figure must be 0.
 * Three ways of starting them: a container runtime that calls the CNI plugin (a third of those have a process that sends
 * from before the network is there), definitions, and `docker run` (a dockerd of its own).
 *
 * Settings from the environment: BENCH_FIRST_CNI, BENCH_FIRST_PLAIN, BENCH_FIRST_DOCKER (1000 each).
 */
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CniBed } from '../test/cni/bed.js';
import { container, documents } from '../test/e2e/world.js';
import { Dockerd } from '../test/lib/dockerd.js';
import { FIRST_LABEL, FirstPackets, type Verdict } from '../test/lib/first-packets.js';
import { IMAGE } from '../test/lib/image.js';
import { type Measurement, report } from './lib/report.js';

const CNI = Number(process.env.BENCH_FIRST_CNI ?? 1000);
const PLAIN = Number(process.env.BENCH_FIRST_PLAIN ?? 1000);
const DOCKER = Number(process.env.BENCH_FIRST_DOCKER ?? 1000);
const SECOND = 57;

type Start = (number: number) => Promise<void>;

function byCni(bed: CniBed, first: FirstPackets): Start {
  const conf = bed.conf('first', '', { network: 'first', ipam: {}, labels: FIRST_LABEL });
  return async (number) => {
    const netns = bed.namespace();
    const ended = number % 3 === 0 ? await first.early(number, netns) : undefined;
    const sandbox = { id: `first-${number}`, netns };
    const added = await bed.call('ADD', conf, sandbox);
    if (added.status !== 0) throw new Error(`ADD: ${added.stdout}`);
    await first.sendFrom(number, netns);
    if (ended !== undefined && !((await ended()) > 0)) throw new Error('nothing was sent early');
    const deleted = await bed.call('DEL', conf, sandbox);
    if (deleted.status !== 0) throw new Error(`DEL: ${deleted.stdout}`);
    bed.giveBack(netns);
  };
}

function byDefinition(bed: CniBed, first: FirstPackets): Start {
  return async (number) => {
    const path = bed.namespace();
    const netns = path.replace(/^.*\//, '');
    const spec = { name: `c${number}`, netns, networks: ['first'], labels: FIRST_LABEL };
    await bed.world.agent.apply(documents(container(spec)));
    await first.sendFrom(number, path);
    await bed.world.agent.delete(documents(container(spec)));
    bed.giveBack(path);
  };
}

function byDocker(docker: Dockerd, first: FirstPackets): Start {
  const label = Object.entries(FIRST_LABEL).map(([key, value]) => `${key}=${value}`);
  const options = ['--network', 'first', '-v', `${first.program}:/first`];
  return async (number) => {
    const command = ['run', '--rm', '-l', ...label, ...options, IMAGE, '/first', ...first.send(number)];
    const { stdout, stderr } = docker.try(...command);
    if (stdout === '') throw new Error(stderr);
    // What the peers have written is read now: one whose output is full answers nobody.
    await new Promise((resolve) => setImmediate(resolve));
    first.note(number, stdout);
  };
}

/** Peers, then the containers, then the peers' end. */
async function look(first: FirstPackets, from: number, count: number, start: Start): Promise<Verdict> {
  await first.start();
  for (let number = from; number < from + count; number++) await start(number);
  return first.verdict();
}

async function main(bed: CniBed, driver: string): Promise<void> {
  const { scratch, agent, host } = bed.world;
  const first = new FirstPackets(scratch, SECOND);
  const socket = join(tmpdir(), `${driver}.sock`);
  const docker = new Dockerd(scratch, host, socket);
  await bed.start('10.155.0.0/24');
  await agent.apply(first.definitions);
  const rows: Measurement[] = [];
  const details: Record<string, Verdict> = {};
  const row = async (name: string, from: number, count: number, start: Start): Promise<void> => {
    if (count === 0) return;
    const verdict = await look(first, from, count, start);
    details[name] = verdict;
    for (const [what, wrong] of [
      ['that lost a packet', verdict.lost],
      ['that got through where they must not', verdict.passed],
    ] as const) {
      rows.push({
        name: `${count} ${name}, ${what}`,
        unit: '',
        ours: wrong.length,
        peers: { limit: 1 },
        better: 'lower',
        target: { op: '<', value: 1 },
      });
    }
  };
  await row('containers by CNI', 0, CNI, byCni(bed, first));
  await row('containers by definition', CNI, PLAIN, byDefinition(bed, first));
  if (DOCKER > 0) {
    await docker.start('--ip-forward=false', '--iptables=false', '--ip6tables=false', '--bridge=none');
    docker.makeImage();
    docker.docker('network', 'create', ...first.dockerNetwork(driver));
    await row('containers of Docker', CNI + PLAIN, DOCKER, byDocker(docker, first));
  }
  report('first', rows, details);
}

const driver = `sluice-${randomBytes(4).toString('hex')}`;
const bed = new CniBed('slbfst', {
  dockerPlugin: `/run/docker/plugins/${driver}.sock`,
  dockerApi: join(tmpdir(), `${driver}.sock`),
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    bed.close();
    process.exit(130);
  });
}
try {
  await main(bed, driver);
} catch (error) {
  console.error(`bench/first: ${(error as Error).message}`);
  process.exitCode = 1;
} finally {
  try {
    bed.close();
  } catch (error) {
    console.error(`bench/first: ${(error as Error).message}`);
  }
}
