/** Services in JSON, from their text to the model (see plain-reader.ts). Accepts what `isPlainService` does. */
import type { Labels } from '../model/resources.js';
import type { ServicePort, ServiceResource, TrafficPolicy } from '../model/service.js';
import { type Cursor, NOT_PLAIN, spelled } from './cursor.js';
import { badDnsLabel, badPortName } from './names.js';
import { isSpecialIpv4 } from './plain.js';

const SERVICE_FIELDS = ['apiVersion', 'kind', 'metadata', 'spec', 'status'].map(spelled);
const METADATA_FIELDS = ['name', 'namespace', 'labels'].map(spelled);
const SPEC_FIELDS = [
  'clusterIP',
  'ports',
  'selector',
  'type',
  'clusterIPs',
  'ipFamilies',
  'ipFamilyPolicy',
  'sessionAffinity',
  'internalTrafficPolicy',
  'publishNotReadyAddresses',
].map(spelled);
const PORT_FIELDS = ['name', 'protocol', 'port', 'targetPort'].map(spelled);
const STATUS_FIELDS = [spelled('loadBalancer')];

const VERSIONS = [spelled('v1')];
const KINDS = [spelled('Service')];
const TYPES = [spelled('ClusterIP')];
const FAMILIES = [spelled('IPv4')];
const FAMILY_POLICIES = [spelled('SingleStack')];
const AFFINITIES = [spelled('None')];
const TRAFFIC: readonly TrafficPolicy[] = ['Cluster', 'Local'];
const TRAFFIC_TEXTS = TRAFFIC.map(spelled);
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;
const PROTOCOL_TEXTS = PROTOCOLS.map(spelled);
const QUOTE = 0x22;

const SPEC = 1 << 3;
const PORTS = 1 << 1;
const CLUSTER_IPS = 1 << 4;

/** What a service says; the rest is as by default. */
export interface ServiceParts
  extends Pick<
    ServiceResource,
    'name' | 'namespace' | 'labels' | 'ports' | 'internalTrafficPolicy' | 'publishNotReady'
  > {
  readonly clusterIp: string | undefined;
  /** undefined: it is absent or empty. */
  readonly selector: Labels | undefined;
}

interface Spec {
  clusterIp: string | undefined;
  clusterIps: string | undefined;
  ports: readonly ServicePort[];
  selector: Labels | undefined;
  traffic: TrafficPolicy;
  publishNotReady: boolean;
}

/** Reads services, one after the other. What is spelled like in the one before is the same object. */
export class ServiceReader {
  readonly #cursor: Cursor;
  #namespace = '';
  #ports: { readonly spelling: Uint8Array; readonly list: readonly ServicePort[] } | undefined;

  constructor(cursor: Cursor) {
    this.#cursor = cursor;
  }

