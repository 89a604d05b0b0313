import { answer, headerOf, type Exchange } from "./wire.js";

const lifetimeS = 3600;

/** Issues access tokens (RFC 6749, sections 4.4 and 6), of which the newest one is good until it is revoked. */
export class OAuthServer {
  #issued = 0;
  #valid = "";

  async token(exchange: Exchange): Promise<void> {
    const form = new URLSearchParams((await exchange.body()).toString());
    const { clientId, clientSecret, refreshToken } = exchange.options.oauth;
    const basic = /^Basic (.+)$/.exec(headerOf(exchange, "authorization"))?.[1] ?? "";
    const [id, secret] = basic
      ? Buffer.from(basic, "base64").toString().split(":")
      : [form.get("client_id"), form.get("client_secret")];
    const grant = form.get("grant_type");
    const isRefresh = grant === "refresh_token" && form.get("refresh_token") === refreshToken;
    if (id !== clientId || secret !== clientSecret || (grant !== "client_credentials" && !isRefresh)) {
      exchange.found("refused");
      return answer(exchange, 400, '{"error":"invalid_client"}', { "content-type": "application/json" });
    }
    this.#valid = `issued-access-token-${++this.#issued}-of-${grant}`;
    exchange.found("issued");
    const body = JSON.stringify({ access_token: this.#valid, token_type: "Bearer", expires_in: lifetimeS });
    answer(exchange, 200, body, { "content-type": "application/json", "cache-control": "no-store" });
  }

  resource(exchange: Exchange): void {
    const isValid = this.#valid !== "" && headerOf(exchange, "authorization") === `Bearer ${this.#valid}`;
    if (isValid) answer(exchange, 200, "the resource\n");
    else answer(exchange, 401, "not with this token\n", { "www-authenticate": 'Bearer error="invalid_token"' });
  }

  revoke(exchange: Exchange): void {
    this.#valid = "";
    answer(exchange, 200, "revoked\n");
  }
}
