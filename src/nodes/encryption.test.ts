import { expect, it } from 'vitest';
import { checkEncryption } from './encryption.js';

it('refuses encryption without the overlay, and says why', () => {
  for (const nodeRouting of ['direct', 'none'] as const)
    expect(() => checkEncryption({ nodeEncryption: 'wireguard', nodeRouting })).toThrow(
      `nodeEncryption cannot be wireguard: it needs nodeRouting overlay, and that is ${nodeRouting}`,
    );
  checkEncryption({ nodeEncryption: 'wireguard', nodeRouting: 'overlay' });
  checkEncryption({ nodeEncryption: 'none', nodeRouting: 'direct' });
});
