import { canonicalAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type {
  ContainerNetwork,
  ContainerResource,
  ContainerRoute,
  HostPort,
  NetworkResource,
} from '../../policy/model/resources.js';
import { fault } from '../faults.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { displayName, keyOf } from '../state/keys.js';
import type { Answers } from './answered.js';
import { type Attachment, attachmentOf, containerFor, idOf, keyText, type PodFacts } from './attachment.js';
import {
  chainedNetwork,
  chainedWish,
  checkChained,
  type Foreign,
  foreignOf,
  type Pair,
  refuseWithout,
} from './chained.js';
import { checkInside, type Inspected } from './check.js';
import {
  type NetConf,
  type RangeConfig,
  readConfig,
  readJson,
  readRoute,
  readTarget,
  type Target,
  versionOf,
} from './config.js';
import { type DelegateCall, type IpamResult, readIpamResult, runDelegate } from './delegate.js';
import { CniError } from './errors.js';
import { address, cidr, invalid, isObject, mac } from './fields.js';
import { CniNetworks } from './networks.js';
import { type CniParameters, readParameters } from './parameters.js';
import { podmanLabels } from './podman.js';
import { addResult, expectedOf, hasInterface, routesOf } from './result.js';
import { Turns } from './turns.js';
import { atLeastVersion, type CniVersion, NEWEST_VERSION } from './versions.js';
import type { WireRequest } from './wire.js';

/** What the service needs of the kernel: a look into a namespace. */
export interface Namespaces {
  inspect(netns: string, device: string): Inspected | undefined;
  /** Families for which the namespace has a default route. */
  defaultRoutes(netns: string): ReadonlySet<4 | 6>;
  /** The veth pair that a device of the namespace is one end of, if the other end is in the agent's own. */
  pair(netns: string, device: string): Pair | undefined;
}

interface Parts {
  readonly runtime: Runtime;
  readonly answers: Answers;
  readonly namespaces: Namespaces;
  /** In a cluster: what it says of a pod that is to be attached. Throws SluiceError; the runtime tries again. */
  readonly pod?: (namespace: string, name: string, uid: string) => Promise<PodFacts>;
  /** Whether names are answered at the gateways of networks. */
  readonly serveNames: boolean;
  readonly log: Logger;
}

/** An answer for the plugin. `delivered` is called when the plugin has printed it. */
export interface CniAnswer {
  readonly status: number;
  readonly text: string;
  readonly delivered?: () => void;
}

/** A request with what belongs to it. */
interface Call {
  readonly request: WireRequest;
  readonly parameters: CniParameters;
  /** performance.now() after which nobody waits for the answer. */
  readonly deadline: number;
  /** Whether the plugin is still there. */
  readonly alive: () => boolean;
}

/** The container plugin's commands (SPEC.md, 1.1.0), each carried out in this process. */
export class CniService {
  readonly #parts: Parts;
  readonly #networks: CniNetworks;
  readonly #turns = new Turns();
  readonly #attachments = new Map<string, Attachment>();
  /** Names of containers that are being made. */
  readonly #names = new Set<string>();

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#networks = new CniNetworks(parts.runtime, (err) =>
      parts.log.error({ err }, 'a network that is not used could not be removed'),
    );
    for (const object of parts.runtime.objects()) {
      const attachment = object.kind === 'Container' ? attachmentOf(object) : undefined;
      if (attachment !== undefined) this.#attachments.set(keyText(attachment), attachment);
    }
    for (const key of [...parts.answers.keys()])
      if (!this.#attachments.has(key) && !parts.answers.passed(key)) parts.answers.gone(key);
    this.#networks.releaseAll();
  }

  close(): void {
    this.#networks.close();
  }

  /** Carries a request out. Never throws: what goes wrong is an answer too. */
  async handle(request: WireRequest, alive: () => boolean): Promise<CniAnswer> {
    const deadline = performance.now() + request.timeLeft;
    let version: CniVersion = NEWEST_VERSION;
    try {
      const parameters = readParameters(request.environment);
      const raw = readJson(request.input);
      version = versionOf(raw);
      const call = { request, parameters, deadline, alive };
      switch (parameters.command) {
        case 'ADD':
          return await this.#add(call, readConfig(raw));
        case 'DEL':
          return await this.#del(call, readTarget(raw));
        case 'CHECK':
          requireVersion('CHECK', version, '0.4.0');
          return await this.#check(call, readConfig(raw));
        case 'GC':
          requireVersion('GC', version, '1.1.0');
          return await this.#gc(call, readTarget(raw));
        case 'STATUS':
          requireVersion('STATUS', version, '1.1.0');
          return await this.#status(call, readConfig(raw));
      }
    } catch (error) {
      if (!(error instanceof CniError) && !(error instanceof SluiceError))
        this.#parts.log.error({ err: error }, 'a CNI request failed');
      const known = CniError.from(error);
      this.#parts.log.debug({ code: known.code, reason: known.message }, 'CNI request refused');
      return { status: 1, text: known.toJson(version) };
    }
  }

  async #add(call: Call, conf: NetConf): Promise<CniAnswer> {
    const { containerId, ifname, netns = '' } = call.parameters;
    const key = keyText({ network: conf.name, containerId, ifname });
    return this.#turns.one(conf.name, key, async () => {
      stillWanted(call);
      fault('add:begin');
      const { answers } = this.#parts;
      const chained = conf.prevResult !== undefined && hasInterface(conf.prevResult, ifname, netns);
      const passed = (): string => json({ ...conf.prevResult, cniVersion: conf.cniVersion });
      const foreign = chained ? this.#foreign(conf, ifname, netns) : undefined;
      if (chained && foreign === undefined) {
        refuseWithout(conf);
        return { status: 0, text: passed(), delivered: () => answers.answered(key, true) };
      }
      const present = this.#attachment(key);
      const stale = this.#stale(netns, ifname);
      if (present !== undefined && !stale.includes(present)) {
        if (answers.has(key)) {
          const { network } = present;
          throw CniError.of('SLU5120', { container: containerId, device: ifname, network });
        }
        // Made, but its result did not arrive: this is the second try.
        stale.push(present);
      }
      await this.#remove(stale);
      const parameters = { ...call.parameters, netns };
      const attachment =
        foreign === undefined
          ? await this.#make(call, parameters, conf)
          : await this.#takeIn(call, parameters, conf, foreign);
      this.#attachments.set(key, attachment);
      fault('add:made');
      const spec = this.#parts.runtime.attachment(idOf(attachment))?.spec;
      if (spec === undefined) throw SluiceError.of('SLU2506', { reason: 'the attachment is gone again' });
      const text =
        foreign === undefined ? json(addResult(spec, netns, conf, this.#parts.serveNames)) : passed();
      fault('add:answer');
      return {
        status: 0,
        text,
        delivered: () => {
          fault('add:delivered');
          if (this.#attachments.get(key) === attachment) answers.answered(key);
          fault('add:end');
        },
      };
    });
  }

  /** Attachments of an interface whose namespace went without DEL: another one has its path, or none. */
  #stale(netns: string, ifname: string): Attachment[] {
    const found = [...this.#attachments.values()].filter(
      (attachment) => attachment.netns === netns && attachment.ifname === ifname,
    );
    if (found.length === 0 || this.#parts.namespaces.inspect(netns, ifname) !== undefined) return [];
    return found.filter((attachment) => this.#attachment(keyText(attachment)) !== undefined);
  }

  #foreign(conf: NetConf, ifname: string, netns: string): Foreign | undefined {
    return foreignOf(conf, ifname, netns, this.#parts.namespaces.pair(netns, ifname));
  }

  /** Brings policy, ports and bandwidth into force for an interface that another plugin made. */
  async #takeIn(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    foreign: Foreign,
  ): Promise<Attachment> {
    const pod = await this.#pod(parameters);
    const network = chainedNetwork(conf);
    await this.#networks.hold(network);
    try {
      return await this.#put(call, parameters, conf, chainedWish(conf, network, foreign), pod);
    } finally {
      this.#networks.release(network.name);
    }
  }

  /** Takes addresses, makes network and device. Leaves nothing when it throws. */
  async #make(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
  ): Promise<Attachment> {
    const { addresses } = conf;
    if (addresses.type !== 'delegate') return this.#attach(call, parameters, conf, addresses);
    const delegate = this.#delegateCall(call, 'ADD');
    try {
      const answer = readIpamResult(addresses.plugin, await runDelegate(addresses.plugin, delegate));
      return await this.#attach(call, parameters, withIpam(conf, answer), rangesOf(answer));
    } catch (error) {
      await runDelegate(addresses.plugin, { ...delegate, command: 'DEL' }).catch((err: unknown) =>
        this.#parts.log.warn({ err }, 'an IPAM plugin could not take its address back'),
      );
      throw error;
    }
  }

  async #attach(
    call: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    addresses: {
      readonly type?: string;
      readonly network?: string;
      readonly ipv4?: RangeConfig;
      readonly ipv6?: RangeConfig;
    },
  ): Promise<Attachment> {
    const pod = await this.#pod(parameters);
    const own = addresses.network === undefined ? this.#networks.wanted(conf, addresses) : undefined;
    if (own !== undefined) await this.#networks.hold(own);
    try {
      const network = own ?? this.#defined(addresses.network ?? '');
      return await this.#put(call, parameters, conf, this.#wish(parameters, conf, network), pod);
    } finally {
      if (own !== undefined) this.#networks.release(own.name);
    }
  }

  /** Brings a container into force that has this in its network. */
  async #put(
    { deadline }: Call,
    parameters: CniParameters & { readonly netns: string },
    conf: NetConf,
    wish: Omit<ContainerNetwork, 'device'>,
    pod: PodFacts | undefined,
  ): Promise<Attachment> {
    const { runtime } = this.#parts;
    let container: ContainerResource | undefined;
    try {
      const asked =
        conf.podman === undefined
          ? {}
          : await podmanLabels(conf.podman, parameters.containerId, deadline - performance.now());
      const taken = (namespace: string, name: string): boolean => {
        const key = `Container ${namespace}/${name}`;
        return this.#names.has(key) || runtime.get(key) !== undefined;
      };
      const ports = this.#unpublished(parameters, conf.hostPorts);
      container = containerFor(parameters, { ...conf, hostPorts: ports }, wish, asked, taken, pod);
      this.#names.add(keyOf(container));
      await runtime.change({ set: [container] });
      const attachment = attachmentOf(container);
      if (attachment === undefined) throw new TypeError('not an attachment of CNI');
      return attachment;
    } finally {
      if (container !== undefined) this.#names.delete(keyOf(container));
    }
  }

  /** The ports that the container does not have yet: runtimes ask each of its networks for all of them. */
  #unpublished(
    { containerId, netns }: Pick<CniParameters, 'containerId' | 'netns'>,
    ports: readonly HostPort[],
  ): readonly HostPort[] {
    if (ports.length === 0) return ports;
    const text = ({ protocol, hostAddress = '', hostPort, containerPort }: HostPort): string =>
      `${protocol} ${hostAddress} ${hostPort} ${containerPort}`;
    const there = [...this.#attachments.values()]
      .filter((other) => other.containerId === containerId && other.netns === netns)
      .flatMap(({ container }) => container.hostPorts.map(text));
    return ports.filter((port) => !there.includes(text(port)));
  }

  /** No container of a pod begins without the pod's labels: policy would not know it. Throws CniError 11. */
  async #pod({ args }: CniParameters): Promise<PodFacts | undefined> {
    const { podNamespace, podName, podUid = '' } = args;
    if (this.#parts.pod === undefined || podNamespace === undefined || podName === undefined)
      return undefined;
    try {
      return await this.#parts.pod(podNamespace, podName, podUid);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      throw CniError.of('SLU5117', { reason: error.message });
    }
  }

  /** A Network that is defined, of a mode that gives containers devices. */
  #defined(name: string): NetworkResource {
    const network = this.#parts.runtime.get(`Network ${name}`);
    if (network?.kind !== 'Network')
      throw invalid('network', `${name} is not defined: define it or correct the name`);
    if (network.mode === 'host' || network.mode === 'none')
      throw invalid('network', `${name} is of mode ${network.mode}, which has no addresses`);
    return network;
  }

  /** What the container is to have in the network. */
  #wish(
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
    const { routes, isDefault } = this.#routes(netns, ifname, conf, network);
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
  #routes(
    netns: string,
    ifname: string,
    conf: NetConf,
    network: NetworkResource,
  ): { isDefault: boolean; routes: ContainerRoute[] } {
    const wanted = conf.routes ?? [];
    const others = wanted.filter(({ destination }) => !isDefaultRoute(destination));
    if (conf.routes !== undefined && others.length === wanted.length)
      return { isDefault: false, routes: others };
    const mine = [...this.#attachments.values()].some((other) => {
      if (other.netns !== netns || other.ifname === ifname) return false;
      const spec = this.#parts.runtime.attachment(idOf(other))?.spec;
      return spec !== undefined && routesOf(spec).some(({ destination }) => isDefaultRoute(destination));
    });
    const taken = mine || (ifname !== 'eth0' && this.#parts.namespaces.defaultRoutes(netns).size > 0);
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

  async #del(call: Call, target: Target): Promise<CniAnswer> {
    const { containerId, ifname } = call.parameters;
    const key = keyText({ network: target.name, containerId, ifname });
    return this.#turns.one(target.name, key, async () => {
      fault('del:begin');
      const present = this.#attachment(key);
      if (present !== undefined) await this.#remove([present]);
      fault('del:removed');
      this.#parts.answers.gone(key);
      fault('del:forgotten');
      if (target.delegate !== undefined) await runDelegate(target.delegate, this.#delegateCall(call, 'DEL'));
      fault('del:answer');
      return { status: 0, text: '' };
    });
  }

  async #check(call: Call, conf: NetConf): Promise<CniAnswer> {
    const { containerId, ifname, netns = '' } = call.parameters;
    const { prevResult, addresses } = conf;
    if (prevResult === undefined) throw invalid('prevResult', 'is required for CHECK');
    const key = keyText({ network: conf.name, containerId, ifname });
    return this.#turns.one(conf.name, key, async () => {
      const { runtime, answers, namespaces } = this.#parts;
      const fail = (reason: string): CniError => CniError.of('SLU5118', { reason });
      const expected = expectedOf(prevResult, ifname, netns);
      if (expected === undefined) throw fail(`prevResult has no interface ${ifname} in ${netns}`);
      if (!answers.passed(key)) {
        const present = this.#attachment(key);
        if (present === undefined) throw fail(`container ${containerId} has no attachment to ${conf.name}`);
        if (present.netns !== netns) throw fail(`it was attached in ${present.netns}, not in ${netns}`);
        const live = runtime.attachment(idOf(present));
        if (live === undefined) throw fail(`container ${displayName(present.container)} is not in force`);
        if (live.spec.mode === 'chained') {
          const hostPorts = this.#unpublished({ containerId, netns }, conf.hostPorts);
          checkChained({ ...conf, hostPorts }, live, this.#foreign(conf, ifname, netns));
        }
        const leased = [live.spec.ipv4?.address, live.spec.ipv6?.address];
        const made = expected.addresses.map((text) => canonicalAddress(text.split('/')[0] ?? ''));
        const lost = live.spec.mode === 'chained' ? undefined : made.find((ip) => !leased.includes(ip));
        if (lost !== undefined) throw fail(`${lost} is not leased to it`);
        for (const ip of leased) {
          if (ip !== undefined && !made.includes(ip))
            throw fail(`it has the lease of ${ip}, which prevResult does not have`);
        }
      }
      checkInside(ifname, expected, namespaces.inspect(netns, ifname));
      if (addresses.type === 'delegate')
        await runDelegate(addresses.plugin, this.#delegateCall(call, 'CHECK'));
      return { status: 0, text: '' };
    });
  }

  async #gc(call: Call, target: Target): Promise<CniAnswer> {
    return this.#turns.whole(target.name, async () => {
      const { answers } = this.#parts;
      const stale = [...this.#attachments.entries()].flatMap(([key]) => {
        const attachment = this.#attachment(key);
        if (attachment?.network !== target.name) return [];
        return target.valid.has(`${attachment.containerId}/${attachment.ifname}`) ? [] : [attachment];
      });
      await this.#remove(stale);
      for (const key of [...answers.keys()]) {
        const [network = '', ...rest] = key.split('/');
        if (network === target.name && !target.valid.has(rest.join('/'))) answers.gone(key);
      }
      if (target.delegate !== undefined) await runDelegate(target.delegate, this.#delegateCall(call, 'GC'));
      return { status: 0, text: '' };
    });
  }

  async #status(call: Call, conf: NetConf): Promise<CniAnswer> {
    const { addresses } = conf;
    const { runtime } = this.#parts;
    const unready = (reason: string): CniError => CniError.of('SLU5122', { reason });
    if (addresses.type === 'delegate')
      await runDelegate(addresses.plugin, this.#delegateCall(call, 'STATUS'));
    else {
      const name = addresses.type === 'network' ? addresses.network : CniNetworks.nameOf(conf);
      // Without ranges it is for a place behind another plugin, whose affair the addresses are.
      if (addresses.type === 'ranges' && addresses.ipv4 === undefined && addresses.ipv6 === undefined)
        return { status: 0, text: '' };
      if (addresses.type === 'ranges') {
        const refusal = this.#networks.refusal(this.#networks.wanted(conf, addresses));
        if (refusal !== undefined) throw unready(refusal.message);
      } else if (runtime.get(`Network ${name}`) === undefined)
        throw unready(`network ${name} is not defined`);
      else this.#defined(name);
      if (!runtime.hasRoom(name)) throw unready(`no address is free in network ${conf.name}`);
    }
    return { status: 0, text: '' };
  }

  /** An attachment that is in force; one that the agent gave up meanwhile (its namespace is gone) is forgotten. */
  #attachment(key: string): Attachment | undefined {
    const attachment = this.#attachments.get(key);
    if (attachment === undefined || this.#parts.runtime.get(keyOf(attachment.container)) !== undefined)
      return attachment;
    this.#attachments.delete(key);
    this.#parts.answers.gone(key);
    return undefined;
  }

  async #remove(attachments: readonly Attachment[]): Promise<void> {
    if (attachments.length === 0) return;
    await this.#parts.runtime.change({ remove: attachments.map(({ container }) => keyOf(container)) });
    for (const attachment of attachments) {
      const key = keyText(attachment);
      this.#attachments.delete(key);
      this.#parts.answers.gone(key);
      this.#networks.release(attachment.container.networks[0]?.network ?? '', false);
    }
  }

  #delegateCall({ request, parameters, deadline }: Call, command: string): DelegateCall {
    const timeLeft = Math.max(1, Math.floor(deadline - performance.now()));
    return {
      command,
      environment: request.environment,
      path: parameters.path,
      input: request.input,
      timeLeft,
    };
  }
}

/** A request that waited until nobody wanted its answer any more is not begun. */
function stillWanted({ deadline, alive }: Call): void {
  if (performance.now() > deadline || !alive())
    throw CniError.of('SLU5117', { reason: 'the time of the request was over before it was its turn' });
}

function requireVersion(command: string, version: CniVersion, needed: CniVersion): void {
  if (!atLeastVersion(version, needed)) throw CniError.of('SLU5111', { command, needed, version });
}

/** The ranges in which the addresses of an IPAM plugin are. */
function rangesOf({ ips }: IpamResult): { readonly ipv4?: RangeConfig; readonly ipv6?: RangeConfig } {
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
function withIpam(conf: NetConf, { ips, routes, dns }: IpamResult): NetConf {
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

function isDefaultRoute(destination: string): boolean {
  return destination === '0.0.0.0/0' || destination === '::/0';
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
