import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { isAbsolute } from 'node:path';
import { type Document, isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { tryParseCidr } from '../policy/address.js';
import { compareErrors, didYouMean, SluiceError, shown } from '../policy/errors.js';
import { badDnsLabel, badDnsSubdomain, badLabelValue } from '../policy/schema/names.js';
import {
  type AgentConfig,
  CONFIG_DEFAULTS,
  defaultCniSocket,
  defaultDockerPlugin,
  defaultSocket,
  ETCD_DEFAULTS,
  KUBERNETES_DEFAULTS,
} from './config.js';
import { reasonOf } from './http/api.js';
import { parseHostPort } from './metrics/host-port.js';

/** Longest path of a Unix socket, bytes (sun_path without its final zero; unix(7)). */
const MAX_SOCKET_PATH = 107;

const path = z
  .string()
  .refine((text) => isAbsolute(text) && !text.includes('\0'), { error: 'an absolute path' });
const pathOrOff = z
  .string()
  .refine((text) => text === '' || isAbsolute(text), { error: 'an absolute path, or "" for none' });

function isWholeNumber(value: unknown, min: number, max: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max;
}

function wholeNumber(min: number, max: number) {
  return z.custom<number>((value) => isWholeNumber(value, min, max), {
    error: `a whole number from ${min} to ${max}`,
  });
}

/** One error text for the whole value, whichever of its forms comes closest. */
function autoOr<T>(isValue: (value: unknown) => boolean, text: string) {
  return z.custom<'auto' | T>((value) => value === 'auto' || isValue(value), { error: `"auto" or ${text}` });
}

const isDeviceList = (value: unknown): boolean =>
  Array.isArray(value) && value.every((name) => typeof name === 'string' && /^[^\s/:]{1,15}$/u.test(name));

const isAddressList = (value: unknown): boolean =>
  Array.isArray(value) &&
  value.length <= 8 &&
  value.every((address) => typeof address === 'string' && isIP(address) !== 0);

function isPortRange(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { min, max, ...rest } = value as Record<string, unknown>;
  return isWholeNumber(min, 1, 65535) && isWholeNumber(max, min, 65535) && Object.keys(rest).length === 0;
}

const isPortList = (value: unknown): boolean =>
  Array.isArray(value) &&
  value.length <= 256 &&
  value.every((text) => {
    const match = typeof text === 'string' ? /^([0-9]{1,5})\/(TCP|UDP)$/.exec(text) : null;
    return match !== null && isWholeNumber(Number(match[1]), 1, 65535);
  });

function isFailsafe(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { inbound, outbound, ...rest } = value as Record<string, unknown>;
  return isPortList(inbound) && isPortList(outbound) && Object.keys(rest).length === 0;
}

const isCidrList = (value: unknown): boolean =>
  Array.isArray(value) && value.every((text) => typeof text === 'string' && tryParseCidr(text) !== undefined);

function isServiceRanges(value: readonly string[]): boolean {
  const cidrs = value.map((text) => tryParseCidr(text));
  if (cidrs.some((cidr) => cidr === undefined)) return false;
  return new Set(cidrs.map((cidr) => cidr?.family)).size === cidrs.length;
}

/** With null (`kubernetes:` and nothing else) everything is as by default. */
const kubernetes = z.preprocess(
  (value) => value ?? {},
  z.strictObject({
    kubeconfig: pathOrOff.default(KUBERNETES_DEFAULTS.kubeconfig),
    network: z
      .string()
      .refine((text) => badDnsLabel(text) === undefined, { error: 'the name of a network' })
      .default(KUBERNETES_DEFAULTS.network),
    cniBinDir: pathOrOff.default(KUBERNETES_DEFAULTS.cniBinDir),
    cniConfDir: pathOrOff.default(KUBERNETES_DEFAULTS.cniConfDir),
    cniName: z
      .string()
      .regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/, { error: 'letters, digits, ".", "_" and "-"' })
      .default(KUBERNETES_DEFAULTS.cniName),
  }),
);

