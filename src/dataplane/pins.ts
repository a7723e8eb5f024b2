import { existsSync, mkdirSync, readdirSync, rmSync, statfsSync, unlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SluiceError } from '../../policy/errors.js';

/** f_type of a BPF file system (linux/magic.h). */
const BPF_FS_MAGIC = 0xcafe4a11;

export type Hook = 'ingress' | 'egress' | 'xdp_native' | 'xdp_generic';

/** Every hook that a device has. */
export const HOOKS: readonly Hook[] = ['ingress', 'egress', 'xdp_native', 'xdp_generic'];

/** Where everything is pinned: `maps/`, `progs/` and `links/` below the configured path. */
export class Pins {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** Creates the folders. Throws SLU3304 if the path is not on a BPF file system. */
  prepare(): void {
    let parent = this.root;
    while (!existsSync(parent)) parent = dirname(parent);
    if (statfsSync(parent).type !== BPF_FS_MAGIC) throw SluiceError.of('SLU3304', { path: parent });
    for (const folder of ['maps', 'progs', 'links'])
      mkdirSync(join(this.root, folder), { recursive: true, mode: 0o700 });
  }

  map(name: string): string {
    return join(this.root, 'maps', name);
  }

  program(name: string): string {
    return join(this.root, 'progs', name);
  }

  /** Link of a device's hook. Indexes of macvlan devices never meet those of the host: one range serves both. */
  link(ifindex: number, hook: Hook): string {
    return join(this.root, 'links', `${ifindex}-${hook}`);
  }

  cgroupLink(program: string): string {
    return join(this.root, 'links', `cgroup-${program}`);
  }

  list(folder: 'maps' | 'progs' | 'links'): string[] {
    const path = join(this.root, folder);
    return existsSync(path) ? readdirSync(path) : [];
  }

  /** Indexes of the devices that have pinned links. */
  linkedDevices(): Set<number> {
    const indexes = new Set<number>();
    for (const name of this.list('links')) {
      const match = /^(\d+)-(?:ingress|egress|xdp_native|xdp_generic)$/.exec(name);
      if (match?.[1] !== undefined) indexes.add(Number(match[1]));
    }
    return indexes;
  }

  /** Removes a pin. The object goes when nothing else holds it. */
  remove(path: string): void {
    try {
      unlinkSync(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  /** Removes all pins and the folders. Links first: while they are there, packets need the maps. */
  removeAll(): void {
    for (const folder of ['links', 'progs', 'maps'] as const) {
      for (const name of this.list(folder)) this.remove(join(this.root, folder, name));
      rmSync(join(this.root, folder), { recursive: true, force: true });
    }
    rmSync(this.root, { recursive: true, force: true });
  }
}
