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
  const { namespace, resources, images } = kustomization.parse(document);
  const found = resources.flatMap((resource) => {
    const path = join(folder, resource);
    return resource.endsWith('.yaml') ? documentsOf(readFileSync(path, 'utf8')) : build(path);
  });
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

/** Files that a kustomization is made of, its bases included. */
export function filesOf(folder: string): string[] {
  const file = join(folder, 'kustomization.yaml');
  const [document] = documentsOf(readFileSync(file, 'utf8'));
  const { resources } = kustomization.parse(document);
  return [
    file,
    ...resources.flatMap((name) =>
      name.endsWith('.yaml') ? [join(dirname(file), name)] : filesOf(join(folder, name)),
    ),
  ];
}
