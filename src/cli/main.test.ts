import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { dropEvent, MemoryEngine } from '../../test/cli/memory-engine.js';
import type { DropEvent } from '../engine.js';
import { ApiServer } from '../http/server.js';
import { createLogger } from '../log.js';
import { version } from '../version.js';
import { main } from './main.js';

const log = createLogger('error');
let folder: string;
let socket: string;
let engine: MemoryEngine;
let server: ApiServer | undefined;
let other: Server | undefined;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-cli-'));
  socket = join(folder, 's.sock');
  engine = new MemoryEngine();
  server = await ApiServer.listen(socket, {
    engine,
    log,
    problems: () => [],
    down: () => engine.down(),
    stopped: () => {},
  });
});
afterEach(async () => {
  await server?.close();
  server = undefined;
  other?.close();
  other?.closeAllConnections();
  rmSync(folder, { recursive: true });
});

function collected(stream: PassThrough): { text: string } {
  const into = { text: '' };
  stream.setEncoding('utf8');
  stream.on('data', (chunk: string) => {
    into.text += chunk;
  });
  return into;
}

function start(
  args: readonly string[],
  stdin: string | Buffer = '',
  env: Record<string, string> = { SLUICE_SOCKET: socket },
) {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const [out, err] = [collected(stdout), collected(stderr)];
  const code = main(args, { stdin: Readable.from([stdin]), stdout, stderr, env });
  return { code, out, err };
}

async function sluice(args: readonly string[], stdin?: string | Buffer, env?: Record<string, string>) {
  const { code, out, err } = start(args, stdin, env);
  const status = await code;
  await new Promise((resolve) => setImmediate(resolve));
  return { code: status, out: out.text, err: err.text };
}

const write = (name: string, text: string | Buffer): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

describe('the command line', () => {
  it.each([
    [[], 'no command given; see "sluice --help"'],
    [['frob'], 'unknown command \'frob\'; see "sluice --help"'],
    [['aplpy'], 'unknown command \'aplpy\' (Did you mean apply?); see "sluice --help"'],
    [['--frob'], 'unknown option \'--frob\'; see "sluice --help"'],
    [['--socket'], 'option \'--socket <path>\' argument missing; see "sluice --help"'],
    [['get'], 'missing required argument \'what\'; see "sluice get --help"'],
    [
      ['get', 'secrets'],
      /^command-argument value 'secrets' is invalid for argument 'what'\. Allowed choices are networks, .*leases; see "sluice get --help"$/,
    ],
    [['get', 'networks', 'x', 'y'], /^too many arguments for 'get'/],
    [
      ['get', 'networks', '-o', 'xml'],
      /^option '-o, --output <format>' argument 'xml' is invalid\. Allowed choices are table, json, yaml; /,
    ],
    [
      ['status', '--outptu'],
      /^unknown option '--outptu' \(Did you mean --output\?\); see "sluice status --help"$/,
    ],
    [['apply'], 'give -f with a file, a folder or - for standard input; see "sluice apply --help"'],
    [['apply', '-f'], 'option \'-f, --file <path>\' argument missing; see "sluice apply --help"'],
    [['apply', '-f', '-', '-f', '-'], /^standard input \(-f -\) can be read only once/],
    [['validate'], 'give -f with a file, a folder or - for standard input; see "sluice validate --help"'],
    [['drops', '-n', '-1'], /^option '-n, --limit <count>' argument '-1' is invalid/],
    [['drops', '-n', '1e3'], /is invalid. It must be a whole number from 0 to 10000; /],
    [['delete'], 'give -f FILE, or a kind and a name; see "sluice delete --help"'],
    [['delete', 'container'], 'give -f FILE, or a kind and a name; see "sluice delete --help"'],
    [
      ['delete', 'contaner', 'web'],
      'unknown kind \'contaner\'; did you mean "container"?; see "sluice delete --help"',
    ],
    [['cni', 'install'], 'give either --network or --subnet; see "sluice cni install --help"'],
    [['delete', 'network', 'a/b'], 'a Network has no namespace: write \'b\'; see "sluice delete --help"'],
    [
      ['delete', 'container', 'a/b/c'],
      '\'a/b/c\' is not a name or NAMESPACE/NAME; see "sluice delete --help"',
    ],
    [
      ['delete', 'container', 'web', '-f', 'x'],
      'give either -f or a kind and a name, not both; see "sluice delete --help"',
    ],
  ] as [string[], string | RegExp][])('%j is one line and status 2', async (args, expected) => {
    const { code, out, err } = await sluice(args);
    expect(code).toBe(2);
    expect(out).toBe('');
    expect(err).toMatch(/^sluice: [^\n]+\n$/);
    const line = err.slice('sluice: '.length, -1);
    if (typeof expected === 'string') expect(line).toBe(expected);
    else expect(line).toMatch(expected);
  });

  it.each(['agent', 'apply', 'delete', 'get', 'status', 'drops', 'monitor', 'validate', 'down', 'version'])(
    '%s --help has a description, the options with their defaults, examples and the exit status',
    async (name) => {
      const { code, out } = await sluice([name, '--help']);
      expect(code).toBe(0);
      for (const part of ['Usage: sluice', 'Options:', 'Global Options:', '--socket <path>'])
        expect(out).toContain(part);
      if (name !== 'version') {
        for (const part of ['Examples:', 'Exit status:']) expect(out).toContain(part);
      }
      if (['get', 'status', 'drops', 'monitor'].includes(name)) expect(out).toMatch(/default:\s+"table"/);
      expect(Math.max(...out.split('\n').map((line) => line.length))).toBeLessThanOrEqual(120);
    },
  );

  it('prints help and version on standard output', async () => {
    const help = await sluice(['--help']);
    expect(help).toMatchObject({ code: 0, err: '' });
    for (const name of [
      'agent',
      'apply',
      'delete',
      'get',
      'status',
      'validate',
      'down',
      'drops',
      'monitor',
    ]) {
      expect(help.out).toMatch(new RegExp(`^ {2}${name} `, 'm'));
    }
    expect(await sluice(['help', 'apply'])).toMatchObject({
      code: 0,
      out: expect.stringContaining('Usage: sluice apply'),
    });
    for (const args of [['version'], ['--version'], ['-V']]) {
      expect(await sluice(args)).toMatchObject({
        code: 0,
        err: '',
        out: expect.stringContaining(`sluice ${version()}`),
      });
    }
  });
});

