import { describe, expect, it } from 'vitest';
import type { NamespaceResource, Resource } from '../../policy/model/resources.js';
import { ObjectSet, type Proposal, type Source } from './objects.js';

function namespace(name: string, tier = 'x', file = 'a.yaml', line = 1): NamespaceResource {
  return {
    kind: 'Namespace',
    name,
    labels: { tier },
    origin: { file, line },
    source: { metadata: { name, labels: { tier } } },
  };
}

function put(set: ObjectSet, proposal: Proposal, source: Source): string[] {
  if (!proposal.ok) throw new Error(proposal.errors.map((error) => error.toLine()).join('\n'));
  set.stage(proposal.edits, source);
  return proposal.changes.map((change) => `${change.name} ${change.action}`);
}

function errors(proposal: Proposal): string[] {
  return proposal.ok ? [] : proposal.errors.map((error) => error.toLine());
}

function names(resources: readonly Resource[]): string[] {
  return resources.map((resource) => resource.name).sort();
}

describe('ObjectSet', () => {
  it('reports created, configured, unchanged and deleted', () => {
    const set = new ObjectSet();
    expect(put(set, set.proposeApply([namespace('b'), namespace('a')]), 'api')).toEqual([
      'a created',
      'b created',
    ]);
    expect(put(set, set.proposeApply([namespace('a'), namespace('b', 'y')]), 'api')).toEqual([
      'a unchanged',
      'b configured',
    ]);
    expect(put(set, set.proposeDelete([namespace('a')]), 'api')).toEqual(['a deleted']);
    expect(names(set.all())).toEqual(['b']);
    expect(set.count('Namespace')).toBe(1);
  });

  it('takes staged edits back', () => {
    const set = new ObjectSet();
    put(set, set.proposeApply([namespace('a'), namespace('b')]), 'api');
    const before = set.all();
    const proposal = set.proposeApply([namespace('a', 'z'), namespace('c')]);
    if (!proposal.ok) throw new Error('refused');
    set.stage(proposal.edits, 'api')();
    expect(set.all()).toEqual(before);
    expect(set.sourceOf('Namespace c')).toBeUndefined();
  });

  it('leaves objects of container runtimes to them', () => {
    const set = new ObjectSet();
    put(set, set.proposeRuntime([namespace('r', 'x', 'docker')], []), 'runtime');
    put(set, set.proposeApply([namespace('a')]), 'api');
    const said = ['mine.yaml:7: Namespace r comes from docker: change it there (SLU2501)'];
    expect(errors(set.proposeApply([namespace('r', 'y', 'mine.yaml', 7)]))).toEqual(said);
    expect(errors(set.proposeDelete([namespace('r', 'y', 'mine.yaml', 7)]))).toEqual(said);
    expect(errors(set.proposeFolder([namespace('r', 'y', 'mine.yaml', 7)]))).toEqual(said);
    expect(errors(set.proposeRuntime([namespace('a', 'y', 'docker')], []))).toEqual([
      'docker:1: Namespace a comes from a.yaml: change it there (SLU2501)',
    ]);
    expect(
      put(set, set.proposeRuntime([], ['Namespace a', 'Namespace r', 'Namespace z']), 'runtime'),
    ).toEqual(['r deleted']);
    expect(names(set.all())).toEqual(['a']);
  });

  it('keeps the two sources apart', () => {
    const set = new ObjectSet();
    put(set, set.proposeFolder([namespace('f', 'x', 'f.yaml')]), 'folder');
    put(set, set.proposeApply([namespace('a')]), 'api');
    expect(errors(set.proposeApply([namespace('f', 'y', 'mine.yaml', 7)]))).toEqual([
      'mine.yaml:7: Namespace f comes from f.yaml: change it there (SLU2501)',
    ]);
    expect(errors(set.proposeDelete([namespace('f', 'y', 'mine.yaml', 7)]))).toHaveLength(1);
    expect(errors(set.proposeFolder([namespace('a', 'x', 'f.yaml', 9)]))[0]).toMatch(
      /^f\.yaml:9: Namespace a is also applied/,
    );
    expect(put(set, set.proposeFolder([]), 'folder')).toEqual(['f deleted']);
    expect(names(set.all())).toEqual(['a']);
  });

  it('refuses one object twice and deletion of what is not there', () => {
    const set = new ObjectSet();
    put(set, set.proposeApply([namespace('shop')]), 'api');
    expect(errors(set.proposeApply([namespace('d'), namespace('d', 'y', 'a.yaml', 5)]))).toEqual([
      'a.yaml:5: Namespace d is defined twice (also in a.yaml:1): remove or rename one (SLU1301)',
    ]);
    expect(errors(set.proposeDelete([namespace('shpo')]))).toEqual([
      'a.yaml:1: Namespace shpo is not defined; did you mean "shop"? (SLU2502)',
    ]);
  });

  it('sees that a definition of the folder moved to another line', () => {
    const set = new ObjectSet();
    put(set, set.proposeFolder([namespace('f')]), 'folder');
    const proposal = set.proposeFolder([namespace('f', 'x', 'a.yaml', 4)]);
    expect(proposal).toMatchObject({
      ok: true,
      edits: [{ key: 'Namespace f' }],
      changes: [{ action: 'unchanged' }],
    });
    expect(set.proposeFolder([namespace('f')])).toMatchObject({ edits: [] });
  });
});
