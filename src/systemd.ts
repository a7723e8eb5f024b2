import { close, SOCK_CLOEXEC, SOCK_DGRAM, sendto, socket } from '../loader/ffi/libc.js';

/** Address family of Unix sockets (socket.h). */
const AF_UNIX = 1;

/**
 * Tells the service manager a state such as `READY=1` or `STOPPING=1` (sd_notify(3)); does nothing
 * without `NOTIFY_SOCKET`. Never throws: a manager that is gone must not stop the agent.
 */
export function notifyManager(
  state: string,
  notifySocket: string | undefined = process.env.NOTIFY_SOCKET,
): boolean {
  if (notifySocket === undefined || !/^[/@]./.test(notifySocket)) return false;
  const path = Buffer.from(notifySocket);
  if (path.length > 107) return false;
  // '@' stands for the zero byte of an abstract address (unix(7)).
  if (path[0] === 0x40) path[0] = 0;
  const address = Buffer.alloc(2 + path.length);
  address.writeUInt16LE(AF_UNIX, 0);
  path.copy(address, 2);
  try {
    const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    try {
      sendto(fd, Buffer.from(state), 0, address);
    } finally {
      close(fd);
    }
    return true;
  } catch {
    return false;
  }
}
