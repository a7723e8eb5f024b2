import { describe, expect, it } from 'vitest';
import { NLM_F, RTM } from './constants.js';
import { decodeAcknowledgement, decodeDone, isAbsent, NetlinkError, requestError } from './errors.js';

const TEXT = `1a000100${Buffer.from('Nexthop has an error.\0').toString('hex')}0000`;
const HEADER = '14000000180005060100000000000000'; // of the request: 20 bytes, 4 of them payload

describe('acknowledgements', () => {
  it('an errno of 0 is a success', () => {
    expect(decodeAcknowledgement(Buffer.from(`00000000${HEADER}`, 'hex'), 0, 0, 20)).toEqual({ errno: 0 });
  });

  it('reads errno and text of a capped answer', () => {
    const bytes = Buffer.from(`9bffffff${HEADER}${TEXT}`, 'hex');
    const flags = NLM_F.CAPPED | NLM_F.ACK_TLVS;
    expect(decodeAcknowledgement(bytes, flags, 0, bytes.length)).toEqual({
      errno: 101,
      text: 'Nexthop has an error',
    });
  });

  it('skips the payload of the request in an answer that is not capped', () => {
    const bytes = Buffer.from(`9bffffff${HEADER}deadbeef${TEXT}`, 'hex');
    expect(decodeAcknowledgement(bytes, NLM_F.ACK_TLVS, 0, bytes.length).text).toBe('Nexthop has an error');
    expect(decodeAcknowledgement(bytes, 0, 0, bytes.length)).toEqual({ errno: 101 });
  });

  it('reads the error of a dump from its end', () => {
    expect(decodeDone(Buffer.from('00000000', 'hex'), 0, 0, 4)).toEqual({ errno: 0 });
    expect(decodeDone(Buffer.alloc(0), 0, 0, 0)).toEqual({ errno: 0 });
    const bytes = Buffer.from(`edffffff${TEXT}`, 'hex');
    expect(decodeDone(bytes, NLM_F.ACK_TLVS, 0, bytes.length)).toEqual({
      errno: 19,
      text: 'Nexthop has an error',
    });
  });
});

describe('NetlinkError', () => {
  it('is one line with operation, reason and code', () => {
    expect(new NetlinkError('create link a', 17).message).toBe('create link a: file already exists (EEXIST)');
    expect(new NetlinkError('create link a', 17, 'why').message).toBe('create link a: why (EEXIST)');
    const outer = NetlinkError.from('create veth b', new NetlinkError('set mtu', 22, 'too small'));
    expect(outer).toMatchObject({
      operation: 'create veth b',
      errno: 22,
      code: 'EINVAL',
      detail: 'too small',
    });
    const foreign = new Error('x');
    expect(NetlinkError.from('create veth b', foreign)).toBe(foreign);
  });

  it('explains numbers that mislead, unless the kernel explains', () => {
    expect(requestError('delete route r', RTM.DELROUTE, 3).message).toBe(
      'delete route r: there is no such route (ESRCH)',
    );
    expect(requestError('delete route r', RTM.DELROUTE, 3, 'gone').message).toBe(
      'delete route r: gone (ESRCH)',
    );
  });

  it('tells what is absent from what failed', () => {
    expect(isAbsent(new NetlinkError('delete link 5', 19))).toBe(true);
    expect(isAbsent(new NetlinkError('delete link 5', 1))).toBe(false);
    expect(isAbsent(new Error('ENODEV'))).toBe(false);
  });
});
