import { defineConfig } from 'vitest/config';

/** Kernel tests that leave nothing in the process that runs them: files share one, which saves a third of the time. */
const PROGRAMS = ['test/{bpf,deploy,loader,policy,policytest,probe}/**/*.test.ts'];

// In QEMU without KVM (make test-kernels) everything takes twenty times as long.
const PATIENCE = process.env.KERNEL_TESTS === undefined ? 120_000 : 1_800_000;
/** They need root and a kernel; each file has its own namespaces, folders and pins. */
const KERNEL = { testTimeout: PATIENCE, hookTimeout: PATIENCE };

const EXCLUDE = ['**/node_modules/**', 'build/**', 'dist/**'];

// FFI lives on the main thread of a process (a worker thread that loaded it crashes at its end): forks only.
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 30_000,
    exclude: EXCLUDE,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['{loader,policy,src,bench,scripts}/**/*.test.ts'],
          // Many short files: a process for each would take longer than the tests.
          isolate: false,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { ...KERNEL, name: 'programs', include: PROGRAMS, isolate: false, sequence: { groupOrder: 1 } },
      },
      {
        extends: true,
        test: {
          ...KERNEL,
          name: 'kernel',
          include: ['test/**/*.test.ts'],
          exclude: [...EXCLUDE, ...PROGRAMS],
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
