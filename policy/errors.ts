/**
 * Errors that a user sees: one line each, saying what is wrong, where, and what to do. Every one has
 * a stable code from the catalogue below. Ranges: 1xxx definitions, 2xxx agent, settings and CLI,
 * 3xxx loader and BPF, 4xxx netlink and devices, 5xxx addresses and leases. Never reuse a code.
 */

/** Code -> message template; `{name}` is replaced by the parameter of that name. */
export const ERRORS = {
  // 10xx: reading a file
  SLU1001: 'the file is larger than {limit} bytes ({size} bytes): split it',
  SLU1002: 'the file is not valid UTF-8 (byte {offset}): save it as UTF-8',
  SLU1003: 'not valid YAML: {reason}',
  SLU1004: 'the key "{key}" occurs twice in one mapping (first in line {first}): remove one',
  SLU1005: 'aliases expand to too much data: write the values out',
  SLU1006: 'a tab is used for indentation: use spaces',
  SLU1007: 'the file contains the control character {character}: remove it',
  SLU1008: 'more than {limit} documents in one file: split it',
  SLU1009: 'more than {limit} nested levels: no definition needs that many',

  // 11xx: one document
  SLU1101: 'a document must be a mapping with apiVersion and kind, not {got}',
  SLU1102: 'kind {kind} of apiVersion {apiVersion} is not supported; supported: {supported}',
  SLU1103: 'unknown field "{key}"{hint}',
  SLU1104: 'is required{hint}',
  SLU1105: 'must be {expected}, not {got}',
  SLU1106: '{reason}',
  SLU1107: 'must be one of {allowed}, not {got}{hint}',

  // 12xx: addresses
  SLU1201: '"{text}" is not an IPv4 or IPv6 address: {reason}',
  SLU1202: '"{text}" is not a CIDR such as 10.1.0.0/16 or fd00:1::/64: {reason}',
  SLU1203: '"{text}" has bits set beyond the prefix length: write {canonical}',
  SLU1204: 'must be an IPv{family} {what}, not "{text}"',
  SLU1205: '{cidr} is {what}: use a range that containers can have, such as 10.1.0.0/16 or fd00:1::/64',
  SLU1206: '{cidr}: the prefix length must be between /{min} and /{max} ({why})',
  SLU1207: '{address} is not inside {cidr}',
  SLU1208: '{address} is the {what} of {cidr}: take another address',

  // 13xx: several documents together
  SLU1301: '{kind} {name} is defined twice (also in {other}): remove or rename one',
  SLU1302: '{cidr} overlaps with {otherCidr} of network {other} ({where}): networks need separate ranges',
  SLU1303: 'network {network} is not defined{hint}',
  SLU1304: 'network {network} is listed twice: a container joins a network once',
  SLU1305: 'device {device} is used twice in this container: give each network its own',
  SLU1306: '{address} is already the address of container {other} ({where})',
  SLU1307: 'network {network} has no IPv{family} range: remove the address or give the network one',
  SLU1308: 'host port {port} is already taken by container {other} ({where})',
  SLU1309: 'MAC address {mac} is already used by container {other} ({where})',
  SLU1310: 'container {other} ({where}) already has device {device} in the same network namespace',
  SLU1311: 'a network of mode {mode} {rule}',
  SLU1312: 'parent device {parent} is already used by network {other} ({where})',
  SLU1313: '{address} is the gateway of network {network}: take another address',
  SLU1314: 'network {network} has room for {room} addresses and {wanted} containers: take a larger range',
  SLU1315:
    '{address} is an IPv{family} address, and the container has none: join a network with an IPv{family} range',

  SLU1316:
    '{cidr} has {address}, which is an address of this host ({device}): containers would take what is outside; take another range',

  // 14xx: policies and the resources that they are tested with
  // SLU1401 was: Node and Pod are for policy tests alone
  // SLU1402 was: domain names as peers are not supported

  // 16xx: policy tests (policy/schema/policy-test, src/policytest)
  SLU1601: 'the file has no document of kind PolicyTest',
  SLU1602: 'must be PolicyTest of apiVersion sluice.dev/v1alpha1, not {got}',
  SLU1603: 'the test has no probes: add some',
  SLU1604: '{kind} {name} is not there to be deleted{hint}',
  SLU1605: '{name} is a Pod and also a Container ({where}): a probe could not tell them apart, rename one',
  SLU1606: '{address} is already the address of {other}: an address belongs to one at a time',
  SLU1607: '"{text}" is neither an address nor namespace/name of a Pod or Container{hint}',
  SLU1608: '{from} and {to} do not both have {what}',
  SLU1609: '{name} has no address: a Pod needs status.podIPs, a Container a network that gives it one',
  SLU1610: 'cannot read {path}: {reason}',

  // 17xx: sluice explain (src/explain)
  SLU1701: '"{text}" is not defined: give a container (NAMESPACE/NAME), an address, host or world{hint}',
  SLU1702: 'container {container} has no device in force: {reason}',
  SLU1703: 'between {from} and {to} no packet passes Sluice: one of them has to be a container or this host',
  SLU1704: '{name} has no IPv{family} address: ask for the other family',
  SLU1705: 'there is no uplink, so that nothing comes from outside: set uplinks in the settings',
  SLU1706: 'container {container} is not in network {network}; it is in {networks}',
  SLU1707: '{address} is a loopback address: it never leaves its own network namespace',
  SLU1708: '{source} and {destination} are of different families',

  // 18xx: services
  SLU1801: '{address} is already the {what} of service {other} ({where}): take another one or leave it out',
  SLU1802:
    'node port {port} is already the one of service {other} ({where}): take another one or leave it out',
  SLU1803:
    'node port {port} is also a host port of container {other} ({where}), and the service goes first: take another one',
  SLU1804: 'node port {port} is outside of {min}-{max} (nodePorts in the settings)',
  SLU1805: '{address} is an address of {what}: a service cannot have it',
  SLU1806:
    'no cluster address of IPv{family} is free or serviceCidrs has no IPv{family} range: give clusterIP or change the settings',
  SLU1807:
    'all node ports from {min} to {max} are in use: delete services or change nodePorts in the settings',
  SLU1808:
    'a process of this host listens on {what}: it goes first, the service does not get its connections there',
  SLU1809: '{frontend} is already the one of service {owner}, which goes first: take another one',
  SLU1810:
    'answers come back through the node that was asked: external-mode dsr needs nodeRouting overlay, and that is {routing}',
  SLU1811:
    'a process of this host listens on host port {port} of container {container}, which goes first: the process gets nothing there',

  // 60xx: other nodes
  SLU6001: 'the overlay device {device} cannot be made: {reason}; is another program using UDP port {port}?',
  SLU6002: 'nodeEncryption cannot be wireguard: {reason}',
  SLU6003: 'the range {cidr} of node {node} cannot be routed: {reason}',
  SLU6004: 'the WireGuard key in {path} cannot be used: {reason}; remove the file to get a new one',
  SLU6005:
    'nothing is sent to node {node}: it has told no WireGuard key; is its agent running with nodeEncryption: wireguard?',
  SLU6006:
    'nothing is sent to node {node}: node {other} has the same WireGuard key; remove {file} from the state folder of one of them and restart its agent',
  SLU6007:
    'the WireGuard device {device} cannot be made: {reason}; is another program using UDP port {port}?',

  // 61xx: hosts that share an etcd
  SLU6101: 'etcd at {endpoint} cannot be reached: {reason}',
  SLU6102: 'etcd at {endpoint} answered {status} to {what}: {reason}',
  SLU6103: 'the shared object {key} is ignored: {reason}',
  SLU6104:
    'no block of {range} of network {network} is free for host {node}: take a larger range, or smaller blocks ({setting})',
  SLU6105: '{kind} {name} cannot be shared: {reason}',
  SLU6106: 'this agent shares nothing with other hosts: set etcd.endpoints',
  SLU6107: 'etcd and kubernetes cannot both be set: a cluster has a store of its own',
  SLU6108: 'at most {limit} objects can be shared in one change, and these are {count}',

  // 36xx: maps of services
  SLU3601: 'map {map} is full ({capacity} entries): raise {setting} in the settings and restart',
  SLU3602: 'health check port {port} of service {service} cannot be opened: {reason}',
  SLU3603:
    'uplink {device} takes no XDP program in mode {mode}, so services are served without: {reason}; set xdp to another mode',
  SLU3604: 'externalMode dsr needs nodeRouting overlay, and that is {routing}: change one of them',

  // 25xx: state and changes (src/engine-impl, src/state)
  SLU2501: '{kind} {name} comes from {file}: change it there',
  SLU2502: '{kind} {name} is not defined{hint}',
  SLU2503: '{kind} {name} is also applied through the API: delete it there or remove it here',
  SLU2504: 'the state folder {path} cannot be used: {reason}',
  SLU2505: 'network {network} is still used by container {container}: delete the container first',
  SLU2506: 'the change could not be made and was taken back: {reason}',
  SLU2507:
    'the change could not be made, and taking it back failed too ({undo}): {reason}; restart the agent',

  SLU2509: 'does not go together with what is in force: {reason}',
  SLU2508: 'not everything could be removed: {reason}; run "sluice down" again',

  // 72xx: safe change (src/change)
  SLU7201: 'there is no revision {number}; the latest is {latest}: see "sluice history"',
  SLU7202: 'revision {number} is no longer kept; the oldest that is kept is {oldest}',
  SLU7203: 'no change waits to be confirmed: it was confirmed already, or taken back',
  SLU7204:
    'revision {revision} waits to be confirmed ({seconds} s left): run "sluice confirm" or "sluice rollback" first',
  SLU7206: '"{selector}" is no selector: write NAMESPACE/NAME, NAME, or labels such as app=web,tier!=db',
  SLU7207: 'audit was not turned on for {target}; it is on for: {targets}',
  SLU7208: 'no container is selected by {selector}',
  SLU7205: 'the time to confirm must be between {min} and {max} seconds',

  // 73xx: domain names (policy/domains.ts, src/domains)
  SLU7301:
    'domain names need the action Accept, not {action}: an address that no answer has told of cannot be denied by name',
  SLU7302: '{annotation} needs a policy with egress: add Egress to spec.policyTypes',

  // 33xx: BPF objects of the running agent (src/dataplane)
  SLU3301:
    'map {map} has room for {capacity} entries and the change needs {wanted}: raise {setting} in the settings and restart',
  SLU3302: 'the BPF object {path} is missing: build or reinstall the package',
  SLU3303: 'the BPF programs could not be loaded: {reason}',
  SLU3304: '{path} is not a BPF file system: mount -t bpf bpf {path}',

  // 43xx: devices and namespaces (src/dataplane)
  SLU4301: 'network namespace {namespace} does not exist: create it or delete container {container}',
  SLU4302: 'device {device} of network {network} does not exist on this host',
  SLU4303: 'device {device} cannot be made for {container}: {reason}',
  SLU4304: 'uplink device {device} does not exist: correct uplinks in the settings',
  SLU4305: 'no default route found, so there is no uplink: set uplinks in the settings or add a route',
  SLU4306: 'device {device} already exists in the network namespace of {container}: remove or rename it',
  SLU4307:
    'the network namespace of container {container} is the one of the agent: use a network of mode host',
  SLU4308:
    'no room in net.ipv4.ip_local_reserved_ports for {count} of {all} published ports between {min} and {max}: connections of the host may collide with them; publish ports below {min}, or ranges without gaps',

  // 50xx: addresses and leases (src/ipam)
  SLU5001: 'no free address left in the {network} ({used} in use): delete containers or take a larger range',
  SLU5002: '{address} is already leased to {other}: choose another address',
  SLU5003: 'all {limit} endpoint indexes are in use: raise maxEndpointIndex in the settings',
  SLU5004: 'more than {limit} networks: remove some',
  SLU5005:
    'a device with the index {ifindex} cannot be taken in: it is in use, or above {limit} (maxEndpointIndex)',

  // 51xx: CNI (src/cni); up to 5109 the commands, from 5110 on answers to runtimes
  SLU5101: '{path} cannot be written: {reason}',
  SLU5102: 'the plugin {path} is missing: build or reinstall the package',
  SLU5103: 'the agent has no CNI socket: set cniSocket in its settings',
  SLU5104: 'the agent was not ready within {seconds} s: see "sluice status"',
  SLU5105: '{path} is not of Sluice: remove it by hand, or choose another --name',
  SLU5106: '{path} cannot be removed: {reason}',
  SLU5107: '{path} is for the agent at {socket}: name that agent with --config, or leave --config out',
  SLU5110: 'CNI version {version} is not supported; supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0',
  SLU5111: '{command} needs CNI version {needed} or newer, not {version}',
  SLU5112: 'required env variables [{names}] missing',
  SLU5113: '{name} "{value}" is not valid: {rule}',
  SLU5114: 'the network configuration cannot be read: {reason}',
  SLU5115: '{field}: {reason}',
  SLU5116: '{key}: {value} is not supported: {reason}',
  SLU5117: 'try again later: {reason}',
  SLU5118: '{reason}',
  SLU5119: 'the IPAM plugin {plugin} {reason}',
  SLU5120: 'container {container} has interface {device} in network {network} already: DEL comes first',
  SLU5121: 'network {network} has containers, so it cannot change {what}: delete them first',
  SLU5122: 'ADD cannot be served: {reason}',
  SLU5123:
    'the labels of container {container} cannot be asked of Podman at {socket} ({reason}): start podman.socket or correct "podman" in the network configuration',

  // 52xx: Docker (src/docker)
  SLU5201:
    'network {network} cannot change like that while container {container} of {runtime} is in it: disconnect it first',
  SLU5202: 'a request that is not understood: {reason}',
  SLU5203: 'network option {option} {reason}',
  SLU5204:
    'Docker does not answer at {socket} ({reason}), and labels come from there: correct dockerApi in the settings',
  SLU5205: 'network {network} is not defined: define it, or leave the option out',
  SLU5206: '{cidr} overlaps with {other}, which is in use: choose another subnet',
  SLU5207: 'no free range left in {space}: name one with --subnet',
  SLU5208: 'there is no address pool "{pool}"',
  SLU5209: '{address} is in use: choose another address',
  SLU5210: 'no free address left in {cidr}: remove containers or take a larger range',
  SLU5211: 'network {network} has mode {mode}: Docker can use networks of mode routed and bridge',
  SLU5212:
    'network {network} has {wanted}: use --ipam-driver (the name of this driver), --ipam-opt network={network} and --subnet {wanted}',
  SLU5213: 'there is no {what} {id}',
  SLU5214: 'more than one IPv{family} range: a network has one of each family',
  SLU5215: 'range {cidr} has no gateway: name one with --gateway',
  SLU5216: 'host port {port} is in use by a process of this host: choose another',
  SLU5217:
    'label {label} must be a name of lower case letters, digits and "-", not "{value}": policies would not find the container',

  // 53xx: name service (src/dns)
  SLU5301:
    'names of network {network} are not served at {address} port 53 ({reason}): stop what listens there, or set dns: false',

  // 70xx: host policies (policy/schema/host-policy, src/host)
  SLU7001: 'cannot read the list {path}: {reason}',
  SLU7002:
    'list {path}, line {line}: "{text}" is not an address or CIDR ({reason}): correct it; until then the last good version is in force',
  SLU7003:
    'a {what} as the subject needs the cgroup v2 hierarchy: mount it, or set cgroupRoot in the settings',
  SLU7004: 'there is no user "{user}" on this host: create it, or give its id',
  SLU7005: 'the list {path} is larger than {limit} bytes ({size} bytes): split it',
  SLU7006:
    'host policies have room for {capacity} addresses and CIDRs and need {wanted}: raise hostPrefixEntries in the settings and restart',
  SLU7007: 'the programs of the host policies could not be loaded: {reason}',
  SLU7008: 'host policies have more than {limit} subjects: join some',
  SLU7009: 'domain names are for egress: what comes in has an address, not a name',
  SLU7010: 'the list {path} does not exist: create it, or correct the path',
  SLU7011: 'systemd could not be told: {reason}',
  SLU7012: '{path} is not of Sluice: move it away first',
  SLU7013:
    'the host is open, whatever its policies say, since {at} (sluice panic-open by {by}): end it with sluice panic-end',
  SLU7014:
    'the host is closed, but for the failsafe ports, since {at} (sluice panic-close by {by}): end it with sluice panic-end',
  SLU7015:
    'the addresses of the name {name} cannot be learned without the name service and a cgroup2 file system: set dns and cgroupRoot, or name networks or a list instead',

  // 20xx: settings of the agent
  SLU2001: 'cannot read the configuration file: {reason}',
  SLU2002: 'not valid YAML: {reason}',
  SLU2003: 'unknown setting{hint}',
  SLU2004: 'must be {expected}, not {got}',
  SLU2005: 'a configuration file is one mapping with apiVersion: sluice.dev/v1alpha1 and kind: AgentConfig',

  // 21xx: start of the agent
  SLU2101: 'not enough rights: {reason}',
  SLU2102: 'the kernel is too old: {reason}',
  SLU2103: 'no BPF file system at {path}: mount one with "mount -t bpf bpf {mountPoint}" or set pinPath',
  SLU2104: 'another agent is running{pid} and uses {what}: stop it, or give this one its own {settings}',
  SLU2105: 'the metrics address {address} is in use: stop the other process or set metricsAddress',
  SLU2106: 'cannot listen on {address}: {reason}',
  SLU2107: 'cannot create the folder {path}: {reason}',
  SLU2108: '{path} exists and is not a socket: remove it or set socket',
  SLU2109: 'cannot lock {path}: {reason}',
  SLU2110: 'libbpf cannot be used: {reason}',

  // 22xx: commands
  SLU2201: 'the agent is not running (nobody listens on {socket}): start it with "sluice agent"',
  SLU2202: 'no permission to use {socket}: run as root',
  SLU2203: 'the connection to the agent at {socket} failed: {reason}',
  SLU2204: 'the answer from {socket} is not understood ({reason}): are agent and command of one version?',
  SLU2205: 'cannot read: {reason}',
  SLU2206: 'the folder has no definitions (*.yaml, *.yml, *.json)',

  // 24xx: API requests
  SLU2401: 'no such path: {path}',
  SLU2402: 'method {method} is not allowed for {path}: use {allowed}',
  SLU2403: 'the request is larger than {limit} bytes: split it',
  SLU2404: 'bad request: {reason}',
  SLU2405: 'the agent is stopping',
  SLU2406: "internal error: {reason}; the agent's log has more",

  // 62xx: the API of Kubernetes (src/kubernetes)
  SLU6201: 'the kubeconfig cannot be read: {reason}',
  SLU6202: '{reason}',
  SLU6203:
    'user {user} has {what}, which is not supported: use a client certificate, a token or a token file',
  SLU6204: 'not in a pod: {reason}; set kubernetes.kubeconfig',
  SLU6205: 'the API server answered {status} to {what}: {reason}',
  SLU6206: 'the API server at {server} cannot be reached: {reason}',
  SLU6207: 'the API server at {server} sent nothing for {seconds} s: the connection is given up',
  SLU6208: 'the answer of the API server to {what} is not understood: {reason}',
  SLU6209: 'the service account may not {verb} {resource}: apply the RBAC rules in deploy/',
  SLU6210: '{kind} {name} is ignored: {reason}',
  SLU6211: 'node {node} is not in the cluster: set nodeName to the name that "kubectl get nodes" shows',
  SLU6212:
    'node {node} has no podCIDR: let the cluster give out ranges, or write them into its annotation sluice.dev/pod-ranges',
  SLU6213: 'pod {pod} is not known to the API server yet: the runtime tries again',
  SLU6214: 'no block of {range} is free for node {node}: take a larger range or smaller blocks',
} as const;

