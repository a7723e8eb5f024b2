import { SluiceError } from '../../policy/errors.js';
import type {
  ApplyResult,
  DropEvent,
  Engine,
  ErrorLine,
  ExplainRequest,
  Explanation,
  Listing,
  ListingName,
  MetricsSnapshot,
  SourceText,
  Status,
} from '../../src/engine.js';

type Applied = Parameters<Parameters<Engine['onApplied']>[0]>[0];

/**
 * Keeps objects in memory, one for each line `KIND NAME` of a source. For tests of what stands in
 * front of the engine (server, commands, folder); the engine itself is tested on a kernel.
 */
export class MemoryEngine implements Engine {
  readonly calls: { readonly call: string; readonly sources: readonly SourceText[] }[] = [];
  readonly objects = new Map<string, string>();
  readonly log: DropEvent[] = [];
  readonly listeners = new Set<(event: DropEvent) => void>();
  readonly appliedListeners = new Set<(result: Applied) => void>();
  problems: ErrorLine[] = [];
  /** Makes the next changes wait for it. */
  gate: Promise<void> = Promise.resolve();
  ended: 'no' | 'closed' | 'down' = 'no';
  metrics: MetricsSnapshot = {
    packets: [
      { direction: 'egress', reason: 'forwarded', packets: 10, bytes: 1000 },
      { direction: 'ingress', reason: 'forwarded', packets: 20, bytes: 2000 },
      { direction: 'egress', reason: 'policy_egress', packets: 3, bytes: 180 },
    ],
    flowEntries: 4,
    flowCapacity: 16,
    flowInsertFailures: 1,
    maps: [
      { name: 'flows', entries: 4, capacity: 16, bytes: 4096 },
      { name: 'node', entries: 1, capacity: 1, bytes: 64 },
    ],
    endpoints: 2,
    policySets: 3,
    identities: 5,
    epoch: 7,
    lostEvents: 9,
    problems: ['first', 'second'].map((message) => ({ code: 'SLU1811', message })),
    services: 1,
    servicePorts: [
      {
        namespace: 'shop',
        service: 'web',
        port: 'http',
        protocol: 'TCP',
        connections: 12,
        refused: 1,
        packets: 240,
        bytes: 36000,
        ready: 3,
        terminating: 2,
      },
    ],
  };

  async apply(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change('apply', sources, 'api');
  }

  async delete(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change('delete', sources, 'api');
  }

  async replaceFolder(sources: readonly SourceText[]): Promise<ApplyResult> {
    return this.#change('replaceFolder', sources, 'folder');
  }

  async list(name: ListingName): Promise<Listing> {
    if (name === 'flows') throw new Error('the map is gone');
    const rows = name === 'networks' ? [...this.objects].map(([key, file]) => [key, file]) : [];
    return {
      columns: ['NAME', 'FILE'],
      rows,
      objects: rows.map(([key]) => ({ kind: 'Network', metadata: { name: key } })),
    };
  }

  status(): Status {
    return {
      version: '1.2.3',
      pid: process.pid,
      uptimeSeconds: 3725,
      state: this.problems.length === 0 ? 'ready' : 'degraded',
      kernel: '6.1.0',
      hooks: 'tcx',
      adopted: true,
      uplinks: ['eth0', 'eth1'],
      xdp: ['native', 'off'],
      networks: 1,
      containers: 2,
      endpoints: 2,
      policies: 3,
      policySets: 4,
      identities: 5,
      flows: { entries: 4, capacity: 16 },
      epoch: 7,
      lastApply: { at: '2026-01-02T03:04:05.678Z', ok: true, milliseconds: 1.25 },
      problems: this.problems,
    };
  }

