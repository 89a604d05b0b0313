import { Type, type TSchema } from "@sinclair/typebox";
import { errorStatus, type ErrorCode } from "@squash/sdk/protocol";
import { errorBody } from "./schemas.js";

/** What a route answers, for the OpenAPI document: its success, the errors that are its own, and those of every route. */
export function replies(status: number, schema: TSchema, ...errors: readonly ErrorCode[]): Record<string, TSchema> {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of [...errors, "unauthorized", "internal"] as const) {
    byStatus.set(errorStatus[code], [...(byStatus.get(errorStatus[code]) ?? []), code]);
  }
  const answers: Record<string, TSchema> = { [String(status)]: schema };
  for (const [code, names] of byStatus)
    answers[String(code)] = Type.Ref(errorBody.$id ?? "", { description: names.join(", ") });
  return answers;
}
