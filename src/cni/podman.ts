import type { Labels } from '../../policy/model/resources.js';
import { unixGet } from '../runtime/unix-get.js';
import { CniError } from './errors.js';
import { isObject } from './fields.js';

/** Milliseconds that Podman has for an answer; it may have to be started for it. */
const TIMEOUT = 10_000;

/** What Podman adds to the labels in its events, in place of labels of these names. */
const ADDED: ReadonlySet<string> = new Set(['image', 'name', 'containerExitCode', 'podId', 'health_status']);

/** A container as the event of its creation tells it. */
export interface PodmanContainer {
  readonly labels: Labels;
  /** Of the pod that it belongs to, or ''. */
  readonly pod: string;
  /** Seconds since 1970. */
  readonly time: number;
}

/**
 * The labels of a container that Podman is starting: CNI does not tell them. Podman holds the container's lock
 * meanwhile, so nothing that looks at the container itself, or at its pod, would answer; the event of its creation has
 * them (https://docs.podman.io/en/latest/_static/api.html, SystemEventsLibpod). Throws CniError 11.
 */
export async function podmanLabels(socket: string, containerId: string, timeLeft: number): Promise<Labels> {
  const failed = (reason: string): CniError =>
    CniError.of('SLU5123', { socket, container: containerId, reason });
  const timeout = Math.max(1, Math.min(TIMEOUT, Math.floor(timeLeft)));
  const events = async (filters: object, since = ''): Promise<string> => {
    const text = encodeURIComponent(JSON.stringify(filters));
    const path = `/v4.0.0/libpod/events?stream=false${since}&filters=${text}`;
    const { status, body } = await unixGet({ socket, path, timeout }).catch((error: unknown) => {
      throw failed((error as Error).message);
    });
    if (status !== 200) throw failed(`status ${status}`);
    return body;
  };
  const own = containerIn(await events({ container: [containerId], event: ['create'] }), containerId);
  if (own === undefined)
    throw failed('its events do not have the container; events_logger must not be "none"');
  if (own.pod === '' || Object.keys(own.labels).length > 0) return own.labels;
  const members = await events({ type: ['container'], event: ['create', 'remove'] }, `&since=${own.time}`);
  return sharedLabels(members, own.pod, containerId);
}

/** A container in its newest event; undefined if there is none. One JSON object a line. */
export function containerIn(events: string, containerId: string): PodmanContainer | undefined {
  for (const line of events.trim().split('\n').reverse()) {
    const event = readEvent(line);
    if (event?.id === containerId) return event;
  }
  return undefined;
}

/**
 * The labels of a pod whose first container, which has the network, has none: `podman kube play` gives the pod's labels to
 * all others, so they are those that all of them have.
 */
export function sharedLabels(events: string, pod: string, first: string): Labels {
  const members = new Map<string, PodmanContainer>();
  for (const line of events.trim().split('\n')) {
    const event = readEvent(line);
    if (event?.pod !== pod || event.id === first) continue;
    if (event.action === 'remove') members.delete(event.id);
    else members.set(event.id, event);
  }
  const [one, ...others] = members.values();
  const isShared = ([key, value]: readonly [string, string]): boolean =>
    others.every(({ labels }) => labels[key] === value);
  return Object.fromEntries(Object.entries(one?.labels ?? {}).filter(isShared));
}

function readEvent(
  line: string,
): (PodmanContainer & { readonly id: string; readonly action: string }) | undefined {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch {
    return undefined;
  }
  const actor = isObject(event) && isObject(event.Actor) ? event.Actor : {};
  if (!isObject(event) || typeof actor.ID !== 'string') return undefined;
  const attributes = isObject(actor.Attributes) ? actor.Attributes : {};
  const labels = Object.entries(attributes).filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && !ADDED.has(entry[0]),
  );
  return {
    id: actor.ID,
    action: String(event.Action),
    labels: Object.fromEntries(labels),
    pod: typeof attributes.podId === 'string' ? attributes.podId : '',
    time: typeof event.time === 'number' ? Math.floor(event.time) : 0,
  };
}
