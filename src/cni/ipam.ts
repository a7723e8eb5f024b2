import type { ContainerRoute } from '../../policy/model/resources.js';
import { type NetConf, type RangeConfig, readRoute } from './config.js';
import type { IpamResult } from './delegate.js';
import { address, cidr, isObject } from './fields.js';

/** The ranges in which the addresses of an IPAM plugin are. */
export function rangesOf({ ips }: IpamResult): { readonly ipv4?: RangeConfig; readonly ipv6?: RangeConfig } {
  const ranges: { ipv4?: RangeConfig; ipv6?: RangeConfig } = {};
  ips.forEach(({ address: text, gateway }, i) => {
    const field = `ips[${i}]`;
    const range = {
      cidr: cidr(text, `${field}.address`),
      ...(gateway === undefined ? {} : { gateway: address(gateway, `${field}.gateway`) }),
    };
    ranges[text.includes(':') ? 'ipv6' : 'ipv4'] ??= range;
  });
  return ranges;
}

/** The configuration with the addresses and routes that an IPAM plugin gave. */
export function withIpam(conf: NetConf, { ips, routes, dns }: IpamResult): NetConf {
  const read = routes.flatMap((route, i): ContainerRoute[] =>
    isObject(route) && typeof route.dst === 'string' ? [readRoute(route, `routes[${i}]`)] : [],
  );
  return {
    ...conf,
    ips: ips.map((ip, i) => address(ip.address.replace(/\/\d+$/, ''), `ips[${i}].address`)),
    ...(read.length === 0 ? {} : { routes: read }),
    ...(conf.dns !== undefined || dns === undefined ? {} : { dns: dns }),
  };
}
