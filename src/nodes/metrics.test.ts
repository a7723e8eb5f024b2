import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { EncryptionMetrics } from './metrics.js';

it('counts peers, nodes without a key, and bytes of all peers', async () => {
  const peer = { lastHandshake: 0, receivedBytes: 5, sentBytes: 7 };
  const registry = new Registry();
  new EncryptionMetrics(registry, () => ({
    device: 'slwg0',
    publicKey: 'key',
    port: 51820,
    peers: [
      { node: 'a', ...peer },
      { node: 'b', ...peer, lastHandshake: 1_700_000_000 },
    ],
    withoutKey: ['c'],
  }));
  for (let scrape = 0; scrape < 2; scrape++) {
    const text = await registry.metrics();
    for (const line of [
      'sluice_encryption_peers{state="ready"} 2',
      'sluice_encryption_peers{state="no_key"} 1',
      'sluice_encryption_last_handshake_seconds 1700000000',
      'sluice_encryption_received_bytes_total 10',
      'sluice_encryption_sent_bytes_total 14',
    ])
      expect(text).toContain(`${line}\n`);
  }
});
