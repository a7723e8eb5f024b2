import {
  type Cidr,
  cidrContains,
  cidrsOverlap,
  formatCidr,
  parseAddress,
  parseCidr,
} from '../../policy/address.js';
import { SluiceError } from '../../policy/errors.js';
import type { NetworkRange, NetworkResource } from '../../policy/model/resources.js';
import { parseSources } from '../../policy/schema/parse.js';
import type { Runtime } from '../runtime/runtime.js';
import { keyOf } from '../state/keys.js';
import { FROM } from './attachment.js';
import type { NetConf, RangeConfig } from './config.js';
import { CniError, fieldOfRequest } from './errors.js';
import { invalid } from './fields.js';

/** A network that no attachment needs any more goes after this time: the next one may be on its way. */
const IDLE_MS = 2000;
/** Not the name of any network that is defined: those have no dots. */
const PREFIX = 'cni.';

interface Use {
  count: number;
  timer?: NodeJS.Timeout;
  /** While it is being removed. */
  leaving?: Promise<void>;
  /** While it is being made. */
  making?: Promise<void>;
}

/** The networks that configurations bring themselves: made with their first attachment, removed after the last. */
export class CniNetworks {
  readonly #runtime: Runtime;
  readonly #onError: (error: unknown) => void;
  readonly #uses = new Map<string, Use>();
  readonly #checked = new Map<string, NetworkResource>();

  constructor(runtime: Runtime, onError: (error: unknown) => void) {
    this.#runtime = runtime;
    this.#onError = onError;
  }

  /** Name of the network of a configuration that brings its own ranges. */
  static nameOf(conf: { readonly name: string }): string {
    return `${PREFIX}${conf.name}`;
  }

