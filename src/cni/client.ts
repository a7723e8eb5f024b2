import { connect } from 'node:net';
import { encodeRequest, type WireRequest } from './wire.js';

/** An answer as the plugin would print it. */
export interface ClientAnswer {
  readonly status: number;
  readonly text: string;
}

const HEADER = 12;

/** Asks the agent what the plugin would ask, without the plugin. Rejects with the error of the socket. */
export function askAgent(socketPath: string, request: WireRequest): Promise<ClientAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    let answer = Buffer.alloc(0);
    socket.setTimeout(request.timeLeft, () => socket.destroy(new Error('the agent did not answer in time')));
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('the agent ended the connection')));
    socket.on('data', (chunk: Buffer) => {
      answer = Buffer.concat([answer, chunk]);
      if (answer.length < HEADER || answer.length < HEADER + answer.readUInt32LE(8)) return;
      resolve({ status: answer.readUInt32LE(4), text: answer.toString('utf8', HEADER) });
      socket.end('A');
    });
    socket.write(encodeRequest(request));
  });
}
