import { Argument, Command, Option } from 'commander';
import { LISTINGS, type Listing, type ListingName } from '../../engine.js';
import type { CliContext } from '../context.js';
import { parseDuration } from '../durations.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print, UsageError } from '../io.js';
import { FORMATS, type Format, formatTable, printValue } from '../output.js';
import { checkSelection, select } from '../selection.js';

interface GetOptions extends FlowOptions {
  readonly output: Format;
  readonly headers: boolean;
  readonly namespace?: string;
}

interface FlowOptions {
  readonly since?: number;
  readonly denied?: true;
  readonly from?: string;
  readonly to?: string;
}

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
    .addArgument(
      new Argument(
        '[name]',
        'only of this name: NAME in any namespace, or NAMESPACE/NAME; of backends the service',
      ),
    )
    .option('-n, --namespace <name>', 'only of this namespace')
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .option('--no-headers', 'leave out the line with the names of the columns')
    .addOption(
      new Option('--since <time>', 'flows: of the flow log, seen in this time (90s, 15m, 2h, 7d)').argParser(
        parseDuration,
      ),
    )
    .option('--denied', 'flows: of the flow log, denied, or let pass by audit')
    .option('--from <who>', 'flows: of the flow log, opened by this end')
    .option('--to <who>', 'flows: of the flow log, towards this end')
    .addHelpText(
      'after',
      sections({
        notes: [
          '"get flows" alone shows the connections in the flow table. With --since, --denied, --from or --to it shows\n' +
            'the flow log: what was opened and what was denied, added up by ends, port, verdict and rule, with exact\n' +
            'counts; PACKETS and BYTES are those of the opener and of the answers. <who> is NAMESPACE/NAME, NAME, an\n' +
            'address, a CIDR, "host" or "world".',
        ],
        examples: [
          ['sluice get flows --denied --since 15m', 'what was denied lately, and by which rule'],
          ['sluice get flows --from shop/web -o json', 'whom a container talked to'],
          ['sluice get endpoints', 'every container interface with its addresses and policy'],
          ['sluice get flows', 'connections in the flow table'],
          ['sluice get services -n shop', 'the services of a namespace'],
          ['sluice get services shop/web', 'one service'],
          ['sluice get backends', 'what is behind each port of each service'],
          ["sluice get containers -o json | jq '.items[].metadata.name'", 'for scripts'],
        ],
        failed: 'the agent cannot be reached or refused',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<GetOptions>(async (options, args) => {
        const what = args[0] as ListingName;
        const name = args[1];
        const { namespace } = options;
        const selection = {
          ...(name === undefined ? {} : { name }),
          ...(namespace === undefined ? {} : { namespace }),
        };
        checkSelection(what, selection);
        const query = flowQuery(options);
        if (query !== '' && what !== 'flows')
          throw new UsageError('--since, --denied, --from and --to are for flows');
        const path = query === '' ? `/v1/list/${what}` : `/v1/flows?${query}`;
        const listing = select(await (await context.client(options)).get<Listing>(path), what, selection);
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

/** The query of /v1/flows; empty: none of its options is given. */
function flowQuery({ since, denied, from, to }: FlowOptions): string {
  const query = new URLSearchParams();
  if (since !== undefined) query.set('since', String(since));
  if (denied === true) query.set('denied', '1');
  if (from !== undefined) query.set('from', from);
  if (to !== undefined) query.set('to', to);
  return query.toString();
}
