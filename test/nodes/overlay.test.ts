import { describePaths } from './paths.js';

describePaths('overlay, three nodes', { prefix: 'slno', nodes: 3, settings: { nodeRouting: 'overlay' } });
