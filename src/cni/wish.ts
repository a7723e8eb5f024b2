import type { ContainerNetwork, ContainerRoute, NetworkResource } from '../../policy/model/resources.js';
import type { Runtime } from '../runtime/runtime.js';
import type { Attached } from './attached.js';
import { idOf } from './attachment.js';
import type { NetConf } from './config.js';
import { address, mac } from './fields.js';
import type { Namespaces } from './namespaces.js';
import type { CniParameters } from './parameters.js';
import { routesOf } from './result.js';

/** What the default route of a container depends on. */
interface Surroundings {
  readonly attached: Attached;
  readonly runtime: Pick<Runtime, 'attachment'>;
  readonly namespaces: Pick<Namespaces, 'defaultRoutes'>;
}

/** What the container is to have in the network. */
export function wishOf(
  around: Surroundings,
  { netns, ifname, args }: CniParameters & { readonly netns: string },
  conf: NetConf,
  network: NetworkResource,
): Omit<ContainerNetwork, 'device'> {
  const ips =
    conf.ips.length > 0
      ? conf.ips
      : (args.ip ?? '')
          .split(',')
          .filter((ip) => ip !== '')
          .map((ip) => address(ip.replace(/\/\d+$/, ''), 'CNI_ARGS IP'));
  const ipv4 = ips.find((ip) => !ip.includes(':'));
  const ipv6 = ips.find((ip) => ip.includes(':'));
  const wantedMac = conf.mac ?? (args.mac === undefined ? undefined : mac(args.mac, 'CNI_ARGS MAC'));
  const { routes, isDefault } = routesFor(around, netns, ifname, conf, network);
  return {
    network: network.name,
    defaultRoute: isDefault,
    ...(routes.length === 0 ? {} : { routes }),
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
    ...(wantedMac === undefined ? {} : { mac: wantedMac }),
    ...(conf.bandwidth === undefined ? {} : { bandwidth: conf.bandwidth }),
    ...(conf.aliases.length === 0 ? {} : { aliases: conf.aliases }),
  };
}

/**
 * The routes for a container: those of the configuration, or default routes. Of several networks the first one
 * that gives a default route has it.
 */
function routesFor(
  { attached, runtime, namespaces }: Surroundings,
  netns: string,
  ifname: string,
  conf: NetConf,
  network: NetworkResource,
): { isDefault: boolean; routes: ContainerRoute[] } {
  const wanted = conf.routes ?? [];
  const others = wanted.filter(({ destination }) => !isDefaultRoute(destination));
  if (conf.routes !== undefined && others.length === wanted.length)
    return { isDefault: false, routes: others };
  const mine = attached.inNamespace(netns).some((other) => {
    if (other.ifname === ifname) return false;
    const spec = runtime.attachment(idOf(other))?.spec;
    return spec !== undefined && routesOf(spec).some(({ destination }) => isDefaultRoute(destination));
  });
  const taken = mine || (ifname !== 'eth0' && namespaces.defaultRoutes(netns).size > 0);
  if (taken) return { isDefault: false, routes: others };
  // Through another gateway than the network's, or in one family only, a default route is a route like any other.
  const defaults = wanted.filter(({ destination }) => isDefaultRoute(destination));
  const families = [
    ...(network.ipv4 === undefined ? [] : ['0.0.0.0/0']),
    ...(network.ipv6 === undefined ? [] : ['::/0']),
  ];
  const plain =
    conf.routes === undefined ||
    families.every((all) =>
      defaults.some(({ destination, gateway }) => destination === all && gateway === undefined),
    );
  const usable = defaults.filter(({ destination }) => families.includes(destination));
  return plain ? { isDefault: true, routes: others } : { isDefault: false, routes: [...others, ...usable] };
}

function isDefaultRoute(destination: string): boolean {
  return destination === '0.0.0.0/0' || destination === '::/0';
}
