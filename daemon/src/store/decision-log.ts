import type { NetworkDecision } from "@squash/sdk/protocol";
import { AuditLog, type AuditLogOptions } from "./audit-log.js";

export type DecisionLogOptions = Omit<AuditLogOptions, "name">;

/** What was decided about everything that sandboxes wanted to reach. */
export class DecisionLog {
  readonly #log: AuditLog<NetworkDecision>;

  constructor(folder: string, options: Partial<DecisionLogOptions> & Pick<DecisionLogOptions, "report">) {
    this.#log = new AuditLog(folder, { ...options, name: "egress.jsonl" });
  }

  append(decision: NetworkDecision): void {
    this.#log.append(decision);
  }

  /** Writes what waits. */
  flush(): Promise<void> {
    return this.#log.flush();
  }

  /** The newest decisions on a sandbox, oldest first. */
  read(sandbox: string, limit: number): Promise<NetworkDecision[]> {
    return this.#log.read((decision) => decision.sandbox === sandbox, limit);
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}