describe('apply and delete', () => {
  it('sends files, folders and standard input as one change and prints what changed', async () => {
    const file = write('a.yaml', 'web');
    mkdirSync(join(folder, 'more'));
    write('more/c.yml', 'db');
    write('more/b.json', '\ufeffapi');
    write('more/notes.txt', 'no');
    const { code, out, err } = await sluice(
      ['apply', '-f', file, '-f', join(folder, 'more'), '--file', '-'],
      'outside',
    );
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(engine.calls).toEqual([
      {
        call: 'apply',
        sources: [
          { file, text: 'web' },
          { file: join(folder, 'more/b.json'), text: 'api' },
          { file: join(folder, 'more/c.yml'), text: 'db' },
          { file: 'stdin', text: 'outside' },
        ],
      },
    ]);
    expect(out.split('\n')[0]).toBe('container shop/web created');
    expect(await sluice(['apply', '-q', '-f', file])).toEqual({ code: 0, out: '', err: '' });
  });

  it('prints each refusal as one line with its place, and status 1', async () => {
    const [a, b] = [write('a.yaml', 'BAD'), write('b.yaml', 'web\nBAD')];
    expect(await sluice(['apply', '-f', a, '-f', b])).toEqual({
      code: 1,
      out: '',
      err: [
        `${a}:1: spec.mode: must be good, not BAD (SLU1105)`,
        `${b}:2: spec.mode: must be good, not BAD (SLU1105)\n`,
      ].join('\n'),
    });
    expect(engine.objects.size).toBe(0);
  });

  it('names everything that cannot be read, and sends nothing', async () => {
    const good = write('a.yaml', 'web');
    const latin1 = write('latin1.yaml', Buffer.from('x: caf\xe9', 'latin1'));
    const large = write('large.yaml', Buffer.alloc(10 * 1024 * 1024, 0x23));
    mkdirSync(join(folder, 'empty'));
    const none = join(folder, 'none.yaml');
    const { code, err } = await sluice([
      'apply',
      ...[good, none, latin1, large, join(folder, 'empty')].flatMap((path) => ['-f', path]),
    ]);
    expect(code).toBe(1);
    expect(err.trimEnd().split('\n')).toEqual([
      `${none}: cannot read: no such file or directory (SLU2205)`,
      expect.stringMatching(/latin1\.yaml:1: the file is not valid UTF-8 .*\(SLU1002\)$/),
      expect.stringMatching(/large\.yaml:1: the file is larger than \d+ bytes .*\(SLU1001\)$/),
      `${join(folder, 'empty')}: the folder has no definitions (*.yaml, *.yml, *.json) (SLU2206)`,
    ]);
    expect(engine.calls).toEqual([]);
    expect((await sluice(['apply', '-f', '-'], Buffer.alloc(10 * 1024 * 1024, 0x23))).err).toMatch(
      /^stdin:1: the file is larger than/,
    );
  });

  it('deletes what files define, or one object by kind and name', async () => {
    const file = write('a.yaml', 'web');
    expect(await sluice(['delete', '-f', file])).toMatchObject({
      code: 0,
      out: 'container shop/web deleted\n',
    });
    for (const args of [
      ['container', 'shop/web'],
      ['netpol', 'api'],
      ['Networks', 'front'],
      ['ns', 'shop'],
    ]) {
      expect((await sluice(['delete', ...args])).code).toBe(0);
    }
    const documents = engine.calls
      .slice(1)
      .map(({ sources }) => JSON.parse(sources[0]?.text ?? '') as unknown);
    expect(documents).toMatchObject([
      { apiVersion: 'sluice.dev/v1alpha1', kind: 'Container', metadata: { namespace: 'shop', name: 'web' } },
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { namespace: 'default', name: 'api' },
      },
      { apiVersion: 'sluice.dev/v1alpha1', kind: 'Network', metadata: { name: 'front' } },
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
    ]);
    expect(engine.calls[1]?.sources[0]?.file).toBe('command line');
  });
});

