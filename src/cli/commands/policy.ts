import { existsSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { Command, Option } from 'commander';
import { compareErrors, SluiceError } from '../../../policy/errors.js';
import type { PolicyTest } from '../../../policy/model/policy-test.js';
import type { TestResource } from '../../../policy/model/resources.js';
import { toErrorLine } from '../../http/api.js';
import type { PlannedTest } from '../../policytest/plan.js';
import type { CliContext } from '../context.js';
import { sections } from '../help.js';
import { readInputs, STDIN } from '../inputs.js';
import { EXIT, type ExitCode, type Io, print, printErrors, RefusedError } from '../io.js';
import { formatTable } from '../output.js';
import { auditCommand } from './audit.js';
import { diffCommand } from './diff.js';
import { suggestCommand } from './suggest.js';

/** `sluice policy`. */
export function policyCommand(context: CliContext): Command {
  return new Command('policy')
    .summary('test policies, foresee a change, audit, get policies suggested')
    .description(
      'Commands around policies. "test" needs no agent; the others ask the agent, which has seen the flows.',
    )
    .addCommand(testCommand(context))
    .addCommand(diffCommand(context))
    .addCommand(auditCommand(context))
    .addCommand(suggestCommand(context));
}

interface TestOptions {
  readonly output: 'table' | 'jsonl';
  readonly failed?: true;
}

/** `sluice policy test`. */
function testCommand(context: CliContext): Command {
  return new Command('test')
    .summary('run policy tests')
    .description(
      'Runs the probes of PolicyTest documents. Definitions are compiled with the compiler of the agent into ' +
        'maps of their own, and the BPF programs that forward packets decide every probe. Needs root and no ' +
        'agent; nothing is attached, and the networks of the machine do not matter.',
    )
    .argument(
      '<file...>',
      'files with PolicyTest documents, folders with such files, or - for standard input',
    )
    .addOption(
      new Option('-o, --output <format>', 'format; jsonl is one object a line for every probe, in order')
        .choices(['table', 'jsonl'])
        .default('table'),
    )
    .option('--failed', 'show only probes that differ')
    .addHelpText(
      'after',
      sections({
        notes: [
          'A PolicyTest names definitions and says what is expected of new connections:\n' +
            '  apiVersion: sluice.dev/v1alpha1\n' +
            '  kind: PolicyTest\n' +
            '  metadata: {name: shop}\n' +
            '  spec:\n' +
            '    files: [../policies]        # files or folders, relative to this file\n' +
            '    resources: []               # or inline: Namespace, Node, Pod, Container, Network, policies\n' +
            '    probes:\n' +
            '    - {from: x/a, to: y/b, port: 80, protocol: TCP, expect: allow}\n' +
            '    - {from: x/a, to: 203.0.113.7, protocol: ICMP, expect: deny}\n' +
            '    steps:                      # changes in order, each with its probes\n' +
            '    - delete: [{kind: Pod, namespace: y, name: b}]\n' +
            '      apply: []                 # created, or replaced by kind, namespace and name\n' +
            '      probes: []',
          '"from" and "to" are namespace/name of a Pod or Container, or an address. "protocol" is TCP (the default),\n' +
            'UDP, SCTP or ICMP, which needs no port. "family" is ipv4 or ipv6; without it IPv4 is taken if both\n' +
            'ends have it. Pods without nodeName, and Containers, share a node that has no address of its own.',
        ],
        examples: [
          ['sluice policy test shop-test.yaml', 'a table of all probes'],
          ['sluice policy test --failed tests/', 'what differs in the tests of a folder'],
          ['sluice policy test -o jsonl shop-test.yaml', 'for scripts'],
        ],
        failed: 'a probe differs from what is expected',
        wrong: 'a file is wrong, or the tests cannot be run',
      }),
    )
    .action(
      context.action<TestOptions>(async (options, files) => {
        try {
          return await runTests(context.io, files, options);
        } catch (error) {
          if (error instanceof RefusedError) printErrors(context.io.stderr, error.errors);
          else if (error instanceof SluiceError) printErrors(context.io.stderr, [toErrorLine(error)]);
          else throw error;
          return EXIT.usage;
        }
      }),
    );
}

async function runTests(io: Io, files: readonly string[], options: TestOptions): Promise<ExitCode> {
  const { MAX_TEST_BYTES } = await import('../../../policy/schema/policy-test.js');
  const plans = await loadPlans(await readInputs(files, io, MAX_TEST_BYTES), io);
  const [{ PolicyTestRunner }, { checkRights }, report] = await Promise.all([
    import('../../policytest/run.js'),
    import('../../preflight.js'),
    import('../../policytest/report.js'),
  ]);
  checkRights();
  const runner = PolicyTestRunner.open(Math.max(...plans.map(({ endpoints }) => endpoints)));
  let probes = 0;
  let differ = 0;
  try {
    for (const plan of plans) {
      const lines: string[] = [];
      const rows: string[][] = [];
      runner.run(plan, (result) => {
        const same = result.verdict === result.probe.expect;
        probes++;
        if (!same) differ++;
        if (same && options.failed === true) return;
        if (options.output === 'jsonl') lines.push(JSON.stringify(report.resultLine(result)));
        else rows.push(report.resultCells(result));
      });
      if (rows.length > 0) {
        const { file, name } = plan.test;
        lines.push(name === '' ? file : `${file}: ${name}`, ...formatTable(report.COLUMNS, rows), '');
      }
      print(io.stdout, ...lines);
    }
  } finally {
    runner.close();
  }
  if (options.output === 'table') print(io.stdout, `${report.summary(probes, differ)}.`);
  return differ === 0 ? EXIT.ok : EXIT.failed;
}

/** All tests of all files. Throws RefusedError with every error. */
async function loadPlans(
  sources: readonly { readonly file: string; readonly text: string }[],
  io: Io,
): Promise<readonly PlannedTest[]> {
  const [{ parsePolicyTests }, { planTest }] = await Promise.all([
    import('../../../policy/schema/policy-test.js'),
    import('../../policytest/plan.js'),
  ]);
  const plans: PlannedTest[] = [];
  const errors: SluiceError[] = [];
  const definitions = new Definitions(io);
  for (const source of sources) {
    const file = parsePolicyTests(source);
    errors.push(...file.errors);
    for (const test of file.tests) {
      const found = await definitions.of(test);
      errors.push(...found.errors);
      if (found.errors.length > 0) continue;
      const planned = planTest(test, found.resources);
      errors.push(...planned.errors);
      if (planned.plan !== undefined) plans.push(planned.plan);
    }
  }
  if (errors.length > 0) throw new RefusedError(unique(errors.sort(compareErrors)));
  return plans;
}

/** One mistake may be found by several tests or in several steps. */
function unique(errors: readonly SluiceError[]): SluiceError[] {
  return [...new Map(errors.map((error) => [error.toLine(), error])).values()];
}

type Found = { readonly resources: readonly TestResource[]; readonly errors: readonly SluiceError[] };

/** The definitions that tests name in `spec.files`; each file is read once. */
class Definitions {
  readonly #io: Io;
  readonly #known = new Map<string, Found>();

  constructor(io: Io) {
    this.#io = io;
  }

  async of(test: PolicyTest): Promise<Found> {
    const found: Found[] = [];
    for (const [i, name] of test.files.entries()) {
      const path = isAbsolute(name) || test.file === STDIN ? name : join(dirname(test.file), name);
      if (!existsSync(path)) {
        const error = SluiceError.of('SLU1610', { path, reason: 'it does not exist' }, test.filesPlace(i));
        found.push({ resources: [], errors: [error] });
        continue;
      }
      const known = this.#known.get(path) ?? (await this.#read(path));
      this.#known.set(path, known);
      found.push(known);
    }
    return {
      resources: found.flatMap(({ resources }) => resources),
      errors: found.flatMap(({ errors }) => errors),
    };
  }

  async #read(path: string): Promise<Found> {
    const { parseTestSources } = await import('../../../policy/schema/parse.js');
    return parseTestSources(await readInputs([path], this.#io));
  }
}
