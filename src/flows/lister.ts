import type { PolicyCompiler } from '../../policy/compile/compiler.js';
import type { HostPolicyResource } from '../../policy/model/host-policy.js';
import type { ClusterNetworkPolicyResource, Resource } from '../../policy/model/resources.js';
import type { Kernel } from '../dataplane/kernel.js';
import type { Reconciler } from '../dataplane/reconciler.js';
import type { Listing, ListingName } from '../engine.js';
import type { LeaseBook } from '../ipam/leases.js';
import { backendRows, serviceRows } from '../services/listing.js';
import type { Services } from '../services/services.js';
import { attachmentId, containerOf, displayName } from '../state/keys.js';
import type { ObjectSet } from '../state/objects.js';
import type { EventContext } from './events.js';
import { listFlows } from './listing.js';

interface Parts {
  readonly kernel: Kernel;
  readonly objects: ObjectSet;
  readonly leases: LeaseBook;
  readonly compiler: PolicyCompiler;
  readonly reconciler: Reconciler;
  readonly services: Services;
  readonly context: EventContext;
}

export interface Row {
  readonly cells: readonly string[];
  readonly object: unknown;
}

/** The tables of `sluice get`. */
export class Lister {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  list(name: ListingName): Listing {
    switch (name) {
      case 'networks':
        return table(['NAME', 'MODE', 'IPV4', 'IPV6', 'MTU', 'MASQUERADE', 'CONTAINERS'], this.#networks());
      case 'containers':
        return table(['NAMESPACE', 'NAME', 'NETNS', 'ADDRESSES', 'NETWORKS', 'STATE'], this.#containers());
      case 'policies':
        return table(
          ['NAMESPACE', 'NAME', 'TIER', 'TYPES', 'INGRESS RULES', 'EGRESS RULES', 'FROM'],
          [...this.#clusterPolicies(), ...this.#policies()],
        );
      case 'endpoints':
        return table(
          [
            'CONTAINER',
            'NETWORK',
            'DEVICE',
            'INDEX',
            'IPV4',
            'IPV6',
            'IDENTITY',
            'EGRESS SET',
            'INGRESS SET',
          ],
          this.#endpoints(),
        );
      case 'identities':
        return table(['IDENTITY', 'NAMESPACE', 'LABELS', 'CIDR', 'ENDPOINTS'], this.#identities());
      case 'flows':
        return listFlows(this.#parts.kernel.loaded.maps, this.#parts.context);
      case 'services':
        return table(
          ['NAMESPACE', 'NAME', 'TYPE', 'CLUSTER-IP', 'EXTERNAL-IP', 'PORTS', 'READY', 'TERMINATING'],
          serviceRows(sorted(this.#parts.objects.ofKind('Service')), this.#parts.services),
        );
      case 'backends':
        return table(
          ['NAMESPACE', 'SERVICE', 'PORT', 'BACKEND', 'STATE', 'WHERE', 'ZONE'],
          backendRows(this.#parts.services),
        );
      case 'leases':
        return table(['CONTAINER', 'NETWORK', 'IPV4', 'IPV6', 'MAC', 'INDEX'], this.#leases());
    }
  }

  #networks(): Row[] {
    const { objects, kernel } = this.#parts;
    const members = new Map<string, number>();
    for (const container of objects.ofKind('Container')) {
      for (const { network } of container.networks) members.set(network, (members.get(network) ?? 0) + 1);
    }
    return sorted(objects.ofKind('Network')).map((network) => ({
      cells: [
        network.name,
        network.mode,
        network.ipv4?.cidr ?? '',
        network.ipv6?.cidr ?? '',
        String(network.mtu ?? kernel.uplinks.mtu),
        network.masquerade ? 'yes' : 'no',
        String(members.get(network.name) ?? 0),
      ],
      object: network.source,
    }));
  }

  #containers(): Row[] {
    const { objects, leases, reconciler } = this.#parts;
    return sorted(objects.ofKind('Container')).map((container) => {
      const addresses = container.networks.flatMap(({ network }) => {
        const lease = leases.get(attachmentId(container, network));
        return [lease?.ipv4, lease?.ipv6].filter((address) => address !== undefined);
      });
      const problem = reconciler.problems.get(`Container ${displayName(container)}`);
      const { netns } = container;
      const where =
        netns === undefined
          ? 'host'
          : netns.type === 'pid'
            ? `pid ${netns.pid}`
            : netns.type === 'name'
              ? netns.name
              : netns.path;
      const networks = container.networks.map((entry) => entry.network);
      const state = problem === undefined ? 'ready' : 'waiting';
      return {
        cells: [container.namespace, container.name, where, addresses.join(', '), networks.join(', '), state],
        object: {
          ...(container.source as object),
          status: { state, addresses, ...(problem === undefined ? {} : { problem: problem.message }) },
        },
      };
    });
  }

  /** Those of a tier in the order in which they are looked at. */
  #clusterPolicies(): Row[] {
    const { objects } = this.#parts;
    return [
      ...this.#tiered(objects.ofKind('ClusterNetworkPolicy')),
      ...this.#tiered(objects.ofKind('HostPolicy')),
    ];
  }

  #tiered(resources: Iterable<ClusterNetworkPolicyResource | HostPolicyResource>): Row[] {
    const policies = [...resources].sort((a, b) =>
      a.tier < b.tier ? -1 : a.tier > b.tier ? 1 : a.priority - b.priority || (a.name < b.name ? -1 : 1),
    );
    return policies.map((policy) => {
      const types = [
        policy.ingress.length === 0 ? '' : 'Ingress',
        policy.egress.length === 0 ? '' : 'Egress',
      ];
      return {
        cells: [
          '-',
          policy.name,
          `${policy.tier} ${policy.priority}`,
          types.filter((type) => type !== '').join(','),
          String(policy.ingress.length),
          String(policy.egress.length),
          `${policy.origin.file}:${policy.origin.line}`,
        ],
        object: policy.source,
      };
    });
  }

  #policies(): Row[] {
    return sorted(this.#parts.objects.ofKind('NetworkPolicy')).map((policy) => {
      const types = [
        policy.ingress === undefined ? '' : 'Ingress',
        policy.egress === undefined ? '' : 'Egress',
      ];
      return {
        cells: [
          policy.namespace,
          policy.name,
          'NetworkPolicy',
          types.filter((type) => type !== '').join(','),
          policy.ingress === undefined ? '-' : String(policy.ingress.length),
          policy.egress === undefined ? '-' : String(policy.egress.length),
          `${policy.origin.file}:${policy.origin.line}`,
        ],
        object: policy.source,
      };
    });
  }

  #endpoints(): Row[] {
    const lives = [...this.#parts.kernel.attachments.values()].sort((a, b) =>
      a.spec.id < b.spec.id ? -1 : 1,
    );
    return lives.map(({ spec, ifindex, policy }) => {
      const identities = [...new Set([policy.identity4, policy.identity6])].filter(
        (identity) => identity !== 0,
      );
      return {
        cells: [
          spec.container,
          spec.network,
          spec.mode === 'macvlan' ? spec.device : spec.hostName,
          String(ifindex),
          spec.ipv4?.address ?? '',
          spec.ipv6?.address ?? '',
          identities.join(','),
          policy.setEgress === 0 ? '-' : String(policy.setEgress),
          policy.setIngress === 0 ? '-' : String(policy.setIngress),
        ],
        object: {
          container: spec.container,
          network: spec.network,
          mode: spec.mode,
          device: spec.device,
          ...(spec.mode === 'macvlan' ? {} : { hostDevice: spec.hostName }),
          ifindex,
          mac: spec.mac,
          mtu: spec.mtu,
          ...(spec.ipv4 === undefined ? {} : { ipv4: spec.ipv4.address }),
          ...(spec.ipv6 === undefined ? {} : { ipv6: spec.ipv6.address }),
          ...policy,
        },
      };
    });
  }

  #identities(): Row[] {
    return this.#parts.compiler.identities().map((identity) => ({
      cells: [
        String(identity.number),
        identity.namespace ?? '',
        Object.entries(identity.labels)
          .map(([key, value]) => `${key}=${value}`)
          .join(','),
        identity.cidr ?? '',
        String(identity.endpoints),
      ],
      object: identity,
    }));
  }

  #leases(): Row[] {
    const leases = [...this.#parts.leases.leases.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    return leases.map((lease) => ({
      cells: [
        containerOf(lease.id),
        lease.network,
        lease.ipv4 ?? '',
        lease.ipv6 ?? '',
        lease.mac,
        String(lease.ifindex),
      ],
      object: lease,
    }));
  }
}

function sorted<R extends Resource>(resources: Iterable<R>): R[] {
  return [...resources].sort((a, b) => (displayName(a) < displayName(b) ? -1 : 1));
}

function table(columns: readonly string[], rows: readonly Row[]): Listing {
  return { columns, rows: rows.map((row) => row.cells), objects: rows.map((row) => row.object) };
}
