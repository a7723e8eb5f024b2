import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';

/** Built into the kernel or loaded, and as a module. */
const PLACES = ['/sys/module/wireguard', `/lib/modules/${release()}/kernel/drivers/net/wireguard`] as const;

/** Throws SLU6002 if what is asked for cannot be had. Nothing is ever sent in the clear instead. */
export function checkEncryption(
  setting: AgentConfig['nodeEncryption'],
  exists: (path: string) => boolean = existsSync,
): void {
  if (setting === 'none') return;
  const reason = PLACES.some(exists)
    ? 'this version does not set up WireGuard between nodes yet'
    : `the kernel ${release()} has no WireGuard (CONFIG_WIREGUARD)`;
  throw SluiceError.of('SLU6002', { reason });
}
