import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let root: string | undefined;

/** The package's folder: where its package.json is, above this file in a checkout and in an installation. */
export function packageRoot(): string {
  if (root !== undefined) return root;
  const start = dirname(fileURLToPath(import.meta.url));
  for (let folder = start; ; folder = dirname(folder)) {
    const file = join(folder, 'package.json');
    if (existsSync(file)) {
      const { name } = JSON.parse(readFileSync(file, 'utf8')) as { name?: string };
      if (name === 'sluice') {
        root = folder;
        return folder;
      }
    }
    if (folder === dirname(folder)) throw new Error(`no package.json of sluice above ${start}`);
  }
}

/** A compiled object that the package ships, such as `sluice.bpf.o`. The file need not exist. */
export function objectPath(name = 'sluice.bpf.o'): string {
  return join(packageRoot(), 'dist', 'bpf', name);
}
