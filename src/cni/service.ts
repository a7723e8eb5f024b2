import { canonicalAddress } from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import { fault } from '../faults.js';
import type { Logger } from '../log.js';
import type { Runtime } from '../runtime/runtime.js';
import { displayName, keyOf } from '../state/keys.js';
import type { Answers } from './answered.js';
import { Attached } from './attached.js';
import { type Attachment, idOf, keyText } from './attachment.js';
import { type Call, delegateCall, stillWanted } from './call.js';
import { checkChained, type Foreign, foreignOf, refuseWithout } from './chained.js';
import { checkInside } from './check.js';
import { type NetConf, readConfig, readJson, readTarget, type Target, versionOf } from './config.js';
import { isInstalled, runDelegate } from './delegate.js';
import { CniError } from './errors.js';
import { invalid } from './fields.js';
import { AttachmentMaker, type FindPod } from './maker.js';
import type { Namespaces } from './namespaces.js';
import { CniNetworks } from './networks.js';
import { readParameters } from './parameters.js';
import type { PodmanLabels } from './podman-labels.js';
import { addResult, expectedOf, hasInterface } from './result.js';
import { Turns } from './turns.js';
import { atLeastVersion, type CniVersion, NEWEST_VERSION } from './versions.js';
import type { WireRequest } from './wire.js';

interface Parts {
  readonly runtime: Runtime;
  readonly answers: Answers;
  readonly namespaces: Namespaces;
  readonly podman: Pick<PodmanLabels, 'of'>;
  readonly pod?: FindPod;
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

/** The container plugin's commands (SPEC.md, 1.1.0), each carried out in this process. */
export class CniService {
  readonly #parts: Parts;
  readonly #networks: CniNetworks;
  readonly #turns = new Turns();
  readonly #attached: Attached;
  readonly #maker: AttachmentMaker;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#networks = new CniNetworks(parts.runtime, (err) =>
      parts.log.error({ err }, 'a network that is not used could not be removed'),
    );
    this.#attached = new Attached(parts);
    const { runtime, namespaces, podman, pod, log } = parts;
    this.#maker = new AttachmentMaker({
      runtime,
      namespaces,
      attached: this.#attached,
      networks: this.#networks,
      podman,
      pod,
      log,
    });
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
      const present = this.#attached.get(key);
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
          ? await this.#maker.make(call, parameters, conf)
          : await this.#maker.takeIn(call, parameters, conf, foreign);
      this.#attached.add(attachment);
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
          if (this.#attached.isPresent(attachment)) answers.answered(key);
          fault('add:end');
        },
      };
    });
  }

  /** Attachments of an interface whose namespace went without DEL: another one has its path, or none. */
  #stale(netns: string, ifname: string): Attachment[] {
    const found = this.#attached.inNamespace(netns).filter((attachment) => attachment.ifname === ifname);
    if (found.length === 0 || this.#parts.namespaces.inspect(netns, ifname) !== undefined) return [];
    return found.filter((attachment) => this.#attached.get(keyText(attachment)) !== undefined);
  }

  #foreign(conf: NetConf, ifname: string, netns: string): Foreign | undefined {
    return foreignOf(conf, ifname, netns, this.#parts.namespaces.pair(netns, ifname));
  }

  async #del(call: Call, target: Target): Promise<CniAnswer> {
    const { containerId, ifname } = call.parameters;
    const key = keyText({ network: target.name, containerId, ifname });
    return this.#turns.one(target.name, key, async () => {
      fault('del:begin');
      const present = this.#attached.get(key);
      if (present !== undefined) await this.#remove([present]);
      fault('del:removed');
      this.#parts.answers.gone(key);
      fault('del:forgotten');
      await this.#giveBack(target, call, 'DEL');
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
        const present = this.#attached.get(key);
        if (present === undefined) throw fail(`container ${containerId} has no attachment to ${conf.name}`);
        if (present.netns !== netns) throw fail(`it was attached in ${present.netns}, not in ${netns}`);
        const live = runtime.attachment(idOf(present));
        if (live === undefined) throw fail(`container ${displayName(present.container)} is not in force`);
        if (live.spec.mode === 'chained') {
          const hostPorts = this.#attached.unpublished({ containerId, netns }, conf.hostPorts);
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
      if (addresses.type === 'delegate') await runDelegate(addresses.plugin, delegateCall(call, 'CHECK'));
      return { status: 0, text: '' };
    });
  }

  async #gc(call: Call, target: Target): Promise<CniAnswer> {
    return this.#turns.whole(target.name, async () => {
      const { answers } = this.#parts;
      const stale = this.#attached
        .ofNetwork(target.name)
        .filter(({ containerId, ifname }) => !target.valid.has(`${containerId}/${ifname}`));
      await this.#remove(stale);
      for (const key of [...answers.keys()]) {
        const [network = '', ...rest] = key.split('/');
        if (network === target.name && !target.valid.has(rest.join('/'))) answers.gone(key);
      }
      await this.#giveBack(target, call, 'GC');
      return { status: 0, text: '' };
    });
  }

  /** A plugin that is not installed gave nothing, or can take nothing back: no container stays because of it. */
  async #giveBack({ name, delegate }: Target, call: Call, command: 'DEL' | 'GC'): Promise<void> {
    if (delegate === undefined) return;
    const request = delegateCall(call, command);
    if (isInstalled(delegate, request)) await runDelegate(delegate, request);
    else
      this.#parts.log.warn(
        { plugin: delegate, network: name, path: request.path },
        'the IPAM plugin is not installed: addresses that it gave stay taken there',
      );
  }

  async #status(call: Call, conf: NetConf): Promise<CniAnswer> {
    const { addresses } = conf;
    const { runtime } = this.#parts;
    const unready = (reason: string): CniError => CniError.of('SLU5122', { reason });
    if (addresses.type === 'delegate') await runDelegate(addresses.plugin, delegateCall(call, 'STATUS'));
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
      else this.#maker.defined(name);
      if (!runtime.hasRoom(name)) throw unready(`no address is free in network ${conf.name}`);
    }
    return { status: 0, text: '' };
  }

  async #remove(attachments: readonly Attachment[]): Promise<void> {
    if (attachments.length === 0) return;
    await this.#parts.runtime.change({ remove: attachments.map(({ container }) => keyOf(container)) });
    for (const attachment of attachments) {
      this.#attached.forget(keyText(attachment));
      this.#networks.release(attachment.container.networks[0]?.network ?? '', false);
    }
  }
}

function requireVersion(command: string, version: CniVersion, needed: CniVersion): void {
  if (!atLeastVersion(version, needed)) throw CniError.of('SLU5111', { command, needed, version });
}

function json(value: unknown): string {
  return `${JSON.stringify(value)}\n`;
}
