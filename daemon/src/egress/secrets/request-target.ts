import { form, path as pathForm } from "./forms.js";
import type { Grants } from "./grants.js";

/** Path and query with the values put in, percent-encoded as their place needs. Throws `SecretRefusal`. */
export function putIntoTarget(target: string, grants: Grants): string {
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  const query = mark === -1 ? "" : target.slice(mark);
  return grants.putInto(path, "query", pathForm) + grants.putInto(query, "query", form);
}
