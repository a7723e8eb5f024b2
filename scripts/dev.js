// @ts-check
/**
 * `make dev`: waits for changes below the source folders; after each one rebuilds, regenerates the codecs
 * if C changed, type-checks and runs the unit tests that import what changed.
 */
import { spawnSync } from 'node:child_process';
import { watch } from 'node:fs';

const FOLDERS = ['bpf', 'loader', 'policy', 'src', 'test', 'bench', 'scripts'];
const SETTLE_MS = 150;

/** @type {Set<string>} */
const changed = new Set();
/** @type {NodeJS.Timeout | undefined} */
let timer;

/** @param {string} command @param {string[]} args */
function run(command, ...args) {
  return spawnSync(command, args, { stdio: 'inherit' }).status === 0;
}

function rebuild() {
  const files = [...changed];
  changed.clear();
  console.log(`\n${files.slice(0, 5).join(', ')}${files.length > 5 ? ` and ${files.length - 5} more` : ''}`);
  const c = files.some((file) => /\.[ch]$/.test(file));
  const typescript = files.filter((file) => file.endsWith('.ts'));
  const built =
    run('make', '-s', 'bpf') && (!c || run('make', '-s', 'gen')) && run('make', '-s', 'build', 'tools');
  if (built && typescript.length > 0) {
    run(
      'node_modules/.bin/vitest',
      'related',
      '--run',
      '--project',
      'unit',
      '--passWithNoTests',
      ...typescript,
    );
  }
  console.log(built ? 'ready' : 'failed');
}

for (const folder of FOLDERS) {
  watch(folder, { recursive: true }, (_event, name) => {
    if (name === null || name.includes('gen/') || !/\.(ts|c|h)$/.test(name)) return;
    changed.add(`${folder}/${name}`);
    clearTimeout(timer);
    timer = setTimeout(rebuild, SETTLE_MS);
  });
}
console.log(`waiting for changes in ${FOLDERS.join(', ')}`);
