import { describe, expect, it } from 'vitest';
import { checkResources } from '../../policy/schema/check.js';
import { parseSources } from '../../policy/schema/parse.js';
import { BAD_CLUSTER_POLICIES } from './bad-cluster-policies.js';
import { BAD_INPUTS } from './bad-input.js';

const FILE = 'in.yaml';

describe('definitions that are refused', () => {
  it.each([...BAD_INPUTS, ...BAD_CLUSTER_POLICIES].map((input) => [input.name, input] as const))(
    '%s',
    (_, input) => {
      const start = performance.now();
      const { resources, errors } = parseSources([{ file: FILE, text: input.text }]);
      const all = [...errors, ...checkResources(resources)];
      const first = all.find((error) => error.code === input.code) ?? all[0];
      const summary = all.map((error) => error.toLine()).join('\n');
      expect(first?.code, summary).toBe(input.code);
      if (input.line !== undefined) expect(first?.line, summary).toBe(input.line);
      expect(first?.field, summary).toBe(input.field);
      if (input.says !== undefined) expect(first?.message).toContain(input.says.replace('<file>', FILE));
      for (const error of all) {
        expect(error.toLine()).toMatch(/^in\.yaml(:\d+)?: [^\n]+ \(SLU\d{4}\)$/);
        expect(error.toLine().length).toBeLessThan(600);
      }
      expect(performance.now() - start).toBeLessThan(2000);
    },
  );

  it('are many', () => {
    const count = (prefix: string): number =>
      BAD_INPUTS.filter((input) => input.name.startsWith(prefix)).length;
    expect(BAD_INPUTS.length).toBeGreaterThanOrEqual(150);
    expect(count('NetworkPolicy')).toBeGreaterThanOrEqual(40);
    expect(BAD_CLUSTER_POLICIES.length).toBeGreaterThanOrEqual(60);
  });

  it('leave the other documents of the file', () => {
    const text =
      'apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: x\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n';
    const { resources, errors } = parseSources([{ file: FILE, text }]);
    expect(resources.map((resource) => resource.name)).toEqual(['a', 'b']);
    expect(errors.map((error) => error.toLine())).toEqual([
      'in.yaml:5: apiVersion: is required; every definition has apiVersion and kind (SLU1104)',
    ]);
  });
});