  /** The network of a configuration, checked, whether it exists or not. Throws CniError 7. */
  wanted(
    conf: NetConf,
    ranges: { readonly ipv4?: RangeConfig; readonly ipv6?: RangeConfig },
  ): NetworkResource {
    const { mode, masquerade, mtu } = conf;
    const spec = {
      mode,
      masquerade,
      ...(mtu === undefined ? {} : { mtu }),
      ...(ranges.ipv4 === undefined ? {} : { ipv4: ranges.ipv4 }),
      ...(ranges.ipv6 === undefined ? {} : { ipv6: ranges.ipv6 }),
    };
    const key = JSON.stringify([conf.name, spec]);
    let network = this.#checked.get(key);
    if (network === undefined) {
      network = check(CniNetworks.nameOf(conf), spec);
      if (this.#checked.size >= 1024) this.#checked.clear();
      this.#checked.set(key, network);
    }
    return network;
  }

  /** Why `hold` would refuse the network now, if that is known. */
  refusal(network: NetworkResource): SluiceError | CniError | undefined {
    const present = this.#runtime.get(`Network ${network.name}`);
    if (present?.kind === 'Network') {
      if (same(present, network)) return undefined;
      try {
        if (this.#inUse(network.name)) refuseMove(present, network);
      } catch (error) {
        return CniError.from(error);
      }
    }
    const idle = this.#others(network).filter(({ name }) => !this.#inUse(name));
    return this.#runtime.refusal({ set: [network], remove: idle.map(keyOf) });
  }

  /**
   * Keeps a network for as long as `release` was not called, and makes or changes it. A new one is `inForce` a little
   * later, but before what the runtime is asked for next. Throws CniError, SluiceError, and so does `inForce`.
   */
  async hold(network: NetworkResource): Promise<{ readonly inForce: Promise<void> }> {
    const use = this.#use(network.name);
    use.count++;
    clearTimeout(use.timer);
    try {
      await use.leaving;
      await use.making?.catch(() => undefined);
      const present = this.#runtime.get(`Network ${network.name}`);
      if (present?.kind === 'Network' && same(present, network)) return { inForce: Promise.resolve() };
      if (present?.kind === 'Network' && this.#inUse(network.name)) refuseMove(present, network);
      await this.#clear(network);
      const inForce = this.#runtime.change({ set: [network] });
      inForce.catch(() => undefined); // for who waits
      use.making = inForce;
      if (present !== undefined) await inForce;
      return { inForce };
    } catch (error) {
      this.release(network.name);
      throw error;
    }
  }

  /** The network is removed a little later if nobody uses it. Networks that are defined elsewhere are left alone. */
  release(name: string, held = true): void {
    const use = this.#use(name);
    if (held) use.count--;
    clearTimeout(use.timer);
    use.timer = setTimeout(() => this.#removeIdle(name), IDLE_MS);
    use.timer.unref();
  }

  /** After a start: networks whose last attachment went with the agent. */
  releaseAll(): void {
    for (const object of this.#runtime.objects()) {
      if (object.kind === 'Network' && object.origin.file === FROM) this.release(object.name, false);
    }
  }

  close(): void {
    for (const { timer } of this.#uses.values()) clearTimeout(timer);
  }

  /** Networks that nobody uses any more do not stand in the way of another one with their range. */
  async #clear(wanted: NetworkResource): Promise<void> {
    for (const { name } of this.#others(wanted)) {
      this.#removeIdle(name);
      await this.#uses.get(name)?.leaving;
    }
  }

  /** Networks of other configurations that have the range of this one, or a part of it. */
  #others(wanted: NetworkResource): NetworkResource[] {
    const ranges = rangesOf(wanted);
    return this.#runtime
      .objects()
      .filter(
        (object): object is NetworkResource =>
          object.kind === 'Network' &&
          object.name !== wanted.name &&
          object.origin.file === FROM &&
          rangesOf(object).some((range) => ranges.some((own) => cidrsOverlap(range, own))),
      );
  }

  #use(name: string): Use {
    const present = this.#uses.get(name);
    if (present !== undefined) return present;
    const use: Use = { count: 0 };
    this.#uses.set(name, use);
    return use;
  }

  #inUse(name: string): boolean {
    return this.#runtime
      .objects()
      .some(
        (object) => object.kind === 'Container' && object.networks.some((entry) => entry.network === name),
      );
  }

  #removeIdle(name: string): void {
    const use = this.#use(name);
    const present = this.#runtime.get(`Network ${name}`);
    if (use.count > 0 || use.leaving !== undefined) return;
    if (present?.origin.file !== FROM || this.#inUse(name)) {
      this.#uses.delete(name);
      return;
    }
    use.leaving = this.#runtime
      .change({ remove: [`Network ${name}`] })
      .catch(this.#onError)
      .finally(() => {
        delete use.leaving;
        if (use.count === 0) this.#uses.delete(name);
      });
  }
}

function rangesOf({ ipv4, ipv6 }: NetworkResource): Cidr[] {
  return [ipv4, ipv6].flatMap((range) => (range === undefined ? [] : [parseCidr(range.cidr)]));
}

function same(a: NetworkResource, b: NetworkResource): boolean {
  return JSON.stringify(a.source) === JSON.stringify(b.source);
}

/** A network can follow its configuration as long as its containers need not move. */
function refuseMove(present: NetworkResource, wanted: NetworkResource): void {
  for (const family of ['ipv4', 'ipv6'] as const) {
    const before = present[family];
    const after = wanted[family];
    if (before?.cidr === after?.cidr && before?.gateway === after?.gateway) continue;
    const what = `its IPv${family === 'ipv4' ? 4 : 6} range from ${before?.cidr ?? 'none'} to ${after?.cidr ?? 'none'}`;
    throw CniError.of('SLU5121', { network: wanted.name.slice(PREFIX.length), what });
  }
  if (present.mode !== wanted.mode)
    throw CniError.of('SLU5121', {
      network: wanted.name.slice(PREFIX.length),
      what: `its mode to ${wanted.mode}`,
    });
}

interface OwnSpec {
  readonly mode: NetConf['mode'];
  readonly masquerade: boolean;
  readonly mtu?: number;
  readonly ipv4?: RangeConfig;
  readonly ipv6?: RangeConfig;
}

/** Checks ranges by the rules for Networks that are defined. */
function check(name: string, spec: OwnSpec): NetworkResource {
  if (spec.ipv4 === undefined && spec.ipv6 === undefined)
    throw invalid('network', 'name a Network of Sluice, or give ranges in ipam');
  const outer = (range: RangeConfig | undefined): object | undefined =>
    range === undefined
      ? undefined
      : { cidr: range.cidr, ...(range.gateway === undefined ? {} : { gateway: range.gateway }) };
  const document = {
    apiVersion: 'sluice.dev/v1alpha1',
    kind: 'Network',
    metadata: { name: 'own' },
    spec: { ...spec, ipv4: outer(spec.ipv4), ipv6: outer(spec.ipv6) },
  };
  const { resources, errors } = parseSources([{ file: FROM, text: JSON.stringify(document) }]);
  const [network] = resources;
  if (network?.kind !== 'Network') {
    const error = errors[0] ?? SluiceError.of('SLU1104', { hint: '' });
    throw invalid(fieldOfRequest(error.field ?? 'ipam'), error.message);
  }
  const limits = (
    range: NetworkRange | undefined,
    given: RangeConfig | undefined,
  ): NetworkRange | undefined =>
    range === undefined || given === undefined ? undefined : { ...range, ...withinRange(given) };
  const ipv4 = limits(network.ipv4, spec.ipv4);
  const ipv6 = limits(network.ipv6, spec.ipv6);
  const { ipv4: _4, ipv6: _6, ...rest } = network;
  return {
    ...rest,
    name,
    origin: { file: FROM, line: 1 },
    source: { ...document, metadata: { name }, spec },
    ...(ipv4 === undefined ? {} : { ipv4 }),
    ...(ipv6 === undefined ? {} : { ipv6 }),
  };
}

function withinRange({ cidr, first, last }: RangeConfig): Pick<NetworkRange, 'first' | 'last'> {
  const range = parseCidr(cidr);
  for (const [name, limit] of [
    ['rangeStart', first],
    ['rangeEnd', last],
  ] as const) {
    if (limit !== undefined && !cidrContains(range, parseAddress(limit)))
      throw invalid(`ipam.ranges.${name}`, `${limit} is not inside ${formatCidr(range)}`);
  }
  return { ...(first === undefined ? {} : { first }), ...(last === undefined ? {} : { last }) };
}
