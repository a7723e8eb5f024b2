import { describeReach } from './paths.js';

describeReach('overlay between nodes with IPv6 addresses only, jumbo frames', {
  prefix: 'slnj',
  nodes: 2,
  settings: { nodeRouting: 'overlay' },
  mtu: 9000,
  outer: 'ipv6',
});

describeReach('overlay, containers with an MTU that is too large for it', {
  prefix: 'slnb',
  nodes: 2,
  settings: { nodeRouting: 'overlay' },
  podMtu: 1500,
});

describeReach('direct between three nodes, jumbo frames', {
  prefix: 'slnk',
  nodes: 3,
  settings: { nodeRouting: 'direct' },
  mtu: 9000,
});
