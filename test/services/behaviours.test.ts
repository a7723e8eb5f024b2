import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

/**
 * Every behaviour of a service proxy that Kubernetes tests is tested here by its id, or needs a cluster's own programs.
 * An id counts as tested when it begins a test's name.
 */
const FILE = '../shared/conformance/services/behaviours.json';

/** What is not ours to do on a node, and why; our part of each is tested under the same id. */
const CLUSTER_PART: Readonly<Record<string, string>> = {
  'NOEP-2':
    'that a pod in phase Failed is in no slice is the work of the EndpointSlice controller; here: a container that is gone is no endpoint, whatever the service publishes',
  'HEAD-3':
    'the default EndpointSlice controller is a program of the cluster; here: the selector is not followed',
  'CIP-7': 'tested with a stand-in for the API server (test/kubernetes)',
  'EPS-2': 'mirroring Endpoints is the work of a controller; here: any EndpointSlice is served',
  'EPS-3': 'the CNAME is the work of the cluster DNS; here: nothing is served',
};

function testFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return testFiles(path);
    return entry.name.endsWith('.test.ts') && entry.name !== 'behaviours.test.ts' ? [path] : [];
  });
}

/** Ids at the beginning of texts: names of tests, or the first cell of a row of a table of tests. */
function tested(): Set<string> {
  const found = new Set<string>();
  for (const path of ['test/services', 'test/kubernetes', 'test/bpf', 'test/node'].flatMap(testFiles)) {
    for (const [, ids = ''] of readFileSync(path, 'utf8').matchAll(/['"`]((?:[A-Z]{2,5}-\d+ ?)+)/g))
      for (const id of ids.trim().split(' ')) found.add(id);
  }
  return found;
}

const skipped = existsSync(FILE) ? '' : ` (skipped: ${FILE} is not there)`;

it.skipIf(skipped !== '')(`every behaviour of services has a test by its id${skipped}`, () => {
  const { behaviours } = JSON.parse(readFileSync(FILE, 'utf8')) as { behaviours: { id: string }[] };
  const ids = behaviours.map(({ id }) => id);
  const have = tested();
  expect(ids.filter((id) => !have.has(id))).toEqual([]);
  expect(Object.keys(CLUSTER_PART).filter((id) => !ids.includes(id))).toEqual([]);
});
