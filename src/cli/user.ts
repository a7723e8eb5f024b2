import { userInfo } from 'node:os';

/** Who runs the command, for the history: the one behind sudo if there is one. */
export function currentUser(env: Readonly<Record<string, string | undefined>>): string {
  const sudo = env.SUDO_USER;
  if (sudo !== undefined && sudo !== '') return sudo;
  try {
    return userInfo().username;
  } catch {
    return `uid ${process.getuid?.() ?? 'unknown'}`;
  }
}
