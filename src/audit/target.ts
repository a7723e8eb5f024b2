/** Which containers a command is about. */
import type { ContainerResource } from '../../policy/model/resources.js';

/** A label that has to be there (`values` absent), to have one of these values, or not to have one. */
export interface LabelTerm {
  readonly key: string;
  readonly not: boolean;
  readonly value?: string;
}

export interface Target {
  readonly namespace?: string;
  readonly name?: string;
  readonly labels: readonly LabelTerm[];
  /** The host itself, and no container. */
  readonly host?: true;
}

/**
 * `shop/web`, `web` (namespace default), `app=web,tier!=db,!old`, `host`; undefined or '': all containers. Undefined: the text is
 * none of them.
 */
export function parseTarget(text: string | undefined, namespace?: string): Target | undefined {
  const place = namespace === undefined ? {} : { namespace };
  if (text === 'host' && namespace === undefined) return { labels: [], host: true };
  if (text === undefined || text === '') return { ...place, labels: [] };
  if (/[=!,]/.test(text)) {
    const labels: LabelTerm[] = [];
    for (const part of text.split(',')) {
      const match = /^(!?)([A-Za-z0-9._/-]+)(?:(!?=)([A-Za-z0-9._-]*))?$/.exec(part.trim());
      if (match === null || (match[1] === '!' && match[3] !== undefined)) return undefined;
      const [, bang, key = '', operator, value] = match;
      labels.push({ key, not: bang === '!' || operator === '!=', ...(value === undefined ? {} : { value }) });
    }
    return { ...place, labels };
  }
  const parts = text.split('/');
  if (parts.length > 2 || parts.some((part) => part === '')) return undefined;
  const [name = '', inNamespace = namespace ?? 'default'] = parts.reverse();
  return { namespace: inNamespace, name, labels: [] };
}

export function selectsContainer(
  { namespace, name, labels, host }: Target,
  container: Pick<ContainerResource, 'namespace' | 'name' | 'labels'>,
): boolean {
  if (host === true) return false;
  if (namespace !== undefined && container.namespace !== namespace) return false;
  if (name !== undefined && container.name !== name) return false;
  return labels.every(({ key, not, value }) => {
    const has =
      Object.hasOwn(container.labels, key) && (value === undefined || container.labels[key] === value);
    return has !== not;
  });
}

/** The target as it was written. */
export function targetText({ namespace, name, labels, host }: Target): string {
  if (host === true) return 'host';
  if (name !== undefined) return `${namespace ?? 'default'}/${name}`;
  const terms = labels
    .map(({ key, not, value }) =>
      value === undefined ? `${not ? '!' : ''}${key}` : `${key}${not ? '!=' : '='}${value}`,
    )
    .join(',');
  const place = namespace === undefined ? '' : `namespace ${namespace}`;
  return [place, terms].filter((part) => part !== '').join(', ') || 'all containers';
}
