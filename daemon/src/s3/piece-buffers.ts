import { maxPieceBytes } from "./pieces.js";

/**
 * Buffers of the size of the largest piece that are used again. To allocate one for each piece costs more processor than to send it, as the
 * engine collects all of its garbage for the sake of every few of them.
 */
export class PieceBuffers {
  readonly #free: Buffer[] = [];

  /** Runs `work` with a buffer of so many bytes, whose content is undefined. */
  async use<T>(size: number, work: (buffer: Buffer) => Promise<T>): Promise<T> {
    const whole = this.#free.pop() ?? Buffer.allocUnsafeSlow(Math.max(size, maxPieceBytes));
    const done = await work(whole.subarray(0, size));
    // after a failure a connection may still read it: it is left to the garbage then
    this.#free.push(whole);
    return done;
  }
}
