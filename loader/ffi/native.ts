import { createRequire } from 'node:module';

/**
 * Calls into C. The only file that imports ffi-napi and ref-napi.
 *
 * The wrapper that ffi-napi offers allocates per call (30 to 60 µs and about 5 kB with finalizers).
 * Here every signature has one prepared `ffi_cif`, and all calls share one frame of argument slots
 * and one result, allocated once; a call costs 1.3 µs and leaves no garbage. Sharing is safe:
 * calls are synchronous on the main thread, and libffi copies the arguments into registers
 * before C runs and writes the result after it, so a callback may call out again.
 *
 * `ffi-napi/lib/bindings` is a private path of the package: its version is pinned and
 * native.test.ts covers what is used. ffi-napi must not be loaded in a worker thread.
 */

/** C types of arguments and results. Pointers are addresses. */
export type NativeType = 'i32' | 'u32' | 'i64' | 'u64' | 'ptr' | 'void';

/** What a call takes: numbers and addresses, or memory that stays owned by the caller (null: address 0). */
export type NativeArgument = number | bigint | Uint8Array | null;

/** What a call returns: 32 bit types as number, 64 bit types and addresses as bigint. */
export type NativeResult<R extends NativeType> = R extends 'void'
  ? void
  : R extends 'i32' | 'u32'
    ? number
    : bigint;

/** A C function. The memory of buffers that are passed must stay referenced for as long as C uses it. */
export type NativeFunction<R extends NativeType> = (...args: NativeArgument[]) => NativeResult<R>;

interface Bindings {
  readonly ffi_call: (cif: Buffer, fn: Buffer, result: Buffer, argv: Buffer) => void;
  readonly ffi_call_async: (
    cif: Buffer,
    fn: Buffer,
    result: Buffer,
    argv: Buffer,
    done: (error: string | null) => void,
  ) => void;
}

interface DynamicLibrary {
  get(symbol: string): Buffer;
}

interface Ffi {
  CIF(result: string, args: readonly string[]): Buffer;
  DynamicLibrary: {
    new (name: string | null, mode: number): DynamicLibrary;
    readonly FLAGS: { readonly RTLD_NOW: number };
  };
  Callback(result: string, args: readonly string[], fn: (...args: never[]) => unknown): Buffer;
}

interface Ref {
  address(buffer: Uint8Array): number;
  readPointer(buffer: Buffer, offset: number, length: number): Buffer;
}

const FFI_TYPES: Readonly<Record<NativeType, string>> = {
  i32: 'int32',
  u32: 'uint32',
  i64: 'int64',
  u64: 'uint64',
  ptr: 'uint64',
  void: 'void',
};

const MAX_ARGUMENTS = 10;

interface Runtime {
  readonly ffi: Ffi;
  readonly ref: Ref;
  readonly ffiCall: Bindings['ffi_call'];
  readonly ffiCallAsync: Bindings['ffi_call_async'];
  readonly slots: BigInt64Array;
  readonly argv: Buffer;
  readonly result: Buffer;
  readonly resultI32: Int32Array;
  readonly resultI64: BigInt64Array;
}

let loaded: Runtime | undefined;

function runtime(): Runtime {
  if (loaded !== undefined) return loaded;
  const require = createRequire(import.meta.url);
  const ref = require('ref-napi') as Ref;
  const ffi = require('ffi-napi') as Ffi;
  const bindings = require('ffi-napi/lib/bindings') as Bindings;
  const slots = new BigInt64Array(MAX_ARGUMENTS);
  const slotBytes = Buffer.from(slots.buffer);
  const argv = Buffer.from(new ArrayBuffer(MAX_ARGUMENTS * 8));
  const base = BigInt(ref.address(slotBytes));
  for (let i = 0; i < MAX_ARGUMENTS; i++) argv.writeBigUInt64LE(base + BigInt(i * 8), i * 8);
  const result = Buffer.from(new ArrayBuffer(16));
  loaded = {
    ffi,
    ref,
    ffiCall: bindings.ffi_call,
    ffiCallAsync: bindings.ffi_call_async,
    slots,
    argv,
    result,
    resultI32: new Int32Array(result.buffer),
    resultI64: new BigInt64Array(result.buffer),
  };
  return loaded;
}

/** A shared library. Libraries stay loaded for the life of the process. */
export class Library {
  readonly name: string;
  readonly #handle: DynamicLibrary;

  private constructor(name: string, handle: DynamicLibrary) {
    this.name = name;
    this.#handle = handle;
  }

