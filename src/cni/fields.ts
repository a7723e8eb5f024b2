import { formatAddress, formatCidr, parseAddress, parseCidr } from '../../policy/address.js';
import { CniError } from './errors.js';

/** Reading of a network configuration, member by member. What has another type is error 7 with the member's path. */

export type JsonObject = Readonly<Record<string, unknown>>;

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Error 7 at a member. */
export function invalid(field: string, reason: string): CniError {
  return CniError.of('SLU5115', { field, reason });
}

function wrong(field: string, expected: string, value: unknown): CniError {
  return invalid(field, `must be ${expected}, not ${JSON.stringify(value).slice(0, 80)}`);
}

/** JSON's null counts as absent, as in Go. */
export function optional<T>(
  object: JsonObject,
  name: string,
  path: string,
  read: (value: unknown, field: string) => T,
): T | undefined {
  const value = object[name];
  return value === undefined || value === null
    ? undefined
    : read(value, path === '' ? name : `${path}.${name}`);
}

export function text(value: unknown, field: string): string {
  if (typeof value !== 'string') throw wrong(field, 'a string', value);
  return value;
}

export function flag(value: unknown, field: string): boolean {
  if (typeof value !== 'boolean') throw wrong(field, 'true or false', value);
  return value;
}

export function object(value: unknown, field: string): JsonObject {
  if (!isObject(value)) throw wrong(field, 'an object', value);
  return value;
}

/**
 * An object whose names may begin with a capital: containerd sends `HostPort` for `hostPort`, and plugins written in
 * Go don't tell the two apart.
 */
export function goObject(value: unknown, field: string): JsonObject {
  const given = object(value, field);
  const lower = Object.entries(given).map(([name, item]) => [
    `${name.slice(0, 1).toLowerCase()}${name.slice(1)}`,
    item,
  ]);
  return { ...(Object.fromEntries(lower) as JsonObject), ...given };
}

export function wholeNumber(min: number, max: number) {
  return (value: unknown, field: string): number => {
    if (!Number.isSafeInteger(value) || (value as number) < min || (value as number) > max)
      throw wrong(field, `a whole number from ${min} to ${max}`, value);
    return value as number;
  };
}

export function listOf<T>(read: (value: unknown, field: string) => T) {
  return (value: unknown, field: string): T[] => {
    if (!Array.isArray(value)) throw wrong(field, 'a list', value);
    return value.map((item, i) => read(item, `${field}[${i}]`));
  };
}

/** An address without prefix length, in canonical form. */
export function address(value: unknown, field: string): string {
  const given = text(value, field);
  try {
    return formatAddress(parseAddress(given));
  } catch (error) {
    throw invalid(field, reasonOf(error));
  }
}

/** An address whose prefix length may be missing and is not used. */
export function addressOrCidr(value: unknown, field: string): string {
  return address(text(value, field).replace(/\/\d{1,3}$/, ''), field);
}

/** A CIDR in canonical form; bits beyond the prefix are cut, as Go's net.ParseCIDR does. */
export function cidr(value: unknown, field: string): string {
  const given = text(value, field);
  try {
    return formatCidr(parseCidr(given, 'clear'));
  } catch (error) {
    throw invalid(field, reasonOf(error));
  }
}

const MAC = /^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/;

/** A unicast MAC address, lower case with colons. */
export function mac(value: unknown, field: string): string {
  const given = text(value, field);
  if (!MAC.test(given) || /^[0:-]+$/.test(given) || (Number.parseInt(given.slice(0, 2), 16) & 1) === 1)
    throw wrong(field, 'a unicast MAC address such as 02:00:00:00:00:01', value);
  return given.toLowerCase().replaceAll('-', ':');
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
