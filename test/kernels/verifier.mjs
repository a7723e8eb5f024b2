// verifier.mjs VERSION OUTPUT: the verifier's instruction counts in a guest's output against those that are kept in
// verifier.json. More than GROWTH times as many, a program that is missing, or more than half of the kernel's limit
// is an error. KEEP=1 writes what was seen.
import { readFileSync, writeFileSync } from 'node:fs';

const GROWTH = 1.5;
/** BPF_COMPLEXITY_LIMIT_INSNS. */
const LIMIT = 1_000_000;
const [, , version, output] = process.argv;
const file = new URL('verifier.json', import.meta.url);
const kept = JSON.parse(readFileSync(file, 'utf8'));
const seen = Object.fromEntries(
  [...readFileSync(output, 'utf8').matchAll(/^verifier (\w+) (\d+)$/gm)].map(([, name, count]) => [
    name,
    Number(count),
  ]),
);
const known = kept[version] ?? {};
let failed = Object.keys(seen).length === 0;
if (failed) console.log('no program was loaded');
for (const name of new Set([...Object.keys(seen), ...Object.keys(known)])) {
  const [now, before] = [seen[name], known[name]];
  const wrong =
    now === undefined
      ? 'not loaded'
      : now > LIMIT / 2
        ? 'near the limit of the kernel'
        : before !== undefined && now > GROWTH * before && now > 10_000
          ? `more than ${GROWTH} times as many`
          : '';
  if (wrong !== '' && process.env.KEEP !== '1') failed = true;
  console.log(
    `  ${name.padEnd(24)} ${String(now ?? '-').padStart(8)} instructions, kept: ${String(before ?? '-').padStart(8)}  ${wrong}`,
  );
}
if (process.env.KEEP === '1' && Object.keys(seen).length > 0) {
  writeFileSync(file, `${JSON.stringify({ ...kept, [version]: seen }, null, 2)}\n`);
}
process.exitCode = failed ? 1 : 0;
