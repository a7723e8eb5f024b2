/** Which lines of a listing are asked for. */
import type { Listing, ListingName } from '../engine.js';
import { UsageError } from './io.js';

export interface Selection {
  /** NAME in any namespace, or NAMESPACE/NAME. */
  readonly name?: string;
  readonly namespace?: string;
}

/** Columns that say whose a line is; a container is NAMESPACE/NAME. */
const COLUMNS: Readonly<Record<ListingName, { readonly namespace?: string; readonly name?: string }>> = {
  networks: { name: 'NAME' },
  containers: { namespace: 'NAMESPACE', name: 'NAME' },
  policies: { namespace: 'NAMESPACE', name: 'NAME' },
  services: { namespace: 'NAMESPACE', name: 'NAME' },
  backends: { namespace: 'NAMESPACE', name: 'SERVICE' },
  endpoints: { namespace: 'CONTAINER', name: 'CONTAINER' },
  leases: { namespace: 'CONTAINER', name: 'CONTAINER' },
  identities: { namespace: 'NAMESPACE' },
  flows: {},
};

/** Throws UsageError if the list has no such names. */
export function checkSelection(what: ListingName, { name, namespace }: Selection): void {
  const columns = COLUMNS[what];
  if (name !== undefined && columns.name === undefined)
    throw new UsageError(`${what} have no names: leave "${name}" out`);
  if (name?.includes('/') === true && columns.namespace === undefined)
    throw new UsageError(`${what} are in no namespace: give NAME alone`);
  if (namespace === undefined) return;
  if (columns.namespace === undefined) throw new UsageError(`${what} are in no namespace: leave -n out`);
  if (name?.includes('/') === true) throw new UsageError('give either -n or NAMESPACE/NAME');
}

/** The lines of a listing that are asked for. */
export function select(listing: Listing, what: ListingName, { name, namespace }: Selection): Listing {
  if (name === undefined && namespace === undefined) return listing;
  const columns = COLUMNS[what];
  const [wanted, inside] = name?.includes('/') === true ? partsOf(name).reverse() : [name, namespace];
  const at = (column: string | undefined): number => listing.columns.indexOf(column ?? '');
  const [nameAt, namespaceAt] = [at(columns.name), at(columns.namespace)];
  const isWanted = (row: readonly string[]): boolean =>
    (wanted === undefined || partsOf(row[nameAt] ?? '').at(-1) === wanted) &&
    (inside === undefined || partsOf(row[namespaceAt] ?? '')[0] === inside);
  const kept = listing.rows.flatMap((row, i) => (isWanted(row) ? [i] : []));
  return {
    columns: listing.columns,
    rows: kept.map((i) => listing.rows[i] ?? []),
    objects: kept.map((i) => listing.objects[i]),
  };
}

function partsOf(text: string): string[] {
  return text.split('/', 2);
}
