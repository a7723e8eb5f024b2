import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { needsDocker, withNameServer } from './names.js';

const HEAD = '# Names by Sluice (docker network create -o names=sluice).\n';

describe('withNameServer', () => {
  it.each([
    ['', 'nameserver 10.0.0.1\noptions sluice-ndots ndots:0\n'],
    ['nameserver 1.1.1.1\nnameserver ::1', 'nameserver 10.0.0.1\noptions sluice-ndots ndots:0\n'],
    [
      '# of the host\nsearch a.example b.example\nnameserver 1.1.1.1\noptions timeout:1\noptions  edns0\n',
      '# of the host\nsearch a.example b.example\nnameserver 10.0.0.1\noptions sluice-ndots ndots:0 timeout:1 edns0\n',
    ],
    // Docker's name service would take a number of dots before the mark for the container's own, and start.
    ['options ndots:2 rotate\n', 'nameserver 10.0.0.1\noptions sluice-ndots ndots:2 rotate\n'],
  ])('makes of %j what Docker leaves alone', (given, wanted) => {
    const made = withNameServer(given, '10.0.0.1');
    expect(made).toBe(HEAD + wanted);
    expect(withNameServer(made, '10.0.0.1')).toBe(made);
  });
});

describe('needsDocker', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-names-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it.each([
    ['{"Dns":[],"Links":null}', false],
    ['{"Dns":null}', false],
    ['{"Dns":["9.9.9.9"]}', true],
    ['{"Dns":[],"Links":["/web:/it/web"]}', true],
    ['{"Dns":', true],
    ['[]', true],
  ])('of %s is %s', (text, wanted) => {
    const file = join(folder, 'hostconfig.json');
    writeFileSync(file, text);
    expect(needsDocker(file)).toBe(wanted);
  });

  it('of a container without such a file is true', () => {
    expect(needsDocker(join(folder, 'none'))).toBe(true);
  });
});
