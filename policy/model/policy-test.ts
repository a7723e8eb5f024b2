/** `sluice.dev/v1alpha1` PolicyTest: definitions, and connections with the verdict that is expected of them. */
import type { ErrorPlace } from '../errors.js';
import type { TestResource } from './resources.js';

export type ProbeProtocol = 'TCP' | 'UDP' | 'SCTP' | 'ICMP';
export type ProbeVerdict = 'allow' | 'deny';

/** A new connection. */
export interface TestProbe {
  /** `namespace/name` of a Pod or Container, or an address. */
  readonly from: string;
  readonly to: string;
  /** Absent: ICMP. */
  readonly port?: number;
  readonly protocol: ProbeProtocol;
  /** Absent: IPv4 if both ends have it. */
  readonly family?: 4 | 6;
  readonly expect: ProbeVerdict;
}

export interface TestDeletion {
  readonly kind: TestResource['kind'];
  readonly namespace?: string;
  readonly name: string;
}

/** Objects that are deleted, then objects that are created or replaced, then probes. */
export interface TestStep {
  readonly delete: readonly TestDeletion[];
  readonly apply: readonly TestResource[];
  readonly probes: readonly TestProbe[];
  /** Where a deletion or a probe stands. */
  deletionPlace(index: number): ErrorPlace;
  probePlace(index: number, field?: keyof TestProbe): ErrorPlace;
}

export interface PolicyTest {
  readonly file: string;
  readonly line: number;
  readonly name: string;
  /** Files and folders with more definitions, as written: relative to the folder of `file`. */
  readonly files: readonly string[];
  filesPlace(index: number): ErrorPlace;
  /** Step 0 has the resources and probes of the spec itself, without those of `files`. */
  readonly steps: readonly [TestStep, ...TestStep[]];
}
