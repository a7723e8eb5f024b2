import { readFileSync } from 'node:fs';
import { formatAddress } from '../../policy/address.js';
import type { PortProtocol } from '../../policy/model/resources.js';

/** Files of the kernel with the sockets of this network namespace (proc(5)), and the state of one that takes what comes. */
const SOCKETS: Readonly<Partial<Record<PortProtocol, { files: readonly string[]; state: string }>>> = {
  TCP: { files: ['tcp', 'tcp6'], state: '0A' },
  UDP: { files: ['udp', 'udp6'], state: '07' },
};
const WILDCARDS: ReadonlySet<string> = new Set(['0.0.0.0', '::']);

/** A port to be published; without an address on all of the host. */
export interface WantedPort {
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly address?: string;
}

/** Addresses at which processes of the host have each port: by `protocol port`. */
export type HostSockets = ReadonlyMap<string, ReadonlySet<string>>;

/** Reads what there is now. On the thread that is in the host's namespace. */
export function hostSockets(): HostSockets {
  const found = new Map<string, Set<string>>();
  for (const [protocol, { files, state }] of Object.entries(SOCKETS))
    for (const file of files) {
      for (const [address, port] of socketsIn(textOf(file), state)) {
        const key = `${protocol} ${port}`;
        found.set(key, (found.get(key) ?? new Set()).add(address));
      }
    }
  return found;
}

/** Whether a process of the host would lose its port. `gateways`: where the agent itself answers names. */
export function isHosts(
  sockets: HostSockets,
  { protocol, port, address }: WantedPort,
  gateways: ReadonlySet<string>,
): boolean {
  const there = [...(sockets.get(`${protocol} ${port}`) ?? [])].filter((other) => !gateways.has(other));
  if (address === undefined || WILDCARDS.has(address)) return there.length > 0;
  return there.includes(address) || there.includes(address.includes(':') ? '::' : '0.0.0.0');
}

/** Address and port of each socket in this state. */
export function socketsIn(text: string, state: string): (readonly [address: string, port: number])[] {
  return text.split('\n').flatMap((line) => {
    const [, local = '', , its] = line.trim().split(/\s+/);
    if (its !== state) return [];
    const [address = '', port = ''] = local.split(':');
    return [[addressOf(address), Number.parseInt(port, 16)] as const];
  });
}

/** 32 bit words in the order of the machine, which is little endian. */
function addressOf(hex: string): string {
  const words = Buffer.from(hex, 'hex').swap32();
  return formatAddress(words.length === 16 ? words : Buffer.concat([Buffer.alloc(10), MAPPED, words]));
}

const MAPPED = Buffer.from([0xff, 0xff]);

function textOf(file: string): string {
  try {
    return readFileSync(`/proc/net/${file}`, 'latin1');
  } catch {
    return ''; // a host without IPv6
  }
}
