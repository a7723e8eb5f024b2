import { Argument, Command, Option } from 'commander';
import { LISTINGS, type Listing, type ListingName } from '../../engine.js';
import type { CliContext } from '../context.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';
import { FORMATS, type Format, formatTable, printValue } from '../output.js';

/** `sluice get`. */
export function getCommand(context: CliContext): Command {
  return new Command('get')
    .summary(
      'list networks, containers, policies, services, backends, endpoints, identities, flows or leases',
    )
    .description(
      'Lists what the agent knows. Networks, containers, policies and services are what was defined; endpoints, ' +
        'identities, backends, flows and leases are what became of it. -o json and -o yaml print one List whose ' +
        'items, for networks, containers, policies and services, can be applied again.',
    )
    .addArgument(new Argument('<what>', 'the list').choices(LISTINGS))
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .option('--no-headers', 'leave out the line with the names of the columns')
    .addHelpText(
      'after',
      sections({
        examples: [
          ['sluice get endpoints', 'every container interface with its addresses and policy'],
          ['sluice get flows', 'connections in the flow table'],
          ['sluice get backends', 'what is behind each port of each service'],
          ["sluice get containers -o json | jq '.items[].metadata.name'", 'for scripts'],
        ],
        failed: 'the agent cannot be reached or refused',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<{ readonly output: Format; readonly headers: boolean }>(async (options, args) => {
        const what = args[0] as ListingName;
        const listing = await (await context.client(options)).get<Listing>(`/v1/list/${what}`);
        if (options.output !== 'table') {
          await printValue(context.io, options.output, {
            apiVersion: 'v1',
            kind: 'List',
            items: listing.objects,
          });
        } else if (listing.rows.length === 0) print(context.io.stderr, `No ${what}.`);
        else
          print(
            context.io.stdout,
            ...formatTable(listing.columns, listing.rows).slice(options.headers ? 0 : 1),
          );
        return EXIT.ok;
      }),
    );
}
