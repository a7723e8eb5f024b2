import { request } from 'node:http';
import { createServer } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { MemoryEngine } from '../../test/cli/memory-engine.js';
import { createLogger } from '../log.js';
import type { Check, Health } from './health.js';
import { parseHostPort } from './host-port.js';
import { Metrics } from './metrics.js';
import { MetricsServer } from './server.js';

const log = createLogger('error');
const open: MetricsServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function lines(metrics: Metrics): Promise<string[]> {
  return (await metrics.scrape()).split('\n');
}

/** `alive` fails together with `ready`, under another name. */
function healthOf(healthy: () => boolean): Health {
  const check = (name: string): Check[] => [
    { name: 'process', ok: true },
    { name, ok: healthy(), ...(healthy() ? {} : { reason: 'not yet' }) },
  ];
  return { ready: () => check('synced'), alive: () => check('changes') };
}

async function serve(metrics: Metrics, healthy: () => boolean): Promise<MetricsServer> {
  const server = await MetricsServer.listen('127.0.0.1:0', metrics, healthOf(healthy), log);
  open.push(server);
  return server;
}

function get(
  server: MetricsServer,
  path: string,
  method = 'GET',
): Promise<{ status: number; type: string; body: string }> {
  const at = parseHostPort(server.address);
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: at?.host, port: at?.port, path, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, type: String(response.headers['content-type']), body }),
      );
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

describe('Metrics', () => {
  it('shows the snapshot of the kernel, forwarded and dropped apart', async () => {
    const engine = new MemoryEngine();
    const text = await lines(new Metrics(() => engine.snapshot(), '1.2.3'));
    for (const line of [
      '# TYPE sluice_forwarded_packets_total counter',
      'sluice_forwarded_packets_total{direction="egress"} 10',
      'sluice_forwarded_packets_total{direction="ingress"} 20',
      'sluice_forwarded_bytes_total{direction="ingress"} 2000',
      'sluice_dropped_packets_total{direction="egress",reason="policy_egress"} 3',
      'sluice_dropped_bytes_total{direction="egress",reason="policy_egress"} 180',
      'sluice_flow_table_entries 4',
      'sluice_flow_table_capacity 16',
      '# TYPE sluice_flow_insert_failures_total counter',
      'sluice_flow_insert_failures_total 1',
      'sluice_map_entries{map="flows"} 4',
      'sluice_map_capacity{map="flows"} 16',
      'sluice_map_pressure_ratio{map="flows"} 0.25',
      'sluice_map_pressure_ratio{map="node"} 1',
      'sluice_map_memory_bytes{map="flows"} 4096',
      'sluice_endpoints 2',
      'sluice_policy_sets 3',
      'sluice_identities 5',
      'sluice_policy_epoch 7',
      'sluice_events_lost_total 9',
      'sluice_problems{code="SLU1811"} 2',
      'sluice_services 1',
      'sluice_service_connections_total{namespace="shop",service="web",port="http",protocol="TCP"} 12',
      'sluice_service_refused_total{namespace="shop",service="web",port="http",protocol="TCP"} 1',
      'sluice_service_packets_total{namespace="shop",service="web",port="http",protocol="TCP"} 240',
      'sluice_service_bytes_total{namespace="shop",service="web",port="http",protocol="TCP"} 36000',
      'sluice_service_backends{namespace="shop",service="web",port="http",protocol="TCP",state="ready"} 3',
      'sluice_service_backends{namespace="shop",service="web",port="http",protocol="TCP",state="terminating"} 2',
      'sluice_last_apply_success 1',
      `sluice_build_info{version="1.2.3",node_version="${process.version}"} 1`,
    ]) {
      expect(text).toContain(line);
    }
    expect(text.some((line) => /^process_resident_memory_bytes \d+$/.test(line))).toBe(true);
    expect(text.some((line) => line.includes('reason="forwarded"'))).toBe(false);
  });

  it('follows the kernel, and forgets maps and reasons that are gone', async () => {
    const engine = new MemoryEngine();
    const metrics = new Metrics(() => engine.snapshot(), '1');
    await metrics.scrape();
    engine.metrics = {
      ...engine.metrics,
      packets: [{ direction: 'egress', reason: 'forwarded', packets: 2 ** 53 - 1, bytes: 5000 }],
      maps: [],
      lostEvents: 10,
    };
    const text = await lines(metrics);
    expect(text).toContain(`sluice_forwarded_packets_total{direction="egress"} ${2 ** 53 - 1}`);
    expect(text).toContain('sluice_events_lost_total 10');
    expect(text.some((line) => line.includes('map="') || line.includes('reason="'))).toBe(false);
  });

  it('reads the kernel once a scrape, and gives every concurrent scrape a whole answer', async () => {
    const engine = new MemoryEngine();
    let reads = 0;
    const metrics = new Metrics(() => {
      reads++;
      return engine.snapshot();
    }, '1');
    const texts = await Promise.all(Array.from({ length: 8 }, () => metrics.scrape()));
    expect(reads).toBe(8);
    for (const text of texts)
      expect(text).toContain('sluice_forwarded_packets_total{direction="ingress"} 20\n');
  });

  it('counts changes by source and result, with the time of those that are in force', async () => {
    const metrics = new Metrics(() => undefined, '1');
    expect(await lines(metrics)).toContain('sluice_apply_failures_total{source="folder"} 0');
    metrics.applied({ ok: true, seconds: 0.003, source: 'api' });
    metrics.applied({ ok: false, seconds: 0.5, source: 'folder' });
    const text = await lines(metrics);
    for (const line of [
      'sluice_apply_total{source="api",result="success"} 1',
      'sluice_apply_total{source="folder",result="failure"} 1',
      'sluice_apply_failures_total{source="api"} 0',
      'sluice_apply_failures_total{source="folder"} 1',
      'sluice_apply_duration_seconds_bucket{le="0.0025",source="api"} 0',
      'sluice_apply_duration_seconds_bucket{le="0.005",source="api"} 1',
      'sluice_apply_duration_seconds_count{source="api"} 1',
      'sluice_last_apply_success 0',
    ]) {
      expect(text).toContain(line);
    }
    metrics.applied({ ok: true, seconds: 0.1, source: 'api' });
    expect(await lines(metrics)).toContain('sluice_last_apply_success 1');
  });

  it('uses names by convention: sluice_ or the process ones, counters end in _total, each has a help text', async () => {
    const text = await new Metrics(() => new MemoryEngine().snapshot(), '1').scrape();
    const types = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)];
    expect(types.length).toBeGreaterThan(30);
    for (const [, name = '', type] of types) {
      expect(name).toMatch(/^(sluice|process|nodejs)_[a-z0-9_]+$/);
      if (name.startsWith('sluice_')) expect(name.endsWith('_total')).toBe(type === 'counter');
      expect(text).toContain(`# HELP ${name} `);
    }
  });
});

