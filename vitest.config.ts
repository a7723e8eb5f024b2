import { defineConfig } from 'vitest/config';

// FFI lives on the main thread of a process (a worker thread that loaded it crashes at its end): forks only.
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 30_000,
    exclude: ['**/node_modules/**', 'build/**', 'dist/**'],
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
        // Needs root and a kernel; each file has its own namespaces, folders and pins.
        extends: true,
        test: {
          name: 'kernel',
          include: ['test/**/*.test.ts'],
          // In QEMU without KVM (make test-kernels) everything takes twenty times as long.
          testTimeout: process.env.KERNEL_TESTS === undefined ? 120_000 : 1_800_000,
          hookTimeout: process.env.KERNEL_TESTS === undefined ? 120_000 : 1_800_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