  /** Throws NOT_PLAIN. */
  read(): ServiceParts {
    const cursor = this.#cursor;
    let seen = 0;
    let name: string | undefined;
    let namespace = 'default';
    let labels: Labels | undefined;
    let spec: Spec | undefined;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(SERVICE_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) cursor.oneOf(VERSIONS);
      else if (field === 1) cursor.oneOf(KINDS);
      else if (1 << field === SPEC) spec = this.#spec();
      else if (field === 4) this.#status();
      else {
        let known = 0;
        for (let rest = cursor.firstField(); rest; rest = cursor.nextField()) {
          const part = cursor.field(METADATA_FIELDS, known);
          known |= 1 << part;
          if (part === 0) name = cursor.string();
          else if (part === 1) namespace = this.#namespace = cursor.namespace(this.#namespace);
          else labels = this.#labels();
        }
      }
    }
    // The first two say what it is.
    if ((seen & 3) !== 3 || name === undefined || spec === undefined) throw NOT_PLAIN;
    if (badDnsLabel(name) !== undefined) throw NOT_PLAIN;
    const { clusterIp, ports, selector, traffic, publishNotReady } = spec;
    return {
      name,
      namespace,
      labels: labels ?? Object.freeze({}),
      clusterIp,
      ports,
      selector,
      internalTrafficPolicy: traffic,
      publishNotReady,
    };
  }

  #labels(): Labels {
    const labels: Record<string, string> = {};
    this.#cursor.labels((key, value) => {
      labels[key] = value;
    });
    return Object.freeze(labels);
  }

  #spec(): Spec {
    const cursor = this.#cursor;
    const spec: Spec = {
      clusterIp: undefined,
      clusterIps: undefined,
      ports: [],
      selector: undefined,
      traffic: 'Cluster',
      publishNotReady: false,
    };
    let seen = 0;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(SPEC_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) spec.clusterIp = this.#clusterIp();
      else if (field === 1) spec.ports = this.#portList();
      else if (field === 2) {
        const selector = this.#labels();
        if (Object.keys(selector).length > 0) spec.selector = selector;
      } else if (field === 3) cursor.oneOf(TYPES);
      else if (field === 4) spec.clusterIps = this.#atMostOne(() => this.#clusterIp());
      else if (field === 5) this.#atMostOne(() => cursor.oneOf(FAMILIES));
      else if (field === 6) cursor.oneOf(FAMILY_POLICIES);
      else if (field === 7) cursor.oneOf(AFFINITIES);
      else if (field === 8) spec.traffic = TRAFFIC[cursor.oneOf(TRAFFIC_TEXTS)] ?? 'Cluster';
      else spec.publishNotReady = cursor.boolean();
    }
    if ((seen & PORTS) === 0) throw NOT_PLAIN;
    if ((seen & CLUSTER_IPS) !== 0 && spec.clusterIps !== spec.clusterIp) throw NOT_PLAIN;
    return spec;
  }

  #clusterIp(): string {
    const address = this.#cursor.ipv4();
    if (address === undefined || isSpecialIpv4(address)) throw NOT_PLAIN;
    return address;
  }

  #atMostOne<T>(read: () => T): T | undefined {
    const cursor = this.#cursor;
    if (!cursor.firstItem()) return undefined;
    const item = read();
    if (cursor.nextItem()) throw NOT_PLAIN;
    return item;
  }

  /** Of exactly one. */
  #portList(): readonly ServicePort[] {
    const cursor = this.#cursor;
    if (this.#ports !== undefined && cursor.spelledLike(this.#ports.spelling)) return this.#ports.list;
    const start = cursor.at;
    const port = this.#atMostOne(() => this.#port());
    if (port === undefined) throw NOT_PLAIN;
    this.#ports = { spelling: cursor.spelling(start), list: Object.freeze([port]) };
    return this.#ports.list;
  }

  #port(): ServicePort {
    const cursor = this.#cursor;
    let seen = 0;
    let name = '';
    let protocol: ServicePort['protocol'] = 'TCP';
    let port = 0;
    let targetPort: number | string | undefined;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      const field = cursor.field(PORT_FIELDS, seen);
      seen |= 1 << field;
      if (field === 0) {
        name = cursor.string();
        if (name !== '' && badDnsLabel(name) !== undefined) throw NOT_PLAIN;
      } else if (field === 1) protocol = PROTOCOLS[cursor.oneOf(PROTOCOL_TEXTS)] ?? 'TCP';
      else if (field === 2) port = cursor.port();
      else {
        cursor.space();
        targetPort = cursor.text.charCodeAt(cursor.at) === QUOTE ? cursor.string() : cursor.port();
        if (typeof targetPort === 'string' && badPortName(targetPort) !== undefined) throw NOT_PLAIN;
      }
    }
    if (port === 0) throw NOT_PLAIN;
    return Object.freeze({ name, protocol, port, targetPort: targetPort ?? port, nodePort: 0 });
  }

  /** Of what has no addresses outside. */
  #status(): void {
    const cursor = this.#cursor;
    let seen = 0;
    for (let more = cursor.firstField(); more; more = cursor.nextField()) {
      seen |= 1 << cursor.field(STATUS_FIELDS, seen);
      if (cursor.firstField()) throw NOT_PLAIN;
    }
  }
}
