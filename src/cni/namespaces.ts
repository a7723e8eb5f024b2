import type { Pair } from './chained.js';
import type { Inspected } from './check.js';

/** What the service needs of the kernel: a look into a namespace. */
export interface Namespaces {
  inspect(netns: string, device: string): Inspected | undefined;
  /** Families for which the namespace has a default route. */
  defaultRoutes(netns: string): ReadonlySet<4 | 6>;
  /** The veth pair that a device of the namespace is one end of, if the other end is in the agent's own. */
  pair(netns: string, device: string): Pair | undefined;
}
