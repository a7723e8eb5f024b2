import type { Labels } from '../../policy/model/resources.js';
import { unixGet } from '../runtime/unix-get.js';
import { CniError } from './errors.js';
import { isObject } from './fields.js';

/** Milliseconds that Podman has for an answer; it may have to be started for it. */
const TIMEOUT = 10_000;

/** What Podman adds to the labels in its events, in place of labels of these names. */
const ADDED: ReadonlySet<string> = new Set(['image', 'name', 'containerExitCode', 'podId', 'health_status']);

/**
 * The labels of a container that Podman is starting: CNI does not tell them. Podman holds the container's lock
 * meanwhile, so nothing that looks at the container itself would answer; the event of its creation has them
 * (https://docs.podman.io/en/latest/_static/api.html, SystemEventsLibpod). Throws CniError 11.
 */
export async function podmanLabels(socket: string, containerId: string, timeLeft: number): Promise<Labels> {
  const filters = encodeURIComponent(JSON.stringify({ container: [containerId], event: ['create'] }));
  const path = `/v4.0.0/libpod/events?stream=false&filters=${filters}`;
  const failed = (reason: string): CniError =>
    CniError.of('SLU5123', { socket, container: containerId, reason });
  const timeout = Math.max(1, Math.min(TIMEOUT, Math.floor(timeLeft)));
  const { status, body } = await unixGet({ socket, path, timeout }).catch((error: unknown) => {
    throw failed((error as Error).message);
  });
  if (status !== 200) throw failed(`status ${status}`);
  const labels = labelsOf(body, containerId);
  if (labels === undefined)
    throw failed('its events do not have the container; events_logger must not be "none"');
  return labels;
}

/** The labels in the newest event about a container; undefined if there is none. One JSON object a line. */
export function labelsOf(events: string, containerId: string): Labels | undefined {
  for (const line of events.trim().split('\n').reverse()) {
    const attributes = attributesOf(line, containerId);
    if (attributes === undefined) continue;
    const own = Object.entries(attributes).filter(
      (entry): entry is [string, string] => typeof entry[1] === 'string' && !ADDED.has(entry[0]),
    );
    return Object.fromEntries(own);
  }
  return undefined;
}

function attributesOf(line: string, containerId: string): object | undefined {
  try {
    const event: unknown = JSON.parse(line);
    const actor = isObject(event) && isObject(event.Actor) ? event.Actor : {};
    if (actor.ID !== containerId) return undefined;
    return isObject(actor.Attributes) ? actor.Attributes : {};
  } catch {
    return undefined;
  }
}
