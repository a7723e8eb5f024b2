/** Whether a folder's entry of this name is read as definitions: *.yaml, *.yml, *.json, not hidden. */
export function isDefinitionFile(name: string): boolean {
  return !name.startsWith('.') && /\.(?:yaml|yml|json)$/i.test(name);
}

/** A file as it was read. */
export interface RawSource {
  readonly file: string;
  readonly data: Buffer;
}
