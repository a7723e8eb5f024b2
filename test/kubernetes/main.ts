/**
 * The stand-in as a program, for agents in namespaces of their own: `node main.js PORT`. It takes commands as JSON
 * lines on standard input and answers each with a line: {"put": [kind, object]}, {"remove": [kind, key]},
 * {"get": [kind, key]}, {"list": kind}, {"faults": {...}}, {"do": "cut" | "compact" | "away" | "back"}, {"audit": true}.
 */
import { createInterface } from 'node:readline';
import { ApiServer, type Faults } from './api-server.js';
import type { Given } from './store.js';

interface Command {
  readonly put?: readonly [kind: string, object: Given];
  readonly remove?: readonly [kind: string, key: string];
  readonly get?: readonly [kind: string, key: string];
  readonly list?: string;
  readonly faults?: Partial<Faults>;
  readonly do?: 'cut' | 'compact' | 'away' | 'back';
  readonly audit?: boolean;
}

const server = new ApiServer({ bookmarkMs: 2000 });

async function carryOut(command: Command): Promise<unknown> {
  if (command.put !== undefined) return server.put(...command.put);
  if (command.remove !== undefined) return server.remove(...command.remove);
  if (command.get !== undefined) return server.get(...command.get) ?? null;
  if (command.list !== undefined) return server.list(command.list);
  if (command.faults !== undefined) return Object.assign(server.faults, command.faults);
  if (command.audit === true) return server.audit;
  if (command.do === 'cut') server.cut();
  if (command.do === 'compact') server.store.compact();
  if (command.do === 'away') await server.goAway();
  if (command.do === 'back') await server.listen();
  return null;
}

await server.listen(Number(process.argv[2] ?? 0));
process.stdout.write(`${JSON.stringify({ port: server.port })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  let answer: unknown;
  try {
    answer = { ok: (await carryOut(JSON.parse(line) as Command)) ?? null };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await server.close();
