/** Who is meant by the words of `sluice explain`, and with which addresses. */
import { ReservedIdentity } from '../../loader/abi/gen/types.gen.js';
import { formatAddress, tryParseAddress } from '../../policy/address.js';
import { didYouMean, SluiceError } from '../../policy/errors.js';
import type { ContainerResource } from '../../policy/model/resources.js';
import type { Live } from '../dataplane/attachments.js';
import type { Kernel } from '../dataplane/kernel.js';
import { displayName } from '../state/keys.js';
import type { ObjectSet } from '../state/objects.js';

/** One end of the connection that is asked about. `address` is canonical text. */
export type End =
  | {
      readonly kind: 'container';
      readonly address: string;
      readonly live: Live;
      readonly container: ContainerResource;
    }
  | { readonly kind: 'host' | 'world'; readonly address: string };

export type Family = 4 | 6;
type Pair = readonly [from: End, to: End, family: Family];

/** What an end could be, before the family and the other end are known. */
type Choice =
  | { readonly kind: 'lives'; readonly text: string; readonly lives: readonly Live[] }
  | { readonly kind: 'address'; readonly text: string; readonly family: Family }
  | { readonly kind: 'host' | 'world' };

/** Addresses for `world`: documentation ranges (RFC 5737, RFC 3849), the first that no definition knows. */
const WORLD: Readonly<Record<Family, readonly string[]>> = {
  4: ['192.0.2.1', '198.51.100.1', '203.0.113.1'],
  6: ['2001:db8::1', '3fff::1'],
};

export class Ends {
  readonly #kernel: Kernel;
  readonly #objects: ObjectSet;
  readonly #problemOf: (container: string) => string | undefined;

  /** `problemOf`: why a container (`namespace/name`) is not in force. */
  constructor(kernel: Kernel, objects: ObjectSet, problemOf: (container: string) => string | undefined) {
    this.#kernel = kernel;
    this.#objects = objects;
    this.#problemOf = problemOf;
  }

  /** Both ends in one family. Throws SLU1701 to SLU1708. */
  resolve(fromText: string, toText: string, wanted: Family | undefined): Pair {
    const from = this.#choice(fromText);
    const to = this.#choice(toText);
    for (const family of wanted === undefined ? families(from, to) : [wanted]) {
      const pair = this.#pair(from, to, family);
      if (pair !== undefined) return pair;
    }
    throw this.#noFamily(from, to, wanted);
  }

  /** The container behind an address, if there is one on this host. */
  atAddress(address: string): End {
    const place = this.#kernel.addresses.placeOf(address);
    const id = place === undefined ? undefined : this.#kernel.attachments.idOfIndex(place.ifindex);
    const live = id === undefined ? undefined : this.#kernel.attachments.get(id);
    if (live !== undefined) return this.#container(live, address);
    return { kind: this.#isHost(address) ? 'host' : 'world', address };
  }

  #pair(from: Choice, to: Choice, family: Family): Pair | undefined {
    const [source, destination] = sameNetwork(from, to, family);
    const other = (choice: Choice): Live | undefined =>
      choice.kind === 'lives' ? choice.lives[0] : undefined;
    const fromEnd = this.#end(source, family, other(destination));
    const toEnd = this.#end(destination, family, other(source));
    return fromEnd === undefined || toEnd === undefined ? undefined : [fromEnd, toEnd, family];
  }

  #end(choice: Choice, family: Family, other: Live | undefined): End | undefined {
    switch (choice.kind) {
      case 'lives': {
        const live = choice.lives.find((candidate) => addressOf(candidate, family) !== undefined);
        return live === undefined ? undefined : this.#container(live, addressOf(live, family) ?? '');
      }
      case 'address':
        return choice.family === family ? this.atAddress(choice.text) : undefined;
      case 'host': {
        const address = this.#hostAddress(family, other);
        return address === undefined ? undefined : { kind: 'host', address };
      }
      case 'world':
        return { kind: 'world', address: this.#worldAddress(family) };
    }
  }