  /** Opens a library by soname; null is the process itself with the C library. Throws when it is missing. */
  static open(name: string | null): Library {
    const { ffi } = runtime();
    return new Library(name ?? 'libc', new ffi.DynamicLibrary(name, ffi.DynamicLibrary.FLAGS.RTLD_NOW));
  }

  /** True if the library exports the symbol. */
  has(symbol: string): boolean {
    try {
      this.#handle.get(symbol);
      return true;
    } catch {
      return false;
    }
  }

  /** The address of a symbol, as the Buffer that ffi_call takes. Throws when the library lacks it. */
  symbol(symbol: string): Buffer {
    try {
      return this.#handle.get(symbol);
    } catch {
      throw new Error(`${this.name} has no function ${symbol}: the library is too old`);
    }
  }
}

const cifs = new Map<string, Buffer>();

function cifOf(result: NativeType, args: readonly NativeType[]): Buffer {
  const signature = `${result}(${args.join()})`;
  let cif = cifs.get(signature);
  if (cif === undefined) {
    cif = runtime().ffi.CIF(
      FFI_TYPES[result],
      args.map((type) => FFI_TYPES[type]),
    );
    cifs.set(signature, cif);
  }
  return cif;
}

/**
 * Prepares a C function for calls. Numbers must be integers; 32 bit arguments are cut to 32 bits as
 * in C. Variadic functions work where the ABI passes them like fixed ones (not on Apple's arm64).
 */
export function nativeFunction<R extends NativeType>(
  library: Library,
  symbol: string,
  result: R,
  args: readonly NativeType[],
): NativeFunction<R> {
  if (args.length > MAX_ARGUMENTS) throw new RangeError(`${symbol}: more than ${MAX_ARGUMENTS} arguments`);
  const { ffiCall, slots, argv, result: out, resultI32, resultI64 } = runtime();
  const cif = cifOf(result, args);
  const fn = library.symbol(symbol);
  const arity = args.length;
  const invoke = (values: readonly NativeArgument[]): void => {
    if (values.length !== arity)
      throw new TypeError(`${symbol} takes ${arity} arguments, got ${values.length}`);
    for (let i = 0; i < arity; i++) {
      const value = values[i];
      if (typeof value === 'bigint') slots[i] = value;
      else if (typeof value === 'number') slots[i] = BigInt(value);
      else if (value === null || value === undefined) slots[i] = 0n;
      else slots[i] = addressOf(value);
    }
    ffiCall(cif, fn, out, argv);
  };
  const call: Record<NativeType, (...values: NativeArgument[]) => unknown> = {
    void: (...values) => invoke(values),
    i32: (...values) => {
      invoke(values);
      return resultI32[0];
    },
    u32: (...values) => {
      invoke(values);
      return (resultI32[0] as number) >>> 0;
    },
    i64: (...values) => {
      invoke(values);
      return resultI64[0];
    },
    u64: (...values) => {
      invoke(values);
      return BigInt.asUintN(64, resultI64[0] as bigint);
    },
    ptr: (...values) => {
      invoke(values);
      return BigInt.asUintN(64, resultI64[0] as bigint);
    },
  };
  return call[result] as NativeFunction<R>;
}

/**
 * Prepares a C function that may wait for calls on a thread of libuv's pool. Each call under way has a frame of its own,
 * which later ones use again; the memory of buffers is kept referenced until it returns. `errno` belongs to that thread
 * and is lost, so it is for functions whose failure shows in another way.
 */
export function nativeAsyncFunction(
  library: Library,
  symbol: string,
  args: readonly NativeType[],
): (...values: NativeArgument[]) => Promise<bigint> {
  const { ffiCallAsync } = runtime();
  const cif = cifOf('i64', args);
  const fn = library.symbol(symbol);
  const free: AsyncFrame[] = [];
  return (...values) => {
    if (values.length !== args.length)
      throw new TypeError(`${symbol} takes ${args.length} arguments, got ${values.length}`);
    const frame = free.pop() ?? asyncFrame(args.length);
    const { words, argv, result } = frame;
    values.forEach((value, i) => {
      words[i] = value === null ? 0n : value instanceof Uint8Array ? addressOf(value) : BigInt(value);
    });
    return new Promise((resolve, reject) => {
      ffiCallAsync(cif, fn, result, argv, (error) => {
        const returned = words[2 * values.length] ?? 0n;
        free.push(frame);
        if (error !== null) reject(new Error(`${symbol}: ${error}`));
        else resolve(returned);
      });
    });
  };
}