export type ErrorCode = keyof typeof ERRORS;

type Names<T extends string> = T extends `${string}{${infer Name}}${infer Rest}` ? Name | Names<Rest> : never;

/** The parameters that the template of a code needs. */
export type ErrorParams<C extends ErrorCode> = Readonly<Record<Names<(typeof ERRORS)[C]>, string | number>>;

/** Where an error is: `line` is 1-based, `field` a path such as `spec.ingress[0].ports[1].port`. */
export interface ErrorPlace {
  readonly file?: string | undefined;
  readonly line?: number | undefined;
  readonly field?: string | undefined;
}

const MAX_SHOWN = 300;

/** Text of the user's in a message: one line, no control characters, not longer than a line. */
export function shown(text: string): string {
  let out = '';
  for (const character of text.slice(0, MAX_SHOWN + 1)) {
    const code = character.codePointAt(0) ?? 0;
    const plain = code >= 0x20 && (code < 0x7f || code > 0x9f) && code !== 0x2028 && code !== 0x2029;
    out += plain && (code < 0xd800 || code > 0xdfff) ? character : `\\u${code.toString(16).padStart(4, '0')}`;
  }
  return text.length > MAX_SHOWN ? `${out.slice(0, MAX_SHOWN)}…` : out;
}

/** An error for a person. `message` is the filled-in template, without position and code. */
export class SluiceError extends Error {
  override readonly name = 'SluiceError';
  readonly code: ErrorCode;
  readonly file?: string;
  readonly line?: number;
  readonly field?: string;

