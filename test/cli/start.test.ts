import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must, needBuild, Place, run, SLUICE } from './process.js';

/** Why an agent does not start: one line each, status 1, and nothing is left behind. */
describe('an agent that cannot start', () => {
  let place: Place;
  beforeAll(() => {
    needBuild();
    place = new Place();
  });
  afterAll(() => place.remove());

  function refused(command: string[], env: NodeJS.ProcessEnv = {}): string {
    const { code, out, err } = run(command, { env });
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(/^[^\n]+\n$/);
    return err.trimEnd();
  }

  const agent = (config = place.config): string[] => place.inside(SLUICE, 'agent', '--config', config);
  const untouched = (): void => {
    expect(existsSync(join(place.root, 'run'))).toBe(false);
    expect(existsSync(join(place.root, 'state'))).toBe(false);
    expect(existsSync(join(place.root, 'bpf/pins'))).toBe(false);
  };

  it('says so when it is not root', () => {
    must('chmod', '755', place.root);
    const unprivileged = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all'];
    expect(refused(place.inside(...unprivileged, SLUICE, 'agent', '--config', place.config))).toBe(
      'sluice: not enough rights: this process lacks CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root (SLU2101)',
    );
    untouched();
  });

  it('says which capability root lacks', () => {
    const line = refused(
      place.inside('setpriv', '--bounding-set=-sys_admin', SLUICE, 'agent', '--config', place.config),
    );
    expect(line).toBe(
      'sluice: not enough rights: this process lacks CAP_SYS_ADMIN: run it as root (SLU2101)',
    );
    untouched();
  });

  it('says so when the kernel is too old', () => {
    const source = join(place.root, 'uname.c');
    const library = join(place.root, 'uname.so');
    writeFileSync(
      source,
      `#define _GNU_SOURCE
      #include <string.h>
      #include <sys/syscall.h>
      #include <sys/utsname.h>
      #include <unistd.h>
      int uname(struct utsname *name) {
        int result = syscall(SYS_uname, name);
        if (result == 0) strcpy(name->release, "5.10.0-28-amd64");
        return result;
      }`,
    );
    must('gcc', '-shared', '-fPIC', '-o', library, source);
    expect(refused(agent(), { LD_PRELOAD: library })).toBe(
      'sluice: the kernel is too old: this is Linux 5.10.0-28-amd64, Sluice needs Linux 5.15 or newer (SLU2102)',
    );
    untouched();
  });

  it('says how to mount the BPF file system', () => {
    const pinPath = join(place.root, 'nobpf/pins');
    expect(refused(agent(place.writeConfig('nobpf.yaml', { pinPath })))).toBe(
      `sluice: no BPF file system at ${pinPath}: mount one with "mount -t bpf bpf ${join(place.root, 'nobpf')}" or set pinPath (SLU2103)`,
    );
    untouched();
    expect(existsSync(join(place.root, 'nobpf'))).toBe(false);
  });

  it('says so when the metrics port is in use', async () => {
    const script = "require('node:net').createServer().listen(9644, '127.0.0.1', () => console.log('up'))";
    const [file = '', ...args] = place.inside(process.execPath, '-e', script);
    const owner = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await new Promise((resolve) => owner.stdout.once('data', resolve));
      expect(refused(agent())).toBe(
        'sluice: the metrics address 127.0.0.1:9644 is in use: stop the other process or set metricsAddress (SLU2105)',
      );
      // Programs were on their way into the kernel already.
      for (const path of ['state', 'bpf/pins/maps', 'bpf/pins/progs'])
        expect(existsSync(join(place.root, path))).toBe(false);
    } finally {
      owner.kill();
    }
  });

  it('names every mistake in its configuration', () => {
    const file = join(place.root, 'bad.yaml');
    writeFileSync(file, 'apiVersion: sluice.dev/v1alpha1\nkind: AgentConfig\nrunDri: /x\nhooks: xdp\n');
    const { code, err } = run([SLUICE, 'agent', '--config', file]);
    expect(code).toBe(1);
    expect(err.trimEnd().split('\n')).toEqual([
      `${file}:3: runDri: unknown setting: did you mean "runDir"? (SLU2003)`,
      `${file}:4: hooks: must be one of auto, tcx, clsact, not "xdp" (SLU2004)`,
    ]);
    expect(refused([SLUICE, 'agent', '--config', join(place.root, 'none.yaml')])).toMatch(
      /none\.yaml: cannot read the configuration file: no such file or directory \(SLU2001\)$/,
    );
  });

  it('says where it cannot make its folder', () => {
    const file = join(place.root, 'file');
    writeFileSync(file, '');
    expect(refused(agent(place.writeConfig('file.yaml', { runDir: join(file, 'run') })))).toBe(
      `sluice: cannot create the folder ${join(file, 'run')}: not a directory (SLU2107)`,
    );
  });
});

