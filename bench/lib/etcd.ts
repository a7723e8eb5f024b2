/** A store of one member for tests and benchmarks: Debian's etcd-server, in a namespace of its own if wanted. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { killAndWait, netnsPath, type Scratch } from './netns.js';

const ETCD = '/usr/bin/etcd';
export const haveEtcd = existsSync(ETCD);

/** What it says when clients can come (3.4, 3.5). */
const SERVING = /serving insecure client requests|serving client traffic/;

export interface EtcdPlace {
  /** Folder for its data; it is the caller's to remove. */
  readonly folder: string;
  readonly address: string;
  readonly ports: readonly [client: number, peer: number];
  readonly netns?: string;
}

export class EtcdStore {
  readonly url: string;
  readonly #place: EtcdPlace;
  #process: ChildProcess | undefined;

  /** It ends with `scratch`. */
  constructor(scratch: Pick<Scratch, 'onClose'>, place: EtcdPlace) {
    this.#place = place;
    this.url = `http://${place.address}:${place.ports[0]}`;
    scratch.onClose(() => this.stop());
  }

  /** Resolves when the store answers. `data`: which of its data, for a store that has lost its own. */
  async start(data = 'data'): Promise<void> {
    const { folder, address, ports, netns } = this.#place;
    const peer = `http://${address}:${ports[1]}`;
    const words = [
      ...(netns === undefined ? [] : ['nsenter', `--net=${netnsPath(netns)}`, '--']),
      ...[ETCD, '--name', 'one', '--data-dir', join(folder, data), '--initial-cluster', `one=${peer}`],
      ...['--listen-client-urls', this.url, '--advertise-client-urls', this.url],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
    ];
    const child = spawn(words[0] as string, words.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process = child;
    await new Promise<void>((resolve, reject) => {
      let text = '';
      child.stderr.on('data', (chunk: Buffer) => {
        text = (text + chunk.toString()).slice(-10_000);
        if (SERVING.test(text)) resolve();
      });
      child.once('exit', () => reject(new Error(`etcd ended: ${text.slice(-500)}`)));
    });
  }

  /** Ends it as a power cut would. */
  stop(): void {
    const child = this.#process;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) killAndWait(child.pid);
  }
}
