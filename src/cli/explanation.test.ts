import { describe, expect, it } from 'vitest';
import { MemoryEngine } from '../../test/cli/memory-engine.js';
import type { Explanation } from '../engine.js';
import { explanationLines } from './explanation.js';

const answer = (to: string): Promise<Explanation> =>
  new MemoryEngine().explain({ from: 'shop/web', to, protocol: 'TCP', port: 80 });

describe('an explanation for people', () => {
  it('names the rule that decided', async () => {
    expect(explanationLines(await answer('shop/db'))).toEqual([
      'From         shop/web (10.1.0.2 in net)',
      'To           shop/db (10.1.0.3 in net), 80/TCP',
      'Verdict      allow',
      'Translation  none',
      '',
      'Egress of shop/web: allow, no policy applies',
      '',
      'Ingress of shop/db: allow, NetworkPolicy shop/db, ingress rule 0 (shop.yaml:7)',
      '  NetworkPolicy shop/db (shop.yaml:1)',
      '    rule 0 (line 7, Accept): decides',
    ]);
  });

  it('names the service that an address is translated for', async () => {
    const tuple = { source: '10.1.0.2', sourcePort: 61000, destination: '10.1.0.3', destinationPort: 8080 };
    const translation = { by: ['service'], service: 'shop/db', ...tuple } as const;
    expect(explanationLines({ ...(await answer('shop/db')), translation })).toContain(
      'Translation  service shop/db: 10.1.0.2:61000 -> 10.1.0.3:8080',
    );
  });

  it('says what was missing, and how addresses change', async () => {
    const lines = explanationLines({
      ...(await answer('denied')),
      translation: {
        by: ['hostPort', 'masquerade'],
        source: 'fd00::1',
        sourcePort: 1024,
        destination: 'fd00::2',
        destinationPort: 5432,
      },
      notes: ['a note'],
    });
    expect(lines).toContain("Verdict      deny: the receiver's policy does not allow it (policy_ingress)");
    expect(lines).toContain('Translation  published port, masquerade: [fd00::1]:1024 -> [fd00::2]:5432');
    expect(lines).toContain('Note         a note');
    expect(lines.slice(-3)).toEqual([
      '  NetworkPolicy shop/db (shop.yaml:1)',
      '    rule 0 (line 7, Accept): does not match',
      '      port 80/TCP: must be 5432/TCP',
    ]);
  });
});