const etcd = z.strictObject({
  endpoints: z
    .array(z.string())
    .refine((value) => value.length > 0 && value.length <= 16 && value.every(isEndpoint), {
      error: 'a list of http or https addresses such as http://10.0.0.1:2379',
    }),
  prefix: z
    .string()
    .regex(/^(\/[A-Za-z0-9._-]+)+$/, { error: 'a path such as /sluice' })
    .default(ETCD_DEFAULTS.prefix),
  leaseSeconds: wholeNumber(5, 86_400).default(ETCD_DEFAULTS.leaseSeconds),
  blockLength4: wholeNumber(9, 30).default(ETCD_DEFAULTS.blockLength4),
  blockLength6: wholeNumber(33, 126).default(ETCD_DEFAULTS.blockLength6),
  ca: pathOrOff.default(ETCD_DEFAULTS.ca),
  cert: pathOrOff.default(ETCD_DEFAULTS.cert),
  key: pathOrOff.default(ETCD_DEFAULTS.key),
});

function isEndpoint(text: string): boolean {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url !== undefined && /^https?:$/.test(url.protocol) && url.pathname === '/' && url.hostname !== '';
}

const settings = z.strictObject({
  apiVersion: z.literal('sluice.dev/v1alpha1', { error: '"sluice.dev/v1alpha1"' }),
  kind: z.literal('AgentConfig', { error: '"AgentConfig"' }),
  instance: z
    .string()
    .regex(/^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$/, { error: 'at most 32 lower case letters, digits and "-"' })
    .optional(),
  stateDir: path.optional(),
  runDir: path.optional(),
  socket: path
    .refine((text) => Buffer.byteLength(text) <= MAX_SOCKET_PATH, {
      error: `a path of at most ${MAX_SOCKET_PATH} bytes`,
    })
    .optional(),
  cniSocket: pathOrOff
    .refine((text) => Buffer.byteLength(text) <= MAX_SOCKET_PATH, {
      error: `a path of at most ${MAX_SOCKET_PATH} bytes`,
    })
    .optional(),
  pinPath: path.optional(),
  cgroupRoot: pathOrOff.optional(),
  uplinks: autoOr<readonly string[]>(isDeviceList, 'a list of device names').optional(),
  definitions: pathOrOff.optional(),
  metricsAddress: z
    .string()
    .refine((text) => text === '' || parseHostPort(text) !== undefined, {
      error: 'HOST:PORT such as 127.0.0.1:9644, or "" for none',
    })
    .optional(),
  flowEntries: autoOr<number>(
    (value) => isWholeNumber(value, 1024, 67_108_864),
    'a whole number from 1024 to 67108864',
  ).optional(),
  maxEndpointIndex: wholeNumber(1024, 1_048_576).optional(),
  policyPeerEntries: wholeNumber(1024, 16_777_216).optional(),
  policyPortEntries: wholeNumber(1024, 16_777_216).optional(),
  addressEntries: wholeNumber(1024, 16_777_216).optional(),
  cidrEntries: wholeNumber(1024, 16_777_216).optional(),
  hostPortEntries: wholeNumber(256, 1_048_576).optional(),
  failsafePorts: z
    .custom<AgentConfig['failsafePorts']>(isFailsafe, {
      error: '{inbound, outbound}, each a list of ports such as 22/TCP',
    })
    .optional(),
  hostPrefixEntries: wholeNumber(1024, 16_777_216).optional(),
  snatPorts: autoOr<AgentConfig['snatPorts']>(
    isPortRange,
    '{min, max} with 1 <= min <= max <= 65535',
  ).optional(),
  dockerPlugin: pathOrOff
    .refine((text) => text === '' || (text.endsWith('.sock') && Buffer.byteLength(text) <= MAX_SOCKET_PATH), {
      error: `a path of at most ${MAX_SOCKET_PATH} bytes that ends in .sock, or "" for none`,
    })
    .optional(),
  dns: z.boolean({ error: 'true or false' }).optional(),
  dnsUpstreams: autoOr<readonly string[]>(isAddressList, 'a list of at most 8 addresses').optional(),
  dockerApi: path.optional(),
  nodeName: z
    .string()
    .refine((text) => text === '' || badDnsSubdomain(text) === undefined, {
      error: 'a DNS name in lower case',
    })
    .optional(),
  nodeAddresses: autoOr<readonly string[]>(isAddressList, 'a list of at most 8 addresses').optional(),
  nodeRouting: z.enum(['overlay', 'direct', 'none'], { error: 'one of overlay, direct, none' }).optional(),
  vxlanPort: wholeNumber(1, 65_535).optional(),
  vxlanId: wholeNumber(1, 16_777_215).optional(),
  podCidrs: z
    .custom<readonly string[]>(isCidrList, { error: 'a list of CIDRs such as 10.244.0.0/16' })
    .optional(),
  nodeEncryption: z.enum(['none', 'wireguard'], { error: 'one of none, wireguard' }).optional(),
  wireguardPort: wholeNumber(1, 65_535).optional(),
  zone: z
    .string()
    .refine((text) => badLabelValue(text) === undefined, { error: 'a value that a label can have' })
    .optional(),
  serviceCidrs: z
    .array(z.string())
    .refine(isServiceRanges, { error: 'at most one CIDR of each family, such as 10.96.0.0/12' })
    .optional(),
  nodePorts: z
    .custom<AgentConfig['nodePorts']>(isPortRange, { error: '{min, max} with 1 <= min <= max <= 65535' })
    .optional(),
  nodePortAddresses: z
    .custom<AgentConfig['nodePortAddresses']>((value) => value === 'all' || isCidrList(value), {
      error: '"all" or a list of CIDRs',
    })
    .optional(),
  serviceBalancing: z
    .enum(['random', 'least-connections'], { error: 'one of random, least-connections' })
    .optional(),
  externalBalancing: z.enum(['maglev', 'random'], { error: 'one of maglev, random' }).optional(),
  externalMode: z.enum(['snat', 'dsr'], { error: 'one of snat, dsr' }).optional(),
  xdp: z
    .enum(['auto', 'native', 'generic', 'off'], { error: 'one of auto, native, generic, off' })
    .optional(),
  serviceEntries: wholeNumber(1024, 1_048_576).optional(),
  serviceSlotEntries: wholeNumber(4096, 67_108_864).optional(),
  backendEntries: wholeNumber(1024, 1_048_576).optional(),
  kubernetes: kubernetes.optional(),
  etcd: etcd.optional(),
  logLevel: z
    .enum(['trace', 'debug', 'info', 'warn', 'error'], { error: 'one of trace, debug, info, warn, error' })
    .optional(),
  hooks: z.enum(['auto', 'tcx', 'clsact'], { error: 'one of auto, tcx, clsact' }).optional(),
});

