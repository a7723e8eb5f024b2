import { type ErrorCode, type ErrorParams, SluiceError } from '../../policy/errors.js';
import { type CniVersion, NEWEST_VERSION } from './versions.js';

/** Error codes of the CNI specification (SPEC.md, "Error"); from 100 on they are the plugin's own. */
export const CNI_CODE = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  invalidEnvironment: 4,
  io: 5,
  decode: 6,
  invalidConfig: 7,
  tryAgain: 11,
  notAvailable: 50,
  /** What is asked for collides with what is in force: a host port, an address, an interface. */
  conflict: 101,
  /** The device could not be made. */
  device: 102,
  /** CHECK found something else than what ADD made. */
  check: 103,
  /** An IPAM plugin that was asked failed in its own way. */
  ipam: 104,
} as const;

/** CNI codes of our errors; by the whole code, or by its first four or five characters. */
const CODES: Readonly<Record<string, number>> = {
  SLU5110: CNI_CODE.incompatibleVersion,
  SLU5111: CNI_CODE.incompatibleVersion,
  SLU5112: CNI_CODE.invalidEnvironment,
  SLU5113: CNI_CODE.invalidEnvironment,
  SLU5114: CNI_CODE.decode,
  SLU5115: CNI_CODE.invalidConfig,
  SLU5116: CNI_CODE.unsupportedField,
  SLU5117: CNI_CODE.tryAgain,
  SLU5118: CNI_CODE.check,
  SLU5119: CNI_CODE.ipam,
  SLU5120: CNI_CODE.conflict,
  SLU5121: CNI_CODE.invalidConfig,
  SLU5122: CNI_CODE.notAvailable,
  SLU5123: CNI_CODE.tryAgain,
  SLU5001: CNI_CODE.tryAgain,
  SLU5003: CNI_CODE.tryAgain,
  SLU2405: CNI_CODE.tryAgain,
  SLU4301: CNI_CODE.invalidEnvironment,
  SLU4307: CNI_CODE.invalidEnvironment,
  SLU11: CNI_CODE.invalidConfig,
  SLU12: CNI_CODE.invalidConfig,
  SLU13: CNI_CODE.conflict,
  SLU50: CNI_CODE.conflict,
  SLU43: CNI_CODE.device,
};

/** What a configuration calls the fields of the objects that are made of it. */
const FIELDS: readonly (readonly [RegExp, string])[] = [
  [/^spec\.ipv[46]\.cidr/, 'ipam.ranges.subnet'],
  [/^spec\.ipv[46]/, 'ipam.ranges'],
  [/^spec\.networks\[0\]\.ipv[46]/, 'ips'],
  [/^spec\.networks\[0\]\.routes/, 'ipam.routes'],
  [/^spec\.networks\[0\]\./, ''],
  [/^spec\.hostPorts/, 'portMappings'],
  [/^spec\./, ''],
];

/** The field of a configuration or of a request for what an object has in this field. */
export function fieldOfRequest(field: string): string {
  const [pattern, name] = FIELDS.find(([known]) => known.test(field)) ?? [];
  return pattern === undefined ? field : field.replace(pattern, name ?? '');
}

/** A failed request: one of our errors, with the code that the runtime gets. */
export class CniError extends Error {
  override readonly name = 'CniError';
  readonly code: number;
  /** Code of the catalogue, or what an IPAM plugin gave as details. */
  readonly details: string;

  constructor(code: number, message: string, details: string) {
    super(message);
    this.code = code;
    this.details = details;
  }

  static of<C extends ErrorCode>(code: C, params: ErrorParams<C>): CniError {
    return CniError.from(SluiceError.of(code, params));
  }

  /** Any thrown value as what a runtime is told. */
  static from(error: unknown): CniError {
    if (error instanceof CniError) return error;
    if (!(error instanceof SluiceError)) {
      const reason = error instanceof Error ? error.message : String(error);
      return new CniError(CNI_CODE.io, reason, 'SLU2406');
    }
    const { code, message, field } = error;
    const number = CODES[code] ?? CODES[code.slice(0, 5)] ?? CNI_CODE.io;
    return new CniError(number, field === undefined ? message : `${fieldOfRequest(field)}: ${message}`, code);
  }

  /** The error object on standard output. */
  toJson(version: CniVersion = NEWEST_VERSION): string {
    const { code, message, details } = this;
    return `${JSON.stringify({ cniVersion: version, code, msg: message, details })}\n`;
  }
}
