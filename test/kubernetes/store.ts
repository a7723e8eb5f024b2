/** The stand-in's objects, with the history that watches are served from. */
import { randomUUID } from 'node:crypto';
import { apiVersionOf, keyOf, type ResourceType, type Stored } from './resources.js';

/** A change as it happened. `before`: what selectors that no longer match need. */
export interface StoredEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly version: number;
  readonly object: Stored;
  readonly before: Stored | undefined;
}

/** What a client may give for an object. */
export type Given = Record<string, unknown> & {
  readonly metadata: { readonly name: string; readonly namespace?: string } & Record<string, unknown>;
};

/** A refusal, as the API has it. */
export class Refused extends Error {
  readonly code: number;
  readonly reason: string;

  constructor(code: number, reason: string, message: string) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

export class Table {
  readonly type: ResourceType;
  readonly objects = new Map<string, Stored>();
  readonly listeners = new Set<(event: StoredEvent) => void>();
  history: StoredEvent[] = [];
  /** Changes up to this version are forgotten. */
  compacted = 0;
  #keys: readonly string[] | undefined;

  constructor(type: ResourceType) {
    this.type = type;
  }

  /** Keys in the order of lists. */
  get keys(): readonly string[] {
    this.#keys ??= [...this.objects.keys()].sort();
    return this.#keys;
  }

  /** Keys came or went. */
  reorder(): void {
    this.#keys = undefined;
  }
}

/** Events that are kept for each kind. */
const HISTORY = 5000;

export class Store {
  readonly #tables = new Map<string, Table>();
  #version = 1;

  get version(): number {
    return this.#version;
  }

  get tables(): IterableIterator<Table> {
    return this.#tables.values();
  }

  table(type: ResourceType): Table {
    const key = `${apiVersionOf(type)}/${type.plural}`;
    let table = this.#tables.get(key);
    if (table === undefined) {
      table = new Table(type);
      this.#tables.set(key, table);
    }
    return table;
  }

  /** Creates or replaces; the spec decides about the generation. */
  put(
    type: ResourceType,
    given: Given,
    options: { readonly create?: boolean; readonly status?: boolean } = {},
  ): Stored {
    const table = this.table(type);
    const { metadata } = given;
    const key = type.namespaced ? `${metadata.namespace ?? 'default'}/${metadata.name}` : metadata.name;
    const before = table.objects.get(key);
    if (options.create === true && before !== undefined)
      throw new Refused(409, 'AlreadyExists', `${type.plural} "${metadata.name}" already exists`);
    const wanted = metadata.resourceVersion;
    if (before !== undefined && typeof wanted === 'string' && wanted !== before.metadata.resourceVersion)
      throw new Refused(409, 'Conflict', 'the object has been modified');
    this.#version++;
    // The status of a node takes its labels and annotations too (nodeStatusStrategy leaves out the spec alone).
    const nodeStatus = options.status === true && type.kind === 'Node';
    const body =
      options.status === true && before !== undefined ? { ...before, status: given.status } : given;
    const sameSpec = before !== undefined && JSON.stringify(before.spec) === JSON.stringify(body.spec);
    const object: Stored = {
      ...body,
      apiVersion: apiVersionOf(type),
      kind: type.kind,
      metadata: {
        ...(options.status === true && before !== undefined ? before.metadata : metadata),
        ...(nodeStatus ? { labels: metadata.labels, annotations: metadata.annotations } : {}),
        ...(type.namespaced ? { namespace: metadata.namespace ?? 'default' } : {}),
        uid: before?.metadata.uid ?? (metadata.uid as string | undefined) ?? randomUUID(),
        creationTimestamp: before?.metadata.creationTimestamp ?? '2026-01-01T00:00:00Z',
        generation: before === undefined ? 1 : before.metadata.generation + (sameSpec ? 0 : 1),
        resourceVersion: String(this.#version),
      },
    } as Stored;
    if (before === undefined) table.reorder();
    table.objects.set(keyOf(object), object);
    this.#publish(table, {
      type: before === undefined ? 'ADDED' : 'MODIFIED',
      version: this.#version,
      object,
      before,
    });
    return object;
  }

  remove(type: ResourceType, key: string): Stored {
    const table = this.table(type);
    const before = table.objects.get(key);
    if (before === undefined) throw new Refused(404, 'NotFound', `${type.plural} "${key}" not found`);
    this.#version++;
    table.objects.delete(key);
    table.reorder();
    const object = { ...before, metadata: { ...before.metadata, resourceVersion: String(this.#version) } };
    this.#publish(table, { type: 'DELETED', version: this.#version, object, before });
    return object;
  }

  /** Forgets the history: watches and continuations from before get 410. */
  compact(): void {
    for (const table of this.#tables.values()) {
      table.history = [];
      table.compacted = this.#version;
    }
    this.#version++;
  }

  #publish(table: Table, event: StoredEvent): void {
    table.history.push(event);
    if (table.history.length > HISTORY * 2) {
      table.history = table.history.slice(-HISTORY);
      table.compacted = (table.history[0]?.version ?? 1) - 1;
    }
    for (const listener of table.listeners) listener(event);
  }
}
