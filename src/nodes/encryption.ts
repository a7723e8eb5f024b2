import { SluiceError } from '../../policy/errors.js';
import type { AgentConfig } from '../config.js';

/**
 * Throws SLU6002 if the settings ask for encryption that cannot be had with them. That the kernel has it is found out when
 * the devices are made. Nothing is ever sent in the clear instead.
 */
export function checkEncryption({ nodeEncryption, nodeRouting }: EncryptionSettings): void {
  if (nodeEncryption === 'none' || nodeRouting === 'overlay') return;
  throw SluiceError.of('SLU6002', { reason: `it needs nodeRouting overlay, and that is ${nodeRouting}` });
}

type EncryptionSettings = Pick<AgentConfig, 'nodeEncryption' | 'nodeRouting'>;
