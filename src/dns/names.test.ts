import { describe, expect, it } from 'vitest';
import { type NamedObject, NameTable } from './names.js';

const object = (key: string, places: NamedObject['places']): readonly [string, NamedObject] => {
  const [namespace = '', name = ''] = key.split('/');
  return [key, { key, namespace, name, places }];
};

function table(): NameTable {
  const names = new NameTable();
  names.update({
    networks: [
      [
        'town',
        {
          name: 'town',
          ipv4: { cidr: '10.1.0.0/24', gateway: '10.1.0.1' },
          ipv6: { cidr: 'fd01::/64', gateway: 'fd01::1' },
        },
      ],
      ['farm', { name: 'farm', ipv4: { cidr: '10.2.0.0/24', gateway: '10.2.0.1' } }],
    ],
    objects: [
      object('shop/web', [{ network: 'town', ipv4: '10.1.0.2', ipv6: 'fd01::2', aliases: ['WWW'] }]),
      object('prod/web', [{ network: 'town', ipv4: '10.1.0.3' }]),
      object('shop/cart', [{ network: 'town', ipv4: '10.1.0.4' }]),
      object('prod/cow', [{ network: 'farm', ipv4: '10.2.0.2' }]),
      object('prod/both', [
        { network: 'farm', ipv4: '10.2.0.3', aliases: ['cow'] },
        { network: 'town', ipv4: '10.1.0.5' },
      ]),
    ],
  });
  return names;
}

const cart = '10.1.0.4';

