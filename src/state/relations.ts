import type { ContainerResource, NamespaceRef, Resource } from '../../policy/model/resources.js';
import { keyOf, type ResourceKey } from './keys.js';

/**
 * Which containers claim the same thing: an address, a MAC address, a device name in a namespace, a host
 * port. So a change is checked against those it can collide with and not against all.
 */
export class Relations {
  readonly #claims = new Map<string, Set<ResourceKey>>();

  add(resource: Resource): void {
    if (resource.kind !== 'Container') return;
    const key = keyOf(resource);
    for (const claim of claimsOf(resource)) {
      const keys = this.#claims.get(claim);
      if (keys === undefined) this.#claims.set(claim, new Set([key]));
      else keys.add(key);
    }
  }

  remove(resource: Resource): void {
    if (resource.kind !== 'Container') return;
    const key = keyOf(resource);
    for (const claim of claimsOf(resource)) {
      const keys = this.#claims.get(claim);
      keys?.delete(key);
      if (keys?.size === 0) this.#claims.delete(claim);
    }
  }

  /** The containers that claim something that this one claims too, itself included. */
  of(container: ContainerResource): Set<ResourceKey> {
    const found = new Set<ResourceKey>();
    for (const claim of claimsOf(container)) {
      for (const key of this.#claims.get(claim) ?? []) found.add(key);
    }
    return found;
  }
}

function claimsOf(container: ContainerResource): string[] {
  const claims = container.hostPorts.map((port) => `port ${port.protocol} ${port.hostPort}`);
  for (const { network, device, ipv4, ipv6, mac } of container.networks) {
    if (ipv4 !== undefined) claims.push(`address ${ipv4}`);
    if (ipv6 !== undefined) claims.push(`address ${ipv6}`);
    if (mac !== undefined) claims.push(`mac ${network} ${mac}`);
    if (container.netns !== undefined) claims.push(`device ${netnsKey(container.netns)} ${device}`);
  }
  return claims;
}

/** One text for all ways to name a namespace by path. */
function netnsKey(ref: NamespaceRef): string {
  if (ref.type === 'pid') return `pid ${ref.pid}`;
  const path = ref.type === 'name' ? `/run/netns/${ref.name}` : ref.path.replace(/^\/var\/run\//, '/run/');
  return path.replace(/\/+/g, '/');
}
