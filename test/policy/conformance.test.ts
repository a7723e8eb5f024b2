/**
 * The public conformance suites of NetworkPolicy (Kubernetes e2e, cyclonus, kube-network-policies) and
 * of ClusterNetworkPolicy, through the oracle and through compiled maps.
 */
import { describe, expect, it } from 'vitest';
import {
  type CompilerInput,
  type CompilerKey,
  type EndpointInput,
  type NodeInput,
  PolicyCompiler,
  type PolicyResource,
} from '../../policy/compile/compiler.js';
import type { ContainerPort, Labels, NamespaceResource } from '../../policy/model/resources.js';
import { evaluate, type Probe } from '../../policy/oracle.js';
import { parseSources } from '../../policy/schema/parse.js';
import {
  type Action,
  type CaseNode,
  type CasePod,
  type CaseProbe,
  conformanceSuites,
  readSuite,
  validPolicy,
} from './conformance-cases.js';
import { Simulation } from './simulation.js';

const suites = conformanceSuites();

function readPolicy(document: unknown): PolicyResource {
  const text = JSON.stringify(validPolicy(document));
  const { resources, errors } = parseSources([{ file: 'case', text }]);
  expect(errors.map((error) => error.toLine())).toEqual([]);
  return resources[0] as PolicyResource;
}

/** A case: what exists now, for the oracle, and the maps that follow it. */
class Bench {
  readonly namespaces = new Map<string, NamespaceResource>();
  readonly policies = new Map<string, PolicyResource>();
  readonly pods = new Map<string, EndpointInput>();
  /** Pods in the network of their node: nothing but names for an address. */
  readonly hostPods = new Map<string, readonly string[]>();
  readonly nodes: NodeInput[] = [];
  readonly compiler = new PolicyCompiler();
  readonly maps = new Simulation();
  #upsert: CompilerInput[] = [];
  #remove: CompilerKey[] = [];

  namespace(name: string, labels: Labels): void {
    const resource: NamespaceResource = {
      kind: 'Namespace',
      name,
      labels,
      origin: { file: '', line: 1 },
      source: {},
    };
    this.namespaces.set(name, resource);
    this.#upsert.push(resource);
  }

  policy(document: unknown): void {
    const resource = readPolicy(document);
    this.policies.set(policyKey(resource), resource);
    this.#upsert.push(resource);
  }

  node(node: CaseNode): void {
    const input: NodeInput = { kind: 'Node', name: node.name, labels: node.labels, addresses: node.ips };
    this.nodes.push(input);
    this.#upsert.push(input);
  }

  pod(pod: CasePod): void {
    if (pod.hostNetwork === true) {
      this.hostPods.set(`${pod.namespace}/${pod.name}`, pod.ips);
      return;
    }
    const ipv4 = pod.ips.find((address) => !address.includes(':'));
    const ipv6 = pod.ips.find((address) => address.includes(':'));
    const input: EndpointInput = {
      kind: 'Endpoint',
      id: `${pod.namespace}/${pod.name}`,
      namespace: pod.namespace,
      name: pod.name,
      labels: pod.labels,
      ports: pod.ports.flatMap(({ name, protocol, port }): ContainerPort[] =>
        name === undefined ? [] : [{ name, protocol, port }],
      ),
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
    };
    this.pods.set(input.id, input);
    this.#upsert.push(input);
  }