describe('NameTable', () => {
  it('knows containers by name and alias, with network or namespace, without case', () => {
    const names = table();
    for (const name of ['www', 'www.town', 'www.shop'])
      expect(names.lookup('town', cart, name)).toEqual({ ipv4: ['10.1.0.2'], ipv6: ['fd01::2'] });
    expect(names.lookup('town', cart, 'web.prod')).toEqual({ ipv4: ['10.1.0.3'], ipv6: [] });
    for (const name of ['web.farm', 'web.nowhere', '', '.', 'www.town.town', 'example.org'])
      expect(names.lookup('town', cart, name)).toBeUndefined();
  });

  it('prefers the namespace of who asks', () => {
    const names = table();
    expect(names.lookup('town', cart, 'web')?.ipv4).toEqual(['10.1.0.2']);
    expect(names.lookup('town', '10.1.0.5', 'web')?.ipv4).toEqual(['10.1.0.3']);
    expect(names.lookup('town', '192.0.2.1', 'web')?.ipv4).toEqual(['10.1.0.2', '10.1.0.3']);
  });

  it('shows a container the names of its own networks only', () => {
    const names = table();
    expect(names.lookup('town', cart, 'cow')).toBeUndefined();
    expect(names.lookup('farm', cart, 'cow')).toBeUndefined(); // through the other network's gateway
    expect(names.lookup('town', '10.1.0.5', 'cow')?.ipv4).toEqual(['10.2.0.2', '10.2.0.3']);
    expect(names.lookup('farm', '10.2.0.3', 'web')?.ipv4).toEqual(['10.1.0.3']);
  });

  it('shows attachments of one network namespace the names of all their networks, until they go', () => {
    const names = table();
    const [key, second] = object('shop/cart-eth1', [{ network: 'farm', ipv4: '10.2.0.4' }]);
    const [, first] = object('shop/cart', [{ network: 'town', ipv4: cart }]);
    const netns = '/run/netns/cart';
    const both = [
      [key, { ...second, netns }],
      ['shop/cart', { ...first, netns }],
    ] as const;
    names.update({ networks: [], objects: both });
    expect(names.lookup('town', cart, 'cow')?.ipv4).toEqual(['10.2.0.2', '10.2.0.3']);
    expect(names.lookup('farm', '10.2.0.4', 'web')?.ipv4).toEqual(['10.1.0.2']);
    names.update({ networks: [], objects: [[key, undefined]] });
    expect(names.lookup('town', cart, 'cow')).toBeUndefined();
  });

  it('names addresses within the same bounds', () => {
    const names = table();
    expect(names.nameOf('town', cart, 'fd01::2')).toBe('web.town');
    expect(names.nameOf('town', cart, '10.2.0.2')).toBeNull();
    expect(names.nameOf('town', cart, '10.1.0.77')).toBeNull();
    expect(names.nameOf('town', cart, '192.0.2.7')).toBeUndefined();
  });

  it('gives addresses names that lead back, also in networks with dots and capitals in their names', () => {
    const names = table();
    const range = { cidr: '10.3.0.0/24', gateway: '10.3.0.1' };
    names.update({
      networks: [['cni.Pods', { name: 'cni.Pods', ipv4: range }]],
      objects: [object('Shop/One', [{ network: 'cni.Pods', ipv4: '10.3.0.2' }])],
    });
    const name = names.nameOf('cni.Pods', '10.3.0.2', '10.3.0.2') ?? '';
    for (const asked of [name, 'One.Shop'])
      expect(names.lookup('cni.Pods', '10.3.0.2', asked.toLowerCase())?.ipv4).toEqual(['10.3.0.2']);
    expect(names.lookup('cni.Pods', '10.3.0.2', 'one.pods')).toBeUndefined();
  });

  it('follows changes', () => {
    const names = table();
    names.update({ networks: [], objects: [object('shop/web', [{ network: 'town', ipv4: '10.1.0.9' }])] });
    expect(names.lookup('town', cart, 'web')?.ipv4).toEqual(['10.1.0.9']);
    expect(names.lookup('town', cart, 'www')).toBeUndefined();
    expect(names.nameOf('town', cart, '10.1.0.2')).toBeNull();
    names.update({
      networks: [['town', undefined]],
      objects: [
        ['shop/web', undefined],
        ['shop/cart', undefined],
      ],
    });
    expect(names.lookup('town', cart, 'web')?.ipv4).toEqual(['10.1.0.3']);
    expect(names.nameOf('town', cart, '10.1.0.2')).toBeUndefined();
    expect(names.networks().map(({ name }) => name)).toEqual(['farm']);
  });

  it('gives an address no name that DNS can not carry', () => {
    const names = table();
    const long = 'n'.repeat(64);
    const inLong = { network: `cni.${long}`, ipv4: '10.3.0.2' };
    names.update({
      networks: [],
      objects: [
        object(`shop/${long}`, [{ network: 'town', ipv4: '10.1.0.8' }]),
        object('shop/a..b', [{ network: 'town', ipv4: '10.1.0.9' }]),
        object('shop/short', [inLong]),
      ],
    });
    expect(names.nameOf('town', cart, '10.1.0.8')).toBeNull();
    expect(names.nameOf('town', cart, '10.1.0.9')).toBeNull();
    expect(names.nameOf(inLong.network, inLong.ipv4, inLong.ipv4)).toBe('short');
  });

  it('knows services, containers first', () => {
    const names = table();
    names.update({
      networks: [],
      objects: [],
      services: [
        ['shop/api', ['10.96.0.7', 'fd00:96::7']],
        ['shop/web', ['10.96.0.8']],
      ],
    });
    const found = { ipv4: ['10.96.0.7'], ipv6: ['fd00:96::7'] };
    for (const name of ['api', 'api.shop', 'api.shop.svc', 'api.shop.svc.cluster.local'])
      expect([name, names.lookup('town', cart, name)]).toEqual([name, found]);
    expect(names.lookup('farm', '10.2.0.2', 'api.shop')).toEqual(found); // whatever the network
    expect(names.lookup('farm', '10.2.0.2', 'api')).toBeUndefined(); // another namespace
    for (const name of ['api.svc', 'svc', '.svc', 'x.api.shop.svc', 'api.shop.cluster.local'])
      expect([name, names.lookup('town', cart, name)]).toEqual([name, undefined]);
    expect(names.lookup('town', cart, 'web')?.ipv4).toEqual(['10.1.0.2']);
    expect(names.lookup('town', cart, 'web.shop.svc')?.ipv4).toEqual(['10.96.0.8']);
    expect(names.nameOf('town', cart, '10.96.0.7')).toBe('api.shop.svc.cluster.local');
    names.update({ networks: [], objects: [], services: [['shop/api', ['10.96.0.9']]] });
    expect(names.nameOf('town', cart, '10.96.0.7')).toBeUndefined();
    names.update({ networks: [], objects: [], services: [['shop/api', undefined]] });
    expect(names.lookup('town', cart, 'api')).toBeUndefined();
  });
});
