import { describe, expect, it } from 'vitest';
import { listeningPorts } from './conflicts.js';

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:7918 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:0050 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
`;
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
   2: 00000000000000000000000000000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000
`;

describe('listeningPorts', () => {
  it('finds those that listen, and no connections', () => {
    expect(listeningPorts('TCP', TCP, '0A')).toEqual([
      { port: 'TCP 31000', loopback: true },
      { port: 'TCP 22', loopback: false },
    ]);
    expect(listeningPorts('TCP', '', '0A')).toEqual([]);
  });

  it('tells who listens on a loopback address alone', () => {
    expect(listeningPorts('TCP', TCP6, '0A')).toEqual([
      { port: 'TCP 8080', loopback: true },
      { port: 'TCP 8081', loopback: true },
      { port: 'TCP 8082', loopback: false },
    ]);
  });
});
