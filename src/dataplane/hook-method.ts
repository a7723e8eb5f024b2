import { tcxFeature } from '../../loader/features.js';
import type { TcMethod } from '../../loader/link.js';
import type { AgentConfig } from '../config.js';

/** TCX where the kernel has it, unless the settings say otherwise. */
export function hookMethod(setting: AgentConfig['hooks']): TcMethod {
  if (setting !== 'auto') return setting;
  return tcxFeature.probe().supported === true ? 'tcx' : 'clsact';
}
