/** What the manifests let an agent do, and the table in the docs that says why. */
import type { Manifest } from './kustomize.js';

/** `VERB RESOURCE[.GROUP]`, one for each right. */
export function rulesOf(manifests: readonly Manifest[]): string[] {
  const roles = manifests.filter(({ kind }) => kind === 'ClusterRole') as unknown as {
    readonly rules: readonly {
      readonly apiGroups: readonly string[];
      readonly resources: readonly string[];
      readonly verbs: readonly string[];
    }[];
  }[];
  return roles.flatMap(({ rules }) =>
    rules.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) =>
          verbs.map((verb) => `${verb} ${resource}${group === '' ? '' : `.${group}`}`),
        ),
      ),
    ),
  );
}

/** Without CAP_. */
export function capabilitiesOf(manifests: readonly Manifest[]): string[] {
  const daemonSet = manifests.find(({ kind }) => kind === 'DaemonSet') as unknown as {
    readonly spec: {
      readonly template: {
        readonly spec: {
          readonly containers: readonly {
            readonly securityContext: { readonly capabilities: { readonly add: readonly string[] } };
          }[];
        };
      };
    };
  };
  return daemonSet.spec.template.spec.containers.flatMap((one) => [...one.securityContext.capabilities.add]);
}

/** A right, and the code that needs it. */
export interface RightRow {
  readonly right: string;
  readonly file: string;
  readonly text: string;
}

/** Rows of the form "| `RIGHT`, `RIGHT` | what for | `FILE`: `CODE` |". */
export function tableOf(markdown: string): RightRow[] {
  return [...markdown.matchAll(/^\| (`[^|]*`) \| [^|]* \| `([^`|]+\.ts)`: `([^`|]+)` \|$/gm)].flatMap(
    ([, rights = '', file = '', text = '']) =>
      rights.split(', ').map((right) => ({ right: right.replaceAll('`', ''), file, text })),
  );
}
