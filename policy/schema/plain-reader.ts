/**
 * Services and EndpointSlices in JSON, in one pass from their text to the model: definitions of these kinds come by the ten
 * thousand, and a tree of objects in between takes several times as long. Only what is certainly what the schema accepts,
 * with the same meaning (plain.ts says that of documents); if in doubt nothing is read.
 */
import type { Origin } from '../model/resources.js';
import type { EndpointSliceResource, ServiceResource } from '../model/service.js';
import { Cursor, NOT_PLAIN } from './cursor.js';
import { DefinitionText } from './kept-text.js';
import { ServiceReader } from './plain-service.js';
import { SliceReader } from './plain-slice.js';
import { lowerPlainService } from './service.js';

/** Nobody tries any more when so many more of a kind could not be read than could. */
const TRIALS = 16;

/** An object as it was read. */
export abstract class PlainItem {
  abstract resource(origin: Origin): ServiceResource | EndpointSliceResource;
}

class PlainSlice extends PlainItem {
  readonly #parts: ReturnType<SliceReader['read']>;
  readonly #text: string;

  constructor(parts: ReturnType<SliceReader['read']>, text: string) {
    super();
    this.#parts = parts;
    this.#text = text;
  }

  override resource(origin: Origin): EndpointSliceResource {
    const { name, namespace, service, family = 4, ports, endpoints } = this.#parts;
    const source = Object.freeze(new DefinitionText(this.#text));
    return Object.freeze(
      service === undefined
        ? { kind: 'EndpointSlice', name, namespace, origin, source, family, ports, endpoints }
        : { kind: 'EndpointSlice', name, namespace, origin, source, service, family, ports, endpoints },
    );
  }
}

class PlainService extends PlainItem {
  readonly #parts: ReturnType<ServiceReader['read']>;
  readonly #text: string;

  constructor(parts: ReturnType<ServiceReader['read']>, text: string) {
    super();
    this.#parts = parts;
    this.#text = text;
  }

  override resource(origin: Origin): ServiceResource {
    return lowerPlainService(this.#parts, origin, Object.freeze(new DefinitionText(this.#text)));
  }
}

/** Reads objects in one text. */
export class PlainReader {
  readonly #cursor: Cursor;
  readonly #services: ServiceReader;
  readonly #slices: SliceReader;
  #serviceTrials = TRIALS;
  #sliceTrials = TRIALS;

  /** undefined: there is none for this text. */
  static of(text: string): PlainReader | undefined {
    const cursor = Cursor.of(text);
    return cursor === undefined ? undefined : new PlainReader(cursor);
  }

  private constructor(cursor: Cursor) {
    this.#cursor = cursor;
    this.#services = new ServiceReader(cursor);
    this.#slices = new SliceReader(cursor);
  }

  /** The object whose mapping begins at an offset, and the offset after it. undefined: it is not plain. */
  read(start: number): { readonly item: PlainItem; readonly end: number } | undefined {
    const isService = this.#isService(start);
    if (isService === undefined || (isService ? this.#serviceTrials : this.#sliceTrials) === 0)
      return undefined;
    const cursor = this.#cursor;
    cursor.at = start;
    try {
      const parts = isService ? this.#services.read() : this.#slices.read();
      const text = cursor.text.slice(start, cursor.at);
      const item = 'endpoints' in parts ? new PlainSlice(parts, text) : new PlainService(parts, text);
      if (isService) this.#serviceTrials++;
      else this.#sliceTrials++;
      return { item, end: cursor.at };
    } catch (error) {
      if (error !== NOT_PLAIN) throw error;
      if (isService) this.#serviceTrials--;
      else this.#sliceTrials--;
      return undefined;
    }
  }

  /** By the first fields; undefined: it is neither. */
  #isService(start: number): boolean | undefined {
    FIRST.lastIndex = start;
    const first = FIRST.exec(this.#cursor.text);
    return first === null ? undefined : first[1] === undefined;
  }
}

const FIRST =
  /\{\s*"(?:(addressType"|apiVersion"\s*:\s*"discovery\.k8s\.io\/v1")|apiVersion"\s*:\s*"v1"\s*,\s*"kind"\s*:\s*"Service")/y;
