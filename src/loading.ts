import { mkdirSync } from 'node:fs';
import { SluiceError } from '../policy/errors.js';
import type { AgentConfig } from './config.js';
import { Pins } from './dataplane/pins.js';
import { type Loading, loadProgramsLater } from './dataplane/programs.js';
import { checkEncryption } from './nodes/encryption.js';
import { checkExternalMode } from './services/node-context.js';

/**
 * Starts to load the programs, or opens those that can be adopted. It takes longest of all that an agent does before it is
 * ready, so it comes first; this file imports little for that reason. Before they are taken nothing is made on disk and
 * nothing pinned. Throws SluiceError for settings that don't go together, and when it cannot be done.
 */
export function beginLoading(config: AgentConfig): Loading {
  checkEncryption(config);
  checkExternalMode(config);
  const pins = new Pins(config.pinPath);
  const loading = loadProgramsLater(config, pins);
  return {
    async take() {
      try {
        makeStateDir(config.stateDir);
        pins.prepare();
      } catch (error) {
        await loading.abandon();
        throw error;
      }
      return loading.take();
    },
    abandon: () => loading.abandon(),
  };
}

function makeStateDir(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw SluiceError.of('SLU2504', { path, reason: (error as Error).message });
  }
}