type Settings = z.infer<typeof settings>;

/** The settings after defaults, or every error in the file with its line. */
export type ParsedConfig =
  | { readonly ok: true; readonly config: AgentConfig }
  | { readonly ok: false; readonly errors: readonly SluiceError[] };

/** Reads a configuration file. `mounts` is the text of /proc/mounts, for the default cgroupRoot. */
export function readConfigFile(file: string, mounts: string = readMounts()): ParsedConfig {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(file));
  } catch (error) {
    const reason = error instanceof TypeError ? 'it is not valid UTF-8' : reasonOf(error);
    return { ok: false, errors: [SluiceError.of('SLU2001', { reason }, { file })] };
  }
  return parseConfig(file, text, mounts);
}

/** The settings without a configuration file. */
export function defaultConfig(mounts: string = readMounts()): AgentConfig {
  return withDefaults({}, mounts);
}

/** Checks the text of a configuration file. */
export function parseConfig(file: string, text: string, mounts: string): ParsedConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    const errors = document.errors.map((error) =>
      SluiceError.of('SLU2002', { reason: error.message }, { file, line: lines.linePos(error.pos[0]).line }),
    );
    return { ok: false, errors };
  }
  if (document.contents === null || (isScalar(document.contents) && document.contents.value === null)) {
    return { ok: true, config: withDefaults({}, mounts) };
  }
  if (!isMap(document.contents))
    return { ok: false, errors: [SluiceError.of('SLU2005', {}, { file, line: 1 })] };

  let content: unknown;
  try {
    content = document.toJS();
  } catch (error) {
    return {
      ok: false,
      errors: [SluiceError.of('SLU2002', { reason: (error as Error).message }, { file, line: 1 })],
    };
  }
  const result = settings.safeParse(content);
  if (result.success) return { ok: true, config: withDefaults(result.data, mounts) };
  const errors = result.error.issues.flatMap((issue) => toErrors(issue, document, lines, file, content));
  return { ok: false, errors: errors.sort(compareErrors) };
}

