import { type Name, type Resident, url } from './town.js';

const FROM: readonly Name[] = ['web', 'api', 'db', 'stranger'];
const TO: readonly Name[] = ['web', 'api', 'db', 'outside'];

/** By `from>to`: does it answer over IPv4, over IPv6. */
export type Matrix = ReadonlyMap<string, readonly [ipv4: boolean, ipv6: boolean]>;

/** Asks everybody to call everybody, all at once, over both families. */
export async function measure(
  residents: Readonly<Record<Name, Resident>>,
  timeoutMs: number,
): Promise<Matrix> {
  const pairs = FROM.flatMap((from) => TO.filter((to) => to !== from).map((to) => ({ from, to })));
  const cells = pairs.map(async ({ from, to }) => {
    const [ipv4, ipv6] = await Promise.all(
      ([4, 6] as const).map((family) => residents[from].call(url(to, family), timeoutMs)),
    );
    return [`${from}>${to}`, [ipv4?.text !== undefined, ipv6?.text !== undefined]] as const;
  });
  return new Map(await Promise.all(cells));
}

/** The matrix as a table; `expected` marks what differs from it, for the demo's own check. */
export function format(matrix: Matrix): string[] {
  const cell = (from: Name, to: Name): string => {
    const [ipv4, ipv6] = matrix.get(`${from}>${to}`) ?? [];
    if (ipv4 === undefined) return '';
    if (ipv4 && ipv6) return 'yes';
    if (!ipv4 && !ipv6) return 'no';
    return ipv4 ? 'IPv4 only' : 'IPv6 only';
  };
  const row = (cells: readonly string[]): string =>
    cells
      .map((text) => text.padEnd(11))
      .join('')
      .trimEnd();
  return [
    row(['from \\ to', ...TO]),
    ...FROM.map((from) => row([from, ...TO.map((to) => (to === from ? '-' : cell(from, to)))])),
  ];
}

/** The pairs that answer, over both families or none; throws if the families differ. */
export function open(matrix: Matrix): string[] {
  return [...matrix]
    .filter(([pair, [ipv4, ipv6]]) => {
      if (ipv4 !== ipv6)
        throw new Error(`${pair}: IPv4 ${ipv4 ? 'answers' : 'is dropped'}, IPv6 does not agree`);
      return ipv4;
    })
    .map(([pair]) => pair);
}
