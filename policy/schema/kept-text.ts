/**
 * Definitions that come by the ten thousand are kept as the text that they were read from, which is there anyway: the
 * same as objects takes several times as much memory. Who asks for one (`get -o yaml`) has it read again.
 */
import type { ResourceBase } from '../model/resources.js';

/** The `source` of such a resource: JSON. */
export class DefinitionText {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** The document that a resource was read from. */
export function definitionOf({ source }: ResourceBase): unknown {
  return source instanceof DefinitionText ? JSON.parse(source.text) : source;
}

/** The same as JSON. Equal definitions need not have equal texts. */
export function definitionText({ source }: ResourceBase): string {
  return source instanceof DefinitionText ? source.text : JSON.stringify(source);
}

/** Whether the definitions of two resources say the same. */
export function sameDefinition(a: ResourceBase, b: ResourceBase): boolean {
  return (
    definitionText(a) === definitionText(b) ||
    JSON.stringify(definitionOf(a)) === JSON.stringify(definitionOf(b))
  );
}
