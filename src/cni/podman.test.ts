import { describe, expect, it } from 'vitest';
import { containerIn, podmanLabels, sharedLabels } from './podman.js';

const event = (ID: string, Attributes: Record<string, string>, Action = 'create'): string =>
  JSON.stringify({ status: Action, Type: 'container', Action, Actor: { ID, Attributes }, time: 1700000000 });

describe('containerIn', () => {
  it('takes the labels of the container, without what Podman adds', () => {
    const events = [
      event('other', { app: 'no' }),
      event('one', { app: 'web', 'example.com/tier': 'front', name: 'web', image: 'box', podId: '' }),
      '',
    ].join('\n');
    expect(containerIn(events, 'one')).toMatchObject({
      labels: { app: 'web', 'example.com/tier': 'front' },
      pod: '',
      time: 1700000000,
    });
  });

  it('knows nothing of a container without an event, and nothing of text that is no event', () => {
    expect(containerIn(event('other', {}), 'one')).toBeUndefined();
    expect(containerIn('{"cause":"x"}\nnot json\n7\n', 'one')).toBeUndefined();
    expect(containerIn('', 'one')).toBeUndefined();
  });
});

it('takes for labels of a pod what all its containers have', () => {
  const podId = 'p';
  const events = [
    event('infra', { podId }),
    event('old', { podId, app: 'other' }),
    event('alien', { podId: 'q', app: 'no' }),
    event('a', { podId, app: 'web', tier: 'front' }),
    event('old', { podId, app: 'other' }, 'remove'),
    event('b', { podId, app: 'web', tier: 'back' }),
  ].join('\n');
  expect(sharedLabels(events, 'p', 'infra')).toEqual({ app: 'web' });
  expect(sharedLabels(`${events}\n${event('c', { podId })}`, 'p', 'infra')).toEqual({});
  expect(sharedLabels('', 'p', 'infra')).toEqual({});
});

it('asks the runtime to try again where nobody answers', async () => {
  await expect(podmanLabels('/run/no-such.sock', 'one', 1000)).rejects.toMatchObject({
    code: 11,
    details: 'SLU5123',
    message: expect.stringMatching(/labels of container one .*\/run\/no-such\.sock/),
  });
});
