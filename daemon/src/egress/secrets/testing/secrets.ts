import type { Secret } from "../../../core/secrets/secret.js";
import type { RequestHead } from "../substitution.js";

/** A secret for api.example.com, at all places. */
export function secretOf(given: Partial<Secret> & { readonly placeholder: string; readonly value: string }): Secret {
  return {
    name: "TOKEN",
    allowedHosts: ["api.example.com"],
    allowedPaths: null,
    methods: null,
    locations: ["header", "basic", "query", "body", "websocket"],
    injectHeader: null,
    allowPlaintext: false,
    elsewhere: "refuse",
    sigv4: null,
    oauth2: null,
    ...given,
  };
}

export function headOf(given: Partial<RequestHead> = {}): RequestHead {
  return {
    method: "POST",
    host: "api.example.com",
    secure: true,
    target: "/",
    headers: [],
    hasBody: false,
    contentLength: null,
    webSocket: false,
    ...given,
  };
}
