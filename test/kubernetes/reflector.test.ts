import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Backoff } from '../../src/kubernetes/backoff.js';
import type { Collection } from '../../src/kubernetes/reflector.js';
import { ApiServer } from './api-server.js';
import { Copy, until } from './support.js';

const PODS: Collection = { name: 'pods', path: '/api/v1/pods' };

let server: ApiServer;
let copy: Copy | undefined;

beforeEach(async () => {
  server = new ApiServer({ bookmarkMs: 50 });
  await server.listen();
});

afterEach(async () => {
  delete server.faults.slow;
  await copy?.close();
  copy = undefined;
  await server.close();
});

function put(name: string, v = '1'): void {
  server.put('Pod', { metadata: { name, namespace: 'default', labels: { v } } });
}

/** What the server has, in the form of a copy. */
function truth(): Map<string, string> {
  return new Map(
    server
      .list('Pod')
      .map(({ metadata }) => [`${metadata.namespace}/${metadata.name}`, metadata.labels?.v ?? '']),
  );
}

async function agrees(what: string): Promise<void> {
  const text = (map: ReadonlyMap<string, string>): string => JSON.stringify([...map].sort());
  await until(what, () => text(copy?.objects ?? new Map()) === text(truth()));
}

function begin(options: ConstructorParameters<typeof Copy>[2] = {}): Copy {
  copy = new Copy(server, PODS, { pageSize: 7, ...options });
  return copy;
}

/** Random-looking changes, the same in every run. */
function churn(rounds: number): void {
  for (let i = 0; i < rounds; i++) {
    const name = `p${(i * 7919) % 31}`;
    if (i % 5 === 4 && server.get('Pod', `default/${name}`) !== undefined)
      server.remove('Pod', `default/${name}`);
    else put(name, String(i));
  }
}

