/** IP protocol numbers that have a name here; others are shown as numbers. */
export const PROTOCOLS = { ICMP: 1, TCP: 6, UDP: 17, ICMPv6: 58, SCTP: 132 } as const;

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(PROTOCOLS).map(([name, number]) => [number, name]),
);

export function protocolName(number: number): string {
  return NAMES.get(number) ?? String(number);
}
