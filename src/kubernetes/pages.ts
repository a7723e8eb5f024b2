/** Reads a list in pages. While one is taken apart, the next is on its way: the server and this node work side by side. */
import { setImmediate as turn } from 'node:timers/promises';
import type { ApiClient, ApiRequest } from './client.js';
import { DecodeError, ListDecoder } from './decode.js';

interface ListParts {
  readonly client: Pick<ApiClient, 'stream'>;
  readonly request: Omit<ApiRequest, 'signal'>;
  readonly signal: AbortSignal;
  /** Objects of a page; undefined: all at once, from the server's cache. */
  readonly pageSize?: number;
  readonly onItem: (item: unknown) => void;
  /** Something has come. */
  readonly onData: () => void;
}

interface ListMeta {
  readonly metadata?: { readonly resourceVersion?: string; readonly continue?: string };
}

/** An answer under way: what has come before its turn is held. */
interface Page {
  held: Buffer[];
  take?: (chunk: Buffer) => void;
  readonly ended: Promise<void>;
}

/**
 * Hands over every object of a collection and returns the version that a watch can begin at. Throws ApiError, SluiceError
 * and DecodeError; what was asked for ahead is given up then.
 */
export async function readList(parts: ListParts): Promise<string> {
  const { onItem, signal } = parts;
  const stop = new AbortController();
  const both = AbortSignal.any([signal, stop.signal]);
  try {
    let version: string | undefined;
    for (let page: Page | undefined = open(parts, both); page !== undefined; ) {
      let following: Page | undefined;
      let asked: string | undefined;
      const ask = ({ metadata }: ListMeta): void => {
        asked = metadata?.continue;
        if (asked !== undefined && asked !== '') following = open(parts, both, asked);
      };
      const decoder = new ListDecoder(onItem, (head) => ask(head as ListMeta));
      await drain(page, (chunk) => decoder.push(chunk));
      const meta = decoder.end() as ListMeta;
      version = meta.metadata?.resourceVersion;
      // The metadata came behind the objects.
      if (asked === undefined) ask(meta);
      page = following;
    }
    if (version === undefined || version === '') throw new DecodeError('the list has no resourceVersion');
    return version;
  } finally {
    stop.abort();
  }
}

function open({ client, request, pageSize, onData }: ListParts, signal: AbortSignal, from?: string): Page {
  const paging: Record<string, string> =
    pageSize === undefined
      ? { resourceVersion: '0' }
      : { limit: String(pageSize), ...(from === undefined ? {} : { continue: from }) };
  const held: Buffer[] = [];
  const ended = client.stream({ ...request, query: { ...request.query, ...paging }, signal }, (chunk) => {
    onData();
    if (page.take === undefined) page.held.push(chunk);
    else page.take(chunk);
  });
  // Who waits for it comes later.
  ended.catch(() => undefined);
  const page: Page = { held, ended };
  return page;
}

/** Takes what has come, then what comes, to the end of the answer. */
async function drain(page: Page, take: (chunk: Buffer) => void): Promise<void> {
  while (page.held.length > 0) {
    const held = page.held;
    page.held = [];
    for (const chunk of held) {
      take(chunk);
      // A page is much work: other answers, and who asks for our health, come in between.
      await turn();
    }
  }
  page.take = take;
  await page.ended;
}
