import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Btf } from './btf.js';
import { elfSections } from './elf.js';
import { emitTypes } from './emit.js';
import { emitKernel } from './emit-kernel.js';
import { mergeLayouts, readLayout } from './layout.js';

/**
 * Writes loader/abi/gen from BTF. Run in the checkout's root by `make gen`:
 *
 *   node generate.js [--check] [OBJECT...]
 *
 * OBJECT defaults to build/sluice.bpf.o. With --check nothing is written; exit status 1 if a file
 * would change. $CLANG (clang-19) compiles loader/abi/kernel.c.
 */

const OUT = 'loader/abi/gen';

function btfOf(path: string): Btf {
  const section = elfSections(readFileSync(path)).find(({ name }) => name === '.BTF');
  if (section === undefined) throw new Error(`${path} has no .BTF section: compile it with -g`);
  return Btf.parse(section.data);
}

function kernelBtf(): Btf {
  const object = 'build/abi/kernel.o';
  mkdirSync(dirname(object), { recursive: true });
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  execFileSync(
    process.env.CLANG ?? 'clang-19',
    // The C library's headers need to know a 64 bit architecture; all of them give one layout.
    [
      ...['-g', '-O2', '-target', 'bpf', `-D__${arch}__`, `-I/usr/include/${arch}-linux-gnu`],
      ...['-c', 'loader/abi/kernel.c', '-o', object],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  return btfOf(object);
}

function main(args: readonly string[]): number {
  const check = args.includes('--check');
  const paths = args.filter((arg) => !arg.startsWith('--'));
  const objects = paths.length > 0 ? paths : ['build/sluice.bpf.o'];
  const layout = mergeLayouts(
    objects.map((path) => {
      try {
        return [path, readLayout(btfOf(path))] as const;
      } catch (error) {
        throw new Error(`${path}: ${(error as Error).message}`);
      }
    }),
  );
  const names = objects.map((path) => basename(path));
  const files = { 'types.gen.ts': emitTypes(layout, names), 'kernel.gen.ts': emitKernel(kernelBtf()) };
  let stale = 0;
  for (const [name, text] of Object.entries(files)) {
    const path = join(OUT, name);
    let present = '';
    try {
      present = readFileSync(path, 'utf8');
    } catch {
      // Not generated yet.
    }
    if (present === text) continue;
    if (check) {
      console.error(`${path} is not what the BTF says: run \`make gen\` and commit it`);
      stale++;
    } else {
      mkdirSync(OUT, { recursive: true });
      writeFileSync(path, text);
      console.log(`wrote ${path}`);
    }
  }
  return stale === 0 ? 0 : 1;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  console.error(`generate: ${(error as Error).message}`);
  process.exitCode = 1;
}
