/**
 * What Docker asks of a network plugin: the requests of libnetwork's remote network driver and remote
 * IPAM driver (moby, libnetwork/docs/remote.md and ipam.md). Field names are Docker's.
 */
import { z } from 'zod';
import { SluiceError } from '../../policy/errors.js';

const id = z.string().min(1).max(128);
const text = z.string().max(4096);
/** Docker leaves out, or sends null for, what is empty. */
const optionalText = text.nullish().transform((value) => value ?? '');
const options = z
  .record(z.string(), z.unknown())
  .nullish()
  .transform((value) => value ?? {});

const pool = z.object({ Pool: optionalText, Gateway: optionalText });
const pools = z
  .array(pool)
  .max(16)
  .nullish()
  .transform((value) => value ?? []);

export const createNetwork = z.object({
  NetworkID: id,
  Options: options,
  IPv4Data: pools,
  IPv6Data: pools,
});
export const networkId = z.object({ NetworkID: id });
export const createEndpoint = z.object({
  NetworkID: id,
  EndpointID: id,
  Interface: z
    .object({ Address: optionalText, AddressIPv6: optionalText, MacAddress: optionalText })
    .nullish()
    .transform((value) => value ?? { Address: '', AddressIPv6: '', MacAddress: '' }),
  Options: options,
});
export const endpointId = z.object({ NetworkID: id, EndpointID: id });
export const join = z.object({ NetworkID: id, EndpointID: id, SandboxKey: text.min(1), Options: options });
export const external = z.object({ NetworkID: id, EndpointID: id, Options: options });

export const requestPool = z.object({
  AddressSpace: optionalText,
  Pool: optionalText,
  SubPool: optionalText,
  Options: options,
  V6: z
    .boolean()
    .nullish()
    .transform((value) => value ?? false),
});
export const poolId = z.object({ PoolID: id });
export const requestAddress = z.object({ PoolID: id, Address: optionalText, Options: options });
export const releaseAddress = z.object({ PoolID: id, Address: text.min(1) });

/** One published port (moby, libnetwork/types.PortBinding). */
export const portBinding = z.object({
  Proto: z.number().int().min(0).max(255),
  Port: z.number().int().min(1).max(65535),
  HostIP: optionalText,
  HostPort: z.number().int().min(0).max(65535),
  HostPortEnd: z
    .number()
    .int()
    .min(0)
    .max(65535)
    .nullish()
    .transform((value) => value ?? 0),
});
export const PORT_MAP = 'com.docker.network.portmap';

export type CreateNetwork = z.output<typeof createNetwork>;
export type CreateEndpoint = z.output<typeof createEndpoint>;
export type EndpointId = z.output<typeof endpointId>;
export type Join = z.output<typeof join>;
export type External = z.output<typeof external>;
export type PortBinding = z.output<typeof portBinding>;

/** Checks a request. Throws SLU5202 that names the field. */
export function parseRequest<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const field = issue?.path.join('.') ?? '';
  throw SluiceError.of('SLU5202', {
    reason: `${field === '' ? 'the request' : field}: ${issue?.message ?? ''}`,
  });
}

/** The published ports in the options of Join and ProgramExternalConnectivity. */
export function portBindings(given: Readonly<Record<string, unknown>>): readonly PortBinding[] {
  const value = given[PORT_MAP];
  return value === undefined || value === null ? [] : parseRequest(z.array(portBinding).max(65535), value);
}
