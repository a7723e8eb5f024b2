import { SluiceError } from '../../policy/errors.js';
import type { ExplainRequest } from '../engine.js';
import { PROBE_PROTOCOLS } from '../probe/packet.js';

/** Longest name that a question may have: two names of Kubernetes and a network's. */
const MAX_NAME = 512;

/** The question of a GET /v1/explain. Throws SLU2404. */
export function readExplainRequest(query: URLSearchParams): ExplainRequest {
  const protocol = PROBE_PROTOCOLS.find((name) => name === query.get('protocol'));
  if (protocol === undefined) throw bad(`protocol must be one of ${PROBE_PROTOCOLS.join(', ')}`);
  const port = query.get('port') ?? '';
  const withPort = protocol !== 'ICMP';
  if (withPort && (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65_535))
    throw bad('port must be a number from 1 to 65535');
  const family = query.get('family') ?? '';
  if (!['', '4', '6'].includes(family)) throw bad('family must be 4 or 6');
  return {
    from: name(query, 'from'),
    to: name(query, 'to'),
    protocol,
    port: withPort ? Number(port) : 0,
    ...(family === '' ? {} : { family: family === '4' ? 4 : 6 }),
  };
}

function name(query: URLSearchParams, field: string): string {
  const text = query.get(field) ?? '';
  if (text === '' || text.length > MAX_NAME)
    throw bad(`${field} must be a container, an address, host or world`);
  return text;
}

function bad(reason: string): SluiceError {
  return SluiceError.of('SLU2404', { reason });
}
