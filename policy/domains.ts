/** Domain names in rules: syntax, and which patterns a name matches. */

/** A name, or `*.` and a name for everything below it (domainNames of ClusterNetworkPolicy). */
const PATTERN = /^(\*\.)?([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)+[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?$/;
const MAX_NAME = 253;

/** Why a text is no pattern, or undefined. Case and a final dot do not matter. */
export function badDomainPattern(text: string): string | undefined {
  const name = canonicalDomain(text);
  if (name.length > MAX_NAME) return `must not be longer than ${MAX_NAME} characters`;
  if (PATTERN.test(name)) return undefined;
  return `"${text}" must be a domain name such as www.example.com, or *.example.com for all names below it`;
}

/** Lower case, without the final dot. */
export function canonicalDomain(text: string): string {
  return text.toLowerCase().replace(/\.$/, '');
}

/** Those of the patterns (canonical) that a name (canonical) matches: itself, and `*.` before each of its ends. */
export function matchingPatterns(patterns: ReadonlySet<string>, name: string): string[] {
  const found = patterns.has(name) ? [name] : [];
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) {
    const pattern = `*${name.slice(dot)}`;
    if (patterns.has(pattern)) found.push(pattern);
  }
  return found;
}
