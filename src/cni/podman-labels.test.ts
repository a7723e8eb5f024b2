import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Journal } from '../ipam/journal.js';
import { PodmanLabels } from './podman-labels.js';

let folder: string;
let server: Server;
let socket: string;
/** What Podman's events say. */
let events: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-podman-labels-'));
  socket = join(folder, 'podman.sock');
  events = '';
  server = createServer((_, response) => response.end(events));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
});
afterEach(async () => {
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

const open = (): PodmanLabels => new PodmanLabels(Journal.open(join(folder, 'journal')));
const event = (ID: string, Attributes: Record<string, string>): string =>
  JSON.stringify({ Type: 'container', Action: 'create', Actor: { ID, Attributes } });

it('remembers what Podman said, for when its events are gone', async () => {
  const first = open();
  await expect(first.of(socket, 'one', 1000)).rejects.toMatchObject({ details: 'SLU5123' });
  events = event('one', { app: 'web' });
  expect(await first.of(socket, 'one', 1000)).toEqual({ app: 'web' });
  events = '';
  first.close();
  const second = open();
  expect(await second.of(socket, 'one', 1000)).toEqual({ app: 'web' });
  await expect(second.of(socket, 'two', 1000)).rejects.toMatchObject({ details: 'SLU5123' });
  second.close();
});

it('forgets those that were not started for the longest time', async () => {
  const labels = open();
  for (let i = 0; i < 4097; i++) {
    events = event(`c${i}`, { n: `${i}` });
    await labels.of(socket, `c${i}`, 1000);
  }
  events = '';
  expect(await labels.of(socket, 'c1', 1000)).toEqual({ n: '1' });
  await expect(labels.of(socket, 'c0', 1000)).rejects.toMatchObject({ details: 'SLU5123' });
  labels.close();
});
