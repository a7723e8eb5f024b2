import { describe, expect, it } from 'vitest';
import { encodeAddressHeader } from '../../loader/netlink/address.js';
import { NetlinkChannel } from '../../loader/netlink/channel.js';
import { RTM } from '../../loader/netlink/constants.js';
import type { NetlinkError } from '../../loader/netlink/errors.js';
import { encodeLinkHeader } from '../../loader/netlink/link.js';
import { NetlinkSocket } from '../../loader/netlink/socket.js';
import { ip, newNetns, thrown } from './namespaces.js';

/** A namespace whose device list needs several datagrams. */
function manyLinks(): { name: string; channel: NetlinkChannel; close: () => void } {
  const { name, ns } = newNetns();
  for (let i = 0; i < 60; i++) ip(name, 'link', 'add', `br${i}`, 'type', 'bridge');
  const socket = NetlinkSocket.open({ netns: ns, receiveBuffer: 1 << 20 });
  return { name, channel: new NetlinkChannel(socket), close: () => socket.close() };
}

const readIndex = (buffer: Buffer, start: number): number => buffer.readInt32LE(start + 4);

describe('NetlinkChannel', () => {
  it('reads a list again that changed meanwhile', () => {
    const { name, channel, close } = manyLinks();
    let decoded = 0;
    const list = channel.dump(
      'list links',
      RTM.GETLINK,
      (m) => encodeLinkHeader(m, {}),
      (buffer, start) => {
        // The first datagram of the first reading: the rest of the list is read after this change.
        if (decoded++ === 0) ip(name, 'link', 'delete', 'br0');
        return readIndex(buffer, start);
      },
    );
    expect(list.length).toBe(60);
    expect(new Set(list).size).toBe(60);
    expect(decoded).toBeGreaterThan(61);
    close();
  });

  it('gives up on a list that changes all the time, and the socket is still good', () => {
    const { name, channel, close } = manyLinks();
    let readings = 0;
    const failed = thrown(() =>
      channel.dump(
        'list links',
        RTM.GETLINK,
        (m) => encodeLinkHeader(m, {}),
        (buffer, start) => {
          const index = readIndex(buffer, start);
          if (index === 1 && readings++ >= 0) {
            ip(name, 'link', 'add', 'again', 'type', 'bridge');
            ip(name, 'link', 'delete', 'again');
          }
          return index;
        },
      ),
    ) as NetlinkError;
    expect(failed).toMatchObject({ code: 'EINTR', operation: 'list links' });
    expect(readings).toBe(20);
    const lists = channel.dump('list', RTM.GETLINK, (m) => encodeLinkHeader(m, {}), readIndex);
    expect(lists.length).toBe(61);
    close();
  });

  it('an error in a list request is an error, not an empty list', () => {
    const { ns } = newNetns();
    const socket = NetlinkSocket.open({ netns: ns, receiveBuffer: 1 << 20 });
    const channel = new NetlinkChannel(socket);
    // Strict checking: a header field that a list does not look at must be 0.
    const failed = thrown(() =>
      channel.dump('list addresses', RTM.GETADDR, (m) => encodeAddressHeader(m, { prefix: 24 }), readIndex),
    ) as NetlinkError;
    expect(failed).toMatchObject({ code: 'EINVAL', operation: 'list addresses' });
    expect(failed.detail).toMatch(/Invalid values in header/);
    socket.close();
    const closed = thrown(() =>
      channel.dump('list links', RTM.GETLINK, (m) => encodeLinkHeader(m, {}), readIndex),
    );
    expect(closed).toMatchObject({ name: 'NetlinkError', code: 'EBADF', operation: 'list links' });
  });
});
