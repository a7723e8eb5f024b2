// Loads every compiled object that is shipped and prints what the verifier of this kernel went through:
// "verifier PROGRAM INSTRUCTIONS" a line. Runs in the guest, from the build in dist/.
import { readdirSync } from 'node:fs';
import { programInfo } from '../../dist/loader/info.js';
import { BpfObject } from '../../dist/loader/object.js';
import { objectPath } from '../../dist/loader/paths.js';

const names = readdirSync('dist/bpf').filter((name) => name.endsWith('.bpf.o') && !name.startsWith('bench_'));
for (const name of names) {
  const object = BpfObject.open(objectPath(name));
  try {
    object.load();
    for (const program of object.programNames) {
      console.log(`verifier ${program} ${programInfo(object.program(program).fd).verifiedInstructions}`);
    }
  } catch (error) {
    console.log(`${name}: ${error.program ?? ''} ${error.summary ?? error.message}`);
    process.exitCode = 1;
  }
  object.close();
}
