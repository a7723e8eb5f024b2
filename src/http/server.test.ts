import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, request } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { dropEvent, MemoryEngine } from '../../test/cli/memory-engine.js';
import type { DropEvent, ErrorLine } from '../engine.js';
import { createLogger } from '../log.js';
import { MAX_BODY } from './api.js';
import { ApiServer } from './server.js';
import { listenPrivately } from './socket.js';

const log = createLogger('error');
let folder: string;
let path: string;
let engine: MemoryEngine;
let server: ApiServer | undefined;
let problems: ErrorLine[];
let stopped: number;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-api-'));
  path = join(folder, 'api.sock');
  engine = new MemoryEngine();
  problems = [];
  stopped = 0;
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  rmSync(folder, { recursive: true });
});

async function start(): Promise<void> {
  server = await ApiServer.listen(path, {
    engine,
    log,
    problems: () => problems,
    down: () => engine.down(),
    stopped: () => void stopped++,
  });
}

interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
  /** Of an answer in JSON. */
  readonly body: { readonly errors?: ErrorLine[]; readonly problems?: ErrorLine[]; readonly state?: string };
}

function send(method: string, url: string, body?: string | Buffer): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath: path, method, path: url, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const isJson = response.headers['content-type'] === 'application/json';
        const body = (isJson ? JSON.parse(text) : {}) as Answer['body'];
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, body });
      });
      response.on('error', reject);
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

const sources = (text: string, file = 'a.yaml') => JSON.stringify({ sources: [{ file, text }] });

