import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect, it } from 'vitest';
import { Journal } from '../ipam/journal.js';
import { ObjectSet } from '../state/objects.js';
import { RuntimeObjects } from './objects.js';
import { runtimeContainer, runtimeNetwork } from './resources.js';
import { RuntimeStore } from './store.js';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

it('makes a container again when the device that it had is gone, and others at once', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-runtime-'));
  const store = new RuntimeStore(Journal.open(join(folder, 'journal')));
  const steps: string[] = [];
  let gone = (): void => undefined;
  const runtime = new RuntimeObjects({
    store,
    objects: new ObjectSet(),
    attachments: { get: () => undefined },
    leases: { get: () => undefined, isLeased: () => false, pools: new Map() },
    log: pino({ enabled: false }),
    exclusive: (work) => work(),
    bringIntoForce: ({ edits }) => {
      for (const { key, after } of edits) steps.push(`${after === undefined ? 'remove' : 'set'} ${key}`);
      const removed = edits.some(({ after }) => after === undefined)
        ? new Promise<void>((resolve) => {
            gone = resolve;
          })
        : Promise.resolve();
      return Promise.resolve(() => removed);
    },
    checkNetworks: () => undefined,
    onApplied: () => undefined,
  });
  const container = (name: string) =>
    runtimeContainer({
      from: 'cni',
      namespace: 'default',
      name,
      labels: {},
      netns: { type: 'path', path: `/run/netns/${name}` },
      networks: [{ network: 'net', device: 'eth0' }],
    });
  try {
    const ipv4 = { cidr: '10.1.0.0/24', gateway: '10.1.0.1' };
    await runtime.change({
      set: [runtimeNetwork({ from: 'cni', name: 'net', mode: 'routed', masquerade: false, ipv4 })],
    });
    await runtime.change({ set: [container('a')] });
    const removing = runtime.change({ remove: ['Container default/a'] });
    await turn();
    await runtime.change({ set: [container('b')] });
    const again = runtime.change({ set: [container('a')] });
    await turn();
    expect(steps.slice(1)).toEqual([
      'set Container default/a',
      'remove Container default/a',
      'set Container default/b',
    ]);
    gone();
    await Promise.all([removing, again]);
    expect(steps.at(-1)).toBe('set Container default/a');
    expect(steps).toHaveLength(5);
  } finally {
    runtime.close();
    rmSync(folder, { recursive: true });
  }
});
