import type { Decision } from "./egress/decision.js";
import type { ErrorCode } from "@squash/sdk/protocol";

/** One fact about one finished operation; `main` connects these to the log and to the metrics. */
export type DomainEvent =
  | OperationEvent
  | { readonly type: "cell.made"; readonly durationMs: number }
  | { readonly type: "cell.failed"; readonly error: string }
  | { readonly type: "sandbox.died"; readonly sandbox: string; readonly reason: string }
  | {
      readonly type: "sandbox.recovered";
      readonly sandbox: string;
      readonly how: "adopted" | "rebuilt" | "lost" | "failed";
    }
  | { readonly type: "record.damaged"; readonly sandbox: string; readonly error: string }
  | { readonly type: "leftover"; readonly sandbox: string; readonly error: string }
  /** what a full or failing disk did not take, and squashd goes on without */
  | { readonly type: "unwritten"; readonly sandbox: string; readonly what: "log" | "record"; readonly error: string }
  | { readonly type: "swept"; readonly what: string; readonly name: string }
  /** another machine has it, or may have; what was not saved of it is lost here */
  | { readonly type: "sandbox.fenced"; readonly sandbox: string; readonly reason: string }
  | { readonly type: "snapshot.taken"; readonly sandbox: string; readonly label: string }
  /** by whoever, the retention among them */
  | { readonly type: "snapshot.removed"; readonly sandbox: string; readonly labels: readonly string[] }
  | { readonly type: "snapshot.expired"; readonly sandbox: string; readonly labels: readonly string[] }
  | { readonly type: "snapshot.merged"; readonly images: number; readonly bytes: number }
  | { readonly type: "snapshot.upkeep"; readonly error: string }
  | { readonly type: "snapshot.damaged"; readonly error: string }
  | { readonly type: "host.restarted"; readonly reason: string }
  /** the file of secrets, or what belongs to it, is not as it must be; somebody must look */
  | { readonly type: "secrets.problem"; readonly problem: string }
  | { readonly type: "secret.used"; readonly secret: string; readonly outcome: "sent" | "refused" }
  | { readonly type: "network.decided"; readonly kind: Decision["kind"]; readonly allowed: boolean };

/** The canonical event of an operation, emitted once at its end. */
export interface OperationEvent {
  readonly type: "sandbox.create" | "sandbox.exec" | "sandbox.destroy";
  readonly sandbox: string;
  readonly outcome: "ok" | ErrorCode;
  readonly durationMs: number;
  /** milliseconds of each stage, in order */
  readonly stages: Readonly<Record<string, number>>;
  /** whether the cell came from the pool; only for `sandbox.create` */
  readonly pooled?: boolean;
}

/** Where the domain reports facts. Must not throw. */
export type Emit = (event: DomainEvent) => void;
