import { describe, expect, it } from 'vitest';
import type { Listing, ListingName } from '../engine.js';
import { checkSelection, type Selection, select } from './selection.js';

const listing = (columns: readonly string[], ...rows: readonly (readonly string[])[]): Listing => ({
  columns,
  rows,
  objects: rows.map((row) => row.join(' ')),
});
const LISTS: Readonly<Partial<Record<ListingName, Listing>>> = {
  services: listing(['NAMESPACE', 'NAME'], ['shop', 'web'], ['shop', 'db'], ['blog', 'web']),
  backends: listing(['NAMESPACE', 'SERVICE', 'PORT'], ['shop', 'web', '1'], ['shop', 'db', '2']),
  endpoints: listing(['CONTAINER', 'NETWORK'], ['shop/web', 'net'], ['blog/web', 'net'], ['blog/db', 'net']),
  networks: listing(['NAME'], ['front'], ['back']),
  policies: listing(['NAMESPACE', 'NAME'], ['-', 'web'], ['shop', 'web']),
};

describe('a part of a listing', () => {
  it.each<[ListingName, Selection, string[]]>([
    ['services', {}, ['shop web', 'shop db', 'blog web']],
    ['services', { namespace: 'shop' }, ['shop web', 'shop db']],
    ['services', { name: 'web' }, ['shop web', 'blog web']],
    ['services', { name: 'blog/web' }, ['blog web']],
    ['services', { name: 'web', namespace: 'shop' }, ['shop web']],
    ['services', { name: 'we' }, []],
    ['backends', { name: 'shop/db' }, ['shop db 2']],
    ['endpoints', { namespace: 'blog' }, ['blog/web net', 'blog/db net']],
    ['endpoints', { name: 'web' }, ['shop/web net', 'blog/web net']],
    ['endpoints', { name: 'blog/db' }, ['blog/db net']],
    ['networks', { name: 'back' }, ['back']],
    ['policies', { namespace: 'shop' }, ['shop web']],
  ])('%s %o', (what, selection, wanted) => {
    checkSelection(what, selection);
    const list = LISTS[what] as Listing;
    const found = select(list, what, selection);
    expect(found.objects).toEqual(wanted);
    expect(found.rows.map((row) => row.join(' '))).toEqual(wanted);
    expect(found.columns).toEqual(list.columns);
  });

  it.each<[ListingName, Selection, string]>([
    ['networks', { namespace: 'shop' }, 'networks are in no namespace: leave -n out'],
    ['networks', { name: 'shop/front' }, 'networks are in no namespace: give NAME alone'],
    ['identities', { name: '7' }, 'identities have no names: leave "7" out'],
    ['flows', { name: 'web' }, 'flows have no names: leave "web" out'],
    ['services', { name: 'shop/web', namespace: 'shop' }, 'give either -n or NAMESPACE/NAME'],
  ])('refuses %s %o', (what, selection, message) => {
    expect(() => checkSelection(what, selection)).toThrow(message);
  });
});
