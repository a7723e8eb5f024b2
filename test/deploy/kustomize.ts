/** Builds a kustomization without the tool: the fields that the project's files use; others are an error. */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';

/** An object of the API. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

const kustomization = z.strictObject({
  apiVersion: z.literal('kustomize.config.k8s.io/v1beta1'),
  kind: z.literal('Kustomization'),
  namespace: z.string().optional(),
  resources: z.array(z.string()),
  patches: z.array(z.strictObject({ path: z.string() })).default([]),
  images: z
    .array(
      z.strictObject({ name: z.string(), newName: z.string().optional(), newTag: z.string().optional() }),
    )
    .default([]),
});

const CLUSTER_WIDE = ['ClusterRole', 'ClusterRoleBinding', 'CustomResourceDefinition'];

export function documentsOf(text: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw error;
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
}

/** The objects of a kustomization. `folder`: where its kustomization.yaml is. */
export function build(folder: string): Manifest[] {
  const [document] = documentsOf(readFileSync(join(folder, 'kustomization.yaml'), 'utf8'));
  const { namespace, resources, patches, images } = kustomization.parse(document);
  const found = resources.flatMap((resource) => {
    const path = join(folder, resource);
    return resource.endsWith('.yaml') ? documentsOf(readFileSync(path, 'utf8')) : build(path);
  });
  for (const { path } of patches)
    for (const patch of documentsOf(readFileSync(join(folder, path), 'utf8'))) {
      const at = found.findIndex(
        ({ kind, metadata }) => kind === patch.kind && metadata.name === patch.metadata.name,
      );
      const target = found[at];
      if (target === undefined) throw new Error(`${path}: there is no ${patch.kind} ${patch.metadata.name}`);
      found[at] = merged(target, patch) as Manifest;
    }
  return found.map((manifest) => {
    let text = JSON.stringify(manifest);
    for (const { name, newName = name, newTag } of images)
      text = text.replaceAll(
        `"image":"${name}"`,
        `"image":"${newName}${newTag === undefined ? '' : `:${newTag}`}"`,
      );
    const copy = JSON.parse(text) as Manifest;
    if (namespace === undefined || CLUSTER_WIDE.includes(copy.kind)) return copy;
    return { ...copy, metadata: { ...copy.metadata, namespace } };
  });
}

/** A strategic merge without lists: the project's patches have none. */
function merged(target: unknown, patch: unknown): unknown {
  if (Array.isArray(patch)) throw new Error('lists are not merged');
  if (typeof patch !== 'object' || patch === null || typeof target !== 'object' || target === null)
    return patch;
  const result: Record<string, unknown> = { ...target };
  for (const [name, value] of Object.entries(patch)) result[name] = merged(result[name], value);
  return result;
}

/** Files that a kustomization is made of, its bases included. */
export function filesOf(folder: string): string[] {
  const file = join(folder, 'kustomization.yaml');
  const [document] = documentsOf(readFileSync(file, 'utf8'));
  const { resources, patches } = kustomization.parse(document);
  return [
    file,
    ...patches.map(({ path }) => join(folder, path)),
    ...resources.flatMap((name) =>
      name.endsWith('.yaml') ? [join(dirname(file), name)] : filesOf(join(folder, name)),
    ),
  ];
}
