/**
 * Name syntax of Kubernetes (apimachinery `validation` package). Each function returns the reason why
 * a text is refused, or undefined.
 */

const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED = /^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$/;

const LABEL_RULE = 'lower case letters, digits and "-", first and last a letter or digit';

/** RFC 1123 label: names of namespaces, networks and containers. */
export function badDnsLabel(text: string): string | undefined {
  if (text === '') return 'must not be empty';
  if (text.length > 63) return `must not be longer than 63 characters (it has ${text.length})`;
  return LABEL.test(text) ? undefined : `"${text}" must consist of ${LABEL_RULE}`;
}

/** RFC 1123 subdomain: names of most Kubernetes objects. */
export function badDnsSubdomain(text: string): string | undefined {
  if (text === '') return 'must not be empty';
  if (text.length > 253) return `must not be longer than 253 characters (it has ${text.length})`;
  return SUBDOMAIN.test(text) ? undefined : `"${text}" must consist of ${LABEL_RULE}, parts separated by "."`;
}

/** Key of a label or annotation: `name` or `prefix/name`. */
export function badQualifiedName(text: string): string | undefined {
  const parts = text.split('/');
  if (parts.length > 2) return `the key "${text}" must have at most one "/"`;
  const name = parts[parts.length - 1] ?? '';
  if (parts.length === 2) {
    const prefix = parts[0] ?? '';
    if (prefix === '') return `the key "${text}" must have a prefix before "/"`;
    const bad = badDnsSubdomain(prefix);
    if (bad !== undefined) return `the key's prefix ${bad.startsWith('"') ? bad : `"${prefix}" ${bad}`}`;
  }
  if (name === '') return `the key "${text}" must have a name`;
  if (name.length > 63) return `the key's name must not be longer than 63 characters (it has ${name.length})`;
  return QUALIFIED.test(name)
    ? undefined
    : `the key "${name}" must consist of letters, digits, "-", "_" and ".", first and last a letter or digit`;
}

export function badLabelValue(text: string): string | undefined {
  if (text.length > 63) return `must not be longer than 63 characters (it has ${text.length})`;
  return text === '' || QUALIFIED.test(text)
    ? undefined
    : `"${text}" must consist of letters, digits, "-", "_" and ".", first and last a letter or digit`;
}

/** Name of a port (IANA service name syntax, RFC 6335 section 5.1, lower case). */
export function badPortName(text: string): string | undefined {
  if (text === '') return 'must not be empty';
  if (text.length > 15) return `a port name must not be longer than 15 characters (it has ${text.length})`;
  if (!/^[-a-z0-9]+$/.test(text))
    return `the port name "${text}" must consist of lower case letters, digits and "-"`;
  if (!/[a-z]/.test(text))
    return `the port name "${text}" must have a letter; a number is written without quotes`;
  if (text.includes('--')) return `the port name "${text}" must not have two "-" in a row`;
  return text.startsWith('-') || text.endsWith('-')
    ? `the port name "${text}" must not begin or end with "-"`
    : undefined;
}

/** Name of a network device (IFNAMSIZ is 16 with the final zero; dev_valid_name in the kernel). */
export function badDeviceName(text: string): string | undefined {
  if (text === '') return 'must not be empty';
  if (text.length > 15) return `a device name must not be longer than 15 characters (it has ${text.length})`;
  if (text === '.' || text === '..' || /[\s/:%]/.test(text) || !/^[\x21-\x7e]+$/.test(text)) {
    return `"${text}" is not a device name: no spaces, "/", ":" or "%"`;
  }
  return undefined;
}
