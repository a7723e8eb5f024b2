import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { packageRoot } from '../../loader/paths.js';
import { SluiceError } from '../../policy/errors.js';
import type { Logger } from '../log.js';
import type { NameChange, NamedNetwork, NamedObject, NamedService } from './names.js';
import type { FromWorker, ToWorker, WorkerData } from './protocol.js';
import type { DnsCounters } from './server.js';
import type { NameWatcher } from './watch.js';

/** Megabytes of heap that the thread may use before it is ended and started again. */
const MAX_HEAP = 128;
/** Megabytes for what is young: an answer leaves little. */
const YOUNG_HEAP = 3;
const RESTART_MS = 1000;
const CLOSE_MS = 1000;
/** How long a change waits for the thread at most. */
const SETTLE_MS = 1000;

/** A change that grows. */
interface Collected {
  readonly networks: NameChange['networks'][number][];
  readonly objects: NameChange['objects'][number][];
  readonly services: NonNullable<NameChange['services']>[number][];
}

/** The name service: a thread that answers, started with the first network and again if it ends. */
export class DnsService {
  readonly #log: Logger;
  readonly #data: WorkerData;
  readonly #networks = new Map<string, NamedNetwork>();
  readonly #objects = new Map<string, NamedObject>();
  readonly #services = new Map<string, NamedService>();
  readonly #problems = new Map<string, SluiceError>();
  #counters: DnsCounters = { local: 0, forwarded: 0, failed: 0, invalid: 0 };
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  #sequence = 0;
  readonly #waiting = new Map<number, () => void>();
  #collected: Collected | undefined;
  #closed = false;
  #watcher: NameWatcher | undefined;
  #clients: readonly string[] = [];
  #hostWanted = false;

  constructor(data: WorkerData, log: Logger) {
    this.#data = data;
    this.#log = log;
  }

  get counters(): DnsCounters {
    return this.#counters;
  }

  /** Addresses where it can't listen, and why. */
  problems(): readonly SluiceError[] {
    return [...this.#problems.values()];
  }

  /** Resolves when the names of new networks are served, or cannot be, or it takes too long. Never rejects. */
  update(change: NameChange): Promise<void> {
    apply(this.#networks, change.networks);
    apply(this.#objects, change.objects);
    apply(this.#services, change.services ?? []);
    if (this.#worker === undefined && this.#networks.size > 0) this.#start();
    else this.#collect(change);
    if (change.networks.length === 0 || this.#worker === undefined) return Promise.resolve();
    this.#flush();
    return this.#settled();
  }

  /** What comes in one turn of the event loop goes to the thread as one message, after the work of that turn. */
  #collect({ networks, objects, services = [] }: NameChange): void {
    if (this.#collected === undefined) {
      this.#collected = { networks: [], objects: [], services: [] };
      setImmediate(() => this.#flush());
    }
    this.#collected.networks.push(...networks);
    this.#collected.objects.push(...objects);
    this.#collected.services.push(...services);
  }

  #flush(): void {
    const change = this.#collected;
    this.#collected = undefined;
    if (change !== undefined && this.#worker !== undefined) this.#send(change);
  }

  /** Questions of the watcher's clients go where they were meant to go, and answers wait until it has learned them. */
  async watch(watcher: NameWatcher): Promise<void> {
    this.#watcher = watcher;
    await watcher.onClients((clients) => {
      if (clients.length + this.#clients.length === 0) return Promise.resolve();
      this.#clients = clients;
      if (this.#worker === undefined) return Promise.resolve();
      this.#post({ type: 'watched', clients, sequence: ++this.#sequence });
      return this.#settled();
    });
    await watcher.onHost((wanted) => {
      if (wanted === this.#hostWanted) return Promise.resolve();
      this.#hostWanted = wanted;
      if (this.#worker !== undefined) this.#postHost();
      else if (wanted) this.#start();
      return this.#worker === undefined ? Promise.resolve() : this.#settled();
    });
  }

  #settled(): Promise<void> {
    const sequence = this.#sequence;
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(sequence);
        resolve();
      };
      const timer = setTimeout(done, SETTLE_MS);
      this.#waiting.set(sequence, done);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    const worker = this.#worker;
    if (worker === undefined) return;
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    this.#post({ type: 'close' });
    const timer = setTimeout(() => void worker.terminate(), CLOSE_MS);
    await ended;
    clearTimeout(timer);
  }

  #start(): void {
    if (this.#closed || this.#worker !== undefined) return;
    const worker = new Worker(join(packageRoot(), 'dist', 'src', 'dns', 'worker.js'), {
      workerData: this.#data,
      name: 'dns',
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP, maxYoungGenerationSizeMb: YOUNG_HEAP },
    });
    this.#worker = worker;
    worker.on('message', (message: FromWorker) => this.#hear(message));
    worker.on('error', (err) => this.#log.error({ err }, 'the name service ended; it is started again'));
    worker.once('exit', () => {
      for (const done of [...this.#waiting.values()]) done();
      this.#worker = undefined;
      this.#problems.clear();
      this.#watcher?.hostPorts({});
      if (!this.#closed) this.#timer = setTimeout(() => this.#start(), RESTART_MS).unref();
    });
    this.#post({ type: 'watched', clients: this.#clients, sequence: ++this.#sequence });
    this.#collected = undefined; // it is in what follows
    this.#send({
      networks: [...this.#networks],
      objects: [...this.#objects],
      services: [...this.#services],
    });
    if (this.#hostWanted) this.#postHost();
  }

  #postHost(): void {
    this.#post({ type: 'host', wanted: this.#hostWanted, sequence: ++this.#sequence });
  }

  #hear(message: FromWorker): void {
    if (message.type === 'counters') this.#counters = message.counters;
    if (message.type === 'settled') this.#waiting.get(message.sequence)?.();
    if (message.type === 'host') this.#watcher?.hostPorts(message.ports);
    if (message.type === 'whom') this.#whom(message);
    if (message.type === 'learn')
      void this.#watcher?.learn(message.answer).then(() => this.#post({ type: 'reply', id: message.id }));
    if (message.type !== 'problem') return;
    const { address, network, reason } = message;
    if (reason === undefined) {
      this.#problems.delete(address);
      this.#log.info({ address, network }, 'names are served here again');
      return;
    }
    const problem = SluiceError.of('SLU5301', { address, network, reason });
    this.#problems.set(address, problem);
    this.#log.warn({ address, network }, problem.toLine());
  }

  #whom({ id, question }: Extract<FromWorker, { type: 'whom' }>): void {
    let server: string | undefined;
    try {
      server = this.#watcher?.serverOf(question);
    } catch (err) {
      this.#log.error({ err }, 'the name server of a question is not known');
    }
    this.#post({ type: 'reply', id, ...(server === undefined ? {} : { server }) });
  }

  #send(change: NameChange): void {
    this.#post({ type: 'change', change, sequence: ++this.#sequence });
  }

  #post(message: ToWorker): void {
    this.#worker?.postMessage(message);
  }
}

function apply<V>(map: Map<string, V>, entries: readonly (readonly [string, V | undefined])[]): void {
  for (const [key, value] of entries) {
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }
}