  #choice(text: string): Choice {
    if (text === 'host' || text === 'world') return { kind: text };
    const bytes = tryParseAddress(text);
    if (bytes !== undefined) {
      const address = formatAddress(bytes);
      if (isLoopback(address)) throw SluiceError.of('SLU1707', { address });
      return { kind: 'address', text: address, family: address.includes(':') ? 6 : 4 };
    }
    const [named = '', network] = text.split('@', 2);
    const name = named.includes('/') ? named : `default/${named}`;
    const container = this.#objects.get(`Container ${name}`);
    if (container?.kind !== 'Container') {
      const hint = didYouMean(name, [...this.#objects.ofKind('Container')].map(displayName));
      throw SluiceError.of('SLU1701', { text, hint });
    }
    return this.#lives(text, container, network);
  }

  #lives(text: string, container: ContainerResource, network: string | undefined): Choice {
    const name = displayName(container);
    const networks = container.networks.map((entry) => entry.network);
    if (network !== undefined && !networks.includes(network))
      throw SluiceError.of('SLU1706', { container: name, network, networks: networks.join(', ') });
    const { attachments } = this.#kernel;
    const lives = attachments
      .ofContainer(name)
      .flatMap((id) => attachments.get(id) ?? [])
      .filter((live) => network === undefined || live.spec.network === network)
      .sort((a, b) => Number(b.spec.defaultRoute) - Number(a.spec.defaultRoute));
    if (lives.length > 0) return { kind: 'lives', text, lives };
    const modes = networks.map((entry) => this.#objects.get(`Network ${entry}`));
    if (modes.some((entry) => entry?.kind === 'Network' && entry.mode === 'host')) return { kind: 'host' };
    const reason = this.#problemOf(name) ?? 'it is in no network that has devices';
    throw SluiceError.of('SLU1702', { container: name, reason });
  }

  #container(live: Live, address: string): End {
    const container = this.#objects.get(`Container ${live.spec.container}`);
    if (container?.kind !== 'Container')
      throw SluiceError.of('SLU1702', { container: live.spec.container, reason: 'it is being removed' });
    return { kind: 'container', address, live, container };
  }

  #isHost(address: string): boolean {
    return this.#kernel.addresses.isHost(address);
  }

  /** The address that the host and a container use with each other, or the uplink's. */
  #hostAddress(family: Family, other: Live | undefined): string | undefined {
    const gateway = (family === 4 ? other?.spec.ipv4 : other?.spec.ipv6)?.gateway;
    if (gateway !== undefined && this.#isHost(gateway)) return gateway;
    for (const { value } of this.#kernel.uplinks.devices) {
      const bytes = family === 4 ? value.snat4 : value.snat6;
      if (bytes.some((byte) => byte !== 0)) return formatAddress(bytes);
    }
    return undefined;
  }

  #worldAddress(family: Family): string {
    const { addresses, cidrs } = this.#kernel;
    const nobodys = (text: string): boolean =>
      addresses.identityInKernel(text) === undefined &&
      cidrs.identityInKernel(`${text}/${family === 4 ? 32 : 128}`) === ReservedIdentity.World;
    return WORLD[family].find(nobodys) ?? WORLD[family][0] ?? '';
  }

  #noFamily(from: Choice, to: Choice, wanted: Family | undefined): SluiceError {
    if (from.kind === 'address' && to.kind === 'address' && wanted === undefined)
      return SluiceError.of('SLU1708', { source: from.text, destination: to.text });
    const family = wanted ?? families(from, to)[0] ?? 4;
    const without = [from, to].find((choice) => this.#end(choice, family, undefined) === undefined) ?? from;
    const name = without.kind === 'lives' || without.kind === 'address' ? without.text : without.kind;
    return SluiceError.of('SLU1704', { name, family });
  }
}

/** Families to try, the preferred one first. */
function families(from: Choice, to: Choice): readonly Family[] {
  for (const choice of [from, to]) if (choice.kind === 'address') return [choice.family];
  return [4, 6];
}

/** Two containers talk on a network that both are in, if there is one. */
function sameNetwork(from: Choice, to: Choice, family: Family): readonly [Choice, Choice] {
  if (from.kind !== 'lives' || to.kind !== 'lives') return [from, to];
  for (const source of from.lives) {
    if (addressOf(source, family) === undefined) continue;
    const destination = to.lives.find(
      (live) => live.spec.network === source.spec.network && addressOf(live, family) !== undefined,
    );
    if (destination !== undefined)
      return [
        { ...from, lives: [source] },
        { ...to, lives: [destination] },
      ];
  }
  return [from, to];
}

function addressOf({ spec }: Live, family: Family): string | undefined {
  return (family === 4 ? spec.ipv4 : spec.ipv6)?.address;
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}