describe('get and status', () => {
  it('prints aligned columns, JSON and YAML', async () => {
    engine.objects.set('front', 'net.yaml');
    engine.objects.set('backstage', 'b.yaml');
    expect((await sluice(['get', 'networks'])).out).toBe(
      'NAME       FILE\nfront      net.yaml\nbackstage  b.yaml\n',
    );
    expect((await sluice(['get', 'networks', '--no-headers'])).out).toBe(
      'front      net.yaml\nbackstage  b.yaml\n',
    );
    const items = ['front', 'backstage'].map((name) => ({ kind: 'Network', metadata: { name } }));
    expect(JSON.parse((await sluice(['get', 'networks', '-o', 'json'])).out)).toEqual({
      apiVersion: 'v1',
      kind: 'List',
      items,
    });
    expect((await sluice(['get', 'networks', '-o', 'yaml'])).out).toBe(
      'apiVersion: v1\nkind: List\nitems:\n  - kind: Network\n    metadata:\n      name: front\n  - kind: Network\n    metadata:\n      name: backstage\n',
    );
  });

  it('prints what is asked for by name', async () => {
    engine.objects.set('front', 'net.yaml');
    engine.objects.set('backstage', 'b.yaml');
    expect((await sluice(['get', 'networks', 'front', '--no-headers'])).out).toBe('front  net.yaml\n');
    expect(JSON.parse((await sluice(['get', 'networks', 'front', '-o', 'json'])).out).items).toHaveLength(1);
    expect(await sluice(['get', 'networks', 'side'])).toEqual({ code: 0, out: '', err: 'No networks.\n' });
    expect(await sluice(['get', 'networks', '-n', 'shop'])).toMatchObject({
      code: 2,
      err: 'sluice: networks are in no namespace: leave -n out; see "sluice get --help"\n',
    });
  });

  it('says on standard error that a list is empty, so that scripts see nothing', async () => {
    expect(await sluice(['get', 'leases'])).toEqual({ code: 0, out: '', err: 'No leases.\n' });
    expect(JSON.parse((await sluice(['get', 'leases', '-o', 'json'])).out).items).toEqual([]);
  });

  it('prints an error of the agent as one line', async () => {
    const errors = vi.spyOn(log, 'error').mockImplementation(() => {});
    expect(await sluice(['get', 'flows'])).toEqual({
      code: 1,
      out: '',
      err: "sluice: internal error: the map is gone; the agent's log has more (SLU2406)\n",
    });
    errors.mockRestore();
  });

  it('shows the status with its problems', async () => {
    engine.problems = [
      { code: 'SLU2205', message: 'cannot read: no such file or directory', file: '/etc/x.yaml' },
    ];
    const { out } = await sluice(['status']);
    expect(out).toBe(
      [
        'State        degraded',
        `Version      1.2.3, pid ${process.pid}, running for 1h 2m`,
        'Kernel       6.1.0, tcx hooks, state of an earlier agent adopted',
        'Uplinks      eth0 (XDP native), eth1',
        'Networks     1',
        'Containers   2 (2 endpoints)',
        'Policies     3 (4 sets, 5 identities, epoch 7)',
        'Flow table   4 of 16 entries (25.0 %)',
        'Last change  2026-01-02T03:04:05.678Z, in force, 1.3 ms',
        'Problems     1',
        '  /etc/x.yaml: cannot read: no such file or directory (SLU2205)',
        '',
      ].join('\n'),
    );
    expect(JSON.parse((await sluice(['status', '-o', 'json'])).out)).toMatchObject({
      state: 'degraded',
      adopted: true,
    });
  });
});

