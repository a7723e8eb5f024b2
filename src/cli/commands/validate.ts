import { Command } from 'commander';
import { compareErrors } from '../../../policy/errors.js';
import { type CliContext, collect } from '../context.js';
import { sections } from '../help.js';
import { readInputs } from '../inputs.js';
import { EXIT, print, RefusedError } from '../io.js';

/** `sluice validate`. */
export function validateCommand(context: CliContext): Command {
  return new Command('validate')
    .summary('check definitions without an agent')
    .description(
      'Checks definitions as a whole, as if nothing else were defined. Needs no agent and no root. ' +
        'What only the running machine can tell (such as whether a network namespace exists) is not checked.',
    )
    .option(
      '-f, --file <path>',
      'file, folder (its *.yaml, *.yml and *.json) or - for standard input; repeatable',
      collect,
    )
    .option('-q, --quiet', 'print nothing when everything is valid')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice validate -f /etc/sluice/definitions', 'a folder'],
          ['git show HEAD:shop.yaml | sluice validate -f -', 'standard input'],
        ],
        failed: 'not valid: every error is printed, one a line, with file and line',
      }),
    )
    .action(
      context.action<{ readonly file?: readonly string[]; readonly quiet?: true }>(async (options) => {
        const sources = await readInputs(options.file, context.io);
        const [{ parseSources }, { checkResources }] = await Promise.all([
          import('../../../policy/schema/parse.js'),
          import('../../../policy/schema/check.js'),
        ]);
        const { resources, errors } = parseSources(sources);
        const all = [...errors, ...checkResources(resources)].sort(compareErrors);
        if (all.length > 0) throw new RefusedError(all);
        if (options.quiet === true) return EXIT.ok;
        const documents =
          resources.length === 1 ? '1 document is valid' : `${resources.length} documents are valid`;
        print(context.io.stdout, `${documents}.`);
        return EXIT.ok;
      }),
    );
}
