import { existsSync } from 'node:fs';
import type { AgentConfig } from '../config.js';
import { HostHooks } from './hooks.js';
import { hostPins, hostStateDir } from './programs.js';

/** Takes the host's policy out of force without an agent, whatever it says, and removes its pins. */
export function removeHostFirewall(config: AgentConfig): void {
  const pins = hostPins(config.pinPath);
  const folder = hostStateDir(config.stateDir);
  if (!existsSync(pins.root) && !existsSync(folder)) return;
  // With TCX there are no filters to take off; with filters there are no links.
  new HostHooks(pins, 'clsact', folder).removeAll();
  pins.removeAll();
}
