import type { ContainerRoute } from '../../policy/model/resources.js';
import type { AttachmentSpec } from '../state/desired.js';
import type { NetConf } from './config.js';
import { isObject, type JsonObject } from './fields.js';
import { atLeastVersion, type CniVersion } from './versions.js';

/** One address of a result; `interface` is an index into `interfaces`. */
export interface ResultIp {
  readonly version?: '4' | '6';
  readonly address: string;
  readonly gateway?: string;
  readonly interface?: number;
}

interface ResultInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  readonly sandbox?: string;
}

interface ResultRoute {
  readonly dst: string;
  readonly gw?: string;
}

/**
 * The result of ADD (SPEC.md, "ADD Success") for an attachment that is in force, appended to the result of the plugins
 * before it in the chain. `serveNames`: the gateway is the name server, if the configuration names none.
 */
export function addResult(
  spec: AttachmentSpec,
  netns: string,
  conf: NetConf,
  serveNames: boolean,
): JsonObject {
  const { cniVersion } = conf;
  const before = conf.prevResult ?? {};
  const interfaces: unknown[] = listIn(before, 'interfaces');
  const ips: unknown[] = listIn(before, 'ips');
  const routes: unknown[] = listIn(before, 'routes');
  const mtu = atLeastVersion(cniVersion, '1.1.0') ? { mtu: spec.mtu } : {};
  if (spec.mode !== 'macvlan') interfaces.push({ name: spec.hostName, mac: spec.hostMac, ...mtu });
  const index = interfaces.length;
  interfaces.push({ name: spec.device, mac: spec.mac, ...mtu, sandbox: netns } satisfies ResultInterface);
  for (const family of [spec.ipv4, spec.ipv6]) {
    if (family === undefined) continue;
    const v6 = family.address.includes(':');
    const prefix = spec.mode === 'routed' ? (v6 ? 128 : 32) : family.prefix;
    ips.push({
      ...versionOfIp(cniVersion, v6),
      address: `${family.address}/${prefix}`,
      gateway: family.gateway,
      interface: index,
    } satisfies ResultIp);
  }
  routes.push(
    ...routesOf(spec).map(({ destination, gateway }): ResultRoute => ({ dst: destination, gw: gateway })),
  );
  const given = conf.dns ?? (isObject(before.dns) ? before.dns : {});
  // Who names search domains alone still has the name service.
  const dns = !serveNames || listIn(given, 'nameservers').length > 0 ? given : { ...ownDns(spec), ...given };
  return {
    cniVersion,
    interfaces,
    ips,
    ...(routes.length === 0 ? {} : { routes }),
    dns,
  };
}

/** The agent answers at the gateways of networks that have this host as one. */
function ownDns({ mode, ipv4, ipv6 }: AttachmentSpec): JsonObject {
  const gateways = [ipv4?.gateway, ipv6?.gateway].filter((gateway) => gateway !== undefined);
  return mode === 'macvlan' ? {} : { nameservers: gateways };
}

/** Results before 1.0.0 say the family of each address. */
function versionOfIp(cniVersion: CniVersion, v6: boolean): { readonly version?: '4' | '6' } {
  if (atLeastVersion(cniVersion, '1.0.0')) return {};
  return { version: v6 ? '6' : '4' };
}

function listIn(result: object, name: string): unknown[] {
  const list = (result as JsonObject)[name];
  return Array.isArray(list) ? [...(list as unknown[])] : [];
}

/** The routes that an attachment gives its container, each with its gateway. */
export function routesOf(spec: AttachmentSpec): Required<ContainerRoute>[] {
  const routes: Required<ContainerRoute>[] = [];
  for (const family of [spec.ipv4, spec.ipv6]) {
    if (family === undefined) continue;
    const v6 = family.address.includes(':');
    if (spec.defaultRoute) routes.push({ destination: v6 ? '::/0' : '0.0.0.0/0', gateway: family.gateway });
    else if (spec.mode === 'routed') routes.push({ destination: family.cidr, gateway: family.gateway });
    for (const { destination, gateway } of spec.routes ?? []) {
      if (destination.includes(':') === v6) routes.push({ destination, gateway: gateway ?? family.gateway });
    }
  }
  return routes;
}

/** Whether a result has this interface in this namespace. */
export function hasInterface(result: JsonObject, ifname: string, netns: string): boolean {
  return listIn(result, 'interfaces').some(
    (entry) => isObject(entry) && entry.name === ifname && entry.sandbox === netns,
  );
}

/** What a result says about one interface in a namespace: for CHECK. */
export interface Expected {
  readonly mac?: string;
  readonly addresses: readonly string[]; // CIDR
  readonly routes: readonly { readonly destination: string; readonly gateway?: string }[];
}

/** Undefined: the result does not have the interface. */
export function expectedOf(result: JsonObject, ifname: string, netns: string): Expected | undefined {
  const interfaces = listIn(result, 'interfaces');
  const index = interfaces.findIndex(
    (entry) => isObject(entry) && entry.name === ifname && entry.sandbox === netns,
  );
  const found = interfaces[index];
  if (!isObject(found)) return undefined;
  const addresses = listIn(result, 'ips').flatMap((ip) =>
    isObject(ip) && typeof ip.address === 'string' && (ip.interface === undefined || ip.interface === index)
      ? [ip.address]
      : [],
  );
  const routes = listIn(result, 'routes').flatMap((route) =>
    isObject(route) && typeof route.dst === 'string'
      ? [{ destination: route.dst, ...(typeof route.gw === 'string' ? { gateway: route.gw } : {}) }]
      : [],
  );
  return { ...(typeof found.mac === 'string' ? { mac: found.mac } : {}), addresses, routes };
}
