import { constants } from 'node:os';
import { getSystemErrorMap } from 'node:util';

/** Errors of the kernel that have no number in user space headers (include/linux/errno.h). */
const KERNEL_ERRORS: ReadonlyMap<number, readonly [string, string]> = new Map([
  [512, ['ERESTARTSYS', 'interrupted']],
  [524, ['ENOTSUPP', 'operation is not supported']],
]);

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(constants.errno)
    .map(([name, value]) => [value, name] as const)
    // EAGAIN and EOPNOTSUPP are the usual names of the numbers that have two.
    .filter(([, name]) => name !== 'EWOULDBLOCK' && name !== 'ENOTSUP'),
);

/** Node builds the map anew each time that it is asked. */
let texts: ReturnType<typeof getSystemErrorMap> | undefined;

/** Name of an error number, such as `ENOENT`; `E<number>` for one that is not known. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? KERNEL_ERRORS.get(errno)?.[0] ?? `E${errno}`;
}

/** Text of an error number, such as `no such file or directory`. */
export function errnoText(errno: number): string {
  texts ??= getSystemErrorMap();
  return (
    texts.get(-errno)?.[1] ??
    KERNEL_ERRORS.get(errno)?.[1] ??
    errnoName(errno).replace(/^E(\d+)$/, 'error $1')
  );
}

/** A system call or a library function failed. `errno` is positive; `code` is its name. */
export class SystemError extends Error {
  readonly operation: string;
  readonly errno: number;
  readonly code: string;

  constructor(operation: string, errno: number, detail?: string) {
    super(
      `${operation}: ${detail === undefined ? '' : `${detail}: `}${errnoText(errno)} (${errnoName(errno)})`,
    );
    this.name = 'SystemError';
    this.operation = operation;
    this.errno = errno;
    this.code = errnoName(errno);
  }
}

/**
 * An operation on a BPF object failed. `operation` says what on which object (`load program x`),
 * `detail` why, as far as libbpf or the kernel say more than the error number.
 */
export class BpfError extends SystemError {
  readonly detail: string | undefined;

  constructor(operation: string, errno: number, detail?: string) {
    super(operation, errno, detail);
    this.name = 'BpfError';
    this.detail = detail;
  }
}

/** The verifier rejected a program. `summary` is one line for people, `log` the verifier's full log. */
export class VerifierError extends BpfError {
  readonly program: string;
  readonly summary: string;
  readonly log: string;

  constructor(program: string, errno: number, summary: string, log: string) {
    super(`load program ${program}`, errno, summary);
    this.name = 'VerifierError';
    this.program = program;
    this.summary = summary;
    this.log = log;
  }
}
