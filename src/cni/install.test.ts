import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { DEFAULT_CNI_SOCKET } from '../config.js';
import { installBinary, installList, listFile, listText, PLUGIN, uninstall } from './install.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-install-'));
  writeFileSync(join(folder, 'plugin'), 'binary');
});
afterEach(() => rmSync(folder, { recursive: true }));

const installation = (name: string) => ({ binDir: join(folder, 'bin'), confDir: join(folder, 'conf'), name });
const binary = (): string => join(folder, 'bin', PLUGIN);
function install(name: string, socket?: string): string {
  installBinary(join(folder, 'plugin'), binary());
  const list = { name, subnets: ['10.0.0.0/24'], ...(socket === undefined ? {} : { socket }) };
  installList(listText(list), installation(name));
  return listFile(installation(name));
}

it('removes the configuration of the agent that is meant, and of no other one', () => {
  const [first, second] = [install('first'), install('second', '/run/other.sock')];
  const all = [first, second];
  const refused = `${second} is for the agent at /run/other.sock`;
  expect(() => uninstall(installation('second'), all, DEFAULT_CNI_SOCKET)).toThrow(refused);
  expect(() => uninstall(installation('first'), all, '/run/other.sock')).toThrow(DEFAULT_CNI_SOCKET);
  expect([first, second, binary()].every((path) => existsSync(path))).toBe(true);
  expect(uninstall(installation('second'), all, '/run/other.sock')).toEqual([second]);
  expect(uninstall(installation('first'), all, DEFAULT_CNI_SOCKET)).toEqual([first, binary()]);
  expect(uninstall(installation('first'), all, DEFAULT_CNI_SOCKET)).toEqual([]);
});

it('removes it whosoever it is if no agent is named, and leaves what is not of Sluice', () => {
  const [list] = [install('first', '/run/other.sock')];
  expect(uninstall(installation('first'), [list])).toEqual([list, binary()]);
  writeFileSync(list, JSON.stringify({ name: 'first', plugins: [{ type: 'bridge' }] }));
  expect(() => uninstall(installation('first'), [list])).toThrow('is not of Sluice');
  expect(existsSync(list)).toBe(true);
});
