/**
 * Building blocks of the schemas: zod types whose issues carry what `issues.ts` needs for a clear
 * line. In the kinds of Kubernetes null is the zero value, as its API server decodes it.
 */
import { z } from 'zod';
import { canonicalAddress, parseCidr } from '../address.js';
import { SluiceError } from '../errors.js';
import { meantAnnotation } from '../model/annotations.js';
import { badDnsLabel, badDnsSubdomain, badLabelValue, badQualifiedName } from './names.js';

/** First word of the message of an unknown field's issue; the known fields follow. */
export const KNOWN_FIELDS = 'known fields:';

type Refine = {
  addIssue(issue: {
    code: 'custom';
    message: string;
    path?: PropertyKey[];
    params?: Record<string, unknown>;
  }): void;
};

/** Adds an issue whose line is `reason` (SLU1106). */
export function refuse(ctx: Refine, reason: string, path: PropertyKey[] = []): void {
  ctx.addIssue({ code: 'custom', message: reason, path });
}

/** Adds an issue whose line is the error. */
export function refuseWith(ctx: Refine, error: SluiceError, path: PropertyKey[] = []): void {
  ctx.addIssue({ code: 'custom', message: error.message, path, params: { error } });
}

/** A mapping with these fields and no others. */
export function mapping<T extends z.core.$ZodLooseShape>(shape: T): z.ZodObject<T, z.core.$strict> {
  const known = `${KNOWN_FIELDS} ${Object.keys(shape).join(' ')}`;
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? known : undefined),
  });
}

/** The field may be left out or be null; both mean undefined. */
export function optional<T extends z.ZodType>(type: T) {
  return type.nullish().transform((value) => value ?? undefined);
}

/** A list item that may be null, which stands for an empty mapping. */
export function orEmpty<T extends z.ZodType>(type: T) {
  return z.preprocess((value) => (value === null ? {} : value), type);
}

/** A text that `bad` gives no reason to refuse. */
export function textOf(bad: (text: string) => string | undefined) {
  return z.string().superRefine((text, ctx) => {
    const reason = bad(text);
    if (reason !== undefined) refuse(ctx, reason);
  });
}

/** As `textOf`, for lists and maps of Kubernetes: null is the empty text. */
export function nullableTextOf(bad: (text: string) => string | undefined) {
  return z.preprocess((value) => (value === null ? '' : value), textOf(bad));
}

export function wholeNumber(min: number, max: number) {
  return z.number().superRefine((value, ctx) => {
    if (!Number.isInteger(value) || value < min || value > max)
      refuse(ctx, `must be a whole number from ${min} to ${max}, not ${value}`);
  });
}

export const portNumber = wholeNumber(1, 65535);

export const protocol = z.enum(['TCP', 'UDP', 'SCTP']);

/** An address; the value is its canonical text. */
export const address = z.string().transform((text, ctx) => {
  try {
    return canonicalAddress(text);
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    refuseWith(ctx, error);
    return z.NEVER;
  }
});

/** A CIDR without bits beyond the prefix length; the value is a parsed one. */
export const strictCidr = cidrType('refuse');

/** A CIDR; bits beyond the prefix length are cleared, as Kubernetes does in ipBlock. */
export const maskedCidr = cidrType('clear');

function cidrType(hostBits: 'refuse' | 'clear') {
  return z.string().transform((text, ctx) => {
    try {
      return parseCidr(text, hostBits);
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      refuseWith(ctx, error);
      return z.NEVER;
    }
  });
}

/** Labels as in metadata and in matchLabels. */
export const labelMap = z.record(z.string(), nullableTextOf(badLabelValue)).superRefine((labels, ctx) => {
  for (const key of Object.keys(labels)) {
    const reason = badQualifiedName(key);
    if (reason !== undefined) refuse(ctx, reason, [key]);
  }
});

const MAX_ANNOTATION_BYTES = 256 * 1024;

const annotations = z
  .record(
    z.string(),
    nullableTextOf(() => undefined),
  )
  .superRefine((map, ctx) => {
    let size = 0;
    for (const [key, value] of Object.entries(map)) {
      size += key.length + value.length;
      const reason = badQualifiedName(key.toLowerCase());
      if (reason !== undefined) refuse(ctx, reason, [key]);
      const meant = meantAnnotation(key);
      if (meant !== undefined) refuse(ctx, `is no annotation of Sluice; did you mean "${meant}"?`, [key]);
    }
    if (size > MAX_ANNOTATION_BYTES)
      refuse(ctx, `annotations must not be larger than ${MAX_ANNOTATION_BYTES} bytes together`);
  });

const anything = z.unknown().optional();

/** Fields that the API server writes; accepted so that the output of `kubectl get -o yaml` is a definition. */
const serverFields = {
  generateName: anything,
  selfLink: anything,
  uid: anything,
  resourceVersion: anything,
  generation: anything,
  creationTimestamp: anything,
  deletionTimestamp: anything,
  deletionGracePeriodSeconds: anything,
  ownerReferences: anything,
  finalizers: anything,
  managedFields: anything,
};

/** metadata of a kind that lives in a namespace. */
export function namespacedMetadata(badName: (text: string) => string | undefined = badDnsSubdomain) {
  return mapping({
    name: textOf(badName),
    namespace: optional(textOf(badDnsLabel)),
    labels: optional(labelMap),
    annotations: optional(annotations),
    ...serverFields,
  });
}

/** metadata of a kind that belongs to no namespace. */
export function clusterMetadata(kind: string, badName: (text: string) => string | undefined = badDnsLabel) {
  return mapping({
    name: textOf(badName),
    namespace: optional(
      textOf((text) => (text === '' ? undefined : `must be left out: a ${kind} belongs to no namespace`)),
    ),
    labels: optional(labelMap),
    annotations: optional(annotations),
    ...serverFields,
  });
}

/** A mapping of which exactly one field is given. */
export function oneOf<T extends z.core.$ZodLooseShape>(shape: T) {
  const fields = Object.keys(shape).join(', ');
  return mapping(shape).superRefine((value, ctx) => {
    const given = Object.values(value).filter((part) => part !== undefined).length;
    if (given !== 1) refuse(ctx, `needs exactly one of ${fields}, not ${given === 0 ? 'none' : given}`);
  });
}