describe('drops', () => {
  it('prints a table or one object a line', async () => {
    engine.drop(dropEvent());
    engine.drop(
      dropEvent({
        source: 'fd00::2',
        sourcePort: 0,
        protocol: 'ICMPv6',
        destination: 'fd00::3',
        rule: '',
        error: 'ENOSPC',
      }),
    );
    const { out } = await sluice(['drops']);
    const [head = '', first = '', second = ''] = out.split('\n');
    expect(head.split(/ {2,}/)).toEqual([
      'TIME',
      'REASON',
      'DIRECTION',
      'PROTOCOL',
      'SOURCE',
      'DESTINATION',
      'FROM',
      'TO',
      'RULE',
    ]);
    expect(first).toMatch(
      / 10\.1\.0\.2:40000 +10\.1\.0\.3:80 +shop\/stranger +shop\/api +NetworkPolicy shop\/api \(default deny\)$/,
    );
    expect(second).toMatch(/ fd00::2 +\[fd00::3\]:80 .* ENOSPC$/);
    const json = await sluice(['drops', '-n', '1', '-o', 'json']);
    expect(
      json.out
        .trimEnd()
        .split('\n')
        .map((line) => (JSON.parse(line) as DropEvent).source),
    ).toEqual(['fd00::2']);
    engine.log.length = 0;
    expect(await sluice(['drops'])).toEqual({ code: 0, out: '', err: 'No drops.\n' });
  });

  it('monitor goes on until the agent goes away, which is an end with status 1', async () => {
    engine.drop(dropEvent({ sourcePort: 1 }));
    const { code, out, err } = start(['monitor', '-o', 'json']);
    await vi.waitFor(() => expect(engine.listeners.size).toBe(1));
    engine.drop(dropEvent({ sourcePort: 2 }));
    await vi.waitFor(() => expect(out.text).not.toBe(''));
    expect(JSON.parse(out.text)).toMatchObject({ sourcePort: 2 });
    await server?.close();
    server = undefined;
    expect(await code).toBe(1);
    expect(err.text).toBe(
      `sluice: the connection to the agent at ${socket} failed: the agent went away (SLU2203)\n`,
    );
  });
});