  private constructor(code: ErrorCode, message: string, place: ErrorPlace) {
    super(message);
    this.code = code;
    if (place.file !== undefined) this.file = place.file;
    if (place.line !== undefined) this.line = place.line;
    if (place.field !== undefined && place.field !== '') this.field = place.field;
  }

  /** Fills the template of `code`. */
  static of<C extends ErrorCode>(code: C, params: ErrorParams<C>, place: ErrorPlace = {}): SluiceError {
    const values = params as Readonly<Record<string, string | number>>;
    const message = ERRORS[code].replace(/\{(\w+)\}/g, (_, key: string) => shown(String(values[key] ?? '')));
    return new SluiceError(code, message, place);
  }

  /** The same error with a position; a part that is already known is kept. */
  at(place: ErrorPlace): SluiceError {
    return new SluiceError(this.code, this.message, {
      file: this.file ?? place.file,
      line: this.line ?? place.line,
      field: this.field ?? place.field,
    });
  }

  /** `file:line: field: message (CODE)`; parts that are unknown are left out. */
  toLine(): string {
    const position =
      this.file === undefined ? '' : `${shown(this.file)}${this.line === undefined ? '' : `:${this.line}`}: `;
    const field = this.field === undefined ? '' : `${shown(this.field)}: `;
    return `${position}${field}${this.message} (${this.code})`;
  }
}

