import { Argument, Command, InvalidArgumentError, Option } from 'commander';
import type { Explanation } from '../../engine.js';
import { PROBE_PROTOCOLS, type ProbeProtocol } from '../../probe/packet.js';
import type { CliContext } from '../context.js';
import { explanationLines } from '../explanation.js';
import { SOCKET_FILES, sections } from '../help.js';
import { EXIT, print } from '../io.js';
import { FORMATS, type Format, printValue } from '../output.js';

interface ExplainOptions {
  readonly output: Format;
  readonly family?: 'ipv4' | 'ipv6';
}

interface Service {
  readonly protocol: ProbeProtocol;
  readonly port: number;
}

/** `sluice explain`. */
export function explainCommand(context: CliContext): Command {
  return new Command('explain')
    .summary('whether a connection is allowed, and by which rule')
    .description(
      'Says what would happen to a new connection: the verdict, for both sides every policy that applies ' +
        'with the rule that decided and what each other rule is missing, and the address translation. The ' +
        'BPF programs that are in force decide, in a dry run on the maps in force: no packet is sent, no ' +
        'counter and no connection changes.',
    )
    .addArgument(new Argument('<from>', 'who opens the connection (see below)'))
    .addArgument(new Argument('<to>', 'who is to get it'))
    .addArgument(
      new Argument('[port/protocol]', 'such as 80/TCP, 53/udp, 80 (TCP), or icmp; default icmp')
        .argParser(parseService)
        .default({ protocol: 'ICMP', port: 0 } satisfies Service, 'icmp'),
    )
    .addOption(
      new Option('--family <family>', 'default: that of an address given, else IPv4 if both have it').choices(
        ['ipv4', 'ipv6'],
      ),
    )
    .addOption(new Option('-o, --output <format>', 'format').choices(FORMATS).default('table'))
    .addHelpText(
      'after',
      sections({
        notes: [
          'FROM and TO are:\n' +
            '  NAMESPACE/NAME  a container; NAME alone is in namespace default; NAME@NETWORK names one of its networks\n' +
            '  10.1.2.3, fd00::7  an address: of a container, of this host, or of anybody outside\n' +
            '  host            this host\n' +
            '  world           an address outside that no policy mentions',
          'Soon after its start the agent loads a second copy of its programs for this; a question that comes ' +
            'before takes some 50 ms longer.',
        ],
        examples: [
          ['sluice explain shop/web shop/db 5432/TCP', 'may web connect to db?'],
          ['sluice explain world host 8080', 'who gets the published port?'],
          ['sluice explain shop/web 203.0.113.7 53/udp -o json', 'for scripts'],
        ],
        ok: 'the connection is allowed',
        failed: 'the connection is denied',
        wrong: 'the question has no answer (no such container), or the agent cannot be reached',
        files: SOCKET_FILES,
      }),
    )
    .action(
      context.action<ExplainOptions>(
        async (options, args, processed) => {
          const [from = '', to = ''] = args;
          const { protocol, port } = processed[2] as Service;
          const query = new URLSearchParams({ from, to, protocol, port: String(port) });
          if (options.family !== undefined) query.set('family', options.family === 'ipv4' ? '4' : '6');
          const client = await context.client(options);
          const explanation = await client.get<Explanation>(`/v1/explain?${query.toString()}`);
          if (options.output === 'table') print(context.io.stdout, ...explanationLines(explanation));
          else await printValue(context.io, options.output, explanation);
          return explanation.verdict === 'allow' ? EXIT.ok : EXIT.failed;
        },
        { onError: EXIT.usage },
      ),
    );
}

/** `80/TCP`, `80`, `icmp`. */
function parseService(text: string): Service {
  const [first = '', second] = text.split('/', 2);
  if (second === undefined && first.toUpperCase() === 'ICMP') return { protocol: 'ICMP', port: 0 };
  const protocol = PROBE_PROTOCOLS.find((name) => name === (second ?? 'TCP').toUpperCase());
  const port = Number(first);
  if (protocol === undefined || protocol === 'ICMP' || !/^\d{1,5}$/.test(first) || port < 1 || port > 65_535)
    throw new InvalidArgumentError('It must be PORT/PROTOCOL with TCP, UDP or SCTP, or icmp.');
  return { protocol, port };
}