describe('without a usable agent', () => {
  it('says that it is not running', async () => {
    await server?.close();
    server = undefined;
    const line = `sluice: the agent is not running (nobody listens on ${socket}): start it with "sluice agent" (SLU2201)\n`;
    const file = write('a.yaml', 'web');
    for (const args of [
      ['status'],
      ['get', 'flows'],
      ['apply', '-f', file],
      ['delete', 'ns', 'x'],
      ['drops'],
      ['monitor'],
    ]) {
      expect(await sluice(args)).toEqual({ code: 1, out: '', err: line });
    }
    writeFileSync(socket, '');
    expect((await sluice(['status'])).err).toBe(line);
  });

  it('prefers --socket, before or after the command, to the environment', async () => {
    for (const args of [
      ['--socket', socket, 'status'],
      ['status', '--socket', socket],
    ]) {
      expect((await sluice(args, '', { SLUICE_SOCKET: '/nowhere' })).code).toBe(0);
    }
  });

  it('says that something else answers', async () => {
    await server?.close();
    server = undefined;
    let answer: [number, string] = [200, 'hello'];
    other = createServer((_, response) => {
      response.writeHead(answer[0]);
      response.end(answer[1]);
    });
    await new Promise<void>((resolve) => other?.listen(socket, resolve));
    expect((await sluice(['status'])).err).toBe(
      `sluice: the answer from ${socket} is not understood (not JSON): are agent and command of one version? (SLU2204)\n`,
    );
    answer = [500, '{}'];
    expect((await sluice(['status'])).err).toContain('is not understood (status 500)');
  });
});

describe('validate', () => {
  it('checks the real schema, without an agent', async () => {
    expect(
      await sluice([
        'validate',
        '-f',
        write('n.yaml', 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n'),
      ]),
    ).toEqual({
      code: 0,
      out: '1 document is valid.\n',
      err: '',
    });
  });

  it('prints every error of every file, one a line, and status 1', async () => {
    const a = write('a.yaml', 'apiVersion: v1\nkind: Frob\nmetadata:\n  name: x\n');
    const b = write(
      'b.yaml',
      'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\nspecc: {}\n---\na: [\n',
    );
    const { code, out, err } = await sluice(['validate', '-f', a, '-f', b]);
    expect({ code, out }).toEqual({ code: 1, out: '' });
    const lines = err.trimEnd().split('\n');
    expect(lines.length).toBeGreaterThanOrEqual(3);
    for (const line of lines) expect(line).toMatch(/\/[ab]\.yaml:\d+: .+ \(SLU1\d{3}\)$/);
    expect(lines.some((line) => line.includes('"specc"'))).toBe(true);
  });

  it('finds what only several documents together show', async () => {
    const namespace = 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n';
    const [a, b] = [write('a.yaml', namespace), write('b.yaml', namespace)];
    const { code, err } = await sluice(['validate', '-f', a, '-f', b]);
    expect(code).toBe(1);
    expect(err).toMatch(/^[^\n]*b\.yaml:\d+: [^\n]*defined twice[^\n]*\(SLU1301\)\n$/);
  });
});

describe('sluice explain', () => {
  it('answers with the verdict as its exit status', async () => {
    const allowed = await sluice(['explain', 'shop/web', 'shop/db', '80']);
    expect([allowed.code, allowed.err]).toEqual([0, '']);
    expect(allowed.out).toContain('shop/db (10.1.0.3 in net), 80/TCP');
    const denied = await sluice([
      'explain',
      'shop/web',
      'denied',
      '53/udp',
      '-o',
      'json',
      '--family',
      'ipv6',
    ]);
    expect(denied.code).toBe(1);
    expect(JSON.parse(denied.out)).toMatchObject({ verdict: 'deny', protocol: 'UDP', port: 53, family: 6 });
    expect((await sluice(['explain', 'a', 'b', '-o', 'yaml'])).out).toContain('protocol: ICMP\nport: 0\n');
  });

  it('ends with 2 when there is no answer', async () => {
    const unknown = await sluice(['explain', 'nobody', 'shop/db']);
    expect([unknown.code, unknown.out]).toEqual([2, '']);
    expect(unknown.err).toContain('"nobody" is not defined');
    const absent = await sluice(['explain', 'a', 'b'], undefined, { SLUICE_SOCKET: join(folder, 'no') });
    expect(absent.code).toBe(2);
    for (const service of ['80/GRE', '0/TCP', '65536', '1.5/TCP', 'http', 'icmp/80', '80/ICMP', '']) {
      const wrong = await sluice(['explain', 'a', 'b', service]);
      expect([service, wrong.code]).toEqual([service, 2]);
      expect(wrong.err).toMatch(/^sluice: .*; see "sluice explain --help"\n$/);
    }
  });
});
