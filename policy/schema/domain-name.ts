/** Domain names in rules: `example.com`, or `*.example.com` for what is one label or more below it. */

const LABEL = /^(?!-)[a-z0-9_-]{1,63}(?<!-)$/;

/** The reason why a text is no domain name or pattern, or undefined. */
export function badDomainPattern(text: string): string | undefined {
  const name = text.toLowerCase().replace(/\.$/, '');
  if (name === '') return 'must not be empty';
  if (name.length > 253) return `must not be longer than 253 characters (it has ${name.length})`;
  const labels = name.startsWith('*.') ? name.slice(2).split('.') : name.split('.');
  const bad = labels.find((label) => !LABEL.test(label));
  if (bad === undefined) return undefined;
  return `"${text}" is not a domain name such as example.com or *.example.com ("${bad}" is no label)`;
}
