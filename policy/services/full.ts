import { SluiceError } from '../errors.js';

/** A map of services has no room; `setting` of the configuration file gives it more. */
export function capacityError(map: string, capacity: number, setting: string): SluiceError {
  return SluiceError.of('SLU3601', { map, capacity, setting });
}
