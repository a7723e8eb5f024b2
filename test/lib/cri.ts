/**
 * As much of the kubelet's side of CRI as a test needs: gRPC over a Unix socket, pods alone.
 * Field numbers: https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
 */
import { connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';

export interface Pod {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly nameservers?: readonly string[];
  readonly ports?: readonly { readonly hostPort: number; readonly containerPort: number }[];
}

/** Talks to a container runtime as the kubelet does. */
export class Cri {
  readonly #socket: string;
  readonly #cgroup: string;

  /** `cgroup`: parent of the cgroups of pods. */
  constructor(socket: string, cgroup: string) {
    this.#socket = socket;
    this.#cgroup = cgroup;
  }

  /** Creates and starts a pod; returns its id. */
  async runPod({ name, labels = {}, nameservers = [], ports = [] }: Pod): Promise<string> {
    const config = message(
      field(1, message(field(1, name), field(2, `uid-${name}`), field(3, 'default'))),
      field(2, name),
      field(4, message(...nameservers.map((address) => field(1, address)))),
      ...ports.map(({ hostPort, containerPort }) =>
        field(5, message(number(2, containerPort), number(3, hostPort))),
      ),
      ...Object.entries(labels).map(([key, value]) => field(6, message(field(1, key), field(2, value)))),
      field(8, message(field(1, this.#cgroup))),
    );
    const answer = await this.#call('RunPodSandbox', message(field(1, config)));
    return fields(answer).get(1)?.toString() ?? '';
  }

  /** The pod's first address. */
  async addressOf(id: string): Promise<string> {
    const status = fields(await this.#call('PodSandboxStatus', message(field(1, id)))).get(1);
    const network = fields(status ?? Buffer.alloc(0)).get(5);
    return (
      fields(network ?? Buffer.alloc(0))
        .get(1)
        ?.toString() ?? ''
    );
  }

  /** Stops and removes a pod. */
  async removePod(id: string): Promise<void> {
    await this.#call('StopPodSandbox', message(field(1, id)));
    await this.#call('RemovePodSandbox', message(field(1, id)));
  }

  /** Rejects with what the runtime said. */
  #call(method: string, request: Buffer): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const session = connectHttp2('http://cri', { createConnection: () => connect(this.#socket) });
      session.on('error', reject);
      const stream = session.request({
        ':method': 'POST',
        ':path': `/runtime.v1.RuntimeService/${method}`,
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const chunks: Buffer[] = [];
      let status = '';
      let reason = '';
      const read = (headers: IncomingHttpHeaders): void => {
        const { 'grpc-status': code, 'grpc-message': text } = headers;
        if (typeof code === 'string') status = code;
        if (typeof text === 'string') reason = text;
      };
      stream.on('response', read);
      stream.on('trailers', read);
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('error', reject);
      stream.on('close', () => {
        session.close();
        if (status === '0') resolve(Buffer.concat(chunks).subarray(5));
        else reject(new Error(`${method}: ${decodeURIComponent(reason)} (gRPC status ${status})`));
      });
      const head = Buffer.alloc(5);
      head.writeUInt32BE(request.length, 1);
      stream.end(Buffer.concat([head, request]));
    });
  }
}

function message(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat(parts);
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 0x7f) | 0x80);
  }
}

/** A string or a message. */
function field(id: number, value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([varint((id << 3) | 2), varint(bytes.length), bytes]);
}

function number(id: number, value: number): Buffer {
  return Buffer.concat([varint(id << 3), varint(value)]);
}

/** The strings and messages of a message; of repeated ones the first. Numbers are passed over. */
function fields(bytes: Buffer): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  let at = 0;
  const next = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const tag = next();
    if ((tag & 7) === 0) next();
    else {
      const length = next();
      if (!found.has(tag >>> 3)) found.set(tag >>> 3, bytes.subarray(at, at + length));
      at += length;
    }
  }
  return found;
}
