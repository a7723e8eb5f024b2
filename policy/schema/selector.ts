/** Label selectors of Kubernetes (meta/v1 LabelSelector): schema and lowering. */
import { z } from 'zod';
import type { LabelSelector } from '../model/resources.js';
import { labelMap, mapping, nullableTextOf, optional, orEmpty, refuse, textOf } from './fields.js';
import { badLabelValue, badQualifiedName } from './names.js';

const OPERATORS = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

const requirement = mapping({
  key: textOf(badQualifiedName),
  operator: z.enum(OPERATORS),
  values: optional(z.array(nullableTextOf(badLabelValue))),
}).superRefine(({ operator, values = [] }, ctx) => {
  const wantsValues = operator === 'In' || operator === 'NotIn';
  if (wantsValues && values.length === 0)
    refuse(ctx, `operator ${operator} needs at least one value`, ['values']);
  if (!wantsValues && values.length > 0)
    refuse(ctx, `operator ${operator} takes no values: remove them`, ['values']);
});

export const selectorSchema = mapping({
  matchLabels: optional(labelMap),
  matchExpressions: optional(z.array(orEmpty(requirement))),
});

/** An empty selector has no requirement and selects everything. */
export function lowerSelector(selector: z.output<typeof selectorSchema>): LabelSelector {
  return {
    requirements: [
      ...Object.entries(selector.matchLabels ?? {}).map(([key, value]) => ({
        key,
        operator: 'In' as const,
        values: [value],
      })),
      ...(selector.matchExpressions ?? []).map(({ key, operator, values }) => ({
        key,
        operator,
        values: values ?? [],
      })),
    ],
  };
}
