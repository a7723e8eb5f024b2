import { describe, expect, it } from 'vitest';
import { labelsOf, podmanLabels } from './podman.js';

const event = (ID: string, Attributes: Record<string, string>): string =>
  JSON.stringify({ status: 'create', Type: 'container', Action: 'create', Actor: { ID, Attributes } });

describe('labelsOf', () => {
  it('takes the labels of the container, without what Podman adds', () => {
    const events = [
      event('other', { app: 'no' }),
      event('one', { app: 'web', 'example.com/tier': 'front', name: 'web', image: 'box', podId: '' }),
      '',
    ].join('\n');
    expect(labelsOf(events, 'one')).toEqual({ app: 'web', 'example.com/tier': 'front' });
  });

  it('knows nothing of a container without an event, and nothing of text that is no event', () => {
    expect(labelsOf(event('other', {}), 'one')).toBeUndefined();
    expect(labelsOf('{"cause":"x"}\nnot json\n7\n', 'one')).toBeUndefined();
    expect(labelsOf('', 'one')).toBeUndefined();
  });
});

it('asks the runtime to try again where nobody answers', async () => {
  await expect(podmanLabels('/run/no-such.sock', 'one', 1000)).rejects.toMatchObject({
    code: 11,
    details: 'SLU5123',
    message: expect.stringMatching(/labels of container one .*\/run\/no-such\.sock/),
  });
});