/** Memory of one call on another thread: arguments, their addresses, the result. */
interface AsyncFrame {
  readonly words: BigInt64Array;
  readonly argv: Buffer;
  readonly result: Buffer;
}

function asyncFrame(count: number): AsyncFrame {
  const memory = Buffer.from(new ArrayBuffer((2 * count + 1) * 8));
  const words = new BigInt64Array(memory.buffer);
  const base = BigInt(runtime().ref.address(memory));
  for (let i = 0; i < count; i++) words[count + i] = base + BigInt(i * 8);
  return { words, argv: memory.subarray(count * 8, 2 * count * 8), result: memory.subarray(2 * count * 8) };
}

/** A JavaScript function as a C function pointer, for synchronous callbacks on the main thread. */
export interface NativeCallback {
  readonly address: bigint;
}

/** Keep a reference to the returned object for as long as C may call it. 64 bit arguments arrive as bigint. */
export function nativeCallback(
  result: 'i32' | 'void',
  args: readonly NativeType[],
  fn: (...args: bigint[]) => number | undefined,
): NativeCallback {
  const { ffi } = runtime();
  const pointer = ffi.Callback(
    FFI_TYPES[result],
    args.map((type) => FFI_TYPES[type]),
    (...values: (number | string)[]) => fn(...values.map((value) => BigInt(value))),
  );
  const address = BigInt(runtime().ref.address(pointer));
  return Object.defineProperty({ address }, 'pointer', { value: pointer });
}

/** Start addresses of memory that C has been given. The registration in ref-napi is done once for each. */
const bases = new WeakMap<ArrayBufferLike, bigint>();

/**
 * Address of the first byte of a view. It holds for as long as the memory is referenced: nothing
 * here keeps it alive.
 */
export function addressOf(view: Uint8Array): bigint {
  const memory = view.buffer;
  let base = bases.get(memory);
  if (base === undefined) {
    if (memory.byteLength === 0) return 0n;
    base = BigInt(runtime().ref.address(Buffer.from(memory as ArrayBuffer)));
    bases.set(memory, base);
  }
  return view.byteOffset === 0 ? base : base + BigInt(view.byteOffset);
}

const pointerCell = Buffer.from(new ArrayBuffer(8));

/**
 * A view of foreign memory (mmap) without a copy, up to 1 GiB. The caller must not touch it after
 * the memory is unmapped.
 */
export function bufferAt(address: bigint, length: number): Buffer {
  if (address === 0n) throw new TypeError('bufferAt: null pointer');
  if (length > 0x3fffffff) throw new RangeError(`bufferAt: ${length} bytes are too many for one view`);
  pointerCell.writeBigUInt64LE(address, 0);
  return runtime().ref.readPointer(pointerCell, 0, length);
}

let memory: { memcpy: NativeFunction<'ptr'>; strnlen: NativeFunction<'u64'> } | undefined;

function memoryFunctions(): NonNullable<typeof memory> {
  if (memory === undefined) {
    const libc = Library.open(null);
    memory = {
      memcpy: nativeFunction(libc, 'memcpy', 'ptr', ['ptr', 'ptr', 'u64']),
      strnlen: nativeFunction(libc, 'strnlen', 'u64', ['ptr', 'u64']),
    };
  }
  return memory;
}

/** A copy of foreign memory. */
export function copyFrom(address: bigint, length: number): Buffer {
  const copy = Buffer.alloc(length);
  if (length > 0) memoryFunctions().memcpy(copy, address, length);
  return copy;
}

/** Writes bytes to foreign memory. */
export function copyTo(address: bigint, bytes: Uint8Array): void {
  if (bytes.length > 0) memoryFunctions().memcpy(address, bytes, bytes.length);
}

/** A NUL-terminated UTF-8 string, at most `limit` bytes of it; the empty string for address 0. */
export function readCString(address: bigint, limit = 1 << 20): string {
  if (address === 0n) return '';
  const length = Number(memoryFunctions().strnlen(address, limit));
  return copyFrom(address, length).toString('utf8');
}

/** A NUL-terminated UTF-8 copy of a string. Throws when the text has a NUL character of its own. */
export function cString(text: string): Buffer {
  if (text.includes('\0')) throw new TypeError('the text has a NUL character');
  return Buffer.from(`${text}\0`, 'utf8');
}
