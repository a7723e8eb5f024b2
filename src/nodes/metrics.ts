/** Metrics of the encryption between nodes; read at each scrape. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { EncryptionStatus, PeerStatus } from '../dataplane/encryption.js';

export class EncryptionMetrics {
  constructor(registry: Registry, read: () => EncryptionStatus | undefined) {
    const registers = [registry];
    new Gauge({
      name: 'sluice_encryption_peers',
      help: 'Other nodes by whether traffic to them can be encrypted; to those without a key of their own nothing is sent.',
      labelNames: ['state'],
      registers,
      collect() {
        const status = read();
        this.set({ state: 'ready' }, status?.peers.length ?? 0);
        this.set({ state: 'no_key' }, status?.withoutKey.length ?? 0);
      },
    });
    new Gauge({
      name: 'sluice_encryption_last_handshake_seconds',
      help: 'Unix time of the latest handshake with any other node; 0: none yet.',
      registers,
      collect() {
        this.set(Math.max(0, ...(read()?.peers ?? []).map(({ lastHandshake }) => lastHandshake)));
      },
    });
    const bytes = (direction: string, pick: (peer: PeerStatus) => number): void => {
      new Counter({
        name: `sluice_encryption_${direction}_bytes_total`,
        help: `Bytes ${direction} in the encryption, of the peers that there are.`,
        registers,
        collect() {
          this.reset();
          this.inc((read()?.peers ?? []).reduce((sum, peer) => sum + pick(peer), 0));
        },
      });
    };
    bytes('received', ({ receivedBytes }) => receivedBytes);
    bytes('sent', ({ sentBytes }) => sentBytes);
  }
}
