import type { Netns } from '../netns.js';
import { NETLINK_GENERIC } from './constants.js';
import { isAbsent } from './errors.js';
import { forEachAttribute, type MessageBuilder } from './message.js';
import { type Encode, Requests } from './requests.js';

/** The family that knows the others (linux/genetlink.h). */
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_VERSION = 2;
const CTRL_ATTR = { FAMILY_ID: 1, FAMILY_NAME: 2 } as const;

/** struct genlmsghdr: command, version, two reserved bytes. */
export const GENL_HEADER = 4;

/** Writes struct genlmsghdr. */
export function encodeGenericHeader(message: MessageBuilder, command: number, version: number): void {
  message.u8(command).u8(version).u16(0);
}

/** Requests of a family that has its number from the kernel. */
export abstract class GenericRequests extends Requests {
  protected constructor(ns?: Netns) {
    super(ns, NETLINK_GENERIC);
  }

  /** Number of a family; undefined: the kernel does not have it, also not as a module. */
  protected familyNamed(name: string): number | undefined {
    let id: number | undefined;
    const encode: Encode = (message) => {
      encodeGenericHeader(message, CTRL_CMD_GETFAMILY, CTRL_VERSION);
      message.attributeString(CTRL_ATTR.FAMILY_NAME, name);
    };
    try {
      this.request(`find netlink family ${name}`, GENL_ID_CTRL, 0, encode, (buffer, start, end) => {
        forEachAttribute(buffer, start + GENL_HEADER, end, (type, at) => {
          if (type === CTRL_ATTR.FAMILY_ID) id = buffer.readUInt16LE(at);
        });
      });
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    return id;
  }
}
