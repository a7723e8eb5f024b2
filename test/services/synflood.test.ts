import { beforeAll, describe, expect, it } from 'vitest';
import { buildFlood, runFlood } from '../../bench/lib/synflood.js';

/** `make bench-synflood` in small: the same, with fewer SYNs and connections. */
describe('a flood of SYNs at a node port', () => {
  let tool = '';
  beforeAll(() => {
    tool = buildFlood();
  });

  it.each(['here', 'elsewhere'] as const)(
    'breaks no open connection to a backend that is %s',
    async (backend) => {
      const result = await runFlood('sltsf', tool, {
        backend,
        syns: 60_000,
        rate: 30_000,
        idle: 300,
        working: 20,
      });
      expect(result).toMatchObject({ sent: 60_000, idleLost: 0, workingLost: 0 });
      expect(result.exchanges).toBeGreaterThan(0);
    },
  );
});
