import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let cached: string | undefined;

/** Version of the package, from its package.json (the first one above this file). */
export function version(): string {
  cached ??= read(dirname(fileURLToPath(import.meta.url)));
  return cached;
}

function read(folder: string): string {
  try {
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      readonly version?: string;
    };
    return manifest.version ?? 'unknown';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || folder === dirname(folder)) return 'unknown';
    return read(dirname(folder));
  }
}
