/** The changes that bench/policy measures, each for a namespace of its own. */
import {
  containerDefinition,
  namespaceDefinition,
  POLICY_KINDS,
  policyDefinition,
  textOf,
  type WorldSize,
} from './policy-world.js';

export interface EventKind {
  readonly name: string;
  /** The definition that changes, for the `round`th time. */
  readonly make: (round: number) => string;
}

/** The first ones have the services of the whole cluster; with those that follow they are the first team. */
const FIRST_NAMESPACE = 5;
const NAMESPACES = 15;

export function eventKinds({ namespaces, endpoints }: WorldSize): readonly EventKind[] {
  const namespace = (round: number): number => FIRST_NAMESPACE + (round % NAMESPACES);
  const one = (definition: object): string => textOf([definition]);
  let added = endpoints;
  /** A new container of a namespace; its app follows from its index. */
  const add = (round: number, labels: Readonly<Record<string, string>>): string => {
    added += namespaces;
    return one(containerDefinition(added - (added % namespaces) + namespace(round), namespaces, labels));
  };
  return [
    { name: 'pod added, of an app that is there', make: (round) => add(round, {}) },
    { name: 'pod added, of a new app', make: (round) => add(round, { release: `r${round}` }) },
    {
      name: 'label changed, of a pod',
      make: (round) => one(containerDefinition(namespace(round), namespaces, { release: `r${round}` })),
    },
    {
      name: 'label changed, of a namespace',
      make: (round) =>
        one(namespaceDefinition(namespace(round), { team: `team-${1 + Math.floor(round / NAMESPACES)}` })),
    },
    ...POLICY_KINDS.slice(1).map((name, i) => ({
      name: `policy changed, ${name}`,
      make: (round: number) => one(policyDefinition(namespace(round), i + 1, 7000 + round)),
    })),
  ];
}
