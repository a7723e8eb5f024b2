import { appendFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Journal } from '../ipam/journal.js';
import { keyOf } from '../state/keys.js';
import { runtimeContainer, runtimeNetwork } from './resources.js';
import { RuntimeStore } from './store.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-runtime-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const network = runtimeNetwork({
  from: 'docker',
  name: 'n1',
  mode: 'routed',
  masquerade: true,
  ipv4: { cidr: '10.1.0.0/24', gateway: '10.1.0.1' },
});

function container(name: string, address = '10.1.0.2') {
  return runtimeContainer({
    from: 'docker',
    namespace: 'default',
    name,
    labels: { app: name },
    netns: { type: 'path', path: `/run/netns/${name}` },
    networks: [{ network: 'n1', device: 'eth0', ipv4: address }],
  });
}

function open(): RuntimeStore {
  return new RuntimeStore(Journal.open(join(dir, 'journal')));
}

describe('RuntimeStore', () => {
  it('reads back what was saved, in the order in which it came', () => {
    const store = open();
    store.save({ set: [network, container('a')], remove: [] });
    store.save({ set: [container('b'), container('a', '10.1.0.9')], remove: [] });
    store.save({ set: [], remove: [container('b')] });
    store.close();
    const again = open();
    expect(again.objects()).toEqual([network, container('a', '10.1.0.9')]);
    again.close();
  });

  it('does not grow with containers that come and go', () => {
    const store = open();
    store.save({ set: [network], remove: [] });
    for (let i = 0; i < 3000; i++) {
      store.save({ set: [container('a')], remove: [] });
      store.save({ set: [], remove: [container('a')] });
    }
    store.close();
    const { journal } = Journal.open(join(dir, 'journal'));
    expect(journal.lines).toBeLessThan(2000);
    journal.close();
    const again = open();
    expect(again.objects().map(keyOf)).toEqual(['Network n1']);
    again.close();
  });

  it('loses a torn change as a whole, and says so', () => {
    const store = open();
    store.save({ set: [network], remove: [] });
    store.close();
    appendFileSync(join(dir, 'journal'), '00000000 [{"op":"set","object"');
    const again = open();
    expect([again.damaged, again.objects()]).toEqual([1, [network]]);
    again.close();
    const repaired = open();
    expect(repaired.damaged).toBe(0);
    repaired.close();
  });
});
