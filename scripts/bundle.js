// @ts-check
/**
 * Compiles TypeScript, unchecked: `bundle.js package` makes dist/, `bundle.js tools` build/js, `bundle.js generator` what
 * writes the codecs.
 *
 * The package is few files, which load faster than hundreds do: what only some commands need stays apart from what all
 * of them do. Packages stay packages, but for some (INCLUDED) of which the start would load many files, or more than
 * is used. Benches and scripts stay file for file, as they are started by their path.
 */
import { readdirSync, rmSync } from 'node:fs';
import { isAbsolute, join, relative } from 'node:path';
import { rolldown } from 'rolldown';

const ROOT = join(import.meta.dirname, '..');

/** @param {string} folder */
function sources(folder) {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .map((file) => join(folder, file.slice(0, -'.ts'.length)));
}

/** @type {Record<string, { readonly folder: string, readonly entries: readonly string[], readonly whole: boolean }>} */
const TARGETS = {
  package: {
    folder: 'dist',
    // What is started or imported by its path.
    entries: [
      'src/cli/main',
      'src/cli/program',
      'src/dns/worker',
      'loader/info',
      'loader/object',
      'loader/paths',
    ],
    whole: false,
  },
  generator: { folder: 'build/gen', entries: ['loader/abi/generate'], whole: false },
  tools: { folder: 'build/js', entries: [...sources('bench'), ...sources('scripts')], whole: true },
};

const target = TARGETS[process.argv[2] ?? ''];
if (target === undefined) {
  console.error(`bundle: name one of ${Object.keys(TARGETS).join(', ')}`);
  process.exit(2);
}
const { folder, entries, whole } = target;
const ours = new Set(entries.map((name) => `${name}.ts`));
/** Packages that become part of dist/, without what is not used of them. */
const INCLUDED = new Set(
  whole ? [] : ['zod', 'yaml', 'prom-client', '@opentelemetry/api', 'commander', 'ip-address'],
);
const bundle = await rolldown({
  cwd: ROOT,
  logLevel: 'warn',
  input: Object.fromEntries(entries.map((name) => [name, `${name}.ts`])),
  platform: 'node',
  external: (id) => !id.startsWith('.') && !isAbsolute(id) && !ours.has(id) && !INCLUDED.has(id),
  resolve: { extensionAlias: { '.js': ['.ts', '.js'] } },
  tsconfig: join(ROOT, 'tsconfig.json'),
});
const { output } = await bundle.write({
  dir: join(ROOT, folder),
  format: 'esm',
  entryFileNames: '[name].js',
  ...(whole ? { preserveModules: true, preserveModulesRoot: ROOT } : { chunkFileNames: 'chunks/[name].js' }),
});
await bundle.close();

const written = new Set(output.map(({ fileName }) => fileName));
for (const entry of readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })) {
  const path = join(entry.parentPath, entry.name);
  if (entry.isFile() && entry.name.endsWith('.js') && !written.has(relative(join(ROOT, folder), path)))
    rmSync(path);
}
