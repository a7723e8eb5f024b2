/** EndpointSlices in JSON, from their text to the model (see plain-reader.ts). Accepts what `isPlainSlice` does. */
import { canonicalAddress } from '../address.js';
import type { EndpointSliceResource, IpFamily, SliceEndpoint, SlicePort } from '../model/service.js';
import { type Cursor, NOT_PLAIN, spelled } from './cursor.js';
import { badDnsLabel, badDnsSubdomain } from './names.js';
import { isIpv6 } from './plain.js';

/** The label that says whose endpoints these are. */
export const SERVICE_NAME_LABEL = 'kubernetes.io/service-name';

const MOST_ENDPOINTS = 1000;
const MOST_ADDRESSES = 100;
const MOST_PORTS = 100;

const HAS_IPV4 = 1;
const HAS_IPV6 = 2;

const SLICE_FIELDS = ['apiVersion', 'kind', 'metadata', 'addressType', 'ports', 'endpoints'].map(spelled);
const METADATA_FIELDS = ['name', 'namespace', 'labels'].map(spelled);
const PORT_FIELDS = ['name', 'protocol', 'port'].map(spelled);
const ENDPOINT_FIELDS = ['addresses', 'conditions', 'nodeName', 'zone', 'targetRef'].map(spelled);
const CONDITION_FIELDS = ['ready', 'serving', 'terminating'].map(spelled);

const VERSIONS = [spelled('discovery.k8s.io/v1')];
const KINDS = [spelled('EndpointSlice')];
const FAMILIES = ['IPv4', 'IPv6'].map(spelled);
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;
const PROTOCOL_TEXTS = PROTOCOLS.map(spelled);

interface Conditions {
  readonly spelling: Uint8Array;
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
}

const READY: Conditions = { spelling: new Uint8Array(), ready: true, serving: true, terminating: false };
const NO_PORTS: readonly SlicePort[] = Object.freeze([]);
const NO_ENDPOINTS: readonly SliceEndpoint[] = Object.freeze([]);

/** What a slice says. */
export type SliceParts = Omit<EndpointSliceResource, 'kind' | 'origin' | 'source'>;

