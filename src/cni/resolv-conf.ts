import { readFileSync } from 'node:fs';
import type { DnsConfig } from './config.js';
import { invalid, text } from './fields.js';

/** `ipam.resolvConf`: a resolv.conf(5) whose content is the DNS part of the result. Throws CniError 7. */
export function readResolvConf(value: unknown, field: string): DnsConfig {
  const path = text(value, field);
  let content: string;
  try {
    content = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalid(
      field,
      `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`,
    );
  }
  const nameservers: string[] = [];
  const options: string[] = [];
  let domain = '';
  let search: readonly string[] = [];
  for (const line of content.split('\n')) {
    const [keyword, ...words] = line.trim().split(/\s+/);
    const [word] = words;
    if (word === undefined) continue;
    if (keyword === 'nameserver') nameservers.push(word);
    if (keyword === 'domain') domain = word;
    // The last one counts.
    if (keyword === 'search') search = words;
    if (keyword === 'options') options.push(...words);
  }
  return {
    ...(nameservers.length === 0 ? {} : { nameservers }),
    ...(domain === '' ? {} : { domain }),
    ...(search.length === 0 ? {} : { search }),
    ...(options.length === 0 ? {} : { options }),
  };
}
