import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FolderCopy } from './folder-copy.js';

let dir: string;
let errors: unknown[];
const log = { error: (value: unknown) => errors.push(value) };
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'sluice-copy-'));
  errors = [];
});
afterEach(() => rmSync(dir, { recursive: true }));

const content = (text: string) => [{ file: 'a.yaml', text }];

describe('FolderCopy', () => {
  it('has the latest of contents that follow one another', async () => {
    const copy = new FolderCopy(dir);
    for (const text of ['one', 'two', 'three']) copy.write(content(text), log);
    await copy.written();
    expect(new FolderCopy(dir).read()).toEqual(content('three'));
    expect(readdirSync(dir)).toEqual(['folder.json']);
    copy.write([], log);
    await copy.written();
    expect(readdirSync(dir)).toEqual([]);
    expect(errors).toEqual([]);
  });

  it('says what fails, and writes the next one', async () => {
    const copy = new FolderCopy(dir);
    mkdirSync(join(dir, 'folder.json.tmp'));
    copy.write(content('one'), log);
    await copy.written();
    expect(errors).toHaveLength(1);
    rmSync(join(dir, 'folder.json.tmp'), { recursive: true });
    copy.write(content('two'), log);
    await copy.written();
    expect(copy.read()).toEqual(content('two'));
  });
});