describe('MetricsServer', () => {
  it('serves metrics and health, and nothing else', async () => {
    let healthy = false;
    const server = await serve(new Metrics(() => undefined, '1'), () => healthy);
    expect(await get(server, '/metrics')).toMatchObject({
      status: 200,
      type: expect.stringContaining('text/plain; version=0.0.4'),
    });
    expect(await get(server, '/healthz')).toMatchObject({ status: 503, body: 'not ready\n' });
    healthy = true;
    expect(await get(server, '/healthz?x')).toMatchObject({ status: 200, body: 'ok\n' });
    expect(await get(server, '/readyz')).toMatchObject({
      status: 200,
      body: '[+]process ok\n[+]synced ok\n',
    });
    healthy = false;
    const failed = { status: 503, body: '[+]process ok\n[-]changes failed: not yet\n' };
    expect(await get(server, '/livez')).toMatchObject(failed);
    expect((await get(server, '/')).status).toBe(404);
    expect((await get(server, '/metrics/x')).status).toBe(404);
    expect((await get(server, '/metrics', 'POST')).status).toBe(405);
    expect(await get(server, '/metrics', 'HEAD')).toMatchObject({ status: 200, body: '' });
  });

  it('answers 500 when the kernel cannot be read, and goes on', async () => {
    let fail = true;
    const metrics = new Metrics(() => {
      if (fail) throw new Error('map is gone');
      return undefined;
    }, '1');
    const quiet = createLogger('error', {
      fd: (await import('node:fs')).openSync('/dev/null', 'w'),
      isTTY: false,
    });
    const server = await MetricsServer.listen(
      '127.0.0.1:0',
      metrics,
      healthOf(() => true),
      quiet,
    );
    open.push(server);
    expect((await get(server, '/metrics')).status).toBe(500);
    fail = false;
    expect((await get(server, '/metrics')).status).toBe(200);
  });

  it('says in one line that its address is taken, or cannot be had', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as { port: number };
    const metrics = new Metrics(() => undefined, '1');
    await expect(
      MetricsServer.listen(
        `127.0.0.1:${port}`,
        metrics,
        healthOf(() => true),
        log,
      ),
    ).rejects.toThrow(
      `the metrics address 127.0.0.1:${port} is in use: stop the other process or set metricsAddress`,
    );
    other.close();
    await expect(
      MetricsServer.listen(
        '192.0.2.1:1',
        metrics,
        healthOf(() => true),
        log,
      ),
    ).rejects.toThrow('cannot listen on 192.0.2.1:1: ');
  });
});

describe('parseHostPort', () => {
  it.each([
    ['127.0.0.1:9644', { host: '127.0.0.1', port: 9644 }],
    ['[::1]:0', { host: '::1', port: 0 }],
    ['localhost:80', { host: 'localhost', port: 80 }],
    ['::1:80', undefined],
    [':80', undefined],
    ['host', undefined],
    ['host:65536', undefined],
    ['host:-1', undefined],
  ])('%s', (text, expected) => expect(parseHostPort(text)).toEqual(expected));
});
