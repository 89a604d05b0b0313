import { Type, type TNull, type TSchema, type TString, type TUnion } from "@sinclair/typebox";

/** `true` only for identical types: also catches a field that one side lacks, which assignability does not. */
export type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : never;

export function nullable<T extends TSchema>(schema: T): TUnion<[T, TNull]> {
  return Type.Union([schema, Type.Null()]);
}

export const closed = { additionalProperties: false } as const;

export function time(description: string): TString {
  return Type.String({ format: "date-time", description });
}
