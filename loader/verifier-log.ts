/** What a verifier log says about the rejection, for one line to people. */
export interface VerifierSummary {
  /** The verifier's last words, such as `R1 invalid mem access 'scalar'`. */
  readonly reason: string;
  /** Index of the last instruction that was looked at. */
  readonly instruction?: number;
  /** Last line of C that was shown, without its position. */
  readonly source?: string;
  /** `file:line` of it, where the kernel gives it (6.11 and newer). */
  readonly position?: string;
}

const NOISE =
  /^(processed \d+ insns|verification time|stack depth|insns processed|peak_states|func#\d+|-- |caller:|callee:|from \d+ to \d+|mark_precise|last_idx|\d+: safe$|arg#\d+ reference type)/;
const STATE = /^(R\d+(_\w+)?=|frame\d+: R|; R\d|parent )/;

/** Reads the end of a verifier log (kernel: kernel/bpf/verifier.c, log level 1). */
export function summarizeVerifierLog(log: string): VerifierSummary {
  const lines = log
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  let reason: string | undefined;
  let instruction: number | undefined;
  let source: string | undefined;
  for (let i = lines.length - 1; i >= 0; i--) {
    const line = lines[i] as string;
    const code = /^(\d+): (\([0-9a-f]{2}\)|R\d|frame\d)/.exec(line);
    if (code !== null) {
      if (code[2]?.startsWith('(')) instruction ??= Number(code[1]);
      continue;
    }
    if (line.startsWith('; ') && !STATE.test(line)) {
      source = line.slice(2);
      break;
    }
    if (NOISE.test(line) || STATE.test(line)) continue;
    if (instruction === undefined) reason ??= line;
  }
  const at = source === undefined ? null : /^(.*?)\s*@ (\S+:\d+)$/.exec(source);
  const text = at === null ? source : at[1];
  return {
    reason: reason ?? lines.at(-1) ?? 'the kernel gave no reason',
    ...(instruction === undefined ? {} : { instruction }),
    ...(text === undefined ? {} : { source: text }),
    ...(at === null ? {} : { position: at[2] as string }),
  };
}

/** One line: reason, instruction and source. */
export function verifierSummaryText(log: string): string {
  const { reason, instruction, source, position } = summarizeVerifierLog(log);
  const where = instruction === undefined ? '' : `, instruction ${instruction}`;
  const line =
    source === undefined ? '' : `, at \`${source}\`${position === undefined ? '' : ` (${position})`}`;
  return `rejected by the verifier: ${reason}${where}${line}`;
}
