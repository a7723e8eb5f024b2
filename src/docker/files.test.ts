import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { aliasesInFiles, containerInFiles } from './files.js';

let root: string;
const network = 'a'.repeat(64);
const endpoint = 'b'.repeat(64);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sluice-docker-'));
  mkdirSync(join(root, 'network', 'files'), { recursive: true });
});
afterEach(() => rmSync(root, { recursive: true }));

function container(id: string, name: string, labels: Readonly<Record<string, string>> | null): void {
  mkdirSync(join(root, 'containers', id), { recursive: true });
  const Networks = { back: { NetworkID: 'n1' }, front: { NetworkID: 'n2' }, more: { NetworkID: 'n3' } };
  const config = { ID: id, Name: `/${name}`, Config: { Labels: labels }, NetworkSettings: { Networks } };
  writeFileSync(join(root, 'containers', id, 'config.v2.json'), JSON.stringify(config));
  writeFileSync(join(root, 'containers', id, 'hostconfig.json'), JSON.stringify({ NetworkMode: 'front' }));
}

const row = (of: string, name: string, alias: string): string =>
  `docker/network/v1.0/endpoint/${network}/${of}/\x13\0{"ep_iface":{},"id":"${of}","myAliases":["${alias}"],` +
  `"name":"${name}","sandbox":"","svcName":""}`;

function store(...rows: readonly string[]): void {
  writeFileSync(join(root, 'network', 'files', 'local-kv.db'), `\0\x01${rows.join('\0')}\0\xff`, 'latin1');
}

it('finds the container of an endpoint in the files of Docker', async () => {
  const id = 'c'.repeat(64);
  container('d'.repeat(64), 'db', { app: 'db' });
  container(id, 'web', { app: 'web' });
  store(row('e'.repeat(64), 'db', 'x'), row(endpoint, 'web', id.slice(0, 12)));
  const web = { id, name: 'web', labels: { app: 'web' }, networks: ['n2', 'n1', 'n3'] };
  expect(await containerInFiles(root, network, endpoint)).toEqual(web);
  // An old page says the same; an alias that tells nothing; a container that is half removed.
  mkdirSync(join(root, 'containers', '1'.repeat(64)));
  store(row(endpoint, 'web', 'shop'), row(endpoint, 'web', 'shop'));
  expect(await containerInFiles(root, network, endpoint)).toEqual(web);
});

it('does not guess', async () => {
  container('c'.repeat(64), 'web', null);
  store(row('e'.repeat(64), 'web', 'x'));
  expect(await containerInFiles(root, network, endpoint)).toBeUndefined();
  store(row(endpoint, 'web', 'x'), row(endpoint, 'old', 'x'));
  expect(await containerInFiles(root, network, endpoint)).toBeUndefined();
  store(row(endpoint, 'gone', 'x'));
  expect(await containerInFiles(root, network, endpoint)).toBeUndefined();
  await expect(containerInFiles(join(root, 'nowhere'), network, endpoint)).rejects.toThrow();
});

it('finds the aliases of a container in one network', async () => {
  const id = 'c'.repeat(64);
  const write = (networks: object): void =>
    writeFileSync(join(root, 'config.v2.json'), JSON.stringify({ NetworkSettings: { Networks: networks } }));
  expect(await aliasesInFiles(root, id)).toBeUndefined();
  write({ one: { Aliases: ['shop', id.slice(0, 12), 'www'] } });
  expect(await aliasesInFiles(root, id)).toEqual(['shop', 'www']);
  write({ one: { Aliases: null } });
  expect(await aliasesInFiles(root, id)).toEqual([]);
  write({ one: { Aliases: ['shop'] }, two: {} });
  expect(await aliasesInFiles(root, id)).toBeUndefined();
});
