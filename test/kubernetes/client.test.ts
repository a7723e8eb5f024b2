import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ApiClient, ApiError } from '../../src/kubernetes/client.js';
import { inClusterAccess, kubeconfigAccess } from '../../src/kubernetes/credentials.js';
import { ApiServer } from './api-server.js';

let dir: string;
const servers: ApiServer[] = [];
const clients: ApiClient[] = [];

beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-k8s-client-'));
  const openssl = (...args: string[]): unknown =>
    execFileSync('openssl', args, { cwd: dir, stdio: 'ignore' });
  const keys = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...keys, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '2', '-subj', '/CN=ca');
  for (const name of ['server', 'agent']) {
    openssl('req', ...keys, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(join(dir, 'ext'), 'subjectAltName=IP:127.0.0.1,DNS:kubernetes.default.svc\n');
    openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'],
      ...['-out', `${name}.crt`, '-days', '2', '-extfile', 'ext'],
    );
  }
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) await server.close();
});

afterAll(() => rmSync(dir, { recursive: true }));

const file = (name: string): string => readFileSync(join(dir, name), 'utf8');
const base64 = (name: string): string => Buffer.from(file(name)).toString('base64');

async function start(tokens?: Set<string>): Promise<ApiServer> {
  const tls = { key: file('server.key'), cert: file('server.crt'), ca: file('ca.crt') };
  const server = new ApiServer({ tls, ...(tokens === undefined ? {} : { tokens }) });
  await server.listen();
  servers.push(server);
  server.put('Namespace', { metadata: { name: 'shop' } });
  return server;
}

function kubeconfig(server: ApiServer, user: object, cluster: object = {}): string {
  const path = join(dir, 'kubeconfig');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [{ name: 'here', context: { cluster: 'c', user: 'u' } }],
    clusters: [
      {
        name: 'c',
        cluster: { server: server.url, 'certificate-authority-data': base64('ca.crt'), ...cluster },
      },
    ],
    users: [{ name: 'u', user }],
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

async function name(access: ConstructorParameters<typeof ApiClient>[0]): Promise<string> {
  const client = new ApiClient(access);
  clients.push(client);
  const { metadata } = await client.json<{ metadata: { name: string } }>({ path: '/api/v1/namespaces/shop' });
  return metadata.name;
}

describe('credentials', () => {
  it('a client certificate, as files next to the kubeconfig or inside it', async () => {
    const server = await start(new Set());
    const files = { 'client-certificate': 'agent.crt', 'client-key': 'agent.key' };
    expect(await name(kubeconfigAccess(kubeconfig(server, files)))).toBe('shop');
    const inside = { 'client-certificate-data': base64('agent.crt'), 'client-key-data': base64('agent.key') };
    expect(await name(kubeconfigAccess(kubeconfig(server, inside)))).toBe('shop');
    await expect(name(kubeconfigAccess(kubeconfig(server, {})))).rejects.toMatchObject({ status: 401 });
  });

  it('a token, and a token file that is replaced while the agent runs', async () => {
    const tokens = new Set(['first']);
    const server = await start(tokens);
    expect(await name(kubeconfigAccess(kubeconfig(server, { token: 'first' })))).toBe('shop');

    writeFileSync(join(dir, 'token'), 'first\n');
    let now = 0;
    const access = kubeconfigAccess(kubeconfig(server, { tokenFile: 'token' }), () => now);
    expect(await name(access)).toBe('shop');
    tokens.delete('first');
    tokens.add('second');
    writeFileSync(join(dir, 'token'), 'second\n');
    await expect(name(access)).rejects.toBeInstanceOf(ApiError);
    now += 61_000;
    expect(await name(access)).toBe('shop');
    // A token that is gone for a moment (the folder is being replaced) leaves the last one in use.
    rmSync(join(dir, 'token'));
    now += 61_000;
    expect(await name(access)).toBe('shop');
  });

  it('the service account of a pod', async () => {
    const server = await start(new Set(['sa']));
    writeFileSync(join(dir, 'token'), 'sa');
    const environment = {
      KUBERNETES_SERVICE_HOST: '127.0.0.1',
      KUBERNETES_SERVICE_PORT: String(server.port),
    };
    expect(await name(inClusterAccess(environment, dir))).toBe('shop');
    expect(() => inClusterAccess({}, dir)).toThrow('KUBERNETES_SERVICE_HOST');
    expect(() => inClusterAccess(environment, '/nowhere')).toThrow('/nowhere/token');
  });

  it('trusts nobody but the CA', async () => {
    const server = await start();
    const other = { 'certificate-authority-data': undefined };
    await expect(name(kubeconfigAccess(kubeconfig(server, {}, other)))).rejects.toMatchObject({
      code: 'SLU6206',
    });
    const named = { server: `https://localhost:${server.port}` };
    await expect(name(kubeconfigAccess(kubeconfig(server, {}, named)))).rejects.toMatchObject({
      code: 'SLU6206',
    });
    const meant = { ...named, 'tls-server-name': 'kubernetes.default.svc' };
    expect(await name(kubeconfigAccess(kubeconfig(server, {}, meant)))).toBe('shop');
    expect(
      await name(kubeconfigAccess(kubeconfig(server, {}, { ...other, 'insecure-skip-tls-verify': true }))),
    ).toBe('shop');
  });

  it.each<[string, object | string, string]>([
    ['a program', { exec: { command: 'x' } }, 'SLU6203'],
    ['a password', { username: 'x', password: 'y' }, 'SLU6203'],
    ['a certificate without its key', { 'client-certificate': 'agent.crt' }, 'SLU6202'],
    ['no YAML', 'a: [', 'SLU6201'],
    ['no kubeconfig', 'a: 1', 'SLU6202'],
    ['an unknown context', 'current-context: x\ncontexts: []\nclusters: []\nusers: []', 'SLU6202'],
  ])('refuses %s with one clear line', async (_, given, code) => {
    const server = await start();
    const path = kubeconfig(server, typeof given === 'string' ? {} : given);
    if (typeof given === 'string') writeFileSync(path, given);
    let caught: unknown;
    try {
      kubeconfigAccess(path);
    } catch (error) {
      caught = error;
    }
    expect(caught).toMatchObject({ code, file: path });
    expect((caught as { toLine(): string }).toLine()).not.toContain('\n');
  });

  it('says which server cannot be reached', async () => {
    const server = await start();
    await server.goAway();
    await expect(name(kubeconfigAccess(kubeconfig(server, {})))).rejects.toThrow(
      `${server.port} cannot be reached`,
    );
  });
});