function toErrors(
  issue: z.core.$ZodIssue,
  document: Document.Parsed,
  lines: LineCounter,
  file: string,
  content: unknown,
): SluiceError[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const hint = didYouMean(key, Object.keys(settings.shape)).replace(/^; /, ': ');
      return SluiceError.of(
        'SLU2003',
        { hint },
        { file, line: lineOf(document, lines, [...issue.path, key]), field: key },
      );
    });
  }
  const [name] = issue.path;
  if ((name === 'apiVersion' || name === 'kind') && !(name in (content as object))) {
    return [SluiceError.of('SLU2005', {}, { file, line: 1, field: name })];
  }
  const value = issue.path.reduce<unknown>(
    (at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key],
    content,
  );
  const place = { file, line: lineOf(document, lines, issue.path), field: issue.path.join('.') };
  return [
    SluiceError.of(
      'SLU2004',
      { expected: issue.message, got: shown(JSON.stringify(value) ?? 'nothing') },
      place,
    ),
  ];
}

/** Line of the key at `path`, or of the closest thing above it. */
function lineOf(document: Document.Parsed, lines: LineCounter, path: readonly PropertyKey[]): number {
  let node: unknown = document.contents;
  let offset = document.contents?.range[0] ?? 0;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => String(key) === String(step));
      if (pair === undefined) break;
      offset = (pair.key as { range?: [number, number, number] }).range?.[0] ?? offset;
      node = pair.value;
    } else {
      const item = (node as { items?: unknown[] } | null)?.items?.[Number(step)];
      if (item === undefined) break;
      offset = (item as { range?: [number, number, number] }).range?.[0] ?? offset;
      node = item;
    }
  }
  return lines.linePos(offset).line;
}

/** The cgroup v2 mount point in the text of /proc/mounts, or '' if there is none. */
export function findCgroup2(mounts: string): string {
  for (const line of mounts.split('\n')) {
    const [, target, type] = line.split(' ');
    if (type !== 'cgroup2' || target === undefined) continue;
    return target.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
  }
  return '';
}

/** The mounts of this process, as /proc/mounts shows them. */
export function readMounts(): string {
  try {
    return readFileSync('/proc/self/mounts', 'utf8');
  } catch {
    return '';
  }
}

function withDefaults(given: Partial<Settings>, mounts: string): AgentConfig {
  const { apiVersion: _apiVersion, kind: _kind, ...rest } = given;
  const set = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  const config = { ...CONFIG_DEFAULTS, ...set } as typeof CONFIG_DEFAULTS & Partial<AgentConfig>;
  return Object.freeze({
    ...(config as Omit<AgentConfig, 'socket' | 'cniSocket' | 'cgroupRoot' | 'dockerPlugin'>),
    socket: config.socket ?? defaultSocket(config.runDir),
    cniSocket: config.cniSocket ?? defaultCniSocket(config.runDir),
    dockerPlugin: config.dockerPlugin ?? defaultDockerPlugin(config.instance),
    cgroupRoot: config.cgroupRoot ?? findCgroup2(mounts),
  });
}
