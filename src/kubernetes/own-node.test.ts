import { expect, it } from 'vitest';
import { ANNOTATIONS } from '../../policy/model/annotations.js';
import { createLogger } from '../log.js';
import type { ApiClient } from './client.js';
import type { ApiObject } from './objects.js';
import { NetworkCondition } from './own-node.js';

const UP = { type: 'NetworkUnavailable', status: 'False', reason: 'SluiceIsUp' };

/** What is asked of the API until the node is as it should be; it answers with `answer`. */
async function requests(
  publicKey: string | undefined,
  present: ApiObject,
  answer: ApiObject,
): Promise<unknown[]> {
  const bodies: unknown[] = [];
  const client = {
    json: (request: { readonly body?: unknown }) => {
      bodies.push(request.body);
      return Promise.resolve(answer);
    },
  } as unknown as Pick<ApiClient, 'json'>;
  const own = new NetworkCondition({ client, log: createLogger('error'), node: 'node0' });
  own.publicKey = publicKey;
  own.observe(present);
  own.up();
  for (let turn = 0; turn < 1000 && !own.isSet; turn++)
    await new Promise((resolve) => setTimeout(resolve, 1));
  await own.close();
  return bodies;
}

const node = (key?: string): ApiObject => ({
  metadata: key === undefined ? {} : { annotations: { [ANNOTATIONS.publicKey]: key } },
  status: { conditions: [UP] },
});

it('tells the key that others encrypt with, in an annotation, until the node has it', async () => {
  const bodies = await requests('new', node('old'), node('new'));
  expect(bodies).toMatchObject([
    { metadata: { annotations: { [ANNOTATIONS.publicKey]: 'new' } }, status: { conditions: [UP] } },
  ]);
  expect(await requests('new', node('new'), node('new'))).toEqual([]);
});

it('takes away the key of an earlier agent that encrypted, and says nothing of keys otherwise', async () => {
  expect(await requests(undefined, node('old'), node())).toMatchObject([
    { metadata: { annotations: { [ANNOTATIONS.publicKey]: null } } },
  ]);
  const [body] = await requests(undefined, {}, node());
  expect(body).not.toHaveProperty('metadata');
});
