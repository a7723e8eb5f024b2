/** The client of etcd and the copy of its keys, on a store of its own at 127.0.0.1. */
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EtcdStore, haveEtcd } from '../../bench/lib/etcd.js';
import { Scratch } from '../../bench/lib/netns.js';
import { ETCD_DEFAULTS } from '../../src/config.js';
import { Compacted, EtcdClient } from '../../src/etcd/client.js';
import { Mirror } from '../../src/etcd/mirror.js';
import { createLogger } from '../../src/log.js';

/** A port that nobody has now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function until(what: string, condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 20_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error(`it did not happen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe.skipIf(!haveEtcd)('an etcd (skipped without etcd-server)', () => {
  const scratch = new Scratch('slnes');
  const folder = scratch.folder(mkdtempSync(join(tmpdir(), 'slnes-')));
  let store: EtcdStore;
  let url: string;
  let client: EtcdClient;

  /** Everything up to the store's present revision is forgotten. */
  async function compact(): Promise<bigint> {
    const { revision } = await client.list('/none/');
    const body = JSON.stringify({ revision: String(revision), physical: true });
    const answer = await fetch(`${url}/v3/kv/compaction`, { method: 'POST', body });
    expect(answer.status).toBe(200);
    return revision;
  }

  beforeAll(async () => {
    const ports = [await freePort(), await freePort()] as const;
    store = new EtcdStore(scratch, { folder, address: '127.0.0.1', ports });
    url = store.url;
    client = new EtcdClient({ ...ETCD_DEFAULTS, endpoints: [url] });
    await store.start();
  });

  afterAll(() => {
    client.close();
    expect(scratch.close()).toEqual([]);
  });

  it('lists in pages, gives a key to the first that claims it, and ends what a lease holds', async () => {
    const keys = Array.from({ length: 1100 }, (_, i) => `/many/${String(i).padStart(4, '0')}`);
    for (let i = 0; i < keys.length; i += 100)
      await client.write(keys.slice(i, i + 100).map((key) => ({ put: { key, value: key.slice(6) } })));
    const { values } = await client.list('/many/');
    expect(values).toEqual(keys.map((key) => ({ key, value: key.slice(6) })));

    expect(await client.claim({ key: '/block/1', value: 'a' })).toBe('a');
    expect(await client.claim({ key: '/block/1', value: 'b' })).toBe('a');

    const lease = await client.grant(60);
    await client.write([{ put: { key: '/held', value: 'x' }, lease }]);
    expect(await client.keepAlive(lease)).toBe(true);
    expect(
      (await fetch(`${url}/v3/lease/revoke`, { method: 'POST', body: JSON.stringify({ ID: lease }) })).status,
    ).toBe(200);
    expect(await client.keepAlive(lease)).toBe(false);
    expect((await client.list('/held')).values).toEqual([]);
    await expect(client.write([{ put: { key: '/held', value: 'x' }, lease }])).rejects.toThrow(
      'requested lease not found',
    );
  });

  it('says when what a watch asks for is forgotten', async () => {
    const before = await client.write([{ put: { key: '/old', value: '1' } }]);
    await client.write([{ put: { key: '/old', value: '2' } }]);
    await compact();
    const watched = client.watch('/old', before, () => undefined, new AbortController().signal);
    await expect(watched).rejects.toBeInstanceOf(Compacted);
  });

  it('takes the next member when one does not answer, once for requests that fail together', async () => {
    const both = new EtcdClient({
      ...ETCD_DEFAULTS,
      endpoints: [`http://127.0.0.1:${await freePort()}`, url],
    });
    const lost = await Promise.allSettled([both.list('/x'), both.list('/x'), both.list('/x')]);
    expect(lost.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
    expect(both.endpoint).toBe(url);
    expect((await both.list('/x')).values).toEqual([]);
    both.close();
  });

  it('misses no deletion that is compacted away between its list and its watch', async () => {
    await client.write(['a', 'b'].map((name) => ({ put: { key: `/gap/${name}`, value: '1' } })));
    let last = 0n;
    const mirror = new Mirror({
      client: {
        list: async (prefix, signal) => {
          const listed = await client.list(prefix, signal);
          if (last === 0n) {
            last = await client.write([{ remove: '/gap/b' }, { put: { key: '/gap/c', value: '2' } }]);
            expect(await compact()).toBe(last);
          }
          return listed;
        },
        watch: (...given) => client.watch(...given),
      },
      prefix: '/gap/',
      log: createLogger('error'),
      onChange: () => undefined,
    });
    mirror.start();
    await until('the new key', () => mirror.get('/gap/c') === '2');
    expect([...mirror.under('/gap/')].map(([key]) => key)).toEqual(['/gap/a', '/gap/c']);
    await mirror.close();
  });

  it('follows the store through an outage with a compaction in it, and to a store that has less', async () => {
    const changes: string[] = [];
    const mirror = new Mirror({
      client,
      prefix: '/m/',
      log: createLogger('error'),
      onChange: (keys) => changes.push(...keys),
    });
    await client.write(['a', 'b'].map((name) => ({ put: { key: `/m/${name}`, value: '1' } })));
    mirror.start();
    await mirror.reached(0n);
    await mirror.reached(await client.write([{ put: { key: '/m/a', value: '2' } }]));
    expect([...mirror.under('/m/')]).toEqual([
      ['/m/a', '2'],
      ['/m/b', '1'],
    ]);

    store.stop();
    await until('a problem', () => mirror.problem !== undefined);
    expect(mirror.get('/m/b')).toBe('1');
    changes.length = 0;
    await store.start();
    const last = await client.write([{ remove: '/m/b' }, { put: { key: '/m/c', value: '3' } }]);
    await compact();
    await mirror.reached(last);
    await until('the new keys', () => mirror.get('/m/c') === '3');
    expect([...mirror.under('/m/')].map(([key]) => key).sort()).toEqual(['/m/a', '/m/c']);
    expect([...new Set(changes)].sort()).toEqual(['/m/b', '/m/c']);

    store.stop();
    await store.start('another');
    const first = await client.write([{ put: { key: '/m/new', value: '1' } }]);
    await until('the other store', () => mirror.get('/m/new') === '1' && mirror.get('/m/a') === undefined);
    await mirror.reached(first);
    await mirror.close();
  });
});
