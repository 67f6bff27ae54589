/** The machine removed last, which can be put back for a while. */

import { node } from "./node";

/** How long Undo is offered; the node would undo it for longer. */
const OFFERED_MS = 30_000;

type Machine = { id: string; name: string };

class Removed {
  machine = $state<Machine>();

  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Removes a machine. It is cut off at once. */
  async remove({ id, name }: Machine): Promise<void> {
    await node.remove(id);
    this.machine = { id, name };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.dismiss(), OFFERED_MS);
  }

  async undo(): Promise<void> {
    const { machine } = this;
    this.dismiss();
    if (machine) await node.restore(machine.id);
  }

  dismiss(): void {
    clearTimeout(this.#timer);
    this.machine = undefined;
  }
}

export const removed = new Removed();