/** Reads slices, one after the other. What is spelled like in the one before is the same object. */
export class SliceReader {
  readonly #cursor: Cursor;
  #namespace = '';
  #nodeName = '';
  #zone = '';
  #conditions: Conditions | undefined;
  #ports: { readonly spelling: Uint8Array; readonly list: readonly SlicePort[] } | undefined;
  /** HAS_IPV4, HAS_IPV6: addresses of the present slice. */
  #families = 0;
  #service: string | undefined;
  readonly #noteLabel = (key: string, value: string): void => {
    if (key === SERVICE_NAME_LABEL) this.#service = value;
  };

  constructor(cursor: Cursor) {
    this.#cursor = cursor;
  }

  /** Throws NOT_PLAIN. */
  read(): SliceParts {
    const cursor = this.#cursor;
    let seen = 0;
    let name: string | undefined;
    let family: IpFamily | undefined;
    let ports = NO_PORTS;
    let endpoints = NO_ENDPOINTS;
    let namespace = 'default';
    this.#families = 0;
    this.#service = undefined;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(SLICE_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) cursor.oneOf(VERSIONS);
      else if (field === 1) cursor.oneOf(KINDS);
      else if (field === 3) family = cursor.oneOf(FAMILIES) === 0 ? 4 : 6;
      else if (field === 4) ports = this.#portList();
      else if (field === 5) endpoints = this.#endpointList();
      else {
        let known = 0;
        for (let rest = cursor.firstField(); rest; rest = cursor.nextField()) {
          const part = cursor.field(METADATA_FIELDS, known);
          known |= 1 << part;
          if (part === 0) name = cursor.string();
          else if (part === 1) namespace = this.#namespace = cursor.namespace(this.#namespace);
          else cursor.labels(this.#noteLabel);
        }
      }
    }
    // The first two say what it is.
    if ((seen & 3) !== 3 || name === undefined || family === undefined) throw NOT_PLAIN;
    if (badDnsSubdomain(name) !== undefined) throw NOT_PLAIN;
    if ((this.#families & (family === 4 ? HAS_IPV6 : HAS_IPV4)) !== 0) throw NOT_PLAIN;
    const service = this.#service;
    return service === undefined
      ? { name, namespace, family, ports, endpoints }
      : { name, namespace, service, family, ports, endpoints };
  }

  #portList(): readonly SlicePort[] {
    const cursor = this.#cursor;
    if (this.#ports !== undefined && cursor.spelledLike(this.#ports.spelling)) return this.#ports.list;
    const start = cursor.at;
    const list: SlicePort[] = [];
    let count = 0;
    for (let more = cursor.firstItem(); more; more = cursor.nextItem()) {
      if (++count > MOST_PORTS) throw NOT_PLAIN;
      const port = this.#port();
      if (port !== undefined) list.push(Object.freeze(port));
    }
    this.#ports = { spelling: cursor.spelling(start), list: Object.freeze(list) };
    return list;
  }

  /** undefined: it stands for all ports, which no service can have. */
  #port(): SlicePort | undefined {
    const cursor = this.#cursor;
    let seen = 0;
    let name = '';
    let protocol: SlicePort['protocol'] = 'TCP';
    let port = 0;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(PORT_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) {
        name = cursor.string();
        if (name !== '' && badDnsLabel(name) !== undefined) throw NOT_PLAIN;
      } else if (field === 1) protocol = PROTOCOLS[cursor.oneOf(PROTOCOL_TEXTS)] ?? 'TCP';
      else port = cursor.port();
    }
    return port === 0 ? undefined : { name, protocol, port };
  }

  #endpointList(): readonly SliceEndpoint[] {
    const cursor = this.#cursor;
    const list: SliceEndpoint[] = [];
    for (let more = cursor.firstItem(); more; more = cursor.nextItem()) {
      if (list.length === MOST_ENDPOINTS) throw NOT_PLAIN;
      list.push(Object.freeze(this.#endpoint()));
    }
    return Object.freeze(list.slice()); // a copy has no room to grow
  }

  #endpoint(): SliceEndpoint {
    const cursor = this.#cursor;
    let seen = 0;
    let address: string | undefined;
    let conditions = READY;
    let nodeName: string | undefined;
    let zone: string | undefined;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(ENDPOINT_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) address = this.#addresses();
      else if (field === 1) conditions = this.#conditionsOf();
      else if (field === 2)
        nodeName = this.#nodeName = cursor.again(this.#nodeName) ? this.#nodeName : cursor.simple();
      else if (field === 3) zone = this.#zone = cursor.again(this.#zone) ? this.#zone : cursor.simple();
      else this.#reference();
    }
    if (address === undefined) throw NOT_PLAIN;
    const { ready, serving, terminating } = conditions;
    // There are very many of these, and they are to be small.
    if (zone === undefined && nodeName !== undefined)
      return { address, ready, serving, terminating, nodeName };
    return {
      address,
      ready,
      serving,
      terminating,
      ...(nodeName === undefined ? {} : { nodeName }),
      ...(zone === undefined ? {} : { zone }),
    };
  }

  /** The first one; the API says that only that counts. */
  #addresses(): string {
    const cursor = this.#cursor;
    let first: string | undefined;
    let count = 0;
    for (let more = cursor.firstItem(); more; more = cursor.nextItem()) {
      if (++count > MOST_ADDRESSES) throw NOT_PLAIN;
      const address = cursor.ipv4();
      if (address === undefined) {
        const text = cursor.string();
        if (!isIpv6(text)) throw NOT_PLAIN;
        this.#families |= HAS_IPV6;
        first ??= canonicalAddress(text);
      } else {
        this.#families |= HAS_IPV4;
        first ??= address;
      }
    }
    if (first === undefined) throw NOT_PLAIN;
    return first;
  }

  #conditionsOf(): Conditions {
    const cursor = this.#cursor;
    if (this.#conditions !== undefined && cursor.spelledLike(this.#conditions.spelling))
      return this.#conditions;
    const start = cursor.at;
    let seen = 0;
    let values = 0;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(CONDITION_FIELDS, seen);
      seen |= 1 << field;
      if (cursor.boolean()) values |= 1 << field;
    }
    // What is left out: ready is true, serving as ready, terminating false (EndpointConditions).
    const ready = (seen & 1) === 0 || (values & 1) !== 0;
    const serving = (seen & 2) === 0 ? ready : (values & 2) !== 0;
    const terminating = (values & 4) !== 0;
    this.#conditions = { spelling: cursor.spelling(start), ready, serving, terminating };
    return this.#conditions;
  }

  /** A mapping of texts, of which nothing is needed. */
  #reference(): void {
    const cursor = this.#cursor;
    const keys: string[] = [];
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const key = cursor.simple();
      if (keys.includes(key) || !/^[A-Za-z]/.test(key)) throw NOT_PLAIN;
      keys.push(key);
      cursor.colon();
      cursor.simple();
    }
  }
}