describe('a reflector', () => {
  it('lists in pages and follows the watch', async () => {
    churn(60);
    const { reflector } = begin();
    await until('synced', () => reflector.status.synced);
    await agrees('the list');
    churn(100);
    await agrees('the watch');
    expect(reflector.status).toMatchObject({ lists: 1, errors: 0, state: 'watching' });
    const pages = server.audit.filter(({ verb }) => verb === 'list').length;
    expect(pages).toBeGreaterThan(1);
  });

  it('is not synced before the list is complete, even if pages fail', async () => {
    churn(60);
    server.faults.refuse = { match: 'continue=', code: 500, count: 3 };
    const { reflector } = begin();
    await until('errors', () => reflector.status.errors >= 2);
    expect(reflector.status.synced).toBe(false);
    await until('synced', () => reflector.status.synced);
    await agrees('the list');
  });

  it('goes on from where it was when watches are cut, without listing again', async () => {
    churn(20);
    const { reflector } = begin();
    await until('a watch', () => server.watches === 1);
    for (let i = 0; i < 10; i++) {
      churn(7);
      server.cut();
      churn(5);
      await until('another watch', () => reflector.status.watches > i + 1 && server.watches === 1);
    }
    await agrees('all of it');
    expect(copy?.lists).toBe(1);
  });

  it('lists again when its version is too old, and forgets what went meanwhile', async () => {
    churn(40);
    const { reflector } = begin();
    await until('a watch', () => server.watches === 1);
    await server.goAway();
    server.remove('Pod', server.list('Pod').map(({ metadata }) => `default/${metadata.name}`)[0] ?? '');
    churn(30);
    server.store.compact();
    await server.listen();
    await until('another list', () => reflector.status.lists === 2 && reflector.status.state === 'watching');
    await agrees('all of it');
  });

  it('keeps up with its version by bookmarks, so a quiet kind survives compaction', async () => {
    put('a');
    const { reflector } = begin();
    await until('a watch', () => server.watches === 1);
    for (let i = 0; i < 5; i++) server.put('Node', { metadata: { name: `n${i}` } });
    server.store.compact();
    const heard = reflector.status.heardAt;
    await until('a bookmark', () => reflector.status.heardAt > heard + 60);
    server.cut();
    await until('another watch', () => reflector.status.watches === 2 && server.watches === 1);
    put('b');
    await agrees('the watch');
    expect(reflector.status.lists).toBe(1);
  });

  it('without bookmarks lists again instead', async () => {
    server.faults.bookmarks = false;
    put('a');
    const { reflector } = begin();
    await until('a watch', () => server.watches === 1);
    server.put('Node', { metadata: { name: 'n' } });
    server.store.compact();
    server.cut();
    await until('another list', () => reflector.status.lists === 2);
    put('b');
    await agrees('the watch');
  });

  it('waits as long as a busy server asks for', async () => {
    server.faults.refuse = { match: 'pods', code: 429, count: 1, retryAfter: 1 };
    const began = performance.now();
    const { reflector } = begin();
    await until('synced', () => reflector.status.synced);
    expect(performance.now() - began).toBeGreaterThanOrEqual(990);
  });

  it('comes back as soon as another one finds that the server is back', async () => {
    churn(10);
    const { reflector, client } = begin({ backoff: new Backoff(600_000, 600_000) });
    const nodes = { name: 'nodes', path: '/api/v1/nodes' };
    const other = new Copy(server, nodes, { client });
    try {
      await until('two watches', () => server.watches === 2);
      await server.goAway();
      churn(5);
      await until('both know', () => [reflector, other.reflector].every(({ status }) => status.errors > 0));
      await server.listen();
      await until('two watches again', () => server.watches === 2);
      await agrees('all of it');
    } finally {
      await other.close();
    }
  });

  it('asks for the whole list when continuations expire again and again', async () => {
    churn(60);
    server.faults.expirePages = 1000;
    const { reflector } = begin();
    await until('synced', () => reflector.status.synced);
    await agrees('the list');
    expect(reflector.status.lists).toBe(4);
  });

  it('notices that a connection is silent', async () => {
    put('a');
    const { reflector } = begin({ stallMs: 150 });
    await until('a watch', () => server.watches === 1);
    server.faults.stalled = true;
    put('b');
    await until('the silence', () => reflector.status.errors > 0);
    server.faults.stalled = false;
    await agrees('what was not said');
    expect(reflector.status.problem ?? '').not.toContain('undefined');
  });

  it('takes a slow stream, in whatever pieces it comes', async () => {
    churn(30);
    server.faults.slow = { bytes: 97, ms: 0 };
    const { reflector } = begin();
    await until('synced', () => reflector.status.synced);
    await agrees('the list');
  });

  it('takes no half list for a whole one, and no rubbish for an event', async () => {
    churn(30);
    server.faults.truncate = 2;
    server.faults.garbage = 1;
    const { reflector } = begin();
    await until('synced', () => reflector.status.synced);
    await agrees('the list');
    put('after', 'x');
    await until('the rubbish', () => server.faults.garbage === 0 && reflector.status.errors >= 2);
    await agrees('all of it');
  });

  it('finds no objects of a kind that the cluster does not have', async () => {
    copy = new Copy(server, { name: 'none', path: '/apis/none.example/v1/nones', optional: true });
    const { reflector } = copy;
    await until('synced', () => reflector.status.synced);
    expect(reflector.status).toMatchObject({ state: 'absent', objects: 0, errors: 0 });
  });

  it('follows a field selector: what no longer matches is gone', async () => {
    const collection = { ...PODS, query: { fieldSelector: 'spec.nodeName=n1,status.phase!=Failed' } };
    const at = (name: string, nodeName: string, phase: string): void =>
      void server.put('Pod', {
        metadata: { name, namespace: 'default' },
        spec: { nodeName },
        status: { phase },
      });
    at('a', 'n1', 'Running');
    at('b', 'n2', 'Running');
    copy = new Copy(server, collection);
    await until('a', () => copy?.objects.size === 1 && server.watches === 1);
    at('c', 'n1', 'Running');
    await until('c', () => copy?.objects.has('default/c') === true);
    at('c', 'n1', 'Failed');
    await until('c is gone', () => copy?.objects.has('default/c') === false);
    expect([...copy.objects.keys()]).toEqual(['default/a']);
  });

  it('survives everything at once', async () => {
    churn(50);
    const { reflector } = begin({ stallMs: 400 });
    for (let i = 0; i < 30; i++) {
      churn(11);
      if (i % 3 === 0) server.cut();
      if (i % 4 === 1) server.faults.refuse = { match: 'pods', code: i % 8 === 1 ? 500 : 503, count: 2 };
      if (i % 5 === 2) server.store.compact();
      if (i % 7 === 3) server.faults.truncate = 1;
      if (i % 7 === 5) server.faults.garbage = 1;
      if (i % 10 === 9) {
        await server.goAway();
        churn(3);
        await server.listen();
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    churn(10);
    await until('watching', () => reflector.status.state === 'watching');
    await agrees('all of it');
  });
});
