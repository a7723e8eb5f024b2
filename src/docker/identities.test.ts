import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Journal } from '../ipam/journal.js';
import { DockerApi } from './api.js';
import { Identities } from './identities.js';
import { DockerState } from './state.js';

const NETWORK = { id: 'aa11', network: 'docker-aa11', owned: true, namespace: 'default' };
const ENDPOINT = 'ee22';

/** Answers as Docker's API does. */
let members: Record<string, { Name: string; EndpointID: string }>;
let labels: Record<string, string>;
/** More of what the list of containers says. */
let listed: object;
let asked: string[];
let server: Server;
let folder: string;
let api: DockerApi;
let state: DockerState;
let identities: Identities;

const questions = (path: string): number => asked.filter((url) => url.startsWith(path)).length;

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-identities-'));
  members = {};
  labels = { app: 'web' };
  asked = [];
  listed = {};
  server = createServer(({ url = '' }, response) => {
    const answer = url.startsWith('/networks/')
      ? { Id: NETWORK.id, Name: 'one', Driver: 'sluice', Containers: members }
      : url.startsWith('/containers/json')
        ? [{ Id: 'cc33', Names: ['/web'], Labels: labels, ...listed }]
        : { DockerRootDir: '/var/lib/docker', ServerVersion: '20.10.24' };
    asked.push(url);
    response.end(JSON.stringify(answer));
  });
  const socket = join(folder, 'docker.sock');
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  api = new DockerApi(socket);
  state = new DockerState(Journal.open(join(folder, 'journal')));
  identities = new Identities({ api, state, log: pino({ level: 'silent' }) });
});
afterEach(async () => {
  api.close();
  state.close();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

describe('whose an endpoint is', () => {
  it('is asked before the endpoint is joined, and then no more', async () => {
    members = { [`ep-${ENDPOINT}`]: { Name: 'web', EndpointID: ENDPOINT } };
    identities.expect(NETWORK, ENDPOINT, {});
    await until(() => questions('/containers/json') === 1);
    const container = { id: 'cc33', name: 'web', labels, networks: [] };
    const identity = { name: 'web', namespace: 'default', labels, container };
    expect(await identities.of(NETWORK, ENDPOINT)).toEqual(identity);
    expect(questions('/networks/')).toBe(1);
    expect(questions('/containers/json')).toBe(1);
  });

  it('is asked again when Docker did not know it so early', async () => {
    identities.expect(NETWORK, ENDPOINT, {});
    await until(() => questions('/networks/') === 1);
    members = { cc33: { Name: 'web', EndpointID: ENDPOINT } };
    expect((await identities.of(NETWORK, ENDPOINT)).name).toBe('web');
  });

  it('is asked anew for each time that it is joined: a container can be renamed in between', async () => {
    members = { cc33: { Name: 'web', EndpointID: ENDPOINT } };
    identities.expect(NETWORK, ENDPOINT, {});
    await identities.of(NETWORK, ENDPOINT);
    labels = { app: 'other' };
    expect((await identities.of(NETWORK, ENDPOINT)).labels).toEqual(labels);
  });

  it('has one namespace, whichever of its networks Docker connects first', async () => {
    const shop = { ...NETWORK, id: 'bb11', network: 'docker-bb11', namespace: 'shop' };
    state.put('network', NETWORK.id, NETWORK);
    state.put('network', shop.id, shop);
    members = { cc33: { Name: 'web', EndpointID: ENDPOINT } };
    const Networks = { back: { NetworkID: NETWORK.id }, front: { NetworkID: shop.id } };
    const namespaces = async (NetworkMode: string): Promise<readonly string[]> => {
      listed = { HostConfig: { NetworkMode }, NetworkSettings: { Networks } };
      const first = await identities.of(NETWORK, ENDPOINT);
      return [first.namespace, (await identities.of(shop, ENDPOINT)).namespace];
    };
    expect(await namespaces('front')).toEqual(['shop', 'shop']); // the one that it was made with
    expect(await namespaces('aa11')).toEqual(['default', 'default']);
    expect(await namespaces('default')).toEqual(['default', 'default']); // the first by name
  });

  it('is what the endpoint brought with it where Docker can not be asked', async () => {
    await new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
    const options = { 'sluice.labels': 'app=web; sluice.dev/namespace=shop' };
    identities.expect(NETWORK, ENDPOINT, options);
    expect(await identities.of(NETWORK, ENDPOINT)).toEqual({
      name: `docker-${ENDPOINT}`,
      namespace: 'shop',
      labels: { app: 'web', 'sluice.dev/namespace': 'shop' },
    });
    identities.forget(ENDPOINT);
    await expect(identities.of(NETWORK, ENDPOINT)).rejects.toThrow(/docker\.sock/);
  });
});
