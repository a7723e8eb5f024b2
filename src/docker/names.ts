import { readFileSync } from 'node:fs';
import { z } from 'zod';

/**
 * Docker's name service reads the options of a container's resolv.conf when it starts, and gives up at one that contains
 * "ndots" and is not `ndots:NUMBER` (moby, libnetwork, rebuildDNS). C libraries pass options over that they don't know.
 */
const MARK = 'sluice-ndots';
const COMMENT = '# Names by Sluice (docker network create -o names=sluice).';

/** What asks Docker's name service for more than the names of a network. */
const hostConfig = z.object({ Dns: z.array(z.string()).nullish(), Links: z.array(z.string()).nullish() });

/**
 * A resolv.conf(5) with one name server in place of those that it has, for which Docker starts none of its own. Search
 * domains and options stay; names without a dot are asked for as they are first (`ndots:0`), as Docker has it.
 */
export function withNameServer(text: string, server: string): string {
  const lines = text.split('\n').map((line) => line.trim());
  const words = lines.map((line) => line.split(/\s+/));
  const kept = lines.filter(
    (line, at) =>
      line !== '' && line !== COMMENT && !['nameserver', 'options'].includes(words[at]?.[0] ?? ''),
  );
  const options = words
    .filter(([keyword]) => keyword === 'options')
    .flatMap((line) => line.slice(1))
    .filter((option) => option !== MARK);
  const dots = options.some((option) => option.startsWith('ndots:')) ? [] : ['ndots:0'];
  return [
    COMMENT,
    ...kept,
    `nameserver ${server}`,
    `options ${[MARK, ...dots, ...options].join(' ')}`,
    '',
  ].join('\n');
}

/** Whether Docker's name service has to do it: name servers of the container's own (`--dns`) or links to others. */
export function needsDocker(hostConfigFile: string): boolean {
  try {
    const { Dns, Links } = hostConfig.parse(JSON.parse(readFileSync(hostConfigFile, 'utf8')));
    return (Dns?.length ?? 0) + (Links?.length ?? 0) > 0;
  } catch {
    return true; // not to be known
  }
}