  /** Nothing is isolated here, and nobody is known but `host` and `world`. */
  async explain({ from, to, protocol, port, family = 4 }: ExplainRequest): Promise<Explanation> {
    for (const text of [from, to]) if (text === 'nobody') throw SluiceError.of('SLU1701', { text, hint: '' });
    const denied = to === 'denied';
    return {
      from: { name: from, address: '10.1.0.2', network: 'net', identity: 256 },
      to: { name: to, address: '10.1.0.3', network: 'net', identity: 257 },
      protocol,
      port,
      family,
      verdict: denied ? 'deny' : 'allow',
      reason: denied ? 'policy_ingress' : 'forwarded',
      text: denied ? "the receiver's policy does not allow it" : 'the packet was forwarded',
      sides: [
        {
          direction: 'egress',
          container: from,
          verdict: 'allow',
          because: 'no policy applies',
          policies: [],
        },
        {
          direction: 'ingress',
          container: to,
          verdict: denied ? 'deny' : 'allow',
          rule: {
            kind: 'NetworkPolicy',
            namespace: 'shop',
            policy: 'db',
            index: denied ? 'default deny' : 0,
            file: 'shop.yaml',
            line: 7,
            text: denied
              ? 'NetworkPolicy shop/db (default deny ingress)'
              : 'NetworkPolicy shop/db, ingress rule 0 (shop.yaml:7)',
          },
          policies: [
            {
              kind: 'NetworkPolicy',
              namespace: 'shop',
              name: 'db',
              file: 'shop.yaml',
              line: 1,
              rules: [
                {
                  index: 0,
                  action: 'Accept',
                  file: 'shop.yaml',
                  line: 7,
                  matches: !denied,
                  decides: !denied,
                  missing: denied ? ['port 80/TCP: must be 5432/TCP'] : [],
                },
              ],
            },
          ],
        },
      ],
      notes: [],
      milliseconds: 1.5,
    };
  }

  snapshot(): MetricsSnapshot {
    return this.metrics;
  }

  drops(limit: number): readonly DropEvent[] {
    return this.log.slice(-limit);
  }

  onDrop(listener: (event: DropEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  onApplied(listener: (result: Applied) => void): void {
    this.appliedListeners.add(listener);
  }

  async close(): Promise<void> {
    this.ended = 'closed';
  }

  async down(): Promise<void> {
    await this.gate;
    this.ended = 'down';
  }

  drop(event: DropEvent): void {
    this.log.push(event);
    for (const listener of this.listeners) listener(event);
  }

  async #change(
    call: string,
    sources: readonly SourceText[],
    source: 'api' | 'folder',
  ): Promise<ApplyResult> {
    this.calls.push({ call, sources });
    await this.gate;
    const errors: ErrorLine[] = [];
    for (const { file, text } of sources) {
      const line = text.split('\n').findIndex((content) => content.includes('BAD'));
      if (line >= 0)
        errors.push({
          code: 'SLU1105',
          message: 'must be good, not BAD',
          file,
          line: line + 1,
          field: 'spec.mode',
        });
    }
    const ok = errors.length === 0;
    for (const listener of this.appliedListeners) listener({ ok, seconds: 0.004, source });
    if (!ok) return { ok, errors };
    if (call === 'replaceFolder') this.objects.clear();
    for (const { file, text } of sources) {
      for (const name of text.split('\n').filter((content) => content.trim() !== '')) {
        if (call === 'delete') this.objects.delete(name);
        else this.objects.set(name, file);
      }
    }
    const action = call === 'delete' ? 'deleted' : 'created';
    return {
      ok,
      changes: sources.map(
        ({ text }) => ({ kind: 'Container', namespace: 'shop', name: text.trim(), action }) as const,
      ),
      milliseconds: 4,
    };
  }
}

/** A drop with every field set. */
export function dropEvent(change: Partial<DropEvent> = {}): DropEvent {
  return {
    time: '2026-01-02T03:04:05.678Z',
    reason: 'policy_ingress',
    source: '10.1.0.2',
    destination: '10.1.0.3',
    protocol: 'TCP',
    sourcePort: 40000,
    destinationPort: 80,
    from: 'shop/stranger',
    to: 'shop/api',
    direction: 'ingress',
    rule: 'NetworkPolicy shop/api (default deny)',
    ...change,
  };
}
