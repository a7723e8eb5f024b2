import { DEFAULT_CONFIG_FILE } from '../config.js';

/** The sections below a command's options in its --help. */
export interface HelpSections {
  readonly examples: readonly (readonly [command: string, does: string])[];
  /** What status 0 means; default: done. */
  readonly ok?: string;
  /** Exit status beyond the usual 0, 1 and 2. */
  readonly exit?: readonly (readonly [status: number, meaning: string])[];
  readonly failed: string;
  /** What status 2 means beside a wrong command line. */
  readonly wrong?: string;
  readonly files?: readonly (readonly [path: string, what: string])[];
  readonly notes?: readonly string[];
}

export const CONFIG_FILES: NonNullable<HelpSections['files']> = [
  [DEFAULT_CONFIG_FILE, 'configuration, read if it exists and --config is not given'],
];
export const SOCKET_FILES: NonNullable<HelpSections['files']> = [
  ['/run/sluice/sluice.sock', "the agent's socket, if nothing else is set"],
];

/** Breaks a note into lines, as commander does with descriptions. */
export function wrap(text: string, width = 96): string {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join('\n');
}

/** Renders the sections in the layout of commander's own help. */
export function sections(help: HelpSections): string {
  const lines: string[] = [];
  for (const note of help.notes ?? []) lines.push('', note);
  lines.push('', 'Examples:');
  const width = Math.max(...help.examples.map(([command]) => command.length));
  for (const [command, does] of help.examples) lines.push(`  ${command.padEnd(width)}  # ${does}`);
  const { ok = 'done', failed, wrong } = help;
  const usage = `wrong command line${wrong === undefined ? '' : `, or ${wrong}`}`;
  lines.push('', 'Exit status:', `  0   ${ok}`, `  1   ${failed}`, `  2   ${usage}`);
  for (const [status, meaning] of help.exit ?? []) lines.push(`  ${String(status).padEnd(3)} ${meaning}`);
  if (help.files !== undefined) {
    lines.push('', 'Files:');
    const column = Math.max(...help.files.map(([path]) => path.length));
    for (const [path, what] of help.files) lines.push(`  ${path.padEnd(column)}  ${what}`);
  }
  return lines.join('\n');
}