/** What needs neither root nor an agent. */
describe('the command as an ordinary user', () => {
  let folder: string;
  beforeAll(() => {
    needBuild();
    folder = mkdtempSync(join(tmpdir(), 'sluice-user-'));
    must('chmod', '755', folder);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const asUser = (...args: string[]) =>
    run(['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', SLUICE, ...args], {
      env: { HOME: '/' },
    });

  it('validates definitions', () => {
    const good = join(folder, 'good.yaml');
    const bad = join(folder, 'bad.yaml');
    writeFileSync(good, 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n');
    writeFileSync(bad, 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n---\nkind: Frob\n');
    expect(asUser('validate', '-f', good)).toEqual({ code: 0, out: '1 document is valid.\n', err: '' });
    const { code, err } = asUser('validate', '-f', bad);
    expect(code).toBe(1);
    expect(err).toMatch(/^[^\n]*bad\.yaml:\d+: [^\n]+ \(SLU1\d{3}\)\n$/);
  });

  it('may not use the socket, and says so', () => {
    const socket = join(folder, 'root.sock');
    const script = `process.umask(0o177); require('node:net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 'SIGKILL'))`;
    run([process.execPath, '-e', script]);
    expect(asUser('--socket', socket, 'status')).toEqual({
      code: 1,
      out: '',
      err: `sluice: no permission to use ${socket}: run as root (SLU2202)\n`,
    });
    mkdirSync(join(folder, 'private'), { mode: 0o700 });
    expect(asUser('--socket', join(folder, 'private/s.sock'), 'status').err).toContain(
      'run as root (SLU2202)',
    );
  });

  it('may not remove anything', () => {
    const config = join(folder, 'agent.yaml');
    const run_ = join(folder, 'run');
    writeFileSync(
      config,
      `apiVersion: sluice.dev/v1alpha1\nkind: AgentConfig\nrunDir: ${run_}\npinPath: ${folder}/pins\nstateDir: ${folder}/state\n`,
    );
    expect(asUser('down', '--config', config)).toEqual({
      code: 1,
      out: '',
      err: 'sluice: not enough rights: this process lacks CAP_NET_ADMIN and CAP_SYS_ADMIN: run it as root (SLU2101)\n',
    });
  });

  it('prints usage errors as one line with status 2', () => {
    for (const args of [['frob'], ['get', 'frob'], ['status', '--frob'], []]) {
      const { code, out, err } = asUser(...args);
      expect({ code, out }).toEqual({ code: 2, out: '' });
      expect(err).toMatch(/^sluice: [^\n]+\n$/);
    }
  });

  it('ends quietly when the reader of its output stops early', () => {
    const { code, err } = run([
      'sh',
      '-c',
      `${SLUICE} --help | true; ${SLUICE} agent --help | head -1 >/dev/null`,
    ]);
    expect({ code, err }).toEqual({ code: 0, err: '' });
  });
});

describe('bin/sluice', () => {
  it('says in one line that the package is not built', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-bin-'));
    try {
      mkdirSync(join(folder, 'bin'));
      must('cp', SLUICE, join(folder, 'bin/sluice'));
      writeFileSync(join(folder, 'package.json'), '{"type": "module"}');
      expect(run([join(folder, 'bin/sluice'), 'status'])).toEqual({
        code: 1,
        out: '',
        err: 'sluice: not built: run `make build`\n',
      });
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('loads neither the FFI nor a parser for the commands that talk to the agent', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-loaded-'));
    try {
      // At its end Node writes every script that it loaded.
      run([SLUICE, '--socket', '/nowhere', 'status'], { env: { NODE_V8_COVERAGE: folder } });
      const loaded = readdirSync(folder)
        .map((file) => readFileSync(join(folder, file), 'utf8'))
        .join('');
      for (const part of ['ffi-napi', '/pino/']) expect(loaded).not.toContain(part);
      // Each file of the bundle names the sources that are in it.
      const files = new Set([...loaded.matchAll(/"file:\/\/([^"]+\/dist\/[^"]+)"/g)].map(([, file]) => file));
      const sources = [...files].flatMap((file = '') =>
        [...readFileSync(file, 'utf8').matchAll(/^\/\/(?:#region)? (\S+\.[a-z]+)$/gm)].map(
          ([, source = '']) => source,
        ),
      );
      expect(sources).toContain('src/cli/client.ts');
      expect(sources.some((source) => source.startsWith('node_modules/commander/'))).toBe(true);
      const unwanted = /^(loader|node_modules\/(zod|yaml|prom-client))\//;
      expect(sources.filter((source) => unwanted.test(source))).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
