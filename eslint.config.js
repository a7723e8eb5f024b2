// @ts-check
/**
 * Typed lint rules, and the direction of imports (docs/design.md): policy/ is pure, loader/ knows
 * neither policy/ nor src/, src/state runs no loader code, ffi/ alone imports the FFI packages,
 * src/main.ts and src/engine-parts.ts construct the parts (src/dataplane and src/probe what they open of the
 * kernel, src/policytest the parts of a policy test, src/diff those of a second set of policy maps).
 * scripts/lint.test.ts proves that each rule bites.
 */
import tseslint from 'typescript-eslint';

const FFI = { regex: '^(ffi-napi|ref-napi)(/|$)', message: 'Only loader/ffi imports the FFI packages.' };
const NOT_FOR_LOADER = {
  regex: '^(\\.\\./)+(policy|src|bench|scripts|test)/',
  message: 'loader/ imports neither policy/ nor src/.',
};
const LOADER_TYPES = {
  regex: '^(\\.\\./)+loader/abi/gen/',
  allowTypeImports: true,
  message: 'policy/ imports types from loader/abi/gen, nothing that runs.',
};
const NOT_FOR_POLICY = {
  regex: '^(\\.\\./)+(loader/(?!abi/gen/)|src/|bench/|scripts/|test/)',
  message: 'policy/ is pure: of the other folders it knows types from loader/abi/gen only.',
};
const NO_IO = {
  regex: '^(node:)?(fs|fs/promises|child_process|net|dgram|http|https|os|process|worker_threads|timers)$',
  message: 'policy/ is pure: no I/O, no clock.',
};
const STATE_TYPES = {
  regex: '^(\\.\\./)+loader/',
  allowTypeImports: true,
  message: 'src/state imports types from loader/, nothing that runs.',
};

/** @param {...object} patterns */
const imports = (...patterns) => ({
  '@typescript-eslint/no-restricted-imports': /** @type {const} */ (['error', { patterns }]),
});

/**
 * Reports `new X()` and `X.open()` where X comes from another part (a relative import that leaves the
 * folder): parts get what they need passed in. Errors are values and may be constructed anywhere.
 *
 * @type {import('eslint').Rule.RuleModule}
 */
const construction = {
  meta: {
    type: 'problem',
    schema: [],
    messages: { construct: '{{name}} is constructed in src/main.ts or src/engine-parts.ts and passed in.' },
  },
  create(context) {
    /** @type {Set<string>} */
    const foreign = new Set();
    /** @param {import('estree').Node} node @param {import('estree').Node} callee */
    const report = (node, callee) => {
      if (callee.type === 'Identifier' && foreign.has(callee.name) && !callee.name.endsWith('Error')) {
        context.report({ node, messageId: 'construct', data: { name: callee.name } });
      }
    };
    return {
      ImportDeclaration(node) {
        if (!String(node.source.value).startsWith('../')) return;
        for (const specifier of node.specifiers) {
          if (/^[A-Z][A-Za-z0-9]*[a-z]/.test(specifier.local.name)) foreign.add(specifier.local.name);
        }
      },
      NewExpression(node) {
        report(node, node.callee);
      },
      CallExpression(node) {
        const callee = node.callee;
        if (callee.type !== 'MemberExpression' || callee.property.type !== 'Identifier') return;
        if (/^open/.test(callee.property.name)) report(node, callee.object);
      },
    };
  },
};

export default tseslint.config(
  { ignores: ['dist/', 'build/', 'node_modules/', '**/*.gen.ts', 'shared/'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    plugins: { sluice: { rules: { construction } } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true },
      ],
      '@typescript-eslint/require-await': 'off',
      ...imports(FFI),
    },
  },
  { files: ['loader/**/*.ts'], rules: imports(FFI, NOT_FOR_LOADER) },
  {
    files: ['loader/ffi/**/*.ts'],
    rules: {
      ...imports(NOT_FOR_LOADER),
      '@typescript-eslint/no-explicit-any': 'off',
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-call': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-return': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
    },
  },
  { files: ['policy/**/*.ts'], rules: imports(FFI, LOADER_TYPES, NOT_FOR_POLICY, NO_IO) },
  { files: ['policy/**/*.test.ts'], rules: imports(FFI, LOADER_TYPES, NOT_FOR_POLICY) },
  { files: ['src/state/**/*.ts'], rules: imports(FFI, STATE_TYPES) },
  {
    files: ['src/**/*.ts'],
    // src/dataplane opens what it needs of the kernel: a netlink socket for each namespace, pins, links; src/host
    // has programs and maps of its own;
    // src/probe loads the programs a second time; src/policytest is an agent's maps without the agent.
    ignores: [
      'src/main.ts',
      'src/engine-parts.ts',
      'src/dataplane/**',
      'src/host/**',
      'src/probe/**',
      'src/policytest/**',
      'src/diff/**',
      '**/*.test.ts',
    ],
    rules: { 'sluice/construction': 'error' },
  },
  {
    // Shapes of fetched JSON and of deliberately wrong input are asserted, not proven, in tests.
    files: ['**/*.test.ts', 'test/**/*.ts'],
    rules: {
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
      '@typescript-eslint/no-unsafe-argument': 'off',
    },
  },
);
