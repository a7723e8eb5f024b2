import { existsSync, mkdirSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openPinnedLink } from '../../loader/link.js';
import { isAbsent, NetlinkError } from '../../loader/netlink/errors.js';
import { Rtnetlink } from '../../loader/netlink/route.js';
import { type Netns, openNetns } from '../../loader/netns.js';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';
import { removeHostFirewall } from '../host/remove.js';
import { Journal } from '../ipam/journal.js';
import type { Lease } from '../ipam/leases.js';
import type { Logger } from '../log.js';
import { KEY_FILE } from '../nodes/node-key.js';
import { netnsText } from './attachments.js';
import { ROUTE_PROTOCOL } from './devices.js';
import { removeEncryption } from './encryption.js';
import { Expedite } from './expedite.js';
import { HostDevices } from './host-devices.js';
import { NODE_ROUTE_PROTOCOL, removeNodeRoute } from './node-routes.js';
import { Pins } from './pins.js';
import { RESERVED_FILE, ReservedPorts } from './reserved-ports.js';
import { asError } from './rollback.js';

/** Files and folders of the agent below the state folder; others are not touched. */
const STATE = [
  'applied',
  'leases',
  'runtime',
  'cni',
  'services.journal',
  'services.journal.tmp',
  RESERVED_FILE,
  'folder.json',
  'history',
  'flows',
  'audit.json',
  'domains',
  'confirm.json',
  'bpf.json',
  'host.json',
  'host',
  KEY_FILE,
] as const;

/**
 * Removes everything that this instance made, from the pins, the aliases of devices, the routes'
 * protocol number and the state folder, without a running agent. Nothing else is touched, and doing
 * it again does nothing. Throws SLU2506 with the first failure after trying everything.
 */
export async function removeEverything(config: AgentConfig, log: Logger): Promise<void> {
  const errors: unknown[] = [];
  const attempt = (what: string, action: () => void): void => {
    try {
      action();
    } catch (error) {
      log.error({ err: error }, `could not remove ${what}`);
      errors.push(error);
    }
  };
  mkdirSync(config.stateDir, { recursive: true, mode: 0o700 });
  const expedite = new Expedite(config.stateDir);
  const rtnl = Rtnetlink.open();
  const pins = new Pins(config.pinPath);
  try {
    attempt('devices in namespaces', () => removeMacvlans(config));
    attempt('devices', () => expedite.during(() => removeDevices(rtnl, config.instance)));
    attempt('encryption', () => removeEncryption(rtnl, config.instance));
    attempt('routes', () => removeRoutes(rtnl));
    attempt('routes to other nodes', () => {
      for (const route of rtnl.routes({ protocol: NODE_ROUTE_PROTOCOL })) removeNodeRoute(rtnl, route);
    });
    attempt('addresses and settings', () => {
      const [error] = new HostDevices(rtnl, config.instance, config.stateDir).restore();
      if (error !== undefined) throw asError(error);
    });
    attempt('ports of the host', () => new ReservedPorts(config.stateDir).release());
    attempt('host policies', () => removeHostFirewall(config));
    attempt('programs', () => {
      for (const name of pins.list('links')) detach(join(config.pinPath, 'links', name));
      if (existsSync(config.pinPath)) pins.removeAll();
    });
  } finally {
    rtnl.close();
  }
  Expedite.restore(config.stateDir);
  attempt('state', () => {
    for (const name of STATE) rmSync(join(config.stateDir, name), { recursive: true, force: true });
    if (existsSync(config.stateDir) && readdirSync(config.stateDir).length === 0)
      removeFolder(config.stateDir);
  });
  const [first] = errors;
  if (first !== undefined) throw SluiceError.of('SLU2508', { reason: asError(first).message });
}

/** In a pod the folder is a mount of the host's: that stays, empty. */
function removeFolder(path: string): void {
  try {
    rmdirSync(path);
  } catch (error) {
    if (!['EBUSY', 'EROFS'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

/** veth pairs, bridges and the overlay's device carry the alias of the instance. */
function removeDevices(rtnl: Rtnetlink, instance: string): void {
  const links = rtnl.links({ aliasPrefix: `sluice:${instance}:` });
  const veths = links.filter((link) => link.kind === 'veth').map((link) => link.index);
  const others = links
    .filter((link) => link.kind === 'bridge' || link.kind === 'vxlan')
    .map((link) => link.index);
  if (veths.length > 0) rtnl.deleteLinks(veths);
  for (const index of others) rtnl.deleteLink(index);
}

/** Routes go with their devices; this is for those whose device was taken away by somebody else. */
function removeRoutes(rtnl: Rtnetlink): void {
  for (const route of rtnl.routes({ protocol: ROUTE_PROTOCOL })) {
    const link = route.ifindex === undefined ? undefined : rtnl.link(route.ifindex);
    if (link !== undefined && !/^sl[0-9a-f]{8}$/.test(link.name)) continue;
    if (link?.alias !== undefined) continue; // of another instance
    try {
      rtnl.deleteRoute({
        destination: route.destination,
        family: route.family,
        protocol: ROUTE_PROTOCOL,
        ...(route.ifindex === undefined ? {} : { ifindex: route.ifindex }),
      });
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
  }
}

/** Macvlan devices are inside the containers' namespaces; index and MAC address of the lease tell which are ours. */
function removeMacvlans(config: AgentConfig): void {
  const path = join(config.stateDir, 'leases', 'journal');
  if (!existsSync(path)) return;
  const leases = new Map<string, Lease>();
  const { journal, records } = Journal.open<{ op: string; id?: string; lease?: Lease }>(path);
  journal.close();
  for (const record of records) {
    if (record.op === 'lease' && record.lease !== undefined) leases.set(record.lease.id, record.lease);
    if (record.op === 'free' && record.id !== undefined) leases.delete(record.id);
  }
  for (const lease of leases.values()) {
    if (lease.netns !== undefined && lease.netnsPath !== undefined) removeInside(lease, lease.netnsPath);
  }
}

function removeInside(lease: Lease, path: string): void {
  let netns: Netns;
  try {
    netns = openNetns({ type: 'path', path });
  } catch (error) {
    if (error instanceof NetlinkError) return;
    throw error;
  }
  try {
    if (netnsText(netns) !== lease.netns) return;
    const rtnl = Rtnetlink.open(netns);
    try {
      const link = rtnl.link(lease.ifindex);
      if (link?.kind === 'macvlan' && link.mac === lease.mac) rtnl.deleteLink(link.index);
    } finally {
      rtnl.close();
    }
  } finally {
    netns.close();
  }
}

/** Ends a link now: whoever else has it open would keep it in force. */
function detach(path: string): void {
  try {
    openPinnedLink(path).detach();
  } catch {
    rmSync(path, { force: true });
  }
}
