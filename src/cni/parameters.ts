import { badDeviceName, badLabelValue, badQualifiedName } from '../../policy/schema/names.js';
import { CniError } from './errors.js';

export const COMMANDS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'] as const;
/** VERSION is answered by the plugin alone. */
export type CniCommand = (typeof COMMANDS)[number];

/** Where and for whom: the CNI_* variables, checked (SPEC.md, "Parameters"). */
export interface CniParameters {
  readonly command: CniCommand;
  /** Empty where the command has none (GC, STATUS). */
  readonly containerId: string;
  readonly ifname: string;
  /** Path of the network namespace; absent on DEL perhaps. */
  readonly netns?: string;
  readonly args: CniArgs;
  /** Folders in which IPAM plugins are looked for. */
  readonly path: readonly string[];
}

/** What is used of CNI_ARGS. */
export interface CniArgs {
  readonly podName?: string;
  readonly podNamespace?: string;
  readonly podUid?: string;
  readonly ip?: string;
  readonly mac?: string;
  /** SLUICE_LABELS, such as `app=web,tier=front`. */
  readonly labels: Readonly<Record<string, string>>;
}

const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
/** Runtimes that are not of Kubernetes have namespaces of their own, with capitals and the like. */
const NAMESPACE = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,252}$/;
const KNOWN_ARGS: ReadonlySet<string> = new Set([
  'IgnoreUnknown',
  'K8S_POD_NAME',
  'K8S_POD_NAMESPACE',
  'K8S_POD_INFRA_CONTAINER_ID',
  'K8S_POD_UID',
  'IP',
  'MAC',
  'SLUICE_LABELS',
]);

const NEEDED: Readonly<Record<CniCommand, readonly string[]>> = {
  ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME'],
  DEL: ['CNI_CONTAINERID', 'CNI_IFNAME'],
  GC: [],
  STATUS: [],
};

/** Checks the environment of a request. Throws CniError 4. */
export function readParameters(environment: ReadonlyMap<string, string>): CniParameters {
  const command = COMMANDS.find((name) => name === environment.get('CNI_COMMAND'));
  if (command === undefined)
    throw bad('CNI_COMMAND', environment.get('CNI_COMMAND') ?? '', `one of ${COMMANDS.join(', ')}, VERSION`);
  const missing = NEEDED[command].filter((name) => (environment.get(name) ?? '') === '');
  if (missing.length > 0) throw CniError.of('SLU5112', { names: missing.join(',') });
  const used = NEEDED[command].length > 0;
  const containerId = used ? (environment.get('CNI_CONTAINERID') ?? '') : '';
  const ifname = used ? (environment.get('CNI_IFNAME') ?? '') : '';
  if (used && !CONTAINER_ID.test(containerId))
    throw bad('CNI_CONTAINERID', containerId, 'letters, digits, "_", "." and "-", first a letter or digit');
  if (used && containerId.length > 256) throw bad('CNI_CONTAINERID', containerId, 'at most 256 characters');
  const rule = used ? badDeviceName(ifname) : undefined;
  if (rule !== undefined) throw bad('CNI_IFNAME', ifname, rule);
  const netns = environment.get('CNI_NETNS') ?? '';
  if (netns !== '' && (!netns.startsWith('/') || netns.length > 4000))
    throw bad('CNI_NETNS', netns, 'an absolute path');
  return {
    command,
    containerId,
    ifname,
    ...(netns === '' ? {} : { netns }),
    args: readArgs(environment.get('CNI_ARGS') ?? ''),
    path: (environment.get('CNI_PATH') ?? '').split(':').filter((folder) => folder.startsWith('/')),
  };
}

function bad(name: string, value: string, rule: string): CniError {
  return CniError.of('SLU5113', { name, value, rule });
}

function readArgs(given: string): CniArgs {
  const pairs = new Map<string, string>();
  for (const part of given.split(';')) {
    if (part === '') continue;
    const at = part.indexOf('=');
    if (at <= 0) throw bad('CNI_ARGS', part, 'NAME=VALUE parts, separated by ";"');
    pairs.set(part.slice(0, at), part.slice(at + 1));
  }
  const unknown = [...pairs.keys()].filter((name) => !KNOWN_ARGS.has(name));
  if (
    unknown.length > 0 &&
    !['1', 'true', 'TRUE', 'True', 't', 'T'].includes(pairs.get('IgnoreUnknown') ?? '')
  ) {
    throw bad('CNI_ARGS', unknown.join(','), 'known names; others are passed over with IgnoreUnknown=1');
  }
  const value = (name: string): string | undefined => pairs.get(name) || undefined;
  const podName = value('K8S_POD_NAME');
  const podNamespace = value('K8S_POD_NAMESPACE');
  if (podNamespace !== undefined && !NAMESPACE.test(podNamespace))
    throw bad(
      'CNI_ARGS K8S_POD_NAMESPACE',
      podNamespace,
      'letters, digits, "_", "." and "-", first a letter or digit',
    );
  const podUid = value('K8S_POD_UID');
  const ip = value('IP');
  const mac = value('MAC');
  return {
    ...(podName === undefined ? {} : { podName }),
    ...(podNamespace === undefined ? {} : { podNamespace }),
    ...(podUid === undefined ? {} : { podUid }),
    ...(ip === undefined ? {} : { ip }),
    ...(mac === undefined ? {} : { mac }),
    labels: readLabels(value('SLUICE_LABELS') ?? ''),
  };
}

function readLabels(given: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (const part of given.split(',').filter((entry) => entry !== '')) {
    const at = part.indexOf('=');
    if (at <= 0) throw bad('CNI_ARGS', `SLUICE_LABELS=${given}`, 'KEY=VALUE parts, separated by ","');
    const [key, value] = [part.slice(0, at), part.slice(at + 1)];
    const rule = badQualifiedName(key) ?? badLabelValue(value);
    if (rule !== undefined) throw bad('CNI_ARGS', `SLUICE_LABELS=${given}`, rule);
    labels[key] = value;
  }
  return labels;
}