/** Order for people: by file, then line, then field. */
export function compareErrors(a: SluiceError, b: SluiceError): number {
  return (
    compareText(a.file ?? '', b.file ?? '') ||
    (a.line ?? 0) - (b.line ?? 0) ||
    compareText(a.field ?? '', b.field ?? '') ||
    compareText(a.message, b.message)
  );
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** The candidate that is closest to a mistyped word, or undefined if none is close. */
export function closest(
  word: string,
  candidates: Iterable<string>,
  most = Math.max(1, Math.floor(word.length / 3)),
): string | undefined {
  if (word.length > 64) return undefined;
  let best: string | undefined;
  let bestDistance = most + 1;
  for (const candidate of candidates) {
    if (candidate === word) continue;
    const distance =
      candidate.toLowerCase() === word.toLowerCase()
        ? 0
        : editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** `; did you mean "x"?` or nothing. */
export function didYouMean(word: string, candidates: Iterable<string>): string {
  const found = closest(word, candidates);
  return found === undefined ? '' : `; did you mean "${found}"?`;
}

/** Edits (insert, delete, replace, swap of neighbours) between two words. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let value = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        value = Math.min(value, (before[j - 2] ?? 0) + 1);
      }
      row.push(value);
    }
    before = previous;
    previous = row;
  }
  return previous[b.length] ?? 0;
}
