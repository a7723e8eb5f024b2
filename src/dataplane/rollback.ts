/** A thrown value as an Error. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** Steps that take a change back, run in reverse order. Every step is tried, whatever the others do. */
export class Rollback {
  readonly #steps: (() => void)[] = [];

  push(step: () => void): void {
    this.#steps.push(step);
  }

  /** Returns the errors of the steps that failed. */
  run(): unknown[] {
    const errors: unknown[] = [];
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        step();
      } catch (error) {
        errors.push(error);
      }
    }
    return errors;
  }
}

/** For changes that nobody takes back: keeps nothing. */
export class NoRollback extends Rollback {
  override push(): void {}
}
