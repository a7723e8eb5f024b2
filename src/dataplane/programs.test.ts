import { expect, it } from 'vitest';
import { unusedPrograms } from './programs.js';

it('leaves out what these settings put nowhere', () => {
  const settings = { nodeRouting: 'none', uplinks: 'auto', xdp: 'auto', hooks: 'tcx' } as const;
  expect(unusedPrograms({ ...settings, nodeRouting: 'overlay' })).toEqual([]);
  expect(unusedPrograms(settings)).toEqual(['sluice_from_tunnel']);
  expect(unusedPrograms({ ...settings, nodeRouting: 'direct', xdp: 'off' })).toEqual([
    'sluice_from_tunnel',
    'sluice_xdp',
  ]);
  expect(unusedPrograms({ ...settings, uplinks: [] })).toEqual([
    'sluice_from_tunnel',
    'sluice_from_uplink',
    'sluice_to_uplink',
    'sluice_xdp',
  ]);
  expect(unusedPrograms({ ...settings, uplinks: [], nodeRouting: 'overlay' })).toEqual([
    'sluice_from_uplink',
    'sluice_xdp',
  ]);
  expect(unusedPrograms({ ...settings, uplinks: [], hooks: 'clsact' })).toEqual(['sluice_from_tunnel']);
});
