/** Where things stand in the store, below the prefix of the settings. */

/** Kinds that hosts share. */
export const SHARED_KINDS = [
  'Namespace',
  'Network',
  'NetworkPolicy',
  'ClusterNetworkPolicy',
  'Service',
  'EndpointSlice',
] as const;
export type SharedKind = (typeof SHARED_KINDS)[number];

export type Place =
  /** A definition, as a document in JSON. */
  | { readonly type: 'object'; readonly kind: string }
  /** A host (`v1` Node); its lease is the host's. */
  | { readonly type: 'node'; readonly node: string }
  /** An address of a container (`v1` Pod); its lease is the host's. */
  | { readonly type: 'container'; readonly node: string }
  /** A part of a network's range; the value is the host that has it. */
  | { readonly type: 'block'; readonly network: string; readonly range: string };

export class Keys {
  readonly prefix: string;

  constructor(prefix: string) {
    this.prefix = `${prefix.replace(/\/+$/, '')}/`;
  }

  object(kind: string, namespace: string | undefined, name: string): string {
    return `${this.prefix}objects/${kind}/${namespace ?? '_'}/${name}`;
  }

  node(node: string): string {
    return `${this.prefix}nodes/${node}`;
  }

  containers(node: string): string {
    return `${this.prefix}containers/${node}/`;
  }

  blocks(network: string): string {
    return `${this.prefix}blocks/${network}/`;
  }

  /** The range with `_` for the slash. */
  block(network: string, range: string): string {
    return `${this.blocks(network)}${range.replace('/', '_')}`;
  }

  /** What a key is; undefined: none of ours. */
  place(key: string): Place | undefined {
    if (!key.startsWith(this.prefix)) return undefined;
    const [area, ...parts] = key.slice(this.prefix.length).split('/');
    const [first, second] = parts;
    if (first === undefined || first === '') return undefined;
    if (area === 'nodes' && parts.length === 1) return { type: 'node', node: first };
    if (area === 'containers' && parts.length === 3) return { type: 'container', node: first };
    if (area === 'objects' && parts.length === 3) return { type: 'object', kind: first };
    if (area === 'blocks' && second !== undefined && parts.length === 2)
      return { type: 'block', network: first, range: second.replace('_', '/') };
    return undefined;
  }
}