describe('the socket', () => {
  it('has mode 0600 as soon as it exists, whatever the umask is', async () => {
    const before = process.umask(0);
    try {
      const plain = createServer();
      const listening = listenPrivately(plain, path);
      // listenPrivately binds after one look at the path; poll within the same ticks.
      let mode = 0;
      while (mode === 0) {
        mode = (statSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o777;
        await Promise.resolve();
      }
      expect(mode).toBe(0o600);
      await listening;
      expect(process.umask()).toBe(0);
      plain.close();
    } finally {
      process.umask(before);
    }
  });

  it('replaces the socket of a dead process', async () => {
    const { spawnSync } = await import('node:child_process');
    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(statSync(path).isSocket()).toBe(true);
    await start();
    expect((await send('GET', '/v1/status')).status).toBe(200);
  });

  it('is left alone when another process listens on it, and when it is another kind of file', async () => {
    const other = createHttpServer((_, response) => response.end('mine'));
    await new Promise<void>((resolve) => other.listen(path, resolve));
    await expect(start()).rejects.toMatchObject({ code: 'SLU2104' });
    expect((await send('GET', '/')).text).toBe('mine');
    other.close();

    writeFileSync(join(folder, 'file'), 'precious');
    path = join(folder, 'file');
    await expect(start()).rejects.toMatchObject({ code: 'SLU2108' });
    expect(statSync(path).size).toBe(8);
  });

  it('is gone after close', async () => {
    await start();
    await server?.close();
    server = undefined;
    expect(statSync(path, { throwIfNoEntry: false })).toBeUndefined();
  });
});

describe('changes', () => {
  it('reach the engine with their sources, and the answer has what changed', async () => {
    await start();
    expect(await send('POST', '/v1/apply', sources('web'))).toMatchObject({
      status: 200,
      body: { ok: true, changes: [{ kind: 'Container', namespace: 'shop', name: 'web', action: 'created' }] },
    });
    expect(engine.calls).toEqual([{ call: 'apply', sources: [{ file: 'a.yaml', text: 'web' }] }]);
    expect((await send('POST', '/v1/delete', sources('web'))).status).toBe(200);
    expect(engine.objects.size).toBe(0);
  });

  it('that are refused are status 422 with all the errors', async () => {
    await start();
    const errors = [
      { code: 'SLU1105', message: 'must be good, not BAD', file: 'b.yaml', line: 2, field: 'spec.mode' },
    ];
    expect(await send('POST', '/v1/apply', sources('x\nBAD', 'b.yaml'))).toMatchObject({
      status: 422,
      body: { ok: false, errors },
    });
  });

  it.each([
    ['{', 'the body is not JSON in UTF-8'],
    [Buffer.from([0x22, 0xff, 0x22]), 'the body is not JSON in UTF-8'],
    ['', 'the body is not JSON in UTF-8'],
    ['[]', 'the body must be'],
    ['null', 'the body must be'],
    ['{"sources": {}}', 'the body must be'],
    ['{"sources": [1]}', 'sources[0].file must be a file name'],
    [
      '{"sources": [{"file": "a", "text": "b"}, {"file": "", "text": ""}]}',
      'sources[1].file must be a file name',
    ],
    ['{"sources": [{"file": "a"}]}', 'sources[0].text must be a string'],
  ])('with the body %j are a bad request', async (body, reason) => {
    await start();
    const answer = await send('POST', '/v1/apply', body);
    expect(answer.status).toBe(400);
    expect(answer.body.errors).toHaveLength(1);
    expect(answer.body.errors?.[0]).toMatchObject({
      code: 'SLU2404',
      message: expect.stringContaining(reason),
    });
    expect(engine.calls).toEqual([]);
  });

  it('that are too large are refused, and the client gets to read why', async () => {
    await start();
    for (const size of [MAX_BODY + 1, 3 * MAX_BODY]) {
      expect(await send('POST', '/v1/apply', Buffer.alloc(size, 0x20))).toMatchObject({
        status: 413,
        body: { errors: [{ code: 'SLU2403' }] },
      });
    }
    // The same without a length that is known in advance.
    const status = await new Promise((resolve, reject) => {
      const outgoing = request(
        { socketPath: path, method: 'POST', path: '/v1/apply', agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      outgoing.on('error', reject);
      for (let i = 0; i < 17; i++) outgoing.write(Buffer.alloc(1024 * 1024));
      outgoing.end();
    });
    expect(status).toBe(413);
    expect(engine.calls).toEqual([]);
  });
});

describe('reading', () => {
  it('gives lists and the status', async () => {
    await start();
    engine.objects.set('front', 'net.yaml');
    expect((await send('GET', '/v1/list/networks')).body).toEqual({
      columns: ['NAME', 'FILE'],
      rows: [['front', 'net.yaml']],
      objects: [{ kind: 'Network', metadata: { name: 'front' } }],
    });
    expect((await send('GET', '/v1/status')).body).toMatchObject({ state: 'ready', pid: process.pid });
  });

  it('adds to the status what the engine does not know, once', async () => {
    await start();
    const shared = { code: 'SLU1104', message: 'x', file: 'a.yaml', line: 1 };
    engine.problems = [shared];
    problems = [shared, { code: 'SLU2205', message: 'cannot read', file: 'b.yaml' }];
    expect((await send('GET', '/v1/status')).body.problems).toEqual([shared, problems[1]]);
    engine.problems = [];
    expect((await send('GET', '/v1/status')).body.state).toBe('degraded');
  });

  it('turns an unexpected failure of the engine into one error and goes on', async () => {
    await start();
    const errors = vi.spyOn(log, 'error').mockImplementation(() => {});
    expect(await send('GET', '/v1/list/flows')).toMatchObject({
      status: 500,
      body: {
        errors: [{ code: 'SLU2406', message: "internal error: the map is gone; the agent's log has more" }],
      },
    });
    expect(errors).toHaveBeenCalledOnce();
    errors.mockRestore();
    expect((await send('GET', '/v1/status')).status).toBe(200);
  });

  it.each([
    ['GET', '/', 404, 'SLU2401'],
    ['GET', '/v1/list/secrets', 404, 'SLU2401'],
    ['GET', '/v1/list/', 404, 'SLU2401'],
    ['POST', '/v1/list/networks', 405, 'SLU2402'],
    ['GET', '/v1/apply', 405, 'SLU2402'],
    ['DELETE', '/v1/status', 405, 'SLU2402'],
    ['GET', '/v1/drops?limit=-1', 400, 'SLU2404'],
    ['GET', '/v1/drops?limit=10001', 400, 'SLU2404'],
    ['GET', '//', 404, 'SLU2401'],
  ])('%s %s is status %i', async (method, url, status, code) => {
    await start();
    expect(await send(method, url)).toMatchObject({ status, body: { ok: false, errors: [{ code }] } });
  });
});

describe('slow clients', () => {
  it('with unfinished requests do not hold up others', async () => {
    await start();
    const stuck: Socket[] = [];
    for (let i = 0; i < 50; i++) {
      const socket = connect(path);
      socket.write(`POST /v1/apply HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"sou`);
      stuck.push(socket);
    }
    engine.gate = new Promise(() => {});
    const waiting = send('POST', '/v1/apply', sources('web')).catch(() => 'ended');
    await sleep(50);
    expect((await send('GET', '/v1/status')).status).toBe(200);
    expect((await send('GET', '/v1/list/networks')).status).toBe(200);
    await server?.close();
    server = undefined;
    expect(await waiting).toBe('ended');
    for (const socket of stuck) socket.destroy();
  });
});

describe('drops', () => {
  it('gives the latest ones, and only as many as asked for', async () => {
    await start();
    for (let port = 1; port <= 5; port++) engine.drop(dropEvent({ sourcePort: port }));
    const lines = async (url: string) => {
      const { text } = await send('GET', url);
      return text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => (JSON.parse(line) as DropEvent).sourcePort);
    };
    expect(await lines('/v1/drops')).toEqual([1, 2, 3, 4, 5]);
    expect(await lines('/v1/drops?limit=2')).toEqual([4, 5]);
    expect(await lines('/v1/drops?limit=0')).toEqual([]);
  });

  it('are followed until the client goes away', async () => {
    await start();
    engine.drop(dropEvent({ sourcePort: 1 }));
    const seen: number[] = [];
    const outgoing = request({ socketPath: path, path: '/v1/drops?follow=1', agent: false }, (response) => {
      response.setEncoding('utf8');
      response.on('error', () => {});
      response.on('data', (text: string) => {
        for (const line of text.trimEnd().split('\n')) seen.push((JSON.parse(line) as DropEvent).sourcePort);
      });
    });
    outgoing.on('error', () => {});
    outgoing.end();
    await vi.waitFor(() => expect(seen).toEqual([1]));
    engine.drop(dropEvent({ sourcePort: 2 }));
    await vi.waitFor(() => expect(seen).toEqual([1, 2]));
    expect(engine.listeners.size).toBe(1);
    outgoing.destroy();
    await vi.waitFor(() => expect(engine.listeners.size).toBe(0));
  });

  it('that a reader does not take are counted for it, and memory stays bounded', async () => {
    await start();
    const socket = connect(path);
    socket.pause();
    socket.write('GET /v1/drops?follow=1&limit=0 HTTP/1.1\r\nHost: a\r\n\r\n');
    await vi.waitFor(() => expect(engine.listeners.size).toBe(1));
    const total = 20_000;
    for (let port = 0; port < total; port++) engine.drop(dropEvent({ rule: 'x'.repeat(200) }));
    engine.log.length = 0;
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.resume();
    const count = () => {
      const lost = [...text.matchAll(/\{"lost":(\d+)\}/g)].reduce((sum, match) => sum + Number(match[1]), 0);
      return { lost, got: text.split('"policy_ingress"').length - 1 };
    };
    await vi.waitFor(() => expect(count().lost + count().got).toBe(total), { timeout: 5000 });
    expect(count().lost).toBeGreaterThan(total / 2);
    expect(count().got).toBeGreaterThan(100);
    socket.destroy();
  });
});

describe('down', () => {
  it('answers when everything is removed, refuses changes meanwhile, and ends the agent after the answer', async () => {
    await start();
    let open = (): void => {};
    engine.gate = new Promise((resolve) => {
      open = () => resolve();
    });
    const answer = send('POST', '/v1/down');
    await sleep(30);
    expect(await send('POST', '/v1/apply', sources('web'))).toMatchObject({
      status: 503,
      body: { errors: [{ code: 'SLU2405' }] },
    });
    expect(stopped).toBe(0);
    open();
    expect(await answer).toMatchObject({ status: 200, body: { ok: true } });
    expect(engine.ended).toBe('down');
    await vi.waitFor(() => expect(stopped).toBe(1));
  });

  it('goes on when its client goes away', async () => {
    await start();
    let open = (): void => {};
    engine.gate = new Promise((resolve) => {
      open = () => resolve();
    });
    const outgoing = request({ socketPath: path, method: 'POST', path: '/v1/down', agent: false });
    outgoing.on('error', () => {});
    outgoing.end();
    await sleep(30);
    outgoing.destroy();
    await sleep(30);
    expect(stopped).toBe(0);
    open();
    await vi.waitFor(() => expect(stopped).toBe(1));
    expect(engine.ended).toBe('down');
  });
});

describe('GET /v1/explain', () => {
  it('takes a whole question and nothing else', async () => {
    await start();
    const good = '/v1/explain?from=a&to=b&protocol=TCP&port=80&family=6';
    expect((await send('GET', good)).body).toMatchObject({ verdict: 'allow', port: 80, family: 6 });
    expect((await send('GET', '/v1/explain?from=a&to=b&protocol=ICMP')).status).toBe(200);
    expect((await send('GET', good.replace('from=a', 'from=nobody'))).status).toBe(422);
    for (const [part, wrong] of [
      ['from=a', 'from='],
      ['to=b', `to=${'x'.repeat(600)}`],
      ['TCP', 'tcp'],
      ['port=80', 'port=-1'],
      ['port=80', 'port=70000'],
      ['port=80', ''],
      ['family=6', 'family=5'],
    ] as const) {
      const answer = await send('GET', good.replace(part, wrong));
      expect([wrong, answer.status, answer.body.errors?.[0]?.code]).toEqual([wrong, 400, 'SLU2404']);
    }
  });
});
