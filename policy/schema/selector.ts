/** Label selectors of Kubernetes (meta/v1 LabelSelector): schema and lowering. */
import { z } from 'zod';
import type { LabelSelector } from '../model/resources.js';
import { labelMap, mapping, nullableTextOf, optional, orEmpty, refuse, textOf } from './fields.js';
import { badLabelValue, badQualifiedName } from './names.js';

const OPERATORS = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

function requirementOf(value: z.ZodType<string>) {
  return mapping({
    key: textOf(badQualifiedName),
    operator: z.enum(OPERATORS),
    values: optional(z.array(value)),
  }).superRefine(({ operator, values = [] }, ctx) => {
    const wantsValues = operator === 'In' || operator === 'NotIn';
    if (wantsValues && values.length === 0)
      refuse(ctx, `operator ${operator} needs at least one value`, ['values']);
    if (!wantsValues && values.length > 0)
      refuse(ctx, `operator ${operator} takes no values: remove them`, ['values']);
  });
}

export const selectorSchema = mapping({
  matchLabels: optional(labelMap),
  matchExpressions: optional(z.array(orEmpty(requirementOf(nullableTextOf(badLabelValue))))),
});

/** In custom resources: a null label is left out, a null item is an error. */
export const customSelectorSchema = mapping({
  matchLabels: optional(
    z.preprocess(
      (value) =>
        typeof value === 'object' && value !== null && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).filter(([, text]) => text !== null))
          : value,
      labelMap,
    ),
  ),
  matchExpressions: optional(z.array(requirementOf(textOf(badLabelValue)))),
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
