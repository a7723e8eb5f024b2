import { describe, expect, it } from 'vitest';
import { checksumsHold, TCP, tcpFrame, tupleOf } from './packet.js';

const MAC = Buffer.from('020000000001', 'hex');
const BASE = { sourceMac: MAC, destinationMac: MAC, sourcePort: 40000, destinationPort: 80, flags: TCP.syn };

describe('tcpFrame', () => {
  it('builds an IPv4 frame with valid checksums', () => {
    const frame = tcpFrame({ ...BASE, source: '10.1.0.2', destination: '10.1.0.3', payload: 3 });
    expect(frame.length).toBe(14 + 20 + 20 + 3);
    expect(checksumsHold(frame)).toBe(true);
    expect(tupleOf(frame)).toEqual({
      source: '10.1.0.2',
      destination: '10.1.0.3',
      sourcePort: 40000,
      destinationPort: 80,
    });
    frame[30] = 99;
    expect(checksumsHold(frame)).toBe(false);
  });

  it('has the checksums that RFC 1071 gives by hand', () => {
    // 10.0.0.1:1 > 10.0.0.2:2.
    const frame = tcpFrame({
      ...BASE,
      source: '10.0.0.1',
      destination: '10.0.0.2',
      sourcePort: 1,
      destinationPort: 2,
    });
    // 4500+0028+4000+4006+0a00+0001+0a00+0002 = d931
    expect(frame.readUInt16BE(24)).toBe(0x26ce);
    // 0a00+0001+0a00+0002+0006+0014 and 0001+0002+0001+5002+ffff = 6423
    expect(frame.readUInt16BE(50)).toBe(~0x6423 & 0xffff);
  });

  it('builds an IPv6 frame', () => {
    const frame = tcpFrame({ ...BASE, source: 'fd00::1', destination: 'fd00::2', ttl: 3 });
    expect(frame.length).toBe(14 + 40 + 20);
    expect(frame.readUInt16BE(12)).toBe(0x86dd);
    expect(frame[14 + 7]).toBe(3);
    expect(frame.subarray(22, 38).toString('hex')).toBe('fd000000000000000000000000000001');
  });
});
