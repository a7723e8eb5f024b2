import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import {
  type DockerContainerInfo,
  givenAliases,
  hostConfig,
  networkSettings,
  networksInOrder,
} from './api.js';

/** Where Docker keeps its files if it was never asked. */
export const DEFAULT_ROOT = '/var/lib/docker';

const configSchema = z.object({
  ID: z.string(),
  Name: z.string(),
  Config: z.object({ Labels: z.record(z.string(), z.string()).nullish() }),
  NetworkSettings: networkSettings,
});
/** In a row of libnetwork's store; names of containers need no escapes. */
const NAME = /"name":"([\w.-]+)","sandbox"/;
const SHORT_ID = /"([0-9a-f]{12})"/g;
/** What each key of the store begins with. */
const KEY = 'docker/network/v1.0/';

/**
 * The container that an endpoint is for, from Docker's own files: while Docker starts it answers nobody, and starts the
 * containers that are to run again. Its network store (moby, libnetwork/datastore; a file of bbolt, whose values are in
 * one piece) has the endpoint before Join, and the folder of a container its labels. Undefined: they do not tell.
 */
export async function containerInFiles(
  root: string,
  network: string,
  endpoint: string,
): Promise<DockerContainerInfo | undefined> {
  const store = (await readFile(join(root, 'network', 'files', 'local-kv.db'))).toString('latin1');
  const rows = rowsOf(store, `${KEY}endpoint/${network}/${endpoint}/`);
  const names = new Set(rows.flatMap((row) => NAME.exec(row)?.[1] ?? []));
  const [name] = names;
  // Pages that are free may have it as it was, which is another name only after a renaming.
  if (name === undefined || names.size > 1) return undefined;
  const ids = new Set(rows.flatMap((row) => [...row.matchAll(SHORT_ID)].map(([, id = '']) => id)));
  const folder = join(root, 'containers');
  const all = await readdir(folder);
  // Docker adds the start of a container's id to its aliases: that one first.
  const likely = all.filter((id) => ids.has(id.slice(0, 12)));
  for (const id of [...likely, ...all]) {
    const found = await readAs(configSchema, join(folder, id, 'config.v2.json'));
    if (found?.Name !== `/${name}`) continue;
    const host = await readAs(hostConfig, join(folder, id, 'hostconfig.json'));
    const networks = networksInOrder(found.NetworkSettings, host);
    return { id: found.ID, name, labels: found.Config.Labels ?? {}, networks };
  }
  return undefined;
}

const aliasesSchema = z.object({
  NetworkSettings: z.object({
    Networks: z.record(z.string(), z.object({ Aliases: z.array(z.string()).nullish() })),
  }),
});

/**
 * Further names of a container that has one network, from its folder: Docker's API tells them only when the container
 * runs. Undefined: the folder does not tell.
 */
export async function aliasesInFiles(folder: string, id: string): Promise<readonly string[] | undefined> {
  const found = await readAs(aliasesSchema, join(folder, 'config.v2.json'));
  const networks = Object.values(found?.NetworkSettings.Networks ?? {});
  if (networks.length !== 1) return undefined;
  return givenAliases(networks[0]?.Aliases ?? [], id);
}

/** The values of a key: text from behind it to the next key. */
function rowsOf(store: string, key: string): string[] {
  const rows: string[] = [];
  for (let at = store.indexOf(key); at >= 0; at = store.indexOf(key, at + 1)) {
    const begin = at + key.length;
    const end = store.indexOf(KEY, begin);
    rows.push(store.slice(begin, end < 0 ? store.length : end));
  }
  return rows;
}

async function readAs<S extends z.ZodType>(schema: S, path: string): Promise<z.output<S> | undefined> {
  try {
    return schema.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch {
    return undefined; // being removed, or not yet whole
  }
}
