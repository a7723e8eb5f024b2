import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Link } from '../../loader/netlink/link.js';
import { type HostDirection, isPodsKey, type NumberedRule } from '../../policy/host/rules.js';
import type { HostPolicyResource } from '../../policy/model/host-policy.js';
import type { CgroupFolder } from './hooks.js';
import type { OwnerRow, RuleList } from './tables.js';

/** Levels of the cgroup hierarchy that are searched for a unit. */
const MAX_DEPTH = 8;

/** Where the policies of a host apply now. */
export interface Placement {
  /** Devices with a policy: ifindex and key of the subject. */
  readonly devices: readonly { readonly ifindex: number; readonly subject: string }[];
  /** Cgroups with a policy, whether they exist or not: path below the root, and the folder if it exists. */
  readonly cgroups: readonly { readonly path: string; readonly folder?: CgroupFolder }[];
  readonly users: readonly number[];
  /** Folders that get the programs. */
  readonly attach: readonly CgroupFolder[];
}

/** Rules of each subject, and what numbers need: see HostTables. */
export interface Subject {
  readonly key: string;
  readonly policies: readonly HostPolicyResource[];
}

/** Key of what containers of this node exchange with it: rules of the host that name them. */
const CONTAINERS = 'containers';

/** The host's side of a container's device. */
function isContainerPort(link: Link): boolean {
  return link.alias?.startsWith('sluice:') === true && /^sl[0-9a-f]{8}$/.test(link.name);
}

/** Whether the host's policy is for this device: not for the loopback, those of containers, and ports of another. */
export function isHostDevice(link: Link): boolean {
  if (link.loopback || link.master !== undefined) return false;
  return !(link.alias?.startsWith('sluice:') === true || /^sl(?:br)?[0-9a-f]{8}$/.test(link.name));
}

/** User id of a subject. Undefined: there is no such user. */
export function userId(user: number | string, passwd = '/etc/passwd'): number | undefined {
  if (typeof user === 'number') return user;
  for (const line of readFileSync(passwd, 'utf8').split('\n')) {
    const [name, , id] = line.split(':');
    if (name === user && id !== undefined) return Number(id);
  }
  return undefined;
}

/** The cgroup at a path below the root, if there is one. */
export function folderAt(root: string, path: string): CgroupFolder | undefined {
  const full = join(root, path);
  const stat = statSync(full, { bigint: true, throwIfNoEntry: false });
  return stat?.isDirectory() === true ? { path: full, id: stat.ino } : undefined;
}

/** Path of the cgroup of a unit below the root; where it usually is if it does not run. */
export function unitPath(root: string, unit: string): string {
  const usual = unit.endsWith('.slice') ? `/${unit}` : `/system.slice/${unit}`;
  if (folderAt(root, usual) !== undefined) return usual;
  return search(root, '', unit, 0) ?? usual;
}

