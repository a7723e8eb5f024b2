import { expect, it } from 'vitest';
import { SluiceError } from '../../policy/errors.js';
import { createLogger } from '../log.js';
import type { Operation } from './client.js';
import { Publisher } from './publisher.js';

const away = SluiceError.of('SLU6101', { endpoint: 'http://192.0.2.1:2379', reason: 'away' });

/** A store that can be away, and whose leases can be ended. */
class Store {
  readonly values = new Map<string, { readonly value: string; readonly lease: string | undefined }>();
  away = false;
  /** Does what it is asked for, and says nothing. */
  silent = false;
  lease = 0;

  grant(): Promise<string> {
    return this.away ? Promise.reject(away) : Promise.resolve(String(++this.lease));
  }

  keepAlive(lease: string): Promise<boolean> {
    return this.away ? Promise.reject(away) : Promise.resolve(lease === String(this.lease));
  }

  write(operations: readonly Operation[]): Promise<bigint> {
    if (this.away) return Promise.reject(away);
    for (const operation of operations) {
      if ('put' in operation)
        this.values.set(operation.put.key, { value: operation.put.value, lease: operation.lease });
      else this.values.delete(operation.remove);
    }
    if (this.silent) return Promise.reject(away);
    return Promise.resolve(1n);
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 10_000; !condition(); ) {
    if (Date.now() > deadline) throw new Error('it did not happen');
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

it('writes what is wanted under a lease, removes what an earlier agent left, and catches up after an outage', async () => {
  const store = new Store();
  store.values.set('old', { value: '1', lease: '0' });
  const publisher = new Publisher({
    client: store,
    log: createLogger('error'),
    leaseSeconds: 0.3,
    present: () => store.values.keys(),
    refresh: () => undefined,
    onFailure: () => undefined,
  });
  publisher.set('a', '1');
  publisher.start();
  await until(() => store.values.has('a') && !store.values.has('old'));
  publisher.set('b', '1');
  publisher.set('a', undefined);
  await until(() => store.values.has('b') && !store.values.has('a'));

  store.away = true;
  publisher.set('c', '1');
  publisher.set('b', '2');
  await new Promise((resolve) => setTimeout(resolve, 20));
  store.values.clear();
  store.lease += 1; // the old one ended meanwhile
  store.away = false;
  await until(() => store.values.size === 2);
  expect([...store.values].sort()).toEqual([
    ['b', { value: '2', lease: '3' }],
    ['c', { value: '1', lease: '3' }],
  ]);
  expect(publisher.problem).toBeUndefined();

  // Written without an answer, and not wanted any more when the store speaks again.
  store.silent = true;
  publisher.set('d', '1');
  await until(() => store.values.has('d'));
  publisher.set('d', undefined);
  store.silent = false;
  await until(() => !store.values.has('d'));
  expect([...store.values.keys()].sort()).toEqual(['b', 'c']);
  await publisher.close();
});
