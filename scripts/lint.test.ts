import { ESLint } from 'eslint';
import { beforeAll, describe, expect, it } from 'vitest';

/**
 * The direction of imports, rule by rule: code that breaks it, and code beside it that does not. Each text is
 * linted as if it stood in the named file.
 */
const CASES: readonly { file: string; code: string; rule?: string }[] = [
  {
    file: 'policy/address.ts',
    code: "import { x } from '../loader/map.js';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'policy/address.ts',
    code: "import type { x } from '../loader/map.js';\nexport type Y = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'policy/address.ts',
    code: "import { x } from '../loader/abi/gen/types.gen.js';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'policy/address.ts',
    code: "import type { FlowKey } from '../loader/abi/gen/types.gen.js';\nexport type Y = FlowKey;\n",
  },
  {
    file: 'policy/address.ts',
    code: "import { x } from '../src/config.js';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'policy/address.ts',
    code: "import { readFileSync } from 'node:fs';\nexport const y: unknown = readFileSync;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'loader/map.ts',
    code: "import { x } from '../policy/address.js';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'loader/map.ts',
    code: "import type { x } from '../src/config.js';\nexport type Y = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'loader/map.ts',
    code: "import { x } from 'ffi-napi';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'loader/map.ts',
    code: "import { x } from './ffi/libbpf.js';\nexport const y: unknown = x;\n",
  },
  {
    file: 'src/config.ts',
    code: "import { x } from 'ref-napi';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'src/state/state.ts',
    code: "import { x } from '../../loader/map.js';\nexport const y: unknown = x;\n",
    rule: '@typescript-eslint/no-restricted-imports',
  },
  {
    file: 'src/state/state.ts',
    code: "import type { x } from '../../loader/map.js';\nexport type Y = x;\n",
  },
  {
    file: 'src/http/server.ts',
    code: "import { Engine } from '../engine.js';\nexport const y: unknown = new Engine();\n",
    rule: 'sluice/construction',
  },
  {
    file: 'src/http/server.ts',
    code: "import { BpfObject } from '../../loader/object.js';\nexport const y: unknown = BpfObject.open('x');\n",
    rule: 'sluice/construction',
  },
  {
    file: 'src/main.ts',
    code: "import { BpfObject } from '../loader/object.js';\nexport const y: unknown = BpfObject.open('x');\n",
  },
  {
    file: 'src/http/server.ts',
    code: "import { SluiceError } from '../../policy/errors.js';\nexport const y: unknown = new SluiceError();\n",
  },
];

const RULES = ['@typescript-eslint/no-restricted-imports', 'sluice/construction'];

describe('direction of imports', () => {
  let eslint: ESLint;

  beforeAll(() => {
    // The texts are not files of the project: rules that need types are off, those under test don't need any.
    eslint = new ESLint({
      ruleFilter: ({ ruleId }) => RULES.includes(ruleId),
      overrideConfig: { languageOptions: { parserOptions: { projectService: false, project: false } } },
    });
  });

  it.each(CASES)('$file: $code', async ({ file, code, rule }) => {
    const [result] = await eslint.lintText(code, { filePath: file });
    expect(result?.messages.map((message) => message.ruleId)).toEqual(rule === undefined ? [] : [rule]);
  });
});
