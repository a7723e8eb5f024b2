import { describePaths } from './paths.js';

describePaths('direct, two nodes', { prefix: 'slnd', nodes: 2, settings: { nodeRouting: 'direct' } });