function search(root: string, path: string, unit: string, depth: number): string | undefined {
  if (depth > MAX_DEPTH) return undefined;
  let names: string[];
  try {
    names = readdirSync(join(root, path), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return undefined; // gone meanwhile
  }
  if (names.includes(unit)) return `${path}/${unit}`;
  for (const name of names) {
    const found = search(root, `${path}/${name}`, unit, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Looks where the subjects of the policies are. `cgroupRoot` '' is no cgroups. */
export function place(
  policies: readonly HostPolicyResource[],
  links: readonly Link[],
  cgroupRoot: string,
): Placement {
  const onDevices = policies.some(({ subject }) => subject.type === 'host');
  const interfaces = new Set(
    policies.flatMap(({ subject }) => (subject.type === 'interface' ? [subject.name] : [])),
  );
  const onContainers = policies.some(
    ({ subject, ingress, egress }) =>
      subject.type === 'host' &&
      [...ingress, ...egress].some(({ peers }) => peers.some(({ type }) => type === 'pods')),
  );
  const devices = links.flatMap((link) => {
    if (onContainers && isContainerPort(link)) return [{ ifindex: link.index, subject: CONTAINERS }];
    if (!isHostDevice(link)) return [];
    if (interfaces.has(link.name)) return [{ ifindex: link.index, subject: `interface ${link.name}` }];
    return onDevices ? [{ ifindex: link.index, subject: 'host' }] : [];
  });
  const paths = new Set<string>();
  const users = new Set<number>();
  if (cgroupRoot !== '') {
    for (const { subject } of policies) {
      if (subject.type === 'unit') paths.add(unitPath(cgroupRoot, subject.name));
      if (subject.type === 'cgroup') paths.add(subject.path);
      const id = subject.type === 'user' ? userId(subject.user) : undefined;
      if (id !== undefined) users.add(id);
    }
  }
  const cgroups = [...paths].sort().map((path) => {
    const folder = folderAt(cgroupRoot, path);
    return { path, ...(folder === undefined ? {} : { folder }) };
  });
  const root = users.size > 0 ? folderAt(cgroupRoot, '/') : undefined;
  // A program on an outer cgroup sees the inner ones too: each packet is judged once.
  const folders = cgroups.flatMap(({ path, folder }) =>
    folder !== undefined && !cgroups.some((outer) => outer.folder !== undefined && isInside(path, outer.path))
      ? [folder]
      : [],
  );
  return {
    devices,
    cgroups,
    users: [...users].sort((a, b) => a - b),
    attach: root === undefined ? folders : [root],
  };
}

/** Where the cgroups of policies appear and go: the folders around them, as far as those exist. */
export function foldersToWatch(cgroups: Placement['cgroups'], root: string): string[] {
  const folders = new Set<string>();
  for (const { path } of cgroups) {
    let parent = dirname(path);
    while (parent !== '/' && folderAt(root, parent) === undefined) parent = dirname(parent);
    folders.add(join(root, parent));
  }
  return [...folders];
}

/** Ids of the cgroup at a path below the root, and of all in it. */
export function cgroupsBelow(root: string, path: string, depth = 0): Set<bigint> {
  const ids = new Set<bigint>();
  const folder = folderAt(root, path);
  if (folder === undefined || depth > MAX_DEPTH) return ids;
  ids.add(folder.id);
  let entries: Dirent[];
  try {
    entries = readdirSync(folder.path, { withFileTypes: true });
  } catch {
    return ids; // gone meanwhile
  }
  for (const entry of entries)
    if (entry.isDirectory())
      for (const id of cgroupsBelow(root, join(path, entry.name), depth + 1)) ids.add(id);
  return ids;
}

export function isInside(path: string, outer: string): boolean {
  return path !== outer && (outer === '/' || path.startsWith(`${outer}/`));
}

/** The subjects that there are, each with the policies that apply to it. */
export function subjectsOf(
  policies: readonly HostPolicyResource[],
  placement: Placement,
  cgroupRoot: string,
): Subject[] {
  const out: Subject[] = [];
  for (const key of new Set(placement.devices.map(({ subject }) => subject))) {
    const name = key.startsWith('interface ') ? key.slice('interface '.length) : undefined;
    out.push({
      key,
      policies: policies.filter(
        ({ subject }) => subject.type === 'host' || (subject.type === 'interface' && subject.name === name),
      ),
    });
  }
  const cgroups = [undefined, ...placement.cgroups.map(({ path }) => path)];
  const users = [undefined, ...placement.users];
  for (const path of cgroups) {
    for (const user of users) {
      if (path === undefined && user === undefined) continue;
      out.push({
        key: pairKey(path, user),
        policies: policies.filter(({ subject }) => {
          if (subject.type === 'user') return user !== undefined && userId(subject.user) === user;
          if (path === undefined) return false;
          const own =
            subject.type === 'cgroup'
              ? subject.path
              : subject.type === 'unit'
                ? unitPath(cgroupRoot, subject.name)
                : undefined;
          return own !== undefined && (own === path || isInside(path, own));
        }),
      });
    }
  }
  return out;
}

function pairKey(path: string | undefined, user: number | undefined): string {
  return `cgroup ${path ?? '*'} user ${user ?? '*'}`;
}

/** A cgroup, a user or both, as the flow log names them: `cgroup /x`, `user 33`, `cgroup /x user 33`. */
export interface ProcessSubject {
  readonly path: string | undefined;
  readonly user: number | undefined;
}

export function subjectText(key: string): string {
  return key.replace(/^cgroup \* /, '').replace(/ user \*$/, '');
}

export function parseSubject(text: string): ProcessSubject {
  const [, path, user] = /^(?:cgroup (.*?))?(?:(?:^| )user (\d+))?$/.exec(text) ?? [];
  return { path, user: user === undefined ? undefined : Number(user) };
}

/** Keys that need a number: subjects, and each cgroup and user. */
export function numberKeys(subjects: readonly Subject[], placement: Placement): string[] {
  return [
    ...subjects.map(({ key }) => key),
    ...placement.cgroups.map(({ path }) => `cgroup ${path}`),
    ...placement.users.map((user) => `user ${user}`),
  ];
}

/**
 * Devices where XDP may drop what a list denies: there are such rules, and no VLAN of the device, whose packets look like
 * its own there.
 */
export function earlyDevices(
  placement: Pick<Placement, 'devices'>,
  links: readonly Link[],
  ingress: (subject: string) => RuleList | undefined,
): Set<number> {
  const withVlans = new Set(links.filter(({ kind }) => kind === 'vlan').map(({ linkIndex }) => linkIndex));
  return new Set(
    placement.devices
      .filter(
        ({ ifindex, subject }) =>
          subject !== CONTAINERS && !withVlans.has(ifindex) && ingress(subject)?.some(isDenyList) === true,
      )
      .map(({ ifindex }) => ifindex),
  );
}

function isDenyList({ action, peers, ports }: NumberedRule): boolean {
  return action === 'deny' && peers !== undefined && !peers.every(isPodsKey) && ports === 'all';
}

/** How the programs find the subject of a packet. `early`: devices whose deny lists count in XDP. */
export function ownersOf(
  placement: Placement,
  numbers: ReadonlyMap<string, number>,
  early: ReadonlySet<number> = new Set(),
): OwnerRow[] {
  const number = (key: string): number => numbers.get(key) ?? 0;
  const rows: OwnerRow[] = placement.devices.flatMap(({ ifindex, subject }) => {
    const row = { id: BigInt(ifindex), value: number(subject) };
    const device: OwnerRow = { kind: 'Device', ...row };
    return early.has(ifindex) ? [device, { kind: 'Early', ...row }] : [device];
  });
  for (const { path, folder } of placement.cgroups)
    if (folder !== undefined) rows.push({ kind: 'Cgroup', id: folder.id, value: number(`cgroup ${path}`) });
  for (const user of placement.users)
    rows.push({ kind: 'User', id: BigInt(user), value: number(`user ${user}`) });
  for (const path of [undefined, ...placement.cgroups.map((cgroup) => cgroup.path)]) {
    for (const user of [undefined, ...placement.users]) {
      if (path === undefined && user === undefined) continue;
      const cgroup = path === undefined ? 0 : number(`cgroup ${path}`);
      const userNumber = user === undefined ? 0 : number(`user ${user}`);
      const id = (BigInt(cgroup) << 32n) | BigInt(userNumber);
      rows.push({ kind: 'Pair', id, value: number(pairKey(path, user)) });
    }
  }
  return rows;
}

/** Rules of a subject in a direction; undefined: there are none. Containers are judged by rules that name some. */
export function rulesOf(
  { key, policies }: Subject,
  direction: HostDirection,
  rules: (policy: HostPolicyResource, direction: HostDirection) => readonly NumberedRule[],
): RuleList | undefined {
  const all = policies.flatMap((policy) => rules(policy, direction));
  const list = key === CONTAINERS ? all.filter(({ peers }) => peers?.some(isPodsKey) === true) : all;
  return list.length === 0 ? undefined : list;
}
