import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { fromText, KEY_FILE, nodeKey } from './node-key.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'slkey-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

it('derives the public key as RFC 7748, 6.1, does', () => {
  const bob = Buffer.from('5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb', 'hex');
  const { publicKey } = fromText(bob.toString('base64'));
  expect(Buffer.from(publicKey, 'base64').toString('hex')).toBe(
    'de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f',
  );
});

it('makes a key once, for its owner alone, and keeps it', () => {
  const path = join(folder, KEY_FILE);
  const first = nodeKey(folder);
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(Buffer.from(first.publicKey, 'base64')).toHaveLength(32);
  expect(nodeKey(folder)).toEqual(first);
  expect(fromText(readFileSync(path, 'utf8'))).toEqual(first);
  rmSync(path);
  expect(nodeKey(folder).publicKey).not.toBe(first.publicKey);
});

it('refuses a file that holds no key, and leaves it', () => {
  const path = join(folder, KEY_FILE);
  for (const text of ['', 'AAAA\n', 'x'.repeat(44)]) {
    writeFileSync(path, text);
    expect(() => nodeKey(folder)).toThrow(/wireguard\.key cannot be used: it is not 32 bytes in base64/);
    expect(readFileSync(path, 'utf8')).toBe(text);
  }
});
