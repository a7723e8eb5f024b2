import {
  Library,
  type NativeCallback,
  type NativeFunction,
  nativeAsyncFunction,
  nativeCallback,
  nativeFunction,
  readCString,
} from './native.js';

/**
 * The functions of libbpf 1.x that the loader needs, with C's own names and conventions: a result
 * below 0 is a negative errno, a null pointer leaves the reason in errno. libbpf prints nothing;
 * collectMessages() gives its messages to the caller.
 */

const SONAME = 'libbpf.so.1';

const SIGNATURES = {
  libbpf_version_string: ['ptr', []],
  libbpf_set_print: ['ptr', ['ptr']],
  libbpf_num_possible_cpus: ['i32', []],

  bpf_object__open_file: ['ptr', ['ptr', 'ptr']],
  bpf_object__load: ['i32', ['ptr']],
  bpf_object__close: ['void', ['ptr']],
  bpf_object__btf: ['ptr', ['ptr']],
  btf__raw_data: ['ptr', ['ptr', 'ptr']],
  bpf_object__find_map_by_name: ['ptr', ['ptr', 'ptr']],
  bpf_object__next_map: ['ptr', ['ptr', 'ptr']],
  bpf_object__find_program_by_name: ['ptr', ['ptr', 'ptr']],
  bpf_object__next_program: ['ptr', ['ptr', 'ptr']],

  bpf_map__name: ['ptr', ['ptr']],
  bpf_map__fd: ['i32', ['ptr']],
  bpf_map__type: ['u32', ['ptr']],
  bpf_map__key_size: ['u32', ['ptr']],
  bpf_map__value_size: ['u32', ['ptr']],
  bpf_map__max_entries: ['u32', ['ptr']],
  bpf_map__map_flags: ['u32', ['ptr']],
  bpf_map__set_max_entries: ['i32', ['ptr', 'u32']],
  bpf_map__reuse_fd: ['i32', ['ptr', 'i32']],
  bpf_map__initial_value: ['ptr', ['ptr', 'ptr']],
  bpf_map__set_initial_value: ['i32', ['ptr', 'ptr', 'u64']],

  bpf_program__name: ['ptr', ['ptr']],
  bpf_program__fd: ['i32', ['ptr']],
  bpf_program__set_autoload: ['i32', ['ptr', 'i32']],

  bpf_map_lookup_elem: ['i32', ['i32', 'ptr', 'ptr']],
  bpf_map_update_elem: ['i32', ['i32', 'ptr', 'ptr', 'u64']],
  bpf_map_delete_elem: ['i32', ['i32', 'ptr']],
  bpf_map_get_next_key: ['i32', ['i32', 'ptr', 'ptr']],
  bpf_map_lookup_batch: ['i32', ['i32', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr']],
  bpf_map_update_batch: ['i32', ['i32', 'ptr', 'ptr', 'ptr', 'ptr']],
  bpf_map_delete_batch: ['i32', ['i32', 'ptr', 'ptr', 'ptr']],

  bpf_obj_pin: ['i32', ['i32', 'ptr']],
  bpf_obj_get: ['i32', ['ptr']],
  bpf_obj_get_info_by_fd: ['i32', ['i32', 'ptr', 'ptr']],
  bpf_prog_load: ['i32', ['u32', 'ptr', 'ptr', 'ptr', 'u64', 'ptr']],
  bpf_prog_test_run_opts: ['i32', ['i32', 'ptr']],

  bpf_link_create: ['i32', ['i32', 'i32', 'u32', 'ptr']],
  bpf_link_update: ['i32', ['i32', 'i32', 'ptr']],
  bpf_link_detach: ['i32', ['i32']],

  bpf_tc_hook_create: ['i32', ['ptr']],
  bpf_tc_hook_destroy: ['i32', ['ptr']],
  bpf_tc_attach: ['i32', ['ptr', 'ptr']],
  bpf_tc_detach: ['i32', ['ptr', 'ptr']],
  bpf_tc_query: ['i32', ['ptr', 'ptr']],
} as const;

type Signatures = typeof SIGNATURES;
type Libbpf = { readonly [Name in keyof Signatures]: NativeFunction<Signatures[Name][0]> };

let loaded: Libbpf | undefined;
let loadObject: ReturnType<typeof nativeAsyncFunction> | undefined;

/** The library. Throws an Error that says what to install when it is missing. */
export function libbpf(): Libbpf {
  if (loaded !== undefined) return loaded;
  let library: Library;
  try {
    library = Library.open(SONAME);
  } catch (error) {
    throw new Error(
      `cannot open ${SONAME} (${(error as Error).message}): install libbpf 1.0 or newer (Debian: libbpf1)`,
    );
  }
  const functions = Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, [result, args]]) => [
      name,
      nativeFunction(library, name, result, args),
    ]),
  );
  loaded = functions as unknown as Libbpf;
  loaded.libbpf_set_print(null);
  loadObject = nativeAsyncFunction(library, 'bpf_object__load', ['ptr']);
  return loaded;
}

/** bpf_object__load on a thread. Nothing else may use the object until it is done, and nobody gets its messages. */
export async function loadObjectLater(object: bigint): Promise<number> {
  libbpf();
  return Number(BigInt.asIntN(32, (await loadObject?.(object)) ?? -1n));
}

/** Version such as `v1.1`. */
export function libbpfVersion(): string {
  return readCString(libbpf().libbpf_version_string());
}

const LEVEL_DEBUG = 2n;
const MESSAGE_SIZE = 4096;
let printer: NativeCallback | undefined;
let collected: string[] = [];

function printCallback(): NativeCallback {
  if (printer === undefined) {
    const libc = Library.open(null);
    const vsnprintf = nativeFunction(libc, 'vsnprintf', 'i32', ['ptr', 'u64', 'ptr', 'ptr']);
    const text = Buffer.from(new ArrayBuffer(MESSAGE_SIZE));
    // A va_list argument is a pointer on x86-64 and arm64, and is passed on as it came.
    printer = nativeCallback('i32', ['u32', 'ptr', 'ptr'], (level, format, args) => {
      if (level === undefined || level >= LEVEL_DEBUG) return 0;
      vsnprintf(text, MESSAGE_SIZE, format, args);
      const line = text.toString('utf8', 0, text.indexOf(0)).trim();
      collected.push(line.replace(/^libbpf: /, ''));
      return 0;
    });
  }
  return printer;
}

/** Runs a function and returns its result with the warnings that libbpf gave meanwhile. */
export function collectMessages<T>(run: () => T): {
  readonly result: T;
  readonly messages: readonly string[];
} {
  const library = libbpf();
  const outer = collected;
  collected = [];
  library.libbpf_set_print(printCallback().address);
  try {
    return { result: run(), messages: collected };
  } finally {
    library.libbpf_set_print(null);
    collected = outer;
  }
}

/** The message that says most about a failure; undefined if there is none. */
export function decisiveMessage(messages: readonly string[]): string | undefined {
  return (
    messages.find(
      (line) =>
        !/Retrying without BTF|failed to load object|BPF program load failed|failed to load: -/.test(line),
    ) ?? messages[0]
  );
}
