import { describe, expect, it, vi } from 'vitest';
import { ServiceCompiler } from '../../policy/services/compiler.js';
import { created, read } from '../../test/lib/definitions.js';
import { defaultConfig } from '../config-file.js';
import type { ListeningSocket } from '../dataplane/host-listeners.js';
import { ObjectSet } from '../state/objects.js';
import { ServiceConflicts } from './conflicts.js';
import { nodeContext, serviceCapacity } from './node-context.js';

const CONFIG = defaultConfig('');

const ours = (kind: string, name: string, spec: object): object => ({
  apiVersion: 'sluice.dev/v1alpha1',
  kind,
  metadata: { name, ...(kind === 'Network' ? {} : { namespace: 'default' }) },
  spec,
});
const NETWORK = ours('Network', 'n', { mode: 'routed', ipv4: { cidr: '10.80.0.0/24' } });
const container = (name: string, ...hostPorts: number[]): object =>
  ours('Container', name, {
    netns: name,
    networks: [{ name: 'n' }],
    hostPorts: hostPorts.map((hostPort) => ({ hostPort, containerPort: 80 })),
  });
const service = (name: string, spec: object): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace: 'default' },
  spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }], ...spec },
});

class Bed {
  readonly objects = new ObjectSet();
  readonly compiler = new ServiceCompiler(serviceCapacity(CONFIG), nodeContext(CONFIG, []));
  readonly host = new Set<string>();
  hostVersion = 0;
  sockets: ListeningSocket[] = [];
  readonly conflicts = new ServiceConflicts(
    this.objects,
    this.compiler,
    () => ({ isHost: (address) => this.host.has(address), hostVersion: this.hostVersion }),
    () => this.sockets,
  );

  /** As the engine does it: objects first, then the services. */
  define(...items: readonly object[]): void {
    const resources = read(...items);
    this.objects.stage(created(resources), 'api');
    const upsert = resources.flatMap((one) =>
      one.kind === 'Service'
        ? [
            {
              kind: 'Service' as const,
              service: one,
              clusterIps: one.clusterIps === 'None' ? [] : one.clusterIps,
              nodePorts: one.ports.map(({ nodePort }) => nodePort),
              healthPort: 0,
            },
          ]
        : [],
    );
    if (upsert.length > 0) expect(this.compiler.update({ upsert, remove: [] }).error).toBeUndefined();
  }

  listen(port: number, address = '0.0.0.0'): void {
    this.sockets.push({ protocol: 'TCP', address, port, inode: 1 });
  }

  codes(): string[] {
    return this.conflicts.problems().map(({ code }) => code);
  }
}

describe('conflicts of services and host ports', () => {
  it('look at the definitions again only when these have changed', () => {
    const bed = new Bed();
    bed.define(NETWORK, container('a', 8080), service('web', { type: 'NodePort' }));
    expect(bed.codes()).toEqual([]);
    const ofKind = vi.spyOn(bed.objects, 'ofKind');
    const conflicts = vi.spyOn(bed.compiler.view, 'conflicts');
    expect(bed.codes()).toEqual([]);
    // A socket is seen without that.
    bed.listen(8080);
    expect(bed.codes()).toEqual(['SLU1811']);
    expect(bed.codes()).toEqual(['SLU1811']);
    expect(ofKind).not.toHaveBeenCalled();
    expect(conflicts).not.toHaveBeenCalled();
    bed.define(container('b', 8081));
    bed.listen(8081);
    expect(bed.codes()).toEqual(['SLU1811', 'SLU1811']);
    expect(ofKind).toHaveBeenCalled();
  });

  it('follow containers, services and addresses of the host', () => {
    const bed = new Bed();
    bed.define(NETWORK, container('a', 30_080));
    expect(bed.codes()).toEqual([]);
    bed.define(service('web', { type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }] }));
    expect(bed.codes()).toEqual(['SLU1803']);
    bed.define(container('a'));
    expect(bed.codes()).toEqual([]);
    bed.listen(30_080);
    expect(bed.codes()).toEqual(['SLU1808']);
    bed.define(service('web', {}));
    expect(bed.codes()).toEqual([]);
    bed.define(service('web', { externalIPs: ['192.0.2.9'] }));
    bed.listen(80, '192.0.2.9');
    expect(bed.codes()).toEqual([]);
    bed.host.add('192.0.2.9');
    bed.hostVersion++;
    expect(bed.codes()).toEqual(['SLU1808']);
    bed.define(service('other', { clusterIP: '10.96.0.2', externalIPs: ['192.0.2.9'] }));
    expect(bed.codes()).toEqual(['SLU1809', 'SLU1808']);
  });

  it('take changes that are taken back as changes', () => {
    const bed = new Bed();
    bed.define(NETWORK);
    bed.listen(8080);
    const undo = bed.objects.stage(created(read(container('a', 8080))), 'api');
    expect(bed.codes()).toEqual(['SLU1811']);
    undo();
    expect(bed.codes()).toEqual([]);
  });

  it('of a host port count in the families that the container has, at the address where it is published', () => {
    const bed = new Bed();
    bed.define(NETWORK, container('a', 8080));
    bed.listen(8080, '::1');
    expect(bed.codes()).toEqual([]);
    bed.listen(8080, '10.80.0.1'); // the gateway: the agent itself
    expect(bed.codes()).toEqual([]);
    bed.listen(8080, '127.0.0.1');
    expect(bed.codes()).toEqual(['SLU1811']);
  });
});