  act(action: Action): void {
    switch (action.op) {
      case 'createPolicy':
      case 'updatePolicy':
        this.policy(action.policy);
        break;
      case 'deletePolicy':
        expect(this.policies.delete(policyKey(action))).toBe(true);
        this.#remove.push(
          action.kind === 'ClusterNetworkPolicy'
            ? { kind: 'ClusterNetworkPolicy', name: action.name }
            : { kind: 'NetworkPolicy', namespace: action.namespace ?? '', name: action.name },
        );
        break;
      case 'createNamespace':
      case 'setNamespaceLabels':
        this.namespace(action.namespace, action.labels);
        break;
      case 'deleteNamespace':
        this.namespaces.delete(action.namespace);
        this.#remove.push({ kind: 'Namespace', name: action.namespace });
        for (const pod of this.pods.values()) if (pod.namespace === action.namespace) this.#removePod(pod.id);
        break;
      case 'createPod':
        this.pod(action);
        break;
      case 'deletePod':
        this.#removePod(`${action.namespace}/${action.name}`);
        break;
      case 'setPodLabels': {
        const pod = this.pods.get(`${action.namespace}/${action.name}`);
        if (pod === undefined) throw new Error(`no pod ${action.namespace}/${action.name}`);
        const changed = { ...pod, labels: action.labels };
        this.pods.set(pod.id, changed);
        this.#upsert.push(changed);
        break;
      }
    }
  }

  #removePod(id: string): void {
    expect(this.pods.delete(id)).toBe(true);
    this.#remove.push({ kind: 'Endpoint', id });
  }

  compile(): void {
    this.maps.apply(this.compiler.update({ upsert: this.#upsert, remove: this.#remove }));
    this.maps.check(this.compiler.fullState(), [...this.pods.keys()]);
    this.#upsert = [];
    this.#remove = [];
  }

  /** Differences between what is expected, the oracle and the maps. */
  probe(probes: readonly CaseProbe[]): string[] {
    const world = {
      namespaces: [...this.namespaces.values()],
      policies: [...this.policies.values()],
      pods: [...this.pods.values()],
      nodes: this.nodes,
    };
    const differences: string[] = [];
    for (const probe of probes) {
      const family = probe.family === 'ipv6' || (probe.family === undefined && this.#only6(probe)) ? 6 : 4;
      const addressOf = (name: string): string =>
        this.hostPods.get(name)?.find((address) => address.includes(':') === (family === 6)) ?? name;
      const end = (name: string): Probe['from'] =>
        this.pods.has(name) ? { pod: name } : { address: addressOf(name) };
      const oracle = evaluate(world, {
        from: end(probe.from),
        to: end(probe.to),
        family,
        protocol: probe.protocol,
        port: probe.port,
      });
      const party = (name: string): { id: string | undefined; address: string } => {
        const pod = this.pods.get(name);
        return { id: pod?.id, address: (family === 6 ? pod?.ipv6 : pod?.ipv4) ?? addressOf(name) };
      };
      const maps = this.maps.verdict(party(probe.from), party(probe.to), probe.protocol, probe.port);
      const words = [oracle.allowed, maps.allowed].map((allowed) => (allowed ? 'allow' : 'deny'));
      if (words[0] !== probe.expect || words[1] !== probe.expect) {
        differences.push(`${JSON.stringify(probe)}: oracle ${words[0]}, maps ${words[1]}`);
      }
    }
    return differences;
  }

  #only6(probe: CaseProbe): boolean {
    return [probe.from, probe.to].some(
      (name) => this.pods.has(name) && this.pods.get(name)?.ipv4 === undefined,
    );
  }
}

function policyKey(policy: { readonly namespace?: string; readonly name: string }): string {
  return policy.namespace === undefined || policy.namespace === ''
    ? policy.name
    : `${policy.namespace}/${policy.name}`;
}

describe.skipIf(suites.length === 0)('policy conformance', () => {
  it.each(suites)('%s', (path) => {
    let count = 0;
    for (const one of readSuite(path)) {
      const bench = new Bench();
      for (const namespace of one.namespaces) bench.namespace(namespace.name, namespace.labels);
      for (const node of one.nodes ?? []) bench.node(node);
      for (const pod of one.pods) bench.pod(pod);
      for (const document of one.policies) bench.policy(document);
      bench.compile();
      expect(bench.probe(one.probes ?? []), one.name).toEqual([]);
      count += one.probes?.length ?? 0;
      for (const step of one.steps ?? []) {
        for (const action of step.actions) bench.act(action);
        bench.compile();
        expect(bench.probe(step.probes), one.name).toEqual([]);
        count += step.probes.length;
      }
    }
    expect(count).toBeGreaterThan(0);
  });
});
