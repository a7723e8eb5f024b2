import { describe, expect, it } from 'vitest';
import { type Event, EventKind, eventCodec } from '../../loader/abi/gen/types.gen.js';
import { parseAddress } from '../../policy/address.js';
import type { RuleDescription } from '../../policy/compile/types.js';
import { DropLog, describeEvent, ruleText } from './events.js';

const rule: RuleDescription = {
  kind: 'NetworkPolicy',
  namespace: 'shop',
  direction: 'ingress',
  policy: 'api',
  index: 2,
  action: 'Accept',
  file: 'shop.yaml',
  line: 12,
};
const context = {
  ownerOf: (address: Uint8Array) => (address[15] === 2 ? 'shop/web' : 'world'),
  describeRule: (number: number) => (number === 7 ? rule : undefined),
};

function event(more: Partial<Event> = {}): Event {
  return {
    time: process.hrtime.bigint(),
    key: {
      saddr: parseAddress('10.1.0.2'),
      daddr: parseAddress('203.0.113.9'),
      sport: 40000,
      dport: 443,
      ifindex: 256,
      proto: 6,
    },
    rule: 7,
    srcIdentity: 256,
    dstIdentity: 2,
    error: 0,
    length: 60,
    kind: EventKind.Drop,
    reason: 6,
    direction: 0,
    tcpFlags: 2,
    ...more,
  };
}

describe('describeEvent', () => {
  it('says who, what, why and by which rule', () => {
    expect(describeEvent(event(), context)).toMatchObject({
      reason: 'policy_egress',
      source: '10.1.0.2',
      destination: '203.0.113.9',
      protocol: 'TCP',
      sourcePort: 40000,
      destinationPort: 443,
      from: 'shop/web',
      to: 'world',
      direction: 'egress',
      rule: 'NetworkPolicy shop/api, ingress rule 2 (shop.yaml:12)',
    });
    expect(Math.abs(Date.now() - Date.parse(describeEvent(event(), context).time))).toBeLessThan(1000);
  });

  it('names errors of the kernel, protocols without a name, and forwarded packets', () => {
    const failed = describeEvent(event({ error: -28, reason: 13, rule: 0 }), context);
    expect(failed).toMatchObject({ reason: 'flow_table_full', error: 'ENOSPC' });
    expect(failed.rule).toBeUndefined();
    const other = event({ kind: EventKind.NewFlow, reason: 0, direction: 1 });
    expect(describeEvent({ ...other, key: { ...other.key, proto: 47 } }, context)).toMatchObject({
      reason: 'forwarded',
      protocol: '47',
      direction: 'ingress',
    });
  });

  it('names the policies of a default deny', () => {
    expect(ruleText({ ...rule, index: 'default deny', policy: 'shop/api, shop/all' })).toBe(
      'NetworkPolicy shop/api, shop/all (default deny ingress)',
    );
  });
});

describe('DropLog', () => {
  it('keeps the latest in order, and tells who listens', () => {
    const log = new DropLog(context);
    const seen: number[] = [];
    const stop = log.onEvent((drop) => seen.push(drop.destinationPort));
    const record = Buffer.alloc(eventCodec.size);
    for (let port = 1; port <= 10_005; port++) {
      eventCodec.encode({ ...event(), key: { ...event().key, dport: port } }, record, 0);
      log.take(record);
      if (port === 10_003) stop();
    }
    log.take(Buffer.alloc(3)); // not a record
    expect(log.latest(3).map((drop) => drop.destinationPort)).toEqual([10_003, 10_004, 10_005]);
    expect(log.latest(20_000)).toHaveLength(10_000);
    expect([log.drops, seen.length]).toEqual([10_005, 10_003]);
  });
});
