import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import type { NamespaceResource } from '../../policy/model/resources.js';
import { AppliedStore } from './store.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-store-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function namespace(name: string, tier = 'x'): NamespaceResource {
  const source = { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels: { tier } } };
  return { kind: 'Namespace', name, labels: { tier }, origin: { file: '-', line: 1 }, source };
}

function content(): unknown[] {
  return AppliedStore.open(dir).sources.map((source) => parse(source.text) as unknown);
}

describe('AppliedStore', () => {
  it('reads back what was saved, one file an object', () => {
    const { store, sources } = AppliedStore.open(dir);
    expect(sources).toEqual([]);
    store.save({ set: [namespace('a'), namespace('b')], remove: [] });
    store.save({ set: [namespace('a', 'y')], remove: [] });
    expect(content()).toEqual([namespace('a', 'y').source, namespace('b').source]);
    store.save({ set: [namespace('c')], remove: [namespace('a'), namespace('b')] });
    expect(content()).toEqual([namespace('c').source]);
    expect(readdirSync(join(dir, 'applied'))).toEqual(['namespace..c.yaml']);
  });

  it('finishes a change that was cut off after its intention was written', () => {
    AppliedStore.open(dir).store.save({ set: [namespace('a'), namespace('b')], remove: [] });
    const pending = { write: [['namespace..c.yaml', 'name: c\n']], remove: ['namespace..a.yaml'] };
    writeFileSync(join(dir, 'applied', '.pending'), JSON.stringify(pending));
    expect(content()).toEqual([namespace('b').source, { name: 'c' }]);
    expect(readdirSync(join(dir, 'applied'))).toEqual(['namespace..b.yaml', 'namespace..c.yaml']);
  });

  it('ignores a torn intention and leftover temporary files', () => {
    AppliedStore.open(dir).store.save({ set: [namespace('a')], remove: [] });
    writeFileSync(join(dir, 'applied', '.pending.tmp'), '{"write":[["namespace..c');
    writeFileSync(join(dir, 'applied', 'namespace..b.yaml.tmp'), 'apiVer');
    expect(content()).toEqual([namespace('a').source]);
  });

  it('keeps names apart that are too long for a file name', () => {
    const long = 'n'.repeat(240);
    AppliedStore.open(dir).store.save({ set: [namespace(`${long}a`), namespace(`${long}b`)], remove: [] });
    expect(content()).toHaveLength(2);
  });
});
