// @ts-check
/**
 * The package's JavaScript, dist/: few files, which load faster than hundreds do. What only some commands need stays
 * apart from what all of them do; packages stay packages.
 */
import { readdirSync, rmSync } from 'node:fs';
import { isAbsolute, join, relative } from 'node:path';
import { rolldown } from 'rolldown';

const ROOT = join(import.meta.dirname, '..');
const DIST = join(ROOT, 'dist');

/** What is started or imported by its path. */
const ENTRIES = [
  'src/cli/main',
  'src/cli/program',
  'src/dns/worker',
  'loader/info',
  'loader/object',
  'loader/paths',
];

const bundle = await rolldown({
  cwd: ROOT,
  logLevel: 'warn',
  input: Object.fromEntries(ENTRIES.map((name) => [name, `${name}.ts`])),
  platform: 'node',
  external: (id) => !id.startsWith('.') && !isAbsolute(id) && !ENTRIES.includes(id.replace(/\.ts$/, '')),
  resolve: { extensionAlias: { '.js': ['.ts', '.js'] } },
  tsconfig: join(ROOT, 'tsconfig.build.json'),
});
const { output } = await bundle.write({
  dir: DIST,
  format: 'esm',
  entryFileNames: '[name].js',
  chunkFileNames: 'chunks/[name].js',
});
await bundle.close();

const written = new Set(output.map(({ fileName }) => fileName));
for (const entry of readdirSync(DIST, { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name);
  if (entry.isFile() && entry.name.endsWith('.js') && !written.has(relative(DIST, path))) rmSync(path);
}
