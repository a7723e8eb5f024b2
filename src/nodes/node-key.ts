import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { chmodSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SluiceError } from '../../policy/errors.js';
import { syncFolder, writeAtomically } from '../state/files.js';

/** Name of the file below the state folder; one line, base64, as `wg genkey` writes it. */
export const KEY_FILE = 'wireguard.key';

const KEY_SIZE = 32;
/** What stands before the 32 bytes of an X25519 private key in PKCS #8 (RFC 8410). */
const PKCS8_HEAD = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** The key pair of this node. */
export interface NodeKey {
  /** 32 bytes. */
  readonly privateKey: Uint8Array;
  /** Base64. */
  readonly publicKey: string;
}

/** The key in the state folder; a new one if there is none. Throws SLU6004. */
export function nodeKey(stateDir: string): NodeKey {
  const path = join(stateDir, KEY_FILE);
  try {
    const text = readText(path);
    if (text !== undefined) {
      chmodSync(path, 0o600);
      return fromText(text);
    }
    const { privateKey } = generateKeyPairSync('x25519');
    const key = fromObject(privateKey);
    writeAtomically(path, `${Buffer.from(key.privateKey).toString('base64')}\n`);
    syncFolder(dirname(path));
    return key;
  } catch (error) {
    throw SluiceError.of('SLU6004', { path, reason: (error as Error).message });
  }
}

/** The pair of a private key in base64. Throws an Error. */
export function fromText(text: string): NodeKey {
  const bytes = Buffer.from(text.trim(), 'base64');
  if (bytes.length !== KEY_SIZE || bytes.toString('base64') !== text.trim())
    throw new Error('it is not 32 bytes in base64');
  return fromObject(
    createPrivateKey({ key: Buffer.concat([PKCS8_HEAD, bytes]), format: 'der', type: 'pkcs8' }),
  );
}

function fromObject(key: KeyObject): NodeKey {
  const privateKey = key.export({ format: 'der', type: 'pkcs8' }).subarray(-KEY_SIZE);
  const publicKey = createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(-KEY_SIZE);
  return { privateKey, publicKey: publicKey.toString('base64') };
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
