/** Versions of the CNI specification whose results the plugin can print. */
export const CNI_VERSIONS = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];

/** The version that answers have when the request names none that is known. */
export const NEWEST_VERSION: CniVersion = '1.1.0';

/** A configuration without cniVersion is one of this version (SPEC.md, "Configuration format"). */
export const UNVERSIONED = '0.1.0';

export function isCniVersion(text: string): text is CniVersion {
  return (CNI_VERSIONS as readonly string[]).includes(text);
}

/** Whether `version` is `other` or newer. */
export function atLeastVersion(version: CniVersion, other: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(other);
}
