import { expect, it } from 'vitest';
import { formatAddress, isUnset } from '../../policy/address.js';
import { innerAddress, NO_KEY } from './inner-address.js';
import { ownAddresses, reachOver, tunnelEnd } from './reach.js';

const both = { addresses: ['192.0.2.7', '2001:db8::7'] };
const six = { addresses: ['2001:db8::7'] };
const text = (address: Uint8Array): string => (isUnset(address) ? '' : formatAddress(address));

function reach(
  nodeRouting: 'overlay' | 'direct' | 'none',
  node: { readonly addresses: readonly string[] },
  own?: { readonly addresses: readonly string[] },
): string[] {
  const found = reachOver({ nodeRouting, nodeAddresses: 'auto', nodeEncryption: 'none' }, () => [
    '192.0.2.1',
  ])({ name: 'other', ...node }, own);
  return [text(found.pods(4)), text(found.pods(6)), text(found.node)];
}

it('sends both families through one tunnel, over IPv4 where both nodes have it', () => {
  expect(reach('overlay', both)).toEqual(['192.0.2.7', '192.0.2.7', '192.0.2.7']);
  expect(reach('overlay', both, six)).toEqual(['2001:db8::7', '2001:db8::7', '2001:db8::7']);
  expect(reach('overlay', six, both)).toEqual(['2001:db8::7', '2001:db8::7', '2001:db8::7']);
});

it('knows no way to a node without an address of a family that this one has', () => {
  expect(reach('overlay', six)).toEqual(['', '', '']);
  expect(reach('overlay', { addresses: [] })).toEqual(['', '', '']);
});

it('takes the address of the family of the packet as the next hop on a segment, and the routes without', () => {
  expect(reach('direct', both)).toEqual(['192.0.2.7', '2001:db8::7', '']);
  expect(reach('direct', six)).toEqual(['', '2001:db8::7', '']);
  expect(reach('none', both)).toEqual(['', '', '']);
});

it("takes this node's addresses from the settings, from its object, or from the uplinks", () => {
  expect(ownAddresses(['192.0.2.9'], both, ['192.0.2.1'])).toEqual(['192.0.2.9']);
  expect(ownAddresses('auto', both, ['192.0.2.1'])).toEqual(both.addresses);
  expect(ownAddresses('auto', { addresses: [] }, ['192.0.2.1'])).toEqual(['192.0.2.1']);
  expect(ownAddresses('auto', undefined, ['192.0.2.1'])).toEqual(['192.0.2.1']);
});

it('reaches a node inside WireGuard by its name, and not at all while it has told no key', () => {
  const reach = reachOver(
    { nodeRouting: 'overlay', nodeAddresses: 'auto', nodeEncryption: 'wireguard' },
    () => ['192.0.2.1'],
  );
  const named = { name: 'other', ...both };
  const inner = innerAddress('other');
  expect(inner[0]).toBe(0xfd);
  expect(innerAddress('another')).not.toEqual(inner);
  const found = reach({ ...named, publicKey: 'key' }, undefined);
  expect([found.pods(4), found.pods(6), found.node]).toEqual([inner, inner, inner]);
  const silent = reach(named, undefined);
  expect([silent.pods(4), silent.node]).toEqual([NO_KEY, NO_KEY]);
  const endOf = tunnelEnd({ nodeAddresses: 'auto' }, () => ['192.0.2.1']);
  expect([endOf(both, undefined), endOf(both, six), endOf(six, undefined)]).toEqual([
    '192.0.2.7',
    '2001:db8::7',
    undefined,
  ]);
});
