/** Where the API server is and who we are: from a kubeconfig or from inside a pod. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { SluiceError } from '../../policy/errors.js';
import { reasonOf } from '../http/api.js';

/** What a connection needs besides the address. PEM texts. */
export interface TlsMaterial {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly insecure: boolean;
}

/** How to reach the API server. Files behind it are read again, as they are replaced while the agent runs. */
export interface ClusterAccess {
  /** `https://10.0.0.1:6443` or with a path; `http:` for a local proxy. */
  readonly server: URL;
  /** Throws SluiceError when a file cannot be read. */
  tls(): TlsMaterial;
  /** Content of the Authorization header, if there is one. Throws SluiceError. */
  authorization(): string | undefined;
}

/** Where a pod finds its service account. */
export const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** Files are read again after this time: tokens of service accounts live an hour, kubelet renews them long before. */
const REREAD_MS = 60_000;

/** A file that is replaced now and then. An unreadable new version leaves the last good one in use. */
class FreshFile {
  readonly #path: string;
  readonly #now: () => number;
  #text: string | undefined;
  #readAt = 0;

  constructor(path: string, now: () => number) {
    this.#path = path;
    this.#now = now;
  }

  get text(): string {
    if (this.#text !== undefined && this.#now() - this.#readAt < REREAD_MS) return this.#text;
    try {
      this.#text = readFileSync(this.#path, 'utf8');
    } catch (error) {
      if (this.#text === undefined)
        throw SluiceError.of(
          'SLU6202',
          { reason: `cannot be read: ${reasonOf(error)}` },
          { file: this.#path },
        );
    }
    this.#readAt = this.#now();
    return this.#text ?? '';
  }
}

interface Identity {
  readonly ca?: () => string;
  readonly cert?: () => string;
  readonly key?: () => string;
  readonly token?: () => string;
  readonly servername?: string;
  readonly insecure: boolean;
}

function access(server: URL, identity: Identity): ClusterAccess {
  const { ca, cert, key, token, servername, insecure } = identity;
  return {
    server,
    tls: () => ({
      insecure,
      ...(ca === undefined ? {} : { ca: ca() }),
      ...(cert === undefined ? {} : { cert: cert() }),
      ...(key === undefined ? {} : { key: key() }),
      ...(servername === undefined ? {} : { servername }),
    }),
    authorization: () => (token === undefined ? undefined : `Bearer ${token().trim()}`),
  };
}

/** The access of a pod: its service account and the service `kubernetes`. Throws SLU6204. */
export function inClusterAccess(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  folder: string = SERVICE_ACCOUNT,
  now: () => number = Date.now,
): ClusterAccess {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment;
  if (host === undefined || host === '' || port === undefined || port === '')
    throw SluiceError.of('SLU6204', { reason: 'KUBERNETES_SERVICE_HOST and _PORT are not set' });
  const token = join(folder, 'token');
  if (!existsSync(token)) throw SluiceError.of('SLU6204', { reason: `there is no ${token}` });
  const tokenFile = new FreshFile(token, now);
  const ca = new FreshFile(join(folder, 'ca.crt'), now);
  const name = host.includes(':') ? `[${host}]` : host;
  return access(new URL(`https://${name}:${port}`), {
    ca: () => ca.text,
    token: () => tokenFile.text,
    insecure: false,
  });
}

const text = z.string().min(1);

const kubeconfig = z.looseObject({
  'current-context': z.string().optional(),
  contexts: z.array(
    z.looseObject({ name: z.string(), context: z.looseObject({ cluster: text, user: text }) }),
  ),
  clusters: z.array(
    z.looseObject({
      name: z.string(),
      cluster: z.looseObject({
        server: z.url({ protocol: /^https?$/ }),
        'certificate-authority': text.optional(),
        'certificate-authority-data': text.optional(),
        'insecure-skip-tls-verify': z.boolean().optional(),
        'tls-server-name': text.optional(),
      }),
    }),
  ),
  users: z.array(
    z.looseObject({
      name: z.string(),
      user: z.looseObject({
        'client-certificate': text.optional(),
        'client-certificate-data': text.optional(),
        'client-key': text.optional(),
        'client-key-data': text.optional(),
        token: text.optional(),
        tokenFile: text.optional(),
      }),
    }),
  ),
});

/** Ways to identify that would start programs or keep passwords. */
const REFUSED = ['exec', 'auth-provider', 'username', 'password', 'as'] as const;

/**
 * The access of a kubeconfig (the format of kubectl); paths in it are relative to its folder. Throws SLU6201,
 * SLU6202, SLU6203 with the file.
 */
export function kubeconfigAccess(file: string, now: () => number = Date.now): ClusterAccess {
  let document: unknown;
  try {
    document = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const [reason = ''] = reasonOf(error).split('\n');
    throw SluiceError.of('SLU6201', { reason }, { file });
  }
  const wrong = (field: string, reason: string): SluiceError =>
    SluiceError.of('SLU6202', { reason }, { file, field });
  const read = kubeconfig.safeParse(document);
  if (!read.success) {
    const [issue] = read.error.issues;
    throw wrong(issue?.path.map(String).join('.') ?? '', issue?.message ?? 'not a kubeconfig');
  }
  const { contexts, clusters, users, 'current-context': current } = read.data;
  const pick = <T extends { readonly name: string }>(list: readonly T[], name: string, field: string): T => {
    const found = list.find((entry) => entry.name === name);
    if (found === undefined) throw wrong(field, `there is no entry "${name}"`);
    return found;
  };
  if (current === undefined || current === '') throw wrong('current-context', 'is required');
  const { context } = pick(contexts, current, 'contexts');
  const { cluster } = pick(clusters, context.cluster, 'clusters');
  const { user } = pick(users, context.user, 'users');
  const refused = REFUSED.find((field) => user[field] !== undefined);
  if (refused !== undefined) throw SluiceError.of('SLU6203', { user: context.user, what: refused }, { file });

  /** Inline data (base64) goes before a file. */
  const content = (data: string | undefined, path: string | undefined) => {
    if (data !== undefined) {
      const decoded = Buffer.from(data, 'base64').toString('utf8');
      return () => decoded;
    }
    if (path === undefined) return undefined;
    const fresh = new FreshFile(isAbsolute(path) ? path : join(dirname(file), path), now);
    return () => fresh.text;
  };
  const ca = content(cluster['certificate-authority-data'], cluster['certificate-authority']);
  const cert = content(user['client-certificate-data'], user['client-certificate']);
  const key = content(user['client-key-data'], user['client-key']);
  const { token: given } = user;
  const token = given === undefined ? content(undefined, user.tokenFile) : () => given;
  if ((cert === undefined) !== (key === undefined))
    throw wrong(`users.${context.user}`, 'a client certificate needs its key, and the other way round');
  const servername = cluster['tls-server-name'];
  return access(new URL(cluster.server), {
    insecure: cluster['insecure-skip-tls-verify'] === true,
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(token === undefined ? {} : { token }),
    ...(servername === undefined ? {} : { servername }),
  });
}
