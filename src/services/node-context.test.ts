import { expect, it } from 'vitest';
import { checkExternalMode } from './node-context.js';

it('takes direct server return only where there is an overlay', () => {
  checkExternalMode({ externalMode: 'dsr', nodeRouting: 'overlay' });
  for (const nodeRouting of ['none', 'direct'] as const) {
    checkExternalMode({ externalMode: 'snat', nodeRouting });
    expect(() => checkExternalMode({ externalMode: 'dsr', nodeRouting })).toThrow(
      `externalMode dsr needs nodeRouting overlay, and that is ${nodeRouting}: change one of them`,
    );
  }
});
