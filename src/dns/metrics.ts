import { Counter, type Registry } from 'prom-client';
import type { DnsCounters } from './server.js';

/** Metrics of the name service. They begin anew when its thread does. */
export class DnsMetrics {
  /** `read`: as the thread told them last, which is a second ago at most. */
  constructor(registry: Registry, read: () => DnsCounters) {
    new Counter({
      name: 'sluice_dns_questions_total',
      help: 'Questions of containers by how they ended: answered from local names, forwarded, failed, or no question at all.',
      labelNames: ['result'],
      registers: [registry],
      collect() {
        const { local, forwarded, failed, invalid } = read();
        this.reset();
        this.inc({ result: 'local' }, local);
        this.inc({ result: 'forwarded' }, forwarded);
        this.inc({ result: 'failed' }, failed);
        this.inc({ result: 'invalid' }, invalid);
      },
    });
  }
}
