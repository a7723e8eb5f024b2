import { describe, expect, it } from 'vitest';
import { listeningPorts } from './conflicts.js';

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:7918 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
`;

describe('listeningPorts', () => {
  it('finds those that listen, and no connections', () => {
    expect(listeningPorts('TCP', TCP, '0A')).toEqual(['TCP 31000']);
    expect(listeningPorts('TCP', '', '0A')).toEqual([]);
  });
});
